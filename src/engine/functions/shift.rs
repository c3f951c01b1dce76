//! `lead` with IGNORE NULLS: the stock one, asked row by row, loses count of the NULLs between (upstream issue
//! 25471). Asked for a whole partition it is right, so that is what it is asked for.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::function::{ExpressionArgs, PartitionEvaluatorArgs, WindowFunctionSimplification, WindowUDFFieldArgs};
use datafusion::logical_expr::{Documentation, LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF, WindowUDFImpl};
use datafusion::physical_expr::PhysicalExpr;

/// A stock window function that is asked for whole partitions where it ignores NULLs.
#[derive(Debug)]
pub struct WholePartitions(pub Arc<WindowUDF>);

impl PartialEq for WholePartitions {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for WholePartitions {}

impl Hash for WholePartitions {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl WindowUDFImpl for WholePartitions {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }
    fn signature(&self) -> &Signature {
        self.0.signature()
    }
    fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.0.inner().expressions(args)
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> DfResult<Box<dyn PartitionEvaluator>> {
        let whole = args.ignore_nulls();
        let stock = self.0.inner().partition_evaluator(args)?;
        Ok(if whole { Box::new(Whole(stock)) } else { stock })
    }

    fn simplify(&self) -> Option<WindowFunctionSimplification> {
        self.0.simplify()
    }
    fn field(&self, args: WindowUDFFieldArgs) -> DfResult<FieldRef> {
        self.0.inner().field(args)
    }
    fn sort_options(&self) -> Option<SortOptions> {
        self.0.sort_options()
    }
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.0.coerce_types(types)
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        match self.0.reverse_expr() {
            ReversedUDWF::Reversed(other) => ReversedUDWF::Reversed(Arc::new(WindowUDF::new_from_impl(WholePartitions(other)))),
            same => same,
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }
    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.0.inner().limit_effect(args)
    }
}

/// Refuses to be asked row by row.
#[derive(Debug)]
struct Whole(Box<dyn PartitionEvaluator>);

impl PartitionEvaluator for Whole {
    fn memoize(&mut self, state: &mut datafusion::logical_expr::window_state::WindowAggState) -> DfResult<()> {
        self.0.memoize(state)
    }
    fn get_range(&self, idx: usize, rows: usize) -> DfResult<Range<usize>> {
        self.0.get_range(idx, rows)
    }
    fn is_causal(&self) -> bool {
        self.0.is_causal()
    }
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> DfResult<ArrayRef> {
        self.0.evaluate_all(values, rows)
    }
    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> DfResult<ScalarValue> {
        self.0.evaluate(values, range)
    }
    fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> DfResult<ArrayRef> {
        self.0.evaluate_all_with_rank(rows, ranks)
    }
    fn supports_bounded_execution(&self) -> bool {
        false
    }
    fn uses_window_frame(&self) -> bool {
        self.0.uses_window_frame()
    }
    fn include_rank(&self) -> bool {
        self.0.include_rank()
    }
}
