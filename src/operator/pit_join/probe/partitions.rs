//! The slots of `slots.rs` for the common case, filled by several tasks at once: instants of 64 bits, joins that
//! look back, nothing asked about what was known. Feature rows are numbered; a slot holds the number of its best row.
//!
//! Slots are cut into partitions of equal size. A task collects rows until there are enough of them for each partition,
//! and then works partition by partition, so that the instants searched and the slots written stay in the processor's
//! cache.
//! A key with many labels is cut as well: a row goes to the partition that holds the first label that can see it.
//! Where the rows of one key follow one another (tables sorted by key and time), a run is merged with the labels of
//! its key instead: one lookup for the key, and only the last row before each label is looked at.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use datafusion::arrow::compute::{partition, take};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::common::Result;
use parking_lot::{Mutex, MutexGuard};

use super::resolved::{Best, NOTHING, PARTITION_BITS, PARTITION_SLOTS, Resolved};
use crate::model::live::{RowOrder, is_live_on};
use crate::operator::pit_join::labels::group::NO_GROUP;
use crate::operator::pit_join::labels::instant::{Instants, Round};
use crate::operator::pit_join::labels::key_index::KeyIndex;
use crate::operator::pit_join::labels::label_index::LabelIndex;
use crate::operator::pit_join::scan::row_set::NO_ROW;
use crate::operator::pit_join::spec::FeatureTimes;
use crate::plan::pit_join::types::TimeLines;

/// Rows that a task collects, at least and at most.
const MIN_COLLECTED: usize = 1 << 16;
const MAX_COLLECTED: usize = 1 << 21;
/// Rows whose slots are searched side by side.
const LANES: usize = 16;
/// Batches without runs after which a task stops looking for them.
const BATCHES_WITHOUT_RUNS: usize = 4;
/// Rows per run from which on a batch counts as sorted.
const ROWS_PER_RUN: usize = 4;

/// How feature rows are matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// By runs where there are any, else row by row.
    Auto,
    /// Row by row.
    Rows,
    /// By runs, however short.
    Runs,
}

/// Created timestamp (NULL: `i64::MIN`) and sequence number; zero where the view has none.
type Tie = (i64, i64);

#[derive(Debug, Default)]
struct CachePartition {
    best: Vec<Best>,
    /// Empty where there is neither a created timestamp nor a sequence number.
    tie: Vec<Tie>,
}

/// Collected rows of one partition.
#[derive(Debug, Default)]
struct Pile {
    rows: Vec<(u32, u32, i64)>,
    ties: Vec<Tie>,
}

#[derive(Debug)]
pub struct CachePartitions {
    index: Arc<LabelIndex<i64>>,
    lines: TimeLines,
    ttl: Option<i64>,
    /// `at > time` instead of `at >= time`.
    strict: bool,
    has_ties: bool,
    probing: Probing,
    partitions: Vec<Mutex<CachePartition>>,
}

/// What one task has collected.
#[derive(Debug)]
pub struct Collector {
    piles: Vec<Pile>,
    collected: usize,
    limit: usize,
    without_runs: usize,
    /// Rows that came in runs.
    pub merged_rows: usize,
}

impl CachePartitions {
    pub fn new(index: Arc<LabelIndex<i64>>, lines: TimeLines, strict: bool, has_ties: bool, probing: Probing) -> Self {
        let slots = index.slots();
        let partition = |first: usize| {
            let n = PARTITION_SLOTS.min(slots - first);
            Mutex::new(CachePartition { best: vec![NOTHING; n], tie: vec![(0, 0); if has_ties { n } else { 0 }] })
        };
        let partitions = (0..slots).step_by(PARTITION_SLOTS).map(partition).collect();
        let ttl = lines.ttl.map(|t| t.clamp(0, i64::MAX.into()) as i64);
        CachePartitions { index, lines, ttl, strict, has_ties, probing, partitions }
    }

    /// Bytes that the slots of so many labels take.
    pub fn size_for(slots: usize, has_ties: bool) -> usize {
        slots * (size_of::<Best>() + if has_ties { size_of::<Tie>() } else { 0 })
    }

    pub fn collector(&self) -> Collector {
        let limit = self.index.slots().clamp(MIN_COLLECTED, MAX_COLLECTED);
        let piles = self.partitions.iter().map(|_| Pile::default()).collect();
        Collector { piles, collected: 0, limit, without_runs: 0, merged_rows: 0 }
    }

    /// First slot of `lo..hi` whose label can see a row of this time, or `hi`.
    #[inline]
    fn first_slot(&self, lo: usize, hi: usize, event: i64) -> usize {
        let at = &self.index.at[lo..hi];
        lo + if self.strict { at.partition_point(|a| *a <= event) } else { at.partition_point(|a| *a < event) }
    }

    fn sees(&self, slot: usize, event: i64) -> bool {
        if self.strict { self.index.at[slot] > event } else { self.index.at[slot] >= event }
    }

