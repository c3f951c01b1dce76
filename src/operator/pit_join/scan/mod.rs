//! What is read of the inputs.

pub mod bounds;
pub mod files;
pub mod footer;
pub mod label_input;
pub mod prune;
pub mod row_set;
