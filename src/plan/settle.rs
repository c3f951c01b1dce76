//! Settles, over the plan that the stock planner has made, what it settles in another way: which numbers with a
//! point are exact (`numbers`), that instants meet at the microsecond (`instants`), and lengths of time as what they are (`lengths`).
//! Names of columns stay.

mod instants;
mod numbers;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, Union};

use super::exact_number::{bare, digits, double};
use super::lengths;

/// Settles a plan. Every plan passes here once, before anything looks at its types.
pub fn plan(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    Ok(node(plan)?.data)
}

/// Settles an expression that is planned by itself.
pub fn expression(e: Expr, schema: &DFSchema) -> DfResult<Expr> {
    Ok(settled(e, schema)?.data)
}

fn node(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    let plan = match plan {
        LogicalPlan::Union(u) => numbers::union(u)?,
        other => other,
    };
    let below = plan.map_children(node)?;
    let within = below.data.map_subqueries(node)?;
    let mut changed = below.transformed || within.transformed;
    let plan = within.data;
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan
        && !scan.filters.is_empty()
    {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    // cells of VALUES have no names
    let names = (!matches!(plan, LogicalPlan::Values(_))).then(|| NamePreserver::new(&plan));
    let done = plan.map_expressions(|e| {
        let name = names.as_ref().map(|n| n.save(&e));
        Ok(settled(e, &schema)?.update_data(|e| match name {
            Some(name) => name.restore(e),
            None => e,
        }))
    })?;
    changed |= done.transformed;
    let plan = match done.data {
        LogicalPlan::Values(v) => return Ok(Transformed::new_transformed(LogicalPlan::Values(instants::values(v)?), changed)),
        LogicalPlan::Union(u) if changed => LogicalPlan::Union(Union { schema: union_schema(&u)?, ..u }),
        other if changed => other.recompute_schema()?,
        other => other,
    };
    Ok(Transformed::new_transformed(plan, changed))
}

/// The names of a union and the types of its first input, as the planner has it.
fn union_schema(u: &Union) -> DfResult<Arc<DFSchema>> {
    let first = Union::try_new_with_loose_types(u.inputs.clone())?.schema;
    match first.fields().len() == u.schema.fields().len() {
        true => Ok(first),
        false => Ok(Arc::clone(&u.schema)),
    }
}

fn settled(e: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    if !instants::concerns(&e, schema)? && !lengths::concerns(&e, schema)? && !marked(&e)? {
        return Ok(Transformed::no(e));
    }
    let met = e.transform_up(|e| {
        let e = instants::meet(e, schema)?;
        let exact = numbers::meet(e.data, schema)?;
        let changed = e.transformed || exact.transformed;
        Ok(match lengths::compared(&exact.data, schema)? {
            Some(compared) => Transformed::yes(compared),
            None => Transformed::new_transformed(exact.data, changed),
        })
    })?;
    let changed = met.transformed;
    let rounded = met.data.transform_down(|e| match numbers::rounded_once(&e, schema)? {
        Some(number) => Ok(Transformed::new(number, true, TreeNodeRecursion::Jump)),
        None => Ok(Transformed::no(e)),
    })?;
    let changed = changed || rounded.transformed;
    let plain = rounded.data.transform_up(|e| match (digits(&e), bare(&e)) {
        (Some(d), _) => Ok(Transformed::yes(double(d)?)),
        (_, Some(value)) => Ok(Transformed::yes(value.clone())),
        _ => Ok(Transformed::no(e)),
    })?;
    let changed = changed || plain.transformed;
    Ok(Transformed::new_transformed(plain.data, changed))
}

fn marked(e: &Expr) -> DfResult<bool> {
    e.exists(|e| Ok(digits(e).is_some() || bare(e).is_some()))
}