    /// The partition of the first slot in `lo..hi` that can see `event`; the last one if none can.
    fn partition_of(&self, lo: usize, hi: usize, event: i64) -> usize {
        let (first, last) = (lo >> PARTITION_BITS, (hi - 1) >> PARTITION_BITS);
        let (mut from, mut to) = (first, last);
        while from < to {
            let middle = (from + to) / 2;
            if self.sees(((middle + 1) << PARTITION_BITS) - 1, event) { to = middle } else { from = middle + 1 }
        }
        from
    }

    /// Takes a batch of feature rows. `first`: number of its first row.
    pub fn add(&self, collector: &mut Collector, index: &KeyIndex, keys: &[ArrayRef], times: &FeatureTimes, first: u32) -> Result<()> {
        let rows = times.time.len();
        let time = Instants::<i64>::read(&times.time, self.lines.event, Round::Up)?;
        let created = times.created.as_ref().map(|c| Instants::<i64>::read(c, self.lines.created, Round::Up)).transpose()?;
        let seq = times.seq.as_ref().map(|s| s.as_primitive::<Int64Type>());
        // A NULL loses to every created timestamp; the earliest of all counts as one microsecond later.
        let tie = |row: usize| -> Tie {
            let created = created.as_ref().and_then(|c| c.get(row)).map_or(i64::MIN, |c| c.max(i64::MIN + 1));
            (created, seq.map_or(0, |s| if s.is_null(row) { i64::MIN } else { s.value(row) }))
        };
        let look_for_runs = match self.probing {
            Probing::Rows => false,
            Probing::Runs => true,
            Probing::Auto => collector.without_runs < BATCHES_WITHOUT_RUNS,
        };
        if look_for_runs && !keys.is_empty() && rows > 0 && !time.has_nulls() {
            let runs = partition(keys)?;
            if self.probing == Probing::Runs || runs.len() * ROWS_PER_RUN <= rows {
                collector.without_runs = 0;
                collector.merged_rows += rows;
                let runs = runs.ranges();
                let starts = UInt32Array::from_iter_values(runs.iter().map(|r| r.start as u32));
                let keys = keys.iter().map(|k| take(k, &starts, None)).collect::<std::result::Result<Vec<_>, _>>()?;
                let groups = index.find(&keys, runs.len())?;
                let mut merge = Merge { partitions: self, held: None };
                for (run, group) in runs.into_iter().zip(groups).filter(|(_, g)| *g != NO_GROUP) {
                    merge.run(group, run, time.values(), first, &tie);
                }
                return Ok(());
            }
            collector.without_runs += 1;
        }
        let groups = index.find(keys, rows)?;
        for (row, group) in groups.into_iter().enumerate().filter(|(_, g)| *g != NO_GROUP) {
            let Some(event) = time.get(row) else { continue };
            let (lo, hi) = self.index.range(group);
            if lo == hi {
                continue;
            }
            let pile = &mut collector.piles[self.partition_of(lo, hi, event)];
            pile.rows.push((group, first + row as u32, event));
            if self.has_ties {
                pile.ties.push(tie(row));
            }
            collector.collected += 1;
        }
        if collector.collected >= collector.limit {
            self.flush(collector);
        }
        Ok(())
    }

    /// Puts all that was collected into the slots.
    pub fn flush(&self, collector: &mut Collector) {
        collector.collected = 0;
        let mut busy = vec![];
        for (number, pile) in collector.piles.iter_mut().enumerate().filter(|(_, p)| !p.rows.is_empty()) {
            match self.partitions[number].try_lock() {
                Some(mut partition) => self.place(number, &mut partition, pile),
                None => busy.push(number),
            }
        }
        for number in busy {
            self.place(number, &mut self.partitions[number].lock(), &mut collector.piles[number]);
        }
    }

    fn place(&self, number: usize, partition: &mut CachePartition, pile: &mut Pile) {
        let start = number << PARTITION_BITS;
        let end = start + partition.best.len();
        let mut ties = pile.ties.drain(..);
        for rows in pile.rows.chunks(LANES) {
            let (slots, ends) = self.first_slots(rows, start, end);
            for ((_, row, event), (slot, end)) in rows.iter().zip(slots.into_iter().zip(ends)) {
                let tie = ties.next();
                if slot < end && is_live_on(*event, self.index.at[slot], self.ttl) {
                    partition.offer(slot - start, *event, *row, tie);
                }
            }
        }
        drop(ties);
        pile.rows.clear();
    }

