//! Bytes of the online store: entity keys (`key`) and feature rows (`row`, `decode`). The same bytes
//! lie in every store; golden tests hold them still.

// These bytes come from outside: what is cut short or wrong is an error, never a panic.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod decode;
pub mod key;
pub mod row;

use super::{Column, FeatureView};

pub use decode::RowDecoder;
pub use key::{EncodedKey, cast_to_key_types, encode_keys};
pub use row::{Prefix, Row, RowEncoder};

/// Id and columns of the rows that a version of a view stores: its features in declared order.
pub fn row_schema(view: &FeatureView) -> (u32, Vec<Column>) {
    let columns = view.features.iter().map(|f| Column { name: f.name.clone(), data_type: f.data_type.clone() });
    (view.version, columns.collect())
}

#[cfg(test)]
mod tests;
