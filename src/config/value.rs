//! The text form of sizes and durations in settings.

use crate::clock::{DAY, HOUR, MILLISECOND, MINUTE, Micros, SECOND};

const SIZES: [(&str, u64); 10] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("", 1),
];

/// Whole units only where shown; the first of each is the one that `show_duration` writes.
const DURATIONS: [(&[&str], Micros); 6] = [
    (&["d", "day", "days"], DAY),
    (&["h", "hour", "hours"], HOUR),
    (&["min", "m", "minute", "minutes"], MINUTE),
    (&["s", "sec", "second", "seconds"], SECOND),
    (&["ms", "millisecond", "milliseconds"], MILLISECOND),
    (&["us", "µs", "microsecond", "microseconds"], 1),
];

/// `4GB`, `512 MiB`, `1.5GiB`, `1048576` (bytes).
pub(super) fn parse_bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = cut(text);
    let factor = SIZES.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name)).map(|(_, f)| *f);
    scale(number, factor).and_then(|v| usize::try_from(v).ok()).ok_or_else(|| "must be a size such as 4GB or 512MiB".into())
}

/// `2s`, `500 ms`, `5 minutes`, `7 days`; a unit is needed.
pub fn parse_duration(text: &str) -> Result<Micros, String> {
    let (number, unit) = cut(text);
    let factor = DURATIONS.iter().find(|(names, _)| names.iter().any(|n| unit.eq_ignore_ascii_case(n))).map(|(_, f)| *f as u64);
    scale(number, factor)
        .and_then(|v| Micros::try_from(v).ok())
        .ok_or_else(|| "must be a time with its unit, such as 500ms, 2s or 7 days".into())
}

pub(super) fn show_bytes(bytes: usize) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

pub fn show_duration(time: Micros) -> String {
    let (names, factor) = DURATIONS.iter().find(|(_, f)| time != 0 && time % f == 0).unwrap_or(&DURATIONS[3]);
    format!("{}{}", time / factor, names[0])
}

fn cut(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn scale(number: &str, factor: Option<u64>) -> Option<u64> {
    let (factor, number) = (factor?, number.replace('_', ""));
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) => {
            let scaled = number.parse::<f64>().ok()? * factor as f64;
            (scaled.is_finite() && scaled < u64::MAX as f64).then_some(scaled as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("4GB"), Ok(4_000_000_000));
        assert_eq!(parse_bytes(" 512 mib "), Ok(512 << 20));
        assert_eq!(parse_bytes("1.5KiB"), Ok(1536));
        assert_eq!(parse_bytes("1_000"), Ok(1000));
        for bad in ["", "GB", "4 bananas", "-1", "99999999999999999999GB", "4..GB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
        assert_eq!((show_bytes(64 << 20), show_bytes(1000), show_bytes(0)), ("64MiB".into(), "1000".into(), "0".into()));
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Ok(500_000));
        assert_eq!(parse_duration("7 Days"), Ok(7 * DAY));
        assert_eq!(parse_duration("0.5s"), Ok(500_000));
        for bad in ["", "5", "s", "5 fortnights", "-1s", "99999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        assert_eq!((show_duration(90 * SECOND), show_duration(7 * DAY), show_duration(0)), ("90s".into(), "7d".into(), "0s".into()));
    }
}
