//! Reads the rows that won, and nothing else, once it is known which they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use datafusion::arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use datafusion::arrow::compute::{concat, interleave, take, take_record_batch};
use datafusion::arrow::datatypes::{ByteViewType, DataType, SchemaRef};
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use futures::TryStreamExt;

use super::files::{OpenFiles, Unit};
use super::memory::{Memory, Part};
use super::tasks::Tasks;

/// No row.
pub const NONE: u32 = u32::MAX;

/// Rows per batch while reading.
const BATCH_ROWS: usize = 16_384;
/// Columns with 32-bit offsets cannot hold more than 2 GiB: pieces stay far below it.
const PIECE_BYTES: usize = 1 << 30;

/// The numbers of the rows that won, as bits, with the rank of each among them.
#[derive(Debug)]
pub struct Winners {
    words: Vec<u64>,
    /// Rows that won before each word.
    before: Vec<u32>,
}

impl Winners {
    /// `rows`: how many there are; `won`: numbers below that, each any number of times.
    pub fn new(rows: usize, won: impl Iterator<Item = usize>) -> Self {
        let mut words = vec![0u64; rows.div_ceil(64)];
        for row in won {
            words[row / 64] |= 1 << (row % 64);
        }
        let mut count = 0;
        let before = words
            .iter()
            .map(|w| {
                let before = count;
                count += w.count_ones();
                before
            })
            .collect();
        Winners { words, before }
    }

    /// How many winners come before this one.
    pub fn rank(&self, row: usize) -> u32 {
        let below = self.words[row / 64] & ((1 << (row % 64)) - 1);
        self.before[row / 64] + below.count_ones()
    }

    pub fn size_for(rows: usize) -> usize {
        rows.div_ceil(64) * 12
    }

    /// The winners of every unit that has any. All bits are shared.
    fn selections(mut self, units: &[Unit]) -> Vec<(Unit, RowSelection)> {
        let bits = Buffer::from_vec(std::mem::take(&mut self.words));
        let selected = units.iter().map(|u| (u.clone(), BooleanBuffer::new(bits.clone(), u.base, u.rows)));
        selected.filter(|(_, b)| b.has_true()).map(|(u, b)| (u, RowSelection::from_boolean_buffer(b))).collect()
    }
}

/// Rows by rank, in as few pieces as their size allows.
#[derive(Debug)]
pub struct Payload {
    schema: SchemaRef,
    pieces: Vec<RecordBatch>,
    /// First rank of each piece.
    starts: Vec<u32>,
    held: Option<Part>,
}

/// Reads some columns of the winners, several row groups at a time.
pub async fn fetch(
    files: Arc<OpenFiles>,
    units: &[Unit],
    winners: Winners,
    columns: &[usize],
    schema: SchemaRef,
    context: &Arc<TaskContext>,
    memory: &Arc<Memory>,
) -> Result<Payload> {
    let selections = winners.selections(units);
    let mut held = memory.part();
    let mut read: Vec<Vec<RecordBatch>> = vec![];
    if !selections.is_empty() && !columns.is_empty() {
        let wanted: Vec<(&Unit, Option<RowSelection>)> = selections.iter().map(|(u, s)| (u, Some(s.clone()))).collect();
        // The reader makes room for whole batches.
        let most = selections.iter().map(|(_, s)| s.row_count()).max().unwrap_or(0);
        let scan = files.scan(&wanted, columns, most.clamp(1, BATCH_ROWS))?;
        drop(wanted);
        let units = selections.len();
        drop(selections);
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = Tasks::new();
        for _ in 0..context.session_config().target_partitions().clamp(1, units) {
            let (scan, next, context, memory) = (scan.clone(), Arc::clone(&next), Arc::clone(context), Arc::clone(memory));
            tasks.spawn(async move {
                let mut held = memory.part();
                let mut mine = vec![];
                loop {
                    let unit = next.fetch_add(1, Ordering::Relaxed);
                    if unit >= units {
                        return Ok((mine, held));
                    }
                    let mut batches = scan.read(unit, &context)?;
                    let mut kept = vec![];
                    while let Some(batch) = batches.try_next().await? {
                        let batch = compacted(batch)?;
                        held.grow(get_record_batch_memory_size(&batch))?;
                        kept.push(batch);
                        tokio::task::consume_budget().await;
                    }
                    mine.push((unit, kept));
                }
            });
        }
        read.resize_with(units, Vec::new);
        while let Some((mine, part)) = tasks.next().await? {
            held.take(part);
            for (unit, batches) in mine {
                read[unit] = batches;
            }
        }
    }
    let mut payload = Payload::new(schema, read.into_iter().flatten().collect(), &mut held)?;
    payload.held = Some(held);
    Ok(payload)
}

impl Payload {
    /// No columns, or no rows.
    pub fn empty(schema: SchemaRef) -> Self {
        Payload { schema, pieces: vec![], starts: vec![], held: None }
    }

