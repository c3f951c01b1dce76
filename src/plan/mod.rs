//! (being built)

pub mod online_lookup;
