//! Ends what waits for ever. A plan that for `stall_timeout` gave no batch to a reader who asked for one, of which no
//! task ran, and which waited for no store, is stuck: it fails with an error instead of holding its client.
//!
//! Known cause: RepartitionExec of DataFusion 55 under a memory limit (apache/datafusion#24883), which
//! `operator::repartition` plans around.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result as DfResult;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{Stream, StreamExt};

use super::Services;
use crate::activity::Activity;
use crate::clock::{self, Interval, Micros};
use crate::error::{Error, Kind, Result};

/// Looks per `stall_timeout`.
const LOOKS: u32 = 8;

/// Runs a plan; its rows end with an error when it makes no progress.
pub fn execute(services: &Services, plan: Arc<dyn ExecutionPlan>, cx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
    let activity = Activity::current();
    // some operators spawn their tasks here
    let rows = activity.within(|| execute_stream(plan, cx))?;
    Ok(guarded(rows, activity, services.config.stall_timeout))
}

/// Runs a plan whose own waits (leases, other writers) are none of its operators': only the rows that it reads are
/// watched, by `watch`.
pub fn execute_effect(plan: Arc<dyn ExecutionPlan>, cx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
    let activity = Activity::current();
    let rows = activity.within(|| execute_stream(plan, cx))?;
    Ok(guarded(rows, activity, 0))
}

/// Watches the rows that a statement with an effect reads.
pub fn watch(services: &Services, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    guarded(rows, Activity::current(), services.config.stall_timeout)
}

fn guarded(inner: SendableRecordBatchStream, activity: Arc<Activity>, limit: Micros) -> SendableRecordBatchStream {
    let limit = (limit > 0).then(|| Duration::from_micros(limit as u64));
    Box::pin(Guarded { inner, activity, limit, rest: None })
}

struct Guarded {
    inner: SendableRecordBatchStream,
    activity: Arc<Activity>,
    limit: Option<Duration>,
    /// While a reader waits for a batch.
    rest: Option<Rest>,
}

/// How long nothing has happened.
struct Rest {
    ticks: Interval,
    steps: Option<u64>,
    looks: u32,
}

impl Rest {
    fn new(limit: Duration) -> Self {
        let between = limit / LOOKS;
        Rest { ticks: clock::ticks_after(between, between), steps: None, looks: 0 }
    }

    /// Whether `LOOKS` looks in a row saw no step.
    fn is_over(&mut self, activity: &Activity, cx: &mut Context<'_>) -> bool {
        while self.ticks.poll_tick(cx).is_ready() {
            let now = activity.at_rest();
            self.looks = if now.is_some() && now == self.steps { self.looks + 1 } else { 0 };
            self.steps = now;
        }
        self.looks >= LOOKS
    }
}

impl Stream for Guarded {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let waker = Waker::from(Arc::new(Woken { activity: Arc::clone(&this.activity), waker: cx.waker().clone() }));
        let inner = &mut this.inner;
        let polled = {
            // a long computation in the reader's own task is no rest, should others look at it
            let _under_way = this.activity.begin_quietly();
            this.activity.within(|| inner.poll_next_unpin(&mut Context::from_waker(&waker)))
        };
        let Some(limit) = this.limit else { return polled };
        if polled.is_ready() {
            this.rest = None;
            return polled;
        }
        if this.rest.get_or_insert_with(|| Rest::new(limit)).is_over(&this.activity, cx) {
            this.rest = None;
            return Poll::Ready(Some(Err(stalled(limit).into())));
        }
        Poll::Pending
    }
}

impl RecordBatchStream for Guarded {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }
}

fn stalled(limit: Duration) -> Error {
    tracing::error!(seconds = limit.as_secs_f64(), "a statement stalled: no task of it ran, and it waited for no store");
    Error::new(
        Kind::Unavailable,
        format!("the statement stalled: for {} s it made no row, computed nothing and waited for no store", limit.as_secs_f64()),
    )
    .with_hint("nothing was changed; try again with a higher memory_limit, or with threads = 1; stall_timeout says how long a rest may be")
}

/// Counts the wake-ups of the inner stream, and passes them on; looks of other parts of the reader's task count for nothing.
struct Woken {
    activity: Arc<Activity>,
    waker: Waker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.activity.step();
        self.waker.wake_by_ref();
    }
}

#[cfg(test)]
mod tests;
