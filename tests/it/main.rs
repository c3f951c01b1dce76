//! Tests of the whole engine: one binary, because linking takes longer than running.

mod asof_conditions;
mod cache;
mod clauses;
mod delete;
mod online_join;
mod plans;
mod round_trip;
mod slt;
mod spill;
mod sql_folder;
mod tidy;
mod ways_in;
mod wrong_statements;
