//! Functions of elements (`list_transform(l, x -> x + 1)`) in physical plans.
//!
//! DataFusion 55 gives the parameters of such a function the places behind the columns of the input, and forgets them
//! where a later rule gives the expression an input of another width: a parameter is then taken for a column, and a
//! column of its name and type would be read in its stead. Here, before any rule moves an expression, parameters get
//! places that no input reaches; their order stays, and that is all the evaluation goes by.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::expressions::LambdaVariable;
use datafusion::physical_expr::{HigherOrderFunctionExpr, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::sorts::sort::SortExec;

use crate::error::Error;

/// More than any input has columns.
const BEHIND: usize = 1 << 24;

/// The physical optimizer rule. Run it before all others.
#[derive(Debug, Default)]
pub struct PlaceParameters;

impl PhysicalOptimizerRule for PlaceParameters {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            if !has_functions(&plan)? {
                return Ok(Transformed::no(plan));
            }
            if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
                let place = |e: &ProjectionExpr| Ok(ProjectionExpr { expr: placed(&e.expr)?, alias: e.alias.clone() });
                let exprs = projection.expr().iter().map(place).collect::<Result<Vec<_>>>()?;
                return Ok(Transformed::yes(Arc::new(ProjectionExec::try_new(exprs, Arc::clone(projection.input()))?)));
            }
            if let Some(filter) = plan.downcast_ref::<FilterExec>() {
                let predicate = placed(filter.predicate())?;
                return Ok(Transformed::yes(Arc::new(FilterExecBuilder::from(filter).with_predicate(predicate).build()?)));
            }
            if let Some(sort) = plan.downcast_ref::<SortExec>() {
                let place = |e: &PhysicalSortExpr| Ok(PhysicalSortExpr { expr: placed(&e.expr)?, options: e.options });
                let Some(order) = LexOrdering::new(sort.expr().iter().map(place).collect::<Result<Vec<_>>>()?) else {
                    return Ok(Transformed::no(plan));
                };
                let new = SortExec::new(order, Arc::clone(sort.input()))
                    .with_fetch(sort.fetch())
                    .with_preserve_partitioning(sort.preserve_partitioning());
                return Ok(Transformed::yes(Arc::new(new)));
            }
            // in other nodes they stay where they are: `CheckParameters` looks whether that holds
            Ok(Transformed::no(plan))
        })
        .data()
    }

    fn name(&self) -> &str {
        "place_parameters"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Refuses a plan in which a parameter would be taken for a column. Run it behind all rules that move expressions.
#[derive(Debug, Default)]
pub struct CheckParameters;

impl PhysicalOptimizerRule for CheckParameters {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.apply(|plan| {
            // the filter of a join has columns of its own, which no rule changes
            let width = match plan.children().as_slice() {
                [input] => input.schema().fields().len(),
                _ => 0,
            };
            let mut taken = false;
            plan.apply_expressions(&mut |e| {
                taken |= e.exists(|e| Ok(e.downcast_ref::<LambdaVariable>().is_some_and(|v| v.index() < width)))?;
                Ok(if taken { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })?;
            match taken {
                true => Err(Error::invalid("a function of elements (x -> …) cannot be computed in this place")
                    .with_hint("compute it in a subquery first: SELECT … FROM (SELECT list_transform(l, x -> …) AS made, … FROM …)")
                    .into()),
                false => Ok(TreeNodeRecursion::Continue),
            }
        })?;
        Ok(plan)
    }

    fn name(&self) -> &str {
        "check_parameters"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether an expression of a node itself calls one.
fn has_functions(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(&mut |e| {
        found |= e.exists(|e| Ok(e.downcast_ref::<HigherOrderFunctionExpr>().is_some()))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn placed(e: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    Arc::clone(e)
        .transform_up(|e| {
            Ok(match e.downcast_ref::<LambdaVariable>() {
                Some(v) if v.index() < BEHIND => {
                    Transformed::yes(Arc::new(LambdaVariable::new(v.index() + BEHIND, Arc::clone(v.field()))) as Arc<dyn PhysicalExpr>)
                }
                _ => Transformed::no(e),
            })
        })
        .data()
}
