//! Winners are resolved once every feature row was offered: what each label gets.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use datafusion::common::{DataFusionError, Result};

use crate::model::live::is_live_on;
use crate::operator::pit_join::labels::label_index::{LABELS_PER_TASK, LabelIndex};
use crate::operator::pit_join::scan::row_set::{NO_ROW, RowSet};
use crate::operator::pit_join::tasks::in_parts;

/// Slots per partition: 14 bits are 128 KiB of instants and as much again of slots.
pub const PARTITION_BITS: usize = if cfg!(test) { 3 } else { 14 };
pub const PARTITION_SLOTS: usize = 1 << PARTITION_BITS;

/// The best row of a slot so far, and its event timestamp: together, because they are read together.
#[derive(Debug, Clone, Copy)]
pub struct Best {
    pub ts: i64,
    pub row: u32,
}

pub const NOTHING: Best = Best { ts: 0, row: NO_ROW };

/// The best rows by slot, and what of them is resolved so far.
pub struct Resolved {
    pub index: Arc<LabelIndex<i64>>,
    pub ttl: Option<i64>,
    pub partitions: Vec<Vec<Best>>,
    /// By label row; tasks write to different places of it, in no order.
    found: Vec<AtomicU32>,
}

impl Resolved {
    pub fn new(index: Arc<LabelIndex<i64>>, ttl: Option<i64>, partitions: Vec<Vec<Best>>) -> Self {
        let found = (0..index.labels).map(|_| AtomicU32::new(NO_ROW)).collect();
        Resolved { index, ttl, partitions, found }
    }

    /// Bytes needed beside the slots.
    pub fn size_for(labels: usize, rows: usize, tasks: usize) -> usize {
        labels * size_of::<AtomicU32>() + Self::tasks(labels, tasks) * RowSet::size_for(rows)
    }

    fn tasks(labels: usize, tasks: usize) -> usize {
        tasks.min(labels / LABELS_PER_TASK).max(1)
    }

    /// The rows that won, numbered below `rows`, and by label row the rank of its row among them.
    pub async fn ranks(self, rows: usize, tasks: usize) -> Result<(Vec<u32>, RowSet)> {
        let tasks = Self::tasks(self.index.labels, tasks);
        let resolved = Arc::new(self);
        let task = Arc::clone(&resolved);
        let won = in_parts(resolved.partitions.len(), tasks, move |partitions| task.resolve(partitions, rows)).await?;
        let won = Arc::new(RowSet::union(rows, won));
        let (task, set) = (Arc::clone(&resolved), Arc::clone(&won));
        in_parts(resolved.found.len(), tasks, move |labels| {
            for found in &task.found[labels] {
                let row = found.load(Ordering::Relaxed);
                if row != NO_ROW {
                    found.store(set.rank(row as usize), Ordering::Relaxed);
                }
            }
        })
        .await?;
        let (Ok(resolved), Ok(won)) = (Arc::try_unwrap(resolved), Arc::try_unwrap(won)) else {
            return Err(DataFusionError::Internal("a task of the join still runs".into()));
        };
        Ok((resolved.found.into_iter().map(AtomicU32::into_inner).collect(), won))
    }

    /// Resolves the winners of some partitions' labels, and answers these rows as bits. Within a key, later labels see what
    /// earlier ones saw.
    fn resolve(&self, partitions: Range<usize>, rows: usize) -> Vec<u64> {
        let mut won = RowSet::no_bits(rows);
        let slots = self.index.slots();
        let (first, end) = ((partitions.start << PARTITION_BITS).min(slots), (partitions.end << PARTITION_BITS).min(slots));
        if first == end {
            return won;
        }
        let offsets = &self.index.offsets;
        let mut group = offsets.partition_point(|o| *o as usize <= first) - 1;
        // A key may begin in a partition before.
        let mut carry = (offsets[group] as usize..first).rev().map(|s| self.best(s)).find(|b| b.row != NO_ROW).unwrap_or(NOTHING);
        for slot in first..end {
            while slot >= offsets[group + 1] as usize {
                group += 1;
                carry = NOTHING;
            }
            let best = self.best(slot);
            if best.row != NO_ROW {
                carry = best;
            }
            if carry.row != NO_ROW && is_live_on(carry.ts, self.index.at[slot], self.ttl) {
                self.found[self.index.rows[slot] as usize].store(carry.row, Ordering::Relaxed);
                won[carry.row as usize / 64] |= 1 << (carry.row % 64);
            }
        }
        won
    }

    fn best(&self, slot: usize) -> Best {
        self.partitions[slot >> PARTITION_BITS][slot & (PARTITION_SLOTS - 1)]
    }
}
