//! One slot per label, sorted by instant within the label's group. A feature row goes to the first
//! label that can see it; every later label of the group sees it too, so the winners are found by
//! filling forward once at the end. (Joins that look ahead are the mirror image.)

use std::cmp::Ordering;
use std::mem::size_of;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::common::Result;
use hashbrown::HashMap;

use crate::model::live::{RowOrder, is_ahead, is_known, is_live_on};
use crate::operator::pit_join::labels::group::NO_GROUP;
use crate::operator::pit_join::labels::instant::{Instants, OnLine, Round};
use crate::operator::pit_join::labels::label_index::{Index, LabelIndex};
use crate::operator::pit_join::output::winners::{Place, Ties, Winners};
use crate::operator::pit_join::spec::FeatureTimes;
use crate::plan::pit_join::MatchOp;
use crate::plan::pit_join::types::TimeLines;

/// Key, time and tie-break columns of a feature batch.
#[derive(Debug)]
pub struct FeatureColumns {
    /// Place of its first row.
    pub origin: Place,
    pub groups: Vec<u32>,
    pub times: FeatureTimes,
    /// Where the batch stands in the input: the order of its first row.
    pub position: i64,
}

/// Matches one view's rows to the labels.
pub trait Matcher: Send {
    /// Bytes held.
    fn size(&self) -> usize;
    /// Begins a feature batch.
    fn load(&mut self, columns: FeatureColumns) -> Result<()>;
    /// Works on the loaded batch for about `budget` steps; true when it is done.
    fn probe(&mut self, batch: &RecordBatch, ties: &mut dyn Ties, budget: usize) -> Result<bool>;
    /// Ends a batch: keeps its winners, and now and then throws out what has been beaten.
    fn keep(&mut self, batch: &RecordBatch, winners: &mut Winners) -> Result<()>;
    /// The winner of every label row.
    fn finish(self: Box<Self>) -> Vec<Place>;
}

#[derive(Debug, Clone, Copy)]
struct Best<T> {
    order: RowOrder<T>,
    place: Place,
}

#[derive(Debug)]
pub struct Slots<T: OnLine> {
    op: MatchOp,
    lines: TimeLines,
    ttl: Option<T>,
    /// Kept rows beyond twice the live ones before they are compacted.
    slack: usize,
    chunk: usize,
    index: Arc<LabelIndex<T>>,
    /// Per group: what a label knows, every later label knows too. Otherwise each label is asked.
    steady: Vec<bool>,
    best: Vec<Best<T>>,
    occupied: usize,
    touched: Vec<u32>,
    current: Option<Current<T>>,
}

#[derive(Debug)]
struct Current<T: OnLine> {
    groups: Vec<u32>,
    time: Instants<T>,
    created: Option<Instants<T>>,
    seq: Option<Int64Array>,
    position: i64,
    origin: Place,
    next: usize,
}

impl<T: OnLine> Current<T> {
    fn order(&self, row: usize) -> Option<RowOrder<T>> {
        let event_ts = self.time.get(row)?;
        let created_ts = self.created.as_ref().and_then(|c| c.get(row));
        let seq = match &self.seq {
            Some(s) if s.is_null(row) => i64::MIN,
            Some(s) => s.value(row),
            None => self.position.saturating_add(row as i64),
        };
        Some(RowOrder { event_ts, created_ts, seq })
    }
}

/// A matcher for the slots of `index`. `chunk`: rows per batch.
pub fn matcher(op: MatchOp, lines: TimeLines, index: &Index, chunk: usize) -> Box<dyn Matcher> {
    match index {
        Index::Narrow(i) => Box::new(Slots::new(op, lines, Arc::clone(i), chunk)),
        Index::Wide(i) => Box::new(Slots::new(op, lines, Arc::clone(i), chunk)),
    }
}

