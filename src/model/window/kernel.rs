//! Aggregates of the events of one key for many labels at once.

use std::collections::VecDeque;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::{DataType, Schema};

use super::aggregate::{Aggregate, Function};
use super::frame_sums::FrameSums;
use super::output::Output;
use super::state::Finished;
use super::value::{Column, Value};
use crate::clock::Micros;
use crate::error::{Error, Result};

/// Events of one key in the order of (event timestamp, created timestamp, `_seq`).
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    pub times: &'a [Micros],
    /// Columns of a batch that holds the run ([`columns`]).
    pub columns: &'a [Column<'a>],
    /// Row of the batch where the run begins.
    pub first: usize,
}

/// The columns of a batch, as runs have them.
pub fn columns(batch: &[ArrayRef]) -> Result<Vec<Column<'_>>> {
    batch.iter().map(Column::new).collect()
}

/// An aggregate over columns of known types.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub function: Function,
    pub args: Vec<usize>,
    pub filter: Option<usize>,
    pub result: DataType,
    /// Digits behind the point of a DECIMAL argument.
    pub scale: u32,
}

impl Compiled {
    /// `events`: the columns that a run has.
    pub fn new(aggregate: &Aggregate, events: &Schema) -> Result<Self> {
        let at = |name: &String| Ok::<_, Error>(events.index_of(name)?);
        let args = aggregate.args.iter().map(at).collect::<Result<Vec<_>>>()?;
        let types: Vec<DataType> = args.iter().map(|i| events.field(*i).data_type().clone()).collect();
        let scale = match types.first() {
            Some(DataType::Decimal128(_, s)) => u32::from(s.unsigned_abs()),
            _ => 0,
        };
        let function = aggregate.function.clone();
        let result = function.result_type(&types)?;
        Ok(Compiled { function, args, filter: aggregate.filter.as_ref().map(at).transpose()?, result, scale })
    }

    /// The first argument.
    fn column<'a>(&self, run: &Run<'a>) -> Result<&'a Column<'a>> {
        let first = self.args.first().and_then(|i| run.columns.get(*i));
        first.ok_or_else(|| Error::internal("an argument is missing"))
    }

    pub fn columns<'a>(&self, run: &Run<'a>) -> Result<Vec<&'a Column<'a>>> {
        self.args.iter().map(|i| run.columns.get(*i).ok_or_else(|| Error::internal("an argument is missing"))).collect()
    }

    /// Whether a row of the batch is counted at all.
    pub fn passes<'a>(&self, run: &Run<'a>) -> Result<impl Fn(usize) -> bool + use<'a>> {
        let filter = match self.filter.map(|i| run.columns.get(i)) {
            None => None,
            Some(Some(Column::Boolean(filter))) => Some(*filter),
            Some(_) => return Err(Error::internal("a filter is no condition")),
        };
        Ok(move |row: usize| filter.is_none_or(|f| f.is_valid(row) && f.value(row)))
    }

    pub fn finished(&self, state: &super::state::State) -> Finished {
        self.function.finish(state, &self.result, self.scale)
    }
}

/// Computes aggregates for the labels of key after key.
#[derive(Debug)]
pub struct Aggregators {
    all: Vec<Compiled>,
    /// Running totals, each of one argument under one filter, and which of them an aggregate takes.
    totals: Vec<Totals>,
    totals_of: Vec<Option<usize>>,
    /// Rows before each row that count.
    counted: Vec<u32>,
    /// Rows of a frame that may still be its least or greatest, in order.
    best: VecDeque<u32>,
}

#[derive(Debug)]
struct Totals {
    column: usize,
    filter: Option<usize>,
    sums: FrameSums,
    /// Of the run at hand, once they were asked: whether they are exact in 128 bits.
    ready: Option<bool>,
}

