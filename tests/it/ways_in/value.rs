//! Values without types: what makes two of them the same.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::*;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// Without needless zeros: `-12.5`.
    Number(String),
    Float(f64),
    /// A float of 32 bits is written with fewer digits.
    Short(f32),
    Text(String),
    Bytes(Vec<u8>),
    /// Nanoseconds since 1970.
    Instant(i128),
    List(Vec<Value>),
    Struct(Vec<(String, Value)>),
}

const DAY: i128 = 86_400_000_000_000;

impl Value {
    /// The number that a text says.
    pub fn number(text: &str) -> Option<Value> {
        let t = text.trim();
        let (sign, t) = match t.strip_prefix('-') {
            Some(rest) => ("-", rest),
            None => ("", t.strip_prefix('+').unwrap_or(t)),
        };
        let (t, exponent) = match t.split_once(['e', 'E']) {
            Some((m, e)) => (m, e.parse::<i32>().ok()?),
            None => (t, 0),
        };
        let (whole, fraction) = t.split_once('.').unwrap_or((t, ""));
        let mut digits: String = format!("{whole}{fraction}");
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || exponent.abs() > 1_000 {
            return None;
        }
        let mut point = whole.len() as i32 + exponent;
        while point > digits.len() as i32 {
            digits.push('0');
        }
        while point < 0 {
            digits.insert(0, '0');
            point += 1;
        }
        let (whole, fraction) = digits.split_at(point as usize);
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let whole = if whole.is_empty() { "0" } else { whole };
        let made = if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") };
        Some(Value::Number(if made == "0" { made } else { format!("{sign}{made}") }))
    }

    fn integer(v: impl ToString) -> Value {
        Value::Number(v.to_string())
    }

    fn scaled(unscaled: &str, scale: i8) -> Value {
        Value::number(&format!("{unscaled}e{}", -i32::from(scale))).unwrap()
    }

    pub fn of(a: &ArrayRef, row: usize) -> Value {
        use DataType::*;
        if a.is_null(row) {
            return Value::Null;
        }
        macro_rules! at {
            ($t:ty) => {
                a.as_primitive::<$t>().value(row)
            };
        }
        let instant = |v: i64, per: i128| Value::Instant(i128::from(v) * per);
        match a.data_type() {
            Null => Value::Null,
            Boolean => Value::Bool(a.as_boolean().value(row)),
            Int8 => Value::integer(at!(Int8Type)),
            Int16 => Value::integer(at!(Int16Type)),
            Int32 => Value::integer(at!(Int32Type)),
            Int64 => Value::integer(at!(Int64Type)),
            UInt8 => Value::integer(at!(UInt8Type)),
            UInt16 => Value::integer(at!(UInt16Type)),
            UInt32 => Value::integer(at!(UInt32Type)),
            UInt64 => Value::integer(at!(UInt64Type)),
            Float32 => Value::Short(at!(Float32Type)),
            Float64 => Value::Float(at!(Float64Type)),
            Decimal128(_, s) => Value::scaled(&at!(Decimal128Type).to_string(), *s),
            Decimal256(_, s) => Value::scaled(&at!(Decimal256Type).to_string(), *s),
            Utf8 => Value::Text(a.as_string::<i32>().value(row).into()),
            LargeUtf8 => Value::Text(a.as_string::<i64>().value(row).into()),
            Utf8View => Value::Text(a.as_string_view().value(row).into()),
            Binary => Value::Bytes(a.as_binary::<i32>().value(row).into()),
            BinaryView => Value::Bytes(a.as_binary_view().value(row).into()),
            Date32 => instant(at!(Date32Type).into(), DAY),
            Date64 => instant(at!(Date64Type), 1_000_000),
            Timestamp(TimeUnit::Second, _) => instant(at!(TimestampSecondType), 1_000_000_000),
            Timestamp(TimeUnit::Millisecond, _) => instant(at!(TimestampMillisecondType), 1_000_000),
            Timestamp(TimeUnit::Microsecond, _) => instant(at!(TimestampMicrosecondType), 1_000),
            Timestamp(TimeUnit::Nanosecond, _) => instant(at!(TimestampNanosecondType), 1),
            Dictionary(_, _) => {
                let d = a.as_any_dictionary();
                Value::of(d.values(), d.normalized_keys()[row])
            }
            List(_) => {
                let list = a.as_list::<i32>().value(row);
                Value::List((0..list.len()).map(|i| Value::of(&list, i)).collect())
            }
            Struct(fields) => {
                let s = a.as_struct();
                Value::Struct(fields.iter().zip(s.columns()).map(|(f, c)| (f.name().clone(), Value::of(c, row))).collect())
            }
            other => panic!("{other} is not compared"),
        }
    }

