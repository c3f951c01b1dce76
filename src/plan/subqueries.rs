//! Subqueries that read the row around them in a way that cannot be planned. They are found behind the optimizer,
//! which has made joins of all the others.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

use super::pit_join::conditions::place_of;
use crate::error::{Error, Result, Span};

/// Refuses an optimized plan in which one is left.
pub fn check(plan: &LogicalPlan) -> Result<()> {
    let mut fault = None;
    plan.apply(|node| {
        if let LogicalPlan::Subquery(s) = node
            && !s.outer_ref_columns.is_empty()
        {
            fault = fault.take().or(Some(refused("LATERAL", s)));
        }
        node.apply_expressions(|e| {
            e.apply(|e| {
                let found = match e {
                    Expr::ScalarSubquery(s) if !s.outer_ref_columns.is_empty() => Some(refused("this subquery", s)),
                    Expr::Exists(x) => Some(refused("EXISTS here", &x.subquery)),
                    Expr::InSubquery(x) => Some(refused("IN (SELECT …) here", &x.subquery)),
                    Expr::SetComparison(x) => Some(refused("this comparison with a subquery", &x.subquery)),
                    Expr::OuterReferenceColumn(_, c) => Some(cannot("LATERAL", &c.flat_name(), place_of(&Expr::Column(c.clone())))),
                    _ => None,
                };
                if fault.is_none() {
                    fault = found;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    fault.map_or(Ok(()), Err)
}

fn refused(what: &str, s: &Subquery) -> Error {
    let outer = s.outer_ref_columns.iter().map(|e| match e {
        Expr::OuterReferenceColumn(_, c) => (c.flat_name(), place_of(&Expr::Column(c.clone()))),
        other => (other.human_display().to_string(), place_of(other)),
    });
    let place = s.spans.first().map(Span::from);
    match outer.into_iter().next() {
        Some((name, at)) => cannot(what, &name, place.or(at)),
        None => Error::invalid(format!("{what} cannot be planned"))
            .with_hint("join it instead: LEFT JOIN (SELECT DISTINCT key, true AS found FROM …) AS s ON …, then s.found IS NOT NULL")
            .or_span(place),
    }
}

fn cannot(what: &str, outer: &str, place: Option<Span>) -> Error {
    Error::invalid(format!("{what} reads {outer} of the query around it, and that can be planned for equalities in WHERE only"))
        .with_hint(
            "join instead: for the last row before each row write ASOF JOIN t MATCH_CONDITION (l.ts >= t.ts); for a count or a sum \
             LEFT JOIN t ON … and GROUP BY; for online features ONLINE JOIN",
        )
        .or_span(place)
}
