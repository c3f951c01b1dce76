//! Work beside the task that asked for it. Dropping what waits for it ends it.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::task::JoinSet;

/// Batches that a partition may have ready before its turn.
const AHEAD: usize = 2;

/// Tasks whose results are awaited in any order.
#[derive(Debug)]
pub struct Tasks<T>(JoinSet<Result<T>>);

impl<T: Send + 'static> Tasks<T> {
    pub fn new() -> Self {
        Tasks(JoinSet::new())
    }

    pub fn spawn(&mut self, task: impl Future<Output = Result<T>> + Send + 'static) {
        self.0.spawn(task);
    }

    /// The next result; `None` when all tasks are done. After an error none is running any more, nor holding memory.
    pub async fn next(&mut self) -> Result<Option<T>> {
        match self.0.join_next().await {
            None => Ok(None),
            Some(Ok(Ok(result))) => Ok(Some(result)),
            Some(Ok(Err(e))) => {
                self.0.shutdown().await;
                Err(e)
            }
            Some(Err(e)) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Some(Err(e)) => Err(DataFusionError::ExecutionJoin(Box::new(e))),
        }
    }
}

/// A partition executed by a task of its own, at most `ahead` batches before they are asked for.
pub fn spawned(plan: &Arc<dyn ExecutionPlan>, partition: usize, context: &Arc<TaskContext>, ahead: usize) -> SendableRecordBatchStream {
    let mut builder = RecordBatchReceiverStream::builder(plan.schema(), ahead);
    let (tx, plan, context) = (builder.tx(), Arc::clone(plan), Arc::clone(context));
    builder.spawn(async move {
        let mut batches = plan.execute(partition, context)?;
        while let Some(batch) = batches.next().await {
            if tx.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    builder.build()
}

/// Partitions one after another. All are started at once, because some plans (a hash join with a dynamic filter) give
/// nothing before each of them was, and so that the later ones work meanwhile.
pub fn in_turn(
    plan: &Arc<dyn ExecutionPlan>,
    partitions: Range<usize>,
    context: &Arc<TaskContext>,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    if partitions.len() == 1 {
        return Ok(plan.execute(partitions.start, Arc::clone(context))?.boxed());
    }
    let started: Vec<_> = partitions.map(|partition| spawned(plan, partition, context, AHEAD)).collect();
    Ok(stream::iter(started).flatten().boxed())
}

/// `work` on every part of `0..count`, by up to `tasks` threads of their own; answers by part, in order. At least one
/// part, even of nothing.
pub async fn in_parts<T: Send + 'static>(
    count: usize,
    tasks: usize,
    work: impl Fn(Range<usize>) -> T + Clone + Send + 'static,
) -> Result<Vec<T>> {
    let tasks = tasks.clamp(1, count.max(1));
    if tasks == 1 {
        return Ok(vec![work(0..count)]);
    }
    let per_task = count.div_ceil(tasks);
    let parts = (0..tasks).map(|t| (t * per_task).min(count)..((t + 1) * per_task).min(count));
    let running: Vec<_> = parts
        .map(|part| {
            let work = work.clone();
            SpawnedTask::spawn_blocking(move || work(part))
        })
        .collect();
    let mut done = Vec::with_capacity(tasks);
    for task in running {
        done.push(task.join().await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?);
    }
    Ok(done)
}
