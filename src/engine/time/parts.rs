//! Units of time: differences and sums that go by the calendar. The functions have the names and meanings of DuckDB and
//! Snowflake: `date_diff` counts the beginnings of units between two instants, `date_add` goes a number of units on.

use std::sync::Arc;

use chrono::{DateTime, Datelike, Months, NaiveDateTime};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::{answer, is_text, strict, ticks};
use crate::engine::columnar::arrays;
use crate::error::{Error, Result, nearest};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// Year 1 to the end of year 9999.
const EARLIEST: i64 = -62_135_596_800 * SECOND;
const LATEST: i64 = 253_402_300_800 * SECOND - 1;

/// A unit: so many microseconds, or so many months.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Micros(i64),
    /// Begins on Mondays.
    Week,
    Months(i32),
}

const UNITS: &[(&str, Unit)] = &[
    ("microsecond", Unit::Micros(1)),
    ("millisecond", Unit::Micros(1_000)),
    ("second", Unit::Micros(SECOND)),
    ("minute", Unit::Micros(60 * SECOND)),
    ("hour", Unit::Micros(3_600 * SECOND)),
    ("day", Unit::Micros(DAY)),
    ("week", Unit::Week),
    ("month", Unit::Months(1)),
    ("quarter", Unit::Months(3)),
    ("year", Unit::Months(12)),
    ("decade", Unit::Months(120)),
];

/// Short names, as Snowflake and DuckDB take them.
const SHORT: &[(&str, &str)] = &[
    ("us", "microsecond"),
    ("usec", "microsecond"),
    ("ms", "millisecond"),
    ("msec", "millisecond"),
    ("s", "second"),
    ("sec", "second"),
    ("min", "minute"),
    ("m", "minute"),
    ("mi", "minute"),
    ("h", "hour"),
    ("hr", "hour"),
    ("hh", "hour"),
    ("d", "day"),
    ("dd", "day"),
    ("w", "week"),
    ("wk", "week"),
    ("mon", "month"),
    ("mm", "month"),
    ("qtr", "quarter"),
    ("q", "quarter"),
    ("y", "year"),
    ("yr", "year"),
    ("yy", "year"),
    ("yyyy", "year"),
];

fn unit(text: &str) -> Result<Unit> {
    let lower = text.trim().to_lowercase();
    let singular = lower.strip_suffix('s').filter(|s| s.len() > 1).unwrap_or(&lower);
    let long = SHORT.iter().find(|(s, _)| *s == lower || *s == singular).map_or(singular, |(_, long)| long);
    UNITS.iter().find(|(n, _)| *n == long).map(|(_, u)| *u).ok_or_else(|| {
        let names: Vec<&str> = UNITS.iter().map(|(n, _)| *n).collect();
        let known = format!("the units are {}", names.join(", "));
        let hint = match nearest(&lower, names.iter().copied()) {
            Some(best) => format!("did you mean {best:?}? {known}"),
            None => known,
        };
        Error::invalid(format!("{text:?} is not a unit of time")).with_hint(hint)
    })
}

fn civil(micros: i64) -> Result<NaiveDateTime> {
    DateTime::from_timestamp_micros(micros).map(|d| d.naive_utc()).ok_or_else(out)
}

fn out() -> Error {
    Error::invalid("an instant is out of range").with_hint("instants go from year 1 to year 9999")
}

impl Unit {
    /// How many units began before an instant, from some beginning on.
    fn number(self, micros: i64) -> Result<i64> {
        Ok(match self {
            Unit::Micros(n) => micros.div_euclid(n),
            // the first of January 1970 was a Thursday
            Unit::Week => (micros.div_euclid(DAY) + 3).div_euclid(7),
            Unit::Months(n) => {
                let at = civil(micros)?;
                (i64::from(at.year()) * 12 + i64::from(at.month0())).div_euclid(n.into())
            }
        })
    }

