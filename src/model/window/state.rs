//! What is kept of events that an aggregate has seen. States of parts of the events, merged in the order of time, are the
//! state of all of them, and what comes out does not depend on how they were cut.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::DataType;
use num_bigint::BigUint;

use super::aggregate::Function;
use super::exact::{ExactSum, parts, ratio};
use super::numbers::{Bytes, put_sized, put_unsigned};
use super::value::Value;
use crate::error::Result;

/// The state of one aggregate.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    Count(u64),
    Sum(Sum),
    /// The least or the greatest value.
    Extreme(Option<Value>),
    /// The first or the last value: NULL is one, too, where it counts.
    Edge(Option<Option<Value>>),
    /// The first or the last n, in the order of time.
    Several(Vec<Option<Value>>),
    /// The value that stands beside the least or greatest.
    Beside(Option<(Value, Option<Value>)>),
    /// How often each value came.
    Often(BTreeMap<Value, u64>),
}

/// Sums of numbers. What is no number is counted beside them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sum {
    pub count: u64,
    pub nan: u64,
    pub positive: u64,
    pub negative: u64,
    pub total: ExactSum,
    /// For variances.
    pub squares: Option<Box<ExactSum>>,
}

/// What comes out of an aggregate.
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    One(Option<Value>),
    List(Option<Vec<Option<Value>>>),
}

impl Function {
    fn squares(&self) -> bool {
        matches!(self, Function::VarPop | Function::VarSamp | Function::StddevPop | Function::StddevSamp)
    }

    /// The state of no events.
    pub fn nothing(&self) -> State {
        match self {
            Function::CountAll | Function::Count => State::Count(0),
            Function::Sum | Function::Avg => State::Sum(Sum::default()),
            f if f.squares() => State::Sum(Sum { squares: Some(Box::default()), ..Sum::default() }),
            Function::FirstValue { .. } | Function::LastValue { .. } => State::Edge(None),
            Function::FirstN(_) | Function::LastN(_) => State::Several(vec![]),
            Function::MinBy | Function::MaxBy => State::Beside(None),
            Function::CountDistinct | Function::TopK(_) => State::Often(BTreeMap::new()),
            _ => State::Extreme(None),
        }
    }

    /// Takes an event that is later than all before. `args`: its arguments.
    pub fn update(&self, state: &mut State, args: &[Option<Value>]) {
        let first = args.first().cloned().flatten();
        match (state, self) {
            (State::Count(n), Function::CountAll) => *n += 1,
            (State::Edge(kept), Function::FirstValue { ignore_nulls }) => {
                if kept.is_none() && !(*ignore_nulls && first.is_none()) {
                    *kept = Some(first);
                }
            }
            (State::Edge(kept), Function::LastValue { ignore_nulls }) => {
                if !(*ignore_nulls && first.is_none()) {
                    *kept = Some(first);
                }
            }
            (State::Several(kept), Function::FirstN(n)) if kept.len() < *n as usize => kept.push(first),
            (State::Several(kept), Function::LastN(n)) => {
                kept.push(first);
                let over = kept.len().saturating_sub(*n as usize);
                kept.drain(..over);
            }
            (State::Beside(kept), Function::MinBy | Function::MaxBy) => {
                if let Some(by) = args.get(1).cloned().flatten() {
                    self.beside(kept, by, first);
                }
            }
            (state, _) => {
                if let Some(value) = first {
                    self.update_with(state, value);
                }
            }
        }
    }

    fn update_with(&self, state: &mut State, value: Value) {
        match state {
            State::Count(n) => *n += 1,
            State::Sum(sum) => sum.add(&value),
            State::Extreme(kept) => self.extreme(kept, value),
            State::Often(all) => *all.entry(value).or_default() += 1,
            _ => {}
        }
    }

