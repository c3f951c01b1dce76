//! A table of CREATE TABLE at one version, with a number for each of its rows.

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use crate::model::Table;
use crate::store::offline::Snapshot;

pub use crate::store::offline::ROW;

/// A plain table that a statement reads as it is now.
#[derive(Debug, Clone)]
pub struct PlainTable {
    pub table: Arc<Table>,
    pub snapshot: Snapshot,
    /// Visible columns and [`ROW`].
    pub numbered: Arc<dyn TableProvider>,
}
