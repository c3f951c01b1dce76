//! `(a, b) IN (SELECT …)`: joins compare one column, so it becomes EXISTS, and NOT IN several NOT EXISTS.
//!
//! A comparison with NULL is neither true nor false, and a WHERE keeps the rows for which it is true. So IN may be
//! replaced by what is true where it is true, and NOT IN by what is true where no row of the query is equal, and none may be.

use std::ops::ControlFlow;

use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{BinaryOperator, Expr, Ident, Query, Select, SetExpr, Spanned, TableFactor, UnaryOperator, Visit, Visitor};

use super::Functions;
use super::aliases::volatile_in;
use crate::error::{Error, Result, Span};

/// Columns of a row in NOT IN: each doubles the number of queries.
const MOST: usize = 3;

type PlanQuery<'a> = &'a dyn Fn(Query) -> Result<LogicalPlan>;

/// Rewrites the WHERE of a SELECT, and refuses rows in IN anywhere else.
pub fn rewrite(s: &mut Select, functions: &Functions<'_>, plan: PlanQuery<'_>) -> Result<()> {
    if let Some(e) = &mut s.selection {
        condition(e, true, functions, plan)?;
    }
    // whose FROM is looked through by itself
    refuse(s)
}

/// Refuses what is left of rows in IN, outside of subqueries.
pub fn refuse(part: &impl Visit) -> Result<()> {
    struct Find(usize);
    impl Visitor for Find {
        type Break = Error;
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
            self.0 += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
            self.0 -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, e: &Expr) -> ControlFlow<Error> {
            match e {
                Expr::InSubquery { expr, .. } if self.0 == 0 && matches!(bare(expr), Expr::Tuple(_)) => {
                    ControlFlow::Break(misplaced().or_span(Span::from_sql(expr.span())))
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match part.visit(&mut Find(0)) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn misplaced() -> Error {
    Error::invalid("a row in IN (SELECT …) can stand in WHERE only, by itself or with AND, OR and NOT").with_hint(
        "as a column: LEFT JOIN (SELECT DISTINCT a, b, true AS found FROM …) AS s ON s.a = t.a AND s.b = t.b, then s.found IS NOT NULL",
    )
}

fn bare(e: &Expr) -> &Expr {
    match e {
        Expr::Nested(e) => bare(e),
        other => other,
    }
}

/// Rewrites a condition. `kept`: whether it counts where it is true (else it stands under NOT: where it is false).
fn condition(e: &mut Expr, kept: bool, functions: &Functions<'_>, plan: PlanQuery<'_>) -> Result<()> {
    match e {
        Expr::Nested(inner) => condition(inner, kept, functions, plan),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => condition(expr, !kept, functions, plan),
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            condition(left, kept, functions, plan)?;
            condition(right, kept, functions, plan)
        }
        Expr::InSubquery { expr, subquery, negated } => {
            let Expr::Tuple(row) = bare(expr) else { return Ok(()) };
            let set = Set { row: row.clone(), query: subquery.as_ref().clone(), place: Span::from_sql(expr.span()) };
            let lacks = *negated == kept;
            set.check(lacks, functions, plan)?;
            let new = match lacks {
                true => set.lacks(),
                false => set.has(),
            };
            // true where the other one is true is false where this one is false
            *e = if kept { new? } else { not(new?) };
            Ok(())
        }
        _ => Ok(()),
    }
}

struct Set {
    row: Vec<Expr>,
    query: Query,
    place: Option<Span>,
}

fn not(e: Expr) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(e))) }
}

fn joined(op: BinaryOperator, parts: impl IntoIterator<Item = Expr>) -> Expr {
    let parts = parts.into_iter().reduce(|l, r| Expr::BinaryOp { left: Box::new(l), op: op.clone(), right: Box::new(r) });
    Expr::Nested(Box::new(parts.unwrap_or_else(|| Expr::value(sqlparser::ast::Value::Boolean(true)))))
}

fn is_null(e: &Expr) -> Expr {
    Expr::IsNull(Box::new(Expr::Nested(Box::new(e.clone()))))
}

fn column(i: usize) -> Expr {
    Expr::Identifier(Ident::with_quote('"', format!("_remige_{i}")))
}

