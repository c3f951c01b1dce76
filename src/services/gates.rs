//! Turns among the writers of a view's online rows in this process.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::store::online::OnlineView;

/// Order among the writers of one view in this process: they need not do the same work twice, and no
/// INSERT may fall between a full load's last look at the table and its switch.
#[derive(Debug, Default)]
pub struct Gates {
    /// Of whoever loads all of it.
    pub full: tokio::sync::Mutex<()>,
    /// Of whoever applies changes, or switches.
    pub apply: tokio::sync::Mutex<()>,
}

/// The gates of the views of one open warehouse.
#[derive(Debug, Default)]
pub struct GateBook(Mutex<HashMap<OnlineView, Arc<Gates>>>);

impl GateBook {
    pub fn of(&self, id: &OnlineView) -> Arc<Gates> {
        let mut all = self.0.lock();
        all.retain(|_, g| Arc::strong_count(g) > 1);
        Arc::clone(all.entry(id.clone()).or_default())
    }
}
