//! Carries out commands.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use parking_lot::Mutex;

use super::push::PushSink;
use super::{alter_table, ddl, delete, garbage_collection, ingest, materialize, optimize, refresh, training, vacuum, verify};
use crate::catalog::ddl::{Ddl, Exists};
use crate::catalog::is_undone;
use crate::catalog::{Run, Runs};
use crate::clock::new_id;
use crate::engine::physical::NodePlanner;
use crate::error::{Error, Result};
use crate::model::{Column, FeatureView, Table, VersionSpec};
use crate::plan::answers;
use crate::plan::command::{Command, CommandNode, VerifyTarget};
use crate::plan::feature_table::RowSink;
use crate::plan::names::Names;
use crate::plan::target::Target;
use crate::resolve::effects::Effects;
use crate::resolve::resolver::Resolver;
use crate::services::Services;
use crate::services::boxed;
use crate::sql::cursor::NameRef;
use crate::store::offline::TableOptions;
use crate::table::managed;
use crate::table::swap::Replacement;
use crate::table::write::stream_of;

/// The jobs as what a statement's effects are carried out by.
pub struct Jobs;

impl Effects for Jobs {
    fn planner(&self, resolver: &Arc<Resolver>) -> NodePlanner {
        Arc::new(CommandPlanner { resolver: Arc::clone(resolver) })
    }

    fn row_sink(&self, services: &Arc<Services>, view: &Arc<FeatureView>, notices: Arc<Mutex<Vec<String>>>) -> Arc<dyn RowSink> {
        Arc::new(PushSink::new(Arc::clone(services), Arc::clone(view), notices))
    }
}

struct CommandPlanner {
    resolver: Arc<Resolver>,
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
        let schema = node.command.answer().unwrap_or_else(answers::count);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Some(Arc::new(CommandExec {
            command: Arc::clone(&node.command),
            note: node.describe(),
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
    /// For EXPLAIN.
    note: String,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    resolver: Arc<Resolver>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for CommandExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandExec({})", self.note)
    }
}

impl DisplayAs for CommandExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandExec: {}", self.note)
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
            note: self.note.clone(),
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

async fn run(
    resolver: &Arc<Resolver>,
    command: &Command,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    cx: &Arc<TaskContext>,
) -> Result<RecordBatch> {
    let services = &resolver.services;
    let query = || match inputs.first() {
        Some(plan) => Ok(Arc::clone(plan)),
        None => Err(Error::internal(format!("{} has no query", command.describe()))),
    };
    let rows = || crate::services::stall::execute(services, query()?, Arc::clone(cx));
    match command {
        Command::Nothing { .. } => count(0),
        Command::Use { .. }
        | Command::Set { .. }
        | Command::Reset { .. }
        | Command::Prepare { .. }
        | Command::Execute { .. }
        | Command::Deallocate { .. } => Err(Error::internal("a session carries this out itself")),
        Command::Ddl(change) => boxed(ddl::run(resolver, change)).await.and_then(|_| count(0)),
        Command::Delete(deletion) => count(delete::run(resolver, deletion, query()?, cx).await?),
        Command::AlterTable(alteration) => boxed(alter_table::run(resolver, alteration, cx)).await.and_then(|_| count(0)),
        Command::CreateTableAs { table, exists } => {
            let rows = if inputs.is_empty() { None } else { Some(rows()?) };
            count(boxed(create_table(resolver, table, *exists, rows)).await?)
        }
        Command::Ingest { table, mode } => count(boxed(ingest::run(resolver, table, *mode, cx)).await?),
        Command::CreateTrainingSet(spec) => count(boxed(training::create(resolver, spec, rows()?)).await?),
        Command::RebuildTrainingSet(name) => boxed(training::rebuild(resolver, name, cx)).await,
        Command::Refresh { views, range, at } => {
            runs_batch(boxed(refresh::run(resolver, &resolver.versions(views)?, *range, *at, cx)).await?)
        }
        Command::Optimize { view } => optimize::run(resolver, &resolver.version(view)?, cx).await,
        Command::Vacuum { view, retain, dry_run } => vacuum::run(resolver, &resolver.version(view)?, *retain, *dry_run).await,
        Command::Verify { target, sample } => verify::run(resolver, &verify_target(resolver, target)?, *sample).await,
        Command::Materialize { views, extent } => {
            let runs = boxed(materialize::run(resolver, &resolver.versions(views)?, *extent, cx)).await?;
            boxed(garbage_collection::behind_a_statement(services)).await;
            runs_batch(runs)
        }
    }
}

fn verify_target(resolver: &Resolver, target: &VerifyTarget) -> Result<Target> {
    let (name, version) = match target {
        VerifyTarget::FeatureView(id) => (&resolver.version(id)?.name.clone(), Some(VersionSpec::Version(id.version))),
        VerifyTarget::Service(name) => (name, None),
    };
    let n = NameRef { schema: Some(name.schema.clone()), name: name.name.clone(), version, span: None };
    Target::find(resolver, &n)?.ok_or_else(|| Error::not_found(format!("{name} is no longer there")))
}

async fn create_table(resolver: &Arc<Resolver>, table: &Table, exists: Exists, rows: Option<SendableRecordBatchStream>) -> Result<u64> {
    let services = &resolver.services;
    let stored = match rows {
        None => {
            services.store.create_table(&table.location, table_schema(table), TableOptions::default()).await?;
            0
        }
        Some(rows) => {
            let made = managed::create_filled(services, &table.location, table_schema(table), rows, new_id()).await;
            made.map_err(|e| e.context(format!("table {}", table.name)))?.0
        }
    };
    let replacement = match boxed(announced(resolver, table, exists)).await {
        Ok(r) => r,
        Err(e) => {
            services.store.delete_table(&table.location).await?;
            return Err(e);
        }
    };
    let announced = replacement.as_ref().map(|r| r.announcement().clone());
    match boxed(ddl::run(resolver, &Ddl::CreateTable { table: table.clone(), exists, announced })).await {
        Ok(true) => Ok(stored),
        Ok(false) => {
            services.store.delete_table(&table.location).await?;
            resolver.notice(format!("table {} exists already; nothing was changed", table.name));
            Ok(0)
        }
        Err(e) => {
            if is_undone(&e) {
                if let Some(r) = &replacement {
                    r.withdraw(services).await;
                }
                services.store.delete_table(&table.location).await?;
            }
            Err(e)
        }
    }
}

fn table_schema(table: &Table) -> SchemaRef {
    let field = |c: &Column| Field::new(&c.name, c.data_type.arrow().clone(), true);
    Arc::new(Schema::new(table.columns.iter().map(field).collect::<Vec<_>>()))
}

/// Announces a replacement whose query reads the table that it replaces; `None`: it does not, and wins over what is there.
async fn announced(resolver: &Resolver, table: &Table, exists: Exists) -> Result<Option<Replacement>> {
    match resolver.reads(&table.name).filter(|_| exists == Exists::Replace) {
        Some(read) => Replacement::announce(&resolver.services, &table.name, &read).await.map(Some),
        None => Ok(None),
    }
}

pub fn count(n: u64) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new(answers::count(), vec![Arc::new(UInt64Array::from(vec![n]))])?)
}

fn runs_batch(runs: Vec<Run>) -> Result<RecordBatch> {
    Runs::to_batch(&runs)
}
