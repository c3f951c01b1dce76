//! Columns that say nothing but when the query ran.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use crate::plan::pit_join::PitJoinNode;

const CLOCKS: [&str; 6] = ["now", "current_timestamp", "localtimestamp", "current_date", "current_time", "today"];

/// True where a column of the result is made of `now()`, and of no column of a source.
pub fn is_stamped(plan: &LogicalPlan, column: &str) -> bool {
    plan.schema().fields().iter().position(|f| f.name() == column).is_some_and(|i| stamped(plan, i))
}

fn stamped(plan: &LogicalPlan, place: usize) -> bool {
    match plan {
        LogicalPlan::Projection(p) => p.expr.get(place).is_some_and(|e| made_of_now(e, &p.input)),
        LogicalPlan::Aggregate(a) => {
            let mut exprs = a.group_expr.iter().chain(&a.aggr_expr);
            exprs.nth(place).is_some_and(|e| made_of_now(e, &a.input))
        }
        LogicalPlan::SubqueryAlias(a) => stamped(&a.input, place),
        LogicalPlan::Filter(f) => stamped(&f.input, place),
        LogicalPlan::Sort(s) => stamped(&s.input, place),
        LogicalPlan::Limit(l) => stamped(&l.input, place),
        LogicalPlan::Window(w) => place < w.input.schema().fields().len() && stamped(&w.input, place),
        LogicalPlan::Distinct(Distinct::All(input)) => stamped(input, place),
        LogicalPlan::Distinct(Distinct::On(d)) => d.select_expr.get(place).is_some_and(|e| made_of_now(e, &d.input)),
        LogicalPlan::Subquery(s) => stamped(&s.subquery, place),
        LogicalPlan::Union(u) => u.inputs.iter().any(|i| stamped(i, place)),
        LogicalPlan::Join(j) => {
            let width = j.left.schema().fields().len();
            let whole = plan.schema().fields().len() == width + j.right.schema().fields().len();
            match (whole, place < width) {
                (_, true) => stamped(&j.left, place),
                (true, false) => stamped(&j.right, place - width),
                (false, false) => false,
            }
        }
        LogicalPlan::Extension(e) => match e.node.as_any().downcast_ref::<PitJoinNode>() {
            Some(join) => place < join.label_width() && stamped(&join.labels, place),
            None => false,
        },
        LogicalPlan::Values(v) => !v.values.is_empty() && v.values.iter().all(|row| row.get(place).is_some_and(|e| made_of_now(e, plan))),
        _ => false,
    }
}

fn made_of_now(e: &Expr, input: &LogicalPlan) -> bool {
    let (mut clock, mut other) = (false, false);
    let _ = e.apply(|e| {
        match e {
            Expr::ScalarFunction(f) if CLOCKS.contains(&f.func.name()) => clock = true,
            Expr::Column(c) => match input.schema().index_of_column(c) {
                Ok(place) if stamped(input, place) => clock = true,
                _ => other = true,
            },
            Expr::ScalarSubquery(s) => match stamped(&s.subquery, 0) {
                true => clock = true,
                false => other = true,
            },
            Expr::OuterReferenceColumn(..) => other = true,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    clock && !other
}