    fn add(self, micros: i64, count: i64) -> Result<i64> {
        let sum = match self {
            Unit::Micros(n) => count.checked_mul(n).and_then(|c| micros.checked_add(c)),
            Unit::Week => count.checked_mul(7 * DAY).and_then(|c| micros.checked_add(c)),
            Unit::Months(n) => {
                let months = count.checked_mul(n.into()).ok_or_else(out)?;
                let by = Months::new(u32::try_from(months.unsigned_abs()).map_err(|_| out())?);
                let at = civil(micros)?;
                // the day of a shorter month is its last one
                let sum = if months < 0 { at.checked_sub_months(by) } else { at.checked_add_months(by) };
                sum.map(|t| t.and_utc().timestamp_micros())
            }
        };
        sum.filter(|s| (EARLIEST..=LATEST).contains(s)).ok_or_else(out)
    }

    /// Whole days stay dates.
    fn of_days(self) -> bool {
        !matches!(self, Unit::Micros(n) if n < DAY)
    }
}

/// The functions of this file.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    vec![
        Arc::new(ScalarUDF::new_from_impl(Difference { signature: signature() })),
        Arc::new(ScalarUDF::new_from_impl(Sum { signature: signature() })),
    ]
}

/// An argument that is an instant, a date or a text of one; dates stay where `days`.
pub fn instant(function: &str, t: &DataType, days: bool) -> DfResult<DataType> {
    use DataType::*;
    Ok(match t {
        Date32 | Date64 if days => Date32,
        Timestamp(_, zone) => Timestamp(TimeUnit::Microsecond, zone.clone()),
        Date32 | Date64 | Null => Timestamp(TimeUnit::Microsecond, None),
        t if is_text(t) => Timestamp(TimeUnit::Microsecond, None),
        t => return plan_err!("{function} wants instants, dates or texts of them, not {t}"),
    })
}

fn of_unit(function: &str, t: &DataType) -> DfResult<DataType> {
    match t {
        DataType::Null => Ok(DataType::Utf8),
        t if is_text(t) => Ok(DataType::Utf8),
        t => plan_err!("{function} wants a unit of time first ('day', 'month', …), not {t}"),
    }
}

/// The unit of each row: most often it is the same, and read once.
struct Units<'a> {
    array: &'a ArrayRef,
    last: Option<(String, Unit)>,
}

impl Units<'_> {
    fn at(&mut self, row: usize) -> Result<Option<Unit>> {
        if self.array.is_null(row) {
            return Ok(None);
        }
        let text = self.array.as_string::<i32>().value(row);
        if let Some((last, unit)) = &self.last
            && last == text
        {
            return Ok(Some(*unit));
        }
        let found = unit(text)?;
        self.last = Some((text.to_string(), found));
        Ok(Some(found))
    }
}

/// `date_diff(unit, from, to)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Difference {
    signature: Signature,
}

impl ScalarUDFImpl for Difference {
    fn name(&self) -> &str {
        "date_diff"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [unit, from, to] = types else { return plan_err!("date_diff wants a unit and two instants: date_diff('day', a, b)") };
        Ok(vec![of_unit("date_diff", unit)?, instant("date_diff", from, false)?, instant("date_diff", to, false)?])
    }
    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Int64)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let (arrays, one) = arrays(&args)?;
        let [units, from, to] = arrays.as_slice() else { return plan_err!("date_diff wants three arguments") };
        let (from, to, mut units) = (ticks(from)?, ticks(to)?, Units { array: units, last: None });
        let difference = |row: usize| -> Result<Option<i64>> {
            let Some(unit) = units.at(row)? else { return Ok(None) };
            if from.is_null(row) || to.is_null(row) {
                return Ok(None);
            }
            Ok(Some(unit.number(to.value(row))? - unit.number(from.value(row))?))
        };
        let made: Int64Array = (0..from.len()).map(difference).collect::<Result<_>>()?;
        answer(Arc::new(made), one)
    }
}

/// `date_add(unit, count, instant)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    signature: Signature,
}

