//! The labels of a chunk, indexed by key and instant.

pub mod byte_keys;
pub mod group;
pub mod instant;
pub mod integer_keys;
pub mod key_index;
pub mod label_index;
pub mod question;
