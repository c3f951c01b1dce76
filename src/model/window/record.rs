//! The record of one key in an online store: what its windows need to answer for every instant from its newest event on.
//!
//! ```text
//! version: 1 byte, 1
//! instants of events that are later than the writer's clock: a count, then the distances from one to the next
//! per family (the aggregates of one function over the same arguments and filter, those over EXACT windows apart), in the
//! order of the view's aggregates:
//!   length in bytes
//!   cells: per cell the distance of its beginning from that of the one before, then its state (`state.rs`)
//! ```
//! Numbers are of variable length (`numbers.rs`); the first distance is that from 1970-01-01 UTC. A beginning of `i64::MIN`
//! is that of all events before every window. Aggregates belong to the view's version: what is here has no names.

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::Schema;

use super::aggregate::Aggregate;
use super::cells::cell;
use super::kernel::{Compiled, Run};
use super::numbers::{Bytes, put_signed, put_sized, put_unsigned};
use super::output::Output;
use super::spec::{Window, longest};
use super::state::{Finished, State};
use super::value::Value;
use crate::clock::Micros;
use crate::error::Result;

const VERSION: u8 = 1;

/// Writes and reads the records of one view.
#[derive(Debug)]
pub struct RecordCodec {
    aggregates: Vec<Compiled>,
    windows: Vec<Window>,
    families: Vec<Family>,
    /// Events of an EXACT window, or different values, beyond which there is no answer.
    limit: usize,
    /// The window that reaches back furthest.
    longest: Option<Window>,
}

/// Aggregates that share cells.
#[derive(Debug)]
struct Family {
    members: Vec<usize>,
    windows: Vec<Window>,
    exact: bool,
}

type Cells = Vec<(Micros, State)>;

/// A record to be read: its body, its newest event that was due when it was written, and the instant that is asked.
pub type Asked<'a> = (Option<(&'a [u8], Option<Micros>)>, Micros);

/// Values of some aggregates of some keys.
#[derive(Debug)]
pub struct Read {
    /// Per aggregate that is wanted, one value per key.
    pub values: Vec<ArrayRef>,
    /// The newest event in the longest window.
    pub newest: Vec<Option<Micros>>,
    /// A value is NULL because too much lies in its window.
    pub over_limit: Vec<bool>,
}

impl RecordCodec {
    /// `events`: the columns that runs have.
    pub fn new(aggregates: &[Aggregate], events: &Schema, limit: usize) -> Result<RecordCodec> {
        let compiled = aggregates.iter().map(|a| Compiled::new(a, events)).collect::<Result<Vec<_>>>()?;
        let mut families: Vec<Family> = vec![];
        for (i, a) in aggregates.iter().enumerate() {
            let exact = a.window.is_exact();
            let same = |f: &&mut Family| {
                let first = &aggregates[f.members[0]];
                f.exact == exact && first.function == a.function && first.args == a.args && first.filter == a.filter
            };
            match families.iter_mut().find(same) {
                Some(f) => {
                    f.members.push(i);
                    f.windows.push(a.window.clone());
                }
                None => families.push(Family { members: vec![i], windows: vec![a.window.clone()], exact }),
            }
        }
        let windows: Vec<Window> = aggregates.iter().map(|a| a.window.clone()).collect();
        let longest = longest(windows.iter()).cloned();
        Ok(RecordCodec { aggregates: compiled, windows, families, limit, longest })
    }

    /// The record of all events of one key, which come in the order of time. `now`: the writer's clock. Answers the newest
    /// event that is due, if there is one.
    pub fn write(&self, run: &Run<'_>, now: Micros, out: &mut Vec<u8>) -> Result<Option<Micros>> {
        let due = run.times.partition_point(|t| *t <= now);
        let newest = due.checked_sub(1).map(|last| run.times[last]);
        let mut ahead = run.times[due..].to_vec();
        ahead.dedup();
        out.push(VERSION);
        put_unsigned(ahead.len() as u64, out);
        let mut last = 0;
        for t in ahead {
            put_signed(t.wrapping_sub(last), out);
            last = t;
        }
        let mut bytes = vec![];
        for family in &self.families {
            bytes.clear();
            self.write_cells(family, &self.cells(family, run, newest, now)?, &mut bytes);
            put_sized(&bytes, out);
        }
        Ok(newest)
    }

