//! Which types a point-in-time join can compare: the common type of two keys, and the line of time
//! that instants and event timestamps are put on.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::types::timestamp_type;

/// The type behind a dictionary or run-end encoding.
pub fn value_type(t: &DataType) -> &DataType {
    match t {
        DataType::Dictionary(_, v) => value_type(v),
        DataType::RunEndEncoded(_, v) => value_type(v.data_type()),
        t => t,
    }
}

/// The type both sides of a key are cast to, so that equal values are equal bytes. Casts to it never
/// lose a value; one that does not fit cannot be equal to anything on the other side.
/// `left` and `right` name the columns in errors.
pub fn common_key_type(left: &str, l: &DataType, right: &str, r: &DataType) -> Result<DataType> {
    use DataType::*;
    let (l, r) = (value_type(l), value_type(r));
    for (name, t) in [(left, l), (right, r)] {
        if t.is_floating() {
            return Err(Error::invalid(format!(
                "key {name} is of type {}: two floats that print alike may differ in their last bit, so they never name an entity reliably",
                shown(t)
            ))
            .with_hint("cast it to BIGINT, VARCHAR or DECIMAL(p, s)"));
        }
        if t.is_nested() || matches!(t, Interval(_)) {
            return Err(Error::invalid(format!("key {name} cannot be of type {}", shown(t)))
                .with_hint("key types are integers, VARCHAR, BYTEA, BOOLEAN, DATE, TIMESTAMP and DECIMAL"));
        }
    }
    let common = match (l, r) {
        (Null, Null) => Some(Int64),
        (Null, t) | (t, Null) => Some(t.clone()),
        (l, r) if l == r => Some(l.clone()),
        (l, r) if is_string(l) && is_string(r) => Some(LargeUtf8),
        (l, r) if is_binary(l) && is_binary(r) => Some(LargeBinary),
        (l, r) if l.is_integer() && r.is_integer() => Some(match (l, r) {
            (UInt64, r) if r.is_signed_integer() => Decimal128(20, 0),
            (l, UInt64) if l.is_signed_integer() => Decimal128(20, 0),
            (UInt64, _) | (_, UInt64) => UInt64,
            _ => Int64,
        }),
        (l, r) => match (decimal_digits(l), decimal_digits(r)) {
            (Some((lp, ls)), Some((rp, rs))) => wider_decimal(lp, ls, rp, rs),
            _ => match (time_unit(l), time_unit(r)) {
                (Some(a), Some(b)) => Some(Timestamp(finer(a, b), Some("UTC".into()))),
                _ => None,
            },
        },
    };
    common.ok_or_else(|| {
        Error::invalid(format!("key {left} of type {} cannot be compared with key {right} of type {}", shown(l), shown(r)))
            .with_hint(format!("cast one of them, for example CAST({left} AS …)"))
    })
}

