//! Instants written as text: `'2026-02-01'`, `'2026-02-01 10:00'`, `'… 10:00:00[.ffffff]'`, RFC 3339;
//! without a zone UTC.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

use crate::clock::Micros;
use crate::error::{Error, Result};

/// An instant, and whether only a day was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant {
    pub micros: Micros,
    pub day_only: bool,
}

/// An instant as a text gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Rounded down; of a text without a zone as if it were UTC.
    pub micros: Micros,
    pub day_only: bool,
    /// The text names its offset from UTC.
    pub zoned: bool,
    /// There are digits behind the microseconds.
    pub finer: bool,
}

/// `None`: not an instant.
pub fn written(text: &str) -> Option<Written> {
    let t = text.trim();
    let finer = t.split_once('.').is_some_and(|(_, f)| f.bytes().take_while(u8::is_ascii_digit).skip(6).any(|b| b != b'0'));
    let whole = |micros, zoned| Some(Written { micros, day_only: false, zoned, finer });
    if let Ok(d) = NaiveDate::parse_from_str(t, "%Y-%m-%d") {
        return Some(Written {
            micros: d.and_time(NaiveTime::MIN).and_utc().timestamp_micros(),
            day_only: true,
            zoned: false,
            finer: false,
        });
    }
    if let Ok(z) = DateTime::parse_from_rfc3339(&t.replacen(' ', "T", 1)) {
        return whole(z.timestamp_micros(), true);
    }
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"] {
        if let Ok(n) = NaiveDateTime::parse_from_str(t, format) {
            return whole(n.and_utc().timestamp_micros(), false);
        }
    }
    for format in ["%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z", "%Y-%m-%d %H:%M:%S%.f %#z"] {
        if let Ok(z) = DateTime::parse_from_str(t, format) {
            return whole(z.timestamp_micros(), true);
        }
    }
    None
}

pub fn parse_instant(text: &str) -> Result<Instant> {
    match written(text) {
        Some(w) => Ok(Instant { micros: w.micros, day_only: w.day_only }),
        None => Err(Error::invalid(format!("{text:?} is not an instant")).with_hint(crate::error::INSTANTS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let ten = parse_instant("2026-02-01T10:00:00Z").unwrap().micros;
        for same in
            ["2026-02-01 10:00", "2026-02-01 10:00:00", "2026-02-01T11:00:00+01:00", "2026-02-01 10:00:00.000000", "2026-02-01 11:00:00+01"]
        {
            assert_eq!(parse_instant(same).unwrap().micros, ten, "{same}");
        }
        assert!(parse_instant("2026-02-01").unwrap().day_only);
        assert!(parse_instant("yesterday").is_err());
        let finer = |t: &str| written(t).is_some_and(|w| w.finer);
        assert!(finer("2026-02-01 10:00:00.0000001") && finer("2026-02-01T10:00:00.1234567Z") && !finer("2026-02-01 10:00:00.123456000"));
        assert!(written("2026-02-01 10:00+01").is_some_and(|w| w.zoned) && written("2026-02-01 10:00").is_some_and(|w| !w.zoned));
    }
}
