//! The pipeline: an open warehouse, and the way of a statement through it.
//!
//! ```text
//! prepare: text ─sql─▶ Statement ─statement─▶ LogicalPlan          (names looked up, nothing changed)
//! run:     the same with parameters ─engine─▶ ExecutionPlan ─▶ rows  (effects happen here)
//! ```

#[cfg(test)]
mod commands;
mod compiled;
mod described;
mod listing;
mod lookup;
mod named;
mod parameters;
mod plans;
mod prepared;
mod time_limit;
#[cfg(test)]
mod travel;
mod variables;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{SchemaRef, UInt64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};

use crate::cancel::Cancel;
use crate::catalog::CatalogSnapshot;
use crate::clock::{Clock, Micros};
use crate::config::Config;
use crate::engine::session_state::explained;
use crate::engine::workers::Workers;
use crate::error::{Error, Result};
use crate::job::command::Jobs;
use crate::job::ingest::IngestRows;
use crate::model::Name;
use crate::operator::bound_rows::BoundRows;
pub use crate::plan::StatementKind;
use crate::plan::blame::place_of_outer;
use crate::plan::command::{Command, CommandNode};
use crate::plan::online_lookup::asks_online;
use crate::progress::Progress;
use crate::resolve::planner::{StatementPlanner, state};
use crate::resolve::resolver::{Resolver, Scope};
use crate::services::{Services, boxed, stall};
use crate::statement::{self, Planned};

pub use self::listing::TableInfo;
pub use self::lookup::LookupRequest;
use self::plans::Plans;
pub use self::prepared::Prepared;
pub use crate::plan::command::IngestMode;

/// One open warehouse in this process.
#[derive(Debug)]
pub struct Engine {
    services: Arc<Services>,
    lookups: Plans,
}

pub enum Outcome {
    Rows(SendableRecordBatchStream),
    /// Rows affected.
    Updated(u64),
}

/// A statement that runs, or is done.
pub struct Started {
    pub outcome: Outcome,
    pub kind: StatementKind,
    /// What a shell prints when it is done: `CREATE ENTITY`, `INSERT`, …
    pub tag: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// `warning` or `notice`.
    pub level: &'static str,
    pub message: String,
}

/// A statement that is planned and has begun.
enum Ready {
    /// It changed the session and is over.
    Done,
    Rows {
        rows: SendableRecordBatchStream,
        kind: StatementKind,
        tag: &'static str,
    },
}

/// The same of a statement that was planned a moment ago.
struct Begun {
    ready: Ready,
    kind: StatementKind,
    tag: &'static str,
    looks_up: bool,
}

/// Rows that a statement is given beside its text.
enum Handed {
    Nothing,
    Bound(BoundRows),
    Ingest(IngestRows),
}

/// One user's conversation: current schema, settings, the notices of the last statement.
#[derive(Debug, Clone)]
pub struct Session {
    engine: Arc<Engine>,
    own: Arc<Own>,
}

/// Notices of the statement at hand, filled while it runs.
type Notices = Arc<Mutex<Vec<String>>>;

#[derive(Debug)]
struct Own {
    schema: RwLock<String>,
    variables: RwLock<BTreeMap<String, String>>,
    /// What PREPARE keeps.
    named: named::Names,
    /// Of the last statement that was not SHOW WARNINGS, and of the one before it.
    notices: Mutex<Notices>,
}

impl Engine {
    pub async fn open(config: Config, clock: Clock) -> Result<Arc<Engine>> {
        Engine::open_with(config, clock, Progress::default()).await
    }

    /// As `open`; long work is reported to `progress`.
    pub async fn open_with(config: Config, clock: Clock, progress: Progress) -> Result<Arc<Engine>> {
        let lookups = Plans::new(config.online_settings.kept_plans);
        Ok(Arc::new(Engine { services: Services::open(config, clock, progress).await?, lookups }))
    }

    pub fn config(&self) -> &Config {
        &self.services.config
    }

    pub fn clock(&self) -> &Clock {
        &self.services.clock
    }

    pub fn progress(&self) -> &Progress {
        &self.services.progress
    }

    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    pub fn session(self: &Arc<Self>) -> Session {
        let own = Own {
            schema: RwLock::new(self.config().schema.clone()),
            variables: RwLock::default(),
            named: Default::default(),
            notices: Mutex::default(),
        };
        Session { engine: Arc::clone(self), own: Arc::new(own) }
    }
}

impl Session {
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn services(&self) -> &Arc<Services> {
        &self.engine.services
    }

    fn workers(&self) -> &Workers {
        &self.services().workers
    }