impl<T: OnLine> Slots<T> {
    fn new(op: MatchOp, lines: TimeLines, index: Arc<LabelIndex<T>>, chunk: usize) -> Self {
        let known_by = &index.known_by;
        let steady = index
            .offsets
            .windows(2)
            .map(|w| known_by.is_empty() || (!op.looks_ahead() && known_by[w[0] as usize..w[1] as usize].is_sorted()))
            .collect();
        let nothing = Best { order: RowOrder { event_ts: T::MIN, created_ts: None, seq: i64::MIN }, place: Place::NONE };
        Slots {
            op,
            lines,
            ttl: lines.ttl.map(T::saturate),
            slack: 8 * chunk,
            chunk,
            steady,
            best: vec![nothing; index.slots()],
            index,
            occupied: 0,
            touched: vec![],
            current: None,
        }
    }

    fn has_known_by(&self) -> bool {
        !self.index.known_by.is_empty()
    }

    /// The slots of a group whose labels see a row of this time, `ttl` and known-by aside.
    fn visible(&self, lo: usize, hi: usize, event: T) -> (usize, usize) {
        let at = &self.index.at[lo..hi];
        match self.op {
            MatchOp::AtOrBefore => (lo + at.partition_point(|a| *a < event), hi),
            MatchOp::Before => (lo + at.partition_point(|a| *a <= event), hi),
            MatchOp::AtOrAfter => (lo, lo + at.partition_point(|a| *a <= event)),
            MatchOp::After => (lo, lo + at.partition_point(|a| *a < event)),
        }
    }

    fn in_ttl(&self, event: T, slot: usize) -> bool {
        if self.op.looks_ahead() {
            is_ahead(event, self.index.at[slot], self.ttl)
        } else {
            is_live_on(event, self.index.at[slot], self.ttl)
        }
    }

    /// Puts one row into the slots where it is the best so far; answers the steps it took.
    fn place(&mut self, current: &Current<T>, row: usize, batch: &RecordBatch, ties: &mut dyn Ties) -> Result<usize> {
        let group = current.groups[row];
        if group == NO_GROUP {
            return Ok(1);
        }
        let Some(order) = current.order(row) else { return Ok(1) };
        let (lo, hi) = self.index.range(group);
        let (mut start, end) = self.visible(lo, hi, order.event_ts);
        if self.has_known_by() && order.created_ts.is_none() {
            return Ok(1);
        }
        if !self.steady[group as usize] {
            // The rows a label may see differ from label to label: ask each one that is near enough.
            let mut steps = 1;
            let mut visit = |slots: &mut Self, slot: usize| -> Result<bool> {
                steps += 1;
                if !slots.in_ttl(order.event_ts, slot) {
                    return Ok(false);
                }
                if is_known(order.created_ts, Some(slots.index.known_by[slot])) {
                    slots.offer(slot, order, current, row, batch, ties)?;
                }
                Ok(true)
            };
            if self.op.looks_ahead() {
                for slot in (start..end).rev() {
                    if !visit(self, slot)? {
                        break;
                    }
                }
            } else {
                for slot in start..end {
                    if !visit(self, slot)? {
                        break;
                    }
                }
            }
            return Ok(steps);
        }
        if let (true, Some(created)) = (self.has_known_by(), order.created_ts) {
            start = start.max(lo + self.index.known_by[lo..hi].partition_point(|k| !is_known(Some(created), Some(*k))));
        }
        if start < end {
            let nearest = if self.op.looks_ahead() { end - 1 } else { start };
            // Too far from this label, it is too far from all labels beyond.
            if self.in_ttl(order.event_ts, nearest) {
                self.offer(nearest, order, current, row, batch, ties)?;
            }
        }
        Ok(1)
    }

    fn offer(
        &mut self,
        slot: usize,
        order: RowOrder<T>,
        current: &Current<T>,
        row: usize,
        batch: &RecordBatch,
        ties: &mut dyn Ties,
    ) -> Result<()> {
        let order = if self.op.looks_ahead() { order.ahead() } else { order };
        let best = &mut self.best[slot];
        let place = Place { batch: current.origin.batch, row: current.origin.row + row as u32 };
        if best.place.is_none() {
            self.occupied += 1;
        } else {
            let wins = match order.cmp(&best.order) {
                // Two statements wrote at once: the rows' values decide.
                Ordering::Equal if current.seq.is_some() => ties.compare(batch, row, best.place)?,
                o => o,
            };
            if wins != Ordering::Greater {
                return Ok(());
            }
        }
        *best = Best { order, place };
        self.touched.push(slot as u32);
        Ok(())
    }

