//! How views are matched, where a test or a user wants to say so.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use datafusion::prelude::SessionConfig;

/// `SET pit_join_strategy = …`. All give the same rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PitStrategy {
    /// `merge` where rows of one key follow one another, `slots` elsewhere, `stream` where a plan cannot be read twice.
    #[default]
    Auto,
    /// Row by row into the slots of the labels; winners are fetched late.
    Slots,
    /// Runs of one key are merged with the labels of that key; winners are fetched late.
    Merge,
    /// Views are read once at full width, and the best rows so far are kept.
    Stream,
}

impl PitStrategy {
    pub const NAMES: [&'static str; 4] = ["auto", "slots", "merge", "stream"];
}

impl fmt::Display for PitStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

impl FromStr for PitStrategy {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        use PitStrategy::*;
        let all = [Auto, Slots, Merge, Stream];
        let found = Self::NAMES.iter().position(|n| n.eq_ignore_ascii_case(s.trim()));
        found.map(|i| all[i]).ok_or_else(|| format!("must be one of {}", Self::NAMES.join(", ")))
    }
}

/// How joins are planned, carried by the session's configuration. The planner puts them into the node, so that they
/// travel with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PitJoinOptions {
    pub strategy: PitStrategy,
    /// Labels joined at a time, whatever memory there is; `None`: as many as fit. For tests.
    pub chunk_rows: Option<usize>,
    /// Output partitions of a join, at least 1: each joins its share of the labels and has as much of the memory limit.
    pub parts: usize,
}

impl Default for PitJoinOptions {
    fn default() -> Self {
        PitJoinOptions { strategy: PitStrategy::default(), chunk_rows: None, parts: 1 }
    }
}

impl PitJoinOptions {
    pub fn of(config: &SessionConfig) -> Self {
        config.get_extension::<PitJoinOptions>().map(|o| *o).unwrap_or_default()
    }

    pub fn put_into(self, config: &mut SessionConfig) {
        config.set_extension(Arc::new(self));
    }
}
