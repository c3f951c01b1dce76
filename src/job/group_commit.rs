//! Small INSERTs into one push view share commits: rows that arrive while a commit is under way, or within
//! `push.commit_interval`, go into the next one together, in the order of their arrival, and online with it.
//!
//! A commit is made by a task of its own, so that a statement that is cancelled takes nobody with it: its rows
//! are left out where they still wait, and are stored where their commit has begun.

use std::sync::{Arc, Weak};
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::TaskContext;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::push::{claim, commit};
use crate::clock::{self, Micros};
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::services::commit_queue::Waiting;
use crate::services::{Services, boxed};
use crate::store::online::WriteClaim;
use crate::table::conform::visible_schema;
use crate::table::write::{Sequence, stream_of, with_seq};

/// Stores rows (visible columns, `newest`: their greatest event timestamp) in a commit with those of
/// other statements; answers when they are stored and, where the view is ONLINE, served.
pub fn store<'a>(
    services: &'a Arc<Services>,
    view: &'a Arc<FeatureView>,
    rows: Vec<RecordBatch>,
    newest: Option<Micros>,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let (answer, done) = oneshot::channel();
        let waiting = Waiting { view: Arc::clone(view), rows, newest, answer };
        let begins = services.commit_queue.add(&view.location, waiting);
        if begins {
            tokio::spawn(run(Arc::clone(services), view.location.clone(), Arc::clone(cx)));
        }
        let ended = |_| {
            Error::unavailable(format!("feature view {}: the commit of these rows was cut off", view.name))
                .with_hint("look whether they are stored before you insert them again")
        };
        done.await.map_err(ended)?
    })
}

/// Lets the next statement begin anew, and those that wait know, where the task ends before its time.
struct Ends {
    services: Weak<Services>,
    location: String,
    early: bool,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(services) = self.services.upgrade().filter(|_| self.early) {
            services.commit_queue.forget(&self.location);
        }
    }
}

fn run(services: Arc<Services>, location: String, cx: Arc<TaskContext>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut ends = Ends { services: Arc::downgrade(&services), location: location.clone(), early: true };
        // held until the next one is: files opened under it are what a small commit would pay most for
        let mut claim = None;
        loop {
            let pause = services.config.push.commit_interval;
            if pause > 0 {
                clock::sleep(Duration::from_micros(pause.unsigned_abs())).await;
            }
            let group = services.commit_queue.take(&location);
            let Some(first) = group.first() else {
                // others may begin from here on
                ends.early = false;
                return;
            };
            let done = boxed(together(&services, &first.view, &group, &mut claim, &cx)).await;
            for w in group {
                // who was cancelled meanwhile does not listen
                let _ = w.answer.send(done.clone());
            }
        }
    })
}

async fn together(
    services: &Arc<Services>,
    view: &Arc<FeatureView>,
    group: &[Waiting],
    held: &mut Option<WriteClaim>,
    cx: &Arc<TaskContext>,
) -> Result<()> {
    *held = claim(services, view, "INSERT INTO").await?;
    let base = services.store.snapshot(&view.location, None).await?;
    let schema = with_seq(&visible_schema(view, true));
    let mut numbers = Sequence::after(&base);
    let mut numbered = vec![];
    for batch in group.iter().flat_map(|w| &w.rows) {
        numbered.push(numbers.add(batch, &schema)?);
    }
    let rows = stream_of(schema, futures::stream::iter(numbered.into_iter().map(Ok)));
    let newest = group.iter().filter_map(|w| w.newest).max();
    commit(services, view, base, rows, || newest, cx).await.map(|_| ())
}
