//! Labels with their winners, in label order, one batch at a time.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;

use super::winners::{Place, gather};

/// What one item found.
#[derive(Debug)]
pub struct Found {
    /// Per label row, a row of `batches`.
    pub places: Vec<Place>,
    pub batches: Vec<RecordBatch>,
    pub schema: SchemaRef,
    pub inner: bool,
}

#[derive(Debug)]
pub struct Output {
    pub schema: SchemaRef,
    pub label_schema: SchemaRef,
    pub labels: Vec<RecordBatch>,
    pub found: Vec<Found>,
    pub batch_size: usize,
    /// The next label row: in its batch, and over all.
    pub next: Place,
    pub row: usize,
}

impl Output {
    /// The next batch of at most `batch_size` rows; `None` at the end.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let (mut places, mut rows) = (vec![], vec![]);
        while places.len() < self.batch_size {
            let Some(batch) = self.labels.get(self.next.batch as usize) else { break };
            if self.next.row as usize >= batch.num_rows() {
                self.next = Place { batch: self.next.batch + 1, row: 0 };
                continue;
            }
            if !self.found.iter().any(|f| f.inner && f.places[self.row].is_none()) {
                places.push(self.next);
                rows.push(self.row);
            }
            self.next.row += 1;
            self.row += 1;
        }
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(None) };
        let whole = first.batch == last.batch && (last.row - first.row) as usize + 1 == places.len();
        let mut columns = if whole {
            self.labels[first.batch as usize].slice(first.row as usize, places.len()).columns().to_vec()
        } else {
            gather(&self.label_schema, &self.labels, &places)?
        };
        for found in &self.found {
            let wanted: Vec<Place> = rows.iter().map(|r| found.places[*r]).collect();
            columns.extend(gather(&found.schema, &found.batches, &wanted)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?))
    }
}