    /// Every number that may be meant: a float is the one that it is, and the one that it is written as.
    fn numbers(&self) -> Vec<Value> {
        let floats = |v: f64, short: String| [format!("{v:.1100}"), short].iter().filter_map(|t| Value::number(t)).collect();
        match self {
            Value::Number(_) => vec![self.clone()],
            Value::Float(v) if v.is_finite() => floats(*v, v.to_string()),
            Value::Short(v) if v.is_finite() => floats(f64::from(*v), v.to_string()),
            Value::Text(t) => Value::number(t).into_iter().collect(),
            _ => vec![],
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Value::Number(t) | Value::Text(t) => t.trim().parse().ok(),
            Value::Float(v) => Some(*v),
            Value::Short(v) => Some((*v).into()),
            _ => None,
        }
    }
}

/// `2026-01-02[ T]10:00[:00[.123456789]][Z]`
fn instant(text: &str) -> Option<i128> {
    let t = text.trim().trim_end_matches('Z');
    let (date, time) = t.split_once([' ', 'T']).unwrap_or((t, "00:00"));
    let parts: Vec<i128> = date.split('-').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [y, m, d] = parts[..] else { return None };
    // days since 1970 of a date of the Gregorian calendar
    let shifted = if m <= 2 { y - 1 } else { y };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + d - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut seconds = 0;
    for (part, worth) in clock.split(':').zip([3600, 60, 1]) {
        seconds += part.parse::<i128>().ok()? * worth;
    }
    let nanos: i128 = format!("{fraction:0<9}").parse().ok()?;
    Some(days * DAY + seconds * 1_000_000_000 + nanos)
}

/// Whether `stored`, of type `target`, is the value that came.
pub fn same(came: &Value, stored: &Value, target: &str) -> bool {
    use Value::*;
    match (came, stored) {
        (Null, Null) => true,
        (Null, _) | (_, Null) => false,
        (List(a), List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, target.trim_end_matches("[]"))),
        (Struct(a), Struct(b)) => {
            // a field that did not come is NULL, and none is lost
            let of = |name: &str| a.iter().find(|(n, _)| n == name).map_or(&Null, |(_, v)| v);
            a.iter().all(|(n, _)| b.iter().any(|(m, _)| n == m)) && b.iter().all(|(n, v)| same(of(n), v, ""))
        }
        // floats round, and nothing else
        (_, Float(_) | Short(_)) => match (came.float(), stored.float()) {
            (Some(a), Some(b)) if a.is_nan() => b.is_nan(),
            (Some(a), Some(b)) if a.is_infinite() || b.is_infinite() => a == b,
            (Some(a), Some(b)) => {
                let (digits, least) = if matches!(stored, Short(_)) { (1e-6, 1e-37) } else { (1e-14, 1e-300) };
                (a - b).abs() <= a.abs() * digits || a.abs() < least
            }
            _ => false,
        },
        (Bool(a), Bool(b)) => a == b,
        (Bool(a), Text(b)) => a.to_string() == *b,
        (Text(a), Bool(b)) => {
            let (yes, no) = (["true", "t", "yes", "y", "on", "1"], ["false", "f", "no", "n", "off", "0"]);
            (if *b { yes } else { no }).contains(&a.trim().to_lowercase().as_str())
        }
        (Text(a), Text(b)) => a == b,
        (Bytes(a), Bytes(b)) => a == b,
        (Text(a), Bytes(b)) | (Bytes(b), Text(a)) => a.as_bytes() == b.as_slice(),
        (Instant(a), Instant(b)) => a == b,
        (Instant(a), Text(b)) | (Text(b), Instant(a)) => instant(b) == Some(*a),
        (_, Number(_)) => came.numbers().contains(stored),
        (Number(_) | Float(_) | Short(_), Text(_)) => match (came.float(), stored.float()) {
            (Some(a), Some(b)) if !a.is_finite() => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
            _ => stored.numbers().iter().any(|n| came.numbers().contains(n)),
        },
        _ => false,
    }
}

/// Whether a type holds a value beyond doubt; what it says no to may be taken or refused.
pub fn must_be_taken(came: &Value, target: &str) -> bool {
    let Value::Number(t) = came else { return *came == Value::Null };
    let bits = |n: u32| t.parse::<i128>().is_ok_and(|v| (-(1i128 << (n - 1))..(1i128 << (n - 1))).contains(&v));
    match target {
        "TINYINT" => bits(8),
        "SMALLINT" => bits(16),
        "INT" => bits(32),
        "BIGINT" => bits(64),
        "DOUBLE" | "VARCHAR" => true,
        _ => {
            let Some(inside) = target.strip_prefix("DECIMAL(").and_then(|t| t.strip_suffix(')')) else { return false };
            let (p, s) = inside.split_once(", ").unwrap();
            let (p, s): (usize, usize) = (p.parse().unwrap(), s.parse().unwrap());
            let (whole, fraction) = t.trim_start_matches('-').split_once('.').unwrap_or((t.trim_start_matches('-'), ""));
            fraction.len() <= s && whole.trim_start_matches('0').len() <= p - s
        }
    }
}
