//! The point-in-time join, physically: labels are collected and indexed by key, every view is matched to them, and
//! only the rows that won are put together with them.
//!
//! ```text
//! labels ──▶ KeyIndex (key → group) ──▶ LabelIndex (per group, sorted by instant): one slot per label
//! Parquet view ──▶ key columns, several tasks ──▶ shards of slots: row numbers ──▶ fetch the winners
//! other view   ──▶ slots ──▶ winners kept
//!                  after the last row: fill forward, then labels + winners, in label order
//! ```

mod byte_keys;
mod compact;
mod exec;
mod fetch;
mod files;
mod filled;
mod footer;
mod gather;
mod input;
mod instant;
mod integer_keys;
mod key;
mod labels;
mod memory;
mod metrics;
mod options;
mod order;
mod output;
mod packed;
mod payload;
mod planner;
mod prune;
mod reach;
mod rows;
mod shards;
mod slots;
mod stream;
mod tasks;
mod views;
mod winners;

pub use exec::PitJoinExec;
pub use options::{PitJoinOptions, PitStrategy};
pub use order::KeepInputOrder;
pub(super) use order::hold_scans;
pub use planner::PitJoinPlanner;

#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod prune_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
