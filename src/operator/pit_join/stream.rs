//! Runs one point-in-time join: labels, then every view, then the output.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, Time};
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::exec::{PitExecItem, PitJoinExec};
use super::key::KeyIndex;
use super::output::{Found, Output};
use super::slots::{FeatureColumns, Matcher, matcher};
use super::winners::{Place, Winners};

/// Rows looked at before other tasks get their turn.
const STEPS_PER_TURN: usize = 1 << 16;
/// Input partitions are numbered in the upper bits of a row's position.
const ROW_BITS: u32 = 40;

#[derive(Debug, Clone)]
struct Metrics {
    label_rows: Count,
    feature_rows: Count,
    matched_rows: Count,
    output_rows: Count,
    index_time: Time,
    probe_time: Time,
    output_time: Time,
    peak_memory: Gauge,
}

impl Metrics {
    fn new(set: &ExecutionPlanMetricsSet) -> Self {
        let counter = |name: &'static str| MetricBuilder::new(set).counter(name, 0);
        let time = |name: &'static str| MetricBuilder::new(set).subset_time(name, 0);
        Metrics {
            label_rows: counter("label_rows"),
            feature_rows: counter("feature_rows"),
            matched_rows: counter("matched_rows"),
            output_rows: MetricBuilder::new(set).output_rows(0),
            index_time: time("index_time"),
            probe_time: time("probe_time"),
            output_time: time("output_time"),
            peak_memory: MetricBuilder::new(set).gauge("peak_memory_bytes", 0),
        }
    }
}

/// The memory of one run, as parts that grow and shrink.
struct Memory {
    reservation: MemoryReservation,
    name: String,
    /// Label batches; label indexes and slots; winners of views done.
    labels: usize,
    index: usize,
    winners: usize,
    peak: Gauge,
}

impl Memory {
    /// Sets the reservation to what is held, plus `more` of the step at hand.
    fn hold(&self, more: usize) -> Result<()> {
        let total = self.labels + self.index + self.winners + more;
        self.reservation.try_resize(total).map_err(|e| {
            DataFusionError::ResourcesExhausted(format!(
                "the point-in-time join of {} needs {total} bytes for its labels and matches, more than the memory limit leaves: {}",
                self.name,
                e.strip_backtrace()
            ))
        })?;
        self.peak.set_max(total);
        Ok(())
    }
}

/// Starts the join. Nothing is read before the stream is polled, and dropping it stops everything.
pub fn start(exec: &PitJoinExec, context: Arc<TaskContext>, metrics: &ExecutionPlanMetricsSet) -> SendableRecordBatchStream {
    let metrics = Metrics::new(metrics);
    let schema = exec.schema();
    let exec = exec.clone();
    let batches = stream::once(async move {
        let (output, reservation) = Run::new(&exec, &context, metrics.clone()).finish(&exec).await?;
        Ok::<_, DataFusionError>(stream::try_unfold((output, reservation, metrics), |(mut output, reservation, metrics)| async move {
            let timer = metrics.output_time.timer();
            let batch = output.next_batch()?;
            timer.done();
            Ok(batch.map(|b| {
                metrics.output_rows.add(b.num_rows());
                (b, (output, reservation, metrics))
            }))
        }))
    })
    .try_flatten()
    .boxed();
    let stream = RecordBatchStreamAdapter::new(schema, batches);
    Box::pin(datafusion::physical_plan::coop::cooperative(stream))
}

struct Run {
    context: Arc<TaskContext>,
    metrics: Metrics,
    memory: Memory,
    batch_size: usize,
}

/// Everything known about the labels.
struct Labels {
    batches: Vec<RecordBatch>,
    rows: usize,
    /// One per distinct list of key expressions.
    indexes: Vec<KeyIndex>,
    /// One per item.
    matchers: Vec<Box<dyn Matcher>>,
}

impl Run {
    fn new(exec: &PitJoinExec, context: &Arc<TaskContext>, metrics: Metrics) -> Self {
        let name = exec.items.iter().map(|i| i.description.as_str()).collect::<Vec<_>>().join(", ");
        let reservation = MemoryConsumer::new("PitJoinExec").register(context.memory_pool());
        let memory = Memory { reservation, name, labels: 0, index: 0, winners: 0, peak: metrics.peak_memory.clone() };
        let batch_size = context.session_config().batch_size().max(1);
        Run { context: Arc::clone(context), metrics, memory, batch_size }
    }

    async fn finish(mut self, exec: &PitJoinExec) -> Result<(Output, MemoryReservation)> {
        let Labels { batches, rows, indexes, matchers } = self.read_labels(exec).await?;
        let mut found = Vec::with_capacity(matchers.len());
        for (i, matcher) in matchers.into_iter().enumerate() {
            let (view, item) = (&exec.views[i], &exec.items[i]);
            let held = matcher.size();
            let schema = view.schema();
            let mut winners = Winners::new(Arc::clone(&schema));
            let places = if rows == 0 { vec![] } else { self.read_view(view, item, &indexes[item.index], matcher, &mut winners).await? };
            self.metrics.matched_rows.add(places.iter().filter(|p| !p.is_none()).count());
            self.memory.index = self.memory.index.saturating_sub(held) + places.len() * size_of::<Place>();
            self.memory.winners += winners.bytes();
            self.memory.hold(0)?;
            found.push(Found { places, batches: winners.into_batches(), schema, inner: item.inner });
        }
        let output = Output {
            schema: exec.schema(),
            label_schema: exec.labels.schema(),
            labels: batches,
            found,
            batch_size: self.batch_size,
            next: Place { batch: 0, row: 0 },
            row: 0,
        };
        Ok((output, self.memory.reservation))
    }

