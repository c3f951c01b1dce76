//! Runs one point-in-time join: a chunk of labels, every view, the output; then the next chunk. All labels are one
//! chunk where memory allows; else the views are read once per chunk.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::labels::key_index::KeyIndex;
use super::labels::label_index::Collected;
use super::labels::question::Question;
use super::memory::{Memory, Part};
use super::metrics::Metrics;
use super::output::batches::Output;
use super::output::winners::Place;
use super::probe::view::View;
use super::scan::label_input::LabelInput;
use super::spec::{PitExecItem, PitJoinSpec, evaluate};

/// Labels that must fit at once: smaller chunks would read the views too often to come to an end.
const MIN_CHUNK_ROWS: usize = 4096;
/// Label rows are numbered in 32 bits.
const MAX_CHUNK_ROWS: usize = u32::MAX as usize - 1;

/// Starts the join of one part of the labels. Nothing is read before the stream is polled, and dropping it stops everything.
pub fn start(
    spec: PitJoinSpec,
    part: usize,
    schema: SchemaRef,
    context: Arc<TaskContext>,
    metrics: &ExecutionPlanMetricsSet,
) -> SendableRecordBatchStream {
    let metrics = Metrics::new(metrics, part);
    let output_schema = Arc::clone(&schema);
    let batches = stream::once(async move { Run::open(spec, part, output_schema, context, metrics).await })
        .map_ok(|run| stream::try_unfold(run, |mut run| async move { Ok(run.next().await?.map(|batch| (batch, run))) }))
        .try_flatten()
        .boxed();
    let stream = RecordBatchStreamAdapter::new(schema, batches);
    Box::pin(datafusion::physical_plan::coop::cooperative(stream))
}

struct Run {
    spec: PitJoinSpec,
    /// Of the result.
    schema: SchemaRef,
    context: Arc<TaskContext>,
    metrics: Metrics,
    memory: Arc<Memory>,
    input: LabelInput,
    views: Vec<View>,
    timelines: Timelines,
    label_columns: Vec<usize>,
    batch_size: usize,
    /// Label rows of the last chunk that fitted, once one did not.
    chunk_limit: usize,
    output: Option<Output>,
}

/// Items whose labels have the same keys and instants share an index.
struct Timelines {
    /// Per item the index that it asks.
    asked: Vec<usize>,
    /// Per index the first item that asks it.
    first: Vec<usize>,
}

fn timelines(items: &[PitExecItem]) -> Timelines {
    let same = |a: &PitExecItem, b: &PitExecItem| {
        a.index == b.index
            && a.at.eq(&b.at)
            && a.known_by == b.known_by
            && a.lines.event == b.lines.event
            && a.lines.wide == b.lines.wide
            && (a.known_by.is_none() || a.lines.created == b.lines.created)
    };
    let mut first: Vec<usize> = vec![];
    let asked = items
        .iter()
        .enumerate()
        .map(|(i, item)| match first.iter().position(|f| same(&items[*f], item)) {
            Some(n) => n,
            None => {
                first.push(i);
                first.len() - 1
            }
        })
        .collect();
    Timelines { asked, first }
}

