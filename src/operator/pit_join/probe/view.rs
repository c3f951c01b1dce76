//! One view matched to the labels of a chunk, by the way that suits its plan.
//!
//! - A plain Parquet scan is read twice: its key and time columns by several tasks (`partitions`, or `slots` where the
//!   question is not a plain "latest before"), then of the required columns the rows that won.
//! - Any other plan is read once, and the rows that are some label's best so far are kept.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicUsize};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::partitions::{CachePartitions, Probing};
use super::resolved::Resolved;
use super::slots::{FeatureColumns, matcher};
use crate::operator::pit_join::labels::key_index::KeyIndex;
use crate::operator::pit_join::labels::label_index::{Index, LabelIndex};
use crate::operator::pit_join::labels::question::Question;
use crate::operator::pit_join::memory::{Memory, Part};
use crate::operator::pit_join::metrics::Metrics;
use crate::operator::pit_join::options::PitStrategy;
use crate::operator::pit_join::output::batches::Found;
use crate::operator::pit_join::output::fetch::fetch;
use crate::operator::pit_join::output::payload::Payload;
use crate::operator::pit_join::output::winners::{Place, Ties, Winners};
use crate::operator::pit_join::scan::files::{ParquetFiles, Unit, UnitScan};
use crate::operator::pit_join::scan::prune::{self, Pruned};
use crate::operator::pit_join::scan::row_set::{NO_ROW, RowSet};
use crate::operator::pit_join::spec::PitExecItem;
use crate::operator::pit_join::tasks::{Tasks, spawned};

/// Rows looked at before other tasks get their turn.
const STEPS_PER_TURN: usize = 1 << 16;
/// Input partitions are numbered in the upper bits of a row's position.
const ROW_BITS: u32 = 40;
/// Rows per batch of key columns.
const KEY_BATCH_ROWS: usize = 16_384;

/// A view and how it is read.
pub struct View {
    plan: Arc<dyn ExecutionPlan>,
    item: PitExecItem,
    /// Columns of the result.
    columns: Vec<usize>,
    schema: SchemaRef,
    files: Option<ParquetFiles>,
    probing: Probing,
    /// The plan was executed before.
    spent: bool,
    context: Arc<TaskContext>,
    metrics: Metrics,
    memory: Arc<Memory>,
}

/// What EXPLAIN says before anything is counted.
pub fn planned(plan: &Arc<dyn ExecutionPlan>, item: &PitExecItem) -> String {
    let how = match ParquetFiles::behind(plan) {
        None => "stream, keep winners".to_string(),
        Some(files) => {
            let how = if !is_plain(item) {
                "slots"
            } else if files.is_sorted() {
                "merge"
            } else {
                "slots or merge"
            };
            let rows = files.rows_known().map(|n| format!(", {n} rows")).unwrap_or_default();
            format!("{how}, fetch winners{rows}")
        }
    };
    format!("{}: {how}", item.description)
}

/// "The latest row at or before", which `partitions` answers.
fn is_plain(item: &PitExecItem) -> bool {
    !item.op.looks_ahead() && item.known_by.is_none() && !item.lines.wide
}

impl View {
    /// Nothing is read yet.
    pub fn open(
        plan: &Arc<dyn ExecutionPlan>,
        item: &PitExecItem,
        columns: Vec<usize>,
        strategy: PitStrategy,
        context: &Arc<TaskContext>,
        metrics: &Metrics,
        memory: &Arc<Memory>,
    ) -> Result<Self> {
        let files = ParquetFiles::behind(plan).filter(|_| strategy != PitStrategy::Stream);
        let probing = match strategy {
            PitStrategy::Merge => Probing::Runs,
            PitStrategy::Slots => Probing::Rows,
            PitStrategy::Auto | PitStrategy::Stream => Probing::Auto,
        };
        let schema = Arc::new(plan.schema().project(&columns)?);
        Ok(View {
            plan: Arc::clone(plan),
            item: item.clone(),
            columns,
            schema,
            files,
            probing,
            spent: false,
            context: Arc::clone(context),
            metrics: metrics.clone(),
            memory: Arc::clone(memory),
        })
    }

    /// The plan is executed elsewhere, too: here a copy of it is.
    pub fn mark_spent(&mut self) {
        self.spent = true;
    }

    /// Bytes that a label needs here, about: its slot and the row it gets.
    pub fn bytes_per_label(&self) -> usize {
        let row: usize = self.schema.fields().iter().map(|f| f.data_type().primitive_width().unwrap_or(24)).sum();
        64 + row
    }

    /// Finds the row of every label.
    pub async fn find(&mut self, question: &Question) -> Result<Found> {
        let inner = self.item.inner;
        if question.label_rows == 0 {
            return Ok(Found::Fetched { ranks: vec![], payload: Payload::empty(Arc::clone(&self.schema)), inner });
        }
        match &self.files {
            Some(files) => self.find_in_files(files, question).await,
            None => self.find_in_stream(question).await,
        }
    }

