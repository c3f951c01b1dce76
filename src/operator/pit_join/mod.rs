//! The point-in-time join, physically: labels are collected and indexed by key, every view streams
//! past them once, and only rows that are some label's best so far are kept.
//!
//! ```text
//! labels ──▶ KeyIndex (key → group) ──▶ Slots (one per label, sorted by instant within its group)
//! view   ──▶ group? slot? better than what lies there? ──▶ Winners (retained rows)
//!            after the last row: fill forward, then labels + winners, in label order
//! ```

mod exec;
mod instant;
mod key;
mod order;
mod output;
mod planner;
mod slots;
mod stream;
mod winners;

pub use exec::PitJoinExec;
pub use order::KeepInputOrder;
pub use planner::PitJoinPlanner;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