impl Run {
    async fn open(spec: PitJoinSpec, part: usize, schema: SchemaRef, context: Arc<TaskContext>, metrics: Metrics) -> Result<Self> {
        let name = spec.items.iter().map(|i| i.description.as_str()).collect::<Vec<_>>().join(", ");
        let memory = Memory::new(context.memory_pool(), name, metrics.peak_memory.clone(), spec.parts());
        let mut columns = spec.output_columns();
        let view_columns = columns.split_off(1);
        let mut views = Vec::with_capacity(spec.views.len());
        for ((plan, item), columns) in spec.views.iter().zip(&spec.items).zip(view_columns) {
            let mut view = View::open(plan, item, columns, spec.options.strategy, &context, &metrics, &memory)?;
            if part > 0 {
                // Another part executes the plan itself.
                view.mark_spent();
            }
            views.push(view);
        }
        Ok(Run {
            input: LabelInput::new(&spec, part, &context),
            views,
            timelines: timelines(&spec.items),
            label_columns: columns.swap_remove(0),
            batch_size: context.session_config().batch_size().max(1),
            chunk_limit: spec.options.chunk_rows.unwrap_or(usize::MAX).min(MAX_CHUNK_ROWS),
            output: None,
            spec,
            schema,
            context,
            metrics,
            memory,
        })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(output) = &mut self.output {
                let timer = self.metrics.output_time.timer();
                let batch = output.next_batch()?;
                timer.done();
                if let Some(batch) = batch {
                    self.metrics.output_rows.add(batch.num_rows());
                    return Ok(Some(batch));
                }
                self.output = None;
            }
            if self.input.ended {
                return Ok(None);
            }
            let chunk = self.read_chunk().await?;
            if chunk.is_empty() {
                return Ok(None);
            }
            self.output = Some(self.join(chunk).await?);
        }
    }

    /// As many labels as there is memory for, or all.
    async fn read_chunk(&mut self) -> Result<Vec<RecordBatch>> {
        let per_label: usize = self.views.iter().map(View::bytes_per_label).sum();
        let mut expected = self.memory.part();
        let (mut chunk, mut rows) = (vec![], 0);
        while rows < self.chunk_limit {
            let Some(batch) = self.input.next().await? else { break };
            let bytes = get_record_batch_memory_size(&batch) + batch.num_rows() * per_label;
            if expected.grow(bytes).is_err() && !chunk.is_empty() {
                self.input.give_back(std::iter::once(batch));
                break;
            }
            let room = self.chunk_limit - rows;
            if batch.num_rows() > room {
                self.input.give_back(std::iter::once(batch.slice(room, batch.num_rows() - room)));
            }
            let batch = batch.slice(0, batch.num_rows().min(room));
            rows += batch.num_rows();
            chunk.push(batch);
            tokio::task::consume_budget().await;
        }
        Ok(chunk)
    }

    /// Joins a chunk; where memory does not suffice, the first half of it, and gives the rest back.
    async fn join(&mut self, mut chunk: Vec<RecordBatch>) -> Result<Output> {
        loop {
            let rows: usize = chunk.iter().map(RecordBatch::num_rows).sum();
            match self.try_join(&chunk).await {
                Ok(output) => {
                    self.metrics.label_chunks.add(1);
                    self.metrics.label_rows.add(rows);
                    return Ok(output);
                }
                Err(e) if rows > MIN_CHUNK_ROWS && matches!(e.find_root(), DataFusionError::ResourcesExhausted(_)) => {
                    tracing::debug!(rows, error = %e, "too little memory for this many labels at once");
                    let rest = split_off(&mut chunk, rows.div_ceil(2));
                    self.chunk_limit = rows.div_ceil(2);
                    self.input.give_back(rest.into_iter());
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn try_join(&mut self, chunk: &[RecordBatch]) -> Result<Output> {
        let rows: usize = chunk.iter().map(RecordBatch::num_rows).sum();
        let mut held = self.memory.part();
        held.grow(chunk.iter().map(get_record_batch_memory_size).sum())?;
        let mut index_memory = self.memory.part();
        let questions = self.index(chunk, rows, &mut index_memory).await?;
        let mut found = Vec::with_capacity(self.views.len());
        for (view, asked) in self.views.iter_mut().zip(&self.timelines.asked) {
            found.push(view.find(&questions[*asked]).await?);
        }
        drop(questions);
        drop(index_memory);
        let labels = chunk.iter().map(|b| Ok(b.project(&self.label_columns)?)).collect::<Result<Vec<_>>>()?;
        Ok(Output {
            schema: Arc::clone(&self.schema),
            label_schema: Arc::new(self.spec.labels.schema().project(&self.label_columns)?),
            labels,
            found,
            batch_size: self.batch_size,
            next: Place { batch: 0, row: 0 },
            row: 0,
            _held: held,
        })
    }

    /// Indexes the labels once for all views that ask alike.
    async fn index(&mut self, chunk: &[RecordBatch], rows: usize, held: &mut Part) -> Result<Vec<Question>> {
        let items = &self.spec.items;
        let first = &self.timelines.first;
        let schema = self.spec.labels.schema();
        let mut keys = vec![];
        for item in self.spec.first_items() {
            let types = item.label_keys().map(|e| e.data_type(&schema)).collect::<Result<Vec<_>>>()?;
            keys.push(KeyIndex::new(&types)?);
        }
        let mut collected: Vec<Collected> = first.iter().map(|f| Collected::new(items[*f].lines.wide)).collect();
        for batch in chunk {
            let timer = self.metrics.index_time.timer();
            let mut groups = Vec::with_capacity(keys.len());
            for (index, item) in keys.iter_mut().zip(self.spec.first_items()) {
                let columns = item.label_keys().map(|e| evaluate(e, batch)).collect::<Result<Vec<_>>>()?;
                groups.push(index.insert(&columns, batch.num_rows())?);
            }
            for (times, f) in collected.iter_mut().zip(first) {
                let item = &items[*f];
                let at = evaluate(&item.at, batch)?;
                let known_by = item.known_by.as_ref().map(|e| evaluate(e, batch)).transpose()?;
                times.add(&groups[item.index], (&at, item.lines.event), known_by.as_ref().map(|k| (k, item.lines.created)))?;
            }
            timer.done();
            let size = keys.iter().map(KeyIndex::size).sum::<usize>() + collected.iter().map(Collected::size).sum::<usize>();
            held.resize(size)?;
            tokio::task::consume_budget().await;
        }
        let keys: Vec<Arc<KeyIndex>> = keys.into_iter().map(Arc::new).collect();
        let tasks = self.context.session_config().target_partitions().max(1);
        let mut questions: Vec<Question> = vec![];
        for (times, f) in collected.into_iter().zip(first) {
            let keys = Arc::clone(&keys[items[*f].index]);
            let building = times.size_of_build(rows);
            held.grow(building)?;
            let timer = self.metrics.index_time.timer();
            let index = times.build(keys.groups(), tasks).await?;
            timer.done();
            questions.push(Question { keys, index, label_rows: rows });
        }
        held.resize(keys.iter().map(|k| k.size()).sum::<usize>() + questions.iter().map(|q| q.index.size()).sum::<usize>())?;
        Ok(questions)
    }
}

/// Leaves the first `rows` rows in `batches` and answers the others.
pub(in crate::operator) fn split_off(batches: &mut Vec<RecordBatch>, rows: usize) -> Vec<RecordBatch> {
    let mut left = rows;
    for i in 0..batches.len() {
        let here = batches[i].num_rows();
        if here > left {
            let mut rest = batches.split_off(i + 1);
            rest.insert(0, batches[i].slice(left, here - left));
            batches[i] = batches[i].slice(0, left);
            if left == 0 {
                batches.pop();
            }
            return rest;
        }
        left -= here;
    }
    vec![]
}