impl Aggregators {
    /// `events`: the columns that runs have.
    pub fn new(aggregates: &[Aggregate], events: &Schema) -> Result<Self> {
        let all = aggregates.iter().map(|a| Compiled::new(a, events)).collect::<Result<Vec<_>>>()?;
        let mut totals: Vec<Totals> = vec![];
        let mut of = |c: &Compiled| {
            let column = *c.args.first().filter(|_| matches!(c.function, Function::Sum | Function::Avg))?;
            Some(totals.iter().position(|t| t.column == column && t.filter == c.filter).unwrap_or_else(|| {
                totals.push(Totals { column, filter: c.filter, sums: FrameSums::default(), ready: None });
                totals.len() - 1
            }))
        };
        let totals_of = all.iter().map(&mut of).collect();
        Ok(Aggregators { all, totals, totals_of, counted: vec![], best: VecDeque::new() })
    }

    /// Room for so many labels, filled with the aggregates of nothing.
    pub fn outputs(&self, labels: usize) -> Vec<Output> {
        self.all.iter().map(|c| Output::new(&c.result, labels, c.function.counts())).collect()
    }

    /// Begins with the next run.
    pub fn begin(&mut self) {
        self.totals.iter_mut().for_each(|t| t.ready = None);
    }

    /// One aggregate for the labels of a key. `frames`: per label the half-open range of the run's rows in its window, both
    /// ends never decreasing; `first`: the output's row of the first label, behind which the others stand.
    pub fn fill(&mut self, aggregate: usize, run: &Run<'_>, frames: &[(u32, u32)], first: u32, out: &mut Output) -> Result<()> {
        let Some(compiled) = self.all.get(aggregate) else { return Err(Error::internal("an aggregate is missing")) };
        match &compiled.function {
            Function::CountAll if compiled.filter.is_none() => {
                frames.iter().zip(first..).for_each(|((from, to), label)| out.set_count(label, i64::from(to - from)));
                Ok(())
            }
            Function::CountAll | Function::Count => counts(compiled, &mut self.counted, run, frames, first, out),
            Function::Sum | Function::Avg => {
                let totals = self.totals_of.get(aggregate).copied().flatten().and_then(|i| self.totals.get_mut(i));
                let Some(totals) = totals else { return Err(Error::internal("a sum has totals")) };
                let (column, passes) = (compiled.column(run)?, compiled.passes(run)?);
                let sums = &mut totals.sums;
                match *totals.ready.get_or_insert_with(|| sums.prepare(column, &passes, run.first, run.times.len())) {
                    true => sums.fill(compiled, frames, first, out),
                    false => each(compiled, run, frames, first, out)?,
                }
                Ok(())
            }
            Function::Min | Function::BoolAnd | Function::Max | Function::BoolOr => {
                extremes(compiled, &mut self.best, run, frames, first, out)
            }
            _ => each(compiled, run, frames, first, out),
        }
    }

    /// The same for some rows of the run, for one label.
    pub fn of_rows(&self, aggregate: usize, run: &Run<'_>, rows: &[u32], label: u32, out: &mut Output) -> Result<()> {
        let Some(compiled) = self.all.get(aggregate) else { return Err(Error::internal("an aggregate is missing")) };
        let (columns, passes) = (compiled.columns(run)?, compiled.passes(run)?);
        let rows = rows.iter().map(|r| run.first + *r as usize);
        out.set(label, of(compiled, &columns, &passes, rows));
        Ok(())
    }
}

fn counts(compiled: &Compiled, counted: &mut Vec<u32>, run: &Run<'_>, frames: &[(u32, u32)], first: u32, out: &mut Output) -> Result<()> {
    let (columns, passes) = (compiled.columns(run)?, compiled.passes(run)?);
    let given = |row: usize| columns.first().is_none_or(|c| !c.is_null(row));
    counted.clear();
    let mut count = 0;
    counted.push(0);
    for row in run.first..run.first + run.times.len() {
        count += u32::from(passes(row) && given(row));
        counted.push(count);
    }
    for ((from, to), label) in frames.iter().zip(first..) {
        out.set_count(label, i64::from(counted[*to as usize] - counted[*from as usize]));
    }
    Ok(())
}

