//! `date_trunc` beyond the reach of nanoseconds. The calendar repeats every 400 years, to the day of the week.

use std::sync::Arc;

use chrono::{Offset, TimeZone};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::datatypes::{DataType, FieldRef, TimeUnit};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::{answer, farthest, per_second, rows, strict, ticks};
use crate::error::{Error, Result};
use crate::model::local_time::{Doubtful, to_instant};

/// Seconds of 400 years.
const CYCLE: i64 = 146_097 * 86_400;
/// Seconds that shift a cycle so that it begins in 1840.
const BEFORE: i64 = 130 * 365 * 86_400;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Truncate {
    stock: Arc<ScalarUDF>,
}

impl Truncate {
    pub fn new(stock: Arc<ScalarUDF>) -> Self {
        Truncate { stock }
    }
}

impl ScalarUDFImpl for Truncate {
    fn name(&self) -> &str {
        self.stock.name()
    }
    fn aliases(&self) -> &[String] {
        self.stock.aliases()
    }
    fn signature(&self) -> &Signature {
        self.stock.signature()
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.stock.inner().return_type(types)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        self.stock.inner().return_field_from_args(args)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let Some(value) = args.args.get(1) else { return self.stock.invoke_with_args(args) };
        let DataType::Timestamp(unit, zone) = value.data_type() else { return self.stock.invoke_with_args(args) };
        if unit == TimeUnit::Nanosecond {
            return self.stock.invoke_with_args(args);
        }
        let (array, one) = rows(value, args.number_rows)?;
        let all = ticks(&array)?;
        let reach = farthest(unit);
        // weeks and years begin before the instant
        let near = |t: i64| t <= reach && t >= -reach + 366 * 86_400 * per_second(unit);
        if all.iter().flatten().all(near) {
            return self.stock.invoke_with_args(args);
        }
        let close: BooleanArray = all.iter().map(|t| Some(t.is_none_or(near))).collect();
        let kept: Int64Array = all.iter().map(|t| t.filter(|t| near(*t))).collect();
        let kept = strict(&(Arc::new(kept) as ArrayRef), array.data_type())?;
        let kept = self.stocked(&args, kept, array.data_type())?;
        let far: Int64Array = all.iter().map(|t| t.filter(|t| !near(*t))).collect();
        let far = self.far(&args, &far, unit, zone.as_deref(), array.data_type())?;
        answer(zip(&close, &kept, &far)?, one)
    }
    fn output_ordering(&self, inputs: &[ExprProperties]) -> DfResult<SortProperties> {
        self.stock.output_ordering(inputs)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }
}

impl Truncate {
    /// What the stock function makes of an array.
    fn stocked(&self, args: &ScalarFunctionArgs, array: ArrayRef, t: &DataType) -> DfResult<ArrayRef> {
        let mut args = args.clone();
        args.number_rows = array.len();
        args.return_field = Arc::new(args.return_field.as_ref().clone().with_data_type(t.clone()));
        args.arg_fields[1] = Arc::new(args.arg_fields[1].as_ref().clone().with_data_type(t.clone()));
        args.args[1] = ColumnarValue::Array(array);
        let count = args.number_rows;
        strict(&self.stock.invoke_with_args(args)?.to_array(count)?, t)
    }

    fn far(&self, args: &ScalarFunctionArgs, far: &Int64Array, unit: TimeUnit, zone: Option<&str>, t: &DataType) -> DfResult<ArrayRef> {
        let tz = zone.filter(|z| !matches!(*z, "UTC" | "+00:00")).map(parse).transpose()?;
        let second = per_second(unit);
        let local: Int64Array = far.try_unary(|v| match &tz {
            Some(tz) => shift(v, second, |s| Some(s + offset(s, tz)?)),
            None => Ok(v),
        })?;
        let cycles = |v: i64| (v.div_euclid(second) + BEFORE).div_euclid(CYCLE);
        let near: Int64Array = local.unary(|v| v - cycles(v) * CYCLE * second);
        let naive = DataType::Timestamp(unit, None);
        let near = self.stocked(args, strict(&(Arc::new(near) as ArrayRef), &naive)?, &naive)?;
        let near = ticks(&near)?;
        let back = near.iter().zip(local.iter()).map(|(n, v)| match (n, v) {
            (Some(n), Some(v)) => {
                let local = cycles(v).checked_mul(CYCLE * second).and_then(|c| n.checked_add(c)).ok_or_else(out)?;
                match &tz {
                    Some(tz) => shift(local, second, |s| {
                        Some(to_instant(s.checked_mul(1_000_000)?, tz, &mut Doubtful::default()).ok()?.div_euclid(1_000_000))
                    })
                    .map(Some),
                    None => Ok(Some(local)),
                }
            }
            _ => Ok(None),
        });
        let back = back.collect::<Result<Int64Array>>()?;
        strict(&(Arc::new(back) as ArrayRef), t)
    }
}

fn out() -> Error {
    Error::invalid("date_trunc: an instant is out of range")
}

/// Changes the seconds of an instant and keeps what is below them.
fn shift(v: i64, second: i64, change: impl FnOnce(i64) -> Option<i64>) -> Result<i64> {
    let (whole, rest) = (v.div_euclid(second), v.rem_euclid(second));
    change(whole).and_then(|s| s.checked_mul(second)?.checked_add(rest)).ok_or_else(out)
}

fn offset(second: i64, tz: &Tz) -> Option<i64> {
    let at = chrono::DateTime::from_timestamp(second, 0)?.naive_utc();
    Some(i64::from(tz.offset_from_utc_datetime(&at).fix().local_minus_utc()))
}

fn parse(zone: &str) -> Result<Tz> {
    zone.parse().map_err(|_| Error::invalid(format!("time zone {zone:?} is not known")))
}
