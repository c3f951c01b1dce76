//! Values by label row, filled in any order.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, ListArray};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::datatypes::DataType;

use super::state::Finished;
use super::value::{Value, array};
use crate::error::{Error, Result};

/// One value per label.
#[derive(Debug)]
pub struct Output {
    t: DataType,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Counts(Vec<i64>),
    Integers(Vec<i64>, Vec<bool>),
    Floats(Vec<f64>, Vec<bool>),
    Plain(Vec<Option<Value>>),
    Lists(Vec<Option<Vec<Option<Value>>>>),
}

impl Output {
    /// Room for so many labels. `counts`: values begin as 0, else as NULL.
    pub fn new(t: &DataType, labels: usize, counts: bool) -> Self {
        let values = match t {
            DataType::Int64 if counts => Values::Counts(vec![0; labels]),
            DataType::Int64 => Values::Integers(vec![0; labels], vec![false; labels]),
            DataType::Float64 => Values::Floats(vec![0.0; labels], vec![false; labels]),
            DataType::List(_) => Values::Lists(vec![None; labels]),
            _ => Values::Plain(vec![None; labels]),
        };
        Output { t: t.clone(), values }
    }

    pub fn set_count(&mut self, row: u32, n: i64) {
        if let Values::Counts(counts) = &mut self.values
            && let Some(c) = counts.get_mut(row as usize)
        {
            *c = n;
        }
    }

    pub fn set_float(&mut self, row: u32, x: f64) {
        if let Values::Floats(values, valid) = &mut self.values
            && let (Some(v), Some(is)) = (values.get_mut(row as usize), valid.get_mut(row as usize))
        {
            (*v, *is) = (x, true);
        }
    }

    pub fn set(&mut self, row: u32, value: Finished) {
        let row = row as usize;
        match (&mut self.values, value) {
            (Values::Counts(_), Finished::One(Some(Value::Integer(n)))) => self.set_count(row as u32, n),
            (Values::Integers(values, valid), Finished::One(Some(Value::Integer(n)))) => {
                if let (Some(v), Some(is)) = (values.get_mut(row), valid.get_mut(row)) {
                    (*v, *is) = (n, true);
                }
            }
            (Values::Floats(..), Finished::One(Some(Value::Float(x)))) => self.set_float(row as u32, x),
            (Values::Plain(values), Finished::One(value)) => values.get_mut(row).into_iter().for_each(|v| *v = value.clone()),
            (Values::Lists(lists), Finished::List(list)) => lists.get_mut(row).into_iter().for_each(|l| l.clone_from(&list)),
            _ => {}
        }
    }

    /// Bytes of the values of one label, texts and lists aside.
    pub fn bytes_per_label(&self) -> usize {
        match &self.values {
            Values::Counts(_) => 8,
            Values::Integers(..) | Values::Floats(..) => 9,
            Values::Plain(_) => size_of::<Option<Value>>(),
            Values::Lists(_) => size_of::<Option<Vec<Option<Value>>>>(),
        }
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        let of = |v: &Option<Value>| v.as_ref().map_or(0, Value::size);
        match &self.values {
            Values::Counts(v) => v.capacity() * 8,
            Values::Integers(v, _) => v.capacity() * 9,
            Values::Floats(v, _) => v.capacity() * 9,
            Values::Plain(v) => v.capacity() * size_of::<Option<Value>>() + v.iter().map(of).sum::<usize>(),
            Values::Lists(v) => {
                let list = |l: &Vec<Option<Value>>| l.len() * size_of::<Option<Value>>() + l.iter().map(of).sum::<usize>();
                v.capacity() * size_of::<Option<Vec<Option<Value>>>>() + v.iter().flatten().map(list).sum::<usize>()
            }
        }
    }

    pub fn finish(self) -> Result<ArrayRef> {
        Ok(match self.values {
            Values::Counts(values) => Arc::new(Int64Array::from(values)),
            Values::Integers(values, valid) => Arc::new(Int64Array::new(values.into(), Some(NullBuffer::from(valid)))),
            Values::Floats(values, valid) => Arc::new(Float64Array::new(values.into(), Some(NullBuffer::from(valid)))),
            Values::Plain(values) => array(values.into_iter(), &self.t)?,
            Values::Lists(lists) => {
                let DataType::List(element) = &self.t else { return Err(Error::internal("a list is of another type")) };
                let offsets = OffsetBuffer::from_lengths(lists.iter().map(|l| l.as_ref().map_or(0, Vec::len)));
                let valid = NullBuffer::from_iter(lists.iter().map(Option::is_some));
                let flat: Vec<Option<Value>> = lists.into_iter().flatten().flatten().collect();
                Arc::new(ListArray::try_new(Arc::clone(element), offsets, array(flat.into_iter(), element.data_type())?, Some(valid))?)
            }
        })
    }
}
