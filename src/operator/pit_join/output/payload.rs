//! The rows that were fetched, by rank.

use datafusion::arrow::array::{Array, ArrayRef, new_null_array};
use datafusion::arrow::compute::{concat, interleave};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result};

use super::compact::{compacted_array, without_most};
use super::gather::Ranks;
use super::packed::PackedRows;
use crate::operator::pit_join::memory::Part;
use crate::operator::pit_join::scan::row_set::NO_ROW;

/// Columns with 32-bit offsets cannot hold more than 2 GiB: pieces stay far below it.
const PIECE_BYTES: usize = if cfg!(test) { 1 << 12 } else { 1 << 30 };

/// Rows by rank, column by column.
#[derive(Debug)]
pub struct Payload {
    schema: SchemaRef,
    /// The fields in order; none at all where no row was fetched.
    slabs: Vec<SlabRows>,
    held: Vec<Part>,
}

/// Columns that were fetched together.
#[derive(Debug)]
pub struct SlabRows {
    pub packed: PackedRows,
    /// `None`: the next one of `packed`.
    pub columns: Vec<Option<Column>>,
}

/// One column in as few pieces as its size allows.
#[derive(Debug, Default)]
pub struct Column {
    pieces: Vec<ArrayRef>,
    /// First rank of each piece.
    starts: Vec<u32>,
}

impl Payload {
    /// No columns, or no rows.
    pub fn empty(schema: SchemaRef) -> Self {
        Payload { schema, slabs: vec![], held: vec![] }
    }

    pub fn new(schema: SchemaRef, slabs: Vec<SlabRows>, held: Vec<Part>) -> Self {
        Payload { schema, slabs, held }
    }

    /// Keeps more memory for as long as it lives.
    pub fn hold_too(&mut self, part: Part) {
        self.held.push(part);
    }

    /// The rows of these ranks; `NO_ROW` gives NULLs.
    pub fn gather(&self, ranks: &[u32], columns: &mut Vec<ArrayRef>) -> Result<()> {
        let mut ranks = Ranks::new(ranks);
        if self.slabs.is_empty() || ranks.are_none() {
            columns.extend(self.schema.fields().iter().map(|f| new_null_array(f.data_type(), ranks.len())));
            return Ok(());
        }
        for slab in &self.slabs {
            let mut packed = slab.packed.gather(&ranks)?.into_iter();
            for column in &slab.columns {
                columns.push(match column {
                    Some(column) => without_most(column.gather(&mut ranks)?)?,
                    None => packed.next().ok_or_else(|| DataFusionError::Internal("a column was not packed".into()))?,
                });
            }
        }
        Ok(())
    }
}

impl Column {
    /// Joins what was read, in order. `held` accounts for it, and for what is there twice meanwhile.
    pub fn new(arrays: Vec<ArrayRef>, held: &mut Part) -> Result<Self> {
        let mut column = Column::default();
        let mut arrays = arrays.into_iter().peekable();
        let mut rank = 0u32;
        while arrays.peek().is_some() {
            let (mut group, mut bytes) = (vec![], 0);
            while let Some(array) = arrays.next_if(|a| bytes == 0 || bytes + a.get_buffer_memory_size() <= PIECE_BYTES) {
                bytes += array.get_buffer_memory_size();
                group.push(array);
            }
            held.grow(bytes)?;
            let whole = concat(&group.iter().map(|a| a.as_ref()).collect::<Vec<_>>())?;
            drop(group);
            held.shrink(bytes);
            column.starts.push(rank);
            rank += whole.len() as u32;
            // What was read is dropped, what was joined stays: as many bytes as before.
            column.pieces.push(compacted_array(whole)?);
        }
        Ok(column)
    }

    fn gather(&self, ranks: &mut Ranks) -> Result<ArrayRef> {
        if let [piece] = self.pieces.as_slice() {
            return ranks.of(piece);
        }
        let place = |rank: &u32| {
            if *rank == NO_ROW {
                return (self.pieces.len(), 0);
            }
            let piece = self.starts.partition_point(|s| s <= rank) - 1;
            (piece, (*rank - self.starts[piece]) as usize)
        };
        let places: Vec<(usize, usize)> = ranks.as_slice().iter().map(place).collect();
        let null = new_null_array(self.pieces[0].data_type(), 1);
        let arrays: Vec<&dyn Array> = self.pieces.iter().map(|p| p.as_ref()).chain([null.as_ref()]).collect();
        Ok(interleave(&arrays, &places)?)
    }
}
