//! `*` and `f.*` over a feature join show the left columns, then the features; keys and timestamps of
//! the views can still be named. The SQL planner has no hidden columns, so they are expanded here. So are the
//! bare names of columns that an ASOF join merges by USING: they mean the left side's.

use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr as SqlExpr, Ident, JoinOperator, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableFactor, TableWithJoins,
    VisitMut, VisitorMut, WildcardAdditionalOptions, With,
};

use super::asof_keys::hidden_columns;
use super::join_syntax::clauses;
use crate::error::{Error, Result};
use crate::sql::rewrite::fold_ident;

/// A query with other names for its columns; none: as it is.
pub fn renamed(plan: LogicalPlan, names: &[String]) -> Result<LogicalPlan> {
    if names.is_empty() {
        return Ok(plan);
    }
    let columns = plan.schema().columns();
    if columns.len() != names.len() {
        return Err(Error::invalid(format!("the list names {} column(s), the query has {}", names.len(), columns.len()))
            .with_hint("name every column of the query, in order"));
    }
    let named = columns.into_iter().zip(names).map(|(c, name)| Expr::Column(c).alias(name)).collect::<Vec<_>>();
    Ok(LogicalPlanBuilder::from(plan).project(named)?.build()?)
}

/// Expands wildcards in every SELECT that joins features. `plan` plans a query whose tables are loaded.
pub fn expand(query: &mut Query, plan: &dyn Fn(Query) -> Result<LogicalPlan>) -> Result<()> {
    let mut v = Expander { plan, scopes: vec![] };
    match query.visit(&mut v) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Expander<'a> {
    plan: &'a dyn Fn(Query) -> Result<LogicalPlan>,
    /// WITH clauses around the query at hand, outermost first.
    scopes: Vec<Option<With>>,
}

impl VisitorMut for Expander<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, q: &mut Query) -> ControlFlow<Error> {
        self.scopes.push(q.with.clone());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, q: &mut Query) -> ControlFlow<Error> {
        if let Some(last) = self.scopes.last_mut() {
            *last = q.with.clone();
        }
        let out = self.body(&mut q.body);
        self.scopes.pop();
        match out {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }
}

impl Expander<'_> {
    fn body(&self, body: &mut SetExpr) -> Result<()> {
        match body {
            SetExpr::Select(s) => self.select(s),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left)?;
                self.body(right)
            }
            _ => Ok(()),
        }
    }

    fn select(&self, s: &mut Select) -> Result<()> {
        if !s.from.iter().any(has_asof) {
            return Ok(());
        }
        let mut merged = vec![];
        s.from.iter().for_each(|t| merged_columns(t, &mut merged));
        let starred = s.projection.iter().any(|i| matches!(i, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
        if !starred && merged.is_empty() {
            return Ok(());
        }
        let Ok(mut all) = self.visible_columns(s) else {
            // the statement itself will fail with a better place
            return Ok(());
        };
        merge(s, &merged, &all);
        let own = all.clone();
        all.retain(|(q, name)| !merged.iter().any(|m| m.name == *name && q.as_ref().is_some_and(|q| q.table() == m.side)));
        let mut out = vec![];
        for item in std::mem::take(&mut s.projection) {
            match item {
                SelectItem::Wildcard(o) if o.opt_replace.is_none() && o.opt_rename.is_none() => {
                    let left_out = left_out(&o);
                    if let Some(i) = left_out.iter().find(|i| !all.iter().any(|(_, n)| *n == fold_ident(i))) {
                        let names: Vec<&str> = all.iter().map(|(_, n)| n.as_str()).collect();
                        return Err(Error::not_found(format!("column {:?} does not exist", fold_ident(i)))
                            .or_span(crate::error::Span::from_sql(i.span))
                            .suggest(&i.value, names.iter().copied())
                            .or_hint(&format!("the columns are {}", names.join(", "))));
                    }
                    let shown: Vec<_> = all.iter().filter(|(_, n)| !left_out.iter().any(|i| fold_ident(i) == *n)).cloned().collect();
                    clash(&shown)?;
                    out.extend(shown.iter().map(column));
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(n), o) => {
                    let name =
                        n.0.last()
                            .and_then(|p| p.as_ident())
                            .map(|i| if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() });
                    let own: Vec<_> = own
                        .iter()
                        .filter(|(q, _)| q.as_ref().is_some_and(|q| Some(q.table()) == name.as_deref() && q.schema().is_none()))
                        .collect();
                    if own.is_empty() {
                        out.push(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(n), o));
                    } else {
                        out.extend(own.into_iter().map(column));
                    }
                }
                other => out.push(other),
            }
        }
        s.projection = out;
        Ok(())
    }

    /// The visible columns of a FROM, in order.
    fn visible_columns(&self, s: &Select) -> Result<Vec<(Option<TableReference>, String)>> {
        let mut q = crate::sql::parse::query("SELECT *")?;
        if let SetExpr::Select(inner) = q.body.as_mut() {
            inner.from = s.from.clone();
            inner.projection = vec![SelectItem::Wildcard(Default::default())];
        }
        let mut tables: Option<With> = None;
        for with in self.scopes.iter().flatten() {
            match &mut tables {
                Some(all) => all.cte_tables.extend(with.cte_tables.clone()),
                None => tables = Some(with.clone()),
            }
        }
        q.with = tables;
        let plan = (self.plan)(q)?;
        let mut hidden = vec![];
        let inner = match &plan {
            LogicalPlan::Projection(p) => p.input.as_ref(),
            other => other,
        };
        hidden_columns(inner, &mut hidden);
        Ok(plan.schema().iter().map(|(q, f)| (q.cloned(), f.name().clone())).filter(|c| !hidden.contains(c)).collect())
    }
}

