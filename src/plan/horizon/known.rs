//! Columns of a plan's output that hold no value beyond the instant.

use std::collections::HashSet;

use datafusion::common::{Column, DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::{BinaryExpr, Distinct, Expr, Join, LogicalPlan, Operator};

use super::bounds::Bounds;
use super::{Places, all, split};
use crate::plan::pit_join::PitJoinNode;

pub fn known(plan: &LogicalPlan, bounds: &Bounds, outer: &HashSet<Column>) -> Places {
    let below = |p: &LogicalPlan| known(p, bounds, outer);
    match plan {
        LogicalPlan::SubqueryAlias(a) => below(&a.input),
        LogicalPlan::Sort(s) => below(&s.input),
        LogicalPlan::Limit(l) => below(&l.input),
        LogicalPlan::Repartition(r) => below(&r.input),
        LogicalPlan::Distinct(Distinct::All(input)) => below(input),
        LogicalPlan::Subquery(s) => below(&s.subquery),
        LogicalPlan::Window(w) => below(&w.input),
        LogicalPlan::Filter(f) => {
            let inside = below(&f.input);
            let bound = bounds.of([&f.predicate], f.input.schema(), inside.clone(), outer);
            &inside | &bound
        }
        LogicalPlan::Projection(p) => past(&p.expr, p.input.schema(), &below(&p.input), bounds, outer),
        LogicalPlan::Aggregate(a) if !matches!(a.group_expr[..], [Expr::GroupingSet(_)]) => {
            let exprs: Vec<Expr> = a.group_expr.iter().cloned().chain(a.aggr_expr.iter().map(of_extreme)).collect();
            past(&exprs, a.input.schema(), &below(&a.input), bounds, outer)
        }
        LogicalPlan::Union(u) => u.inputs.iter().map(|i| below(i)).fold(all(plan), |a, b| &a & &b),
        LogicalPlan::Join(j) => joined(j, bounds, outer),
        LogicalPlan::Extension(e) => match e.node.as_any().downcast_ref::<PitJoinNode>() {
            Some(join) => below(&join.labels),
            None => Places::new(),
        },
        _ => Places::new(),
    }
}

fn past(exprs: &[Expr], schema: &DFSchema, inside: &Places, bounds: &Bounds, outer: &HashSet<Column>) -> Places {
    exprs.iter().enumerate().filter(|(_, e)| bounds.is_past(e, schema, inside, outer)).map(|(i, _)| i).collect()
}

/// The least and the greatest of some values are among them.
fn of_extreme(e: &Expr) -> Expr {
    match e {
        Expr::Alias(a) => of_extreme(&a.expr),
        Expr::AggregateFunction(f) if matches!(f.func.name(), "min" | "max" | "first_value" | "last_value") => {
            f.params.args.first().cloned().unwrap_or_else(|| e.clone())
        }
        other => other.clone(),
    }
}

fn joined(j: &Join, bounds: &Bounds, outer: &HashSet<Column>) -> Places {
    let width = j.left.schema().fields().len();
    let (left, right) = (known(&j.left, bounds, outer), known(&j.right, bounds, outer));
    let right_at = |p: &Places| p.iter().map(|i| i + width).collect::<Places>();
    let on = on_bounds(j, &left, &right, bounds, outer);
    let (on_left, on_right) = split(&on, width);
    use JoinType::*;
    match j.join_type {
        Inner => &(&left | &right_at(&right)) | &on,
        Left => &(&left | &right_at(&right)) | &right_at(&on_right),
        Right => &(&left | &right_at(&right)) | &on_left,
        Full => &left | &right_at(&right),
        LeftSemi => &left | &on_left,
        LeftAnti | LeftMark => left,
        RightSemi => &right | &on_right,
        RightAnti | RightMark => right,
    }
}

/// Columns of both sides, counted over left and right, that ON keeps from going beyond the instant in the pairs that
/// it joins. `left`, `right`: columns that hold no later value, or of which none matters.
pub fn on_bounds(j: &Join, left: &Places, right: &Places, bounds: &Bounds, outer: &HashSet<Column>) -> Places {
    let Ok(schema) = j.left.schema().join(j.right.schema()) else { return Places::new() };
    let width = j.left.schema().fields().len();
    let inside = left.iter().copied().chain(right.iter().map(|i| i + width)).collect();
    let equal =
        |(l, r): &(Expr, Expr)| Expr::BinaryExpr(BinaryExpr { left: Box::new(l.clone()), op: Operator::Eq, right: Box::new(r.clone()) });
    // where NULLs are equal, a pair says nothing of rows that an outer join below fills up with NULLs
    let pairs = j.on.iter().filter(|_| j.null_equality == NullEquality::NullEqualsNothing);
    let on: Vec<Expr> = pairs.map(equal).chain(j.filter.clone()).collect();
    bounds.of(&on, &schema, inside, outer)
}
