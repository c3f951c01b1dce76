//! Runs one window join: a chunk of labels, all events, the output; then the next chunk.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, new_null_array};
use datafusion::arrow::compute::{filter_record_batch, interleave};
use datafusion::arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, Time};
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::runs::Runs;
use super::spec::WindowJoinSpec;
use super::workers::{Answers, Question, Workers};
use crate::error::Error;
use crate::operator::pit_join::labels::key_index::KeyIndex;
use crate::operator::pit_join::labels::label_index::{Collected, Index, LabelIndex};
use crate::operator::pit_join::memory::{Memory, Part};
use crate::operator::pit_join::spec::evaluate;
use crate::operator::pit_join::tasks::in_turn;

/// Labels that must fit at once: smaller chunks would read the events too often to come to an end.
const MIN_CHUNK_ROWS: usize = 4096;
/// Label rows are numbered in 32 bits.
const MAX_CHUNK_ROWS: usize = u32::MAX as usize - 1;
/// Bytes of a label beside its row: its place in the index, twice while it is built, its instant, and the way back.
const INDEX_BYTES: usize = 52;
/// A row that no answer belongs to: it has no key or no instant.
const NOT_ASKED: u32 = u32::MAX;

/// Starts the join. Nothing is read before the stream is polled, and dropping it stops everything.
pub fn start(spec: WindowJoinSpec, context: Arc<TaskContext>, metrics: &ExecutionPlanMetricsSet) -> SendableRecordBatchStream {
    let schema = spec.schema();
    let metrics = Metrics::new(metrics);
    let batches = stream::once(async move { Join::open(spec, context, metrics) })
        .map_ok(|join| stream::try_unfold(join, |mut join| async move { Ok(join.next().await?.map(|batch| (batch, join))) }))
        .try_flatten()
        .boxed();
    let stream = RecordBatchStreamAdapter::new(schema, batches);
    Box::pin(datafusion::physical_plan::coop::cooperative(stream))
}

struct Metrics {
    label_rows: Count,
    event_rows: Count,
    output_rows: Count,
    label_chunks: Count,
    index_time: Time,
    /// Of events to be read and aggregated.
    window_time: Time,
    workers: Count,
    peak_memory: datafusion::physical_plan::metrics::Gauge,
}

impl Metrics {
    fn new(set: &ExecutionPlanMetricsSet) -> Self {
        let counter = |name: &'static str| MetricBuilder::new(set).counter(name, 0);
        let time = |name: &'static str| MetricBuilder::new(set).subset_time(name, 0);
        Metrics {
            label_rows: counter("label_rows"),
            event_rows: counter("event_rows"),
            output_rows: MetricBuilder::new(set).output_rows(0),
            label_chunks: counter("label_chunks"),
            index_time: time("index_time"),
            window_time: time("window_time"),
            workers: counter("workers"),
            peak_memory: MetricBuilder::new(set).gauge("peak_memory_bytes", 0),
        }
    }
}

struct Join {
    spec: WindowJoinSpec,
    schema: SchemaRef,
    context: Arc<TaskContext>,
    metrics: Metrics,
    memory: Arc<Memory>,
    labels: BoxStream<'static, Result<RecordBatch>>,
    /// Label batches given back by a chunk that was too large.
    returned: VecDeque<RecordBatch>,
    ended: bool,
    question: Arc<Question>,
    chunk_limit: usize,
    joined: Option<Joined>,
}

/// A chunk with its answers.
struct Joined {
    batches: VecDeque<RecordBatch>,
    /// Per added column its values by worker, and a NULL.
    columns: Vec<Vec<ArrayRef>>,
    /// Where the labels of each worker begin in the index.
    begins: Vec<usize>,
    /// Per row of the chunk its label in the index.
    labels: Vec<u32>,
    row: usize,
    _held: Part,
}

/// The labels of a chunk, indexed.
struct Labels {
    keys: KeyIndex,
    index: Arc<LabelIndex<i64>>,
}

