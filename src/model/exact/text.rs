//! Texts that say a value.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};

use super::misfit::{Misfit, Why};
use super::{first_lost, lenient, number, same};
use crate::model::instant::written;
use crate::model::types::timestamp_type;

pub(super) fn read(values: &ArrayRef, want: &DataType) -> Result<ArrayRef, Misfit> {
    match want {
        DataType::Decimal128(..) => number::decimals(values, want, texts(values).as_string_view().iter()),
        DataType::Date32 | DataType::Date64 => {
            let same: BooleanArray = texts(values).as_string_view().iter().map(|t| Some(t.is_none_or(is_day))).collect();
            first_lost(values, &lenient(values, want), Some(&same), Why::Time)
        }
        t if *t == timestamp_type() => instants(values),
        DataType::Timestamp(_, zone) => {
            // what the finest unit cannot hold, the coarser one has parsed by itself
            let finest = DataType::Timestamp(TimeUnit::Nanosecond, zone.clone());
            let (cast, parsed) = (lenient(values, want), lenient(values, &finest));
            let same = same(&parsed, &lenient(&cast, &finest));
            let same: BooleanArray = (0..values.len()).map(|row| Some(same.value(row) || parsed.is_null(row))).collect();
            first_lost(values, &cast, Some(&same), Why::Finer)
        }
        _ => first_lost(values, &lenient(values, want), None, Why::Fraction),
    }
}

fn texts(values: &ArrayRef) -> ArrayRef {
    lenient(values, &DataType::Utf8View)
}

/// Whether a text that says a day says no time of that day but its begin.
fn is_day(text: &str) -> bool {
    let time = text.trim().split_once(['T', 't', ' ']).map_or("", |(_, time)| time);
    !time.bytes().any(|b| (b'1'..=b'9').contains(&b))
}

/// Instants in every form that a statement takes for one.
fn instants(values: &ArrayRef) -> Result<ArrayRef, Misfit> {
    let texts = texts(values);
    let texts: &StringViewArray = texts.as_string_view();
    let ours: Vec<_> = texts.iter().map(|t| t.and_then(written)).collect();
    let finer: BooleanArray = ours.iter().map(|w| Some(!w.is_some_and(|w| w.finer))).collect();
    let cast: ArrayRef = match (0..values.len()).all(|row| values.is_null(row) || ours[row].is_some()) {
        true => Arc::new(ours.iter().map(|w| w.map(|w| w.micros)).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        false => {
            // forms that only the engine below knows
            let theirs = lenient(values, &timestamp_type());
            let theirs = theirs.as_primitive::<TimestampMicrosecondType>();
            let both = ours.iter().zip(theirs.iter()).map(|(w, t)| w.map(|w| w.micros).or(t));
            Arc::new(both.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
    };
    first_lost(values, &cast, Some(&finer), Why::Finer)
}

/// Whether each says a finite number.
pub(super) fn finite(values: &ArrayRef) -> BooleanArray {
    let says = |t: &str| !["inf", "infinity", "nan"].contains(&t.trim().trim_start_matches(['+', '-']).to_lowercase().as_str());
    texts(values).as_string_view().iter().map(|t| Some(t.is_none_or(says))).collect()
}
