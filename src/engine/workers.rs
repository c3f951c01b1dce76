//! The threads that plan and run statements. Whoever answers clients or listens to a terminal has others, which a
//! statement can never hold up.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result as DfResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};

use crate::cancel::{Cancel, cancelled};
use crate::error::{Error, Result};

/// Plans are trees that are walked, shown and dropped by recursion; what is deeper than `sql/depth.rs` allows is refused
/// before that. Memory is taken for what is used of it.
const STACK_BYTES: usize = 256 << 20;

/// Threads that take longer to end are stuck.
const JOIN: Duration = Duration::from_secs(60);

/// Batches that are made ahead of their reader.
const AHEAD: usize = 2;

/// Plannings at once, per thread of execution: a small one must not wait until large ones are done.
const PLANNERS_PER_THREAD: usize = 8;

pub struct Workers {
    /// `None` once dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    /// Planning cannot be put off in the middle: its threads are counted.
    planners: Arc<Semaphore>,
    /// Those of lookups, which wait for no other statement.
    lookup_planners: Arc<Semaphore>,
}

impl Workers {
    pub fn start(threads: usize) -> Result<Self> {
        let threads = threads.max(1);
        let built =
            Builder::new_multi_thread().worker_threads(threads).thread_name("worker").thread_stack_size(STACK_BYTES).enable_all().build();
        let runtime = built.map_err(|e| Error::from(e).context("cannot start threads"))?;
        let planners = || Arc::new(Semaphore::new(threads * PLANNERS_PER_THREAD));
        Ok(Workers { handle: runtime.handle().clone(), runtime: Some(runtime), planners: planners(), lookup_planners: planners() })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Plans on a thread of its own. When the future is dropped, `cancel` ends the planning at its next step.
    pub fn plan<T: Send + 'static>(&self, cancel: &Cancel, work: BoxFuture<'static, Result<T>>) -> BoxFuture<'static, Result<T>> {
        self.plan_in(&self.planners, cancel, work)
    }

    /// As `plan`, for a lookup.
    pub fn plan_lookup<T: Send + 'static>(&self, cancel: &Cancel, work: BoxFuture<'static, Result<T>>) -> BoxFuture<'static, Result<T>> {
        self.plan_in(&self.lookup_planners, cancel, work)
    }

    fn plan_in<T: Send + 'static>(
        &self,
        planners: &Arc<Semaphore>,
        cancel: &Cancel,
        work: BoxFuture<'static, Result<T>>,
    ) -> BoxFuture<'static, Result<T>> {
        let (handle, planners, cancel) = (self.handle.clone(), Arc::clone(planners), cancel.clone());
        Box::pin(async move {
            let guard = cancel.guard();
            let place = planners.acquire_owned().await.map_err(|_| cancelled())?;
            let planning = handle.spawn_blocking(move || {
                let done = Handle::current().block_on(wanted(cancel, work));
                drop(place);
                done
            });
            let done = planning.await.unwrap_or_else(|e| Err(broken(e)));
            guard.disarm();
            done
        })
    }

    /// Runs a job to its end. When the future is dropped, the job ends at its next step. A job writes files, which takes
    /// long at a stretch, so it has a thread of its own: on one of the workers it would hold up the tasks that it wakes.
    pub fn run<T: Send + 'static>(&self, cancel: &Cancel, work: BoxFuture<'static, Result<T>>) -> BoxFuture<'static, Result<T>> {
        let (guard, cancel) = (cancel.guard(), cancel.clone());
        let job = self.handle.spawn_blocking(move || Handle::current().block_on(wanted(cancel, work)));
        Box::pin(async move {
            let done = job.await.unwrap_or_else(|e| Err(broken(e)));
            guard.disarm();
            done
        })
    }

    /// Makes the rows of a query here, a few batches ahead of who reads them. They end when the stream is dropped.
    pub fn drive(&self, cancel: &Cancel, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let (schema, (send, batches)) = (rows.schema(), mpsc::channel(AHEAD));
        let mut task = JoinSet::new();
        task.spawn_on(cancel.scope(pump(rows, send)), &self.handle);
        driven(schema, Driven { batches, task, _guard: cancel.guard() })
    }
}

/// The work, unless it is cancelled first.
async fn wanted<T>(cancel: Cancel, work: BoxFuture<'static, Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(cancelled()),
        done = cancel.scope(work) => done,
    }
}

async fn pump(mut rows: SendableRecordBatchStream, send: mpsc::Sender<DfResult<RecordBatch>>) {
    while let Some(batch) = rows.next().await {
        let last = batch.is_err();
        if send.send(batch).await.is_err() || last {
            return;
        }
    }
}

struct Driven {
    batches: mpsc::Receiver<DfResult<RecordBatch>>,
    task: JoinSet<()>,
    _guard: tokio_util::sync::DropGuard,
}

fn driven(schema: SchemaRef, driven: Driven) -> SendableRecordBatchStream {
    let rows = futures::stream::unfold(driven, |mut d| async move {
        if let Some(batch) = d.batches.recv().await {
            return Some((batch, d));
        }
        // no more rows come: they have all been made, or the one who made them has failed
        match d.task.join_next().await {
            Some(Err(e)) => Some((Err(broken(e).into()), d)),
            _ => None,
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// A panic below costs one statement.
fn broken(e: JoinError) -> Error {
    if e.is_panic() { Error::internal("the statement failed in an unforeseen way; the log has the details") } else { cancelled() }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // It may be dropped by a task, where nothing may be waited for. Threads are joined, not let go of: letting go of one
        // that ends at this moment reads its stack, which glibc has unmapped where it was large (sourceware bug 19951).
        if let Some(runtime) = self.runtime.take() {
            std::thread::spawn(move || runtime.shutdown_timeout(JOIN));
        }
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workers")
    }
}
