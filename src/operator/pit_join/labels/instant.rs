//! Columns of instants as plain numbers on one line of time.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::buffer::{NullBuffer, ScalarBuffer};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::*;
use datafusion::common::{DataFusionError, Result};

use crate::model::live::Instant;
use crate::plan::pit_join::types::{TimeLine, per_second, value_type};

/// Which way a value between two ticks goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Label side: an instant never sees further than it is.
    Down,
    /// Feature side: a row is never known earlier than it was.
    Up,
}

/// A number on the line, saturated to what the type holds.
pub trait OnLine: Instant + ArrowNativeType {
    const MIN: Self;
    fn saturate(v: i128) -> Self;
    /// The same numbers, where they need no copy.
    fn shared(values: &ScalarBuffer<i64>) -> Option<ScalarBuffer<Self>>;
}

impl OnLine for i64 {
    const MIN: i64 = i64::MIN;
    fn shared(values: &ScalarBuffer<i64>) -> Option<ScalarBuffer<i64>> {
        Some(values.clone())
    }
    fn saturate(v: i128) -> i64 {
        v.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

impl OnLine for i128 {
    const MIN: i128 = i128::MIN;
    fn shared(_: &ScalarBuffer<i64>) -> Option<ScalarBuffer<i128>> {
        None
    }
    fn saturate(v: i128) -> i128 {
        v
    }
}

/// Values with their validity; a NULL's value means nothing.
#[derive(Debug)]
pub struct Instants<T: OnLine> {
    values: ScalarBuffer<T>,
    nulls: Option<NullBuffer>,
}

impl<T: OnLine> Instants<T> {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Values, whatever stands in place of NULLs included.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    pub fn has_nulls(&self) -> bool {
        self.nulls.as_ref().is_some_and(|n| n.null_count() > 0)
    }

    pub fn get(&self, row: usize) -> Option<T> {
        match &self.nulls {
            Some(n) if n.is_null(row) => None,
            _ => Some(self.values[row]),
        }
    }

    /// Reads a column of the types that `TimeLines::find` lets through.
    pub fn read(array: &ArrayRef, line: TimeLine, round: Round) -> Result<Self> {
        let plain = value_type(array.data_type());
        let array = if plain == array.data_type() { ArrayRef::clone(array) } else { cast(array, plain)? };
        if *array.data_type() == DataType::Null {
            return Ok(Instants { values: vec![T::MIN; array.len()].into(), nulls: Some(NullBuffer::new_null(array.len())) });
        }
        let values = match line {
            TimeLine::Ticks(unit) => ticks(&array, unit, round)?,
            TimeLine::Integer => match array.data_type() {
                DataType::UInt64 => map(array.as_primitive::<UInt64Type>(), |v| T::saturate(v.into())),
                _ => as_they_are(cast(&array, &DataType::Int64)?.as_primitive::<Int64Type>()),
            },
            TimeLine::Float => return floats(&array),
            TimeLine::Decimal(_) => match array.data_type() {
                DataType::Decimal32(..) => map(array.as_primitive::<Decimal32Type>(), |v| T::saturate(v.into())),
                DataType::Decimal64(..) => map(array.as_primitive::<Decimal64Type>(), |v| T::saturate(v.into())),
                DataType::Decimal128(..) => map(array.as_primitive::<Decimal128Type>(), T::saturate),
                other => return Err(unexpected(other)),
            },
        };
        Ok(Instants { values, nulls: array.nulls().cloned() })
    }
}

fn unexpected(t: &DataType) -> DataFusionError {
    DataFusionError::Internal(format!("a point-in-time join cannot read instants of type {t}"))
}

fn map<A: ArrowPrimitiveType, T: OnLine>(array: &PrimitiveArray<A>, f: impl Fn(A::Native) -> T) -> ScalarBuffer<T> {
    array.values().iter().map(|v| f(*v)).collect()
}

fn as_they_are<A: ArrowPrimitiveType<Native = i64>, T: OnLine>(array: &PrimitiveArray<A>) -> ScalarBuffer<T> {
    T::shared(array.values()).unwrap_or_else(|| map(array, |v| T::saturate(v.into())))
}

fn ticks<T: OnLine>(array: &ArrayRef, unit: TimeUnit, round: Round) -> Result<ScalarBuffer<T>> {
    let line = per_second(unit);
    // A value is `mul` / `div` ticks; one of the two is 1.
    let scale = |from: i128| if line >= from { (line / from, 1) } else { (1, from / line) };
    let put = |v: i128, (mul, div): (i128, i128)| {
        T::saturate(match (div, round) {
            (1, _) if mul == 1 => v,
            (1, _) => v * mul,
            (_, Round::Down) => v.div_euclid(div),
            (_, Round::Up) => -(-v).div_euclid(div),
        })
    };
    Ok(match array.data_type() {
        DataType::Timestamp(u, _) => {
            let s = scale(per_second(*u));
            match u {
                TimeUnit::Millisecond if s == (1, 1) => as_they_are(array.as_primitive::<TimestampMillisecondType>()),
                TimeUnit::Microsecond if s == (1, 1) => as_they_are(array.as_primitive::<TimestampMicrosecondType>()),
                TimeUnit::Nanosecond if s == (1, 1) => as_they_are(array.as_primitive::<TimestampNanosecondType>()),
                TimeUnit::Second => map(array.as_primitive::<TimestampSecondType>(), |v| put(v.into(), s)),
                TimeUnit::Millisecond => map(array.as_primitive::<TimestampMillisecondType>(), |v| put(v.into(), s)),
                TimeUnit::Microsecond => map(array.as_primitive::<TimestampMicrosecondType>(), |v| put(v.into(), s)),
                TimeUnit::Nanosecond => map(array.as_primitive::<TimestampNanosecondType>(), |v| put(v.into(), s)),
            }
        }
        DataType::Date32 => map(array.as_primitive::<Date32Type>(), |v| put(i128::from(v) * 86_400, (line, 1))),
        DataType::Date64 => map(array.as_primitive::<Date64Type>(), |v| put(v.into(), scale(1_000))),
        other => return Err(unexpected(other)),
    })
}

fn floats<T: OnLine>(array: &ArrayRef) -> Result<Instants<T>> {
    let array = cast(array, &DataType::Float64)?;
    let array = array.as_primitive::<Float64Type>();
    let values = map(array, |v| {
        let bits = (if v == 0.0 { 0.0 } else { v }).to_bits() as i64;
        // IEEE 754 totalOrder: negative numbers run backwards.
        T::saturate((bits ^ (((bits >> 63) as u64) >> 1) as i64).into())
    });
    let nan = NullBuffer::from_iter(array.values().iter().map(|v| !v.is_nan()));
    Ok(Instants { values, nulls: NullBuffer::union(array.nulls(), Some(&nan)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::*;
    use std::sync::Arc;

    fn read<T: OnLine>(a: ArrayRef, line: TimeLine, round: Round) -> Vec<Option<T>> {
        let i = Instants::<T>::read(&a, line, round).unwrap();
        (0..i.len()).map(|r| i.get(r)).collect()
    }

    #[test]
    fn rounds_away_from_leakage() {
        let ns: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![Some(-1), Some(1), Some(1000), None]));
        let us = TimeLine::Ticks(TimeUnit::Microsecond);
        assert_eq!(read::<i64>(Arc::clone(&ns), us, Round::Up), [Some(0), Some(1), Some(1), None]);
        assert_eq!(read::<i64>(ns, us, Round::Down), [Some(-1), Some(0), Some(1), None]);
    }

    #[test]
    fn saturates() {
        let s: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MAX, i64::MIN]));
        let ns = TimeLine::Ticks(TimeUnit::Nanosecond);
        assert_eq!(read::<i64>(Arc::clone(&s), ns, Round::Up), [Some(i64::MAX), Some(i64::MIN)]);
        assert_eq!(read::<i128>(s, ns, Round::Up)[0], Some(i128::from(i64::MAX) * 1_000_000_000));
        let d: ArrayRef = Arc::new(Date32Array::from(vec![1]));
        assert_eq!(read::<i64>(d, TimeLine::Ticks(TimeUnit::Second), Round::Down), [Some(86_400)]);
    }

    #[test]
    fn floats_in_total_order() {
        let f: ArrayRef = Arc::new(Float64Array::from(vec![f64::NEG_INFINITY, -1.5, -0.0, 0.0, 1e-300, 2.0, f64::INFINITY, f64::NAN]));
        let v = read::<i64>(f, TimeLine::Float, Round::Up);
        assert!(v[..7].is_sorted() && v[2] == v[3] && v[1] < v[2] && v[3] < v[4]);
        assert_eq!(v[7], None);
    }
}
