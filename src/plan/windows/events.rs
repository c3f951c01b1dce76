//! The events of a windowed view as a relation.

use datafusion::common::{Column, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::node::windowed;
use crate::error::Result;
use crate::plan::feature_table::{FeatureTable, SEQ};
use crate::plan::names::Names;

/// One row per event: keys, event timestamp, created timestamp, `_seq`, and what the aggregates read. Of a push view the
/// latter is computed from the pushed columns here, and its WHERE leaves out what is no event.
pub fn events(names: &dyn Names, table: &FeatureTable, qualifier: &TableReference) -> Result<LogicalPlan> {
    let scan = table.full_scan(qualifier.clone())?;
    let windowed = windowed(&table.view)?;
    if !windowed.pushed {
        return Ok(scan);
    }
    let expression = |text: &str| names.sql_expression(crate::sql::parse::expression(text)?, scan.schema());
    let mut builder = LogicalPlanBuilder::from(scan.clone());
    if let Some(condition) = &windowed.condition {
        builder = builder.filter(expression(condition)?)?;
    }
    let own = |name: &str| Expr::Column(Column::new(Some(qualifier.clone()), name));
    let mut list: Vec<Expr> = table.view.key_names().into_iter().map(own).collect();
    list.push(own(&table.view.event_timestamp));
    list.extend(table.view.created_timestamp.as_deref().map(own));
    list.push(own(SEQ));
    for c in &windowed.computed {
        list.push(expression(&c.expr)?.alias_qualified(Some(qualifier.clone()), &c.name));
    }
    Ok(builder.project(list)?.build()?)
}
