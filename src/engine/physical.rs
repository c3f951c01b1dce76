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
use crate::operator::window_join::WindowJoinPlanner;
use crate::plan::subqueries;

/// One step of a statement may make this part of the memory.
pub const STEP_SHARE: usize = 4;

/// The planner of one node, or of several.
pub type NodePlanner = Arc<dyn ExtensionPlanner + Send + Sync>;

/// The physical planner of all statements. What it needs of one statement is an extension of its session ([`PhysicalOptions`]).
#[derive(Debug, Default)]
pub struct Physical;

/// How a statement's commands are planned, and what it may use. Without it commands cannot be executed.
///
/// It is an extension and no field of the planner, because a session state whose planner is exchanged must be built anew,
/// with all of its functions: a fifth of the processor time of a small statement.
pub struct PhysicalOptions {
    pub commands: NodePlanner,
    /// Bytes.
    pub memory_limit: usize,
}

#[async_trait]
impl QueryPlanner for Physical {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> DfResult<Arc<dyn ExecutionPlan>> {
        let mut planners: Vec<NodePlanner> =
            vec![Arc::new(PitJoinPlanner), Arc::new(WindowJoinPlanner), Arc::new(OnlineLookupPlanner), Arc::new(BoundRowsPlanner)];
        let options = session.config().get_extension::<PhysicalOptions>();
        planners.extend(options.as_ref().map(|o| Arc::clone(&o.commands)));
        subqueries::check(plan)?;
        let physical = DefaultPhysicalPlanner::with_extension_planners(planners).create_physical_plan(plan, session).await?;
        match Cancel::current() {
            Some(cancel) => interruptible(physical, &cancel, options.map_or(usize::MAX, |o| o.memory_limit) / STEP_SHARE),
            None => Ok(physical),
        }
    }
}
