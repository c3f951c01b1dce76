//! Which rows a DELETE removes: those that a SELECT with the same WHERE finds, known by their `_seq`, or in a plain table
//! by their file and their place in it.
//!
//! The query is planned as any other, and its WHERE is read from the plan before an optimizer has seen it. What
//! is not exactly a WHERE over the table itself is refused.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, LogicalPlanBuilder, SubqueryAlias, TableScan};

use super::command::DeleteTarget;
use super::feature_table::{FeatureTable, SEQ, as_feature_table};
use super::plain_table::{PlainTable, ROW};
use crate::error::{Error, Result};
use crate::model::Name;
use crate::store::offline::Snapshot;

/// What rows are removed from.
#[derive(Debug)]
pub enum Source {
    View(FeatureTable),
    Table(PlainTable),
}

impl Source {
    pub fn name(&self) -> &Name {
        match self {
            Source::View(t) => &t.view.name,
            Source::Table(t) => &t.table.name,
        }
    }

    pub fn snapshot(&self) -> &Snapshot {
        match self {
            Source::View(t) => &t.snapshot,
            Source::Table(t) => &t.snapshot,
        }
    }

    pub fn target(&self) -> DeleteTarget {
        match self {
            Source::View(t) => DeleteTarget::FeatureView(t.view.as_ref().into()),
            Source::Table(t) => DeleteTarget::Table { name: t.table.name.clone(), location: t.table.location.clone() },
        }
    }

    /// The column that names its rows.
    fn number(&self) -> &'static str {
        match self {
            Source::View(_) => SEQ,
            Source::Table(_) => ROW,
        }
    }
}

/// The plan that answers the numbers of the rows that `plan` finds, and what they are in. `plan` is not optimized: a
/// projection of the rows of one feature view, or of the `table` that is given, for which the WHERE, if there
/// `is_chosen` one, is true.
pub fn matching_rows(plan: &LogicalPlan, is_chosen: bool, table: Option<PlainTable>) -> Result<(LogicalPlan, Source)> {
    let LogicalPlan::Projection(top) = plan else { return Err(unclear()) };
    let (filter, rows) = match top.input.as_ref() {
        LogicalPlan::Filter(f) => (Some(f.predicate.clone()), f.input.as_ref()),
        other => (None, other),
    };
    if filter.is_some() != is_chosen {
        return Err(unclear());
    }
    let (rows, source) = with_numbers(rows, table)?;
    let rows = match filter {
        Some(f) => LogicalPlan::Filter(Filter::try_new(f, Arc::new(rows))?),
        None => rows,
    };
    let schema = rows.schema();
    let at = schema.fields().len().checked_sub(1).filter(|i| schema.field(*i).name() == source.number()).ok_or_else(unclear)?;
    let number = Expr::Column(Column::from(schema.qualified_field(at)));
    Ok((LogicalPlanBuilder::from(rows).project(vec![number])?.build()?, source))
}

/// The scan of a table with the numbers of its rows behind its columns; its names stay.
fn with_numbers(plan: &LogicalPlan, table: Option<PlainTable>) -> Result<(LogicalPlan, Source)> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.fetch.is_none() && scan.projection.is_none() => {
            match (as_feature_table(&scan.source), table) {
                (Some(view), None) => Ok((view.full_scan(scan.table_name.clone())?, Source::View(view))),
                (None, Some(table)) if is_scan_of(scan, &table) => {
                    let source = provider_as_source(Arc::clone(&table.numbered));
                    let rows = LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?.build()?;
                    Ok((rows, Source::Table(table)))
                }
                _ => Err(unclear()),
            }
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (input, source) = with_numbers(&alias.input, table)?;
            Ok((LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?), source))
        }
        _ => Err(unclear()),
    }
}

fn is_scan_of(scan: &TableScan, table: &PlainTable) -> bool {
    let (read, numbered) = (scan.source.schema(), table.numbered.schema());
    let name = &table.table.name;
    scan.table_name.table() == name.name
        && scan.table_name.schema().is_none_or(|s| s == name.schema)
        && numbered.fields().split_last().is_some_and(|(_, visible)| *visible == **read.fields())
}

fn unclear() -> Error {
    Error::invalid("DELETE: which rows it means cannot be told; nothing was removed")
        .with_hint("write DELETE FROM view WHERE condition; a subquery in the condition may choose the rows")
}
