//! From the logical node to the operator.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::FieldRef;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::exec::WindowJoinExec;
use super::spec::WindowJoinSpec;
use crate::error::Error;
use crate::operator::input_order::preserve_scan_order;
use crate::operator::pit_join::planner::exec_item;
use crate::plan::windows::WindowJoinNode;

/// Plans [`WindowJoinNode`]; goes into the query planner's list of extension planners.
#[derive(Debug, Default)]
pub struct WindowJoinPlanner;

#[async_trait]
impl ExtensionPlanner for WindowJoinPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<WindowJoinNode>() else { return Ok(None) };
        let [labels, events] = physical_inputs else { return Err(Error::internal("a window join has two inputs").into()) };
        let plan = |e: &Expr, schema: &DFSchema| -> Result<Arc<dyn PhysicalExpr>> {
            planner.create_physical_expr(e, schema, session, planning_ctx)
        };
        let right = node.events.schema();
        let item = exec_item(&node.item.pit, node.labels.schema(), right, &plan)?;
        let Some(windowed) = &node.view.windowed else { return Err(Error::internal("a window join without windows").into()) };
        let names = windowed.arguments_of(&node.item.slots).into_iter().map(|c| c.name);
        let arguments = names.zip(&node.item.arguments).map(|(n, e)| Ok((n, plan(e, right)?))).collect::<Result<_>>()?;
        let slots = node.item.slots.iter().filter_map(|i| windowed.slots.get(*i));
        let added: Vec<FieldRef> = node.schema().fields().iter().skip(node.label_width()).cloned().collect();
        let spec = WindowJoinSpec {
            labels: preserve_scan_order(Arc::clone(labels))?,
            events: Arc::clone(events),
            item,
            arguments,
            aggregates: slots.map(|s| s.aggregate.clone()).collect(),
            longest: windowed.longest().cloned(),
            added,
        };
        Ok(Some(Arc::new(WindowJoinExec::new(spec))))
    }
}
