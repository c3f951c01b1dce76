//! Push views that INSERTs have left many small files in. A server does OPTIMIZE of them at once: what a commit
//! costs grows with the files of the table.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::FeatureView;

/// Commits of INSERTs in this process, by the table's location, and the tables that want OPTIMIZE.
#[derive(Debug, Default)]
pub struct CompactionQueue {
    commits: Mutex<HashMap<String, usize>>,
    full: Mutex<HashMap<String, Arc<FeatureView>>>,
    told: Notify,
}

impl CompactionQueue {
    /// Counts a commit; every `most`-th one makes the table want OPTIMIZE. 0: never.
    pub fn committed(&self, view: &Arc<FeatureView>, most: usize) {
        let mut commits = self.commits.lock();
        let count = commits.entry(view.location.clone()).or_default();
        *count += 1;
        if most == 0 || *count < most {
            return;
        }
        commits.remove(&view.location);
        drop(commits);
        self.full.lock().insert(view.location.clone(), Arc::clone(view));
        self.told.notify_one();
    }

    /// Waits for a table that wants OPTIMIZE, and takes it off the list.
    pub async fn next(&self) -> Arc<FeatureView> {
        loop {
            // before the look: what is told in between is not missed
            let told = self.told.notified();
            {
                let mut full = self.full.lock();
                let first = full.keys().next().cloned();
                if let Some(view) = first.and_then(|location| full.remove(&location)) {
                    return view;
                }
            }
            told.await;
        }
    }
}
