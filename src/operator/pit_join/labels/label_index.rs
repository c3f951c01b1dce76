//! The labels' instants, grouped by key and sorted by time: the index that all views of a join share.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::common::Result;

use super::group::NO_GROUP;
use super::instant::{Instants, OnLine, Round};
use crate::operator::pit_join::tasks::in_parts;
use crate::plan::pit_join::types::TimeLine;

/// Labels that are worth a task of their own.
pub const LABELS_PER_TASK: usize = if cfg!(test) { 8 } else { 200_000 };

/// Groups whose labels are sorted together.
const BUNDLE_GROUPS: usize = if cfg!(test) { 4 } else { 256 };

/// Instants by label row, as they come in.
#[derive(Debug)]
pub struct Instances<T> {
    groups: Vec<u32>,
    at: Vec<T>,
    /// Empty where no item asks what was known.
    known_by: Vec<T>,
}

/// One slot per label that can match anything, by group, then instant, then label row.
#[derive(Debug)]
pub struct LabelIndex<T> {
    /// First slot of every group, and the end.
    pub offsets: Vec<u32>,
    /// Per slot: label row, instant, known-by (empty without).
    pub rows: Vec<u32>,
    pub at: Vec<T>,
    pub known_by: Vec<T>,
    /// All label rows, those without a slot too.
    pub labels: usize,
}

/// The slots of some groups.
struct Piece<T> {
    /// Slots per group.
    counts: Vec<u32>,
    rows: Vec<u32>,
    at: Vec<T>,
    known_by: Vec<T>,
}

/// Where each of several runs of these lengths starts.
fn starts(lengths: &[u32]) -> Vec<u32> {
    let mut next = 0;
    let start = |length: &u32| {
        let start = next;
        next += length;
        start
    };
    lengths.iter().map(start).collect()
}

impl<T: OnLine> Instances<T> {
    pub fn new() -> Self {
        Instances { groups: vec![], at: vec![], known_by: vec![] }
    }

    /// Takes the next label rows. `groups`: one per row. A NULL instant matches nothing.
    pub fn add(&mut self, groups: &[u32], at: (&ArrayRef, TimeLine), known_by: Option<(&ArrayRef, TimeLine)>) -> Result<()> {
        let at = Instants::<T>::read(at.0, at.1, Round::Down)?;
        let known_by = known_by.map(|(k, line)| Instants::<T>::read(k, line, Round::Down)).transpose()?;
        self.groups.extend(groups.iter().enumerate().map(|(row, group)| {
            let known = known_by.as_ref().is_none_or(|k| k.get(row).is_some());
            if known && at.get(row).is_some() { *group } else { NO_GROUP }
        }));
        if let Some(k) = known_by {
            self.known_by.extend_from_slice(k.values());
        }
        self.at.extend_from_slice(at.values());
        Ok(())
    }

    /// Bytes held now.
    pub fn size(&self) -> usize {
        self.groups.capacity() * size_of::<u32>() + (self.at.capacity() + self.known_by.capacity()) * size_of::<T>()
    }

    /// Bytes that `build` needs on top, at most.
    pub fn size_of_build(labels: usize) -> usize {
        labels * (size_of::<(T, u32, u32)>() + size_of::<T>() + size_of::<u32>())
    }

    /// Sorts the labels, by up to `tasks` tasks.
    pub async fn build(self, groups: usize, tasks: usize) -> Result<LabelIndex<T>> {
        let labels = self.groups.len();
        let tasks = tasks.min(labels / LABELS_PER_TASK).max(1);
        let shared = Arc::new(self);
        let sorting = Arc::clone(&shared);
        // The first piece becomes the whole.
        let room = move |part: &Range<usize>| if part.start == 0 { labels } else { 0 };
        let pieces = in_parts(groups, tasks, move |part| sorting.sort(part.start, part.end, room(&part))).await?;
        drop(shared);
        let mut offsets = Vec::with_capacity(groups + 1);
        let mut end = 0u32;
        offsets.push(0);
        for count in pieces.iter().flat_map(|p| &p.counts) {
            end += count;
            offsets.push(end);
        }
        let mut pieces = pieces.into_iter();
        let mut index = match pieces.next() {
            Some(p) => LabelIndex { offsets, rows: p.rows, at: p.at, known_by: p.known_by, labels },
            None => LabelIndex { offsets, rows: vec![], at: vec![], known_by: vec![], labels },
        };
        for piece in pieces {
            index.rows.extend_from_slice(&piece.rows);
            index.at.extend_from_slice(&piece.at);
            index.known_by.extend_from_slice(&piece.known_by);
        }
        Ok(index)
    }

