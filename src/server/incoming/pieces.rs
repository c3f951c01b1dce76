//! A batch that becomes much more than it is, where views, dictionaries and runs are written out, goes on in pieces.

use datafusion::arrow::record_batch::RecordBatch;

use super::Incoming;
use crate::error::Result;

/// Bytes of a piece, written out.
const BYTES: usize = 16 << 20;
/// Columns that the rows do not have may be filled in.
const ROWS: usize = 16 << 10;

#[derive(Debug)]
pub(in crate::server) struct Pieces {
    batch: RecordBatch,
    at: usize,
    rows: usize,
    bytes: usize,
}

impl Pieces {
    /// # Errors
    /// All of it would be larger than a message may be.
    pub fn of(batch: RecordBatch, incoming: &mut Incoming) -> Result<Self> {
        let flat = incoming.admit_flat(&batch)?;
        let own = batch.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(usize::MAX));
        let own = own.fold(0_usize, usize::saturating_add);
        let all = batch.num_rows().max(1);
        // an honest batch goes on as it came: whoever sorts would count all of it for every piece
        let rows = match flat > BYTES && flat / 2 > own {
            true => (BYTES / (flat / all).max(1)).clamp(1, ROWS).min(all),
            false => all,
        };
        let bytes = (flat as u128 * rows as u128 / all as u128).min(usize::MAX as u128) as usize;
        Ok(Pieces { batch, at: 0, rows, bytes })
    }

    /// What one of them takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn next(&mut self) -> Option<RecordBatch> {
        let left = self.batch.num_rows().checked_sub(self.at).filter(|left| *left > 0)?;
        let piece = self.batch.slice(self.at, left.min(self.rows));
        self.at += piece.num_rows();
        Some(piece)
    }
}
