//! Runs one window join: a chunk of labels, all events, the output; then the next chunk.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::compute::{filter_record_batch, nullif};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, Time};
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::frames::frames;
use super::runs::{Events, Runs, is_known};
use super::spec::WindowJoinSpec;
use crate::clock::Micros;
use crate::error::Error;
use crate::model::window::{Aggregator, Output, Run as Events1, Window};
use crate::operator::pit_join::labels::key_index::KeyIndex;
use crate::operator::pit_join::labels::label_index::{Collected, Index, LabelIndex};
use crate::operator::pit_join::memory::{Memory, Part};
use crate::operator::pit_join::spec::evaluate;
use crate::operator::pit_join::tasks::in_turn;

/// Labels that must fit at once: smaller chunks would read the events too often to come to an end.
const MIN_CHUNK_ROWS: usize = 4096;
/// Label rows are numbered in 32 bits.
const MAX_CHUNK_ROWS: usize = u32::MAX as usize - 1;
/// Bytes of a label beside its row: its place in the index, twice while it is built, and its instant.
const INDEX_BYTES: usize = 48;

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
    /// Of aggregation, without the wait for events.
    window_time: Time,
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
    aggregators: Vec<Aggregator>,
    /// The different windows, and per aggregate which it has.
    windows: Vec<Window>,
    window_of: Vec<usize>,
    chunk_limit: usize,
    joined: Option<Joined>,
}

/// A chunk with its answers.
struct Joined {
    batches: VecDeque<RecordBatch>,
    columns: Vec<ArrayRef>,
    /// Rows with a key and an instant; `None`: all.
    asked: Option<BooleanArray>,
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
        let arguments = spec.arguments_schema()?;
        let aggregators = spec.aggregates.iter().map(|a| Aggregator::new(a, &arguments)).collect::<crate::error::Result<Vec<_>>>()?;
        let mut windows: Vec<Window> = vec![];
        let window_of = spec
            .aggregates
            .iter()
            .map(|a| match windows.iter().position(|w| *w == a.window) {
                Some(at) => at,
                None => {
                    windows.push(a.window.clone());
                    windows.len() - 1
                }
            })
            .collect();
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
            aggregators,
            windows,
            window_of,
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

    fn bytes_per_label(&self) -> usize {
        INDEX_BYTES + self.aggregators.iter().map(|a| a.output(0).bytes_per_label()).sum::<usize>()
    }

    /// As many labels as there is memory for, or all.
    async fn read_chunk(&mut self) -> Result<Vec<RecordBatch>> {
        let per_label = self.bytes_per_label();
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
        let outputs: Vec<Output> = self.aggregators.iter().map(|a| a.output(rows)).collect();
        held.grow(outputs.iter().map(Output::memory).sum::<usize>() + rows * size_of::<Option<Micros>>())?;
        let mut answers = Answers { outputs, newest: vec![None; rows], frames: vec![vec![]; self.windows.len()] };
        let before = answers.memory();
        self.aggregate(&labels, &mut answers).await?;
        // texts and lists
        held.grow(answers.memory().saturating_sub(before))?;
        let mut asked = vec![false; rows];
        labels.index.rows.iter().for_each(|row| asked[*row as usize] = true);
        let asked = BooleanArray::from(asked);
        let asked = if asked.true_count() == rows { None } else { Some(asked) };
        Ok(Joined { batches: chunk.iter().cloned().collect(), columns: answers.columns(asked.as_ref())?, asked, row: 0, _held: held })
    }

