//! Aggregate functions over a moving frame. Some stock ones cannot take a row back and refuse such a frame when
//! the statement runs; those read their frame again for each row.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::mem::size_of;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::common::{Result as DfResult, ScalarValue, not_impl_err};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Expr, GroupsAccumulator, Operator, ReversedUDAF, SetMonotonicity,
    Signature, StatisticsArgs,
};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use super::extreme::Extreme;
use super::float_sum::RollingAverage;

/// What is put right in a stock function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mend {
    /// A frame is read again where the function cannot take rows back.
    Frames,
    /// A frame is read again whatever the function can.
    Again,
    /// And its rows come in their order.
    Order,
    /// And averages of floats forget what leaves the frame.
    Averages,
    /// `min` of floats: NaN is greater than all others.
    Least,
    /// `max` of floats, likewise.
    Greatest,
}

/// A stock function with what is put right in it.
#[derive(Debug, Clone)]
pub struct Mended {
    inner: Arc<dyn AggregateUDFImpl>,
    mend: Mend,
    /// Known to be of floats: the planner may keep only the best groups with an order of its own for others.
    of_floats: bool,
}

impl Mended {
    pub fn new(stock: &AggregateUDF, mend: Mend) -> Self {
        Mended { inner: Arc::clone(stock.inner()), mend, of_floats: false }
    }

    /// The same for floats, where it tells them from others.
    pub fn of_floats(&self) -> Option<Self> {
        let other = matches!(self.mend, Mend::Least | Mend::Greatest) && !self.of_floats;
        other.then(|| Mended { of_floats: true, ..self.clone() })
    }

    /// The greatest or least of floats, where this is it.
    fn extreme(&self, args: &AccumulatorArgs) -> Option<Extreme> {
        match self.mend {
            Mend::Least => Extreme::new(args.return_type(), false),
            Mend::Greatest => Extreme::new(args.return_type(), true),
            _ => None,
        }
    }
}

impl PartialEq for Mended {
    fn eq(&self, other: &Self) -> bool {
        self.mend == other.mend && self.of_floats == other.of_floats && self.inner.as_ref().dyn_eq(other.inner.as_ref())
    }
}

impl Eq for Mended {}

impl Hash for Mended {
    fn hash<H: Hasher>(&self, mut state: &mut H) {
        (self.mend, self.of_floats).hash(state);
        self.inner.dyn_hash(&mut state);
    }
}

impl AggregateUDFImpl for Mended {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }
    fn schema_name(&self, params: &AggregateFunctionParams) -> DfResult<String> {
        self.inner.schema_name(params)
    }
    fn human_display(&self, params: &AggregateFunctionParams) -> DfResult<String> {
        self.inner.human_display(params)
    }
    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> DfResult<String> {
        self.inner.window_function_schema_name(params)
    }
    fn display_name(&self, params: &AggregateFunctionParams) -> DfResult<String> {
        self.inner.display_name(params)
    }
    fn window_function_display_name(&self, params: &WindowFunctionParams) -> DfResult<String> {
        self.inner.window_function_display_name(params)
    }
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(types)
    }
    fn return_field(&self, fields: &[FieldRef]) -> DfResult<FieldRef> {
        self.inner.return_field(fields)
    }
    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        match self.extreme(&args) {
            Some(e) => Ok(e.accumulator()),
            None => self.inner.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn GroupsAccumulator>> {
        match self.extreme(&args) {
            Some(e) => Ok(e.groups()),
            None => self.inner.create_groups_accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        if let Some(e) = self.extreme(&args) {
            return Ok(e.sliding());
        }
        let floats = args.expr_fields.first().is_some_and(|f| *f.data_type() == DataType::Float64);
        if self.mend == Mend::Averages && floats && !args.is_distinct {
            return Ok(Box::new(RollingAverage::default()));
        }
        match self.inner.create_sliding_accumulator(args.clone()) {
            Ok(rolling) if rolling.supports_retract_batch() && self.mend != Mend::Again => Ok(rolling),
            _ => Ok(again(Arc::clone(&self.inner), &args)),
        }
    }

    fn with_beneficial_ordering(self: Arc<Self>, beneficial: bool) -> DfResult<Option<Arc<dyn AggregateUDFImpl>>> {
        let (mend, of_floats) = (self.mend, self.of_floats);
        let inner = Arc::clone(&self.inner).with_beneficial_ordering(beneficial)?;
        Ok(inner.map(|inner| Arc::new(Mended { inner, mend, of_floats }) as Arc<dyn AggregateUDFImpl>))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }
    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.inner.simplify()
    }
    fn simplify_expr_op_literal(
        &self,
        function: &AggregateFunction,
        arg: &Expr,
        op: Operator,
        literal: &Expr,
        left: bool,
    ) -> DfResult<Option<Expr>> {
        self.inner.simplify_expr_op_literal(function, arg, op, literal, left)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.inner.reverse_expr() {
            _ if self.mend == Mend::Order => ReversedUDAF::NotSupported,
            ReversedUDAF::Reversed(other) => ReversedUDAF::Reversed(Arc::new(AggregateUDF::new_from_impl(Mended::new(&other, self.mend)))),
            same => same,
        }
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.inner.coerce_types(types)
    }
    fn is_descending(&self) -> Option<bool> {
        if self.of_floats { None } else { self.inner.is_descending() }
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        // the statistics of files leave NaN out
        let floats = matches!(self.mend, Mend::Least | Mend::Greatest) && args.return_type.is_floating();
        if floats { None } else { self.inner.value_from_stats(args) }
    }

    fn default_value(&self, t: &DataType) -> DfResult<ScalarValue> {
        self.inner.default_value(t)
    }
    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }
    fn supports_within_group_clause(&self) -> bool {
        self.inner.supports_within_group_clause()
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
    fn set_monotonicity(&self, t: &DataType) -> SetMonotonicity {
        self.inner.set_monotonicity(t)
    }
}

