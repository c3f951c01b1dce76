//! Names of functions that do not exist: what to write is found by meaning first, then by spelling.

use std::ops::ControlFlow;

use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Volatility;
use sqlparser::ast::{Expr, Function, Spanned, Visit, Visitor};

use crate::error::{Error, Result, Span, nearest};
use crate::sql::clauses::Kind;
use crate::sql::synonyms;
use crate::sql::tokens::fold_ident;

/// Functions that the planner makes of its own.
const OF_PLANNER: [&str; 6] = ["grouping", "struct", "row", "map", "array", "current_user"];

/// What the planner takes a function's name for.
pub fn kind_of(state: &SessionState, name: &str) -> Kind {
    let scalar = state.scalar_functions().contains_key(name)
        || state.higher_order_functions().contains_key(name)
        || ["unnest", "unnest_outer", "make_map"].contains(&name);
    match (scalar, state.window_functions().contains_key(name), state.aggregate_functions().contains_key(name)) {
        (true, _, _) => Kind::Scalar,
        (_, _, true) => Kind::Aggregate,
        (_, true, _) => Kind::Window,
        _ => Kind::Unknown,
    }
}

/// Whether every call of a function may give another value.
pub fn is_volatile(state: &SessionState, name: &str) -> bool {
    state.scalar_functions().get(name).is_some_and(|f| f.signature().volatility == Volatility::Volatile)
}

/// Refuses functions that do not exist.
pub fn check(part: &impl Visit, state: &SessionState) -> Result<()> {
    match part.visit(&mut Names(state)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

struct Names<'a>(&'a SessionState);

impl Visitor for Names<'_> {
    type Break = Error;
    fn pre_visit_expr(&mut self, e: &Expr) -> ControlFlow<Error> {
        match e {
            Expr::Function(f) => self.look(f),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Names<'_> {
    fn look(&self, f: &Function) -> ControlFlow<Error> {
        let Some(ident) = f.name.0.first().and_then(|p| p.as_ident()).filter(|_| f.name.0.len() == 1) else {
            return ControlFlow::Continue(());
        };
        let name = fold_ident(ident);
        // names with a mark are ours
        let known = kind_of(self.0, &name) != Kind::Unknown
            || OF_PLANNER.contains(&name.as_str())
            || name.trim_start_matches('_').starts_with("remige_");
        match known {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(self.unknown(&name).or_span(Span::from_sql(f.name.span()))),
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let error = Error::not_found(format!("function {name:?} does not exist"));
        if let Some(hint) = synonyms::instead_of(name) {
            return error.with_hint(hint);
        }
        let s = self.0;
        let known = s.scalar_functions().keys().chain(s.aggregate_functions().keys()).chain(s.window_functions().keys());
        let known = known.chain(s.higher_order_functions().keys()).map(String::as_str).filter(|n| !n.starts_with('_'));
        let others: Vec<&str> = synonyms::names().collect();
        match nearest(name, known.chain(others.iter().copied())) {
            Some(best) => error.with_hint(format!("did you mean {best:?}? docs/functions.md lists all functions")),
            None => error.with_hint("docs/functions.md lists all functions"),
        }
    }
}