    /// The slots of groups `from..to`, in vectors with room for `room` at least.
    ///
    /// Rows are dealt to bundles of groups first, and bundle by bundle to their groups: what is written at a time stays in
    /// the processor's cache.
    fn sort(&self, from: usize, to: usize, room: usize) -> Piece<T> {
        // Whether a label is one of these is as good as random: what is not goes to a place behind the last, without a branch.
        let (first, others) = (from as u32, (to - from) as u32);
        let mine = |group: &u32| group.wrapping_sub(first).min(others);
        let mut counts = vec![0u32; to - from + 1];
        for group in &self.groups {
            counts[mine(group) as usize] += 1;
        }
        counts.pop();
        let bundles: Vec<u32> = counts.chunks(BUNDLE_GROUPS).map(|c| c.iter().sum()).collect();
        let total: usize = bundles.iter().map(|n| *n as usize).sum();
        let mut ends = starts(&bundles);
        ends.push(total as u32);
        let mut dealt = vec![(T::MIN, 0u32, 0u32); total + 1];
        for ((row, group), at) in self.groups.iter().enumerate().zip(&self.at) {
            let group = mine(group);
            let bundle = if group == others { bundles.len() } else { group as usize / BUNDLE_GROUPS };
            let end = &mut ends[bundle];
            dealt[*end as usize] = (*at, row as u32, group);
            *end += u32::from(group != others);
        }
        let room = total.max(room);
        let (mut rows, mut at) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let mut known_by = if self.known_by.is_empty() { vec![] } else { Vec::with_capacity(room) };
        let (mut slots, mut start) = (vec![], 0);
        for (bundle, counts) in counts.chunks(BUNDLE_GROUPS).enumerate() {
            let first = bundle * BUNDLE_GROUPS;
            let mine = &dealt[start..start + bundles[bundle] as usize];
            start += mine.len();
            self.sort_bundle(mine, first, counts, &mut slots);
            rows.extend(slots.iter().map(|s| s.1));
            at.extend(slots.iter().map(|s| s.0));
            if !self.known_by.is_empty() {
                known_by.extend(slots.iter().map(|(_, row)| self.known_by[*row as usize]));
            }
        }
        Piece { counts, rows, at, known_by }
    }

    /// Some labels (instant, row, group) by group, then instant. `counts`: labels per group from `first` on, as the labels
    /// count them.
    fn sort_bundle(&self, labels: &[(T, u32, u32)], first: usize, counts: &[u32], slots: &mut Vec<(T, u32)>) {
        slots.clear();
        slots.resize(labels.len(), (T::MIN, 0));
        let mut ends = starts(counts);
        for (at, row, group) in labels {
            let end = &mut ends[*group as usize - first];
            slots[*end as usize] = (*at, *row);
            *end += 1;
        }
        let mut rest = slots.as_mut_slice();
        for count in counts {
            let (group, after) = rest.split_at_mut(*count as usize);
            if self.known_by.is_empty() {
                group.sort_unstable();
            } else {
                group.sort_unstable_by_key(|(at, row)| (*at, self.known_by[*row as usize], *row));
            }
            rest = after;
        }
    }
}

impl<T: OnLine> LabelIndex<T> {
    pub fn slots(&self) -> usize {
        self.rows.len()
    }

    /// Slots of a group.
    pub fn range(&self, group: u32) -> (usize, usize) {
        (self.offsets[group as usize] as usize, self.offsets[group as usize + 1] as usize)
    }

    /// Earliest and latest instant; `None` where no label can match.
    pub fn bounds(&self) -> Option<(T, T)> {
        self.at.iter().copied().fold(None, |b, t| Some(b.map_or((t, t), |(lo, hi): (T, T)| (lo.min(t), hi.max(t)))))
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        (self.offsets.capacity() + self.rows.capacity()) * size_of::<u32>()
            + (self.at.capacity() + self.known_by.capacity()) * size_of::<T>()
    }
}

/// Instants being collected, on the narrowest line that holds them.
#[derive(Debug)]
pub enum Collected {
    Narrow(Instances<i64>),
    Wide(Instances<i128>),
}

#[derive(Debug, Clone)]
pub enum Index {
    Narrow(Arc<LabelIndex<i64>>),
    Wide(Arc<LabelIndex<i128>>),
}

impl Collected {
    pub fn new(wide: bool) -> Self {
        if wide { Collected::Wide(Instances::new()) } else { Collected::Narrow(Instances::new()) }
    }

    pub fn add(&mut self, groups: &[u32], at: (&ArrayRef, TimeLine), known_by: Option<(&ArrayRef, TimeLine)>) -> Result<()> {
        match self {
            Collected::Narrow(c) => c.add(groups, at, known_by),
            Collected::Wide(c) => c.add(groups, at, known_by),
        }
    }

    pub fn size(&self) -> usize {
        match self {
            Collected::Narrow(c) => c.size(),
            Collected::Wide(c) => c.size(),
        }
    }

    /// Bytes that `build` needs on top, at most.
    pub fn size_of_build(&self, labels: usize) -> usize {
        match self {
            Collected::Narrow(_) => Instances::<i64>::size_of_build(labels),
            Collected::Wide(_) => Instances::<i128>::size_of_build(labels),
        }
    }

    pub async fn build(self, groups: usize, tasks: usize) -> Result<Index> {
        Ok(match self {
            Collected::Narrow(c) => Index::Narrow(Arc::new(c.build(groups, tasks).await?)),
            Collected::Wide(c) => Index::Wide(Arc::new(c.build(groups, tasks).await?)),
        })
    }
}

impl Index {
    pub fn size(&self) -> usize {
        match self {
            Index::Narrow(i) => i.size(),
            Index::Wide(i) => i.size(),
        }
    }
}
