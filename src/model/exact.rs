//! One rule for values that come as another type than the declared one: each is taken as what it is, or refused. A key
//! that a cast rounds or cuts off would find the row of another key.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::arrow::compute::{CastOptions, can_cast_types, cast_with_options, kernels::cmp};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use super::types::ColumnType;
use crate::error::{Error, Result};

/// Values as `want`. Refuses the first one that would be another value there, and names it.
pub fn exactly(values: &ArrayRef, want: &DataType) -> Result<ArrayRef> {
    let have = values.data_type();
    if have == want {
        return Ok(Arc::clone(values));
    }
    match have {
        DataType::Dictionary(_, plain) => return exactly(&strict(values, plain)?, want),
        DataType::RunEndEncoded(_, plain) => return exactly(&strict(values, plain.data_type())?, want),
        _ => (),
    }
    if have.is_null() || !compared(want) {
        return strict(values, want);
    }
    if !can_cast_types(have, want) {
        return Err(Error::invalid(format!("{have} cannot become {}", name(want))).with_hint(bring(want)));
    }
    let cast = lenient(values, want)?;
    let same = same(values, &cast)?;
    for row in 0..values.len() {
        if values.is_valid(row) && (cast.is_null(row) || same.as_ref().is_some_and(|s| !s.value(row))) {
            let shown = ArrayFormatter::try_new(values, &FormatOptions::default())?.value(row).to_string();
            let shown: String = shown.chars().take(80).collect();
            let shown = if is_text(have) { format!("{shown:?}") } else { format!("{shown} ({have})") };
            return Err(Error::invalid(format!("{shown} is no {}", name(want))).with_hint(bring(want)));
        }
    }
    Ok(cast)
}

fn bring(want: &DataType) -> String {
    format!("bring a value of type {}: a cast that changes it would make another value of it", name(want))
}

/// As SQL writes it.
fn name(t: &DataType) -> String {
    ColumnType::stored(t).map_or_else(|_| t.to_string(), |t| t.to_string())
}

fn strict(values: &ArrayRef, want: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..Default::default() };
    cast_with_options(values, want, &strict).map_err(|e| Error::from(e).with_hint(bring(want)))
}

/// NULL where there is no such value.
fn lenient(values: &ArrayRef, want: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(values, want, &CastOptions { safe: true, ..Default::default() })?)
}

/// Whether a cast to this type may give another value. Floats round by nature (and are never keys); text and bytes keep
/// all there is.
fn compared(want: &DataType) -> bool {
    use DataType::*;
    want.is_integer()
        || want.is_decimal()
        || matches!(want, Boolean | Date32 | Date64 | Timestamp(..) | Time32(_) | Time64(_) | Duration(_))
}

/// Per value, whether its cast means the same; `None` where it always does.
fn same(values: &ArrayRef, cast: &ArrayRef) -> Result<Option<BooleanArray>> {
    let (have, want) = (values.data_type(), cast.data_type());
    if have.is_integer() && (want.is_integer() || want.is_decimal()) {
        return Ok(None);
    }
    if !is_text(have) {
        return match can_cast_types(want, have) {
            true => Ok(Some(cmp::not_distinct(values, &lenient(cast, have)?)?)),
            false => Ok(None),
        };
    }
    let Some(finest) = finest(want) else { return Ok(None) };
    // what the finest type cannot hold, the coarser one has parsed by itself
    let parsed = lenient(values, &finest)?;
    let same = cmp::not_distinct(&parsed, &lenient(cast, &finest)?)?;
    Ok(Some((0..values.len()).map(|row| Some(same.value(row) || parsed.is_null(row))).collect()))
}

/// The type that keeps of a text what parsing it as `t` would round or cut off.
fn finest(t: &DataType) -> Option<DataType> {
    match t {
        DataType::Decimal128(..) => Some(DataType::Decimal256(76, 38)),
        DataType::Date32 | DataType::Date64 => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
        DataType::Timestamp(_, zone) => Some(DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())),
        _ => None,
    }
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether no value of type `have` means one of type `want`.
pub fn unlike(have: &DataType, want: &DataType) -> bool {
    use DataType::*;
    match (have, want) {
        _ if have == want || have.is_null() => false,
        (Dictionary(_, have), _) => unlike(have, want),
        (_, Utf8) => have.is_floating() || have.is_nested(),
        (_, Binary) => !(is_text(have) || have.is_binary() || matches!(have, FixedSizeBinary(_))),
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
