//! Logical nodes and rewrites: names and rules, no IO.

pub mod alteration;
pub mod answers;
pub mod at_time_zone;
pub mod blame;
pub mod bound_rows;
pub mod checked;
pub mod command;
pub mod deletion;
pub mod exact_number;
pub mod feature_table;
pub mod horizon;
pub mod interval_times;
pub mod lengths;
pub mod lookup;
pub mod names;
pub mod online_join;
pub mod online_lookup;
pub mod pit_join;
pub mod plain_table;
pub mod relations;
pub mod rewrites;
pub mod service;
pub mod settle;
pub mod shallow;
pub mod subqueries;
pub mod target;
pub mod weight;
pub mod whole_micros;
pub mod wildcard;

/// How a statement answers, known before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Rows; running it changes nothing.
    Query,
    /// Rows, but it changes something: run exactly once (REFRESH, MATERIALIZE, REBUILD, …).
    Command,
    /// No rows: DDL, INSERT, DELETE, SET; answers a number of rows.
    Update,
}
pub mod windows;
