//! Keeps rows in the order of their tables. DataFusion splits scans, steals files between partitions
//! and spreads rows round-robin wherever nobody asked for a sort order; the order of the labels, and
//! "the last row wins" of plain tables, are no sort order, so the scans below are held still.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Statistics};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions};

use super::exec::PitJoinExec;
use crate::operator::online_lookup::OnlineLookupExec;

type Plan = Arc<dyn ExecutionPlan>;

/// Holds every scan still whose rows reach `plan`'s output in order.
pub fn hold_scans(plan: Plan) -> Result<Plan> {
    if plan.children().is_empty() {
        return Ok(StillScan::around(plan));
    }
    on_ordered_children(plan, &hold_scans)
}

/// Takes round-robins out of the way from the held scans to `plan`.
fn without_round_robin(plan: Plan) -> Result<Plan> {
    match plan.downcast_ref::<RepartitionExec>() {
        Some(r) if matches!(r.partitioning(), Partitioning::RoundRobinBatch(_)) => without_round_robin(Arc::clone(r.input())),
        _ => on_ordered_children(plan, &without_round_robin),
    }
}

/// Applies `f` to the children whose row order `plan` hands on.
fn on_ordered_children(plan: Plan, f: &dyn Fn(Plan) -> Result<Plan>) -> Result<Plan> {
    let children: Vec<Plan> = plan.children().into_iter().cloned().collect();
    let ordered: Vec<bool> = match children.len() {
        0 => return Ok(plan),
        _ if plan.is::<PitJoinExec>() => (0..children.len()).map(|i| i == 0).collect(),
        n if n == 1 || plan.is::<UnionExec>() => plan.maintains_input_order(),
        n => vec![false; n],
    };
    if !ordered.contains(&true) {
        return Ok(plan);
    }
    let changed = children.into_iter().zip(ordered).map(|(c, o)| if o { f(c) } else { Ok(c) }).collect::<Result<Vec<_>>>()?;
    datafusion::physical_plan::replace_children_if_necessary(plan, changed)
}

/// Whether a plan hands on its rows, or its labels', in the order in which it gets them.
fn keeps_rows(plan: &Plan) -> bool {
    plan.is::<PitJoinExec>() || plan.is::<OnlineLookupExec>()
}

/// Where a result is a join or lookup under nothing but filters, projections and limits, it is in label order:
/// takes away what spreads the rows above the join.
fn in_order_to_the_top(plan: Plan) -> Result<Plan> {
    if plan.is::<DataSinkExec>() {
        let input = in_order_to_the_top(Arc::clone(plan.children()[0]))?;
        return datafusion::physical_plan::replace_children_if_necessary(plan, vec![input]);
    }
    Ok(above_join(&plan)?.unwrap_or(plan))
}

fn above_join(plan: &Plan) -> Result<Option<Plan>> {
    if keeps_rows(plan) {
        return Ok(Some(Arc::clone(plan)));
    }
    let spreads = plan.downcast_ref::<RepartitionExec>().is_some_and(|r| matches!(r.partitioning(), Partitioning::RoundRobinBatch(_)));
    match plan.children()[..] {
        [child] if spreads => above_join(child),
        [child] if plan.maintains_input_order()[0] || plan.is::<CoalescePartitionsExec>() => match above_join(child)? {
            Some(child) => datafusion::physical_plan::replace_children_if_necessary(Arc::clone(plan), vec![child]).map(Some),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// The physical optimizer rule that undoes what no scan can refuse. Run it after all other rules.
#[derive(Debug, Default)]
pub struct KeepInputOrder;

impl PhysicalOptimizerRule for KeepInputOrder {
    fn optimize(&self, plan: Plan, _config: &ConfigOptions) -> Result<Plan> {
        let kept = in_order_to_the_top(plan)?.transform_up(|plan| {
            let ordered = match plan.downcast_ref::<PitJoinExec>() {
                Some(join) => join.needs_input_order(),
                None if keeps_rows(&plan) => vec![true],
                None => return Ok(Transformed::no(plan)),
            };
            let children = plan
                .children()
                .into_iter()
                .zip(ordered)
                .map(|(c, o)| if o { without_round_robin(Arc::clone(c)) } else { Ok(Arc::clone(c)) })
                .collect::<Result<Vec<_>>>()?;
            Ok(Transformed::yes(datafusion::physical_plan::replace_children_if_necessary(plan, children)?))
        })?;
        Ok(kept.data)
    }

    fn name(&self) -> &str {
        "keep_input_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A scan that may not be split or share its files; in all else it is the scan it holds.
#[derive(Debug)]
struct StillScan {
    scan: Plan,
}

/// The scan that is held still, or the plan itself.
pub fn under_still(plan: &Plan) -> &Plan {
    plan.downcast_ref::<StillScan>().map_or(plan, |s| &s.scan)
}

impl StillScan {
    fn around(scan: Plan) -> Plan {
        if scan.is::<StillScan>() {
            return scan;
        }
        let scan = scan.with_preserve_order(true).unwrap_or(scan);
        Arc::new(StillScan { scan })
    }
}

impl DisplayAs for StillScan {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scan.fmt_as(t, f)
    }
}

impl ExecutionPlan for StillScan {
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
        Ok(StillScan::around(Arc::clone(&self.scan).reset_state()?))
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
        self.scan.with_fetch(limit).map(StillScan::around)
    }

    fn fetch(&self) -> Option<usize> {
        self.scan.fetch()
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        self.scan.cardinality_effect()
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Plan>> {
        self.scan.try_swapping_with_projection(projection)?.map(hold_scans).transpose()
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
        let updated_node = done.updated_node.map(hold_scans).transpose()?;
        Ok(FilterPushdownPropagation { filters: done.filters, updated_node })
    }

    fn with_new_state(&self, state: Arc<dyn Any + Send + Sync>) -> Option<Plan> {
        self.scan.with_new_state(state).map(StillScan::around)
    }

    fn with_preserve_order(&self, _preserve_order: bool) -> Option<Plan> {
        None
    }
}
