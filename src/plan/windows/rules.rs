//! The optimizer rule of window joins.

use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Extension, LogicalPlan, Projection};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::node::WindowJoinNode;

/// Leaves out aggregates that nothing above asks for, and with them what they read of the events.
#[derive(Debug, Default)]
pub struct KeepWantedAggregates;

impl OptimizerRule for KeepWantedAggregates {
    fn name(&self) -> &str {
        "keep_wanted_aggregates"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Projection(p) = plan else { return Ok(Transformed::no(plan)) };
        let LogicalPlan::Extension(e) = p.input.as_ref() else { return Ok(Transformed::no(LogicalPlan::Projection(p))) };
        let Some(node) = e.node.as_any().downcast_ref::<WindowJoinNode>() else { return Ok(Transformed::no(LogicalPlan::Projection(p))) };
        let asked: Vec<_> = p.expr.iter().flat_map(|e| e.column_refs()).cloned().collect();
        match node.with_slots_of(&asked)? {
            None => Ok(Transformed::no(LogicalPlan::Projection(p))),
            Some(node) => {
                let input = LogicalPlan::Extension(Extension { node: Arc::new(node) });
                Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(p.expr, Arc::new(input))?)))
            }
        }
    }
}
