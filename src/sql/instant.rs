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

pub fn parse_instant(text: &str) -> Result<Instant> {
    let t = text.trim();
    let exact = |micros| Ok(Instant { micros, day_only: false });
    if let Ok(d) = NaiveDate::parse_from_str(t, "%Y-%m-%d") {
        return Ok(Instant { micros: d.and_time(NaiveTime::MIN).and_utc().timestamp_micros(), day_only: true });
    }
    if let Ok(z) = DateTime::parse_from_rfc3339(&t.replacen(' ', "T", 1)) {
        return exact(z.timestamp_micros());
    }
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"] {
        if let Ok(n) = NaiveDateTime::parse_from_str(t, format) {
            return exact(n.and_utc().timestamp_micros());
        }
    }
    for format in ["%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z", "%Y-%m-%d %H:%M:%S%.f %#z"] {
        if let Ok(z) = DateTime::parse_from_str(t, format) {
            return exact(z.timestamp_micros());
        }
    }
    Err(Error::invalid(format!("{text:?} is not an instant")).with_hint(
        "write '2026-02-01', '2026-02-01 10:00', '2026-02-01 10:00:00' or RFC 3339 ('2026-02-01T10:00:00+01:00'); without a zone it is UTC",
    ))
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
    }
}