    fn extreme(&self, kept: &mut Option<Value>, value: Value) {
        let greatest = matches!(self, Function::Max | Function::BoolOr);
        let wins = kept.as_ref().is_none_or(|k| if greatest { value > *k } else { value < *k });
        if wins {
            *kept = Some(value);
        }
    }

    /// Of equal ones the later wins.
    fn beside(&self, kept: &mut Option<(Value, Option<Value>)>, by: Value, value: Option<Value>) {
        let wins = kept.as_ref().is_none_or(|(k, _)| if *self == Function::MaxBy { by >= *k } else { by <= *k });
        if wins {
            *kept = Some((by, value));
        }
    }

    /// Takes the state of events that are later than all before.
    pub fn merge(&self, state: &mut State, later: &State) {
        match (state, later) {
            // counts come out of bytes that may be damaged
            (State::Count(n), State::Count(m)) => *n = n.saturating_add(*m),
            (State::Sum(a), State::Sum(b)) => a.merge(b),
            (State::Extreme(kept), State::Extreme(Some(value))) => self.extreme(kept, value.clone()),
            (State::Edge(kept), State::Edge(Some(value))) => {
                let later_wins = matches!(self, Function::LastValue { .. });
                *kept = kept.take().filter(|_| !later_wins).or_else(|| Some(value.clone()));
            }
            (state @ State::Several(_), State::Several(values)) => values.iter().for_each(|v| self.update(state, std::slice::from_ref(v))),
            (State::Beside(kept), State::Beside(Some((by, value)))) => self.beside(kept, by.clone(), value.clone()),
            (State::Often(all), State::Often(more)) => more.iter().for_each(|(v, n)| {
                let count = all.entry(v.clone()).or_default();
                *count = count.saturating_add(*n);
            }),
            _ => {}
        }
    }

    /// Whether an event with these arguments changes nothing: such events need no cell.
    pub fn ignores(&self, args: &[Option<Value>]) -> bool {
        match self {
            Function::CountAll | Function::FirstN(_) | Function::LastN(_) => false,
            Function::FirstValue { ignore_nulls } | Function::LastValue { ignore_nulls } => {
                *ignore_nulls && args.first().is_none_or(Option::is_none)
            }
            Function::MinBy | Function::MaxBy => args.get(1).is_none_or(Option::is_none),
            _ => args.first().is_none_or(Option::is_none),
        }
    }

    /// The value over what a state has seen. `t`: of the function's values; `scale`: digits behind the point of a DECIMAL
    /// argument. A sum that does not fit is NULL.
    pub fn finish(&self, state: &State, t: &DataType, scale: u32) -> Finished {
        match (state, self) {
            (State::Count(n), _) => Finished::One(Some(Value::Integer(*n as i64))),
            (State::Often(all), Function::TopK(k)) => Finished::List(top(all, *k as usize)),
            (State::Often(all), _) => Finished::One(Some(Value::Integer(all.len() as i64))),
            (State::Sum(sum), Function::Sum) => Finished::One(sum.sum(t)),
            (State::Sum(sum), Function::Avg) => Finished::One(sum.avg(scale)),
            (State::Sum(sum), _) => Finished::One(sum.variance(self, scale)),
            (State::Extreme(kept), _) => Finished::One(kept.clone()),
            (State::Edge(kept), _) => Finished::One(kept.clone().flatten()),
            (State::Several(kept), Function::LastN(_)) => Finished::List((!kept.is_empty()).then(|| kept.iter().rev().cloned().collect())),
            (State::Several(kept), _) => Finished::List((!kept.is_empty()).then(|| kept.clone())),
            (State::Beside(kept), _) => Finished::One(kept.as_ref().and_then(|(_, v)| v.clone())),
        }
    }

