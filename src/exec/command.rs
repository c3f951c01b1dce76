//! Carries out commands.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::resolve::Resolver;
use super::write::stream_of;
use super::{boxed, delete, is_undone, materialize, optimize, refresh, sweep, table, table_swap, training, vacuum, verify};
use crate::catalog::{CatalogChange, CatalogSnapshot, PutMode, Run, Runs};
use crate::clock::new_id;
use crate::error::{Error, Result};
use crate::model::{FeatureView, Table};
use crate::plan::command::{Command, CommandNode, count_schema};
use crate::statement::unread;
use crate::store::offline::TableOptions;

#[derive(Debug)]
pub struct CommandPlanner {
    pub resolver: Arc<Resolver>,
}

#[async_trait]
impl ExtensionPlanner for CommandPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _cx: &datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<CommandNode>() else { return Ok(None) };
        let schema = node.command.answer().unwrap_or_else(count_schema);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Some(Arc::new(CommandExec {
            command: Arc::clone(&node.command),
            inputs: inputs.to_vec(),
            resolver: Arc::clone(&self.resolver),
            schema,
            properties: Arc::new(properties),
        })))
    }
}

/// The physical leaf of a command: executing it carries it out.
struct CommandExec {
    command: Arc<Command>,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    resolver: Arc<Resolver>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for CommandExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandExec({})", self.command.describe())
    }
}

impl DisplayAs for CommandExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandExec: {}", self.command.describe())
    }
}

impl ExecutionPlan for CommandExec {
    fn name(&self) -> &str {
        "CommandExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }
    fn maintains_input_order(&self) -> Vec<bool> {
        // rows are stored as ORDER BY gives them: the optimizer must not take the sort for useless
        vec![true; self.inputs.len()]
    }
    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn datafusion::physical_plan::PhysicalExpr>) -> DfResult<datafusion::common::tree_node::TreeNodeRecursion>,
    ) -> DfResult<datafusion::common::tree_node::TreeNodeRecursion> {
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    }
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(CommandExec {
            command: Arc::clone(&self.command),
            inputs: children,
            resolver: Arc::clone(&self.resolver),
            schema: Arc::clone(&self.schema),
            properties: Arc::clone(&self.properties),
        }))
    }
    fn execute(&self, _partition: usize, cx: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let (command, inputs, resolver) = (Arc::clone(&self.command), self.inputs.clone(), Arc::clone(&self.resolver));
        let work: futures::future::BoxFuture<'static, Result<RecordBatch>> =
            Box::pin(async move { run(&resolver, &command, inputs, &cx).await });
        Ok(stream_of(Arc::clone(&self.schema), futures::stream::once(work)))
    }
}

/// Something of the session itself, which the session does after planning.
pub fn is_of_session(c: &Command) -> bool {
    matches!(c, Command::Use { .. } | Command::Set { .. } | Command::Reset { .. })
}

async fn run(
    resolver: &Arc<Resolver>,
    command: &Command,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    cx: &Arc<TaskContext>,
) -> Result<RecordBatch> {
    let services = &resolver.services;
    let registry = &services.registry;
    let input = || match inputs.first() {
        Some(plan) => super::stall::execute(services, Arc::clone(plan), Arc::clone(cx)),
        None => Err(Error::internal(format!("{} has no query", command.describe()))),
    };
    match command {
        Command::Nothing { .. } => count(0),
        Command::Use { .. } | Command::Set { .. } | Command::Reset { .. } => Err(Error::internal("a session carries this out itself")),
        Command::Change { tables, build, .. } => {
            // a catalog entry never names a table that is not there; a table that none names does no harm
            for t in tables {
                let options = TableOptions { stats_columns: t.stats_columns.clone(), watermark: true, ..Default::default() };
                services.store.create_table(&t.location, Arc::clone(&t.schema), options).await?;
            }
            let needed = AtomicBool::new(false);
            let done = registry
                .commit(None, |c| {
                    let changes = build(c)?;
                    needed.store(!changes.is_empty(), Ordering::Relaxed);
                    Ok(changes)
                })
                .await;
            // no change: somebody else made the object first, and IF NOT EXISTS is content with it
            let unused = done.as_ref().map_or_else(is_undone, |_| !needed.into_inner());
            if unused {
                for t in tables {
                    if let Err(second) = services.store.delete_table(&t.location).await {
                        tracing::warn!(location = t.location, error = %second, "a table that was not needed could not be removed");
                    }
                }
            }
            done.map(|_| ()).and_then(|()| count(0))
        }
        Command::SetOffline { view, build, .. } => {
            registry.commit(None, |c| build(c)).await?;
            boxed(clear_online(resolver, view)).await;
            count(0)
        }
        Command::DropFeatureView { views, build, .. } => {
            registry.commit(None, |c| build(c)).await?;
            let mut left = false;
            for view in views {
                left |= !boxed(reclaim(resolver, view)).await;
            }
            if !left {
                boxed(sweep::behind_a_statement(services)).await;
            }
            count(0)
        }
        Command::Delete(deletion) => match inputs.first() {
            Some(query) => count(delete::run(resolver, deletion, Arc::clone(query), cx).await?),
            None => Err(Error::internal("a DELETE has no query")),
        },
        Command::DropTable { name } => {
            let t = Arc::clone(resolver.catalog.table(name)?);
            let drop = |c: &CatalogSnapshot| {
                c.table(name)?;
                unread(c, name, None).map(|()| vec![CatalogChange::DropTable(name.clone())])
            };
            registry.commit(None, drop).await?;
            if t.managed {
                training::reclaim(resolver, &t.location).await;
            }
            count(0)
        }
        Command::DropTrainingSet { name } => {
            let t = Arc::clone(resolver.catalog.training_set(name)?);
            registry.commit(None, |c| c.training_set(name).map(|_| vec![CatalogChange::DropTrainingSet(name.clone())])).await?;
            training::release(resolver, &t).await;
            count(0)
        }
        Command::CreateTableAs { table, or_replace, if_not_exists } => {
            boxed(create_table(resolver, table, *or_replace, *if_not_exists, &inputs, input)).await
        }
        Command::CreateTrainingSet(spec) => count(boxed(training::create(resolver, spec, input()?)).await?),
        Command::Rebuild { name } => boxed(training::rebuild(resolver, name, cx)).await,
        Command::Refresh { views, range, at } => runs_batch(boxed(refresh::run(resolver, views, *range, *at, cx)).await?),
        Command::Optimize { view } => optimize::run(resolver, view, cx).await,
        Command::Vacuum { view, retain, dry_run } => vacuum::run(resolver, view, *retain, *dry_run).await,
        Command::Verify { target, sample } => verify::run(resolver, target, *sample).await,
        Command::Materialize { views, extent } => {
            let runs = boxed(materialize::run(resolver, views, *extent, cx)).await?;
            boxed(sweep::behind_a_statement(services)).await;
            runs_batch(runs)
        }
    }
}

