//! What a query says in a form that the planner does not know, in one that it knows: the wildcards of feature joins,
//! names that a SELECT gives and uses itself (`aliases`), rows in IN (`row_in`), ORDER BY ALL (`order_all`), PIVOT and
//! UNPIVOT (`pivot`).
//!
//! Each needs the columns of a FROM, so it comes after the queries inside of that FROM, and before the subqueries of its
//! expressions, which may read its columns.

mod aliases;
mod order_all;
mod pivot;
mod row_in;

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::rc::Rc;

use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    Cte, Expr, JoinConstraint, JoinOperator, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, VisitMut, VisitorMut, With,
};

use super::wildcard;
use crate::error::Result;
use crate::sql::clauses::Kind;
use crate::sql::titles;
use crate::sql::tokens::fold_ident;

type PlanQuery<'a> = &'a dyn Fn(Query) -> Result<LogicalPlan>;

/// What is known of functions by their names.
pub struct Functions<'a> {
    pub kind: &'a dyn Fn(&str) -> Kind,
    pub is_volatile: &'a dyn Fn(&str) -> bool,
}

/// Rewrites a query and all queries inside. `plan` plans a query whose tables are loaded.
pub fn apply(query: &mut Query, plan: PlanQuery<'_>, functions: &Functions<'_>) -> Result<()> {
    let blank = crate::sql::parse::query("SELECT 1")?;
    let plan = |mut q: Query| {
        titles::tell_apart(&mut q);
        plan(q)
    };
    Walk { plan: &plan, functions, blank, withs: vec![], around: vec![] }.query(query)
}

struct Walk<'a> {
    plan: PlanQuery<'a>,
    functions: &'a Functions<'a>,
    /// Stands in the place of a query that has been seen.
    blank: Query,
    /// WITH clauses around the query at hand, outermost first: what they have named up to here.
    withs: Vec<Named>,
    /// The FROMs that a subquery's expressions may read, outermost first.
    around: Vec<Around>,
}

#[derive(Clone, Default)]
struct Named {
    recursive: bool,
    queries: Vec<Rc<Cte>>,
}

/// A FROM, and the names of its columns once somebody asks.
struct Around {
    from: Rc<Vec<TableWithJoins>>,
    withs: Vec<Named>,
    names: OnceCell<Option<Vec<String>>>,
}

impl Around {
    /// `None`: it cannot be planned by itself.
    fn names(&self, plan: PlanQuery<'_>, blank: &Query) -> &Option<Vec<String>> {
        self.names.get_or_init(|| {
            if self.from.is_empty() {
                return Some(vec![]);
            }
            let plan = starred(&self.from, with(&self.withs, None), plan, blank).ok()?;
            Some(plan.schema().fields().iter().map(|f| f.name().clone()).collect())
        })
    }
}

/// Plans `SELECT * FROM from`.
fn starred(from: &[TableWithJoins], with: Option<With>, plan: PlanQuery<'_>, blank: &Query) -> Result<LogicalPlan> {
    let mut q = blank.clone();
    if let SetExpr::Select(s) = q.body.as_mut() {
        s.from = from.to_vec();
        s.projection = vec![SelectItem::Wildcard(Default::default())];
    }
    q.with = with;
    plan(q)
}

/// One WITH of all that are around a query, and its own. The inner one hides the outer one of its name.
fn with(around: &[Named], own: Option<&With>) -> Option<With> {
    let mut all: Vec<&Cte> = vec![];
    let own_queries = own.map(|w| w.cte_tables.iter().collect());
    for inner in around.iter().map(|n| n.queries.iter().map(|q| &**q).collect::<Vec<_>>()).chain(own_queries) {
        let names: HashSet<String> = inner.iter().map(|c| fold_ident(&c.alias.name)).collect();
        all.retain(|c| !names.contains(&fold_ident(&c.alias.name)));
        all.extend(inner);
    }
    let recursive = around.iter().any(|n| n.recursive) || own.is_some_and(|w| w.recursive);
    (!all.is_empty()).then(|| With { with_token: AttachedToken::empty(), recursive, cte_tables: all.into_iter().cloned().collect() })
}

