//! The physical plan node: properties, display.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, OrderingRequirements, Partitioning, PhysicalExpr};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{
    Boundedness, CardinalityEffect, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, apply_expression_roots,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};

use super::spec::WindowJoinSpec;
use super::stream;

/// Labels (child 0) with aggregates of the events (child 1) of their keys in windows as of their instants, in label
/// order: the label partitions one after the other, each in its order.
#[derive(Debug, Clone)]
pub struct WindowJoinExec {
    spec: WindowJoinSpec,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl WindowJoinExec {
    pub fn new(spec: WindowJoinSpec) -> Self {
        let mut equivalences = EquivalenceProperties::new(spec.schema());
        if spec.labels.output_partitioning().partition_count() == 1 {
            // Label columns come first: their expressions mean the same above.
            equivalences.add_orderings(spec.labels.equivalence_properties().oeq_class().clone());
        }
        let one = Partitioning::UnknownPartitioning(1);
        let properties = PlanProperties::new(equivalences, one, EmissionType::Incremental, Boundedness::Bounded);
        WindowJoinExec { spec, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    /// What is joined.
    pub fn spec(&self) -> &WindowJoinSpec {
        &self.spec
    }
}

/// Columns and filters of nothing.
fn has_no_rows(plan: &Arc<dyn ExecutionPlan>) -> bool {
    match plan.children()[..] {
        [] => plan.is::<EmptyExec>(),
        [child] => has_no_rows(child),
        _ => false,
    }
}

impl DisplayAs for WindowJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aggregates: Vec<String> = self.spec.aggregates.iter().map(|a| a.describe()).collect();
        write!(f, "WindowJoinExec: {}, aggregates=[{}]", self.spec.item, aggregates.join(", "))
    }
}

impl ExecutionPlan for WindowJoinExec {
    fn name(&self) -> &str {
        "WindowJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.spec.labels, &self.spec.events]
    }

    /// Of each partition of the events: they are merged as they are read, because the rule that merges partitions here takes
    /// the order away again (DataFusion 55: `CoalescePartitionsExec` under a node with an order of its own).
    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        // nothing is in order, and optimizer rules take the sort of nothing away
        let order = self.spec.order_of_events().filter(|_| !has_no_rows(&self.spec.events));
        let order = order.map(|by| OrderingRequirements::new(by.into()));
        vec![None, order]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        // Partitions set one after the other are not in order as a whole.
        vec![self.spec.labels.output_partitioning().partition_count() == 1, false]
    }

    /// A round-robin would destroy the order of the labels.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false, false]
    }

    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.spec.item.expressions().chain(self.spec.arguments.iter().map(|(_, e)| e)), f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(events), Some(labels), true) = (children.pop(), children.pop(), children.is_empty()) else {
            return Err(DataFusionError::Internal("WindowJoinExec has two children".into()));
        };
        Ok(Arc::new(WindowJoinExec::new(WindowJoinSpec { labels, events, ..self.spec.clone() })))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return Err(DataFusionError::Internal(format!("WindowJoinExec has one partition, not {}", partition + 1)));
        }
        Ok(stream::start(self.spec.clone(), context, &self.metrics))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        if self.spec.keeps_all_labels() { CardinalityEffect::Equal } else { CardinalityEffect::LowerEqual }
    }
}
