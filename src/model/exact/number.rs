//! Numbers that change between floats, decimals and integers.

use std::fmt::Display;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};

use super::misfit::{Misfit, Why};
use super::{compared, first_lost, is_text, lenient};

/// Whole floats as integers.
pub(super) fn integers_of_floats(values: &ArrayRef, want: &DataType) -> Result<ArrayRef, Misfit> {
    let wide = lenient(values, &DataType::Float64);
    let whole: BooleanArray = wide.as_primitive::<Float64Type>().iter().map(|v| Some(v.is_none_or(|v| v == v.trunc()))).collect();
    // a fraction comes first: what cannot hold 300.5 is no advice about 300.5
    if let Some(row) = (0..whole.len()).find(|row| !whole.value(*row) && wide.as_primitive::<Float64Type>().value(*row).is_finite()) {
        return Err(Misfit::new(values, row, want, Why::Fraction));
    }
    first_lost(values, &lenient(values, want), None, Why::Range)
}

/// Floats as decimals: the number that the float is written as, and nothing else.
pub(super) fn decimals_of_floats(values: &ArrayRef, want: &DataType) -> Result<ArrayRef, Misfit> {
    match values.data_type() {
        DataType::Float64 => decimals(values, want, values.as_primitive::<Float64Type>().iter()),
        _ => {
            let wide = lenient(values, &DataType::Float32);
            decimals(values, want, wide.as_primitive::<Float32Type>().iter())
        }
    }
}

/// Each value as the decimal that its text says.
pub(super) fn decimals<T: Display>(values: &ArrayRef, want: &DataType, each: impl Iterator<Item = Option<T>>) -> Result<ArrayRef, Misfit> {
    let DataType::Decimal128(precision, scale) = want else { return compared(values, want) };
    let read = |(row, value): (usize, Option<T>)| {
        value.map(|v| decimal(&v.to_string(), *precision, *scale).map_err(|why| Misfit::new(values, row, want, why))).transpose()
    };
    let made = each.enumerate().map(read).collect::<Result<Decimal128Array, _>>()?;
    match made.with_precision_and_scale(*precision, *scale) {
        Ok(made) => Ok(Arc::new(made)),
        Err(_) => Err(Misfit::new(values, 0, want, Why::Range)),
    }
}

/// The number that a text says, times 10^scale.
fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Why> {
    let text = text.trim();
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i32>().map_err(|_| Why::Text)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        // NaN and infinity are no text
        return Err(if text.eq_ignore_ascii_case("nan") || text.eq_ignore_ascii_case("inf") { Why::Range } else { Why::Text });
    }
    let digits = digits.trim_start_matches('0');
    let shift = i64::from(exponent) + i64::from(scale) - fraction.len() as i64;
    let cut = digits.len().saturating_sub(usize::try_from(-shift).unwrap_or(0));
    let (kept, lost) = if shift < 0 { digits.split_at(cut) } else { (digits, "") };
    if lost.bytes().any(|b| b != b'0') {
        return Err(Why::Fraction);
    }
    if kept.is_empty() {
        return Ok(0);
    }
    let length = kept.len() as i64 + shift.max(0);
    if length > i64::from(precision) {
        return Err(Why::Range);
    }
    let kept = format!("{kept}{}", "0".repeat(usize::try_from(shift.max(0)).unwrap_or(0)));
    let number: i128 = kept.parse().map_err(|_| Why::Range)?;
    Ok(if negative { -number } else { number })
}

/// Numbers and texts as floats, which may lose digits, but not all of them.
pub(super) fn floats(values: &ArrayRef, want: &DataType) -> Result<ArrayRef, Misfit> {
    let cast = lenient(values, want);
    let finite = |a: &ArrayRef| -> BooleanArray {
        lenient(a, &DataType::Float64).as_primitive::<Float64Type>().iter().map(|v| Some(v.is_none_or(f64::is_finite))).collect()
    };
    let now = finite(&cast);
    if now.false_count() == 0 {
        return first_lost(values, &cast, None, Why::Range);
    }
    // what is infinite, or not a number, was so before
    let before = match is_text(values.data_type()) {
        true => super::text::finite(values),
        false => finite(values),
    };
    let same: BooleanArray = (0..values.len()).map(|row| Some(before.value(row) == now.value(row))).collect();
    first_lost(values, &cast, Some(&same), Why::Range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_one_number() {
        for (text, precision, scale, want) in [
            ("1.5", 3, 1, Ok(15)),
            ("-1.50", 3, 1, Ok(-15)),
            ("1e3", 6, 2, Ok(100_000)),
            ("15e-1", 3, 1, Ok(15)),
            (" +.5 ", 3, 1, Ok(5)),
            ("000.000", 3, 1, Ok(0)),
            ("0.0000000000000000000000000000000000000000001", 38, 10, Err(Why::Fraction)),
            ("1.55", 3, 1, Err(Why::Fraction)),
            ("100", 3, 1, Err(Why::Range)),
            ("1e999999999", 38, 0, Err(Why::Range)),
            ("1e-999999999", 38, 0, Err(Why::Fraction)),
            ("0e999999999", 38, 0, Ok(0)),
            ("1e99999999999", 38, 0, Err(Why::Text)),
            ("", 3, 1, Err(Why::Text)),
            ("1.2.3", 3, 1, Err(Why::Text)),
            ("abc", 3, 1, Err(Why::Text)),
            ("NaN", 3, 1, Err(Why::Range)),
            ("99999999999999999999999999999999999999", 38, 0, Ok(10i128.pow(38) - 1)),
        ] {
            assert_eq!(decimal(text, precision, scale), want, "{text}");
        }
    }
}