fn is_string(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(t: &DataType) -> bool {
    matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

/// Digits and scale of decimals and integers.
fn decimal_digits(t: &DataType) -> Option<(i16, i16)> {
    use DataType::*;
    match t {
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => Some((i16::from(*p), i16::from(*s))),
        Int8 | UInt8 => Some((3, 0)),
        Int16 | UInt16 => Some((5, 0)),
        Int32 | UInt32 => Some((10, 0)),
        Int64 => Some((19, 0)),
        UInt64 => Some((20, 0)),
        _ => None,
    }
}

fn wider_decimal(lp: i16, ls: i16, rp: i16, rs: i16) -> Option<DataType> {
    let scale = ls.max(rs);
    let digits = (lp - ls).max(rp - rs).max(0) + scale;
    let (precision, scale) = (u8::try_from(digits.max(1)).ok()?, i8::try_from(scale).ok()?);
    match precision {
        0..=38 => Some(DataType::Decimal128(precision, scale)),
        39..=76 => Some(DataType::Decimal256(precision, scale)),
        _ => None,
    }
}

/// The unit a date or timestamp is counted in; a day is the start of that day in UTC.
fn time_unit(t: &DataType) -> Option<TimeUnit> {
    match t {
        DataType::Timestamp(u, _) => Some(*u),
        DataType::Date32 => Some(TimeUnit::Second),
        DataType::Date64 => Some(TimeUnit::Millisecond),
        _ => None,
    }
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    if per_second(a) >= per_second(b) { a } else { b }
}

/// Ticks in a second.
pub fn per_second(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The line that all instants of one comparison are put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TimeLine {
    /// Ticks of `unit` since 1970-01-01T00:00:00Z. Finer values of the feature side round up, those of
    /// the label side down, so that rounding never lets a later row in.
    Ticks(TimeUnit),
    Integer,
    /// IEEE total order with one zero; NaN is no instant.
    Float,
    /// Unscaled values of decimals with this scale.
    Decimal(i8),
}

/// How the instants of one item are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeLines {
    /// `at` and `time`.
    pub event: TimeLine,
    /// `created` and `known_by`.
    pub created: TimeLine,
    /// Values may exceed 64 bits on the line.
    pub wide: bool,
    /// On the event line.
    pub ttl: Option<i128>,
}

/// A named column or expression and its type, for error messages.
pub type Typed<'a> = (&'a str, &'a DataType);

impl TimeLines {
    /// Finds the lines for the given types. `micros`: everything is compared in microseconds (feature
    /// views); otherwise at the finer unit of the two sides, exactly.
    pub fn find(
        at: Typed,
        time: Typed,
        known_by: Option<Typed>,
        created: Option<Typed>,
        ttl: Option<Micros>,
        micros: bool,
    ) -> Result<TimeLines> {
        let floor = ttl.map(|_| TimeUnit::Microsecond);
        let (event, wide) = line(at, Some(time), floor, micros)?;
        let (created, wide_created) = match (created, known_by) {
            (Some(c), by) => line(c, by, None, micros)?,
            (None, Some((name, _))) => {
                return Err(Error::invalid(format!("KNOWN BY {name}: the feature side has no created timestamp"))
                    .with_hint("declare CREATED TIMESTAMP in the feature view, or leave out KNOWN BY"));
            }
            (None, None) => (event, false),
        };
        let ttl = match (ttl, event) {
            (None, _) => None,
            (Some(ttl), _) if ttl < 0 => return Err(Error::invalid("WITHIN must not be negative")),
            (Some(ttl), TimeLine::Ticks(unit)) => Some(i128::from(ttl) * per_second(unit) / 1_000_000),
            (Some(_), _) => {
                return Err(Error::invalid(format!("WITHIN needs timestamps, but {} is of type {}", at.0, shown(at.1))));
            }
        };
        Ok(TimeLines { event, created, wide: wide || wide_created, ttl })
    }
}

/// A type as SQL writes it.
fn shown(t: &DataType) -> String {
    crate::error::in_sql(&t.to_string())
}

/// The line for two columns, and whether its values may need more than 64 bits.
fn line(a: Typed, b: Option<Typed>, floor: Option<TimeUnit>, micros: bool) -> Result<(TimeLine, bool)> {
    let b = b.unwrap_or(a);
    let (ta, tb) = (value_type(a.1), value_type(b.1));
    let null_as = |t: &DataType, other: &DataType| match (t, other) {
        (DataType::Null, DataType::Null) => timestamp_type(),
        (DataType::Null, other) => other.clone(),
        (t, _) => t.clone(),
    };
    let (ta, tb) = (&null_as(ta, tb), &null_as(tb, ta));
    for (name, t) in [(a.0, ta), (b.0, tb)] {
        if is_string(t) {
            return Err(Error::invalid(format!("{name} is of type {}, not a timestamp", shown(t)))
                .with_hint(format!("write CAST({name} AS TIMESTAMP)")));
        }
    }
    if let (Some(ua), Some(ub)) = (time_unit(ta), time_unit(tb)) {
        if micros {
            return Ok((TimeLine::Ticks(TimeUnit::Microsecond), false));
        }
        let unit = floor.map_or(finer(ua, ub), |f| finer(f, finer(ua, ub)));
        return Ok((TimeLine::Ticks(unit), ua != unit || ub != unit));
    }
    let found = match (ta, tb) {
        (l, r) if l.is_integer() && r.is_integer() => Some((TimeLine::Integer, *l == DataType::UInt64 || *r == DataType::UInt64)),
        (l, r) if l.is_floating() && r.is_floating() => Some((TimeLine::Float, false)),
        (l, r) if is_decimal(l) && is_decimal(r) => match (decimal_digits(l), decimal_digits(r)) {
            (Some((_, ls)), Some((_, rs))) if ls == rs => i8::try_from(ls).ok().map(|s| (TimeLine::Decimal(s), true)),
            _ => None,
        },
        _ => None,
    };
    found.ok_or_else(|| {
        Error::invalid(format!("{} of type {} cannot be compared in time with {} of type {}", a.0, shown(a.1), b.0, shown(b.1)))
            .with_hint("cast both to one type: TIMESTAMP, DATE, an integer, or a DECIMAL of the same scale")
    })
}

fn is_decimal(t: &DataType) -> bool {
    matches!(t, DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::DataType::*;

    #[test]
    fn keys_meet_in_a_type_that_holds_both() {
        let common = |l: &DataType, r: &DataType| common_key_type("l.k", l, "f.k", r).map_err(|e| e.to_string());
        let dict = Dictionary(Box::new(Int8), Box::new(Utf8));
        assert_eq!(common(&dict, &Utf8), Ok(Utf8));
        assert_eq!(common(&Utf8View, &LargeUtf8), Ok(LargeUtf8));
        assert_eq!(common(&Int32, &Int64), Ok(Int64));
        assert_eq!(common(&UInt64, &Int8), Ok(Decimal128(20, 0)));
        assert_eq!(common(&Decimal128(10, 2), &Int32), Ok(Decimal128(12, 2)));
        assert_eq!(common(&Date32, &Timestamp(TimeUnit::Millisecond, None)), Ok(Timestamp(TimeUnit::Millisecond, Some("UTC".into()))));
        assert_eq!(common(&FixedSizeBinary(4), &Binary), Ok(LargeBinary));
        let e = common(&Utf8, &Int64).unwrap_err();
        assert!(e.contains("l.k") && e.contains("f.k"), "{e}");
        assert!(common(&Float64, &Float64).unwrap_err().contains("l.k"));
    }

    #[test]
    fn lines_of_time() {
        let t = |u| Timestamp(u, None);
        let find = |a: &DataType, b: &DataType, ttl, micros| {
            TimeLines::find(("a", a), ("b", b), None, None, ttl, micros).map_err(|e| e.to_string())
        };
        let l = find(&t(TimeUnit::Second), &t(TimeUnit::Nanosecond), None, false).unwrap();
        assert_eq!((l.event, l.wide), (TimeLine::Ticks(TimeUnit::Nanosecond), true));
        let l = find(&t(TimeUnit::Second), &t(TimeUnit::Nanosecond), Some(3), true).unwrap();
        assert_eq!((l.event, l.wide, l.ttl), (TimeLine::Ticks(TimeUnit::Microsecond), false, Some(3)));
        let l = find(&t(TimeUnit::Second), &Date32, Some(3), false).unwrap();
        assert_eq!((l.event, l.ttl), (TimeLine::Ticks(TimeUnit::Microsecond), Some(3)));
        assert!(find(&Utf8, &Date32, None, false).unwrap_err().contains("CAST(a AS TIMESTAMP)"));
        assert!(find(&Int64, &Date32, None, false).is_err());
        assert!(find(&Int64, &Int64, Some(1), false).unwrap_err().contains("WITHIN"));
        assert!(find(&Decimal128(5, 1), &Decimal128(9, 2), None, false).is_err());
    }
}
