//! Where bytes lie: Delta tables (`offline`) and the key-value stores of the online side (`online`).

pub mod offline;
pub mod online;
pub mod waits;
