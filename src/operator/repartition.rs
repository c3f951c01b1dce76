//! One task feeds each repartition.
//!
//! RepartitionExec of DataFusion 55 keeps what does not fit into memory in spill files that all of its input tasks
//! write. With two files open, the reader may wait for the older one while its batch lies in the newer, and the writers
//! for the reader: a deadlock without an error (apache/datafusion#24883, mended in 56). With one input task there is one
//! open file. So a repartition by hash becomes one repartition for each partition of its input ([`SplitRepartitionExec`]), whose
//! outputs are read together; any other has its inputs brought together first. A repartition that keeps an order has
//! files of its own for each input, and stays as it is.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::InterleaveExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, replace_children_if_necessary,
};

use super::shared_pool::SharedPool;
use crate::error::Error;

/// The physical optimizer rule. Run it after the rules that add or move repartitions.
#[derive(Debug, Default)]
pub struct OneRepartitionInput;

impl PhysicalOptimizerRule for OneRepartitionInput {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let Some(repartition) = plan.downcast_ref::<RepartitionExec>() else { return Ok(Transformed::no(plan)) };
            if repartition.preserve_order() || repartition.input().output_partitioning().partition_count() <= 1 {
                return Ok(Transformed::no(plan));
            }
            let input = Arc::clone(repartition.input());
            if matches!(repartition.partitioning(), Partitioning::Hash(..)) {
                let split = SplitRepartitionExec::try_new(input, repartition.partitioning().clone(), Arc::clone(repartition.properties()))?;
                return Ok(Transformed::yes(Arc::new(split)));
            }
            Ok(Transformed::yes(replace_children_if_necessary(plan, vec![Arc::new(CoalescePartitionsExec::new(input))])?))
        })
        .data()
    }

    fn name(&self) -> &str {
        "one_repartition_input"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A repartition by hash that has a repartition of its own for each partition of its input.
#[derive(Debug)]
pub struct SplitRepartitionExec {
    input: Arc<dyn ExecutionPlan>,
    partitioning: Partitioning,
    properties: Arc<PlanProperties>,
    parts: Vec<Arc<dyn ExecutionPlan>>,
    joined: InterleaveExec,
    contexts: Arc<OnceLock<Contexts>>,
}

/// The context of the statement, for the input, and the one of the parts, which count as one consumer of memory for
/// each of their outputs.
#[derive(Debug)]
struct Contexts {
    statement: Arc<TaskContext>,
    parts: Arc<TaskContext>,
}

impl Contexts {
    fn new(statement: Arc<TaskContext>) -> Self {
        let pool = Arc::new(SharedPool::new(Arc::clone(statement.memory_pool())));
        let runtime = RuntimeEnv { memory_pool: pool, ..RuntimeEnv::clone(&statement.runtime_env()) };
        // a repartition looks up no functions
        let parts = TaskContext::new(
            statement.task_id(),
            statement.session_id(),
            statement.session_config().clone(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            Arc::new(runtime),
        );
        Contexts { statement, parts: Arc::new(parts) }
    }
}

impl SplitRepartitionExec {
    /// By a hash of `keys`.
    pub fn by_hash(input: Arc<dyn ExecutionPlan>, keys: Vec<Arc<dyn PhysicalExpr>>, partitions: usize) -> Result<Self> {
        SplitRepartitionExec::over(input, Partitioning::Hash(keys, partitions))
    }

    pub fn partitioning(&self) -> &Partitioning {
        &self.partitioning
    }

    fn over(input: Arc<dyn ExecutionPlan>, partitioning: Partitioning) -> Result<Self> {
        let whole = RepartitionExec::try_new(input, partitioning.clone())?;
        let (input, properties) = (Arc::clone(whole.input()), Arc::clone(whole.properties()));
        SplitRepartitionExec::try_new(input, partitioning, properties)
    }

    fn try_new(input: Arc<dyn ExecutionPlan>, partitioning: Partitioning, properties: Arc<PlanProperties>) -> Result<Self> {
        let contexts = Arc::<OnceLock<Contexts>>::default();
        let part = |partition| {
            let one = Arc::new(OnePartition::new(Arc::clone(&input), partition, Arc::clone(&contexts)));
            Ok(Arc::new(RepartitionExec::try_new(one, partitioning.clone())?) as Arc<dyn ExecutionPlan>)
        };
        let parts = (0..input.output_partitioning().partition_count()).map(part).collect::<Result<Vec<_>>>()?;
        let joined = InterleaveExec::try_new(parts.clone())?;
        Ok(SplitRepartitionExec { input, partitioning, properties, parts, joined, contexts })
    }
}

impl DisplayAs for SplitRepartitionExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SplitRepartitionExec: partitioning={}, input_partitions={}", self.partitioning, self.parts.len())
    }
}

impl ExecutionPlan for SplitRepartitionExec {
    fn name(&self) -> &str {
        "SplitRepartitionExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        match &self.partitioning {
            Partitioning::Hash(exprs, _) => datafusion::physical_plan::apply_expression_roots(exprs.iter(), f),
            _ => Ok(TreeNodeRecursion::Continue),
        }
    }
    /// The parts are made anew, too: those of a plan that has run are used up.
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(SplitRepartitionExec::over(only(children)?, self.partitioning.clone())?))
    }
    fn execute(&self, partition: usize, cx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let contexts = self.contexts.get_or_init(|| Contexts::new(cx));
        self.joined.execute(partition, Arc::clone(&contexts.parts))
    }
    fn metrics(&self) -> Option<MetricsSet> {
        let mut all = MetricsSet::new();
        for metric in self.parts.iter().filter_map(|p| p.metrics()).flat_map(|m| m.iter().cloned().collect::<Vec<_>>()) {
            all.push(metric);
        }
        Some(all)
    }
}

fn only(mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    match (children.pop(), children.is_empty()) {
        (Some(input), true) => Ok(input),
        _ => Err(Error::internal("a repartition has one input").into()),
    }
}

/// One partition of a plan.
#[derive(Debug)]
struct OnePartition {
    input: Arc<dyn ExecutionPlan>,
    partition: usize,
    properties: Arc<PlanProperties>,
    contexts: Arc<OnceLock<Contexts>>,
}

impl OnePartition {
    fn new(input: Arc<dyn ExecutionPlan>, partition: usize, contexts: Arc<OnceLock<Contexts>>) -> Self {
        let properties = PlanProperties::clone(input.properties()).with_partitioning(Partitioning::UnknownPartitioning(1)).into();
        OnePartition { input, partition, properties, contexts }
    }
}

impl DisplayAs for OnePartition {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "OnePartition: {}", self.partition)
    }
}

impl ExecutionPlan for OnePartition {
    fn name(&self) -> &str {
        "OnePartition"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(OnePartition::new(only(children)?, self.partition, Arc::clone(&self.contexts))))
    }
    fn execute(&self, partition: usize, cx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        match partition {
            0 => self.input.execute(self.partition, self.contexts.get().map_or(cx, |c| Arc::clone(&c.statement))),
            _ => Err(Error::internal("there is one partition only").into()),
        }
    }
}
