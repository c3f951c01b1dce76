//! `*` and `f.*` over a feature join show the left columns, then the features; keys and timestamps of
//! the views can still be named. The SQL planner has no hidden columns, so they are expanded here. So are the
//! bare names of columns that an ASOF join merges by USING: they mean the left side's.

use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::{
    ExcludeSelectItem, Expr as SqlExpr, Ident, JoinOperator, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    TableFactor, TableWithJoins, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use super::pit_join::keys::hidden_columns;
use super::pit_join::syntax::clauses;
use crate::error::{Error, Result};
use crate::sql::tokens::fold_ident;

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

/// Expands the wildcards of a SELECT that joins features. `plan` plans `SELECT *` over a FROM whose tables are loaded.
pub fn expand(s: &mut Select, plan: &dyn Fn(&[TableWithJoins]) -> Result<LogicalPlan>) -> Result<()> {
    if !s.from.iter().any(has_asof) {
        return Ok(());
    }
    let mut merged = vec![];
    s.from.iter().for_each(|t| merged_columns(t, &mut merged));
    let starred = s.projection.iter().any(|i| matches!(i, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    if !starred && merged.is_empty() {
        return Ok(());
    }
    let Ok(mut all) = visible_columns(plan(&s.from)) else {
        // the statement itself will fail with a better place
        return Ok(());
    };
    merge(s, &merged, &all);
    let own = all.clone();
    all.retain(|(q, name)| !merged.iter().any(|m| m.name == *name && q.as_ref().is_some_and(|q| q.table() == m.side)));
    let mut out = vec![];
    for item in std::mem::take(&mut s.projection) {
        match item {
            SelectItem::Wildcard(o) => {
                let kept = kept(all.iter().collect(), &o)?;
                clash(&kept)?;
                out.extend(kept.iter().map(|c| replaced(c, &o)));
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(n), o) => {
                let name = n.0.last().and_then(|p| p.as_ident()).map(fold_ident);
                let own: Vec<_> = own
                    .iter()
                    .filter(|(q, _)| q.as_ref().is_some_and(|q| Some(q.table()) == name.as_deref() && q.schema().is_none()))
                    .collect();
                if own.is_empty() {
                    out.push(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(n), o));
                } else {
                    out.extend(kept(own, &o)?.into_iter().map(|c| replaced(c, &o)));
                }
            }
            other => out.push(other),
        }
    }
    s.projection = out;
    Ok(())
}

/// The visible columns of a FROM, in order.
fn visible_columns(plan: Result<LogicalPlan>) -> Result<Vec<Visible>> {
    let plan = plan?;
    let mut hidden = vec![];
    let inner = match &plan {
        LogicalPlan::Projection(p) => p.input.as_ref(),
        other => other,
    };
    hidden_columns(inner, &mut hidden);
    Ok(plan.schema().iter().map(|(q, f)| (q.cloned(), f.name().clone())).filter(|c| !hidden.contains(c)).collect())
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

type Visible = (Option<TableReference>, String);

fn folded(i: &Ident) -> String {
    if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() }
}

/// What EXCLUDE and EXCEPT behind a star leave.
fn kept<'a>(columns: Vec<&'a Visible>, o: &WildcardAdditionalOptions) -> Result<Vec<&'a Visible>> {
    let last = |n: &ObjectName| n.0.last().and_then(|p| p.as_ident()).map(folded);
    let mut left_out: Vec<String> = match &o.opt_exclude {
        Some(ExcludeSelectItem::Single(n)) => last(n).into_iter().collect(),
        Some(ExcludeSelectItem::Multiple(list)) => list.iter().filter_map(last).collect(),
        None => vec![],
    };
    if let Some(e) = &o.opt_except {
        left_out.extend(std::iter::once(&e.first_element).chain(&e.additional_elements).map(folded));
    }
    let replaced = o.opt_replace.iter().flat_map(|r| r.items.iter().map(|i| folded(&i.column_name)));
    for name in left_out.iter().cloned().chain(replaced) {
        if !columns.iter().any(|(_, n)| *n == name) {
            let known = columns.iter().map(|(_, n)| n.as_str());
            return Err(Error::not_found(format!("column {name:?} behind * does not exist")).suggest(&name, known));
        }
    }
    Ok(columns.into_iter().filter(|(_, n)| !left_out.contains(n)).collect())
}

/// A column of a star, or what REPLACE puts in its place.
fn replaced(c: &Visible, o: &WildcardAdditionalOptions) -> SelectItem {
    let items = o.opt_replace.iter().flat_map(|r| r.items.iter());
    match items.into_iter().find(|i| folded(&i.column_name) == c.1) {
        Some(i) => SelectItem::ExprWithAlias { expr: i.expr.clone(), alias: Ident::with_quote('"', &c.1) },
        None => column(c),
    }
}

fn clash(all: &[&Visible]) -> Result<()> {
    for (i, (q, name)) in all.iter().enumerate() {
        if let Some((other, _)) = all[..i].iter().find(|(_, n)| *n == *name) {
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