    pub fn encode(&self, state: &State, out: &mut Vec<u8>) {
        match state {
            State::Count(n) => put_unsigned(*n, out),
            State::Sum(sum) => sum.encode(out),
            State::Extreme(value) => put_value(value, out),
            State::Edge(None) => out.push(0),
            State::Edge(Some(value)) => {
                out.push(1);
                put_value(value, out);
            }
            State::Several(values) => {
                put_unsigned(values.len() as u64, out);
                values.iter().for_each(|v| put_value(v, out));
            }
            State::Beside(None) => out.push(0),
            State::Beside(Some((by, value))) => {
                out.push(1);
                put_value(&Some(by.clone()), out);
                put_value(value, out);
            }
            State::Often(all) => {
                put_unsigned(all.len() as u64, out);
                for (value, n) in all {
                    put_value(&Some(value.clone()), out);
                    put_unsigned(*n, out);
                }
            }
        }
    }

    pub fn decode(&self, bytes: &mut Bytes<'_>) -> Result<State> {
        let given = |bytes: &mut Bytes<'_>| Ok::<_, crate::error::Error>(bytes.byte()? != 0);
        let some = |bytes: &mut Bytes<'_>| value(bytes)?.ok_or_else(|| bytes.damaged("a value"));
        Ok(match self.nothing() {
            State::Count(_) => State::Count(bytes.unsigned()?),
            State::Sum(like) => State::Sum(Sum::decode(bytes, like.squares.is_some())?),
            State::Extreme(_) => State::Extreme(value(bytes)?),
            State::Edge(_) => State::Edge(if given(bytes)? { Some(value(bytes)?) } else { None }),
            State::Several(_) => State::Several((0..bytes.count()?).map(|_| value(bytes)).collect::<Result<_>>()?),
            State::Beside(_) => State::Beside(if given(bytes)? { Some((some(bytes)?, value(bytes)?)) } else { None }),
            State::Often(_) => State::Often((0..bytes.count()?).map(|_| Ok((some(bytes)?, bytes.unsigned()?))).collect::<Result<_>>()?),
        })
    }
}

/// The most frequent values, of equally frequent ones the smaller first.
fn top(all: &BTreeMap<Value, u64>, k: usize) -> Option<Vec<Option<Value>>> {
    let mut by: Vec<(&Value, u64)> = all.iter().map(|(v, n)| (v, *n)).collect();
    by.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    (!by.is_empty()).then(|| by.into_iter().take(k).map(|(v, _)| Some(v.clone())).collect())
}

fn put_value(value: &Option<Value>, out: &mut Vec<u8>) {
    match value {
        None => out.push(0),
        Some(Value::Integer(i)) => {
            out.push(1);
            super::numbers::put_signed(*i, out);
        }
        Some(Value::Float(f)) => {
            out.push(2);
            out.extend_from_slice(&f.to_bits().to_be_bytes());
        }
        Some(Value::Decimal(d)) => {
            out.push(3);
            out.extend_from_slice(&d.to_be_bytes());
        }
        Some(Value::Bytes(b)) => {
            out.push(4);
            put_sized(b, out);
        }
    }
}

fn value(bytes: &mut Bytes<'_>) -> Result<Option<Value>> {
    let fixed = |b: &[u8]| b.try_into().map(u64::from_be_bytes).unwrap_or_default();
    Ok(Some(match bytes.byte()? {
        0 => return Ok(None),
        1 => Value::Integer(bytes.signed()?),
        2 => Value::Float(f64::from_bits(fixed(bytes.take(8)?))),
        3 => Value::Decimal(bytes.take(16)?.try_into().map(i128::from_be_bytes).unwrap_or_default()),
        4 => Value::Bytes(bytes.sized()?.into()),
        _ => return Err(bytes.damaged("the type of a value")),
    }))
}

