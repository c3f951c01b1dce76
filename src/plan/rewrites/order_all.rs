//! `ORDER BY ALL`: by every column of the result, from left to right.

use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{Expr, OrderByExpr, OrderByKind, Query, SelectItem, SetExpr, Value};

use crate::error::{Error, Result};

/// Puts the numbers of the columns in the place of ALL. `plan` plans a query.
pub fn expand(q: &mut Query, plan: impl Fn(Query) -> Result<LogicalPlan>) -> Result<()> {
    let Some(order) = &q.order_by else { return Ok(()) };
    let OrderByKind::All(options) = &order.kind else { return Ok(()) };
    let options = *options;
    let bare = Query { order_by: None, limit_clause: None, fetch: None, ..q.clone() };
    let count = match plan(bare) {
        Ok(plan) => plan.schema().fields().len(),
        // a subquery that reads the row around it cannot be planned by itself
        Err(e) => listed(&q.body).ok_or_else(|| hint(e))?,
    };
    let number = |i: usize| Expr::value(Value::Number(i.to_string(), false));
    let all = (1..=count).map(|i| OrderByExpr { expr: number(i), options, with_fill: None }).collect();
    if let Some(order) = &mut q.order_by {
        order.kind = OrderByKind::Expressions(all);
    }
    Ok(())
}

/// How many columns a SELECT names, where none is a star.
fn listed(body: &SetExpr) -> Option<usize> {
    match body {
        SetExpr::Select(s) => s
            .projection
            .iter()
            .all(|i| matches!(i, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }))
            .then_some(s.projection.len()),
        SetExpr::Query(q) => listed(&q.body),
        SetExpr::SetOperation { left, .. } => listed(left),
        SetExpr::Values(v) => v.rows.first().map(|r| r.len()),
        _ => None,
    }
}

fn hint(e: Error) -> Error {
    e.or_hint("ORDER BY ALL wants the columns of the query first; ORDER BY 1, 2 names them by their places")
}
