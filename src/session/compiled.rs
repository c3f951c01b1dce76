//! Lookups planned once: one physical plan per lookup and catalog version, run with other rows each time.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Result as DfResult;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use futures::TryStreamExt;
use futures::future::BoxFuture;

use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::Column;
use crate::model::exact::{exactly, unlike};
use crate::operator::bound_rows::{BoundRows, BoundRowsExec};
use crate::operator::online_lookup::{LookupContext, LookupInstant, OnlineLookupExec};
use crate::plan::bound_rows::{over_bound_rows, parameter_schema};
use crate::services::{Services, lookups};

/// A lookup that is planned, for any number of requests.
pub struct Compiled {
    /// The catalog that its names were read from.
    pub catalog_version: u64,
    /// What it wants, one column per parameter; empty where it came from a text with parameters.
    pub wanted: Vec<Column>,
    pub schema: SchemaRef,
    /// The columns of the plan before rows were bound: what a client is told of.
    pub described: SchemaRef,
    rows: SchemaRef,
    plan: Arc<dyn ExecutionPlan>,
    /// The plan's steps, where it has no others than lookups and projections.
    steps: Option<Vec<Step>>,
    context: Arc<dyn LookupContext>,
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compiled(catalog version {}, {})", self.catalog_version, self.schema)
    }
}

/// Plans `plan` for bound rows of these types; `None` where one run over many rows would mean something else.
pub fn compile<'a>(
    services: &'a Arc<Services>,
    mut state: SessionState,
    catalog_version: u64,
    plan: &'a LogicalPlan,
    types: &'a [DataType],
    wanted: Vec<Column>,
) -> BoxFuture<'a, Result<Option<Compiled>>> {
    Box::pin(async move {
        let described = Arc::new(plan.schema().as_arrow().clone());
        let Some(plan) = over_bound_rows(plan, types)? else { return Ok(None) };
        state.config_mut().options_mut().execution.target_partitions = 1;
        let handle = lookups(services).await?;
        let context = Arc::clone(&handle.0);
        state.config_mut().set_extension(handle);
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let physical = state.create_physical_plan(&plan).await?;
        Ok(Some(Compiled {
            catalog_version,
            wanted,
            schema,
            described,
            rows: Arc::new(parameter_schema(types)),
            steps: steps(&physical),
            plan: physical,
            context,
            config: state.config().clone(),
            runtime: Arc::clone(state.runtime_env()),
        }))
    })
}

enum Step {
    Project(Vec<ProjectionExpr>, SchemaRef),
    Lookup(OnlineLookupExec),
}

/// The steps of a plan over bound rows, the first one first; `None` where there are others than we can do.
fn steps(plan: &Arc<dyn ExecutionPlan>) -> Option<Vec<Step>> {
    let (mut below, input) = match plan.children()[..] {
        // by name: another leaf may be around it, which keeps its order
        [] => return (plan.name() == BoundRowsExec::NAME).then(Vec::new),
        // the planner puts it above leaves, so that their streams let others run
        [input] if plan.is::<CooperativeExec>() => return steps(input),
        [input] => (steps(input)?, input),
        _ => return None,
    };
    below.push(match plan.downcast_ref::<ProjectionExec>() {
        Some(p) => Step::Project(p.expr().to_vec(), p.schema()),
        None => Step::Lookup(plan.downcast_ref::<OnlineLookupExec>()?.again(Arc::clone(input))),
    });
    Some(below)
}

impl Compiled {
    /// Answers one row per row of `columns` (one per parameter, in order, of the declared types), in order.
    /// `at`: judge rows at this instant instead of now.
    pub async fn run(&self, columns: Vec<ArrayRef>, at: Option<Micros>) -> Result<Vec<RecordBatch>> {
        let rows = RecordBatch::try_new(Arc::clone(&self.rows), columns)?;
        match &self.steps {
            Some(steps) => self.walk(steps, rows, at).await.map(|answer| vec![answer]),
            None => self.execute(rows, at).await,
        }
    }

    /// Whether it runs without streams.
    #[cfg(test)]
    pub fn is_plain(&self) -> bool {
        self.steps.is_some()
    }

    /// What the plan would do, without its streams.
    async fn walk(&self, steps: &[Step], mut rows: RecordBatch, at: Option<Micros>) -> Result<RecordBatch> {
        for step in steps {
            rows = match step {
                Step::Lookup(lookup) => lookup.look_up(&self.context, at, &self.runtime.memory_pool, &rows).await?,
                Step::Project(list, schema) => {
                    let count = rows.num_rows();
                    let columns = list.iter().map(|e| e.expr.evaluate(&rows)?.into_array(count)).collect::<DfResult<Vec<_>>>()?;
                    let options = RecordBatchOptions::new().with_row_count(Some(count));
                    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?
                }
            };
        }
        Ok(rows)
    }

    async fn execute(&self, rows: RecordBatch, at: Option<Micros>) -> Result<Vec<RecordBatch>> {
        let mut config = self.config.clone();
        config.set_extension(Arc::new(BoundRows(rows)));
        if let Some(at) = at {
            config.set_extension(Arc::new(LookupInstant(at)));
        }
        // nothing looks functions up at execution
        let (scalar, higher, aggregate, window) = Default::default();
        let task = TaskContext::new(None, String::new(), config, scalar, higher, aggregate, window, Arc::clone(&self.runtime));
        // a plan keeps the metrics of every execution: each gets a fresh one
        let plan = reset_plan_states(Arc::clone(&self.plan))?;
        Ok(execute_stream(plan, Arc::new(task))?.try_collect().await?)
    }

    /// The parameters, taken from a client's columns by name.
    pub fn by_name(&self, rows: &RecordBatch, target: &str) -> Result<Vec<ArrayRef>> {
        let given = rows.schema();
        let names = || given.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
        let wanted = || self.wanted.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        self.wanted
            .iter()
            .map(|c| {
                let mut found = given.fields().iter().enumerate().filter(|(_, f)| *f.name() == c.name).map(|(i, _)| i);
                let Some(i) = found.next() else {
                    return Err(Error::not_found(format!("lookup of {target}: the rows have no column {:?}", c.name)).with_hint(format!(
                        "their columns are {}; wanted are {}",
                        names(),
                        wanted()
                    )));
                };
                if found.next().is_some() {
                    return Err(Error::invalid(format!("lookup of {target}: the rows have column {:?} twice", c.name)));
                }
                declared(rows.column(i), c, target)
            })
            .collect()
    }
}

/// Values in the declared type of their column; what a cast would change is refused.
fn declared(values: &ArrayRef, column: &Column, target: &str) -> Result<ArrayRef> {
    let (have, want) = (values.data_type(), column.data_type.arrow());
    let refused = |why: String| {
        Error::invalid(format!("lookup of {target}: {:?} is {}, but {why}", column.name, column.data_type))
            .with_hint(format!("bring values of type {}", column.data_type))
    };
    if unlike(have, want) {
        return Err(refused(format!("the values brought are {have}")));
    }
    exactly(values, want).map_err(|e| refused(e.message().to_string()))
}
