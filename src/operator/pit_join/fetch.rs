//! Reads the rows that won, and nothing else, once it is known which they are.
//!
//! A unit's columns are read some at a time: what is decompressed and waits is small, and a view of few row groups
//! still occupies every task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use futures::TryStreamExt;
use parking_lot::Mutex;

use super::compact::compacted;
use super::files::{OpenFiles, Unit, UnitScan};
use super::memory::{Memory, Part};
use super::payload::{Column, Payload};
use super::rows::RowSet;
use super::tasks::Tasks;

/// Rows per batch while reading.
const BATCH_ROWS: usize = 16_384;
/// Bytes of a unit's columns, as they stand in the file, that are read at a time.
const BYTES_AT_ONCE: usize = 8 << 20;

/// Some columns of all units.
struct Slab {
    scan: UnitScan,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Per unit and column what was read.
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
    let selections = winners.selections(units);
    if selections.is_empty() || columns.is_empty() {
        return Ok(Payload::empty(schema));
    }
    let tasks = context.session_config().target_partitions().max(1);
    let wanted: Vec<(&Unit, Option<RowSelection>)> = selections.iter().map(|(u, s)| (u, Some(s.clone()))).collect();
    // The reader makes room for whole batches.
    let most = selections.iter().map(|(_, s)| s.row_count()).max().unwrap_or(0);
    let mut slabs = vec![];
    for columns in columns.chunks(columns_at_once(&files, &selections, columns.len(), tasks)) {
        let progress = Progress { read: vec![vec![]; selections.len()], units_left: selections.len(), held: memory.part(), done: vec![] };
        let scan = files.scan(&wanted, columns, most.clamp(1, BATCH_ROWS))?;
        slabs.push(Slab { scan, progress: Mutex::new(progress) });
    }
    drop(wanted);
    let units = selections.len();
    drop(selections);
    let slabs: Arc<Vec<Slab>> = Arc::new(slabs);
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = Tasks::new();
    for _ in 0..tasks.min(units * slabs.len()) {
        let (slabs, next, context, memory) = (Arc::clone(&slabs), Arc::clone(&next), Arc::clone(context), Arc::clone(memory));
        running.spawn(async move {
            loop {
                // One slab after the other, so that few are half-read.
                let step = next.fetch_add(1, Ordering::Relaxed);
                let Some(slab) = slabs.get(step / units) else { return Ok(()) };
                slab.read(step % units, &context, &memory).await?;
            }
        });
    }
    while running.next().await?.is_some() {}
    let slabs = Arc::try_unwrap(slabs).map_err(|_| DataFusionError::Internal("a task of the join still runs".into()))?;
    let (mut columns, mut held) = (vec![], vec![]);
    for progress in slabs.into_iter().map(|s| s.progress.into_inner()) {
        columns.extend(progress.done);
        held.push(progress.held);
    }
    Ok(Payload::new(schema, columns, held))
}

fn columns_at_once(files: &OpenFiles, selections: &[(Unit, RowSelection)], columns: usize, tasks: usize) -> usize {
    let per_column = |unit: &Unit| {
        let group = files.footers[unit.file].row_group(unit.row_group);
        usize::try_from(group.compressed_size()).unwrap_or(0) / group.num_columns().max(1)
    };
    let largest = selections.iter().map(|(u, _)| per_column(u)).max().unwrap_or(0);
    let fair = columns.div_ceil(tasks.div_ceil(selections.len()));
    (BYTES_AT_ONCE / largest.max(1)).clamp(1, fair)
}

impl Slab {
    async fn read(&self, unit: usize, context: &Arc<TaskContext>, memory: &Arc<Memory>) -> Result<()> {
        let mut held = memory.part();
        let mut columns: Vec<Vec<ArrayRef>> = vec![];
        let mut batches = self.scan.read(unit, context)?;
        columns.resize_with(batches.schema().fields().len(), Vec::new);
        while let Some(batch) = batches.try_next().await? {
            let batch = compacted(batch)?;
            held.grow(get_record_batch_memory_size(&batch))?;
            for (column, array) in columns.iter_mut().zip(batch.columns()) {
                column.push(Arc::clone(array));
            }
            tokio::task::consume_budget().await;
        }
        let mut progress = self.progress.lock();
        progress.read[unit] = columns;
        progress.held.take(held);
        progress.units_left -= 1;
        if progress.units_left == 0 { progress.finish() } else { Ok(()) }
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
