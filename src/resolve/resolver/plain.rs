//! Plain tables that a statement reads as they are now.

use std::sync::Arc;

use super::Resolver;
use crate::error::{Error, Result};
use crate::model::Name;
use crate::plan::plain_table::PlainTable;
use crate::store::offline::Snapshot;
use crate::table::managed::ManagedTable;

impl Resolver {
    /// The version of a plain table that the statement reads as it is now; `None`: it does not read it so.
    pub fn reads(&self, name: &Name) -> Option<Snapshot> {
        let loaded = self.loaded.lock();
        let table: &dyn std::any::Any = loaded.tables.get(&(name.schema.clone(), name.name.clone()))?.as_ref()?.as_ref();
        table.downcast_ref::<ManagedTable>().map(|t| t.snapshot().clone())
    }

    /// One that the statement reads, with a number for each row.
    pub(super) fn numbered(&self, name: &Name) -> Result<PlainTable> {
        let table = self.catalog.tables.get(name).zip(self.reads(name));
        let (table, snapshot) = table.ok_or_else(|| Error::internal(format!("table {name} was not loaded")))?;
        let numbered = self.services.store.numbered_provider(&snapshot)?;
        Ok(PlainTable { table: Arc::clone(table), snapshot, numbered })
    }
}