    fn cells(&self, family: &Family, run: &Run<'_>, newest: Option<Micros>, now: Micros) -> Result<Cells> {
        let compiled = &self.aggregates[family.members[0]];
        let (columns, passes) = (compiled.columns(run)?, compiled.passes(run)?);
        let function = &compiled.function;
        let mut args: Vec<Option<Value>> = vec![None; columns.len()];
        let mut cells: Cells = vec![];
        for (i, t) in run.times.iter().enumerate() {
            let row = run.first + i;
            let Some(start) = cell(&family.windows, newest, now, *t).filter(|_| passes(row)) else { continue };
            args.iter_mut().zip(&columns).for_each(|(a, c)| *a = c.get(row));
            if function.ignores(&args) {
                continue;
            }
            match cells.last_mut().filter(|(last, _)| *last == start) {
                Some((_, state)) => function.update(state, &args),
                None => {
                    let mut state = function.nothing();
                    function.update(&mut state, &args);
                    cells.push((start, state));
                }
            }
        }
        if family.exact {
            // what is older lies in no window that is within the limit; what is ahead of the clock stays
            let due = cells.partition_point(|(start, _)| *start <= now);
            let over = due.saturating_sub(self.limit.saturating_add(1));
            cells.drain(..over);
        }
        Ok(cells)
    }

    fn write_cells(&self, family: &Family, cells: &Cells, out: &mut Vec<u8>) {
        let function = &self.aggregates[family.members[0]].function;
        let mut last = 0;
        for (start, state) in cells {
            put_signed(start.wrapping_sub(last), out);
            last = *start;
            function.encode(state, out);
        }
    }

    fn read_cells(&self, family: &Family, bytes: &[u8]) -> Result<Cells> {
        let function = &self.aggregates[family.members[0]].function;
        let mut bytes = Bytes(bytes);
        let (mut cells, mut last) = (vec![], 0i64);
        while !bytes.is_empty() {
            last = last.wrapping_add(bytes.signed()?);
            cells.push((last, function.decode(&mut bytes)?));
        }
        Ok(cells)
    }

    /// The values of the wanted aggregates of each record at its instant; without a record those of no events.
    /// `name`: what a record is called in errors.
    pub fn read(&self, records: &[Asked<'_>], wanted: &[usize], name: &dyn Fn(usize) -> String) -> Result<Read> {
        let output = |i: &usize| {
            let compiled = &self.aggregates[*i];
            Output::new(&compiled.result, records.len(), compiled.function.counts())
        };
        let mut outputs: Vec<Output> = wanted.iter().map(output).collect();
        let mut newest = vec![None; records.len()];
        let mut over_limit = vec![false; records.len()];
        for (row, (record, t)) in records.iter().enumerate() {
            let Some((body, last)) = record else { continue };
            let read = self.read_one(body, *last, *t, wanted, &mut |slot, value| match value {
                Some(value) => outputs[slot].set(row as u32, value),
                None => over_limit[row] = true,
            });
            newest[row] = read.map_err(|e| e.context(name(row)))?;
        }
        // a count over the limit is no 0
        let values = outputs.into_iter().map(Output::finish).collect::<Result<Vec<_>>>()?;
        Ok(Read { values, newest, over_limit })
    }

    /// Hands the value of each wanted aggregate to `set`; `None`: too much lies in its window. Answers the newest event in the
    /// longest window.
    fn read_one(
        &self,
        body: &[u8],
        last: Option<Micros>,
        t: Micros,
        wanted: &[usize],
        set: &mut dyn FnMut(usize, Option<Finished>),
    ) -> Result<Option<Micros>> {
        let mut bytes = Bytes(body);
        if bytes.byte()? != VERSION {
            return Err(crate::error::Error::invalid("an online record is of a version that this version of Remige cannot read")
                .with_hint("a newer version wrote it: use that one here, too; nothing was changed"));
        }
        let (mut newest, mut ahead) = (last, 0i64);
        for _ in 0..bytes.count()? {
            ahead = ahead.wrapping_add(bytes.signed()?);
            if ahead <= t {
                newest = newest.max(Some(ahead));
            }
        }
        for family in &self.families {
            let cells = bytes.sized()?;
            if !family.members.iter().any(|m| wanted.contains(m)) {
                continue;
            }
            let cells = self.read_cells(family, cells)?;
            for (slot, i) in wanted.iter().enumerate().filter(|(_, i)| family.members.contains(i)) {
                set(slot, self.value(*i, family, &cells, t));
            }
        }
        let oldest = self.longest.as_ref().map(|w| w.bounds(t).0);
        Ok(newest.filter(|n| oldest.is_none_or(|o| *n >= o)))
    }

    fn value(&self, aggregate: usize, family: &Family, cells: &Cells, t: Micros) -> Option<Finished> {
        let compiled = &self.aggregates[aggregate];
        let (oldest, newest) = self.windows[aggregate].bounds(t);
        let from = cells.partition_point(|(start, _)| *start < oldest);
        let to = cells.partition_point(|(start, _)| *start <= newest).max(from);
        if family.exact && to - from > self.limit {
            return None;
        }
        let mut state = compiled.function.nothing();
        for (_, cell) in &cells[from..to] {
            compiled.function.merge(&mut state, cell);
        }
        match &state {
            State::Often(all) if all.len() > self.limit => None,
            state => Some(compiled.finished(state)),
        }
    }
}
