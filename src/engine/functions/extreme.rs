//! `min` and `max` of floats with one order: NaN is greater than all others, -0.0 less than 0.0, whatever the
//! order of the rows. The stock ones over groups take a NaN or leave it, as it comes.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use datafusion::arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{Accumulator, AggregateUDF, EmitTo, Expr, ExprSchemable, GroupsAccumulator, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use super::sliding::Mended;

/// Tells `min` and `max` of floats from others in plans.
#[derive(Debug, Default)]
pub struct FloatExtremes;

impl AnalyzerRule for FloatExtremes {
    fn name(&self) -> &str {
        "float_extremes"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        let told = plan.transform_up_with_subqueries(|node| match &node {
            LogicalPlan::Aggregate(a) => {
                let schema = Arc::clone(a.input.schema());
                node.map_expressions(|e| e.transform_up(|e| Ok(tell(e, &schema))))
            }
            _ => Ok(Transformed::no(node)),
        });
        told.map(|t| t.data)
    }
}

fn tell(e: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::AggregateFunction(mut f) = e else { return Transformed::no(e) };
    let floats = f.params.args.first().and_then(|a| a.get_type(schema).ok()).is_some_and(|t| t.is_floating());
    let inner: &dyn Any = f.func.inner().as_ref();
    match inner.downcast_ref::<Mended>().filter(|_| floats).and_then(Mended::of_floats) {
        Some(told) => {
            f.func = Arc::new(AggregateUDF::new_from_impl(told));
            Transformed::yes(Expr::AggregateFunction(f))
        }
        None => Transformed::no(Expr::AggregateFunction(f)),
    }
}

/// The greatest or the least of floats of one type.
#[derive(Debug, Clone, Copy)]
pub struct Extreme {
    width: Width,
    greatest: bool,
}

#[derive(Debug, Clone, Copy)]
enum Width {
    Half,
    Single,
    Double,
}

macro_rules! of_width {
    ($extreme:expr, $made:ident) => {
        match $extreme.width {
            Width::Half => Box::new($made::<Float16Type>::new($extreme.greatest)),
            Width::Single => Box::new($made::<Float32Type>::new($extreme.greatest)),
            Width::Double => Box::new($made::<Float64Type>::new($extreme.greatest)),
        }
    };
}

impl Extreme {
    /// `None` for what is no float.
    pub fn new(t: &DataType, greatest: bool) -> Option<Self> {
        let width = match t {
            DataType::Float16 => Width::Half,
            DataType::Float32 => Width::Single,
            DataType::Float64 => Width::Double,
            _ => return None,
        };
        Some(Extreme { width, greatest })
    }

    pub fn accumulator(self) -> Box<dyn Accumulator> {
        of_width!(self, One)
    }

    pub fn sliding(self) -> Box<dyn Accumulator> {
        of_width!(self, Rolling)
    }

    pub fn groups(self) -> Box<dyn GroupsAccumulator> {
        of_width!(self, Groups)
    }
}

/// True where `new` takes the place of `old`.
fn beats<N: ArrowNativeTypeOp>(greatest: bool, new: N, old: N) -> bool {
    let nan = |v: N| v.partial_cmp(&v).is_none();
    let order = match (nan(new), nan(old)) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => new.compare(old),
    };
    order == if greatest { Ordering::Greater } else { Ordering::Less }
}

fn take<N: ArrowNativeTypeOp>(greatest: bool, best: &mut Option<N>, new: N) {
    if best.is_none_or(|old| beats(greatest, new, old)) {
        *best = Some(new);
    }
}

trait Floats: ArrowPrimitiveType + std::fmt::Debug {}
impl<T: ArrowPrimitiveType + std::fmt::Debug> Floats for T {}

/// Of all rows.
#[derive(Debug)]
struct One<T: Floats> {
    greatest: bool,
    best: Option<T::Native>,
}

impl<T: Floats> One<T> {
    fn new(greatest: bool) -> Self {
        One { greatest, best: None }
    }
}

impl<T: Floats> Accumulator for One<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        values[0].as_primitive::<T>().iter().flatten().for_each(|v| take(self.greatest, &mut self.best, v));
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.update_batch(states)
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        ScalarValue::new_primitive::<T>(self.best, &T::DATA_TYPE)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

/// Of a moving frame: those that later ones do not beat, oldest and best first.
#[derive(Debug)]
struct Rolling<T: Floats> {
    greatest: bool,
    /// Values with their number.
    left: VecDeque<(u64, T::Native)>,
    came: u64,
    gone: u64,
}

impl<T: Floats> Rolling<T> {
    fn new(greatest: bool) -> Self {
        Rolling { greatest, left: VecDeque::new(), came: 0, gone: 0 }
    }
}

impl<T: Floats> Accumulator for Rolling<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        for v in values[0].as_primitive::<T>().iter().flatten() {
            while self.left.back().is_some_and(|(_, old)| !beats(self.greatest, *old, v)) {
                self.left.pop_back();
            }
            self.left.push_back((self.came, v));
            self.came += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.gone += (values[0].len() - values[0].null_count()) as u64;
        while self.left.front().is_some_and(|(number, _)| *number < self.gone) {
            self.left.pop_front();
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.update_batch(states)
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        ScalarValue::new_primitive::<T>(self.left.front().map(|(_, v)| *v), &T::DATA_TYPE)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.left.capacity() * size_of::<(u64, T::Native)>()
    }
}

/// Of each group.
#[derive(Debug)]
struct Groups<T: Floats> {
    greatest: bool,
    best: Vec<Option<T::Native>>,
}

impl<T: Floats> Groups<T> {
    fn new(greatest: bool) -> Self {
        Groups { greatest, best: vec![] }
    }
}

impl<T: Floats> GroupsAccumulator for Groups<T> {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total: usize) -> DfResult<()> {
        self.best.resize(total, None);
        let kept = |row: usize| filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        for (row, (group, v)) in groups.iter().zip(values[0].as_primitive::<T>()).enumerate() {
            if let Some(v) = v.filter(|_| kept(row)) {
                take(self.greatest, &mut self.best[*group], v);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> DfResult<()> {
        self.update_batch(values, groups, None, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> DfResult<ArrayRef> {
        Ok(Arc::new(emit.take_needed(&mut self.best).into_iter().collect::<PrimitiveArray<T>>()))
    }

    fn state(&mut self, emit: EmitTo) -> DfResult<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit)?])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> DfResult<Vec<ArrayRef>> {
        let kept = |row: usize| filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        let values = values[0].as_primitive::<T>().iter().enumerate().map(|(row, v)| v.filter(|_| kept(row)));
        Ok(vec![Arc::new(values.collect::<PrimitiveArray<T>>())])
    }

    fn size(&self) -> usize {
        self.best.capacity() * size_of::<Option<T::Native>>()
    }
}
