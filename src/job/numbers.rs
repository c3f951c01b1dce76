//! A set of `_seq`. Those of one INSERT follow one another, so that ranges hold many of them in little memory.

use std::sync::Arc;

use datafusion::arrow::array::Int64Array;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

use crate::error::{Error, Result};

/// So many are kept one by one before they become ranges; as many as there are ranges, where that is more.
const LOOSE: usize = 1 << 16;
const NUMBER: usize = size_of::<i64>();
const RANGE: usize = size_of::<(i64, i64)>();

#[derive(Debug)]
pub struct Numbers {
    /// First and last, sorted and apart from each other.
    ranges: Vec<(i64, i64)>,
    loose: Vec<i64>,
    memory: MemoryReservation,
}

impl Numbers {
    pub fn new(pool: &Arc<dyn MemoryPool>) -> Self {
        Numbers { ranges: vec![], loose: vec![], memory: MemoryConsumer::new("DELETE: rows that go").register(pool) }
    }

    pub fn add(&mut self, more: &Int64Array) -> Result<()> {
        if self.loose.len() + more.len() > LOOSE.max(self.ranges.len()) {
            self.pack();
        }
        // packing makes a second list of the ranges for a moment
        let bytes = 2 * RANGE * self.ranges.len() + (NUMBER + 2 * RANGE) * (self.loose.len() + more.len());
        self.memory.try_resize(bytes).map_err(|e| {
            Error::exhausted(Error::from(e).message().to_string())
                .with_hint("remove fewer rows at a time, for example in ranges of time, or raise --memory-limit")
        })?;
        self.loose.extend(more.values());
        Ok(())
    }

    /// To be called before the set is asked.
    pub fn finish(&mut self) {
        self.pack();
        self.ranges.shrink_to_fit();
        self.loose = vec![];
        self.memory.shrink(self.memory.size().saturating_sub(RANGE * self.ranges.len()));
    }

    fn pack(&mut self) {
        let mut all = std::mem::take(&mut self.ranges);
        all.extend(self.loose.drain(..).map(|n| (n, n)));
        all.sort_unstable();
        all.dedup_by(|next, before| {
            let joined = next.0 <= before.1.saturating_add(1);
            if joined {
                before.1 = before.1.max(next.1);
            }
            joined
        });
        self.ranges = all;
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last.abs_diff(*first) + 1).sum()
    }

    /// How many of them lie between two numbers, both ends included.
    pub fn count_in(&self, min: i64, max: i64) -> u64 {
        let from = self.ranges.partition_point(|(_, last)| *last < min);
        let inside = self.ranges[from..].iter().take_while(|(first, _)| *first <= max);
        inside.map(|(first, last)| (*last).min(max).abs_diff((*first).max(min)) + 1).sum()
    }

    pub fn contains(&self, n: i64) -> bool {
        self.meets(n, n)
    }

    /// Whether one of them lies between two numbers, both ends included.
    pub fn meets(&self, min: i64, max: i64) -> bool {
        let at = self.ranges.partition_point(|(_, last)| *last < min);
        self.ranges.get(at).is_some_and(|(first, _)| *first <= max)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};

    use super::*;

    #[test]
    fn holds_what_was_added_once_and_nothing_else() {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let mut set = Numbers::new(&pool);
        for start in [7_i64 << 32, 3 << 32, 5 << 32] {
            // every third one is missing, some come twice, in any order
            let some: Vec<i64> = (0..200_000).rev().filter(|n| n % 3 != 2).map(|n| start | n).collect();
            set.add(&Int64Array::from(some)).unwrap();
            set.add(&Int64Array::from(vec![start, start + 1, i64::MIN, i64::MAX])).unwrap();
        }
        set.finish();
        assert_eq!(set.count(), 3 * 133_334 + 2);
        for start in [3_i64 << 32, 7 << 32] {
            assert!(set.contains(start) && set.contains(start + 1) && !set.contains(start + 2) && set.contains(start + 3));
            assert!(!set.meets(start + 2, start + 2) && set.meets(start + 2, start + 3) && !set.meets(start + 200_000, start + 300_000));
        }
        assert!(set.contains(i64::MIN) && set.contains(i64::MAX));
        let (a, b) = (3_i64 << 32, 5_i64 << 32);
        assert_eq!(
            (set.count_in(a, b - 1), set.count_in(a, b + 3), set.count_in(a + 1, a + 3), set.count_in(a + 2, a + 2)),
            (133_334, 133_337, 2, 0)
        );
        assert_eq!(set.count_in(i64::MIN, i64::MAX), set.count());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_all_memory_comes_back() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(10 << 20));
        let mut set = Numbers::new(&pool);
        // one range
        for n in 0..100_i64 {
            set.add(&(n * 100_000..(n + 1) * 100_000).collect::<Vec<_>>().into()).unwrap();
        }
        set.finish();
        assert_eq!((set.count(), pool.reserved()), (10_000_000, RANGE));
        // many
        let mut apart = Numbers::new(&pool);
        let e =
            (0..100_i64).try_for_each(|n| apart.add(&(0..10_000).map(|i| 2 * (n * 10_000 + i)).collect::<Vec<_>>().into())).unwrap_err();
        assert_eq!(e.kind(), crate::error::Kind::Exhausted, "{e}");
        drop((set, apart));
        assert_eq!(pool.reserved(), 0);
    }
}
