//! Which rows a DELETE removes: those that a SELECT with the same WHERE finds, known by their `_seq`.
//!
//! The query is planned as any other, and its WHERE is read from the plan before an optimizer has seen it. What
//! is not exactly a WHERE over the table itself is refused.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, LogicalPlanBuilder, SubqueryAlias};

use super::feature_table::{FeatureTable, SEQ, as_feature_table};
use super::pit_join::join::full_scan;
use crate::error::{Error, Result};

/// The plan that answers the `_seq` of the rows that `plan` finds, and the table that they are in. `plan` is not
/// optimized: a projection of the rows of one feature view, for which the WHERE, if there `is_chosen` one, is true.
pub fn matching_rows(plan: &LogicalPlan, is_chosen: bool) -> Result<(LogicalPlan, FeatureTable)> {
    let LogicalPlan::Projection(top) = plan else { return Err(unclear()) };
    let (filter, rows) = match top.input.as_ref() {
        LogicalPlan::Filter(f) => (Some(f.predicate.clone()), f.input.as_ref()),
        other => (None, other),
    };
    if filter.is_some() != is_chosen {
        return Err(unclear());
    }
    let (rows, table) = with_numbers(rows)?;
    let rows = match filter {
        Some(f) => LogicalPlan::Filter(Filter::try_new(f, Arc::new(rows))?),
        None => rows,
    };
    let schema = rows.schema();
    let at = schema.fields().len().checked_sub(1).filter(|i| schema.field(*i).name() == SEQ).ok_or_else(unclear)?;
    let seq = Expr::Column(Column::from(schema.qualified_field(at)));
    Ok((LogicalPlanBuilder::from(rows).project(vec![seq])?.build()?, table))
}

/// The scan of a feature view with `_seq` behind its columns; its names stay.
fn with_numbers(plan: &LogicalPlan) -> Result<(LogicalPlan, FeatureTable)> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.fetch.is_none() && scan.projection.is_none() => {
            let table = as_feature_table(&scan.source).ok_or_else(unclear)?;
            Ok((full_scan(&table, scan.table_name.clone())?, table))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (input, table) = with_numbers(&alias.input)?;
            Ok((LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?), table))
        }
        _ => Err(unclear()),
    }
}

fn unclear() -> Error {
    Error::invalid("DELETE: which rows it means cannot be told; nothing was removed")
        .with_hint("write DELETE FROM view WHERE condition; a subquery in the condition may choose the rows")
}