async fn create_table(
    resolver: &Arc<Resolver>,
    table: &Table,
    or_replace: bool,
    if_not_exists: bool,
    inputs: &[Arc<dyn ExecutionPlan>],
    input: impl Fn() -> Result<SendableRecordBatchStream>,
) -> Result<RecordBatch> {
    let services = &resolver.services;
    let fields = table
        .columns
        .iter()
        .map(|c| datafusion::arrow::datatypes::Field::new(&c.name, c.data_type.arrow().clone(), true))
        .collect::<Vec<_>>();
    let schema = Arc::new(datafusion::arrow::datatypes::Schema::new(fields));
    let rows = match inputs.is_empty() {
        true => {
            services.store.create_table(&table.location, schema, TableOptions::default()).await?;
            0
        }
        false => {
            let made = table::create_filled(services, &table.location, schema, input()?, new_id()).await;
            made.map_err(|e| e.context(format!("table {}", table.name)))?.0
        }
    };
    let replacement = match boxed(announced(resolver, table, or_replace)).await {
        Ok(r) => r,
        Err(e) => {
            services.store.delete_table(&table.location).await?;
            return Err(e);
        }
    };
    let old = parking_lot::Mutex::new(None);
    let needed = AtomicBool::new(true);
    let done = services
        .registry
        .commit(None, |c| {
            c.schema(&table.name.schema)?;
            let mode = match (c.relation(&table.name), &replacement) {
                (Some(crate::catalog::Relation::Table(t)), Some(r)) if r.stands(t) => {
                    *old.lock() = Some(t.location.clone());
                    PutMode::Replace
                }
                (_, Some(_)) => return Err(table_swap::changed(&table.name)),
                (None, _) => PutMode::Create,
                (Some(_), _) if if_not_exists => {
                    needed.store(false, Ordering::Relaxed);
                    return Ok(vec![]);
                }
                (Some(crate::catalog::Relation::Table(t)), _) if or_replace => {
                    *old.lock() = t.managed.then(|| t.location.clone());
                    PutMode::Replace
                }
                (Some(r), _) => return Err(Error::already_exists(format!("{} {} exists already", r.kind(), table.name))),
            };
            Ok(vec![CatalogChange::PutTable(table.clone(), mode)])
        })
        .await;
    if let Err(e) = done {
        if is_undone(&e) {
            if let Some(r) = &replacement {
                r.withdraw(services).await;
            }
            services.store.delete_table(&table.location).await?;
        }
        return Err(e);
    }
    if !needed.into_inner() {
        services.store.delete_table(&table.location).await?;
        resolver_notice(resolver, format!("table {} exists already; nothing was changed", table.name));
        return count(0);
    }
    let old = old.lock().take();
    if let Some(location) = old {
        training::reclaim(resolver, &location).await;
    }
    count(rows)
}

/// Announces a replacement whose query reads the table that it replaces; `None`: it does not, and wins over what is there.
async fn announced(resolver: &Resolver, table: &Table, or_replace: bool) -> Result<Option<table_swap::Replacement>> {
    match resolver.reads(&table.name).filter(|_| or_replace) {
        Some(read) => table_swap::Replacement::announce(&resolver.services, &table.name, &read).await.map(Some),
        None => Ok(None),
    }
}

/// Frees what a dropped view version held: its online keys, and its table where no training set pins it. `false`:
/// the online store could not be cleared.
async fn reclaim(resolver: &Arc<Resolver>, view: &FeatureView) -> bool {
    let cleared = boxed(clear_online(resolver, view)).await;
    training::reclaim(resolver, &view.location).await;
    cleared
}

/// Removes the online rows of a view; `false`: the online store could not be cleared.
async fn clear_online(resolver: &Arc<Resolver>, view: &FeatureView) -> bool {
    if !view.online {
        return true;
    }
    let freed = async { resolver.services.online().await?.drop_view(&resolver.services.online_view(view)).await };
    let failed = freed.await.err();
    if let Some(e) = &failed {
        resolver_notice(resolver, sweep::left_behind(view, e));
    }
    failed.is_none()
}

fn resolver_notice(resolver: &Resolver, message: String) {
    use crate::plan::names::Names;
    resolver.notice(message);
}

pub fn count(n: u64) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new(count_schema(), vec![Arc::new(UInt64Array::from(vec![n]))])?)
}

fn runs_batch(runs: Vec<Run>) -> Result<RecordBatch> {
    Runs::to_batch(&runs)
}
