//! From a logical plan to a physical one: the stock planner with our nodes put in.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result as DfResult;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use crate::cancel::Cancel;
use crate::operator::bound_rows::BoundRowsPlanner;
use crate::operator::interruptible::interruptible;
use crate::operator::online_lookup::OnlineLookupPlanner;
use crate::operator::pit_join::PitJoinPlanner;
use crate::plan::subqueries;

/// One step of a statement may make this part of the memory.
pub const STEP_SHARE: usize = 4;

/// The planner of one node, or of several.
pub type NodePlanner = Arc<dyn ExtensionPlanner + Send + Sync>;

/// The physical planner of all statements.
#[derive(Default)]
pub struct Physical {
    /// For commands; without one they cannot be executed.
    commands: Option<NodePlanner>,
    /// What a statement may use.
    memory_limit: Option<usize>,
}

impl Physical {
    pub fn with(commands: NodePlanner, memory_limit: usize) -> Self {
        Physical { commands: Some(commands), memory_limit: Some(memory_limit) }
    }
}

impl std::fmt::Debug for Physical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Physical")
    }
}

#[async_trait]
impl QueryPlanner for Physical {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> DfResult<Arc<dyn ExecutionPlan>> {
        let mut planners: Vec<NodePlanner> = vec![Arc::new(PitJoinPlanner), Arc::new(OnlineLookupPlanner), Arc::new(BoundRowsPlanner)];
        planners.extend(self.commands.clone());
        subqueries::check(plan)?;
        let physical = DefaultPhysicalPlanner::with_extension_planners(planners).create_physical_plan(plan, session).await?;
        match Cancel::current() {
            Some(cancel) => interruptible(physical, &cancel, self.memory_limit.unwrap_or(usize::MAX) / STEP_SHARE),
            None => Ok(physical),
        }
    }
}
