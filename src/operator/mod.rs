//! (being built)
pub mod pit_join;
