//! The session state that every statement begins from: functions, rules and limits, without tables.

use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;

use super::physical::{Physical, STEP_SHARE};
use crate::clock::Micros;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::plan::blame::blame;

/// The unit of Parquet's INT96 instants; by default they would be nanoseconds, which end in 2262.
pub const INT96: &str = "us";

pub fn base_state(config: &Config, runtime: Arc<RuntimeEnv>) -> Result<SessionState> {
    let mut c = SessionConfig::new()
        .with_target_partitions(config.threads.max(1))
        .with_batch_size(config.batch_size)
        .with_information_schema(true)
        .with_default_catalog_and_schema(crate::sql::cursor::CATALOG, &config.schema)
        .with_create_default_catalog_and_schema(false);
    let o = c.options_mut();
    o.sql_parser.collect_spans = true;
    // ORDER BY of a subquery on the left of a point-in-time join is the order of the result
    o.sql_parser.enable_subquery_sort_elimination = false;
    o.execution.time_zone = Some("+00:00".into());
    o.execution.parquet.pushdown_filters = false;
    // old files of Spark and Impala: their instants go beyond the years of nanoseconds
    o.execution.parquet.coerce_int96 = Some(INT96.into());
    let first =
        std::iter::once(Arc::new(crate::operator::element_functions::PlaceParameters) as Arc<dyn PhysicalOptimizerRule + Send + Sync>);
    let mut state = SessionStateBuilder::new()
        .with_config(c)
        .with_runtime_env(runtime)
        .with_expr_planners(vec![Arc::new(crate::plan::interval_times::IntervalTimes)])
        .with_default_features()
        .with_query_planner(Arc::new(Physical))
        .with_type_planner(Arc::new(super::time::Types))
        .with_analyzer_rule(Arc::new(crate::plan::checked::CheckArithmetic))
        .with_analyzer_rule(Arc::new(super::functions::FloatExtremes))
        .with_optimizer_rule(Arc::new(crate::plan::pit_join::rules::PushLabelFilters))
        .with_optimizer_rule(Arc::new(crate::plan::windows::rules::KeepWantedAggregates))
        .with_physical_optimizer_rules(first.chain(PhysicalOptimizer::new().rules).collect())
        .with_physical_optimizer_rule(Arc::new(crate::operator::input_order::KeepInputOrder))
        .with_physical_optimizer_rule(Arc::new(crate::operator::repartition::OneRepartitionInput))
        .with_physical_optimizer_rule(Arc::new(crate::operator::element_functions::CheckParameters))
        .build();
    super::functions::correct(&mut state)?;
    super::time::correct(&mut state)?;
    super::capped::cap(&mut state, config.memory_limit / STEP_SHARE)?;
    Ok(super::cancelable::cancelable(state))
}

/// An error of a statement that runs, with what it is about.
pub fn explained(e: impl Into<Error>, plan: &LogicalPlan, state: &SessionState) -> Error {
    let coerced = || state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {}).ok();
    blame(e.into(), plan, coerced)
}

/// Makes `now()` mean an instant.
pub fn set_instant(state: &mut SessionState, at: Micros) {
    let config = Arc::clone(state.config_options());
    let props = state.execution_props_mut();
    props.query_execution_start_time = chrono::DateTime::from_timestamp_micros(at);
    props.config_options = Some(config);
}
