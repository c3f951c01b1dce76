//! Labels with their winners, in label order, one batch at a time.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;

use super::fetch::{NONE, Payload};
use super::memory::Part;
use super::winners::{Place, gather};

/// What one view gives, per label row.
#[derive(Debug)]
pub enum Found {
    /// Rows of the batches that were kept.
    Kept { places: Vec<Place>, batches: Vec<RecordBatch>, schema: SchemaRef, inner: bool, _held: Part },
    /// Ranks among the rows that were fetched.
    Fetched { ranks: Vec<u32>, payload: Payload, inner: bool },
}

impl Found {
    /// True where this label row is dropped.
    fn drops(&self, row: usize) -> bool {
        match self {
            Found::Kept { places, inner, .. } => *inner && places[row].is_none(),
            Found::Fetched { ranks, inner, .. } => *inner && ranks[row] == NONE,
        }
    }

    fn gather(&self, rows: &[usize], columns: &mut Vec<ArrayRef>) -> Result<()> {
        match self {
            Found::Kept { places, batches, schema, .. } => {
                let wanted: Vec<Place> = rows.iter().map(|r| places[*r]).collect();
                columns.extend(gather(schema, batches, &wanted)?);
                Ok(())
            }
            Found::Fetched { ranks, payload, .. } => payload.gather(&rows.iter().map(|r| ranks[*r]).collect::<Vec<_>>(), columns),
        }
    }
}

/// The result of one chunk of labels.
#[derive(Debug)]
pub struct Output {
    pub schema: SchemaRef,
    /// Columns of the result only.
    pub label_schema: SchemaRef,
    pub labels: Vec<RecordBatch>,
    pub found: Vec<Found>,
    pub batch_size: usize,
    /// The next label row: in its batch, and over all.
    pub next: Place,
    pub row: usize,
    pub _held: Part,
}

impl Output {
    /// The next batch of at most `batch_size` rows; `None` at the end.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let (mut places, mut rows) = (vec![], vec![]);
        while places.len() < self.batch_size {
            let Some(batch) = self.labels.get(self.next.batch as usize) else { break };
            if self.next.row as usize >= batch.num_rows() {
                self.next = Place { batch: self.next.batch + 1, row: 0 };
                if !places.is_empty() && places.len() * 2 > self.batch_size {
                    // Whole label batches are handed on as they are.
                    break;
                }
                continue;
            }
            if !self.found.iter().any(|f| f.drops(self.row)) {
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
            found.gather(&rows, &mut columns)?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?))
    }
}