    async fn find_in_files(&self, files: &ParquetFiles, question: &Question) -> Result<Found> {
        let item = &self.item;
        let Pruned { files, units } = prune::open(files, &self.plan, item, question, &self.context, &self.metrics).await?;
        let rows: usize = units.iter().map(|u| u.rows).sum();

        let expressions = item.feature_expressions();
        let mut needed: Vec<usize> = expressions.iter().flat_map(|e| collect_columns(e)).map(|c| c.index()).collect();
        needed.sort_unstable();
        needed.dedup();
        let narrow = item.map_feature_side(&|e| on_columns(e, &needed))?;
        let scan = files.scan(&Arc::new(units.iter().map(|u| (u.clone(), None)).collect()), &needed, KEY_BATCH_ROWS);

        let (ranks, winners, mut held) = match &question.index {
            Index::Narrow(index) if is_plain(item) && rows < NO_ROW as usize => {
                self.find_in_partitions(index, &units, scan, &narrow, question, rows).await?
            }
            _ => self.find_in_slots(&units, &scan, &narrow, question, rows).await?,
        };
        self.metrics.matched_rows.add(ranks.iter().filter(|r| **r != NO_ROW).count());
        let timer = self.metrics.fetch_time.timer();
        let schema = Arc::clone(&self.schema);
        let mut payload = fetch(files, &units, winners, &self.columns, schema, &self.context, &self.memory).await?;
        timer.done();
        held.resize(ranks.len() * size_of::<u32>())?;
        payload.hold_too(held);
        Ok(Found::Fetched { ranks, payload, inner: item.inner })
    }

    /// Several tasks, a row group each at a time.
    async fn find_in_partitions(
        &self,
        index: &Arc<LabelIndex<i64>>,
        units: &Arc<Vec<Unit>>,
        scan: UnitScan,
        item: &PitExecItem,
        question: &Question,
        rows: usize,
    ) -> Result<(Vec<u32>, RowSet, Part)> {
        let has_ties = item.created.is_some() || item.seq.is_some();
        let mut held = self.memory.part();
        held.grow(CachePartitions::size_for(index.slots(), has_ties))?;
        let partitions = Arc::new(CachePartitions::new(Arc::clone(index), item.lines, item.op.is_strict(), has_ties, self.probing));
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = Tasks::new();
        for _ in 0..self.context.session_config().target_partitions().clamp(1, units.len().max(1)) {
            let (scan, next, partitions, units) = (scan.clone(), Arc::clone(&next), Arc::clone(&partitions), Arc::clone(units));
            let (item, keys, context) = (item.clone(), Arc::clone(&question.keys), Arc::clone(&self.context));
            let (metrics, mut held) = (self.metrics.clone(), self.memory.part());
            tasks.spawn(async move {
                let mut collector = partitions.collector();
                loop {
                    let unit = next.fetch_add(1, atomic::Ordering::Relaxed);
                    let Some(meta) = units.get(unit) else { break };
                    let mut first = meta.base;
                    let mut batches = scan.read(unit, &context)?;
                    while let Some(batch) = batches.try_next().await? {
                        let timer = metrics.probe_time.timer();
                        metrics.feature_rows.add(batch.num_rows());
                        partitions.add(&mut collector, &keys, &item.feature_keys(&batch)?, &item.feature_times(&batch)?, first as u32)?;
                        first += batch.num_rows();
                        held.resize(collector.size())?;
                        timer.done();
                        tokio::task::consume_budget().await;
                    }
                }
                let timer = metrics.probe_time.timer();
                partitions.flush(&mut collector);
                timer.done();
                metrics.merged_rows.add(collector.merged_rows);
                Ok(())
            });
        }
        while tasks.next().await?.is_some() {}
        let partitions = Arc::try_unwrap(partitions).map_err(|_| DataFusionError::Internal("a task of the join still runs".into()))?;
        let timer = self.metrics.probe_time.timer();
        let mut found = self.memory.part();
        let tasks = self.context.session_config().target_partitions().max(1);
        found.grow(Resolved::size_for(question.label_rows, rows, tasks))?;
        let (ranks, winners) = partitions.resolve().ranks(rows, tasks).await?;
        drop(held);
        timer.done();
        Ok((ranks, winners, found))
    }

