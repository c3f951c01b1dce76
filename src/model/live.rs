//! The one point-in-time rule: which feature row counts at an instant, and which of two rows wins.
//! Training sets, refresh and online lookups all decide by these functions.

use crate::clock::Micros;

/// True where a feature row of `event_ts` counts at instant `at`:
/// `event_ts <= at AND (ttl = 0 OR event_ts >= at - ttl)`, both ends inclusive, saturating.
/// `ttl` is `None` for no limit; `Some(0)` means the same instant only (`WITHIN INTERVAL '0'`).
#[inline]
pub fn is_live(event_ts: Micros, at: Micros, ttl: Option<Micros>) -> bool {
    event_ts <= at && ttl.is_none_or(|ttl| event_ts >= at.saturating_sub(ttl))
}

/// The order among rows of one key: the greatest wins. A NULL created timestamp loses
/// (`None < Some(_)`); `seq` is "written later".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowOrder {
    pub event_ts: Micros,
    pub created_ts: Option<Micros>,
    pub seq: i64,
}

/// The narrower of a view's TTL and a `WITHIN` clause; `WITHIN` never widens.
pub fn narrow(ttl: Option<Micros>, within: Option<Micros>) -> Option<Micros> {
    match (ttl, within) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_inclusive_and_saturate() {
        for (event, at, ttl, live) in [
            (100, 100, Some(10), true),
            (90, 100, Some(10), true),
            (89, 100, Some(10), false),
            (101, 100, None, false),
            (i64::MIN, 100, None, true),
            (i64::MIN, i64::MIN, Some(10), true),
            (100, 100, Some(0), true),
            (99, 100, Some(0), false),
        ] {
            assert_eq!(is_live(event, at, ttl), live, "{event} {at} {ttl:?}");
        }
    }

    #[test]
    fn null_created_loses() {
        let row = |c, s| RowOrder { event_ts: 1, created_ts: c, seq: s };
        assert!(row(None, 9) < row(Some(i64::MIN), 1));
        assert!(row(Some(1), 1) < row(Some(1), 2));
    }
}
