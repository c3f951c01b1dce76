//! Tests of the whole engine: one binary, because linking takes longer than running.

mod cache;
mod clauses;
mod online_join;
mod slt;
mod tidy;
