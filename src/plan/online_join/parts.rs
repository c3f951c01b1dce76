//! An ONLINE JOIN that was planned, taken apart again.

use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::plan::online_lookup::OnlineLookupNode;

/// One planned ONLINE JOIN, taken apart. It is always
/// `Projection(outputs, [Filter(live)], OnlineLookup(node, Projection(left's columns and computed keys, left)))`.
pub struct Parts<'a> {
    pub left: &'a LogicalPlan,
    pub node: &'a OnlineLookupNode,
    /// The left columns as they are, then the features.
    pub outputs: &'a [Expr],
    pub inputs: &'a [Expr],
    pub live: Option<&'a Expr>,
}

impl<'a> Parts<'a> {
    pub fn of(plan: &'a LogicalPlan) -> Option<Parts<'a>> {
        let LogicalPlan::Projection(outer) = plan else { return None };
        let (live, below) = match outer.input.as_ref() {
            LogicalPlan::Filter(f) => (Some(&f.predicate), f.input.as_ref()),
            other => (None, other),
        };
        let LogicalPlan::Extension(e) = below else { return None };
        let node = e.node.as_any().downcast_ref::<OnlineLookupNode>().filter(|n| n.joins)?;
        let LogicalPlan::Projection(inner) = &node.input else { return None };
        Some(Parts { left: &inner.input, node, outputs: &outer.expr, inputs: &inner.expr, live })
    }
}
