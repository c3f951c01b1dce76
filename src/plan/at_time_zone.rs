//! `t AT TIME ZONE 'zone'`: what has no zone is a local time there, what has one is shown there. Local times on a switch of
//! the clocks have their later reading, as in feature views, and are told of.

use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, new_null_array};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use datafusion::common::{DataFusionError, Result as DfResult, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::scalar::ScalarValue;

use crate::error::Error;
use crate::model::local_time::{Doubtful, to_instant};
use crate::sql::marks::AT_ZONE;

/// Who is told of doubtful local times in a zone.
pub type Tell = Arc<dyn Fn(&Doubtful, &str) + Send + Sync>;

/// The function; `tell` hears of doubtful local times.
pub fn function(tell: Option<Tell>) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(AtTimeZone { signature: Signature::user_defined(Volatility::Immutable), tell }))
}

/// An expression as of a zone.
pub fn call(e: Expr, zone: &str) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(function(None), vec![e, lit(zone)]))
}

struct AtTimeZone {
    signature: Signature,
    tell: Option<Tell>,
}

impl fmt::Debug for AtTimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(AT_ZONE)
    }
}

impl PartialEq for AtTimeZone {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for AtTimeZone {}

impl Hash for AtTimeZone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        AT_ZONE.hash(state);
    }
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        AT_ZONE
    }
    /// The name of what is shown: AT TIME ZONE was a cast once, and names of columns stay.
    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        match args {
            [value, _] => Ok(value.schema_name().to_string()),
            _ => plan_err!("AT TIME ZONE wants a timestamp and a zone"),
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        use DataType::*;
        let [value, zone] = types else { return plan_err!("AT TIME ZONE wants a timestamp and a zone") };
        let value = match value {
            Timestamp(..) => value.clone(),
            Utf8 | LargeUtf8 | Utf8View | Null => Utf8,
            Date32 | Date64 => Timestamp(TimeUnit::Microsecond, None),
            other => return plan_err!("AT TIME ZONE wants a timestamp, a date or a text, not {other}"),
        };
        match zone {
            Utf8 | LargeUtf8 | Utf8View => Ok(vec![value, Utf8]),
            other => plan_err!("AT TIME ZONE wants the name of a zone, not {other}"),
        }
    }
    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        plan_err!("the type depends on the zone")
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let zone = match args.scalar_arguments {
            [_, Some(ScalarValue::Utf8(Some(z)) | ScalarValue::LargeUtf8(Some(z)) | ScalarValue::Utf8View(Some(z)))] => z.as_str(),
            _ => return plan_err!("AT TIME ZONE wants the name of a zone as a text, such as 'Europe/Berlin'"),
        };
        parse(zone)?;
        let unit = match args.arg_fields.first().map(|f| f.data_type()) {
            Some(DataType::Timestamp(unit, _)) => *unit,
            _ => TimeUnit::Microsecond,
        };
        Ok(Arc::new(Field::new(AT_ZONE, DataType::Timestamp(unit, Some(zone.into())), true)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let target = args.return_type().clone();
        let Some(value) = args.args.first() else { return plan_err!("AT TIME ZONE wants a timestamp") };
        let one = matches!(value, ColumnarValue::Scalar(_));
        let array = value.to_array(if one { 1 } else { args.number_rows })?;
        let made = self.shown(&array, &target)?;
        Ok(match one {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}

impl AtTimeZone {
    fn shown(&self, array: &ArrayRef, target: &DataType) -> DfResult<ArrayRef> {
        let DataType::Timestamp(unit, Some(zone)) = target else { return plan_err!("AT TIME ZONE without a zone") };
        let strict = CastOptions { safe: false, ..Default::default() };
        match array.data_type() {
            DataType::Null => Ok(new_null_array(target, array.len())),
            DataType::Timestamp(_, Some(_)) => Ok(cast_with_options(array, target, &strict)?),
            DataType::Timestamp(_, None) => {
                let ticks =
                    cast_with_options(&cast_with_options(array, &DataType::Timestamp(*unit, None), &strict)?, &DataType::Int64, &strict)?;
                self.local(ticks.as_primitive(), *unit, zone, target)
            }
            _ => self.texts(array, *unit, zone, target),
        }
    }

    /// Texts with a zone of their own are instants, others local times.
    fn texts(&self, array: &ArrayRef, unit: TimeUnit, zone: &str, target: &DataType) -> DfResult<ArrayRef> {
        let lenient = CastOptions { safe: true, ..Default::default() };
        let made = cast_with_options(array, target, &lenient)?;
        if made.null_count() == array.null_count() {
            return Ok(made);
        }
        let strict = CastOptions { safe: false, ..Default::default() };
        let local = cast_with_options(array, &DataType::Timestamp(unit, None), &strict)?;
        let local = self.shown(&local, &DataType::Timestamp(unit, Some(zone.into())))?;
        Ok(datafusion::arrow::compute::kernels::zip::zip(&datafusion::arrow::compute::is_null(&made)?, &local, &made)?)
    }

    fn local(&self, ticks: &Int64Array, unit: TimeUnit, zone: &str, target: &DataType) -> DfResult<ArrayRef> {
        let tz = parse(zone)?;
        let per_second = match unit {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000i64,
        };
        let doubtful = RefCell::new(Doubtful::default());
        let instants = ticks.try_unary::<_, Int64Type, DataFusionError>(|t| {
            // zones differ by whole seconds
            let (second, rest) = (t.div_euclid(per_second), t.rem_euclid(per_second));
            let out = || Error::invalid(format!("a local time in {zone} is out of range"));
            let local = second.checked_mul(1_000_000).ok_or_else(out)?;
            let at = to_instant(local, &tz, &mut doubtful.borrow_mut())?;
            Ok((at / 1_000_000).checked_mul(per_second).and_then(|v| v.checked_add(rest)).ok_or_else(out)?)
        })?;
        let doubtful = doubtful.into_inner();
        if let (Some(tell), true) = (&self.tell, doubtful.count > 0) {
            tell(&doubtful, zone);
        }
        Ok(cast_with_options(&instants, target, &CastOptions { safe: false, ..Default::default() })?)
    }
}

fn parse(zone: &str) -> DfResult<Tz> {
    zone.parse::<Tz>().map_err(|_| {
        Error::invalid(format!("time zone {zone:?} is not known"))
            .with_hint("write a name such as 'Europe/Berlin', 'UTC' or '+02:00'")
            .into()
    })
}
