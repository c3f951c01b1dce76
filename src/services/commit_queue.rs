//! Rows of small INSERTs into push views that wait for a commit together.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::clock::Micros;
use crate::error::Result;
use crate::model::FeatureView;

/// Rows of one commit; what does not fit goes into the next.
const MOST_ROWS: usize = 200_000;

/// Statements that wait for a commit, by the table that they write.
#[derive(Debug, Default)]
pub struct CommitQueue(Mutex<HashMap<String, Vec<Waiting>>>);

/// The rows of one statement, conformed, and who waits for them.
#[derive(Debug)]
pub struct Waiting {
    pub view: Arc<FeatureView>,
    pub rows: Vec<RecordBatch>,
    pub newest: Option<Micros>,
    pub answer: oneshot::Sender<Result<()>>,
}

impl Waiting {
    fn count(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }
}

impl CommitQueue {
    /// Whether nobody commits for this table yet.
    pub fn add(&self, location: &str, waiting: Waiting) -> bool {
        let mut groups = self.0.lock();
        let begins = !groups.contains_key(location);
        groups.entry(location.to_string()).or_default().push(waiting);
        begins
    }

    /// The statements of the next commit; none: nobody commits for this table any more.
    pub fn take(&self, location: &str) -> Vec<Waiting> {
        let mut groups = self.0.lock();
        let Some(queue) = groups.get_mut(location) else { return vec![] };
        queue.retain(|w| !w.answer.is_closed());
        let mut rows = 0;
        let fits = |w: &&Waiting| {
            rows += w.count();
            rows <= MOST_ROWS && queue.first().is_some_and(|first| first.view == w.view)
        };
        // the first one always does
        let count = queue.iter().take_while(fits).count().max(1).min(queue.len());
        let taken: Vec<Waiting> = queue.drain(..count).collect();
        if taken.is_empty() {
            groups.remove(location);
        }
        taken
    }

    /// Lets the next statement begin anew; those that wait see their answer dropped.
    pub fn forget(&self, location: &str) {
        self.0.lock().remove(location);
    }

    /// Statements that wait for the commit after the one under way; `None`: there is none.
    #[cfg(test)]
    pub fn waiting(&self, location: &str) -> Option<usize> {
        self.0.lock().get(location).map(Vec::len)
    }
}
