//! Labels with their winners, in label order, one batch at a time.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;

use super::payload::Payload;
use super::winners::{Place, gather};
use crate::operator::pit_join::memory::Part;
use crate::operator::pit_join::scan::row_set::NO_ROW;

/// What one view gives, per label row.
#[derive(Debug)]
pub enum Found {
    /// Rows of the batches that were kept.
    Kept { places: Vec<Place>, batches: Vec<RecordBatch>, schema: SchemaRef, inner: bool, _held: Part },
    /// Ranks among the rows that were fetched.
    Fetched { ranks: Vec<u32>, payload: Payload, inner: bool },
}

/// Label rows of one output batch.
enum Rows {
    All(Range<usize>),
    Some(Vec<usize>),
}

impl Rows {
    fn of<'a, T: Copy>(&self, values: &'a [T]) -> Cow<'a, [T]> {
        match self {
            Rows::All(range) => Cow::Borrowed(&values[range.clone()]),
            Rows::Some(rows) => Cow::Owned(rows.iter().map(|r| values[*r]).collect()),
        }
    }
}

impl Found {
    fn is_inner(&self) -> bool {
        match self {
            Found::Kept { inner, .. } | Found::Fetched { inner, .. } => *inner,
        }
    }

    /// True where this label row is dropped.
    fn drops(&self, row: usize) -> bool {
        match self {
            Found::Kept { places, inner, .. } => *inner && places[row].is_none(),
            Found::Fetched { ranks, inner, .. } => *inner && ranks[row] == NO_ROW,
        }
    }

    fn gather(&self, rows: &Rows, columns: &mut Vec<ArrayRef>) -> Result<()> {
        match self {
            Found::Kept { places, batches, schema, .. } => {
                columns.extend(gather(schema, batches, &rows.of(places))?);
                Ok(())
            }
            Found::Fetched { ranks, payload, .. } => payload.gather(&rows.of(ranks), columns),
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
        let drops = self.found.iter().any(Found::is_inner);
        let next = if drops { self.matched_labels()? } else { self.next_labels()? };
        let Some((labels, rows)) = next else { return Ok(None) };
        let options = RecordBatchOptions::new().with_row_count(Some(labels.num_rows()));
        let mut columns = labels.columns().to_vec();
        for found in &self.found {
            found.gather(&rows, &mut columns)?;
        }
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?))
    }

    /// The next labels as they come.
    fn next_labels(&mut self) -> Result<Option<(RecordBatch, Rows)>> {
        let first = self.row;
        let mut slices = vec![];
        while self.row - first < self.batch_size {
            let Some(batch) = self.labels.get(self.next.batch as usize) else { break };
            let from = self.next.row as usize;
            if from >= batch.num_rows() {
                self.next = Place { batch: self.next.batch + 1, row: 0 };
                if self.is_enough(self.row - first) {
                    break;
                }
                continue;
            }
            let rows = (batch.num_rows() - from).min(self.batch_size - (self.row - first));
            slices.push(batch.slice(from, rows));
            self.next.row += rows as u32;
            self.row += rows;
        }
        let labels = match slices.as_slice() {
            [] => return Ok(None),
            [one] => one.clone(),
            several => concat_batches(&self.label_schema, several)?,
        };
        Ok(Some((labels, Rows::All(first..self.row))))
    }

    /// The next labels that no inner join drops.
    fn matched_labels(&mut self) -> Result<Option<(RecordBatch, Rows)>> {
        let (mut places, mut rows) = (vec![], vec![]);
        while places.len() < self.batch_size {
            let Some(batch) = self.labels.get(self.next.batch as usize) else { break };
            if self.next.row as usize >= batch.num_rows() {
                self.next = Place { batch: self.next.batch + 1, row: 0 };
                if self.is_enough(places.len()) {
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
        let labels = if whole {
            self.labels[first.batch as usize].slice(first.row as usize, places.len())
        } else {
            let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
            let columns = gather(&self.label_schema, &self.labels, &places)?;
            RecordBatch::try_new_with_options(Arc::clone(&self.label_schema), columns, &options)?
        };
        Ok(Some((labels, Rows::Some(rows))))
    }

    /// Whole label batches are handed on as they are, where they are not small.
    fn is_enough(&self, rows: usize) -> bool {
        rows > 0 && rows * 2 > self.batch_size
    }
}
