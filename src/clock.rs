//! The only `now()`, the only randomness and the only timers: tests can hold time and chance still, and one place
//! decides how the server waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
pub use tokio::time::{Interval, Sleep};
use tokio::time::{MissedTickBehavior, Timeout};

/// Microseconds since 1970-01-01T00:00:00Z: the one unit of time in Remige.
pub type Micros = i64;

pub const MILLISECOND: Micros = 1_000;
pub const SECOND: Micros = 1_000_000;
pub const MINUTE: Micros = 60 * SECOND;
pub const HOUR: Micros = 60 * MINUTE;
pub const DAY: Micros = 24 * HOUR;

/// A source of time. Clones share the hands: moving one moves all.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    fixed: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Clock::default()
    }

    /// A clock that stands at `at` until `set` or `advance`.
    pub fn fixed(at: Micros) -> Self {
        Clock { fixed: Some(Arc::new(AtomicI64::new(at))) }
    }

    pub fn now(&self) -> Micros {
        match &self.fixed {
            Some(at) => at.load(Ordering::SeqCst),
            None => system_now(),
        }
    }

    /// Moves a fixed clock; the system clock is not ours to move.
    pub fn set(&self, at: Micros) {
        if let Some(f) = &self.fixed {
            f.store(at, Ordering::SeqCst);
        }
    }

    pub fn advance(&self, by: Micros) {
        if let Some(f) = &self.fixed {
            f.fetch_add(by, Ordering::SeqCst);
        }
    }
}

#[allow(clippy::disallowed_methods)]
fn system_now() -> Micros {
    Utc::now().timestamp_micros()
}

/// A monotonic instant for measuring how long something took; never stored.
#[allow(clippy::disallowed_methods)]
pub fn stopwatch() -> Instant {
    Instant::now()
}

/// Waits for `time`; blocks no thread.
#[allow(clippy::disallowed_methods)]
pub fn sleep(time: Duration) -> Sleep {
    tokio::time::sleep(time)
}

/// Waits until `end`, an instant of `stopwatch`.
#[allow(clippy::disallowed_methods)]
pub fn sleep_until(end: Instant) -> Sleep {
    tokio::time::sleep_until(end.into())
}

/// The output of `work`, or an error once it has taken longer than `limit`; `work` is dropped then.
#[allow(clippy::disallowed_methods)]
pub fn timeout<F: IntoFuture>(limit: Duration, work: F) -> Timeout<F::IntoFuture> {
    tokio::time::timeout(limit, work)
}

/// The output of `work`, or an error once `end`, an instant of `stopwatch`, has passed.
#[allow(clippy::disallowed_methods)]
pub fn timeout_at<F: IntoFuture>(end: Instant, work: F) -> Timeout<F::IntoFuture> {
    tokio::time::timeout_at(end.into(), work)
}

/// A tick now and then one `every` period. A late tick delays those after it: none are made up for.
pub fn ticks(every: Duration) -> Interval {
    ticks_after(Duration::ZERO, every)
}

/// A tick after `first` and then one `every` period. A late tick delays those after it: none are made up for.
#[allow(clippy::disallowed_methods)]
pub fn ticks_after(first: Duration, every: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A new identifier that is never used again (UUID v4).
#[allow(clippy::disallowed_methods)]
pub fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// RFC 3339 in UTC with as many digits as needed (microseconds at most).
pub fn format_micros(at: Micros) -> String {
    match DateTime::<Utc>::from_timestamp_micros(at) {
        Some(t) if at % SECOND == 0 => t.to_rfc3339_opts(SecondsFormat::Secs, true),
        Some(t) => t.to_rfc3339_opts(SecondsFormat::Micros, true),
        None => format!("{at} µs"),
    }
}