impl Set {
    fn check(&self, lacks: bool, functions: &Functions<'_>, plan: PlanQuery<'_>) -> Result<()> {
        let shown = |e: &Expr| e.to_string();
        let row = self.row.iter().map(shown).collect::<Vec<_>>().join(", ");
        let alike = |i: usize, e: &Expr| format!("q.c{} = {}", i + 1, shown(e));
        let exists = format!(
            "{}EXISTS (SELECT 1 FROM … AS q WHERE {})",
            if lacks { "NOT " } else { "" },
            self.row.iter().enumerate().map(|(i, e)| alike(i, e)).collect::<Vec<_>>().join(" AND ")
        );
        let columns = match plan(self.query.clone()) {
            Ok(plan) => plan.schema().fields().len(),
            Err(e) => {
                let e = e.context(format!("the query of ({row}) IN (…), which is planned by itself")).or_span(self.place);
                return Err(e.with_hint(format!("where it reads the row around it, write {exists}")));
            }
        };
        if columns != self.row.len() {
            return Err(Error::invalid(format!("({row}) has {} columns, and the query of IN has {columns}", self.row.len()))
                .or_span(self.place)
                .with_hint("name as many columns in the query as there are in the row"));
        }
        let twice = |what: &str| {
            Error::invalid(format!("({row}) IN (SELECT …) would compute {what}() several times, each time to another value"))
                .or_span(self.place)
                .with_hint("compute it in a query inside of FROM, and compare its column")
        };
        if let Some(name) = self.row.iter().find_map(|e| volatile_in(e, functions)) {
            return Err(twice(&name));
        }
        if lacks {
            if let Some(name) = volatile_in(&self.query, functions) {
                return Err(twice(&name));
            }
            if self.row.len() > MOST {
                return Err(Error::not_built(format!("NOT IN (SELECT …) for rows of more than {MOST} columns"))
                    .or_span(self.place)
                    .with_hint(format!("where no value is NULL, {exists} says the same")));
            }
        }
        Ok(())
    }

    /// `EXISTS (SELECT 1 FROM (query) WHERE condition)`
    fn exists(&self, condition: Expr) -> Result<Expr> {
        let names = (0..self.row.len()).map(|i| format!("\"_remige_{i}\"")).collect::<Vec<_>>().join(", ");
        let mut q = crate::sql::parse::query(&format!("SELECT 1 FROM (SELECT 1) AS \"_remige_rows\" ({names})"))?;
        self.fill(&mut q, Some(condition))?;
        Ok(Expr::Exists { subquery: Box::new(q), negated: false })
    }

    fn fill(&self, q: &mut Query, condition: Option<Expr>) -> Result<()> {
        let SetExpr::Select(s) = q.body.as_mut() else { return Err(Error::internal("a SELECT was read as something else")) };
        s.selection = condition;
        match s.from.first_mut().map(|t| &mut t.relation) {
            Some(TableFactor::Derived { subquery, .. }) => **subquery = self.query.clone(),
            _ => return Err(Error::internal("a FROM was read as something else")),
        }
        Ok(())
    }

    fn equal(&self, i: usize) -> Expr {
        let (left, right) = (Box::new(column(i)), Box::new(Expr::Nested(Box::new(self.row[i].clone()))));
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right }
    }

    /// True where IN is true.
    fn has(&self) -> Result<Expr> {
        self.exists(joined(BinaryOperator::And, (0..self.row.len()).map(|i| self.equal(i))))
    }

    /// True where NOT IN is true: no row of the query is equal, or might be if a NULL were known. One NOT EXISTS for each
    /// set of columns that may be NULL in the row, so that most of them compare columns and are quick.
    fn lacks(&self) -> Result<Expr> {
        let n = self.row.len();
        let all = 0..n;
        let mut parts = vec![not(self.has()?)];
        let nulls = joined(BinaryOperator::Or, all.clone().map(|i| is_null(&column(i))));
        let maybe = all.clone().map(|i| joined(BinaryOperator::Or, [self.equal(i), is_null(&column(i)), is_null(&self.row[i])]));
        parts.push(not(self.exists(joined(BinaryOperator::And, std::iter::once(nulls).chain(maybe)))?));
        for unknown in 1..(1usize << n) - 1 {
            let given = |i: usize| if unknown & (1 << i) == 0 { self.equal(i) } else { is_null(&self.row[i]) };
            parts.push(not(self.exists(joined(BinaryOperator::And, all.clone().map(given)))?));
        }
        let mut any = crate::sql::parse::query("SELECT count(*) > 0 FROM (SELECT 1) AS \"_remige_rows\"")?;
        self.fill(&mut any, None)?;
        let nothing = all.map(|i| is_null(&self.row[i])).chain([Expr::Subquery(Box::new(any))]);
        parts.push(not(joined(BinaryOperator::And, nothing)));
        Ok(joined(BinaryOperator::And, parts))
    }
}