/// An accumulator that keeps the rows of its frame and reads them again for each answer.
pub fn again(function: Arc<dyn AggregateUDFImpl>, args: &AccumulatorArgs) -> Box<dyn Accumulator> {
    Box::new(Again {
        function,
        schema: Arc::new(args.schema.clone()),
        return_field: Arc::clone(&args.return_field),
        ignore_nulls: args.ignore_nulls,
        order_bys: args.order_bys.to_vec(),
        is_reversed: args.is_reversed,
        name: args.name.to_string(),
        is_distinct: args.is_distinct,
        exprs: args.exprs.to_vec(),
        expr_fields: args.expr_fields.to_vec(),
        frame: VecDeque::new(),
    })
}

#[derive(Debug)]
struct Again {
    function: Arc<dyn AggregateUDFImpl>,
    schema: SchemaRef,
    return_field: FieldRef,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
    /// The arguments of the frame's rows, in pieces, oldest first.
    frame: VecDeque<Vec<ArrayRef>>,
}

impl Again {
    fn fresh(&self) -> DfResult<Box<dyn Accumulator>> {
        self.function.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&self.return_field),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_bys,
            is_reversed: self.is_reversed,
            name: &self.name,
            is_distinct: self.is_distinct,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        })
    }

    /// Many small pieces become one.
    fn whole(&mut self) -> DfResult<Option<&Vec<ArrayRef>>> {
        if self.frame.len() > 1 {
            let width = self.frame.front().map_or(0, Vec::len);
            let column = |i: usize| concat(&self.frame.iter().filter_map(|p| p.get(i).map(AsRef::as_ref)).collect::<Vec<_>>());
            let one = (0..width).map(column).collect::<Result<Vec<_>, _>>()?;
            self.frame = VecDeque::from([one]);
        }
        Ok(self.frame.front())
    }
}

impl Accumulator for Again {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        if values.first().is_some_and(|v| !v.is_empty()) {
            self.frame.push_back(values.to_vec());
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let mut rows = values.first().map_or(0, |v| v.len());
        while rows > 0
            && let Some(oldest) = self.frame.pop_front()
        {
            let len = oldest.first().map_or(0, |v| v.len());
            if len > rows {
                self.frame.push_front(oldest.iter().map(|v| v.slice(rows, len - rows)).collect());
            }
            rows -= rows.min(len);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let mut fresh = self.fresh()?;
        if let Some(frame) = self.whole()? {
            fresh.update_batch(frame)?;
        }
        fresh.evaluate()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        not_impl_err!("{} over a moving frame has no parts", self.name)
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> DfResult<()> {
        not_impl_err!("{} over a moving frame has no parts", self.name)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.frame.iter().flatten().map(|v| v.get_array_memory_size()).sum::<usize>()
    }
}
