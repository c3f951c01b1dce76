//! From the logical node to the operator.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::LookupHandle;
use super::exec::OnlineLookupExec;
use crate::error::Error;
use crate::operator::input_order::preserve_scan_order;
use crate::plan::online_lookup::OnlineLookupNode;

/// Plans [`OnlineLookupNode`]; goes into the query planner's list of extension planners.
#[derive(Debug, Default)]
pub struct OnlineLookupPlanner;

#[async_trait]
impl ExtensionPlanner for OnlineLookupPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<OnlineLookupNode>() else { return Ok(None) };
        let [input] = inputs else { return Err(Error::internal("an online lookup has exactly one input").into()) };
        let store = session.config().get_extension::<LookupHandle>().map(|h| h.0.store().describe());
        let schema = Arc::clone(node.schema.inner());
        let input = &preserve_scan_order(Arc::clone(input))?;
        Ok(Some(Arc::new(OnlineLookupExec::new(Arc::clone(input), node.items.clone(), node.at, schema, store))))
    }
}
