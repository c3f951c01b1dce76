//! Events as they come, cut into runs of one key. A run that goes over the end of a batch is kept until it is whole.

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::TimeUnit;
use datafusion::common::Result;

use super::spec::WindowJoinSpec;
use crate::model::live::Instant;
use crate::operator::pit_join::labels::group::NO_GROUP;
use crate::operator::pit_join::labels::instant::{Instants, Round};
use crate::operator::pit_join::labels::key_index::KeyIndex;
use crate::operator::pit_join::memory::Part;
use crate::operator::pit_join::spec::evaluate;
use crate::plan::pit_join::types::TimeLine;

/// Events of one batch: what is asked of them.
pub struct Events {
    pub times: Vec<i64>,
    /// When each was known, where somebody asks; NULL: never.
    pub created: Option<Vec<Option<i64>>>,
    pub columns: Vec<ArrayRef>,
}

impl Events {
    fn slice(&self, from: usize, to: usize) -> Events {
        Events {
            times: self.times[from..to].to_vec(),
            created: self.created.as_ref().map(|c| c[from..to].to_vec()),
            columns: self.columns.iter().map(|c| c.slice(from, to - from)).collect(),
        }
    }

    pub fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum();
        columns + self.times.len() * (size_of::<i64>() + self.created.as_ref().map_or(0, |_| size_of::<Option<i64>>()))
    }

    fn joined(pieces: Vec<Events>) -> Result<Events> {
        let mut pieces = pieces;
        if pieces.len() == 1
            && let Some(one) = pieces.pop()
        {
            return Ok(one);
        }
        let width = pieces.first().map_or(0, |p| p.columns.len());
        let column = |i: usize| concat(&pieces.iter().map(|p| p.columns[i].as_ref()).collect::<Vec<_>>());
        let columns = (0..width).map(column).collect::<std::result::Result<_, _>>()?;
        let times = pieces.iter().flat_map(|p| p.times.iter().copied()).collect();
        let created = pieces.iter().map(|p| p.created.clone()).collect::<Option<Vec<_>>>().map(|c| c.concat());
        Ok(Events { times, created, columns })
    }
}

/// Runs that are whole.
pub struct Batch {
    pub events: Events,
    /// Of each run its group, and the half-open range of its events.
    pub runs: Vec<(u32, usize, usize)>,
}

/// The run that is not whole yet.
pub struct Runs<'a> {
    spec: &'a WindowJoinSpec,
    keys: &'a KeyIndex,
    /// Whether somebody asks what was known.
    known: bool,
    group: u32,
    pieces: Vec<Events>,
    memory: Part,
}

const MICROS: TimeLine = TimeLine::Ticks(TimeUnit::Microsecond);

impl<'a> Runs<'a> {
    pub fn new(spec: &'a WindowJoinSpec, keys: &'a KeyIndex, known: bool, memory: Part) -> Self {
        Runs { spec, keys, known, group: NO_GROUP, pieces: vec![], memory }
    }

    /// Takes the next batch; answers the runs that have ended.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<Batch>> {
        let mut out = vec![];
        let rows = batch.num_rows();
        let groups = self.keys.find(&self.spec.item.feature_keys(batch)?, rows)?;
        let Some((first, last)) = groups.first().copied().zip(groups.last().copied()) else { return Ok(out) };
        if self.group != NO_GROUP && first != self.group {
            out.extend(self.end()?);
        }
        if groups.iter().all(|g| *g == NO_GROUP) {
            return Ok(out);
        }
        let (events, mut runs) = (self.read(batch)?, vec![]);
        let mut from = 0;
        while from < rows {
            let group = groups[from];
            let to = from + groups[from..].iter().take_while(|g| **g == group).count();
            let open = to == rows && last != NO_GROUP;
            let goes_on = from == 0 && self.group == group && !self.pieces.is_empty();
            if open || goes_on {
                let piece = events.slice(from, to);
                self.memory.grow(piece.bytes())?;
                self.pieces.push(piece);
                self.group = group;
                if !open {
                    out.extend(self.end()?);
                }
            } else if group != NO_GROUP {
                runs.push((group, from, to));
            }
            from = to;
        }
        if !runs.is_empty() {
            out.push(Batch { events, runs });
        }
        Ok(out)
    }

    /// The run that is open has ended.
    pub fn end(&mut self) -> Result<Option<Batch>> {
        let pieces = std::mem::take(&mut self.pieces);
        if pieces.is_empty() {
            return Ok(None);
        }
        if pieces.len() > 1 {
            // the pieces and the whole are there together for a moment
            self.memory.grow(pieces.iter().map(Events::bytes).sum())?;
        }
        let events = Events::joined(pieces)?;
        let group = std::mem::replace(&mut self.group, NO_GROUP);
        self.memory.resize(0)?;
        let runs = vec![(group, 0, events.times.len())];
        Ok(Some(Batch { events, runs }))
    }

    fn read(&self, batch: &RecordBatch) -> Result<Events> {
        let item = &self.spec.item;
        let times = Instants::<i64>::read(&evaluate(&item.time, batch)?, MICROS, Round::Up)?;
        let created = match item.created.as_ref().filter(|_| self.known) {
            Some(e) => {
                let created = Instants::<i64>::read(&evaluate(e, batch)?, MICROS, Round::Up)?;
                Some((0..batch.num_rows()).map(|row| created.get(row)).collect())
            }
            None => None,
        };
        let columns = self.spec.arguments.iter().map(|(_, e)| evaluate(e, batch)).collect::<Result<_>>()?;
        Ok(Events { times: times.values().to_vec(), created, columns })
    }
}

/// Whether an event was known.
pub fn is_known<T: Instant>(created: Option<T>, by: T) -> bool {
    crate::model::live::is_known(created, Some(by))
}
