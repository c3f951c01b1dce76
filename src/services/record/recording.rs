//! The record of one run. Its work may be dropped at any point: the client goes away, its time is over, the server
//! stops. How it ended is recorded then all the same.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use crate::catalog::{Run, RunStatus, Runs};
use crate::clock::{self, Clock};
use crate::error::Result;
use crate::model::FeatureView;
use crate::services::Services;
use crate::telemetry::RUNS;

/// A commit that was under way when the work was dropped may still come through.
const STRAGGLER: Duration = Duration::from_secs(1);

pub(super) const GIVEN_UP: &str = "cancelled: the client gave it up or its time was over, or the server was stopped";
const BROKE_OFF: &str = "it broke off: a fault of ours, see the log";

pub(super) struct Recording {
    runs: Arc<Runs>,
    clock: Clock,
    view: String,
    runtime: Option<Handle>,
    /// What is still to be recorded; without an end: nobody knows it yet.
    left: Option<Run>,
}

impl Recording {
    /// Records that a run begins.
    pub fn begin<'a>(services: &'a Services, view: &'a FeatureView, run: &'a Run) -> BoxFuture<'a, Result<Self>> {
        Box::pin(async move {
            let mut recording = Recording {
                runs: Arc::clone(&services.runs),
                clock: services.clock.clone(),
                view: view.versioned_name(),
                runtime: Handle::try_current().ok(),
                left: Some(Run { finished_at: None, ..run.clone() }),
            };
            if let Err(e) = services.runs.start(run).await {
                recording.left = None;
                return Err(e);
            }
            Ok(recording)
        })
    }

    /// Records how it ended, also where that is given up half-way.
    pub fn end<'a>(mut self, run: &'a Run) -> BoxFuture<'a, Result<()>> {
        count(run, &self.view);
        self.left = Some(run.clone());
        Box::pin(async move {
            let mut recording = self;
            let written = recording.runs.finish(run).await;
            recording.left = None;
            written
        })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let (Some(run), Some(runtime)) = (self.left.take(), &self.runtime) else { return };
        let (runs, view) = (Arc::clone(&self.runs), self.view.clone());
        if run.finished_at.is_some() {
            runtime.spawn(async move { write(&runs, &run).await });
            return;
        }
        let (status, error) = match std::thread::panicking() {
            true => (RunStatus::Failed, BROKE_OFF),
            false => (RunStatus::Cancelled, GIVEN_UP),
        };
        let run = Run { status, error: Some(error.to_string()), finished_at: Some(self.clock.now()), ..run };
        runtime.spawn(async move {
            clock::sleep(STRAGGLER).await;
            let run = as_committed(&runs, run).await;
            count(&run, &view);
            write(&runs, &run).await;
        });
    }
}

/// A run that had committed before it was dropped has done its work.
async fn as_committed(runs: &Runs, run: Run) -> Run {
    match runs.committed(&run).await {
        Ok(None) => run,
        Ok(delta_version) => Run { status: RunStatus::Succeeded, error: None, delta_version, ..run },
        Err(e) => {
            tracing::warn!(error = %e, run_id = %run.run_id, "whether a run had committed when it was cancelled cannot be told");
            run
        }
    }
}

async fn write(runs: &Runs, run: &Run) {
    if let Err(e) = runs.finish(run).await {
        tracing::error!(error = %e, run_id = %run.run_id, "the end of a run could not be recorded");
    }
}

fn count(run: &Run, view: &str) {
    metrics::counter!(RUNS, "kind" => run.kind.clone(), "view" => view.to_string(), "status" => run.status.as_str()).increment(1);
}
