//! The labels of a chunk, ready for every view that asks the same of them.

use std::sync::Arc;

use super::key_index::KeyIndex;
use super::label_index::Index;

/// What the labels of a chunk are asked.
pub struct Question {
    pub keys: Arc<KeyIndex>,
    pub index: Index,
    pub label_rows: usize,
}
