//! The labels, batch by batch in their order, a chunk of them at a time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::datasource::physical_plan::parquet::RowGroupAccess;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::files::ParquetFiles;
use crate::operator::pit_join::spec::PitJoinSpec;
use crate::operator::pit_join::tasks::in_turn;

/// Decoded bytes that may wait for their turn, per task.
const READ_AHEAD_BYTES: usize = 16 << 20;

/// Label batches that were read but not joined yet.
pub struct LabelInput {
    batches: BoxStream<'static, Result<RecordBatch>>,
    /// Given back by a chunk that was too large.
    returned: VecDeque<RecordBatch>,
    /// Label rows still to be read.
    fetch: usize,
    pub ended: bool,
}

impl LabelInput {
    /// The labels of one part.
    pub fn new(spec: &PitJoinSpec, part: usize, context: &Arc<TaskContext>) -> Self {
        let fetch = spec.label_fetch.unwrap_or(usize::MAX);
        let (labels, context) = (Arc::clone(&spec.labels), Arc::clone(context));
        let files = ParquetFiles::behind(&labels).filter(|_| spec.label_fetch.is_none());
        let share = spec.share(part);
        let batches = stream::once(async move {
            match files {
                Some(files) => in_parallel(files, &labels, &share, &context).await,
                // label order is partition order
                None => in_turn(&labels, share(labels.output_partitioning().partition_count()), &context),
            }
        })
        .try_flatten()
        .fuse()
        .boxed();
        LabelInput { batches, returned: VecDeque::new(), fetch, ended: false }
    }

    /// The next batch that has rows; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(batch) = self.returned.pop_front() {
            return Ok(Some(batch));
        }
        while self.fetch > 0 {
            let Some(batch) = self.batches.try_next().await? else { break };
            let batch = batch.slice(0, batch.num_rows().min(self.fetch));
            if batch.num_rows() > 0 {
                self.fetch -= batch.num_rows();
                return Ok(Some(batch));
            }
        }
        self.ended = true;
        Ok(None)
    }

    /// Puts batches back in front.
    pub fn give_back(&mut self, batches: impl DoubleEndedIterator<Item = RecordBatch>) {
        batches.rev().for_each(|b| self.returned.push_front(b));
        self.ended = false;
    }
}

/// Several row groups at once, handed on in order.
async fn in_parallel(
    files: ParquetFiles,
    labels: &Arc<dyn ExecutionPlan>,
    share: &impl Fn(usize) -> Range<usize>,
    context: &Arc<TaskContext>,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let config = context.session_config();
    let (tasks, batch_size) = (config.target_partitions().max(1), config.batch_size().max(1));
    let files = files.open(|_| true, context).await?;
    let mut units = files.units(|_, _| RowGroupAccess::Scan);
    let mine = share(units.len());
    units.truncate(mine.end);
    units.drain(..mine.start);
    if units.is_empty() {
        return Ok(stream::empty().boxed());
    }
    let bytes: usize = files.footers.iter().flat_map(|f| f.row_groups()).map(|g| usize::try_from(g.total_byte_size()).unwrap_or(0)).sum();
    let bytes_per_batch = (bytes / files.rows().max(1) * batch_size).max(1);
    let ahead = (READ_AHEAD_BYTES / bytes_per_batch).clamp(2, 128);
    let columns: Vec<usize> = (0..labels.schema().fields().len()).collect();
    let count = units.len();
    let scan = Arc::new(files).scan(&Arc::new(units.into_iter().map(|u| (u, None)).collect()), &columns, batch_size);
    let context = Arc::clone(context);
    // `buffered` starts the tasks; polling what it gives drains them one after the other.
    let streams = stream::iter(0..count).map(move |u| std::future::ready(scan.read_ahead(u, &context, ahead)));
    Ok(streams.buffered(tasks).try_flatten().boxed())
}
