//! The rows that won, and the labels with them.

pub mod batches;
pub mod compact;
pub mod fetch;
pub mod gather;
pub mod packed;
pub mod payload;
pub mod winners;
