//! How many bytes a function would make, from its arguments.

use datafusion::arrow::array::{Array, AsArray, Int64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::logical_expr::ColumnarValue;

use super::capped::values;
use crate::operator::portions::Sizes;

/// `None`: it cannot be told.
pub type Reckon = fn(&[ColumnarValue]) -> Option<u64>;

const DAY: i128 = 86_400_000_000_000;

/// One argument's number or size for each row.
enum Of {
    Numbers(Int64Array),
    Bytes(Sizes, usize),
}

impl Of {
    fn numbers(arg: &ColumnarValue) -> Option<Of> {
        let whole = cast(&values(arg).ok()?, &DataType::Int64).ok()?;
        Some(Of::Numbers(whole.as_primitive::<Int64Type>().clone()))
    }

    fn bytes(arg: &ColumnarValue) -> Option<Of> {
        let list = values(arg).ok()?;
        Some(Of::Bytes(Sizes::of(&list).ok()?, list.len()))
    }

    fn len(&self) -> usize {
        match self {
            Of::Numbers(n) => n.len(),
            Of::Bytes(_, n) => *n,
        }
    }

    /// NULL and negative numbers are 0.
    fn at(&self, row: usize) -> u64 {
        let row = if self.len() == 1 { 0 } else { row };
        match self {
            Of::Numbers(n) if n.is_null(row) => 0,
            Of::Numbers(n) => n.value(row).max(0).unsigned_abs(),
            Of::Bytes(sizes, _) => sizes.at(row),
        }
    }
}

/// The sum over all rows of what `f` says of one.
fn sum(args: &[&Of], f: impl Fn(usize) -> u64) -> u64 {
    let rows = args.iter().map(|a| a.len()).max().unwrap_or(0);
    (0..rows).fold(0, |total, row| total.saturating_add(f(row)))
}

pub fn pad(args: &[ColumnarValue]) -> Option<u64> {
    let (text, wanted) = (Of::bytes(args.first()?)?, Of::numbers(args.get(1)?)?);
    // a character of the filling has up to 4 bytes
    let width = match args.get(2).map(values) {
        Some(Ok(fill)) if fill.len() == 1 && cast(&fill, &DataType::Utf8).is_ok_and(|f| f.as_string::<i32>().value(0).is_ascii()) => 1,
        Some(_) => 4,
        None => 1,
    };
    Some(sum(&[&text, &wanted], |r| wanted.at(r).saturating_mul(width)))
}

pub fn repeat(args: &[ColumnarValue]) -> Option<u64> {
    let (what, times) = (Of::bytes(args.first()?)?, Of::numbers(args.get(1)?)?);
    Some(sum(&[&what, &times], |r| what.at(r).max(1).saturating_mul(times.at(r))))
}

pub fn resize(args: &[ColumnarValue]) -> Option<u64> {
    let (list, wanted) = (Of::bytes(args.first()?)?, Of::numbers(args.get(1)?)?);
    Some(sum(&[&list, &wanted], |r| wanted.at(r).saturating_mul(8)))
}

pub fn all(args: &[ColumnarValue]) -> Option<u64> {
    let parts = args.iter().map(Of::bytes).collect::<Option<Vec<_>>>()?;
    let each: Vec<&Of> = parts.iter().collect();
    Some(sum(&each, |r| parts.iter().fold(0, |total, p| total.saturating_add(p.at(r)))))
}

pub fn twice(args: &[ColumnarValue]) -> Option<u64> {
    all(args.get(..1)?).map(|bytes| bytes.saturating_mul(2))
}

/// Each piece is a text of its own, with its place.
pub fn pieces(args: &[ColumnarValue]) -> Option<u64> {
    all(args.get(..1)?).map(|bytes| bytes.saturating_mul(5))
}

pub fn replace(args: &[ColumnarValue]) -> Option<u64> {
    let [text, from, to] = [Of::bytes(args.first()?)?, Of::bytes(args.get(1)?)?, Of::bytes(args.get(2)?)?];
    Some(sum(&[&text, &from, &to], |r| {
        let places = text.at(r).checked_div(from.at(r)).unwrap_or(text.at(r).saturating_add(1));
        text.at(r).saturating_add(places.saturating_mul(to.at(r)))
    }))
}

/// With the flag `g`, each character may be a place.
pub fn regexp_replace(args: &[ColumnarValue]) -> Option<u64> {
    let (text, to) = (Of::bytes(args.first()?)?, Of::bytes(args.get(2)?)?);
    let many = args.len() > 3;
    Some(sum(&[&text, &to], |r| {
        let places = if many { text.at(r).saturating_add(1) } else { 1 };
        text.at(r).saturating_add(places.saturating_mul(to.at(r)))
    }))
}

pub fn pairs(args: &[ColumnarValue]) -> Option<u64> {
    let (a, b) = (Of::bytes(args.first()?)?, Of::bytes(args.get(1)?)?);
    Some(sum(&[&a, &b], |r| a.at(r).saturating_mul(b.at(r))))
}

/// Eight bytes for each value from the first to the last.
pub fn range(args: &[ColumnarValue]) -> Option<u64> {
    let (first, last, step) = match args {
        [last] => (None, last, None),
        [first, last] => (Some(first), last, None),
        [first, last, step] => (Some(first), last, Some(step)),
        _ => return None,
    };
    let unit = match last.data_type() {
        DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => 1_000_000_000,
            TimeUnit::Millisecond => 1_000_000,
            TimeUnit::Microsecond => 1_000,
            TimeUnit::Nanosecond => 1,
        },
        DataType::Date32 => DAY,
        DataType::Date64 => 1_000_000,
        _ => 1,
    };
    let signed = |arg: &ColumnarValue| {
        let whole = cast(&values(arg).ok()?, &DataType::Int64).ok()?;
        Some(whole.as_primitive::<Int64Type>().clone())
    };
    let first = first.map_or_else(|| Some(Int64Array::from(vec![0])), signed)?;
    let (last, steps) = (signed(last)?, step.map_or_else(|| Some(vec![unit]), steps)?);
    let rows = first.len().max(last.len()).max(steps.len());
    let value = |list: &Int64Array, row: usize| i128::from(list.value(if list.len() == 1 { 0 } else { row }));
    Some((0..rows).fold(0, |total: u64, row| {
        let step = steps[if steps.len() == 1 { 0 } else { row }].unsigned_abs().max(1);
        let way = (value(&last, row) - value(&first, row)).unsigned_abs().saturating_mul(unit.unsigned_abs());
        total.saturating_add(u64::try_from(way / step).unwrap_or(u64::MAX).saturating_add(1).saturating_mul(8))
    }))
}