    async fn read_labels(&mut self, exec: &PitJoinExec) -> Result<Labels> {
        let mut labels = Labels {
            batches: vec![],
            rows: 0,
            indexes: exec.indexes().map(|types| KeyIndex::new(&types?)).collect::<Result<_>>()?,
            matchers: exec.items.iter().map(|i| matcher(i.op, i.lines, self.batch_size)).collect(),
        };
        let fetch = exec.label_fetch.unwrap_or(usize::MAX);
        // One partition after the other: label order is partition order.
        'all: for partition in 0..exec.labels.output_partitioning().partition_count() {
            if labels.rows >= fetch {
                break;
            }
            let mut batches = exec.labels.execute(partition, Arc::clone(&self.context))?;
            while let Some(batch) = batches.try_next().await? {
                let batch = batch.slice(0, batch.num_rows().min(fetch - labels.rows));
                self.add_labels(exec, &mut labels, batch)?;
                if labels.rows >= fetch {
                    break 'all;
                }
                tokio::task::consume_budget().await;
            }
        }
        let timer = self.metrics.index_time.timer();
        for (matcher, item) in labels.matchers.iter_mut().zip(&exec.items) {
            matcher.build(labels.indexes[item.index].groups());
        }
        timer.done();
        self.memory.index = labels.size();
        self.memory.hold(0)?;
        Ok(labels)
    }

    fn add_labels(&mut self, exec: &PitJoinExec, labels: &mut Labels, batch: RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let _timer = self.metrics.index_time.timer();
        self.metrics.label_rows.add(rows);
        labels.rows += rows;
        if labels.rows >= u32::MAX as usize {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "the point-in-time join of {} has more than {} label rows: split the labels, for example by time",
                self.memory.name,
                u32::MAX
            )));
        }
        self.memory.labels += get_record_batch_memory_size(&batch);
        self.memory.hold(labels.size())?;
        let mut groups = Vec::with_capacity(labels.indexes.len());
        for (index, first) in labels.indexes.iter_mut().zip(exec.first_items()) {
            let keys = evaluate_all(first.keys.iter().map(|k| &k.0), &batch)?;
            groups.push(index.insert(&keys, rows)?);
        }
        for (matcher, item) in labels.matchers.iter_mut().zip(&exec.items) {
            let known_by = item.known_by.as_ref().map(|e| evaluate(e, &batch)).transpose()?;
            matcher.add_labels(&groups[item.index], &evaluate(&item.at, &batch)?, known_by.as_ref())?;
        }
        labels.batches.push(batch);
        self.memory.hold(labels.size())
    }

    async fn read_view(
        &mut self,
        view: &Arc<dyn ExecutionPlan>,
        item: &PitExecItem,
        index: &KeyIndex,
        mut matcher: Box<dyn Matcher>,
        winners: &mut Winners,
    ) -> Result<Vec<Place>> {
        let partitions = view.output_partitioning().partition_count();
        let mut read = vec![0i64; partitions];
        let mut batches = read_partitions(view, &self.context)?;
        while let Some((partition, batch)) = batches.try_next().await? {
            let rows = batch.num_rows();
            if rows == 0 {
                continue;
            }
            self.metrics.feature_rows.add(rows);
            let timer = self.metrics.probe_time.timer();
            let keys = evaluate_all(item.keys.iter().map(|k| &k.1), &batch)?;
            let position = ((partition as i64) << ROW_BITS).saturating_add(read[partition]);
            read[partition] += rows as i64;
            matcher.load(FeatureColumns {
                groups: index.find(&keys, rows)?,
                time: evaluate(&item.time, &batch)?,
                created: item.created.as_ref().map(|e| evaluate(e, &batch)).transpose()?,
                seq: item.seq.as_ref().map(|e| evaluate(e, &batch)).transpose()?,
                position,
            })?;
            timer.done();
            loop {
                let timer = self.metrics.probe_time.timer();
                let done = matcher.probe(&batch, winners, STEPS_PER_TURN)?;
                timer.done();
                if done {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let timer = self.metrics.probe_time.timer();
            self.memory.hold(winners.bytes() + get_record_batch_memory_size(&batch))?;
            matcher.keep(&batch, winners)?;
            self.memory.hold(winners.bytes())?;
            timer.done();
            tokio::task::consume_budget().await;
        }
        Ok(matcher.finish())
    }
}

impl Labels {
    fn size(&self) -> usize {
        self.indexes.iter().map(KeyIndex::size).sum::<usize>() + self.matchers.iter().map(|m| m.size()).sum::<usize>()
    }
}

fn evaluate(e: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    e.evaluate(batch)?.into_array(batch.num_rows())
}

fn evaluate_all<'a>(exprs: impl Iterator<Item = &'a Arc<dyn PhysicalExpr>>, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.map(|e| evaluate(e, batch)).collect()
}

/// All partitions at once, each read by its own task; the tasks end when the stream is dropped.
/// Rows come with the number of their partition, in order within it.
fn read_partitions(view: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Result<BoxStream<'static, Result<(usize, RecordBatch)>>> {
    let partitions = view.output_partitioning().partition_count();
    if partitions == 1 {
        return Ok(view.execute(0, Arc::clone(context))?.map_ok(|b| (0, b)).boxed());
    }
    let schema: SchemaRef = view.schema();
    let streams = (0..partitions).map(|p| {
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&schema), 2);
        let (tx, view, context) = (builder.tx(), Arc::clone(view), Arc::clone(context));
        builder.spawn(async move {
            let mut batches = view.execute(p, context)?;
            while let Some(batch) = batches.next().await {
                if tx.send(batch).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        builder.build().map_ok(move |b| (p, b))
    });
    Ok(stream::select_all(streams).boxed())
}