    /// The general matcher over the key columns of files, one row group after the other.
    async fn find_in_slots(
        &self,
        units: &[Unit],
        scan: &UnitScan,
        item: &PitExecItem,
        question: &Question,
        rows: usize,
    ) -> Result<(Vec<u32>, RowSet, Part)> {
        let mut matcher = matcher(item.op, item.lines, &question.index, KEY_BATCH_ROWS);
        let mut held = self.memory.part();
        held.grow(matcher.size() + question.label_rows * size_of::<Place>() + RowSet::size_for(rows))?;
        for (number, unit) in units.iter().enumerate() {
            let mut first = 0;
            let mut batches = scan.read(number, &self.context)?;
            while let Some(batch) = batches.try_next().await? {
                self.metrics.feature_rows.add(batch.num_rows());
                let origin = Place { batch: number as u32, row: first as u32 };
                let timer = self.metrics.probe_time.timer();
                matcher.load(self.feature_columns(item, &question.keys, &batch, (unit.base + first) as i64, origin)?)?;
                first += batch.num_rows();
                timer.done();
                loop {
                    let timer = self.metrics.probe_time.timer();
                    let done = matcher.probe(&batch, &mut LaterRow(origin), STEPS_PER_TURN)?;
                    timer.done();
                    if done {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                tokio::task::consume_budget().await;
            }
        }
        let number = |p: &Place| units[p.batch as usize].base + p.row as usize;
        let found = matcher.finish();
        let winners = RowSet::new(rows, found.iter().filter(|p| !p.is_none()).map(number));
        let ranks = found.iter().map(|p| if p.is_none() { NO_ROW } else { winners.rank(number(p)) }).collect();
        Ok((ranks, winners, held))
    }

    fn feature_columns(
        &self,
        item: &PitExecItem,
        keys: &KeyIndex,
        batch: &RecordBatch,
        position: i64,
        origin: Place,
    ) -> Result<FeatureColumns> {
        Ok(FeatureColumns {
            groups: keys.find(&item.feature_keys(batch)?, batch.num_rows())?,
            times: item.feature_times(batch)?,
            position,
            origin,
        })
    }

    async fn find_in_stream(&mut self, question: &Question) -> Result<Found> {
        if self.spent {
            self.plan = reset_plan_states(Arc::clone(&self.plan))?;
        }
        self.spent = true;
        let item = &self.item;
        let mut winners = Winners::new(self.plan.schema());
        let mut matcher = matcher(item.op, item.lines, &question.index, self.context.session_config().batch_size().max(1));
        let mut slots = self.memory.part();
        slots.grow(matcher.size() + question.label_rows * size_of::<Place>())?;
        let mut held = self.memory.part();
        let mut read = vec![0i64; self.plan.output_partitioning().partition_count()];
        let mut batches = read_partitions(&self.plan, &self.context)?;
        while let Some((partition, batch)) = batches.try_next().await? {
            let rows = batch.num_rows();
            if rows == 0 {
                continue;
            }
            self.metrics.feature_rows.add(rows);
            let timer = self.metrics.probe_time.timer();
            let position = ((partition as i64) << ROW_BITS).saturating_add(read[partition]);
            read[partition] += rows as i64;
            let origin = Place { batch: winners.next_batch(), row: 0 };
            matcher.load(self.feature_columns(item, &question.keys, &batch, position, origin)?)?;
            timer.done();
            loop {
                let timer = self.metrics.probe_time.timer();
                let done = matcher.probe(&batch, &mut winners, STEPS_PER_TURN)?;
                timer.done();
                if done {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let timer = self.metrics.probe_time.timer();
            held.resize(winners.bytes() + get_record_batch_memory_size(&batch))?;
            matcher.keep(&batch, &mut winners)?;
            held.resize(winners.bytes())?;
            timer.done();
            tokio::task::consume_budget().await;
        }
        let places = matcher.finish();
        slots.resize(places.len() * size_of::<Place>())?;
        held.take(slots);
        self.metrics.matched_rows.add(places.iter().filter(|p| !p.is_none()).count());
        let batches = winners.into_batches().iter().map(|b| Ok(b.project(&self.columns)?)).collect::<Result<_>>()?;
        Ok(Found::Kept { places, batches, schema: Arc::clone(&self.schema), inner: item.inner, _held: held })
    }
}

/// Of rows that tie in everything, the one that stands later in the files wins.
struct LaterRow(Place);

impl Ties for LaterRow {
    fn compare(&mut self, _batch: &RecordBatch, row: usize, place: Place) -> Result<Ordering> {
        Ok((self.0.batch, self.0.row + row as u32).cmp(&(place.batch, place.row)))
    }
}

/// The expression where only `columns` are there, in that order.
fn on_columns(e: &Arc<dyn PhysicalExpr>, columns: &[usize]) -> Result<Arc<dyn PhysicalExpr>> {
    Arc::clone(e)
        .transform_up(|e| {
            let Some(column) = e.downcast_ref::<Column>() else { return Ok(Transformed::no(e)) };
            let index = columns.partition_point(|c| *c < column.index());
            Ok(Transformed::yes(Arc::new(Column::new(column.name(), index)) as Arc<dyn PhysicalExpr>))
        })
        .data()
}

/// All partitions at once, each read by its own task; the tasks end when the stream is dropped.
/// Rows come with the number of their partition, in order within it.
fn read_partitions(view: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Result<BoxStream<'static, Result<(usize, RecordBatch)>>> {
    let partitions = view.output_partitioning().partition_count();
    if partitions == 1 {
        return Ok(view.execute(0, Arc::clone(context))?.map_ok(|b| (0, b)).boxed());
    }
    let streams = (0..partitions).map(|p| spawned(view, p, context, 2).map_ok(move |b| (p, b)));
    Ok(stream::select_all(streams).boxed())
}
