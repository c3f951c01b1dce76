//! Physical operators, one folder each.

pub mod online_lookup;
pub mod pit_join;