/// Least and greatest values, without taking every value out where they are doubles or BIGINT.
fn extremes(
    compiled: &Compiled,
    best: &mut VecDeque<u32>,
    run: &Run<'_>,
    frames: &[(u32, u32)],
    first: u32,
    out: &mut Output,
) -> Result<()> {
    use std::cmp::Ordering::{Greater, Less};
    let (column, passes) = (compiled.column(run)?, compiled.passes(run)?);
    let beats = if matches!(compiled.function, Function::Max | Function::BoolOr) { Greater } else { Less };
    let frames = frames.iter().copied().zip(first..);
    match column {
        Column::F64(a) => {
            let values = a.values();
            let counts = |row: usize| passes(row) && !a.is_null(row);
            let better = |row: usize, than: usize| values[row].total_cmp(&values[than]) == beats;
            leaders(best, run.first, frames, counts, better, |label, row| out.set_float(label, values[row]));
        }
        Column::I64(a) => {
            let values = a.values();
            let counts = |row: usize| passes(row) && !a.is_null(row);
            let better = |row: usize, than: usize| values[row].cmp(&values[than]) == beats;
            leaders(best, run.first, frames, counts, better, |label, row| out.set(label, Finished::One(Some(Value::Integer(values[row])))));
        }
        other => {
            let counts = |row: usize| passes(row) && !other.is_null(row);
            let better = |row: usize, than: usize| other.compare(row, than) == beats;
            leaders(best, run.first, frames, counts, better, |label, row| out.set(label, Finished::One(other.get(row))));
        }
    }
    Ok(())
}

/// Keeps the rows that no later row of the frame beats: the first of them is the frame's.
fn leaders(
    best: &mut VecDeque<u32>,
    first_row: usize,
    frames: impl Iterator<Item = ((u32, u32), u32)>,
    counts: impl Fn(usize) -> bool,
    better: impl Fn(usize, usize) -> bool,
    mut set: impl FnMut(u32, usize),
) {
    best.clear();
    let mut next = 0;
    for ((from, to), label) in frames {
        // rows before the frame lie in no later one
        next = next.max(from);
        while next < to {
            let row = first_row + next as usize;
            if counts(row) {
                while best.back().is_some_and(|b| better(row, first_row + *b as usize)) {
                    best.pop_back();
                }
                best.push_back(next);
            }
            next += 1;
        }
        while best.front().is_some_and(|b| *b < from) {
            best.pop_front();
        }
        if let Some(leader) = best.front() {
            set(label, first_row + *leader as usize);
        }
    }
}

/// Frame by frame; equal frames are computed once.
fn each(compiled: &Compiled, run: &Run<'_>, frames: &[(u32, u32)], first: u32, out: &mut Output) -> Result<()> {
    let (columns, passes) = (compiled.columns(run)?, compiled.passes(run)?);
    let mut last: Option<((u32, u32), Finished)> = None;
    for (frame, label) in frames.iter().zip(first..) {
        if frame.0 == frame.1 {
            continue;
        }
        let value = match last.take() {
            Some((known, value)) if known == *frame => value,
            _ => of(compiled, &columns, &passes, run.first + frame.0 as usize..run.first + frame.1 as usize),
        };
        out.set(label, value.clone());
        last = Some((*frame, value));
    }
    Ok(())
}

/// The aggregate over some rows of a batch.
fn of(compiled: &Compiled, columns: &[&Column<'_>], passes: &impl Fn(usize) -> bool, rows: impl Iterator<Item = usize>) -> Finished {
    let mut state = compiled.function.nothing();
    let mut args: Vec<Option<Value>> = vec![None; columns.len()];
    for row in rows.filter(|r| passes(*r)) {
        args.iter_mut().zip(columns).for_each(|(a, c)| *a = c.get(row));
        compiled.function.update(&mut state, &args);
    }
    compiled.finished(&state)
}
