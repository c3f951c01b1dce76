//! A scan that gives the rows of its table in their order. DataFusion splits scans and steals files between partitions
//! wherever nobody asked for a sort order; the order of the labels, and "the last row wins" of plain tables, are no
//! sort order.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions};

type Plan = Arc<dyn ExecutionPlan>;

/// What a scan has become: again with its order preserved.
fn scans_in_order(plan: Plan) -> Result<Plan> {
    if plan.children().is_empty() {
        return Ok(OrderedScan::wrap(plan));
    }
    let ordered = children_in_order(&plan);
    map_children(plan, &ordered, &scans_in_order)
}

/// The children whose row order a plan hands on: its only one, or those of a union.
pub fn children_in_order(plan: &Plan) -> Vec<bool> {
    match plan.children().len() {
        n if n == 1 || plan.is::<UnionExec>() => plan.maintains_input_order(),
        n => vec![false; n],
    }
}

/// Applies `f` to some of a plan's children.
pub fn map_children(plan: Plan, chosen: &[bool], f: &dyn Fn(Plan) -> Result<Plan>) -> Result<Plan> {
    if !chosen.contains(&true) {
        return Ok(plan);
    }
    let children: Vec<Plan> = plan.children().into_iter().cloned().collect();
    let changed = children.into_iter().zip(chosen).map(|(c, is)| if *is { f(c) } else { Ok(c) }).collect::<Result<Vec<_>>>()?;
    datafusion::physical_plan::replace_children_if_necessary(plan, changed)
}

/// A scan that may not be split or share its files; in all else it is the scan inside.
#[derive(Debug)]
pub struct OrderedScan {
    scan: Plan,
}

/// The scan inside an ordered one, or the plan itself.
pub fn inner_scan(plan: &Plan) -> &Plan {
    plan.downcast_ref::<OrderedScan>().map_or(plan, |s| &s.scan)
}

impl OrderedScan {
    pub fn wrap(scan: Plan) -> Plan {
        if scan.is::<OrderedScan>() {
            return scan;
        }
        let scan = scan.with_preserve_order(true).unwrap_or(scan);
        Arc::new(OrderedScan { scan })
    }
}

impl DisplayAs for OrderedScan {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scan.fmt_as(t, f)
    }
}

impl ExecutionPlan for OrderedScan {
    fn name(&self) -> &str {
        self.scan.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.scan.properties()
    }

    fn children(&self) -> Vec<&Plan> {
        vec![]
    }

    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        self.scan.apply_expressions(f)
    }

    fn replace_children(self: Arc<Self>, _children: Vec<Plan>, _options: ReplaceChildrenOptions) -> Result<Plan> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Plan>) -> Result<Plan> {
        Ok(self)
    }

    fn reset_state(self: Arc<Self>) -> Result<Plan> {
        Ok(OrderedScan::wrap(Arc::clone(&self.scan).reset_state()?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.scan.execute(partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.scan.metrics()
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.scan.child_stats_requests(partition)
    }

    fn statistics_from_inputs(&self, input_stats: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        self.scan.statistics_from_inputs(input_stats, args)
    }

    fn supports_limit_pushdown(&self) -> bool {
        self.scan.supports_limit_pushdown()
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Plan> {
        self.scan.with_fetch(limit).map(OrderedScan::wrap)
    }

    fn fetch(&self) -> Option<usize> {
        self.scan.fetch()
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        self.scan.cardinality_effect()
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Plan>> {
        self.scan.try_swapping_with_projection(projection)?.map(scans_in_order).transpose()
    }

    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        self.scan.gather_filters_for_pushdown(phase, parent_filters, config)
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        child_pushdown_result: ChildPushdownResult,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Plan>> {
        let done = self.scan.handle_child_pushdown_result(phase, child_pushdown_result, config)?;
        let updated_node = done.updated_node.map(scans_in_order).transpose()?;
        Ok(FilterPushdownPropagation { filters: done.filters, updated_node })
    }

    fn with_new_state(&self, state: Arc<dyn Any + Send + Sync>) -> Option<Plan> {
        self.scan.with_new_state(state).map(OrderedScan::wrap)
    }

    fn with_preserve_order(&self, _preserve_order: bool) -> Option<Plan> {
        None
    }
}