    /// Of every row the first slot of its group within `start..end` whose label can see it, and the group's end there.
    /// The searches go on side by side, so that the processor waits for several reads at a time.
    #[inline]
    fn first_slots(&self, rows: &[(u32, u32, i64)], start: usize, end: usize) -> ([usize; LANES], [usize; LANES]) {
        let (mut slots, mut ends, mut left) = ([0; LANES], [0; LANES], [0; LANES]);
        for (lane, (group, _, _)) in rows.iter().enumerate().take(LANES) {
            let (lo, hi) = self.index.range(*group);
            (slots[lane], ends[lane]) = (lo.max(start), hi.min(end));
            left[lane] = ends[lane].saturating_sub(slots[lane]);
        }
        let mut searching = true;
        while searching {
            searching = false;
            for (lane, (_, _, event)) in rows.iter().enumerate().take(LANES) {
                if left[lane] > 1 {
                    let half = left[lane] / 2;
                    slots[lane] += if self.sees(slots[lane] + half - 1, *event) { 0 } else { half };
                    left[lane] -= half;
                    searching = true;
                }
            }
        }
        for (lane, (_, _, event)) in rows.iter().enumerate().take(LANES) {
            if left[lane] == 1 && !self.sees(slots[lane], *event) {
                slots[lane] += 1;
            }
        }
        (slots, ends)
    }

    /// All was offered.
    pub fn resolve(self) -> Resolved {
        let partitions = self.partitions.into_iter().map(|s| s.into_inner().best).collect();
        Resolved::new(self.index, self.ttl, partitions)
    }
}

impl CachePartition {
    #[inline]
    fn offer(&mut self, slot: usize, event: i64, row: u32, tie: Option<Tie>) {
        let best = &mut self.best[slot];
        if best.row != NO_ROW {
            let known = self.tie.get(slot).copied().unwrap_or_default();
            let order = rank(event, tie.unwrap_or_default()).cmp(&rank(best.ts, known)).then_with(|| row.cmp(&best.row));
            if order != Ordering::Greater {
                return;
            }
        }
        *best = Best { ts: event, row };
        if let (Some(tie), Some(best)) = (tie, self.tie.get_mut(slot)) {
            *best = tie;
        }
    }
}

#[inline]
fn rank(event_ts: i64, (created, seq): Tie) -> RowOrder<i64> {
    RowOrder { event_ts, created_ts: (created != i64::MIN).then_some(created), seq }
}

/// Merges runs of one key with the labels of that key. Keeps the last partition locked.
struct Merge<'a> {
    partitions: &'a CachePartitions,
    held: Option<(usize, MutexGuard<'a, CachePartition>)>,
}

impl Merge<'_> {
    fn run(&mut self, group: u32, run: Range<usize>, time: &[i64], first: u32, tie: &impl Fn(usize) -> Tie) {
        let (lo, hi) = self.partitions.index.range(group);
        if lo == hi {
            return;
        }
        let times = &time[run.clone()];
        if !times.is_sorted() {
            for (i, event) in times.iter().enumerate() {
                let slot = self.partitions.first_slot(lo, hi, *event);
                if slot < hi {
                    self.offer(slot, *event, run.start + i, first, tie);
                }
            }
            return;
        }
        let mut next = 0;
        let mut slot = self.partitions.first_slot(lo, hi, times[0]);
        while slot < hi && next < times.len() {
            let at = self.partitions.index.at[slot];
            let seen = next + gallop(&times[next..], |t| if self.partitions.strict { t < at } else { t <= at });
            // The last row that this label sees and the one before did not, and what it ties with.
            if let Some(last) = seen.checked_sub(1).filter(|l| *l >= next) {
                for i in (next..seen).rev().take_while(|i| times[*i] == times[last]) {
                    self.offer(slot, times[i], run.start + i, first, tie);
                }
            }
            next = seen;
            slot += 1;
            if next < times.len() {
                let from = &self.partitions.index.at[slot..hi];
                let event = times[next];
                slot += gallop(from, |a| if self.partitions.strict { a <= event } else { a < event });
            }
        }
    }

    fn offer(&mut self, slot: usize, event: i64, row: usize, first: u32, tie: &impl Fn(usize) -> Tie) {
        if !is_live_on(event, self.partitions.index.at[slot], self.partitions.ttl) {
            return;
        }
        let number = slot >> PARTITION_BITS;
        if self.held.as_ref().is_none_or(|(n, _)| *n != number) {
            // One at a time: two tasks that wait for each other's would wait forever.
            self.held = None;
            self.held = Some((number, self.partitions.partitions[number].lock()));
        }
        if let Some((_, partition)) = &mut self.held {
            let tie = self.partitions.has_ties.then(|| tie(row));
            partition.offer(slot & (PARTITION_SLOTS - 1), event, first + row as u32, tie);
        }
    }
}

/// How many values at the front satisfy `before`, where all that do come first.
fn gallop(values: &[i64], before: impl Fn(i64) -> bool) -> usize {
    let mut step = 1;
    while step <= values.len() && before(values[step - 1]) {
        step *= 2;
    }
    let known = step / 2;
    known + values[known..values.len().min(step)].partition_point(|v| before(*v))
}

impl Collector {
    /// Bytes held at most.
    pub fn size(&self) -> usize {
        let pile = |p: &Pile| p.rows.capacity() * size_of::<(u32, u32, i64)>() + p.ties.capacity() * size_of::<Tie>();
        self.piles.iter().map(pile).sum()
    }
}