/// Steps of a range: numbers as they are, intervals in nanoseconds.
fn steps(arg: &ColumnarValue) -> Option<Vec<i128>> {
    let list = values(arg).ok()?;
    if let DataType::Interval(_) = list.data_type() {
        let list = cast(&list, &DataType::Interval(IntervalUnit::MonthDayNano)).ok()?;
        let nanos = |v: &<IntervalMonthDayNanoType as datafusion::arrow::array::ArrowPrimitiveType>::Native| {
            (i128::from(v.months) * 30 + i128::from(v.days)) * DAY + i128::from(v.nanoseconds)
        };
        return Some(list.as_primitive::<IntervalMonthDayNanoType>().values().iter().map(nanos).collect());
    }
    let list = cast(&list, &DataType::Int64).ok()?;
    Some(list.as_primitive::<Int64Type>().values().iter().map(|v| i128::from(*v)).collect())
}

#[cfg(test)]
mod tests {
    use datafusion::scalar::ScalarValue;

    use super::*;

    fn whole(n: i64) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(n)))
    }

    fn text(t: &str) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::from(t))
    }

    #[test]
    fn what_is_made_is_reckoned() {
        assert_eq!(pad(&[text("x"), whole(2_147_483_647), text("y")]), Some(2_147_483_647));
        assert_eq!(pad(&[text("x"), whole(-1)]), Some(0));
        assert_eq!(repeat(&[text("abc"), whole(i64::MAX)]), Some(u64::MAX));
        assert_eq!(range(&[whole(1), whole(300_000_000)]), Some(300_000_000 * 8));
        assert_eq!(range(&[whole(i64::MIN), whole(i64::MAX), whole(1)]), Some(u64::MAX));
        assert_eq!(range(&[whole(10), whole(0), whole(-2)]), Some(6 * 8));
        assert_eq!(replace(&[text("aaaa"), text(""), text("bb")]), Some(4 + 5 * 2));
        assert_eq!(all(&[text("aa"), text("b")]), Some(3));
        let day = |d| ColumnarValue::Scalar(ScalarValue::Date32(Some(d)));
        let month = ColumnarValue::Scalar(ScalarValue::new_interval_mdn(1, 0, 0));
        assert_eq!(range(&[day(0), day(300), month]), Some(11 * 8));
    }
}