    /// Reads all events and lets each key's meet its labels.
    async fn aggregate(&mut self, labels: &Labels, answers: &mut Answers) -> Result<()> {
        let mut events = self.spec.sorted_events(&self.context)?;
        let mut runs = Runs::new(&self.spec, &labels.keys, self.spec.item.known_by.is_some(), self.memory.part());
        let (windows, window_of) = (&self.windows, &self.window_of);
        let longest = self.spec.longest.as_ref();
        let aggregators = &mut self.aggregators;
        let mut whole = |group: u32, events: &Events, (from, to): (usize, usize)| {
            let (start, end) = labels.index.range(group);
            if start == end {
                return Ok(());
            }
            let asking = Asking {
                instants: &labels.index.at[start..end],
                rows: &labels.index.rows[start..end],
                known_by: labels.index.known_by.get(start..end).unwrap_or_default(),
            };
            let run = Events1 { times: &events.times[from..to], columns: &events.columns, first: from };
            let known = events.created.as_ref().map(|c| &c[from..to]);
            answers.run(&run, known, &asking, windows, window_of, aggregators)?;
            if let Some(longest) = longest {
                answers.newest(&run, known, &asking, longest);
            }
            Ok(())
        };
        while let Some(batch) = events.next().await {
            let batch = batch?;
            self.metrics.event_rows.add(batch.num_rows());
            let timer = self.metrics.window_time.timer();
            runs.batch(&batch, &mut whole)?;
            timer.done();
            tokio::task::consume_budget().await;
        }
        runs.end(&mut whole)
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

/// The labels of one key, in the order of their instants.
struct Asking<'a> {
    instants: &'a [Micros],
    /// Their rows in the chunk.
    rows: &'a [u32],
    /// Empty where nobody asks what was known.
    known_by: &'a [Micros],
}

/// Answers by label row.
struct Answers {
    outputs: Vec<Output>,
    /// The newest event in the longest window.
    newest: Vec<Option<Micros>>,
    /// Of the run at hand, per window.
    frames: Vec<Vec<(u32, u32)>>,
}

impl Answers {
    /// Bytes of the values.
    fn memory(&self) -> usize {
        self.outputs.iter().map(Output::memory).sum()
    }

    fn run(
        &mut self,
        run: &Events1<'_>,
        known: Option<&[Option<Micros>]>,
        asking: &Asking<'_>,
        windows: &[Window],
        window_of: &[usize],
        aggregators: &mut [Aggregator],
    ) -> Result<()> {
        for (window, out) in windows.iter().zip(&mut self.frames) {
            frames(window, run.times, asking.instants, out);
        }
        for ((aggregator, window), out) in aggregators.iter_mut().zip(window_of).zip(&mut self.outputs) {
            let frames = &self.frames[*window];
            let Some(known) = known else {
                aggregator.fill(run, frames, asking.rows, out)?;
                continue;
            };
            for ((frame, row), by) in frames.iter().zip(asking.rows).zip(asking.known_by) {
                let rows: Vec<u32> = (frame.0..frame.1).filter(|r| is_known(known[*r as usize], *by)).collect();
                aggregator.of_rows(run, &rows, *row, out)?;
            }
        }
        Ok(())
    }

    fn newest(&mut self, run: &Events1<'_>, known: Option<&[Option<Micros>]>, asking: &Asking<'_>, longest: &Window) {
        let mut to = 0;
        for (i, (t, row)) in asking.instants.iter().zip(asking.rows).enumerate() {
            while run.times.get(to).is_some_and(|e| e <= t) {
                to += 1;
            }
            let last = match (known, asking.known_by.get(i)) {
                (Some(known), Some(by)) => (0..to).rev().find(|r| is_known(known[*r], *by)),
                _ => to.checked_sub(1),
            };
            let oldest = longest.bounds(*t).0;
            self.newest[*row as usize] = last.map(|r| run.times[r]).filter(|e| *e >= oldest);
        }
    }

    /// As columns; NULL where a label has no key or no instant.
    fn columns(self, asked: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut columns: Vec<ArrayRef> = self.outputs.into_iter().map(Output::finish).collect::<crate::error::Result<_>>()?;
        if let Some(asked) = asked {
            let not = datafusion::arrow::compute::not(asked)?;
            columns = columns.iter().map(|c| Ok(nullif(c, &not)?)).collect::<Result<_>>()?;
        }
        columns.push(Arc::new(TimestampMicrosecondArray::from(self.newest).with_timezone("UTC")));
        Ok(columns)
    }
}

impl Joined {
    /// The next label batch with its answers.
    fn next(&mut self, schema: &SchemaRef, inner: bool) -> Result<Option<RecordBatch>> {
        let Some(labels) = self.batches.pop_front() else { return Ok(None) };
        let (row, rows) = (self.row, labels.num_rows());
        self.row += rows;
        let columns = labels.columns().iter().cloned().chain(self.columns.iter().map(|c| c.slice(row, rows))).collect();
        let batch = RecordBatch::try_new(Arc::clone(schema), columns)?;
        Ok(Some(match self.asked.as_ref().filter(|_| inner) {
            Some(asked) => filter_record_batch(&batch, &asked.slice(row, rows))?,
            None => batch,
        }))
    }
}
