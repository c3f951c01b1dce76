//! Locks of a view, which put the writers of its online rows in this process in order.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::store::online::OnlineView;

/// Order among the writers of one view in this process: they need not do the same work twice, and no
/// INSERT may fall between a full load's last look at the table and its switch.
#[derive(Debug, Default)]
pub struct ViewLocks {
    /// Of whoever loads all of it.
    pub full: tokio::sync::Mutex<()>,
    /// Of whoever applies changes, or switches.
    pub apply: tokio::sync::Mutex<()>,
}

/// The locks of all views of one open warehouse.
#[derive(Debug, Default)]
pub struct ViewLockTable(Mutex<HashMap<OnlineView, Arc<ViewLocks>>>);

impl ViewLockTable {
    pub fn of(&self, id: &OnlineView) -> Arc<ViewLocks> {
        let mut all = self.0.lock();
        all.retain(|_, g| Arc::strong_count(g) > 1);
        Arc::clone(all.entry(id.clone()).or_default())
    }
}
