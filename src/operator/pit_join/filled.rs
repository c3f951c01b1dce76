//! Slots once every feature row was offered: what each label gets.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use datafusion::common::{DataFusionError, Result};

use super::labels::{LABELS_PER_TASK, LabelIndex};
use super::rows::{NO_ROW, RowSet};
use super::shards::{Best, NOTHING, SHARD_BITS, SHARD_SLOTS};
use super::tasks::in_parts;
use crate::model::live::is_live_on;

/// The best rows by slot, and what of them is told so far.
pub struct Filled {
    pub index: Arc<LabelIndex<i64>>,
    pub ttl: Option<i64>,
    pub shards: Vec<Vec<Best>>,
    /// By label row; tasks write to different places of it, in no order.
    found: Vec<AtomicU32>,
}

impl Filled {
    pub fn new(index: Arc<LabelIndex<i64>>, ttl: Option<i64>, shards: Vec<Vec<Best>>) -> Self {
        let found = (0..index.labels).map(|_| AtomicU32::new(NO_ROW)).collect();
        Filled { index, ttl, shards, found }
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
        let filled = Arc::new(self);
        let told = Arc::clone(&filled);
        let won = in_parts(filled.shards.len(), tasks, move |shards| told.tell(shards, rows)).await?;
        let won = Arc::new(RowSet::union(rows, won));
        let (told, set) = (Arc::clone(&filled), Arc::clone(&won));
        in_parts(filled.found.len(), tasks, move |labels| {
            for found in &told.found[labels] {
                let row = found.load(Ordering::Relaxed);
                if row != NO_ROW {
                    found.store(set.rank(row as usize), Ordering::Relaxed);
                }
            }
        })
        .await?;
        let (Ok(filled), Ok(won)) = (Arc::try_unwrap(filled), Arc::try_unwrap(won)) else {
            return Err(DataFusionError::Internal("a task of the join still runs".into()));
        };
        Ok((filled.found.into_iter().map(AtomicU32::into_inner).collect(), won))
    }

    /// Tells the labels of some shards their rows, and answers these as bits. Within a key, later labels see what
    /// earlier ones saw.
    fn tell(&self, shards: Range<usize>, rows: usize) -> Vec<u64> {
        let mut won = RowSet::no_bits(rows);
        let slots = self.index.slots();
        let (first, end) = ((shards.start << SHARD_BITS).min(slots), (shards.end << SHARD_BITS).min(slots));
        if first == end {
            return won;
        }
        let offsets = &self.index.offsets;
        let mut group = offsets.partition_point(|o| *o as usize <= first) - 1;
        // A key may begin in a shard before.
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
        self.shards[slot >> SHARD_BITS][slot & (SHARD_SLOTS - 1)]
    }
}
