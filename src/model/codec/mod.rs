//! Bytes of the online store: entity keys (`key`) and feature rows (`row`, `decode`). The same bytes
//! lie in every store; golden tests hold them still.

pub mod decode;
pub mod key;
pub mod row;

pub use decode::RowDecoder;
pub use key::{EncodedKey, cast_to_key_types, encode_keys};
pub use row::{Prefix, Row, RowEncoder};

#[cfg(test)]
mod tests;
