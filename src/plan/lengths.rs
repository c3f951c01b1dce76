//! Lengths of time meet as nanoseconds. The engine compares intervals by their fields, months first, so that 36 hours are less
//! than a day, and 64 days between two timestamps, which have no days but microseconds, less than INTERVAL '10 days'. As in
//! PostgreSQL a day has 24 hours here, and a month 30 days.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, Result as DfResult, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Between, BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

const DAY_NANOS: i128 = 86_400_000_000_000;
/// Nanoseconds of the longest interval have 29 digits.
const LENGTH: DataType = DataType::Decimal128(38, 0);

/// No session has it registered.
pub fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(LengthNanos { signature: Signature::any(1, Volatility::Immutable) }))
}

fn nanos(e: &Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(function(), vec![e.clone()]))
}

fn is_length(t: &DataType) -> bool {
    matches!(t, DataType::Interval(_) | DataType::Duration(_))
}

/// Whether an expression may compare lengths.
pub fn concerns(e: &Expr, schema: &DFSchema) -> DfResult<bool> {
    let stored = schema.fields().iter().any(|f| is_length(f.data_type()));
    e.exists(|e| {
        Ok(match e {
            Expr::Literal(v, _) => is_length(&v.data_type()),
            Expr::Cast(c) => is_length(c.field.data_type()),
            Expr::BinaryExpr(_) | Expr::Between(_) => stored,
            _ => false,
        })
    })
}

/// A comparison of lengths as one of their nanoseconds; `None`: it is none, or both are durations, which are compared rightly.
pub fn compared(e: &Expr, schema: &DFSchema) -> DfResult<Option<Expr>> {
    let meet = |parts: &[&Expr]| {
        let types = parts.iter().map(|p| p.get_type(schema)).collect::<DfResult<Vec<_>>>()?;
        Ok::<_, datafusion::common::DataFusionError>(
            types.iter().all(is_length) && types.iter().any(|t| matches!(t, DataType::Interval(_))),
        )
    };
    use Operator::*;
    Ok(match e {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom) && meet(&[left, right])? =>
        {
            Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(nanos(left)), *op, Box::new(nanos(right)))))
        }
        Expr::Between(Between { expr, negated, low, high }) if meet(&[expr, low, high])? => {
            Some(Expr::Between(Between::new(Box::new(nanos(expr)), *negated, Box::new(nanos(low)), Box::new(nanos(high)))))
        }
        _ => None,
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LengthNanos {
    signature: Signature,
}

impl ScalarUDFImpl for LengthNanos {
    fn name(&self) -> &str {
        "length_nanos"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match types {
            [t] if is_length(t) => Ok(LENGTH),
            other => plan_err!("length_nanos wants an interval, not {other:?}"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let Some(value) = args.args.first() else { return plan_err!("length_nanos wants an interval") };
        let one = matches!(value, ColumnarValue::Scalar(_));
        let lengths = in_nanos(&value.to_array(if one { 1 } else { args.number_rows })?)?;
        Ok(match one {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?),
            false => ColumnarValue::Array(Arc::new(lengths)),
        })
    }
}

fn in_nanos(lengths: &ArrayRef) -> DfResult<Decimal128Array> {
    let per_tick = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    let nanos: Decimal128Array = match lengths.data_type() {
        DataType::Duration(unit) => {
            let ticks = cast(lengths, &DataType::Int64)?;
            let ticks = ticks.as_primitive::<datafusion::arrow::datatypes::Int64Type>();
            ticks.iter().map(|t| t.map(|t| i128::from(t) * per_tick(unit))).collect()
        }
        _ => {
            let all = cast(lengths, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let length = |v: datafusion::arrow::datatypes::IntervalMonthDayNano| {
                (i128::from(v.months) * 30 + i128::from(v.days)) * DAY_NANOS + i128::from(v.nanoseconds)
            };
            all.as_primitive::<IntervalMonthDayNanoType>().iter().map(|v| v.map(length)).collect()
        }
    };
    Ok(nanos.with_precision_and_scale(38, 0)?)
}
