//! (being built)
pub mod pit_join;
pub mod pit_rules;
pub mod pit_types;