/// The names behind `* EXCEPT` or `* EXCLUDE`.
fn left_out(o: &WildcardAdditionalOptions) -> Vec<Ident> {
    let mut out: Vec<Ident> = vec![];
    match &o.opt_exclude {
        Some(ExcludeSelectItem::Single(n)) => out.extend(n.0.last().and_then(|p| p.as_ident()).cloned()),
        Some(ExcludeSelectItem::Multiple(all)) => {
            out.extend(all.iter().filter_map(|n| n.0.last().and_then(|p| p.as_ident()).cloned()));
        }
        None => {}
    }
    if let Some(e) = &o.opt_except {
        out.push(e.first_element.clone());
        out.extend(e.additional_elements.iter().cloned());
    }
    out
}

/// A column that USING of an ASOF join merges with the left side's, and the right side's name.
struct Merged {
    name: String,
    side: String,
}

fn merged_columns(t: &TableWithJoins, out: &mut Vec<Merged>) {
    let nested = |f: &TableFactor, out: &mut Vec<Merged>| {
        if let TableFactor::NestedJoin { table_with_joins, .. } = f {
            merged_columns(table_with_joins, out);
        }
    };
    nested(&t.relation, out);
    for join in &t.joins {
        nested(&join.relation, out);
        if !matches!(join.join_operator, JoinOperator::AsOf { .. }) {
            continue;
        }
        let Ok(c) = clauses(join) else { continue };
        if let Some(side) = side_of(&join.relation) {
            out.extend(c.using.iter().map(|i| Merged { name: fold_ident(i), side: side.clone() }));
        }
    }
}

/// What columns of a table are qualified with.
fn side_of(f: &TableFactor) -> Option<String> {
    match f {
        TableFactor::Table { alias: Some(a), .. } | TableFactor::Derived { alias: Some(a), .. } => Some(fold_ident(&a.name)),
        TableFactor::Table { name, .. } => name.0.last().and_then(|p| p.as_ident()).map(fold_ident),
        _ => None,
    }
}

/// Gives bare names of merged columns the qualifier of the left side, outside of subqueries.
fn merge(s: &mut Select, merged: &[Merged], all: &[(Option<TableReference>, String)]) {
    struct Qualify<'a> {
        depth: usize,
        merged: &'a [Merged],
        all: &'a [(Option<TableReference>, String)],
    }
    impl VisitorMut for Qualify<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
        fn post_visit_expr(&mut self, e: &mut SqlExpr) -> ControlFlow<()> {
            if let (0, SqlExpr::Identifier(i)) = (self.depth, &*e) {
                let name = fold_ident(i);
                let left = self.all.iter().find(|(_, n)| *n == name).filter(|_| self.merged.iter().any(|m| m.name == name));
                if let Some((Some(q), _)) = left {
                    let mut parts: Vec<Ident> = q.schema().into_iter().map(|s| Ident::with_quote('"', s)).collect();
                    parts.extend([Ident::with_quote('"', q.table()), i.clone()]);
                    *e = SqlExpr::CompoundIdentifier(parts);
                }
            }
            ControlFlow::Continue(())
        }
    }
    if merged.is_empty() {
        return;
    }
    let from = std::mem::take(&mut s.from);
    let _ = s.visit(&mut Qualify { depth: 0, merged, all });
    s.from = from;
}

fn has_asof(t: &TableWithJoins) -> bool {
    let nested = |f: &TableFactor| matches!(f, TableFactor::NestedJoin { table_with_joins, .. } if has_asof(table_with_joins));
    nested(&t.relation) || t.joins.iter().any(|j| matches!(j.join_operator, JoinOperator::AsOf { .. }) || nested(&j.relation))
}

fn column((q, name): &(Option<TableReference>, String)) -> SelectItem {
    let ident = |s: &str| Ident::with_quote('"', s);
    let mut parts: Vec<Ident> = vec![];
    if let Some(q) = q {
        parts.extend(q.schema().map(ident));
        parts.push(ident(q.table()));
    }
    parts.push(ident(name));
    SelectItem::UnnamedExpr(match parts.len() {
        1 => SqlExpr::Identifier(parts.remove(0)),
        _ => SqlExpr::CompoundIdentifier(parts),
    })
}

fn clash(all: &[(Option<TableReference>, String)]) -> Result<()> {
    for (i, (q, name)) in all.iter().enumerate() {
        if let Some((other, _)) = all[..i].iter().find(|(_, n)| n == name) {
            let side = |q: &Option<TableReference>| q.as_ref().map_or("the left side".to_string(), |q| q.to_string());
            let mut e = Error::invalid(format!("column {name:?} comes from {} and from {}", side(other), side(q)));
            if let Some(q) = q {
                e = e.with_hint(format!("name the columns instead of *, with an alias: {q}.{name} AS {}_{name}", q.table()));
            }
            return Err(e);
        }
    }
    Ok(())
}
