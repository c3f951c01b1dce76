//! One rule for values that come as another type than the declared one, whichever way they come in: each is taken as
//! what it is, or refused. A key that a cast rounds or cuts off would find the row of another key, and a feature that
//! one changes is another feature. Only FLOAT and DOUBLE round, as everywhere in SQL.

mod misfit;
mod nested;
mod number;
mod text;

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, TimestampMicrosecondArray, new_null_array};
use datafusion::arrow::compute::{CastOptions, can_cast_types, cast_with_options, kernels::cmp};
use datafusion::arrow::datatypes::{DataType, Date32Type, TimeUnit};

use self::misfit::Why;
pub use self::misfit::{Misfit, shown};
use super::types::timestamp_type;
use crate::clock::DAY;
use crate::error::{Error, Result};

/// Values as `want`, each the same value; else the first one that is none there.
pub fn exact(values: &ArrayRef, want: &DataType) -> Result<ArrayRef, Misfit> {
    use DataType::*;
    let have = values.data_type();
    if have == want {
        return Ok(Arc::clone(values));
    }
    match (have, want) {
        (Null, _) => return Ok(new_null_array(want, values.len())),
        (Dictionary(_, plain), _) => return exact(&lenient(values, plain), want),
        (RunEndEncoded(_, plain), _) => return exact(&lenient(values, plain.data_type()), want),
        (Struct(_), Struct(fields)) => return nested::structs(values, fields),
        _ => (),
    }
    if let (Some(of), Some(element)) = (nested::element(have), nested::element(want)) {
        return nested::lists(values, of, element, want);
    }
    let shown = matches!(want, Utf8 | LargeUtf8 | Utf8View) && have.is_floating();
    if (unlike(have, want) && !shown) || have.is_nested() || want.is_nested() || !can_cast_types(have, want) {
        return match (0..values.len()).find(|row| values.is_valid(*row)) {
            Some(row) => Err(Misfit::new(values, row, want, Why::Kind)),
            None => Ok(new_null_array(want, values.len())),
        };
    }
    match (have, want) {
        (Float16 | Float32 | Float64, Decimal128(..)) => number::decimals_of_floats(values, want),
        (Float16 | Float32 | Float64, _) if want.is_integer() => number::integers_of_floats(values, want),
        (_, Float16 | Float32 | Float64) => number::floats(values, want),
        (Date32, t) if *t == timestamp_type() => days(values),
        _ if is_text(have) => text::read(values, want),
        _ => compared(values, want),
    }
}

/// Days as the instants that they begin.
fn days(values: &ArrayRef) -> Result<ArrayRef, Misfit> {
    let days = values.as_primitive::<Date32Type>();
    let micros: TimestampMicrosecondArray = days.iter().map(|d| i64::from(d?).checked_mul(DAY)).collect();
    let cast: ArrayRef = Arc::new(micros.with_timezone("UTC"));
    first_lost(values, &cast, None, Why::Range)
}

/// A cast, and the way back, which must give the same values.
fn compared(values: &ArrayRef, want: &DataType) -> Result<ArrayRef, Misfit> {
    let (have, cast) = (values.data_type(), lenient(values, want));
    let why = match want {
        DataType::Date32 | DataType::Date64 => Why::Time,
        DataType::Timestamp(..) => Why::Finer,
        _ => Why::Fraction,
    };
    // a text or bytes keep all there is
    let whole = have.is_integer() && (want.is_integer() || want.is_decimal());
    let back = !whole && !is_text(want) && !is_bytes(want) && can_cast_types(want, have);
    let same = back.then(|| same(values, &lenient(&cast, have)));
    first_lost(values, &cast, same.as_ref(), why)
}

/// Per row, whether two arrays of one type hold the same.
fn same(a: &ArrayRef, b: &ArrayRef) -> BooleanArray {
    // what cannot be compared is not known to be the same
    cmp::not_distinct(a, b).unwrap_or_else(|_| BooleanArray::from(vec![false; a.len()]))
}

