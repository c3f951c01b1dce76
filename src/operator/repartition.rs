//! One task feeds each repartition.
//!
//! RepartitionExec of DataFusion 55 keeps what does not fit into memory in spill files that all of its input tasks
//! write. With two files open, the reader may wait for the older one while its batch lies in the newer, and the writers
//! for the reader: a deadlock without an error (apache/datafusion#24883, mended in 56). With one input task there is one
//! open file, so the inputs are brought together first. A repartition that keeps an order has files of its own for each
//! input, and stays as it is.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary};

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
            let one = Arc::new(CoalescePartitionsExec::new(Arc::clone(repartition.input())));
            Ok(Transformed::yes(replace_children_if_necessary(plan, vec![one])?))
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
