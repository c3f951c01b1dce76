//! The leaf of a plan that is run again and again with other rows.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use crate::error::Error;
use crate::plan::bound_rows::BoundRowsNode;

/// The rows of one execution, as an extension of its task: one column per parameter.
#[derive(Debug)]
pub struct BoundRows(pub RecordBatch);

/// Plans [`BoundRowsNode`].
#[derive(Debug, Default)]
pub struct BoundRowsPlanner;

#[async_trait]
impl ExtensionPlanner for BoundRowsPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical: &[&LogicalPlan],
        _inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<BoundRowsNode>() else { return Ok(None) };
        let schema = Arc::clone(datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(node).inner());
        Ok(Some(Arc::new(BoundRowsExec::new(schema))))
    }
}

/// Gives the rows that its task was started with ([`BoundRows`]), as one batch.
#[derive(Debug)]
pub struct BoundRowsExec {
    properties: Arc<PlanProperties>,
}

impl BoundRowsExec {
    /// What it is called in plans.
    pub const NAME: &'static str = "BoundRowsExec";

    fn new(schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        BoundRowsExec { properties: Arc::new(properties) }
    }
}

impl DisplayAs for BoundRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "BoundRowsExec")
    }
}

impl ExecutionPlan for BoundRowsExec {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { Err(Error::internal("bound rows have no input").into()) }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, _partition: usize, task: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let rows = task.session_config().get_extension::<BoundRows>().ok_or_else(|| Error::internal("no rows are bound"))?;
        let schema = self.schema();
        if rows.0.num_columns() != schema.fields().len() {
            return Err(Error::internal("the bound rows have another number of columns than the plan").into());
        }
        Ok(Box::pin(MemoryStream::try_new(vec![rows.0.clone()], schema, None)?))
    }
}