impl Join {
    fn open(spec: WindowJoinSpec, context: Arc<TaskContext>, metrics: Metrics) -> Result<Self> {
        let memory = Memory::new(context.memory_pool(), spec.item.description.clone(), metrics.peak_memory.clone(), 1);
        let labels = in_turn(&spec.labels, 0..spec.labels.output_partitioning().partition_count(), &context)?;
        let question = Arc::new(Question::new(spec.aggregates.clone(), spec.arguments_schema()?, spec.longest.clone()));
        let schema = spec.schema();
        Ok(Join {
            spec,
            schema,
            context,
            metrics,
            memory,
            labels,
            returned: VecDeque::new(),
            ended: false,
            question,
            chunk_limit: MAX_CHUNK_ROWS,
            joined: None,
        })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(joined) = &mut self.joined {
                match joined.next(&self.schema, self.spec.item.inner)? {
                    Some(batch) if batch.num_rows() == 0 => continue,
                    Some(batch) => {
                        self.metrics.output_rows.add(batch.num_rows());
                        return Ok(Some(batch));
                    }
                    None => self.joined = None,
                }
            }
            if self.ended {
                return Ok(None);
            }
            let chunk = self.read_chunk().await?;
            if chunk.is_empty() {
                return Ok(None);
            }
            self.joined = Some(self.join(chunk).await?);
        }
    }

    async fn next_labels(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(batch) = self.returned.pop_front() {
            return Ok(Some(batch));
        }
        while let Some(batch) = self.labels.try_next().await? {
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        self.ended = true;
        Ok(None)
    }

    fn give_back(&mut self, batches: Vec<RecordBatch>) {
        batches.into_iter().rev().for_each(|b| self.returned.push_front(b));
        self.ended = false;
    }

    /// As many labels as there is memory for, or all.
    async fn read_chunk(&mut self) -> Result<Vec<RecordBatch>> {
        let per_label = INDEX_BYTES + self.question.bytes_per_label()?;
        let mut expected = self.memory.part();
        let (mut chunk, mut rows) = (vec![], 0);
        while rows < self.chunk_limit {
            let Some(batch) = self.next_labels().await? else { break };
            let bytes = get_record_batch_memory_size(&batch) + batch.num_rows() * per_label;
            if expected.grow(bytes).is_err() && !chunk.is_empty() {
                self.give_back(vec![batch]);
                break;
            }
            let room = self.chunk_limit - rows;
            if batch.num_rows() > room {
                self.give_back(vec![batch.slice(room, batch.num_rows() - room)]);
            }
            let batch = batch.slice(0, batch.num_rows().min(room));
            rows += batch.num_rows();
            chunk.push(batch);
            tokio::task::consume_budget().await;
        }
        Ok(chunk)
    }

    /// Joins a chunk; where memory does not suffice, the first half of it, and gives the rest back.
    async fn join(&mut self, mut chunk: Vec<RecordBatch>) -> Result<Joined> {
        loop {
            let rows: usize = chunk.iter().map(RecordBatch::num_rows).sum();
            match self.try_join(&chunk, rows).await {
                Ok(joined) => {
                    self.metrics.label_chunks.add(1);
                    self.metrics.label_rows.add(rows);
                    return Ok(joined);
                }
                Err(e) if rows > MIN_CHUNK_ROWS && matches!(e.find_root(), DataFusionError::ResourcesExhausted(_)) => {
                    tracing::debug!(rows, error = %e, "too little memory for this many labels at once");
                    self.chunk_limit = rows.div_ceil(2);
                    let rest = crate::operator::pit_join::stream::split_off(&mut chunk, self.chunk_limit);
                    self.give_back(rest);
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn try_join(&mut self, chunk: &[RecordBatch], rows: usize) -> Result<Joined> {
        let mut held = self.memory.part();
        held.grow(chunk.iter().map(get_record_batch_memory_size).sum())?;
        let mut index_memory = self.memory.part();
        let labels = index(&self.spec, &self.context, &self.metrics, chunk, rows, &mut index_memory).await?;
        held.grow(rows * (self.question.bytes_per_label()? + size_of::<u32>()))?;
        let answers = self.aggregate(&labels).await?;
        held.grow(answers.iter().map(|a| a.beside).sum())?;
        let mut places = vec![NOT_ASKED; rows];
        labels.index.rows.iter().zip(0..).for_each(|(row, label)| places[*row as usize] = label);
        Ok(Joined::new(chunk, answers, places, held, &self.spec))
    }

    /// Reads all events and lets each key's meet its labels.
    async fn aggregate(&mut self, labels: &Labels) -> Result<Vec<Answers>> {
        let timer = self.metrics.window_time.timer();
        let mut events = self.spec.sorted_events(&self.context)?;
        let mut runs = Runs::new(&self.spec, &labels.keys, self.spec.item.known_by.is_some(), self.memory.part());
        let count = self.context.session_config().target_partitions().max(1);
        let workers = Workers::start(&self.question, &labels.index, count, &self.memory)?;
        self.metrics.workers.add(workers.count());
        while let Some(batch) = events.next().await {
            let batch = batch?;
            self.metrics.event_rows.add(batch.num_rows());
            for whole in runs.batch(&batch)? {
                workers.take(whole).await?;
            }
            if workers.is_broken() {
                break;
            }
            tokio::task::consume_budget().await;
        }
        if let Some(whole) = runs.end()? {
            workers.take(whole).await?;
        }
        let answers = workers.answers().await;
        timer.done();
        answers
    }
}

/// Indexes the labels of a chunk.
async fn index(
    spec: &WindowJoinSpec,
    context: &TaskContext,
    metrics: &Metrics,
    chunk: &[RecordBatch],
    rows: usize,
    held: &mut Part,
) -> Result<Labels> {
    let item = &spec.item;
    let schema = spec.labels.schema();
    let types = item.label_keys().map(|e| e.data_type(&schema)).collect::<Result<Vec<_>>>()?;
    let mut keys = KeyIndex::new(&types)?;
    let mut times = Collected::new(item.lines.wide);
    for batch in chunk {
        let timer = metrics.index_time.timer();
        let columns = item.label_keys().map(|e| evaluate(e, batch)).collect::<Result<Vec<_>>>()?;
        let groups = keys.insert(&columns, batch.num_rows())?;
        let at = evaluate(&item.at, batch)?;
        let known_by = item.known_by.as_ref().map(|e| evaluate(e, batch)).transpose()?;
        times.add(&groups, (&at, item.lines.event), known_by.as_ref().map(|k| (k, item.lines.created)))?;
        timer.done();
        held.resize(keys.size() + times.size())?;
        tokio::task::consume_budget().await;
    }
    held.grow(times.size_of_build(rows))?;
    let tasks = context.session_config().target_partitions().max(1);
    let timer = metrics.index_time.timer();
    let index = times.build(keys.groups(), tasks).await?;
    timer.done();
    held.resize(keys.size() + index.size())?;
    match index {
        Index::Narrow(index) => Ok(Labels { keys, index }),
        Index::Wide(_) => Err(Error::internal("the instants of a window join are microseconds").into()),
    }
}

impl Joined {
    fn new(chunk: &[RecordBatch], answers: Vec<Answers>, labels: Vec<u32>, held: Part, spec: &WindowJoinSpec) -> Self {
        let begins = answers.iter().map(|a| a.labels.start).collect();
        let column = |(i, field): (usize, &FieldRef)| {
            let parts = answers.iter().filter_map(|a| a.columns.get(i).cloned());
            parts.chain([new_null_array(field.data_type(), 1)]).collect()
        };
        let columns = spec.added.iter().enumerate().map(column).collect();
        Joined { batches: chunk.iter().cloned().collect(), columns, begins, labels, row: 0, _held: held }
    }

    /// The next label batch with its answers.
    fn next(&mut self, schema: &SchemaRef, inner: bool) -> Result<Option<RecordBatch>> {
        let Some(labels) = self.batches.pop_front() else { return Ok(None) };
        let (row, rows) = (self.row, labels.num_rows());
        self.row += rows;
        let asked = &self.labels[row..row + rows];
        let places: Vec<(usize, usize)> = asked.iter().map(|label| self.place(*label)).collect();
        let answers = self.columns.iter().map(|parts| interleave(&parts.iter().map(|p| p.as_ref()).collect::<Vec<_>>(), &places));
        let columns = labels.columns().iter().cloned().map(Ok).chain(answers).collect::<std::result::Result<_, _>>()?;
        let batch = RecordBatch::try_new(Arc::clone(schema), columns)?;
        if inner && asked.contains(&NOT_ASKED) {
            return Ok(Some(filter_record_batch(&batch, &asked.iter().map(|label| Some(*label != NOT_ASKED)).collect::<BooleanArray>())?));
        }
        Ok(Some(batch))
    }

    /// The worker whose answer it is, and where it stands there.
    fn place(&self, label: u32) -> (usize, usize) {
        if label == NOT_ASKED {
            return (self.begins.len(), 0);
        }
        let label = label as usize;
        let worker = self.begins.partition_point(|begin| *begin <= label).saturating_sub(1);
        (worker, label - self.begins.get(worker).copied().unwrap_or(0))
    }
}
