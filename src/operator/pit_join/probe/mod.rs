//! Which feature row each label gets.

pub mod partitions;
pub mod resolved;
pub mod slots;
pub mod view;