    /// Cuts a script into statements: (text, line, column of its first character in the script).
    pub fn split(text: &str) -> Result<Vec<(String, u64, u64)>> {
        Ok(crate::sql::split(text)?.into_iter().map(|p| (p.text, p.line, p.column)).collect())
    }

    /// The names of one statement, at one catalog version and one instant.
    async fn resolver(&self, parameters: Vec<ScalarValue>, notices: Notices) -> Result<Arc<Resolver>> {
        let catalog = self.services().registry.snapshot().await?;
        Ok(self.resolver_at(catalog, parameters, notices))
    }

    fn resolver_at(&self, catalog: Arc<CatalogSnapshot>, parameters: Vec<ScalarValue>, notices: Notices) -> Arc<Resolver> {
        let schema = self.current_schema();
        let scope =
            Scope { schema, instant: self.services().clock.now(), parameters, notices, pins: Default::default(), effects: Arc::new(Jobs) };
        Resolver::new(Arc::clone(self.services()), catalog, scope)
    }

    fn plan<'a>(&'a self, sql: &'a str, resolver: &'a Arc<Resolver>) -> BoxFuture<'a, Result<Planned>> {
        Box::pin(self.plan_one(sql, resolver))
    }

    async fn plan_one(&self, sql: &str, resolver: &Arc<Resolver>) -> Result<Planned> {
        let limit = self.engine.config().server.max_statement_bytes;
        if sql.len() > limit {
            return Err(Error::exhausted(format!("the statement has {} bytes, more than the limit of {limit}", sql.len())));
        }
        let statement = statement::parse(sql)?;
        let warnings = self.notices().into_iter().map(|n| (n.level.to_string(), n.message)).collect();
        statement.plan(&StatementPlanner::new(Arc::clone(resolver), warnings)).await
    }

    async fn begin(&self, planned: Planned, resolver: &Arc<Resolver>, handed: Handed) -> Result<Ready> {
        let plan = planned.plan;
        if let Some(command) = session_command(&plan) {
            return self.of_session(&command, resolver).await;
        }
        let mut state = state(resolver, &self.current_schema())?;
        self.apply_variables(&mut state);
        match handed {
            Handed::Nothing => {}
            Handed::Bound(rows) => state.config_mut().set_extension(Arc::new(rows)),
            Handed::Ingest(rows) => state.config_mut().set_extension(Arc::new(rows)),
        }
        let needs_online = asks_online(&plan)?.is_some();
        if needs_online {
            let handle = crate::services::lookups(self.services()).await?;
            state.config_mut().set_extension(handle);
        }
        let copies = matches!(plan, LogicalPlan::Copy(_));
        let physical = state.create_physical_plan(&plan).await.map_err(|e| explained(e, &plan, &state))?;
        let cx = Arc::new(TaskContext::from(&state));
        let stream = if planned.kind == StatementKind::Query || copies {
            stall::execute(self.services(), physical, cx)?
        } else {
            stall::execute_effect(physical, cx)?
        };
        let schema = stream.schema();
        let rows = stream.map_err(move |e| DataFusionError::from(explained(e, &plan, &state)));
        Ok(Ready::Rows { rows: Box::pin(RecordBatchStreamAdapter::new(schema, rows)), kind: planned.kind, tag: planned.tag })
    }

    async fn finish(&self, ready: Ready, cancel: &Cancel) -> Result<Outcome> {
        let Ready::Rows { rows, kind, tag } = ready else { return Ok(Outcome::Updated(0)) };
        if kind == StatementKind::Query {
            return Ok(Outcome::Rows(self.workers().drive(cancel, rows)));
        }
        // effects happen here and now, also where nobody reads the rows
        let (schema, started) = (rows.schema(), crate::clock::stopwatch());
        let batches: Vec<RecordBatch> = self.workers().run(cancel, Box::pin(async move { Ok(rows.try_collect().await?) })).await?;
        tracing::debug!(tag, seconds = started.elapsed().as_secs_f64(), "statement done");
        if kind == StatementKind::Update {
            return Ok(Outcome::Updated(affected(&batches)));
        }
        let rows = futures::stream::iter(batches.into_iter().map(Ok));
        Ok(Outcome::Rows(Box::pin(RecordBatchStreamAdapter::new(schema, rows))))
    }

    /// Runs one statement without parameters.
    pub async fn execute(&self, sql: &str) -> Result<Outcome> {
        self.start(sql).await.map(|s| s.outcome)
    }

    /// Runs one statement without parameters, which is resolved and planned once.
    pub async fn start(&self, sql: &str) -> Result<Started> {
        let (session, text, cancel, limit) = (self.clone(), sql.to_string(), Cancel::default(), self.time_limit());
        let plan = self.workers().plan(&cancel, Box::pin(async move { session.ready_at_once(&text).await }));
        let begun = limit.over(plan).await?;
        let outcome = match begun.looks_up {
            // lookups have a deadline of their own
            true => self.finish(begun.ready, &cancel).await?,
            false => match limit.over(boxed(self.finish(begun.ready, &cancel))).await? {
                Outcome::Rows(rows) => Outcome::Rows(limit.rows(rows)),
                done => done,
            },
        };
        Ok(Started { outcome, kind: begun.kind, tag: begun.tag })
    }

    /// Carries out an effect that was not written as a statement, such as what a schedule asks for.
    pub async fn carry_out(&self, command: Command) -> Result<Outcome> {
        let (session, cancel, limit) = (self.clone(), Cancel::default(), self.time_limit());
        let plan = async move {
            let notices = Notices::default();
            let resolver = session.resolver(vec![], Arc::clone(&notices)).await?;
            *session.own.notices.lock() = notices;
            session.begin(Planned::command("JOB", command, vec![])?, &resolver, Handed::Nothing).await
        };
        let ready = limit.over(self.workers().plan(&cancel, Box::pin(plan))).await?;
        limit.over(boxed(self.finish(ready, &cancel))).await
    }

    async fn ready_at_once(&self, sql: &str) -> Result<Begun> {
        let notices = Notices::default();
        let resolver = self.resolver(vec![], Arc::clone(&notices)).await?;
        let planned = self.plan(sql, &resolver).await?;
        if !planned.tag.starts_with("SHOW") {
            *self.own.notices.lock() = notices;
        }
        if !parameters::parameters(&planned.plan)?.is_empty() {
            return Err(Error::invalid("the statement has parameters ($1, ?), and there is nothing to bind to them")
                .with_hint("write the values, or use a Flight SQL client"));
        }
        let (kind, tag, looks_up) = (planned.kind, planned.tag, asks_online(&planned.plan)?.is_some());
        let ready = self.begin(planned, &resolver, Handed::Nothing).await.map_err(|e| place_of_outer(e, sql))?;
        // EXECUTE answers as what it runs
        let (kind, tag) = match &ready {
            Ready::Rows { kind, tag, .. } => (*kind, *tag),
            Ready::Done => (kind, tag),
        };
        Ok(Begun { ready, kind, tag, looks_up })
    }

    /// Warnings and notices of the last statement.
    pub fn notices(&self) -> Vec<Notice> {
        let list = Arc::clone(&self.own.notices.lock());
        let list = list.lock();
        list.iter().map(|m| Notice { level: "notice", message: m.clone() }).collect()
    }

    /// Bulk ingest: one atomic commit; answers rows stored.
    pub async fn ingest(&self, schema: Option<&str>, table: &str, mode: IngestMode, rows: SendableRecordBatchStream) -> Result<u64> {
        let (session, name) = (self.clone(), Name::new(schema.map_or(self.current_schema(), str::to_string), table));
        let cancel = Cancel::default();
        let ready = self.workers().plan(&cancel, Box::pin(async move { session.ready_to_store(name, mode, rows).await })).await?;
        match self.finish(ready, &cancel).await? {
            Outcome::Updated(stored) => Ok(stored),
            Outcome::Rows(_) => Err(Error::internal("bulk ingest answered rows")),
        }
    }

    async fn ready_to_store(&self, name: Name, mode: IngestMode, rows: SendableRecordBatchStream) -> Result<Ready> {
        let notices = Notices::default();
        let resolver = self.resolver(vec![], Arc::clone(&notices)).await?;
        *self.own.notices.lock() = notices;
        let planned = Planned::command("INGEST", Command::Ingest { table: name, mode }, vec![])?;
        self.begin(planned, &resolver, Handed::Ingest(IngestRows::new(rows))).await
    }

    /// The statement's instant as this session's clock gives it; microseconds, UTC.
    pub fn now(&self) -> Micros {
        self.services().clock.now()
    }
}

/// The columns of a query's result, all nullable, without the planner's private metadata.
fn result_schema(plan: &LogicalPlan) -> SchemaRef {
    Arc::new(plan.schema().as_arrow().clone())
}

fn affected(batches: &[RecordBatch]) -> u64 {
    let count =
        |b: &RecordBatch| b.columns().first().and_then(|c| c.as_primitive_opt::<UInt64Type>().map(|a| a.iter().flatten().sum::<u64>()));
    batches.iter().filter_map(count).sum()
}

fn session_command(plan: &LogicalPlan) -> Option<Arc<Command>> {
    let LogicalPlan::Extension(e) = plan else { return None };
    let node = e.node.as_any().downcast_ref::<CommandNode>()?;
    node.command.is_of_session().then(|| Arc::clone(&node.command))
}
