//! The one point-in-time rule: which feature row counts at an instant, and which of two rows wins.
//! Training sets, refresh and online lookups all decide by these functions.

use crate::clock::Micros;

/// A point on a line of time: `Micros`, or `i128` where two units or decimals must be compared exactly.
pub trait Instant: Copy + Ord + std::ops::Not<Output = Self> + Send + Sync + std::fmt::Debug + 'static {
    fn saturating_sub(self, span: Self) -> Self;
    fn saturating_add(self, span: Self) -> Self;
}

macro_rules! instants {
    ($($t:ty),*) => { $(
        impl Instant for $t {
            #[inline]
            fn saturating_sub(self, span: Self) -> Self { <$t>::saturating_sub(self, span) }
            #[inline]
            fn saturating_add(self, span: Self) -> Self { <$t>::saturating_add(self, span) }
        }
    )* };
}
instants!(i64, i128);

/// True where a feature row of `event_ts` counts at instant `at`:
/// `event_ts <= at AND (ttl = 0 OR event_ts >= at - ttl)`, both ends inclusive, saturating.
/// `ttl` is `None` for no limit; `Some(0)` means the same instant only (`WITHIN INTERVAL '0'`).
#[inline]
pub fn is_live(event_ts: Micros, at: Micros, ttl: Option<Micros>) -> bool {
    is_live_on(event_ts, at, ttl)
}

/// `is_live` on any line of time.
#[inline]
pub fn is_live_on<T: Instant>(event_ts: T, at: T, ttl: Option<T>) -> bool {
    event_ts <= at && ttl.is_none_or(|ttl| event_ts >= at.saturating_sub(ttl))
}

/// The mirror of `is_live`, for joins that look ahead: `event_ts >= at`, and at most `ttl` later.
#[inline]
pub fn is_ahead<T: Instant>(event_ts: T, at: T, ttl: Option<T>) -> bool {
    event_ts >= at && ttl.is_none_or(|ttl| event_ts <= at.saturating_add(ttl))
}

/// True where a row created at `created_ts` was provably known at `known_by`; NULL on either side: not known.
#[inline]
pub fn is_known<T: Instant>(created_ts: Option<T>, known_by: Option<T>) -> bool {
    matches!((created_ts, known_by), (Some(created), Some(by)) if created <= by)
}

/// The order among rows of one key: the greatest wins. A NULL created timestamp loses
/// (`None < Some(_)`); `seq` is "written later".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowOrder<T = Micros> {
    pub event_ts: T,
    pub created_ts: Option<T>,
    pub seq: i64,
}

impl<T: Instant> RowOrder<T> {
    /// The order for joins that look ahead: the earliest event wins, then as ever.
    #[inline]
    pub fn ahead(self) -> Self {
        RowOrder { event_ts: !self.event_ts, ..self }
    }
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
            (100i64, 100, Some(10), true),
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
    fn looking_ahead_is_the_mirror() {
        assert!(is_ahead(110i64, 100, Some(10)) && !is_ahead(111i64, 100, Some(10)) && !is_ahead(99i64, 100, None));
        assert!(is_ahead(i64::MAX, i64::MAX, Some(10)));
        let row = |e: i64, s| RowOrder { event_ts: e, created_ts: None, seq: s };
        assert!(row(1, 0).ahead() > row(2, 9).ahead() && row(1, 2).ahead() > row(1, 1).ahead());
    }

    #[test]
    fn null_is_never_known() {
        assert!(is_known(Some(5i64), Some(5)) && !is_known(Some(6i64), Some(5)));
        assert!(!is_known(None, Some(5i64)) && !is_known(Some(5), None::<i64>));
    }

    #[test]
    fn null_created_loses() {
        let row = |c, s| RowOrder { event_ts: 1i64, created_ts: c, seq: s };
        assert!(row(None, 9) < row(Some(i64::MIN), 1));
        assert!(row(Some(1), 1) < row(Some(1), 2));
    }
}