    /// Throws out kept rows that no slot refers to any more.
    fn compact(&mut self, winners: &mut Winners) -> Result<()> {
        let shared = self.has_known_by();
        let mut moved: HashMap<Place, u32> = HashMap::new();
        let mut live = Vec::with_capacity(self.occupied);
        for best in self.best.iter_mut().filter(|b| !b.place.is_none()) {
            let mut keep = || {
                live.push(best.place);
                live.len() as u32 - 1
            };
            // Only where labels are asked one by one may one row serve several slots.
            let n = if shared { *moved.entry(best.place).or_insert_with(keep) } else { keep() };
            best.place = Place { batch: n / self.chunk as u32, row: n % self.chunk as u32 };
        }
        winners.compact(&live, self.chunk)
    }
}

impl<T: OnLine> Matcher for Slots<T> {
    fn size(&self) -> usize {
        self.best.len() * size_of::<Best<T>>() + self.steady.len() + self.touched.capacity() * 4
    }

    fn load(&mut self, columns: FeatureColumns) -> Result<()> {
        self.current = Some(Current {
            time: Instants::read(&columns.times.time, self.lines.event, Round::Up)?,
            created: columns.times.created.map(|c| Instants::read(&c, self.lines.created, Round::Up)).transpose()?,
            seq: columns.times.seq.map(|s| s.as_primitive::<Int64Type>().clone()),
            groups: columns.groups,
            position: columns.position,
            origin: columns.origin,
            next: 0,
        });
        Ok(())
    }

    fn probe(&mut self, batch: &RecordBatch, ties: &mut dyn Ties, budget: usize) -> Result<bool> {
        let Some(mut current) = self.current.take() else { return Ok(true) };
        let mut steps = 0;
        while current.next < current.time.len() && steps < budget {
            steps += self.place(&current, current.next, batch, ties)?;
            current.next += 1;
        }
        let done = current.next == current.time.len();
        if !done {
            self.current = Some(current);
        }
        Ok(done)
    }

    fn keep(&mut self, batch: &RecordBatch, winners: &mut Winners) -> Result<()> {
        let number = winners.next_batch();
        let mut rows: Vec<u32> = vec![];
        let mut moved = vec![u32::MAX; batch.num_rows()];
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for slot in &touched {
            let place = &mut self.best[*slot as usize].place;
            // Rows beaten later in the same batch are not kept at all.
            if place.batch == number {
                let to = &mut moved[place.row as usize];
                if *to == u32::MAX {
                    *to = rows.len() as u32;
                    rows.push(place.row);
                }
                place.row = *to;
            }
        }
        touched.clear();
        self.touched = touched;
        winners.keep(batch, rows)?;
        if winners.rows() > 2 * self.occupied + self.slack {
            self.compact(winners)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Vec<Place> {
        let mut found = vec![Place::NONE; self.index.labels];
        for (group, ends) in self.index.offsets.windows(2).enumerate() {
            let (lo, hi) = (ends[0] as usize, ends[1] as usize);
            let mut carry: Option<Best<T>> = None;
            let mut visit = |slot: usize| {
                let here = self.best[slot];
                if !self.steady[group] {
                    found[self.index.rows[slot] as usize] = here.place;
                    return;
                }
                if !here.place.is_none() && carry.is_none_or(|c| here.order > c.order) {
                    carry = Some(here);
                }
                if let Some(best) = carry {
                    let event = if self.op.looks_ahead() { best.order.ahead().event_ts } else { best.order.event_ts };
                    if self.in_ttl(event, slot) {
                        found[self.index.rows[slot] as usize] = best.place;
                    }
                }
            };
            if self.op.looks_ahead() { (lo..hi).rev().for_each(&mut visit) } else { (lo..hi).for_each(&mut visit) }
        }
        found
    }
}
