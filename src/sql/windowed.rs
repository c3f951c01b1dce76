//! Takes the SELECT of a windowed feature view apart: the query of its events, the aggregates over their columns, and the
//! features as expressions over the aggregates.

mod aggregates;
mod refused;

use sqlparser::ast::{Expr, Ident, Query, Select, SelectItem, SetExpr, Spanned, Statement as SqlStatement, TableFactor};

use self::aggregates::Collector;
pub use self::aggregates::{AggregateText, Argument};
use super::over::{self, Windowed};
use super::tokens::fold_ident;
use crate::error::{Error, Result, Span};

/// Which columns of a view are no features.
#[derive(Debug, Clone, Copy)]
pub struct Roles<'a> {
    /// The view, in errors.
    pub view: &'a str,
    pub keys: &'a [String],
    pub event: &'a str,
    pub created: Option<&'a str>,
    /// Rows are pushed: the query reads PUSHED.
    pub push: bool,
}

impl Roles<'_> {
    fn all(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str).chain([self.event]).chain(self.created)
    }
}

/// A windowed SELECT, taken apart.
#[derive(Debug)]
pub struct Split {
    /// SELECT keys, timestamps, arguments FROM … WHERE …: a row per event.
    pub events: Query,
    /// The columns of the events that aggregates read.
    pub arguments: Vec<Argument>,
    pub aggregates: Vec<AggregateText>,
    /// Name, expression over the aggregates' columns, and place of each feature.
    pub outputs: Vec<(String, Expr, Option<Span>)>,
    /// The WHERE: which rows are events.
    pub condition: Option<Expr>,
}

/// `slot`: names the column of the aggregate with a number.
pub fn split(parsed: Windowed, roles: &Roles<'_>, slot: fn(usize) -> String) -> Result<Split> {
    let Windowed { statement, windows } = parsed;
    let datafusion::sql::parser::Statement::Statement(statement) = statement else { return Err(no_query()) };
    let SqlStatement::Query(mut query) = *statement else { return Err(no_query()) };
    refused::query(&query)?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::invalid("the SELECT with windows cannot be part of a UNION, EXCEPT or INTERSECT")
            .with_hint("put the UNION ALL below FROM: SELECT …, count(*) OVER LAST '30 days' AS n FROM (SELECT … UNION ALL SELECT …) e"));
    };
    refused::select(select)?;
    for (name, window) in windows.iter().filter(|(name, _)| !over::is_inline(name)) {
        if !select.named_window.iter().any(|w| fold_ident(&w.0) == *name) {
            return Err(refused::below().with_span(window.span));
        }
    }
    select.named_window.retain(|w| !windows.iter().any(|(name, _)| *name == fold_ident(&w.0)));
    if roles.push {
        from_pushed(select)?;
    }
    let mut collector = Collector::new(windows, roles.all().map(String::from).collect(), slot);
    let mut outputs: Vec<(String, Expr, Option<Span>)> = vec![];
    let mut given: Vec<(String, Expr)> = vec![];
    for item in std::mem::take(&mut select.projection) {
        let (mut expr, name) = named(item)?;
        let place = Span::from_sql(expr.span());
        let found = collector.take(&mut expr)?;
        if !found && roles.all().any(|r| r == name) {
            if given.iter().any(|(n, _)| *n == name) {
                return Err(twice(&name, roles.view).or_span(place));
            }
            given.push((name, expr));
            continue;
        }
        if !found {
            return Err(refused::plain(&name, roles.view).or_span(place));
        }
        refused::output(&expr, slot)?;
        if outputs.iter().any(|(n, ..)| *n == name) || roles.all().any(|r| r == name) {
            return Err(twice(&name, roles.view).or_span(place));
        }
        outputs.push((name, expr, place));
    }
    let (arguments, aggregates) = collector.finish()?;
    let quoted = |name: &str| Ident::with_quote('"', name);
    for role in roles.all() {
        let expr = match given.iter().find(|(n, _)| n == role) {
            Some((_, e)) => e.clone(),
            None => Expr::Identifier(quoted(role)),
        };
        select.projection.push(SelectItem::ExprWithAlias { expr, alias: quoted(role) });
    }
    for a in &arguments {
        select.projection.push(SelectItem::ExprWithAlias { expr: a.expr.clone(), alias: quoted(&a.name) });
    }
    let condition = select.selection.clone();
    Ok(Split { events: *query, arguments, aggregates, outputs, condition })
}

fn twice(name: &str, view: &str) -> Error {
    Error::invalid(format!("two columns of feature view {view} are called {name:?}")).with_hint("give one of them another name with AS")
}

fn no_query() -> Error {
    Error::syntax("AS wants a query (SELECT …)")
}

/// An item of the SELECT list with its name.
fn named(item: SelectItem) -> Result<(Expr, String)> {
    match item {
        SelectItem::ExprWithAlias { expr, alias } => Ok((expr, fold_ident(&alias))),
        SelectItem::UnnamedExpr(Expr::Identifier(i)) => Ok((Expr::Identifier(i.clone()), fold_ident(&i))),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            let name = parts.last().map(fold_ident).unwrap_or_default();
            Ok((Expr::CompoundIdentifier(parts), name))
        }
        SelectItem::UnnamedExpr(e) => {
            let place = Span::from_sql(e.span());
            Err(Error::syntax("a feature needs a name").or_span(place).with_hint("write … AS name behind it"))
        }
        other => Err(Error::invalid("a windowed feature view names its features: * cannot stand in its SELECT")
            .or_span(Span::from_sql(other.span()))
            .with_hint("write each feature: count(*) OVER LAST '30 days' AS clicks_30d")),
    }
}

/// A push view reads nothing but what is pushed.
fn from_pushed(select: &Select) -> Result<()> {
    let is_pushed = |name: &sqlparser::ast::ObjectName| name.to_string().eq_ignore_ascii_case("pushed");
    match &select.from[..] {
        [t] if t.joins.is_empty() && matches!(&t.relation, TableFactor::Table { name, args: None, .. } if is_pushed(name)) => Ok(()),
        _ => Err(Error::invalid("a view with columns to be pushed reads FROM PUSHED, and nothing else")
            .with_hint("leave the list of columns with types out where the events come from tables, or write FROM PUSHED")),
    }
}

#[cfg(test)]
mod tests;
