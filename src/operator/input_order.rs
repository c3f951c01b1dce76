//! Keeps rows in the order of their tables. DataFusion splits scans, steals files between partitions
//! and spreads rows round-robin wherever nobody asked for a sort order; the order of the labels, and
//! "the last row wins" of plain tables, are no sort order, so the scans below become ordered ones.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};

use super::online_lookup::OnlineLookupExec;
use super::ordered_scan::{OrderedScan, children_in_order, map_children};
use super::pit_join::{InLabelOrderExec, PitJoinExec};
use super::window_join::WindowJoinExec;

type Plan = Arc<dyn ExecutionPlan>;

/// Wraps every scan whose rows come to `plan`'s output in order, so that they go on doing so.
pub fn preserve_scan_order(plan: Plan) -> Result<Plan> {
    if plan.children().is_empty() {
        return Ok(OrderedScan::wrap(plan));
    }
    on_ordered_children(plan, &preserve_scan_order)
}

/// Takes round-robins out of the way from the ordered scans to `plan`.
fn without_round_robin(plan: Plan) -> Result<Plan> {
    match plan.downcast_ref::<RepartitionExec>() {
        Some(r) if matches!(r.partitioning(), Partitioning::RoundRobinBatch(_)) => without_round_robin(Arc::clone(r.input())),
        _ => on_ordered_children(plan, &without_round_robin),
    }
}

/// Applies `f` to the children whose row order `plan` hands on.
fn on_ordered_children(plan: Plan, f: &dyn Fn(Plan) -> Result<Plan>) -> Result<Plan> {
    let ordered: Vec<bool> = match plan.is::<PitJoinExec>() || plan.is::<WindowJoinExec>() {
        true => (0..plan.children().len()).map(|i| i == 0).collect(),
        false => children_in_order(&plan),
    };
    map_children(plan, &ordered, f)
}

/// Whether a plan hands on its rows, or its labels', in the order in which it gets them.
fn keeps_rows(plan: &Plan) -> bool {
    plan.is::<PitJoinExec>() || plan.is::<WindowJoinExec>() || plan.is::<OnlineLookupExec>()
}

/// Where a result is a join or lookup under nothing but filters, projections and limits, it is in label order:
/// takes away what spreads the rows above the join, and puts its parts in order.
fn in_order_to_the_top(plan: Plan) -> Result<Plan> {
    if plan.is::<DataSinkExec>() {
        let input = in_order_to_the_top(Arc::clone(plan.children()[0]))?;
        return datafusion::physical_plan::replace_children_if_necessary(plan, vec![input]);
    }
    Ok(above_join(&plan)?.unwrap_or(plan))
}

fn above_join(plan: &Plan) -> Result<Option<Plan>> {
    if plan.downcast_ref::<PitJoinExec>().is_some_and(|join| join.spec().parts() > 1) {
        return Ok(Some(Arc::new(InLabelOrderExec::new(Arc::clone(plan)))));
    }
    if keeps_rows(plan) || plan.is::<InLabelOrderExec>() {
        return Ok(Some(Arc::clone(plan)));
    }
    if plan.is::<SortPreservingMergeExec>() {
        return Ok(None);
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

/// Whether a plan answers other rows, or other values, where its input is in another order: a limit takes the first
/// rows, a window without an order numbers them.
fn depends_on_order(plan: &Plan) -> bool {
    let sorts = plan.is::<SortExec>() || plan.is::<SortPreservingMergeExec>();
    !sorts && plan.fetch().is_some() || plan.is::<WindowAggExec>() || plan.is::<BoundedWindowAggExec>()
}

/// Puts the parts of joins below limits and windows in order.
fn in_order_below(plan: Plan) -> Result<Plan> {
    if !depends_on_order(&plan) {
        return Ok(plan);
    }
    let below = |child: &Plan| Ok(above_join(child)?.unwrap_or_else(|| Arc::clone(child)));
    let children = plan.children().into_iter().map(below).collect::<Result<Vec<_>>>()?;
    datafusion::physical_plan::replace_children_if_necessary(plan, children)
}

/// The physical optimizer rule that undoes what no scan can refuse. Run it after all other rules.
#[derive(Debug, Default)]
pub struct KeepInputOrder;

impl PhysicalOptimizerRule for KeepInputOrder {
    fn optimize(&self, plan: Plan, _config: &ConfigOptions) -> Result<Plan> {
        let kept = in_order_to_the_top(plan)?.transform_up(|plan| {
            let plan = in_order_below(plan)?;
            let ordered = match plan.downcast_ref::<PitJoinExec>() {
                Some(join) => join.needs_input_order(),
                // its events are sorted, whatever spreads them below
                None if plan.is::<WindowJoinExec>() => vec![true, false],
                None if keeps_rows(&plan) => vec![true],
                None => return Ok(Transformed::yes(plan)),
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
