//! Nanoseconds as microseconds, rounded down or up, so that a comparison with microseconds stays what it was:
//! `n < m` is `floor(n) < m`, `n > m` is `ceil(n) > m`.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType};
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

/// An expression of nanoseconds in whole microseconds.
pub fn call(nanos: Expr, up: bool) -> Expr {
    let f = WholeMicros { up, signature: Signature::any(1, Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(f)), vec![nanos]))
}

/// Both functions: no session has them registered.
pub fn functions() -> [Arc<ScalarUDF>; 2] {
    [false, true].map(|up| Arc::new(ScalarUDF::new_from_impl(WholeMicros { up, signature: Signature::any(1, Volatility::Immutable) })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WholeMicros {
    up: bool,
    signature: Signature,
}

impl ScalarUDFImpl for WholeMicros {
    fn name(&self) -> &str {
        if self.up { "micros_up" } else { "micros_down" }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match types {
            [DataType::Timestamp(_, zone)] => Ok(DataType::Timestamp(TimeUnit::Microsecond, zone.clone())),
            other => plan_err!("{} wants a timestamp, not {other:?}", self.name()),
        }
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let DataType::Timestamp(_, zone) = args.return_type().clone() else { return plan_err!("{} wants a timestamp", self.name()) };
        let Some(value) = args.args.first() else { return plan_err!("{} wants a timestamp", self.name()) };
        let one = matches!(value, ColumnarValue::Scalar(_));
        let array = value.to_array(if one { 1 } else { args.number_rows })?;
        let up = i64::from(self.up);
        let whole = |n: i64| n.div_euclid(1_000) + if n.rem_euclid(1_000) == 0 { 0 } else { up };
        let micros = array.as_primitive::<TimestampNanosecondType>().unary::<_, TimestampMicrosecondType>(whole).with_timezone_opt(zone);
        Ok(match one {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&micros, 0)?),
            false => ColumnarValue::Array(Arc::new(micros)),
        })
    }
}
