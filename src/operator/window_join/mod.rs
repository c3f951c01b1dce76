//! The window join, physically: labels are collected and indexed by key, the events of the view come sorted by key and
//! time, and each key's events meet its labels in one pass.
//!
//! ```text
//! labels ──▶ KeyIndex (key → group) ──▶ LabelIndex (per group, sorted by instant)
//! events ──▶ runs of one key ──▶ per window and label a frame of rows ──▶ per aggregate a value by label row
//! ```
//!
//! Where the labels do not fit into memory they are joined in chunks, and the events are read once per chunk.

mod exec;
mod frames;
mod planner;
mod runs;
mod spec;
mod stream;
mod workers;

pub use exec::WindowJoinExec;
pub use planner::WindowJoinPlanner;
pub use spec::WindowJoinSpec;
