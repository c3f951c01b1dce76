//! The feature rows that are the best so far for some label. Everything else is let go.

use std::cmp::Ordering;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use datafusion::arrow::compute::{interleave, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use datafusion::physical_plan::spill::get_record_batch_memory_size;

use super::compact::compacted;

/// A row of a list of batches, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub batch: u32,
    pub row: u32,
}

impl Place {
    pub const NONE: Place = Place { batch: u32::MAX, row: u32::MAX };

    pub fn is_none(self) -> bool {
        self == Place::NONE
    }
}

/// Decides between rows that tie in event timestamp, created timestamp and sequence number.
pub trait Ties {
    /// Compares a row of `batch` with the row at `place`.
    fn compare(&mut self, batch: &RecordBatch, row: usize, place: Place) -> Result<Ordering>;
}

#[derive(Debug)]
pub struct Winners {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    /// Orders rows by their values; made at the first full tie.
    by_value: Option<(RowConverter, Vec<usize>)>,
}

impl Winners {
    pub fn new(schema: SchemaRef) -> Self {
        Winners { schema, batches: vec![], rows: 0, bytes: 0, by_value: None }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number that the next kept batch will have.
    pub fn next_batch(&self) -> u32 {
        self.batches.len() as u32
    }

    pub fn into_batches(self) -> Vec<RecordBatch> {
        self.batches
    }

    /// Keeps some rows of a batch, as batch `next_batch()`.
    pub fn keep(&mut self, batch: &RecordBatch, rows: Vec<u32>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let kept = if rows.len() == batch.num_rows() && rows.iter().enumerate().all(|(i, r)| i == *r as usize) {
            batch.clone()
        } else {
            take_record_batch(batch, &UInt32Array::from(rows))?
        };
        self.push(kept)
    }

    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let batch = compacted(batch)?;
        self.rows += batch.num_rows();
        self.bytes += get_record_batch_memory_size(&batch);
        self.batches.push(batch);
        Ok(())
    }

    /// Rewrites the kept rows so that only `live` remain, in that order, `chunk` to a batch.
    pub fn compact(&mut self, live: &[Place], chunk: usize) -> Result<()> {
        let old = std::mem::take(&mut self.batches);
        (self.rows, self.bytes) = (0, 0);
        for places in live.chunks(chunk.max(1)) {
            let columns = gather(&self.schema, &old, places)?;
            let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
            self.push(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)?;
        }
        Ok(())
    }
}

impl Ties for Winners {
    /// Compares a row of `current`, the batch that would be kept next, with the row at `place` by value.
    fn compare(&mut self, current: &RecordBatch, row: usize, place: Place) -> Result<Ordering> {
        if self.by_value.is_none() {
            let (columns, fields): (Vec<usize>, Vec<SortField>) = self
                .schema
                .fields()
                .iter()
                .enumerate()
                .map(|(i, f)| (i, SortField::new(f.data_type().clone())))
                .filter(|(_, f)| RowConverter::supports_fields(std::slice::from_ref(f)))
                .unzip();
            self.by_value = Some((RowConverter::new(fields)?, columns));
        }
        let Some((converter, columns)) = &self.by_value else { return Ok(Ordering::Equal) };
        let encode = |batch: &RecordBatch, row: usize| {
            let values: Vec<ArrayRef> = columns.iter().map(|c| batch.column(*c).slice(row, 1)).collect();
            converter.convert_columns(&values)
        };
        let other = self.batches.get(place.batch as usize).unwrap_or(current);
        let (a, b) = (encode(current, row)?, encode(other, place.row as usize)?);
        Ok(a.row(0).cmp(&b.row(0)))
    }
}

/// The rows at `places` as new columns; no place gives NULLs.
pub fn gather(schema: &SchemaRef, batches: &[RecordBatch], places: &[Place]) -> Result<Vec<ArrayRef>> {
    if places.iter().all(|p| p.is_none()) {
        return Ok(schema.fields().iter().map(|f| new_null_array(f.data_type(), places.len())).collect());
    }
    // Only the batches in use are handed on, so that the cost does not grow with all that are kept.
    let mut source = vec![0; batches.len()];
    let mut used: Vec<&RecordBatch> = vec![];
    let mut indices = Vec::with_capacity(places.len());
    for place in places {
        if place.is_none() {
            indices.push((0, 0));
            continue;
        }
        let batch = place.batch as usize;
        if source[batch] == 0 {
            used.push(&batches[batch]);
            source[batch] = used.len();
        }
        indices.push((source[batch], place.row as usize));
    }
    let column = |c: usize| {
        let null = new_null_array(schema.field(c).data_type(), 1);
        let arrays: Vec<&dyn Array> = std::iter::once(null.as_ref()).chain(used.iter().map(|b| b.column(c).as_ref())).collect();
        Ok(interleave(&arrays, &indices)?)
    };
    (0..schema.fields().len()).map(column).collect()
}
