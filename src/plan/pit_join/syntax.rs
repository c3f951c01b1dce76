//! ASOF and ONLINE joins as syntax: each in a nested join of its own, and its clauses.

use std::ops::ControlFlow;

use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use sqlparser::ast::{
    BinaryOperator, Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinOperator, Query, SetExpr, Spanned,
    TableFactor, TableWithJoins, Value, VisitMut, VisitorMut,
};

use crate::error::{Error, Result, Span};
use crate::plan::settle;
use crate::sql::asof::MARKER;

pub fn ends_asof(t: &TableWithJoins) -> bool {
    t.joins.last().is_some_and(is_asof)
}

fn is_asof(join: &Join) -> bool {
    matches!(join.join_operator, JoinOperator::AsOf { .. })
}

pub fn join_span(join: &Join) -> Option<Span> {
    match &join.relation {
        TableFactor::Table { name, .. } => Span::from_sql(name.span()),
        other => Span::from_sql(other.span()),
    }
}

/// Puts every ASOF or ONLINE join of a query into a nested join whose last join it is.
pub fn fold(query: &mut Query) {
    struct Folder;
    impl VisitorMut for Folder {
        type Break = ();
        fn pre_visit_query(&mut self, q: &mut Query) -> ControlFlow<()> {
            fold_body(&mut q.body);
            ControlFlow::Continue(())
        }
        fn pre_visit_table_factor(&mut self, t: &mut TableFactor) -> ControlFlow<()> {
            if let TableFactor::NestedJoin { table_with_joins, .. } = t
                && let [before @ .., _] = &table_with_joins.joins[..]
                && before.iter().any(is_asof)
            {
                fold_joins(table_with_joins);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Folder);
}

fn fold_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(s) => s.from.iter_mut().for_each(fold_joins),
        SetExpr::SetOperation { left, right, .. } => {
            fold_body(left);
            fold_body(right);
        }
        _ => {}
    }
}

fn fold_joins(t: &mut TableWithJoins) {
    let Some(last) = t.joins.iter().rposition(is_asof) else { return };
    let rest = t.joins.split_off(last + 1);
    let asof = t.joins.pop();
    fold_joins(t);
    let relation = t.relation.clone();
    let mut inner = TableWithJoins { relation, joins: std::mem::take(&mut t.joins) };
    inner.joins.extend(asof);
    t.relation = TableFactor::NestedJoin { table_with_joins: Box::new(inner), alias: None };
    t.joins = rest;
}

/// The clauses of one join, as syntax.
pub struct Clauses {
    /// ONLINE JOIN, not ASOF JOIN.
    pub online: bool,
    /// `left`, `inner` or `default`.
    pub kind: String,
    pub matching: Option<SqlExpr>,
    pub on: Option<SqlExpr>,
    pub using: Vec<Ident>,
    pub at: Option<SqlExpr>,
    pub known_by: Option<SqlExpr>,
    pub within: Option<SqlExpr>,
    pub roles: Vec<(Ident, SqlExpr)>,
}

/// Reads what the token pass has put into the marker.
pub fn clauses(join: &Join) -> Result<Clauses> {
    let broken = || Error::internal("a join lost its clauses");
    let JoinOperator::AsOf { match_condition: SqlExpr::Function(f), .. } = &join.join_operator else {
        return Err(broken());
    };
    let (FunctionArguments::List(list), true) = (&f.args, f.name.to_string() == MARKER) else { return Err(broken()) };
    let mut args = list.args.iter().map(|a| match a {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Ok(e.clone()),
        other => Err(Error::syntax(format!("unexpected {other} in a join"))),
    });
    let mut next = || args.next().unwrap_or_else(|| Err(broken()));
    let kind = match next()? {
        SqlExpr::Value(v) => match v.value {
            Value::SingleQuotedString(s) => s,
            _ => return Err(broken()),
        },
        _ => return Err(broken()),
    };
    let (online, kind) = match kind.strip_prefix("online ") {
        Some(kind) => (true, kind.to_string()),
        None => (false, kind),
    };
    let mut optional = || {
        next().map(|e| match e {
            SqlExpr::Value(v) if v.value == Value::Null => None,
            e => Some(e),
        })
    };
    let (matching, on, using) = (optional()?, optional()?, optional()?);
    let (at, known_by, within) = (optional()?, optional()?, optional()?);
    let using = match using {
        None => vec![],
        Some(SqlExpr::Tuple(list)) => list.into_iter().map(identifier).collect::<Result<_>>()?,
        Some(SqlExpr::Nested(e)) => vec![identifier(*e)?],
        Some(e) => vec![identifier(e)?],
    };
    let mut roles = vec![];
    for role in args {
        match role? {
            SqlExpr::BinaryOp { left, op: BinaryOperator::Eq, right } => roles.push((identifier(*left)?, *right)),
            other => {
                return Err(Error::syntax(format!("FOR wants key = column, not {other}")).or_span(Span::from_sql(other.span())));
            }
        }
    }
    Ok(Clauses { online, kind, matching, on, using, at, known_by, within, roles })
}

fn identifier(e: SqlExpr) -> Result<Ident> {
    match e {
        SqlExpr::Identifier(i) => Ok(i),
        other => Err(Error::syntax(format!("expected a column's name, found {other}")).or_span(Span::from_sql(other.span()))),
    }
}

/// What FOR maps: a key or column of the right side, the left expression that stands for it, and its place.
pub type Roles = Vec<(String, Expr, Option<Span>)>;

pub fn roles(c: &Clauses, cx: &mut dyn RelationPlannerContext, left: &LogicalPlan) -> Result<Roles> {
    let mut out: Roles = vec![];
    for (key, e) in &c.roles {
        let name = cx.normalize_ident(key.clone());
        let place = Span::from_sql(key.span);
        if out.iter().any(|(n, ..)| *n == name) {
            return Err(Error::invalid(format!("FOR maps key {name:?} twice")).or_span(place));
        }
        let planned = settle::expression(cx.sql_to_expr(e.clone(), left.schema())?, left.schema())?;
        out.push((name, planned, place));
    }
    Ok(out)
}
