//! Reads the rows that won, and nothing else, once it is known which they are.
//!
//! A unit's columns are read some at a time: what is decompressed and waits is small, and a view of few row groups
//! still occupies every task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use futures::TryStreamExt;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::RowSelection;

use super::compact::compacted;
use super::packed::Packed;
use super::payload::{Column, Payload, SlabRows};
use crate::operator::pit_join::memory::{Memory, Part};
use crate::operator::pit_join::scan::files::{OpenFiles, Unit, UnitScan, selections};
use crate::operator::pit_join::scan::row_set::RowSet;
use crate::operator::pit_join::tasks::Tasks;

/// Rows per batch while reading.
const BATCH_ROWS: usize = 16_384;
/// Bytes of a unit's columns, as they stand in the file, that are read at a time, if all columns were alike.
const BYTES_AT_ONCE: usize = 8 << 20;
const COLUMNS_AT_ONCE: usize = 512;

/// Some columns of all units.
struct Slab {
    scan: UnitScan,
    /// The columns of fixed width, and their places among the slab's.
    packed: Packed,
    fixed: Vec<usize>,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Per unit and column of varying width what was read.
    read: Vec<Vec<Vec<ArrayRef>>>,
    units_left: usize,
    held: Part,
    done: Vec<Column>,
}

/// Reads some columns of the winners, several tasks at a time.
pub async fn fetch(
    files: Arc<OpenFiles>,
    units: &[Unit],
    winners: RowSet,
    columns: &[usize],
    schema: SchemaRef,
    context: &Arc<TaskContext>,
    memory: &Arc<Memory>,
) -> Result<Payload> {
    let selected = selections(winners, units);
    if selected.is_empty() || columns.is_empty() {
        return Ok(Payload::empty(schema));
    }
    let tasks = context.session_config().target_partitions().max(1);
    // The reader makes room for whole batches.
    let most = selected.iter().map(|(_, s)| s.row_count()).max().unwrap_or(0);
    // The rank of each unit's first winner.
    let mut rows = 0;
    let mut firsts = Vec::with_capacity(selected.len());
    for (_, selection) in &selected {
        firsts.push(rows);
        rows += selection.row_count();
    }
    let at_once = columns_at_once(&files, &selected, columns.len(), tasks);
    let units = selected.len();
    let read = Arc::new(selected.into_iter().map(|(unit, rows)| (unit, Some(rows))).collect());
    let mut slabs = vec![];
    let mut fields = 0..schema.fields().len();
    for columns in columns.chunks(at_once) {
        let scan = files.scan(&read, columns, most.clamp(1, BATCH_ROWS));
        let schema = schema.project(&fields.by_ref().take(columns.len()).collect::<Vec<_>>())?;
        slabs.push(Slab::new(scan, &schema, units, rows, memory.part())?);
    }
    let (slabs, firsts) = (Arc::new(slabs), Arc::new(firsts));
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = Tasks::new();
    for _ in 0..tasks.min(units * slabs.len()) {
        let (slabs, firsts, next) = (Arc::clone(&slabs), Arc::clone(&firsts), Arc::clone(&next));
        let (context, memory) = (Arc::clone(context), Arc::clone(memory));
        running.spawn(async move {
            loop {
                // One slab after the other, so that few are half-read.
                let step = next.fetch_add(1, Ordering::Relaxed);
                let (Some(slab), Some(first)) = (slabs.get(step / units), firsts.get(step % units)) else { return Ok(()) };
                slab.read(step % units, *first, &context, &memory).await?;
            }
        });
    }
    while running.next().await?.is_some() {}
    let slabs = Arc::try_unwrap(slabs).map_err(|_| DataFusionError::Internal("a task of the join still runs".into()))?;
    let mut held = vec![];
    let slabs = slabs.into_iter().map(|s| s.filled(&mut held)).collect();
    Ok(Payload::new(schema, slabs, held))
}

fn columns_at_once(files: &OpenFiles, selections: &[(Unit, RowSelection)], columns: usize, tasks: usize) -> usize {
    let per_column = |unit: &Unit| {
        let group = files.footers[unit.file].row_group(unit.row_group);
        usize::try_from(group.compressed_size()).unwrap_or(0) / group.num_columns().max(1)
    };
    let largest = selections.iter().map(|(u, _)| per_column(u)).max().unwrap_or(0);
    let fair = columns.div_ceil(tasks.div_ceil(selections.len()));
    (BYTES_AT_ONCE / largest.max(1)).clamp(1, fair.min(COLUMNS_AT_ONCE))
}

impl Slab {
    fn new(scan: UnitScan, schema: &Schema, units: usize, rows: usize, mut held: Part) -> Result<Self> {
        let fixed: Vec<usize> = (0..schema.fields().len()).filter(|c| Packed::holds(schema.field(*c).data_type())).collect();
        let packed = Packed::new(schema, &fixed, rows);
        held.grow(packed.size())?;
        let progress = Progress { read: vec![vec![]; units], units_left: units, held, done: vec![] };
        Ok(Slab { scan, packed, fixed, progress: Mutex::new(progress) })
    }

    /// Reads the winners of one unit. `first`: the rank of the first of them.
    async fn read(&self, unit: usize, first: usize, context: &Arc<TaskContext>, memory: &Arc<Memory>) -> Result<()> {
        let mut held = memory.part();
        let mut batches = self.scan.read(unit, context)?;
        let others: Vec<usize> = (0..batches.schema().fields().len()).filter(|c| !self.fixed.contains(c)).collect();
        let mut columns: Vec<Vec<ArrayRef>> = vec![vec![]; others.len()];
        let mut rank = first;
        while let Some(batch) = batches.try_next().await? {
            self.packed.write(rank, &self.fixed.iter().map(|c| batch.column(*c)).collect::<Vec<_>>())?;
            rank += batch.num_rows();
            if !others.is_empty() {
                let batch = compacted(batch.project(&others)?)?;
                held.grow(get_record_batch_memory_size(&batch))?;
                for (column, array) in columns.iter_mut().zip(batch.columns()) {
                    column.push(Arc::clone(array));
                }
            }
            tokio::task::consume_budget().await;
        }
        let mut progress = self.progress.lock();
        progress.read[unit] = columns;
        progress.held.take(held);
        progress.units_left -= 1;
        if progress.units_left == 0 { progress.finish() } else { Ok(()) }
    }

    fn filled(self, held: &mut Vec<Part>) -> SlabRows {
        let progress = self.progress.into_inner();
        held.push(progress.held);
        let mut others = progress.done.into_iter();
        let count = self.fixed.len() + others.len();
        let columns = (0..count).map(|c| if self.fixed.contains(&c) { None } else { others.next() }).collect();
        SlabRows { packed: self.packed.filled(), columns }
    }
}

impl Progress {
    /// Joins every column, one by one, so that only one is there twice.
    fn finish(&mut self) -> Result<()> {
        let units = std::mem::take(&mut self.read);
        let mut columns: Vec<Vec<ArrayRef>> = vec![];
        for unit in units {
            columns.resize_with(unit.len(), Vec::new);
            for (column, arrays) in columns.iter_mut().zip(unit) {
                column.extend(arrays);
            }
        }
        self.done = columns.into_iter().map(|arrays| Column::new(arrays, &mut self.held)).collect::<Result<_>>()?;
        Ok(())
    }
}
