//! Which events lie in a window at an instant.

use serde::{Deserialize, Serialize};

use crate::clock::{DAY, HOUR, MINUTE, Micros, SECOND};
use crate::error::{Error, Result};

/// Steps that a window may have by itself, each of which divides the next, so that windows share their buckets.
const LADDER: [Micros; 11] = [SECOND, 5 * SECOND, 15 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 12 * HOUR, DAY, 7 * DAY];
/// A window has at least so many steps by itself; one of sketches, whose own error is larger, a quarter of them.
const STEPS: Micros = 96;
const SKETCH_STEPS: Micros = 24;
/// More steps are refused: a record would hold a bucket for each.
const MOST_STEPS: Micros = 1_000;

/// A window as it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// `None`: OVER ALL.
    pub length: Option<Micros>,
    pub every: Option<Micros>,
    pub exact: bool,
    pub delay: Option<Micros>,
    pub exclude_current: bool,
}

/// A window with its steps. For an instant t it holds the events with `floor_step(u − length) <= ts <= u`, where
/// u = `floor_grain(t − delay)`; with a grain above a microsecond the newer end is `ts < u`. Floors are multiples since
/// 1970-01-01 UTC. All in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// `None`: since the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<Micros>,
    /// The older end moves by this; 1: it does not move in steps.
    pub step: Micros,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub delay: Micros,
    /// The newer end moves by this.
    pub grain: Micros,
    /// Events at the instant itself do not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub excludes_current: bool,
}

fn is_zero(n: &Micros) -> bool {
    *n == 0
}

/// The greatest step of the ladder that is at most `most`; 1 where there is none.
fn ladder(most: Micros) -> Micros {
    LADDER.into_iter().rev().find(|s| *s <= most).unwrap_or(1)
}

fn next_on_ladder(step: Micros) -> Option<Micros> {
    LADDER.into_iter().find(|s| *s > step)
}

fn floor(t: Micros, step: Micros) -> Micros {
    if step <= 1 { t } else { t.div_euclid(step).saturating_mul(step) }
}

impl Window {
    /// Settles the steps. `sketch`: of an aggregate whose own error is larger.
    pub fn new(asked: &Asked, sketch: bool) -> Result<Window> {
        let steps = if sketch { SKETCH_STEPS } else { STEPS };
        let delay = checked(asked)?;
        let mut window = Window { length: asked.length, step: 1, delay, grain: 1, excludes_current: asked.exclude_current };
        let own_grain = if delay < 96 * SECOND { 1 } else { ladder(delay / steps) };
        let Some(length) = asked.length else {
            window.grain = own_grain;
            return window.few_steps().map(|()| window);
        };
        window.step = match asked.every {
            _ if asked.exact => 1,
            Some(every) => every,
            None => ladder(length / steps),
        };
        window.grain = if asked.exact { 1 } else { own_grain.min(window.step) };
        if asked.every == Some(1) && length > MOST_STEPS {
            return Err(Error::invalid("EVERY '1 microsecond' is no step").with_hint("write EXACT"));
        }
        // by themselves steps grow together until there are few enough
        while asked.every.is_none() && !asked.exact && window.few_steps().is_err() {
            let Some(step) = next_on_ladder(window.step).filter(|s| *s <= length) else { break };
            window.step = step;
            window.grain = own_grain.min(step);
        }
        if asked.every.is_some() && window.grain > 1 && window.step % window.grain != 0 && window.grain % window.step != 0 {
            return Err(Error::invalid(format!(
                "EVERY {} and the steps of {} of DELAY {} do not fit together",
                shown(window.step),
                shown(window.grain),
                shown(delay)
            ))
            .with_hint(format!("write EVERY '{}'", shown(ladder(window.step).max(window.grain)))));
        }
        window.few_steps().map(|()| window)
    }

    fn few_steps(&self) -> Result<()> {
        let too_many = |what: &str, length: Micros, step: Micros| {
            Err(Error::invalid(format!(
                "{what} of {} in steps of {} has {} steps, more than {MOST_STEPS}",
                shown(length),
                shown(step),
                length / step
            ))
            .with_hint("write a longer step, EVERY '…'; EXACT, which keeps the events themselves; or OVER ALL"))
        };
        if let Some(length) = self.length.filter(|l| self.step > 1 && l / self.step > MOST_STEPS) {
            return too_many("a window", length, self.step);
        }
        match self.grain > 1 && self.delay / self.grain > MOST_STEPS {
            true => too_many("DELAY", self.delay, self.grain),
            false => Ok(()),
        }
    }

