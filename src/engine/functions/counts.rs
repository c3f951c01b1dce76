//! `mode(x)` and `histogram(x)`: how often each value comes. NULLs do not count.

use std::collections::HashMap;
use std::mem::size_of_val;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, MapArray, StructArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use datafusion::common::{Result as DfResult, ScalarValue, not_impl_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

/// The functions of this file.
pub fn functions() -> Vec<Arc<AggregateUDF>> {
    [Answer::Mode, Answer::Histogram].map(|a| Arc::new(AggregateUDF::new_from_impl(Counting::new(a)))).into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    /// The value that comes most often; of several, the least.
    Mode,
    /// A map from each value, in order, to its count.
    Histogram,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Counting {
    answer: Answer,
    signature: Signature,
}

impl Counting {
    fn new(answer: Answer) -> Self {
        Counting { answer, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Counting {
    fn name(&self) -> &str {
        match self.answer {
            Answer::Mode => "mode",
            Answer::Histogram => "histogram",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [t] if t.is_nested() => plan_err!("{} counts plain values, not {t}: CAST(… AS VARCHAR) first", self.name()),
            [DataType::Dictionary(_, v)] => Ok(vec![v.as_ref().clone()]),
            [t] => Ok(vec![t.clone()]),
            _ => plan_err!("{} wants one argument", self.name()),
        }
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let [t] = types else { return plan_err!("{} wants one argument", self.name()) };
        Ok(match self.answer {
            Answer::Mode => t.clone(),
            Answer::Histogram => DataType::Map(entries(t), false),
        })
    }
    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        if args.is_distinct {
            return not_impl_err!("DISTINCT of {} is not supported: every value would come once", self.name());
        }
        let Some(field) = args.expr_fields.first() else { return plan_err!("{} wants one argument", self.name()) };
        Ok(Box::new(Counts { answer: self.answer, of: field.data_type().clone(), counts: HashMap::new(), bytes: 0 }))
    }
    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        let Some(field) = args.input_fields.first() else { return plan_err!("{} wants one argument", self.name()) };
        let list = |name: &str, t: DataType| Arc::new(Field::new_list(name, Field::new_list_field(t, true), true));
        Ok(vec![list("values", field.data_type().clone()), list("counts", DataType::Int64)])
    }
}

fn entries(t: &DataType) -> FieldRef {
    let fields = Fields::from(vec![Field::new("key", t.clone(), false), Field::new("value", DataType::Int64, true)]);
    Arc::new(Field::new("entries", DataType::Struct(fields), false))
}

#[derive(Debug)]
struct Counts {
    answer: Answer,
    of: DataType,
    counts: HashMap<ScalarValue, i64>,
    /// What the values take beside the table.
    bytes: usize,
}

impl Counts {
    fn add(&mut self, value: ScalarValue, count: i64) {
        if value.is_null() {
            return;
        }
        // 0 and -0 are one value, and so are all NaN
        let value = match value {
            ScalarValue::Float64(Some(v)) => ScalarValue::Float64(Some(if v.is_nan() { f64::NAN } else { v + 0.0 })),
            ScalarValue::Float32(Some(v)) => ScalarValue::Float32(Some(if v.is_nan() { f32::NAN } else { v + 0.0 })),
            other => other,
        };
        match self.counts.get_mut(&value) {
            Some(n) => *n += count,
            None => {
                self.bytes += value.size() - size_of_val(&value);
                self.counts.insert(value, count);
            }
        }
    }

    /// The values in their order, with their counts.
    fn sorted(&self) -> Vec<(&ScalarValue, i64)> {
        let mut all: Vec<(&ScalarValue, i64)> = self.counts.iter().map(|(v, n)| (v, *n)).collect();
        all.sort_by(|(a, _), (b, _)| order(a, b));
        all
    }

    fn arrays(&self) -> DfResult<(ArrayRef, ArrayRef)> {
        let sorted = self.sorted();
        let counts: Int64Array = sorted.iter().map(|(_, n)| Some(*n)).collect();
        let values = match sorted.is_empty() {
            true => datafusion::arrow::array::new_empty_array(&self.of),
            false => ScalarValue::iter_to_array(sorted.into_iter().map(|(v, _)| v.clone()))?,
        };
        Ok((values, Arc::new(counts)))
    }
}

fn order(a: &ScalarValue, b: &ScalarValue) -> std::cmp::Ordering {
    match (a, b) {
        (ScalarValue::Float64(Some(a)), ScalarValue::Float64(Some(b))) => a.total_cmp(b),
        (ScalarValue::Float32(Some(a)), ScalarValue::Float32(Some(b))) => a.total_cmp(b),
        (a, b) => a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal),
    }
}

impl Accumulator for Counts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let Some(array) = values.first() else { return Ok(()) };
        for row in 0..array.len() {
            if array.is_valid(row) {
                let value = ScalarValue::try_from_array(array, row)?;
                self.add(value, 1);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        let [values, counts] = states else { return plan_err!("a state of counts has two lists") };
        let (values, counts) = (values.as_list::<i32>(), counts.as_list::<i32>());
        for row in 0..values.len() {
            if values.is_null(row) {
                continue;
            }
            let (values, counts) = (values.value(row), counts.value(row));
            let counts = counts.as_primitive::<Int64Type>();
            for i in 0..values.len() {
                self.add(ScalarValue::try_from_array(&values, i)?, counts.value(i));
            }
        }
        Ok(())
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let (values, counts) = self.arrays()?;
        let list = |array: ArrayRef| {
            ScalarValue::List(Arc::new(datafusion::common::utils::SingleRowListArrayBuilder::new(array).build_list_array()))
        };
        Ok(vec![list(values), list(counts)])
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        match self.answer {
            Answer::Mode => {
                // the first of the greatest: `max_by_key` would take the last
                let best = self.sorted().into_iter().rev().max_by_key(|(_, n)| *n);
                best.map_or_else(|| ScalarValue::try_from(&self.of), |(v, _)| Ok(v.clone()))
            }
            Answer::Histogram => {
                let (keys, counts) = self.arrays()?;
                let entries = entries(&self.of);
                let DataType::Struct(fields) = entries.data_type().clone() else { return plan_err!("entries of a map are no struct") };
                let length = keys.len();
                let made = StructArray::new(fields, vec![keys, counts], None);
                let valid = (length == 0).then(|| vec![false].into());
                let map = MapArray::try_new(entries, OffsetBuffer::from_lengths([length]), made, valid, false)?;
                Ok(ScalarValue::Map(Arc::new(map)))
            }
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes + self.counts.capacity() * (size_of::<(ScalarValue, i64)>() + 1)
    }
}
