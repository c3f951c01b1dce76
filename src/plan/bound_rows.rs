//! Rows that are bound when a plan runs: what lets one plan of a lookup serve any number of requests.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result as DfResult};
use datafusion::logical_expr::{
    DmlStatement, Expr, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore, Volatility, WriteOp,
};

use super::online_lookup::OnlineLookupNode;
use crate::error::{Error, Result};

/// A leaf with one column per parameter (`$1`, `$2`, …), whose rows come with the execution.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BoundRowsNode {
    schema: DFSchemaRef,
}

impl BoundRowsNode {
    pub fn new(types: &[DataType]) -> Result<Self> {
        Ok(BoundRowsNode { schema: Arc::new(DFSchema::try_from(parameter_schema(types))?) })
    }
}

/// One column per parameter: `$1`, `$2`, ….
pub fn parameter_schema(types: &[DataType]) -> Schema {
    Schema::new(types.iter().enumerate().map(|(i, t)| Field::new(format!("${}", i + 1), t.clone(), true)).collect::<Vec<_>>())
}

impl PartialOrd for BoundRowsNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for BoundRowsNode {
    fn name(&self) -> &str {
        "BoundRows"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "BoundRows: {}", self.schema.field_names().join(", "))
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        if inputs.is_empty() { Ok(self.clone()) } else { Err(Error::internal("bound rows have no input").into()) }
    }
}

/// The same plan over [`BoundRowsNode`], where one run over many bound rows answers what one run per row
/// would, one after another: a lookup whose only row is made of the parameters, with nothing but
/// projections and filters above, and no parameter, subquery or clock anywhere else. `None` for all other plans.
pub fn over_bound_rows(plan: &LogicalPlan, types: &[DataType]) -> Result<Option<LogicalPlan>> {
    rewrite(plan, Bound { types, functions: Volatility::Immutable }, false)
}

/// An INSERT of one row of VALUES over [`BoundRowsNode`], so that many bound rows are one statement, stored whole or
/// not at all, with one `now()`. `None` for all other plans.
pub fn insert_over_bound_rows(plan: &LogicalPlan, types: &[DataType]) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Dml(dml) = plan else { return Ok(None) };
    if !matches!(dml.op, WriteOp::Insert(_)) {
        return Ok(None);
    }
    let Some(input) = rewrite(&dml.input, Bound { types, functions: Volatility::Volatile }, true)? else { return Ok(None) };
    let dml = DmlStatement::new(dml.table_name.clone(), Arc::clone(&dml.target), dml.op.clone(), Arc::new(input));
    Ok(Some(LogicalPlan::Dml(dml)))
}

/// Types of the parameters, and the least steady functions that may be called.
#[derive(Clone, Copy)]
struct Bound<'a> {
    types: &'a [DataType],
    functions: Volatility,
}

fn rewrite(plan: &LogicalPlan, bound: Bound<'_>, below: bool) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) => {
            if below && matches!(plan, LogicalPlan::Filter(_)) || !plan.expressions().iter().all(|e| is_of_the_row(e, bound.functions)) {
                return Ok(None);
            }
            let Some(input) = plan.inputs().first().copied() else { return Ok(None) };
            let Some(input) = rewrite(input, bound, below)? else { return Ok(None) };
            Ok(Some(plan.with_new_exprs(plan.expressions(), vec![input])?))
        }
        LogicalPlan::Extension(e) if !below => {
            let Some(lookup) = e.node.as_any().downcast_ref::<OnlineLookupNode>() else { return Ok(None) };
            let Some(input) = rewrite(&lookup.input, bound, true)? else { return Ok(None) };
            let node = OnlineLookupNode::try_new(input, lookup.items.clone(), lookup.at)?;
            Ok(Some(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
        }
        LogicalPlan::Values(values) if below => {
            let [row] = values.values.as_slice() else { return Ok(None) };
            let leaf = LogicalPlan::Extension(Extension { node: Arc::new(BoundRowsNode::new(bound.types)?) });
            let mut list = vec![];
            for (expr, field) in row.iter().zip(values.schema.fields()) {
                let expr = expr.clone().transform_up(|e| match e {
                    Expr::Placeholder(p) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(p.id)))),
                    other => Ok(Transformed::no(other)),
                })?;
                if !is_of_the_row(&expr.data, bound.functions) {
                    return Ok(None);
                }
                list.push(expr.data.alias(field.name()));
            }
            Ok(Some(LogicalPlanBuilder::from(leaf).project(list)?.build()?))
        }
        _ => Ok(None),
    }
}

/// Whether an expression is decided by the columns of its row alone.
fn is_of_the_row(e: &Expr, functions: Volatility) -> bool {
    let mut own = true;
    let looked = e.apply(|e| {
        own = match e {
            Expr::Placeholder(_) | Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::OuterReferenceColumn(..) => {
                false
            }
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::Unnest(_) => false,
            Expr::ScalarFunction(f) => f.func.signature().volatility <= functions,
            _ => true,
        };
        Ok(if own { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    looked.is_ok() && own
}
