//! Expressions that definitions hold as text, ready to be evaluated.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;

use super::Services;
use crate::error::Result;
use crate::plan::settle;

/// An SQL expression over columns of a schema, as the planner reads it.
pub fn stored_expression(services: &Services, text: &str, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(schema.clone())?;
    let mut parsed = crate::sql::parse::expression(text)?;
    crate::sql::marks::mark_expression(&mut parsed);
    let parsed = sqlparser::ast::ExprWithAlias { expr: parsed, alias: None };
    let base = services.base()?;
    let e: Expr = settle::expression(base.create_logical_expr_from_sql_expr(parsed, &schema)?, &schema)?;
    Ok(base.create_physical_expr(e, &schema)?)
}