    /// The first and the last instant of its events, both inclusive; the first is later than the last where there is none.
    pub fn bounds(&self, t: Micros) -> (Micros, Micros) {
        let u = floor(t.saturating_sub(self.delay), self.grain);
        let newest = if self.grain > 1 || self.excludes_current { u.saturating_sub(1) } else { u };
        let oldest = match self.length {
            Some(length) => floor(u.saturating_sub(length), self.step),
            None => Micros::MIN,
        };
        (oldest, newest)
    }

    /// Its events are kept one by one.
    pub fn is_exact(&self) -> bool {
        self.length.is_some() && self.step == 1
    }

    /// How far before an instant its events lie, at most; `None`: without limit.
    pub fn reach(&self) -> Option<Micros> {
        let steps = self.step.saturating_add(self.delay).saturating_add(self.grain);
        self.length.map(|l| l.saturating_add(steps))
    }

    /// `last 30 days`, with a delay `last 30 days delay 1 hour`: the window in EXPLAIN.
    pub fn name(&self) -> String {
        let delay = match (self.excludes_current, self.delay) {
            (true, _) => " exclude current time".to_string(),
            (_, 0) => String::new(),
            (_, d) => format!(" delay {}", shown(d)),
        };
        match self.length {
            Some(l) => format!("last {}{delay}", shown(l)),
            None => format!("all{delay}"),
        }
    }

    /// How exact it is, in words.
    pub fn exactness(&self) -> String {
        let older = match self.length {
            None => "since the beginning".to_string(),
            Some(l) if self.step == 1 => format!("exactly {}", shown(l)),
            Some(l) => format!("{} to {}: the older end moves every {}", shown(l), shown(l.saturating_add(self.step)), shown(self.step)),
        };
        match self.grain > 1 {
            true => format!("{older}, the newer end every {}", shown(self.grain)),
            false => older,
        }
    }
}

/// Refuses what has no meaning; answers the delay.
fn checked(asked: &Asked) -> Result<Micros> {
    let positive = |what: &str, n: Option<Micros>| match n {
        Some(n) if n <= 0 => Err(Error::invalid(format!("{what} must be longer than zero"))),
        _ => Ok(()),
    };
    positive("OVER LAST", asked.length)?;
    positive("EVERY", asked.every)?;
    if asked.delay.is_some_and(|d| d < 0) {
        return Err(Error::invalid("DELAY must not be negative"));
    }
    if let (Some(length), Some(every)) = (asked.length, asked.every)
        && every > length
    {
        return Err(Error::invalid(format!("EVERY {} is longer than its window of {}", shown(every), shown(length)))
            .with_hint("a step is a part of the window; leave EVERY out, and the window gets one that suits it"));
    }
    if asked.length.is_none() && (asked.every.is_some() || asked.exact) {
        return Err(Error::invalid("EVERY and EXACT are about the older end of a window, and OVER ALL has none"));
    }
    Ok(asked.delay.unwrap_or(0))
}

/// Windows of one function over the same arguments share their buckets, so the steps of one must divide those of the others.
pub fn check_family(windows: &[&Window]) -> Result<()> {
    let steps = |w: &&Window| [w.step, w.grain].into_iter().filter(|s| *s > 1).collect::<Vec<_>>();
    let mut all: Vec<Micros> = windows.iter().flat_map(steps).collect();
    all.sort_unstable();
    all.dedup();
    match all.windows(2).find(|p| p[1] % p[0] != 0) {
        None => Ok(()),
        Some(p) => Err(Error::invalid(format!(
            "windows of one aggregate have steps of {} and {}, of which the first does not divide the second",
            shown(p[0]),
            shown(p[1])
        ))
        .with_hint(format!("write EVERY '{}' for the longer one", shown(p[0].saturating_mul((p[1] / p[0]).max(1)))))),
    }
}

/// The window that reaches back furthest.
pub fn longest<'a>(windows: impl Iterator<Item = &'a Window>) -> Option<&'a Window> {
    windows.max_by_key(|w| w.length.map_or(Micros::MAX, |length| length.saturating_add(w.delay)))
}

/// A length as users write it.
pub fn shown(micros: Micros) -> String {
    let mut rest = micros;
    let mut parts: Vec<String> = vec![];
    for (unit, name) in [(DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (SECOND, "second"), (1_000, "millisecond"), (1, "microsecond")] {
        let n = rest / unit;
        rest %= unit;
        if n != 0 {
            parts.push(format!("{n} {name}{}", if n == 1 { "" } else { "s" }));
        }
    }
    if parts.is_empty() { "0 seconds".into() } else { parts.join(" ") }
}
