//! The stock rules of planning, which look before each step whether the statement is still wanted: planning waits for
//! nothing, so that nothing else could stop it. After each step long conditions are made shallow again.

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{AnalyzerRule, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::{PhysicalOptimizerContext, PhysicalOptimizerRule};
use datafusion::physical_plan::ExecutionPlan;

use crate::cancel::check_current;
use crate::plan::shallow::shallow;

/// The same state with rules that can be stopped.
pub fn cancelable(state: SessionState) -> SessionState {
    let analyzers = state.analyzer().rules.iter().map(|r| Arc::new(Rule(Arc::clone(r))) as Arc<dyn AnalyzerRule + Send + Sync>);
    let optimizers = state.optimizers().iter().map(|r| Arc::new(Rule(Arc::clone(r))) as Arc<dyn OptimizerRule + Send + Sync>);
    let physical =
        state.physical_optimizers().iter().map(|r| Arc::new(Rule(Arc::clone(r))) as Arc<dyn PhysicalOptimizerRule + Send + Sync>);
    let (analyzers, optimizers, physical) = (analyzers.collect(), optimizers.collect(), physical.collect());
    SessionStateBuilder::new_from_existing(state)
        .with_analyzer_rules(analyzers)
        .with_optimizer_rules(optimizers)
        .with_physical_optimizer_rules(physical)
        .build()
}

#[derive(Debug)]
struct Rule<R: ?Sized>(Arc<R>);

impl AnalyzerRule for Rule<dyn AnalyzerRule + Send + Sync> {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        check_current()?;
        self.0.analyze(plan, config)
    }
    fn name(&self) -> &str {
        self.0.name()
    }
}

impl OptimizerRule for Rule<dyn OptimizerRule + Send + Sync> {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }
    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        check_current()?;
        shallow(self.0.rewrite(plan, config)?)
    }
}

impl PhysicalOptimizerRule for Rule<dyn PhysicalOptimizerRule + Send + Sync> {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        check_current()?;
        self.0.optimize(plan, config)
    }
    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        check_current()?;
        self.0.optimize_with_context(plan, context)
    }
    fn name(&self) -> &str {
        self.0.name()
    }
    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}
