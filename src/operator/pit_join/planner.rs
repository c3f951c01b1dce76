//! From the logical node to the operator.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::exec::PitJoinExec;
use super::options::PitJoinOptions;
use super::scan::files::ParquetFiles;
use super::spec::{PitExecItem, PitJoinSpec};
use crate::operator::input_order::preserve_scan_order;
use crate::plan::pit_join::{PitItem, PitJoinNode};

/// Plans `PitJoinNode`. Register it with the session's query planner, `plan::pit_join::rules::PushLabelFilters` as
/// an optimizer rule, and `KeepInputOrder` as the last physical optimizer rule.
#[derive(Debug, Default)]
pub struct PitJoinPlanner;

#[async_trait]
impl ExtensionPlanner for PitJoinPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<PitJoinNode>() else { return Ok(None) };
        let [labels, views @ ..] = physical_inputs else { return Ok(None) };
        let plan = |e: &Expr, schema: &DFSchema| -> Result<Arc<dyn PhysicalExpr>> {
            planner.create_physical_expr(e, schema, session, planning_ctx)
        };
        let left = node.labels.schema();
        let items = node.items.iter().zip(&node.views).map(|(item, view)| exec_item(item, left, view.schema(), &plan));
        let items = items.collect::<Result<Vec<_>>>()?;
        let options = PitJoinOptions::of(session.config());
        let labels = preserve_scan_order(Arc::clone(labels))?;
        // Files that are read row group by row group are not cut into byte ranges either.
        let in_order = |(view, item): (&Arc<dyn ExecutionPlan>, &PitExecItem)| {
            if item.seq.is_none() || ParquetFiles::behind(view).is_some() {
                preserve_scan_order(Arc::clone(view))
            } else {
                Ok(Arc::clone(view))
            }
        };
        let views = views.iter().zip(&items).map(in_order).collect::<Result<Vec<_>>>()?;
        Ok(Some(Arc::new(PitJoinExec::try_new(PitJoinSpec::new(labels, views, items, node.label_fetch, options))?)))
    }
}

/// Plans an expression over columns of a schema.
pub(in crate::operator) type PlanExpr<'a> = dyn Fn(&Expr, &DFSchema) -> Result<Arc<dyn PhysicalExpr>> + 'a;

/// An item with its expressions planned. `plan`: an expression over columns of a schema.
pub(in crate::operator) fn exec_item(item: &PitItem, left: &DFSchema, right: &DFSchema, plan: &PlanExpr<'_>) -> Result<PitExecItem> {
    Ok(PitExecItem {
        keys: item.keys.iter().map(|(l, r)| Ok((plan(l, left)?, plan(r, right)?))).collect::<Result<_>>()?,
        at: plan(&item.at, left)?,
        time: plan(&item.time, right)?,
        created: item.created.as_ref().map(|e| plan(e, right)).transpose()?,
        seq: item.seq.as_ref().map(|e| plan(e, right)).transpose()?,
        known_by: item.known_by.as_ref().map(|e| plan(e, left)).transpose()?,
        op: item.op,
        lines: item.time_lines(left, right)?,
        inner: item.inner,
        description: item.description.clone(),
        index: 0,
    })
}
