//! What a windowed SELECT cannot hold, each with what to write instead.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Query, Select, Spanned, Value, Visit, Visitor,
};

use crate::error::{Error, Result, Span};
use crate::sql::tokens::fold_ident;

/// Names of aggregates, which do not stand in an event's row.
const AGGREGATES: [&str; 30] = [
    "count",
    "sum",
    "avg",
    "mean",
    "min",
    "max",
    "array_agg",
    "string_agg",
    "bool_and",
    "bool_or",
    "median",
    "mode",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "var",
    "var_pop",
    "var_samp",
    "variance",
    "first_value",
    "last_value",
    "first_n",
    "last_n",
    "min_by",
    "max_by",
    "arg_min",
    "arg_max",
    "top_k",
    "approx_distinct",
    "approx_percentile",
];

fn no(what: &str, hint: &str) -> Error {
    Error::invalid(format!("{what} cannot stand in the SELECT of a windowed feature view")).with_hint(hint)
}

const BELOW: &str = "put it below FROM: SELECT …, count(*) OVER LAST '30 days' AS n FROM (SELECT …) e";

pub fn query(q: &Query) -> Result<()> {
    if let Some(order) = &q.order_by {
        return Err(no("ORDER BY", "events are put in order by their timestamps; leave it out").or_span(Span::from_sql(order.span())));
    }
    match q.limit_clause.is_some() || q.fetch.is_some() {
        true => {
            Err(no("LIMIT or OFFSET", "last_n(x, 10) OVER LAST '…' keeps the newest values; to take some rows only put LIMIT below FROM"))
        }
        false => Ok(()),
    }
}

pub fn select(s: &Select) -> Result<()> {
    let grouped = match &s.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(list, more) => !list.is_empty() || !more.is_empty(),
    };
    let per_key = "each key's events are aggregated by themselves: leave it out, or put the query with it below FROM";
    for (there, what, hint) in [
        (grouped, "GROUP BY", per_key),
        (s.having.is_some(), "HAVING", "write FILTER (WHERE …) behind the aggregate, or a condition where the feature is read"),
        (s.distinct.is_some(), "DISTINCT", BELOW),
        (s.top.is_some(), "TOP", "last_n(x, 10) OVER LAST '…' keeps the newest values"),
        (s.qualify.is_some(), "QUALIFY", BELOW),
        (s.into.is_some(), "INTO", "leave it out"),
        (!s.sort_by.is_empty() || !s.cluster_by.is_empty() || !s.distribute_by.is_empty(), "SORT BY", "leave it out"),
    ] {
        if there {
            return Err(no(what, hint));
        }
    }
    match s.from.is_empty() {
        true => Err(Error::invalid("a windowed feature view reads its events FROM something")),
        false => Ok(()),
    }
}

/// A window in a subquery or WITH.
pub fn below() -> Error {
    Error::invalid("a window as of the instant that is asked stands in the view's own SELECT, not below its FROM")
        .with_hint("move the aggregate into the SELECT list of the view")
}

/// A column beside windows.
pub fn plain(name: &str, view: &str) -> Error {
    Error::invalid(format!("{name:?} is no window: beside windows the SELECT of feature view {view} holds keys and timestamps only"))
        .with_hint(format!(
            "write last_value({name}) OVER LAST '…' AS {name}; or declare a feature view of its own for it, and a feature service over both"
        ))
}

/// Looks into an expression; the first fault counts.
fn find(e: &Expr, mut fault: impl FnMut(&Expr) -> Option<Error>) -> Result<()> {
    struct Look<F>(F);
    impl<F: FnMut(&Expr) -> Option<Error>> Visitor for Look<F> {
        type Break = Error;
        fn pre_visit_expr(&mut self, e: &Expr) -> ControlFlow<Error> {
            match (self.0)(e) {
                Some(fault) => ControlFlow::Break(fault.or_span(Span::from_sql(e.span()))),
                None => ControlFlow::Continue(()),
            }
        }
    }
    match e.visit(&mut Look(&mut fault)) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn is_slot(e: &Expr, slot: fn(usize) -> String) -> bool {
    let prefix = slot(0);
    let prefix = prefix.trim_end_matches('0');
    matches!(e, Expr::Identifier(i) if i.value.starts_with(prefix))
}

fn asks(e: &Expr) -> Option<Error> {
    match e {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
            Some(Error::invalid("a subquery cannot stand here").with_hint(BELOW))
        }
        Expr::Value(v) if matches!(v.value, Value::Placeholder(_)) => Some(Error::invalid("a feature view cannot have parameters")),
        _ => None,
    }
}

/// A feature's expression, with columns for its aggregates.
pub fn output(e: &Expr, slot: fn(usize) -> String) -> Result<()> {
    find(e, |e| match e {
        Expr::Identifier(i) if !is_slot(e, slot) => Some(beside(&fold_ident(i))),
        Expr::CompoundIdentifier(parts) => Some(beside(&parts.last().map(fold_ident).unwrap_or_default())),
        Expr::Function(f) if f.over.is_some() => Some(
            Error::invalid(format!("{} with a window of SQL cannot stand beside windows as of the instant", f.name))
                .with_hint("write OVER LAST '…'; or compute the other window below FROM, where it is one value per event"),
        ),
        Expr::Function(f) if is_aggregate(f) => Some(
            Error::invalid(format!("{}() needs a window", f.name))
                .with_hint(format!("write {}(…) OVER LAST '30 days', or OVER ALL", f.name)),
        ),
        e => asks(e),
    })
}

fn beside(column: &str) -> Error {
    Error::invalid(format!("column {column:?} stands beside windows: a feature is made of aggregates over windows and constants"))
        .with_hint(format!("write last_value({column}) OVER LAST '…', or compute with it where the feature is read"))
}

/// What aggregates read of an event.
pub fn argument(e: &Expr, filter: bool, slot: fn(usize) -> String) -> Result<()> {
    let what = if filter { "FILTER" } else { "the argument of an aggregate" };
    find(e, |e| match e {
        e if is_slot(e, slot) => Some(Error::invalid(format!("{what} cannot hold another window")).with_hint(BELOW)),
        Expr::Function(f) if f.over.is_some() => Some(Error::invalid(format!("{what} cannot hold a window")).with_hint(BELOW)),
        Expr::Function(f) if is_aggregate(f) => {
            Some(Error::invalid(format!("{what} cannot hold an aggregate: it is about one event")).with_hint(BELOW))
        }
        e => asks(e),
    })
}

fn is_aggregate(f: &Function) -> bool {
    let star = matches!(&f.args, FunctionArguments::List(l) if l.args.iter().any(|a| matches!(a, FunctionArg::Unnamed(FunctionArgExpr::Wildcard))));
    star || AGGREGATES.iter().any(|a| f.name.to_string().eq_ignore_ascii_case(a))
}

/// Clauses of a call that a window has no meaning for.
pub fn call(f: &Function, name: &str) -> Result<()> {
    let ordered = matches!(&f.args, FunctionArguments::List(l) if !l.clauses.is_empty());
    match ordered || !f.within_group.is_empty() {
        true => Err(Error::invalid(format!("{name}() over a window takes its events in the order of time: no other order can be named"))
            .with_hint("max_by(x, y) takes the value beside the greatest y")),
        false => Ok(()),
    }
}