/// The cast values, where each is there and the same; `why`: what the cast does to those that are not.
fn first_lost(values: &ArrayRef, cast: &ArrayRef, same: Option<&BooleanArray>, why: Why) -> Result<ArrayRef, Misfit> {
    if cast.null_count() == values.null_count() && same.is_none_or(|s| s.false_count() == 0) {
        return Ok(Arc::clone(cast));
    }
    for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
        if cast.is_null(row) {
            let why = if is_text(values.data_type()) { Why::Text } else { Why::Range };
            return Err(Misfit::new(values, row, cast.data_type(), why));
        }
        if same.is_some_and(|s| !s.value(row)) {
            return Err(Misfit::new(values, row, cast.data_type(), why));
        }
    }
    Ok(Arc::clone(cast))
}

/// As [`exact`], for keys: what never means a value of their type is refused by its type, a float as a text too.
pub fn exact_key(values: &ArrayRef, want: &DataType) -> Result<ArrayRef, Misfit> {
    match (0..values.len()).find(|row| values.is_valid(*row)) {
        Some(row) if unlike(values.data_type(), want) => Err(Misfit::new(values, row, want, Why::Kind)),
        _ => exact(values, want),
    }
}

/// Values as `want`. Refuses the first one that would be another value there, and names it.
pub fn exactly(values: &ArrayRef, want: &DataType) -> Result<ArrayRef> {
    exact(values, want).map_err(|m| Error::invalid(m.with_type()).with_hint(bring(want)))
}

fn bring(want: &DataType) -> String {
    format!("bring a value of type {}: a cast that changes it would make another value of it", misfit::name(want))
}

/// NULL where there is no such value; all NULL where there is no such cast.
fn lenient(values: &ArrayRef, want: &DataType) -> ArrayRef {
    cast_with_options(values, want, &CastOptions { safe: true, ..Default::default() })
        .unwrap_or_else(|_| new_null_array(want, values.len()))
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(t: &DataType) -> bool {
    t.is_binary() || matches!(t, DataType::FixedSizeBinary(_))
}

/// Whether no value of type `have` means one of type `want`.
pub fn unlike(have: &DataType, want: &DataType) -> bool {
    use DataType::*;
    match (have, want) {
        _ if have == want || have.is_null() => false,
        (Dictionary(_, have), _) => unlike(have, want),
        (_, Utf8) => have.is_floating() || have.is_nested(),
        (_, Binary) => !(is_text(have) || is_bytes(have)),
        _ if is_text(have) => false,
        _ if want.is_numeric() => !have.is_numeric(),
        (_, Boolean) => true,
        (_, Date32 | Timestamp(..)) => !matches!(have, Date32 | Date64 | Timestamp(..)),
        _ => false,
    }
}

/// Whether a value of type `have` may become another one as `want`, for values that are not known yet.
pub fn loses(have: &DataType, want: &DataType) -> bool {
    use DataType::*;
    if have == want || have.is_null() {
        return false;
    }
    if let Dictionary(_, have) = have {
        return loses(have, want);
    }
    let rounds = match (have, want) {
        (_, Float16 | Float32 | Float64) => false,
        _ if have.is_floating() => want.is_integer() || want.is_decimal(),
        _ if is_text(have) => want.is_decimal() || matches!(want, Date32),
        (Timestamp(..) | Date64, Date32) => true,
        (Timestamp(have, _), Timestamp(want, _)) => ticks(have) > ticks(want),
        _ => match (scale(have), scale(want)) {
            (Some(have), Some(want)) => have > want,
            (Some(have), None) => want.is_integer() && have > 0,
            _ => false,
        },
    };
    rounds || unlike(have, want)
}

fn ticks(unit: &TimeUnit) -> u32 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn scale(t: &DataType) -> Option<i8> {
    match t {
        DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal128(_, s) | DataType::Decimal256(_, s) => Some(*s),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