impl Walk<'_> {
    fn query(&mut self, q: &mut Query) -> Result<()> {
        self.withs.push(Named::default());
        let out = self.inside(q);
        self.withs.pop();
        out
    }

    fn inside(&mut self, q: &mut Query) -> Result<()> {
        if let Some(with) = &mut q.with {
            // a recursive query may name itself: its columns are those of its first part
            let all = with.cte_tables.iter().filter(|_| with.recursive).map(|c| Rc::new(first_part(c))).collect();
            self.name(Named { recursive: with.recursive, queries: all });
            for (i, cte) in with.cte_tables.iter_mut().enumerate() {
                self.query(&mut cte.query)?;
                if let Some(named) = self.withs.last_mut() {
                    match named.queries.get_mut(i) {
                        Some(seen) => *seen = Rc::new(cte.clone()),
                        None => named.queries.push(Rc::new(cte.clone())),
                    }
                }
            }
        }
        self.body(&mut q.body)?;
        order_all::expand(q, |q| self.planned(q))
    }

    fn name(&mut self, named: Named) {
        if let Some(last) = self.withs.last_mut() {
            *last = named;
        }
    }

    /// The plan of a query that stands here.
    fn planned(&self, mut q: Query) -> Result<LogicalPlan> {
        q.with = with(&self.withs, q.with.as_ref());
        (self.plan)(q)
    }

    fn body(&mut self, body: &mut SetExpr) -> Result<()> {
        match body {
            SetExpr::Select(s) => self.select(s),
            SetExpr::Query(q) => self.query(q),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left)?;
                self.body(right)
            }
            SetExpr::Values(v) => v.rows.iter_mut().flat_map(|r| r.iter_mut()).try_for_each(|e| self.subqueries(e)),
            _ => Ok(()),
        }
    }

    fn select(&mut self, s: &mut Select) -> Result<()> {
        for t in &mut s.from {
            self.relation(t)?;
        }
        wildcard::expand(s, &|from| starred(from, with(&self.withs, None), self.plan, &self.blank))?;
        let from = Rc::new(std::mem::take(&mut s.from));
        let out = self.expressions(s, Rc::clone(&from));
        s.from = Rc::unwrap_or_clone(from);
        out
    }

    /// What a SELECT has beside its FROM.
    fn expressions(&mut self, s: &mut Select, from: Rc<Vec<TableWithJoins>>) -> Result<()> {
        let own = Around { from, withs: self.withs.clone(), names: OnceCell::new() };
        let is_column = |name: &str| {
            let all = std::iter::once(&own).chain(&self.around);
            // where a FROM is not known, any name may be one of its columns
            all.map(|a| a.names(self.plan, &self.blank)).any(|names| names.as_ref().is_none_or(|n| n.iter().any(|n| n == name)))
        };
        aliases::resolve(s, &is_column, self.functions)?;
        row_in::rewrite(s, self.functions, &|q| self.planned(q))?;
        self.around.push(own);
        let out = self.subqueries(s);
        self.around.pop();
        out
    }

    fn relation(&mut self, t: &mut TableWithJoins) -> Result<()> {
        self.factor(&mut t.relation)?;
        for join in &mut t.joins {
            self.factor(&mut join.relation)?;
            if let Some(on) = condition(&mut join.join_operator) {
                row_in::refuse(on)?;
                self.subqueries(on)?;
            }
        }
        Ok(())
    }

    fn factor(&mut self, f: &mut TableFactor) -> Result<()> {
        match f {
            TableFactor::Derived { lateral, subquery, .. } => {
                // it may read the tables beside it: of those nobody can tell here
                let beside = lateral.then(|| Around { from: Rc::default(), withs: vec![], names: OnceCell::from(None) });
                let depth = self.around.len();
                self.around.extend(beside);
                let out = self.query(subquery);
                self.around.truncate(depth);
                out
            }
            TableFactor::NestedJoin { table_with_joins, .. } => self.relation(table_with_joins),
            TableFactor::Pivot { table, .. } | TableFactor::Unpivot { table, .. } => {
                self.factor(table)?;
                let from = [TableWithJoins { relation: (**table).clone(), joins: vec![] }];
                let read = starred(&from, with(&self.withs, None), self.plan, &self.blank)?;
                let columns: Vec<String> = read.schema().fields().iter().map(|f| f.name().clone()).collect();
                *f = pivot::query_of(f, &columns, &self.blank)?;
                self.factor(f)
            }
            // `ONLINE_LOOKUP('s', (SELECT …))` and its like
            other => self.subqueries(other),
        }
    }

    /// The queries inside of expressions.
    fn subqueries(&mut self, part: &mut impl VisitMut) -> Result<()> {
        struct Each<'w, 'a> {
            walk: &'w mut Walk<'a>,
            done: Vec<Query>,
        }
        impl VisitorMut for Each<'_, '_> {
            type Break = crate::error::Error;
            fn pre_visit_query(&mut self, q: &mut Query) -> ControlFlow<Self::Break> {
                if let Err(e) = self.walk.query(q) {
                    return ControlFlow::Break(e);
                }
                // what is inside has been seen
                self.done.push(std::mem::replace(q, self.walk.blank.clone()));
                ControlFlow::Continue(())
            }
            fn post_visit_query(&mut self, q: &mut Query) -> ControlFlow<Self::Break> {
                if let Some(done) = self.done.pop() {
                    *q = done;
                }
                ControlFlow::Continue(())
            }
        }
        match part.visit(&mut Each { walk: self, done: vec![] }) {
            ControlFlow::Break(e) => Err(e),
            ControlFlow::Continue(()) => Ok(()),
        }
    }
}

fn first_part(c: &Cte) -> Cte {
    let mut first = c.clone();
    if let SetExpr::SetOperation { left, .. } = first.query.body.as_ref() {
        let left = left.clone();
        first.query.body = left;
    }
    first
}

fn condition(join: &mut JoinOperator) -> Option<&mut Expr> {
    let constraint = match join {
        JoinOperator::AsOf { match_condition, .. } => return Some(match_condition),
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c)
        | JoinOperator::LeftSemi(c)
        | JoinOperator::RightSemi(c)
        | JoinOperator::LeftAnti(c)
        | JoinOperator::RightAnti(c) => c,
        _ => return None,
    };
    match constraint {
        JoinConstraint::On(e) => Some(e),
        _ => None,
    }
}
