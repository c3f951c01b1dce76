//! `to_timestamp` and its kin: microseconds where the stock ones go through nanoseconds.

use std::sync::Arc;

use chrono::format::{Parsed, StrftimeItems};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Float64Type, TimeUnit};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::{answer, is_text, rows, strict};
use crate::error::Error;

pub const FUNCTIONS: [(&str, TimeUnit); 4] = [
    ("to_timestamp", TimeUnit::Microsecond),
    ("to_timestamp_seconds", TimeUnit::Second),
    ("to_timestamp_millis", TimeUnit::Millisecond),
    ("to_timestamp_micros", TimeUnit::Microsecond),
];

/// Scale of seconds that are counted in microseconds.
const MICROS: i8 = 6;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ToTimestamp {
    stock: Arc<ScalarUDF>,
    unit: TimeUnit,
}

impl ToTimestamp {
    pub fn new(stock: Arc<ScalarUDF>, unit: TimeUnit) -> Self {
        ToTimestamp { stock, unit }
    }

    /// Whether numbers are seconds, whatever the unit of the answer.
    fn of_seconds(&self) -> bool {
        self.stock.name() == "to_timestamp"
    }
}

impl ScalarUDFImpl for ToTimestamp {
    fn name(&self) -> &str {
        self.stock.name()
    }
    fn signature(&self) -> &Signature {
        self.stock.signature()
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let unit = match types.first() {
            // what is finer stays so
            Some(DataType::Timestamp(TimeUnit::Nanosecond, _)) if self.of_seconds() => TimeUnit::Nanosecond,
            _ => self.unit,
        };
        Ok(DataType::Timestamp(unit, Some("UTC".into())))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let target = args.return_type().clone();
        let Some(value) = args.args.first() else { return self.stock.invoke_with_args(args) };
        let have = value.data_type();
        let number = have.is_integer() || have.is_floating() || have.is_decimal();
        if is_text(&have) && args.args.len() > 1 {
            return self.formatted(args, &target);
        }
        if matches!(have, DataType::Timestamp(..) | DataType::Null) {
            return value.cast_to(&target, None);
        }
        let counted = number && self.of_seconds();
        if !(is_text(&have) || counted) {
            return self.stock.invoke_with_args(args)?.cast_to(&target, None);
        }
        let (array, one) = rows(value, args.number_rows)?;
        let made = match have {
            t if is_text(&t) => strict(&strict(&array, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?, &target)?,
            t if t.is_integer() => {
                strict(&strict(&strict(&array, &DataType::Int64)?, &DataType::Timestamp(TimeUnit::Second, None))?, &target)?
            }
            t if t.is_floating() => strict(&from_doubles(&array)?, &target)?,
            _ => strict(&from_decimals(&array)?, &target)?,
        };
        answer(made, one)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }
}

impl ToTimestamp {
    /// The stock function, where nanoseconds hold all; else one value after the other.
    fn formatted(&self, args: ScalarFunctionArgs, target: &DataType) -> DfResult<ColumnarValue> {
        let (values, number_rows) = (args.args.clone(), args.number_rows);
        let fault = match self.stock.invoke_with_args(args) {
            Ok(v) => return v.cast_to(target, None),
            Err(e) => e,
        };
        let one = values.iter().all(|v| matches!(v, ColumnarValue::Scalar(_)));
        let count = if one { 1 } else { number_rows };
        let texts = values.iter().map(|v| strict(&v.to_array(count)?, &DataType::Utf8)).collect::<DfResult<Vec<_>>>()?;
        let Some((texts, formats)) = texts.split_first() else { return Err(fault) };
        match by_formats(texts.as_string(), formats) {
            Some(micros) => {
                answer(strict(&strict(&micros, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?, target)?, one)
            }
            None => Err(fault),
        }
    }
}

/// Microseconds of texts; `None` where one of them has no format that reads it.
fn by_formats(texts: &StringArray, formats: &[ArrayRef]) -> Option<ArrayRef> {
    let one = |row: usize| {
        if texts.is_null(row) {
            return Some(None);
        }
        formats.iter().filter(|f| f.is_valid(row)).find_map(|f| micros(texts.value(row), f.as_string::<i32>().value(row))).map(Some)
    };
    let all = (0..texts.len()).map(one).collect::<Option<Vec<Option<i64>>>>()?;
    Some(Arc::new(Int64Array::from(all)))
}

fn micros(text: &str, format: &str) -> Option<i64> {
    let mut parsed = Parsed::new();
    chrono::format::parse(&mut parsed, text, StrftimeItems::new(format)).ok()?;
    if let Ok(t) = parsed.to_datetime() {
        return Some(t.timestamp_micros());
    }
    let local = parsed.to_naive_datetime_with_offset(0).or_else(|_| parsed.to_naive_date().map(Into::into)).ok()?;
    Some(local.and_utc().timestamp_micros())
}

fn from_doubles(array: &ArrayRef) -> DfResult<ArrayRef> {
    let seconds = strict(array, &DataType::Float64)?;
    let seconds: &Float64Array = seconds.as_primitive::<Float64Type>();
    let micros: Int64Array = seconds.try_unary(|s| {
        let micros = (s * 1e6).round();
        // the bounds are powers of two: both are exact
        if micros >= i64::MIN as f64 && micros < i64::MAX as f64 {
            Ok(micros as i64)
        } else {
            Err(Error::invalid(format!("{s} seconds are out of range")))
        }
    })?;
    strict(&(Arc::new(micros) as ArrayRef), &DataType::Timestamp(TimeUnit::Microsecond, None))
}

fn from_decimals(array: &ArrayRef) -> DfResult<ArrayRef> {
    let seconds = match array.data_type() {
        DataType::Decimal128(..) => Arc::clone(array),
        _ => strict(array, &DataType::Decimal128(38, 9))?,
    };
    let seconds = seconds.as_primitive::<Decimal128Type>();
    let scale = i32::from(MICROS) - i32::from(seconds.scale());
    let power = 10i128.checked_pow(scale.unsigned_abs());
    let micros = seconds.try_unary::<_, datafusion::arrow::datatypes::Int64Type, Error>(|v| {
        let micros = match (scale >= 0, power) {
            (true, Some(p)) => v.checked_mul(p),
            (false, Some(p)) => Some(v.div_euclid(p)),
            (_, None) => None,
        };
        micros.and_then(|m| i64::try_from(m).ok()).ok_or_else(|| Error::invalid("a number of seconds is out of range"))
    })?;
    strict(&(Arc::new(micros) as ArrayRef), &DataType::Timestamp(TimeUnit::Microsecond, None))
}