impl Sum {
    /// Takes a number.
    pub fn add(&mut self, value: &Value) {
        self.count += 1;
        let (digits, exponent) = match value {
            Value::Integer(i) => (i128::from(*i), 0),
            Value::Decimal(d) => (*d, 0),
            Value::Float(x) if x.is_finite() => {
                let (digits, exponent) = parts(*x);
                (digits.into(), exponent)
            }
            Value::Float(x) => {
                match (x.is_nan(), x.is_sign_positive()) {
                    (true, _) => self.nan += 1,
                    (_, true) => self.positive += 1,
                    _ => self.negative += 1,
                }
                return;
            }
            Value::Bytes(_) => return,
        };
        self.total.add(digits, exponent);
        if let Some(squares) = &mut self.squares {
            squares.add_square(digits, exponent);
        }
    }

    pub fn merge(&mut self, other: &Sum) {
        let add = |own: &mut u64, others: u64| *own = own.saturating_add(others);
        add(&mut self.count, other.count);
        add(&mut self.nan, other.nan);
        add(&mut self.positive, other.positive);
        add(&mut self.negative, other.negative);
        self.total.merge(&other.total);
        if let (Some(own), Some(others)) = (&mut self.squares, &other.squares) {
            own.merge(others);
        }
    }

    /// What numbers that are none make of any sum.
    fn special(&self) -> Option<f64> {
        match (self.nan, self.positive, self.negative) {
            (0, 0, 0) => None,
            (0, _, 0) => Some(f64::INFINITY),
            (0, 0, _) => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }

    /// As a value of the type of sums; NULL where there is nothing, or where it does not fit.
    pub fn sum(&self, t: &DataType) -> Option<Value> {
        if self.count == 0 {
            return None;
        }
        match t {
            DataType::Int64 => self.total.to_i128().and_then(|n| i64::try_from(n).ok()).map(Value::Integer),
            DataType::Decimal128(precision, _) => {
                let most = 10i128.checked_pow((*precision).into()).unwrap_or(i128::MAX);
                self.total.to_i128().filter(|n| n.unsigned_abs() < most.unsigned_abs()).map(Value::Decimal)
            }
            _ => Some(Value::Float(self.special().unwrap_or_else(|| self.total.to_f64()))),
        }
    }

    fn avg(&self, scale: u32) -> Option<Value> {
        let divided = || self.total.divided(&(BigUint::from(self.count) * BigUint::from(10u8).pow(scale)));
        (self.count > 0).then(|| Value::Float(self.special().unwrap_or_else(divided)))
    }

    fn variance(&self, f: &Function, scale: u32) -> Option<Value> {
        let sample = matches!(f, Function::VarSamp | Function::StddevSamp);
        if self.count <= u64::from(sample) {
            return None;
        }
        if self.special().is_some() {
            return Some(Value::Float(f64::NAN));
        }
        let (spread, exponent) = self.total.spread(self.squares.as_deref()?, self.count);
        let by = BigUint::from(self.count) * BigUint::from(self.count - u64::from(sample)) * BigUint::from(10u8).pow(2 * scale);
        let variance = ratio(&spread, &by, exponent);
        Some(Value::Float(if matches!(f, Function::StddevPop | Function::StddevSamp) { variance.sqrt() } else { variance }))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_unsigned(self.count, out);
        let special = self.nan + self.positive + self.negative > 0;
        out.push(special.into());
        if special {
            [self.nan, self.positive, self.negative].into_iter().for_each(|n| put_unsigned(n, out));
        }
        self.total.encode(out);
        if let Some(squares) = &self.squares {
            squares.encode(out);
        }
    }

    fn decode(bytes: &mut Bytes<'_>, squares: bool) -> Result<Sum> {
        let mut sum = Sum { count: bytes.unsigned()?, ..Sum::default() };
        if bytes.byte()? != 0 {
            (sum.nan, sum.positive, sum.negative) = (bytes.unsigned()?, bytes.unsigned()?, bytes.unsigned()?);
        }
        sum.total = ExactSum::decode(bytes)?;
        if squares {
            sum.squares = Some(Box::new(ExactSum::decode(bytes)?));
        }
        Ok(sum)
    }
}
