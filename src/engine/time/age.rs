//! `age(to, from)`: years, months, days and a time between two instants, counted as PostgreSQL counts them.

use std::sync::Arc;

use chrono::{DateTime, Datelike, Months, NaiveDateTime, Timelike};
use datafusion::arrow::array::{Array, IntervalMonthDayNanoArray};
use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::parts::instant;
use super::{answer, ticks};
use crate::engine::columnar::arrays;
use crate::error::{Error, Result};

const DAY: i64 = 86_400_000_000_000;

/// The function.
pub fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Age { signature: Signature::user_defined(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Age {
    signature: Signature,
}

impl ScalarUDFImpl for Age {
    fn name(&self) -> &str {
        "age"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [to, from] = types else { return plan_err!("age wants one or two instants: age(to, from)") };
        Ok(vec![instant("age", to, false)?, instant("age", from, false)?])
    }
    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let (arrays, one) = arrays(&args)?;
        let [to, from] = arrays.as_slice() else { return plan_err!("age wants two instants") };
        let (to, from) = (ticks(to)?, ticks(from)?);
        let row = |i: usize| match to.is_null(i) || from.is_null(i) {
            true => Ok(None),
            false => age(to.value(i), from.value(i)).map(Some),
        };
        let made: IntervalMonthDayNanoArray = (0..to.len()).map(row).collect::<Result<_>>()?;
        answer(Arc::new(made), one)
    }
}

fn civil(micros: i64) -> Result<NaiveDateTime> {
    DateTime::from_timestamp_micros(micros)
        .map(|d| d.naive_utc())
        .ok_or_else(|| Error::invalid("age: an instant is out of range").with_hint("instants go from year 1 to year 9999"))
}

fn age(to: i64, from: i64) -> Result<IntervalMonthDayNano> {
    if to < from {
        let back = age(from, to)?;
        return Ok(IntervalMonthDayNanoType::make_value(-back.months, -back.days, -back.nanoseconds));
    }
    let (later, earlier) = (civil(to)?, civil(from)?);
    let mut nanos = nanos(later) - nanos(earlier);
    let mut days = later.day() as i32 - earlier.day() as i32;
    let mut months = (later.year() - earlier.year()) * 12 + later.month0() as i32 - earlier.month0() as i32;
    if nanos < 0 {
        nanos += DAY;
        days -= 1;
    }
    if days < 0 {
        days += days_of_month(earlier);
        months -= 1;
    }
    Ok(IntervalMonthDayNanoType::make_value(months, days, nanos))
}

fn nanos(t: NaiveDateTime) -> i64 {
    i64::from(t.num_seconds_from_midnight()) * 1_000_000_000 + i64::from(t.nanosecond())
}

/// PostgreSQL borrows the days of the month that the earlier instant is in.
fn days_of_month(t: NaiveDateTime) -> i32 {
    let first = t.date().with_day(1).unwrap_or(t.date());
    first.checked_add_months(Months::new(1)).map_or(31, |next| (next - first).num_days() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_postgresql() {
        let at = |text: &str| crate::model::instant::parse_instant(text).unwrap().micros;
        for (to, from, months, days, hours) in [
            ("2001-04-10", "1957-06-13", 43 * 12 + 9, 27, 0),
            ("2024-03-01", "2024-01-31", 1, 1, 0),
            ("2024-01-01 10:00", "2024-01-01 12:00", 0, 0, -2),
            ("2024-03-01 01:00", "2024-02-28 23:00", 0, 1, 2),
        ] {
            let made = age(at(to), at(from)).unwrap();
            assert_eq!(made, IntervalMonthDayNanoType::make_value(months, days, hours * 3_600_000_000_000), "{to} {from}");
        }
    }
}