    fn new(schema: SchemaRef, batches: Vec<RecordBatch>, held: &mut Part) -> Result<Self> {
        let mut payload = Payload::empty(Arc::clone(&schema));
        let mut batches = batches.into_iter().peekable();
        let mut rank = 0u32;
        while batches.peek().is_some() {
            let (mut group, mut bytes) = (vec![], 0);
            while let Some(batch) = batches.next_if(|b| bytes == 0 || bytes + b.get_array_memory_size() <= PIECE_BYTES) {
                bytes += batch.get_array_memory_size();
                group.push(batch);
            }
            payload.starts.push(rank);
            let piece = joined(&schema, group, held)?;
            rank += piece.num_rows() as u32;
            payload.pieces.push(piece);
        }
        Ok(payload)
    }

    /// Keeps more memory for as long as it lives.
    pub fn hold_too(&mut self, part: Part) {
        match &mut self.held {
            Some(held) => held.take(part),
            None => self.held = Some(part),
        }
    }

    /// The rows of these ranks; `NONE` gives NULLs.
    pub fn gather(&self, ranks: &[u32], columns: &mut Vec<ArrayRef>) -> Result<()> {
        let nulls = || self.schema.fields().iter().map(|f| new_null_array(f.data_type(), ranks.len()));
        match self.pieces.as_slice() {
            [] => columns.extend(nulls()),
            [piece] => {
                let valid = NullBuffer::from_iter(ranks.iter().map(|r| *r != NONE));
                if valid.null_count() == ranks.len() {
                    columns.extend(nulls());
                    return Ok(());
                }
                let rows = ranks.iter().map(|r| if *r == NONE { 0 } else { *r }).collect::<Vec<u32>>();
                let rows = UInt32Array::new(rows.into(), Some(valid).filter(|v| v.null_count() > 0));
                for column in piece.columns() {
                    columns.push(without_most(take(column, &rows, None)?)?);
                }
            }
            pieces => {
                let place = |rank: &u32| {
                    if *rank == NONE {
                        return (pieces.len(), 0);
                    }
                    let piece = self.starts.partition_point(|s| s <= rank) - 1;
                    (piece, (*rank - self.starts[piece]) as usize)
                };
                let places: Vec<(usize, usize)> = ranks.iter().map(place).collect();
                for (c, field) in self.schema.fields().iter().enumerate() {
                    let null = new_null_array(field.data_type(), 1);
                    let arrays: Vec<&dyn Array> = pieces.iter().map(|p| p.column(c).as_ref()).chain([null.as_ref()]).collect();
                    columns.push(without_most(interleave(&arrays, &places)?)?);
                }
            }
        }
        Ok(())
    }
}

/// One batch out of several, column by column, so that only one column is there twice.
fn joined(schema: &SchemaRef, group: Vec<RecordBatch>, held: &mut Part) -> Result<RecordBatch> {
    let rows = group.iter().map(RecordBatch::num_rows).sum();
    let mut columns: Vec<Vec<ArrayRef>> = schema.fields().iter().map(|_| Vec::with_capacity(group.len())).collect();
    for batch in group {
        for (list, column) in columns.iter_mut().zip(batch.columns()) {
            list.push(Arc::clone(column));
        }
    }
    let mut out = Vec::with_capacity(columns.len());
    for list in columns {
        let bytes: usize = list.iter().map(|a| a.get_buffer_memory_size()).sum();
        held.grow(bytes)?;
        let whole = concat(&list.iter().map(|a| a.as_ref()).collect::<Vec<_>>())?;
        drop(list);
        held.shrink(bytes);
        // What was read is dropped, what was joined stays: as many bytes as before.
        out.push(compacted_array(whole)?);
    }
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), out, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

/// A view array keeps every buffer alive that its rows ever came from.
pub fn compacted_array(array: ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        _ => array,
    })
}

/// Takes a view array off its buffers where its rows need less than these hold. Rows that share a long value keep sharing it.
fn without_most(array: ArrayRef) -> Result<ArrayRef> {
    let (held, used) = match array.data_type() {
        DataType::Utf8View => buffers_of(array.as_string_view()),
        DataType::BinaryView => buffers_of(array.as_binary_view()),
        _ => return Ok(array),
    };
    if used < held { compacted_array(array) } else { Ok(array) }
}

/// Bytes of the buffers, and bytes that the rows refer to.
fn buffers_of<T: ByteViewType + ?Sized>(array: &GenericByteViewArray<T>) -> (usize, usize) {
    (array.data_buffers().iter().map(Buffer::len).sum(), array.total_buffer_bytes_used())
}

/// A batch that holds no more memory than its rows need.
pub fn compacted(batch: RecordBatch) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    if rows * 4 < BATCH_ROWS && rows * 512 < get_record_batch_memory_size(&batch) {
        let all = UInt32Array::from_iter_values(0..rows as u32);
        return without_garbage(take_record_batch(&batch, &all)?);
    }
    without_garbage(batch)
}

fn without_garbage(batch: RecordBatch) -> Result<RecordBatch> {
    if !batch.schema().fields().iter().any(|f| matches!(f.data_type(), DataType::Utf8View | DataType::BinaryView)) {
        return Ok(batch);
    }
    let (schema, columns, rows) = batch.into_parts();
    let columns = columns.into_iter().map(compacted_array).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}
