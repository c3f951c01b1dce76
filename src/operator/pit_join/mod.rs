//! The point-in-time join, physically: labels are collected and indexed by key, every view is matched to them, and
//! only the rows that won are put together with them.
//!
//! ```text
//! labels/   labels ──▶ KeyIndex (key → group) ──▶ LabelIndex (per group, sorted by instant): one slot per label
//! scan/     Parquet view ──▶ key columns of the row groups and pages that labels may see
//! probe/    ──▶ slots, by several tasks in partitions that fit the cache ──▶ row numbers of the winners
//! output/   ──▶ fetch the winners ──▶ labels + winners, in label order
//! ```
//!
//! Other views are read once, and the rows that are the best so far for some label are kept.

mod exec;
mod in_label_order;
pub(in crate::operator) mod labels;
pub(in crate::operator) mod memory;
mod metrics;
mod options;
mod output;
pub(in crate::operator) mod planner;
mod probe;
mod scan;
pub(in crate::operator) mod spec;
pub(in crate::operator) mod stream;
pub(in crate::operator) mod tasks;

pub use exec::PitJoinExec;
pub use in_label_order::InLabelOrderExec;
pub use options::{PitJoinOptions, PitStrategy};
pub use planner::PitJoinPlanner;
pub use spec::{PitExecItem, PitJoinSpec};

#[cfg(test)]
mod tests;
