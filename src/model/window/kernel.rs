//! Aggregates of the events of one key for many labels at once.

use std::collections::VecDeque;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
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
    /// Columns of a batch that holds the run.
    pub columns: &'a [ArrayRef],
    /// Row of the batch where the run begins.
    pub first: usize,
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

    pub fn columns<'a>(&self, run: &Run<'a>) -> Result<Vec<Column<'a>>> {
        self.args.iter().map(|i| Column::new(run.columns.get(*i).ok_or_else(|| Error::internal("an argument is missing"))?)).collect()
    }

    /// Whether a row of the batch is counted at all.
    pub fn passes(&self, run: &Run<'_>) -> Result<impl Fn(usize) -> bool> {
        let filter = match self.filter.map(|i| run.columns.get(i).and_then(|c| c.as_boolean_opt().cloned())) {
            None => None,
            Some(Some(filter)) => Some(filter),
            Some(None) => return Err(Error::internal("a filter is no condition")),
        };
        Ok(move |row: usize| filter.as_ref().is_none_or(|f| f.is_valid(row) && f.value(row)))
    }

    pub fn finished(&self, state: &super::state::State) -> Finished {
        self.function.finish(state, &self.result, self.scale)
    }
}

/// Computes one aggregate for the labels of key after key.
#[derive(Debug)]
pub struct Aggregator {
    compiled: Compiled,
    sums: FrameSums,
    /// Rows before each row that count.
    counted: Vec<u32>,
    /// Rows of a frame that may still be its least or greatest, in order.
    best: VecDeque<u32>,
}

impl Aggregator {
    /// `events`: the columns that runs have.
    pub fn new(aggregate: &Aggregate, events: &Schema) -> Result<Aggregator> {
        Ok(Aggregator { compiled: Compiled::new(aggregate, events)?, sums: FrameSums::default(), counted: vec![], best: VecDeque::new() })
    }

    /// Room for so many labels, filled with the aggregate of nothing.
    pub fn output(&self, labels: usize) -> Output {
        Output::new(&self.compiled.result, labels, self.compiled.function.counts())
    }

    /// `frames`: per label of the key the half-open range of the run's rows in its window, both ends never decreasing;
    /// `labels`: the rows of the output.
    pub fn fill(&mut self, run: &Run<'_>, frames: &[(u32, u32)], labels: &[u32], out: &mut Output) -> Result<()> {
        let compiled = &self.compiled;
        match &compiled.function {
            Function::CountAll if compiled.filter.is_none() => {
                frames.iter().zip(labels).for_each(|((from, to), label)| out.set_count(*label, i64::from(to - from)));
                Ok(())
            }
            Function::CountAll | Function::Count => self.counts(run, frames, labels, out),
            Function::Sum | Function::Avg => {
                let columns = compiled.columns(run)?;
                let passes = compiled.passes(run)?;
                let Some(column) = columns.first() else { return Err(Error::internal("a sum has an argument")) };
                match self.sums.prepare(column, &passes, run.first, run.times.len()) {
                    true => self.sums.fill(compiled, frames, labels, out),
                    false => each(compiled, run, frames, labels, out)?,
                }
                Ok(())
            }
            Function::Min | Function::BoolAnd | Function::Max | Function::BoolOr => self.extremes(run, frames, labels, out),
            _ => each(compiled, run, frames, labels, out),
        }
    }

    /// The same for some rows of the run, for one label.
    pub fn of_rows(&mut self, run: &Run<'_>, rows: &[u32], label: u32, out: &mut Output) -> Result<()> {
        let (columns, passes) = (self.compiled.columns(run)?, self.compiled.passes(run)?);
        let rows = rows.iter().map(|r| run.first + *r as usize);
        out.set(label, of(&self.compiled, &columns, &passes, rows));
        Ok(())
    }

    fn counts(&mut self, run: &Run<'_>, frames: &[(u32, u32)], labels: &[u32], out: &mut Output) -> Result<()> {
        let (columns, passes) = (self.compiled.columns(run)?, self.compiled.passes(run)?);
        let given = |row: usize| columns.first().is_none_or(|c| !c.is_null(row));
        self.counted.clear();
        let mut count = 0;
        self.counted.push(0);
        for row in run.first..run.first + run.times.len() {
            count += u32::from(passes(row) && given(row));
            self.counted.push(count);
        }
        for ((from, to), label) in frames.iter().zip(labels) {
            out.set_count(*label, i64::from(self.counted[*to as usize] - self.counted[*from as usize]));
        }
        Ok(())
    }

    /// Keeps the rows that no later row of the frame beats: the first of them is the frame's.
    fn extremes(&mut self, run: &Run<'_>, frames: &[(u32, u32)], labels: &[u32], out: &mut Output) -> Result<()> {
        use std::cmp::Ordering::{Greater, Less};
        let (columns, passes) = (self.compiled.columns(run)?, self.compiled.passes(run)?);
        let Some(column) = columns.first() else { return Err(Error::internal("this aggregate has an argument")) };
        let beats = if matches!(self.compiled.function, Function::Max | Function::BoolOr) { Greater } else { Less };
        self.best.clear();
        let mut next = 0;
        for ((from, to), label) in frames.iter().zip(labels) {
            while next < *to {
                let row = run.first + next as usize;
                if passes(row) && !column.is_null(row) {
                    while self.best.back().is_some_and(|b| column.compare(row, run.first + *b as usize) == beats) {
                        self.best.pop_back();
                    }
                    self.best.push_back(next);
                }
                next += 1;
            }
            while self.best.front().is_some_and(|b| b < from) {
                self.best.pop_front();
            }
            if let Some(best) = self.best.front() {
                out.set(*label, Finished::One(column.get(run.first + *best as usize)));
            }
        }
        Ok(())
    }
}

/// Frame by frame; equal frames are computed once.
fn each(compiled: &Compiled, run: &Run<'_>, frames: &[(u32, u32)], labels: &[u32], out: &mut Output) -> Result<()> {
    let (columns, passes) = (compiled.columns(run)?, compiled.passes(run)?);
    let mut last: Option<((u32, u32), Finished)> = None;
    for (frame, label) in frames.iter().zip(labels) {
        if frame.0 == frame.1 {
            continue;
        }
        let value = match last.take() {
            Some((known, value)) if known == *frame => value,
            _ => of(compiled, &columns, &passes, run.first + frame.0 as usize..run.first + frame.1 as usize),
        };
        out.set(*label, value.clone());
        last = Some((*frame, value));
    }
    Ok(())
}

/// The aggregate over some rows of a batch.
fn of(compiled: &Compiled, columns: &[Column<'_>], passes: &impl Fn(usize) -> bool, rows: impl Iterator<Item = usize>) -> Finished {
    let mut state = compiled.function.nothing();
    let mut args: Vec<Option<Value>> = vec![None; columns.len()];
    for row in rows.filter(|r| passes(*r)) {
        args.iter_mut().zip(columns).for_each(|(a, c)| *a = c.get(row));
        compiled.function.update(&mut state, &args);
    }
    compiled.finished(&state)
}