impl ScalarUDFImpl for Sum {
    fn name(&self) -> &str {
        "date_add"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [unit, count, to] = types else {
            return plan_err!("date_add wants a unit, a number and an instant: date_add('day', 3, t); or write t + INTERVAL '3 days'");
        };
        if !(count.is_integer() || count.is_null()) {
            return plan_err!("date_add wants a whole number of units, not {count}");
        }
        Ok(vec![of_unit("date_add", unit)?, DataType::Int64, instant("date_add", to, true)?])
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match types {
            [_, _, t] => Ok(t.clone()),
            _ => plan_err!("date_add wants three arguments"),
        }
    }
    fn return_field_from_args(&self, args: datafusion::logical_expr::ReturnFieldArgs) -> DfResult<datafusion::arrow::datatypes::FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let mut t = self.return_type(&types)?;
        // hours of a date make an instant; which unit it is must be known now
        if t == DataType::Date32 {
            let text = args.scalar_arguments.first().copied().flatten().and_then(|s| s.try_as_str().flatten());
            match text.map(unit) {
                Some(Ok(u)) if u.of_days() => {}
                Some(Err(e)) => return Err(e.into()),
                _ => t = DataType::Timestamp(TimeUnit::Microsecond, None),
            }
        }
        Ok(Arc::new(datafusion::arrow::datatypes::Field::new(self.name(), t, true)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let target = args.return_type().clone();
        let (arrays, one) = arrays(&args)?;
        let [units, counts, to] = arrays.as_slice() else { return plan_err!("date_add wants three arguments") };
        let zone = match to.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let instants = ticks(&strict(to, &DataType::Timestamp(TimeUnit::Microsecond, zone))?)?;
        let (counts, mut units) = (counts.as_primitive::<Int64Type>(), Units { array: units, last: None });
        let sum = |row: usize| -> Result<Option<i64>> {
            let Some(unit) = units.at(row)? else { return Ok(None) };
            if counts.is_null(row) || instants.is_null(row) {
                return Ok(None);
            }
            unit.add(instants.value(row), counts.value(row)).map(Some)
        };
        let made: Int64Array = (0..instants.len()).map(sum).collect::<Result<_>>()?;
        let naive = strict(&(Arc::new(made) as ArrayRef), &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        answer(strict(&naive, &target)?, one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        crate::model::instant::parse_instant(text).unwrap().micros
    }

    #[test]
    fn beginnings_are_counted() {
        let diff = |u: &str, a: &str, b: &str| unit(u).unwrap().number(at(b)).unwrap() - unit(u).unwrap().number(at(a)).unwrap();
        assert_eq!(diff("year", "2023-12-31 23:59", "2024-01-01"), 1);
        assert_eq!(diff("months", "2024-01-31", "2024-02-01"), 1);
        assert_eq!(diff("quarter", "2024-01-01", "2023-12-31"), -1);
        // Sunday and Monday
        assert_eq!(diff("week", "2024-03-03", "2024-03-04"), 1);
        assert_eq!(diff("week", "1969-12-28", "1969-12-29"), 1);
        assert_eq!(diff("hour", "1969-12-31 23:59", "1970-01-01 00:00"), 1);
        assert_eq!(diff("day", "0001-01-01", "9999-12-31"), 3_652_058);
    }

    #[test]
    fn sums_keep_the_calendar() {
        let add = |u: &str, n: i64, t: &str| unit(u).unwrap().add(at(t), n);
        assert_eq!(add("month", 1, "2024-01-31").unwrap(), at("2024-02-29"));
        assert_eq!(add("year", -1, "2024-02-29 10:00").unwrap(), at("2023-02-28 10:00"));
        assert_eq!(add("week", 2, "2024-01-01").unwrap(), at("2024-01-15"));
        assert_eq!(add("ms", -1, "1970-01-01").unwrap(), -1_000);
        for (u, n) in [("year", 8_000), ("decade", i64::MAX), ("day", i64::MAX), ("month", i64::from(u32::MAX) * 4), ("us", i64::MAX)] {
            assert!(add(u, n, "2024-01-01").is_err(), "{u}");
        }
    }

    #[test]
    fn units_are_named() {
        for (text, same) in [("Days", "day"), ("hh", "hour"), ("yrs", "year"), ("s", "second"), ("secs", "second")] {
            assert_eq!(unit(text).unwrap(), unit(same).unwrap(), "{text}");
        }
        assert!(unit("fortnight").unwrap_err().hint().unwrap().contains("the units are"));
    }
}
