//! The whole pipeline on one screen.
//!
//! ```text
//! prepare: text ─sql─▶ Statement ─statement─▶ LogicalPlan          (names looked up, nothing changed)
//! run:     the same with parameters ─exec─▶ ExecutionPlan ─▶ rows  (effects happen here)
//! ```

#[cfg(test)]
mod commands;
mod compiled;
mod described;
mod lookup;
mod parameters;
mod time_limit;
#[cfg(test)]
mod travel;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef, UInt64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigNonZeroUsize;
use datafusion::common::{DataFusionError, ParamValues};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use parking_lot::{Mutex, RwLock};

use crate::cancel::Cancel;
use crate::catalog::{CatalogSnapshot, Relation, SYSTEM_SCHEMA};
use crate::clock::{Clock, Micros};
use crate::config::Config;
use crate::engine::session_state::explained;
use crate::engine::workers::Workers;
use crate::error::{Error, Result};
use crate::job::command::Jobs;
use crate::job::ingest::IngestRows;
use crate::model::Name;
use crate::model::exact::exactly;
use crate::operator::bound_rows::BoundRows;
use crate::operator::pit_join::{PitJoinOptions, PitStrategy};
pub use crate::plan::StatementKind;
use crate::plan::blame::place_of_outer;
use crate::plan::bound_rows::{insert_over_bound_rows, parameter_schema};
use crate::plan::command::{Command, CommandNode};
use crate::progress::Progress;
use crate::resolve::planner::{StatementPlanner, state};
use crate::resolve::resolver::{Resolver, Scope};
use crate::resolve::system;
use crate::services::{Services, stall};
use crate::statement::{self, Planned};

pub use self::lookup::LookupRequest;
use self::lookup::Plans;
use self::time_limit::{TIMEOUT, TimeLimit, timeout};
pub use crate::plan::command::IngestMode;

/// The setting that says how point-in-time joins go about it.
const STRATEGY: &str = "pit_join_strategy";
const PARTS: &str = "pit_join_parts";
/// Each part reads its own row groups and has its own share of memory: more than a machine has processors only cost.
const MAX_PARTS: usize = 256;

/// One open warehouse in this process.
#[derive(Debug)]
pub struct Engine {
    services: Arc<Services>,
    lookups: Plans,
}

/// A planned statement that can be run many times with different parameters.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub sql: String,
    pub kind: StatementKind,
    /// Columns of the result; empty for an Update.
    pub schema: SchemaRef,
    /// Columns that an INSERT fills, and those of what it reads; empty for other statements.
    pub fills: SchemaRef,
    /// One per placeholder, in the order $1, $2, …; `None`: any type (bind as text).
    pub parameters: Vec<Option<DataType>>,
    /// The same for clients, with a guess where any type will do.
    pub announced: Vec<Option<DataType>>,
    /// USE, SET and what else lasts for the session: refused where a client has none.
    pub changes_session: bool,
    /// It asks the online store.
    pub looks_up: bool,
    /// What a shell prints when it is done: `CREATE ENTITY`, `INSERT`, …
    pub tag: &'static str,
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

#[derive(Debug, Clone)]
pub struct TableInfo {
    pub schema: String,
    pub name: String,
    /// `TABLE`, `VIEW`, `SYSTEM TABLE`
    pub kind: &'static str,
    pub comment: Option<String>,
    /// Only where asked for.
    pub columns: Option<SchemaRef>,
    /// Join keys of a feature view.
    pub primary_key: Vec<String>,
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
        let own = Own { schema: RwLock::new(self.config().schema.clone()), variables: RwLock::default(), notices: Mutex::default() };
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

    /// Plans exactly one statement; runs nothing.
    pub fn prepare<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Prepared>> {
        let (session, text) = (self.clone(), sql.to_string());
        let work = self.workers().plan(&Cancel::default(), Box::pin(async move { session.prepare_one(text).await }));
        Box::pin(self.time_limit().over(work))
    }

    async fn prepare_one(&self, sql: String) -> Result<Prepared> {
        let notices = Notices::default();
        let resolver = self.resolver(vec![], Arc::clone(&notices)).await?;
        let planned = self.plan(&sql, &resolver).await?;
        if !planned.tag.starts_with("SHOW") {
            *self.own.notices.lock() = notices;
        }
        let parameters = parameters::parameters(&planned.plan)?;
        Ok(Prepared {
            kind: planned.kind,
            schema: described::described(&planned),
            fills: described::fills(&planned.plan),
            announced: parameters::announced(&planned.plan, &parameters)?,
            parameters,
            changes_session: planned.changes_session,
            looks_up: uses_lookup(&planned.plan)?,
            tag: planned.tag,
            sql,
        })
    }

    /// Runs a prepared statement once per row of `parameters` (columns in placeholder order);
    /// without parameters: once. Results of several rows follow one another; counts add up.
    pub async fn run(&self, prepared: &Prepared, parameters: Option<RecordBatch>) -> Result<Outcome> {
        if prepared.looks_up {
            return self.run_all(prepared, parameters).await;
        }
        let limit = self.time_limit();
        match limit.over(crate::services::boxed(self.run_all(prepared, parameters))).await? {
            Outcome::Rows(rows) => Ok(Outcome::Rows(limit.rows(rows))),
            done => Ok(done),
        }
    }

    /// What SET or the setting allows a statement that begins now.
    fn time_limit(&self) -> TimeLimit {
        let set = self.own.variables.read().get(TIMEOUT).and_then(|v| timeout(v).ok());
        TimeLimit::begin(set.unwrap_or(self.engine.config().statement_timeout))
    }

    async fn run_all(&self, prepared: &Prepared, parameters: Option<RecordBatch>) -> Result<Outcome> {
        let bound = match &parameters {
            Some(b) => b.num_columns(),
            None => 0,
        };
        if bound < prepared.parameters.len() {
            return Err(Error::invalid(format!("the statement has {} parameter(s), {bound} bound", prepared.parameters.len())));
        }
        if let (true, Some(rows)) = (prepared.looks_up && prepared.kind == StatementKind::Query, &parameters)
            && rows.num_columns() > 0
            && let Some(outcome) = self.run_compiled(prepared, rows).await?
        {
            return Ok(outcome);
        }
        if let (true, Some(rows)) = (prepared.tag == "INSERT", &parameters)
            && rows.num_columns() > 0
            && rows.num_rows() > 0
            && let Some(outcome) = crate::services::boxed(self.insert_rows(prepared, rows)).await?
        {
            return Ok(outcome);
        }
        let rows = match parameters {
            Some(b) if b.num_columns() > 0 && b.num_rows() != 1 => b,
            one => {
                let values = match one {
                    Some(b) if b.num_columns() > 0 => row_values(&b, 0, prepared)?,
                    _ => vec![],
                };
                return self.run_once(prepared, values).await;
            }
        };
        match prepared.kind {
            StatementKind::Update => {
                let mut total = 0;
                for row in 0..rows.num_rows() {
                    if let Outcome::Updated(n) = self.run_once(prepared, row_values(&rows, row, prepared)?).await? {
                        total += n;
                    }
                }
                Ok(Outcome::Updated(total))
            }
            _ => self.run_rows(prepared, rows).await,
        }
    }

    /// Runs an INSERT of a row of parameters once for all bound rows; `None` where each needs a run of its own.
    async fn insert_rows(&self, prepared: &Prepared, rows: &RecordBatch) -> Result<Option<Outcome>> {
        let Some(types) = prepared.parameters.iter().cloned().collect::<Option<Vec<DataType>>>() else { return Ok(None) };
        let (session, prepared, rows, cancel) = (self.clone(), prepared.clone(), rows.clone(), Cancel::default());
        let plan = async move { session.ready_for_rows(prepared, types, rows).await };
        match self.workers().plan(&cancel, Box::pin(plan)).await? {
            Some(ready) => self.finish(ready, &cancel).await.map(Some),
            None => Ok(None),
        }
    }

    async fn ready_for_rows(&self, prepared: Prepared, types: Vec<DataType>, rows: RecordBatch) -> Result<Option<Ready>> {
        let notices = Notices::default();
        let resolver = self.resolver(vec![], Arc::clone(&notices)).await?;
        let mut planned = self.plan(&prepared.sql, &resolver).await?;
        described::check(&prepared, &planned)?;
        let Some(plan) = insert_over_bound_rows(&planned.plan, &types)? else { return Ok(None) };
        let rows = crate::resolve::insert::bound(&planned.plan, &rows, &types)?;
        planned.plan = plan;
        *self.own.notices.lock() = notices;
        let rows = RecordBatch::try_new(Arc::new(parameter_schema(&types)), rows)?;
        self.begin(planned, &resolver, Handed::Bound(BoundRows(rows))).await.map(Some)
    }

    /// A query for several bound rows: the results one after another.
    async fn run_rows(&self, prepared: &Prepared, rows: RecordBatch) -> Result<Outcome> {
        if rows.num_rows() == 0 {
            // columns are promised for no rows too
            let planned = self.plan(&prepared.sql, &self.resolver(vec![], Notices::default()).await?).await?;
            described::check(prepared, &planned)?;
        }
        let (session, prepared) = (self.clone(), prepared.clone());
        let schema = Arc::clone(&prepared.schema);
        let values = (0..rows.num_rows()).map(|r| row_values(&rows, r, &prepared)).collect::<Result<Vec<_>>>()?;
        let all = futures::stream::iter(values)
            .then(move |v| {
                let (session, prepared) = (session.clone(), prepared.clone());
                async move {
                    match session.run_once(&prepared, v).await? {
                        Outcome::Rows(s) => Ok::<_, Error>(s),
                        Outcome::Updated(_) => Err(Error::internal("a query answered a count")),
                    }
                }
            })
            .map_err(datafusion::common::DataFusionError::from)
            .try_flatten();
        Ok(Outcome::Rows(Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema, all))))
    }

    /// Plans and begins on threads of planning; what is left to do is done by the workers.
    fn run_once<'a>(&'a self, prepared: &'a Prepared, values: Vec<ScalarValue>) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let (session, prepared, cancel) = (self.clone(), prepared.clone(), Cancel::default());
            let ready = self.workers().plan(&cancel, Box::pin(async move { session.ready(prepared, values).await })).await?;
            self.finish(ready, &cancel).await
        })
    }

    async fn ready(&self, prepared: Prepared, values: Vec<ScalarValue>) -> Result<Ready> {
        let notices = Notices::default();
        let resolver = self.resolver(values.clone(), Arc::clone(&notices)).await?;
        let mut planned = self.plan(&prepared.sql, &resolver).await?;
        described::check(&prepared, &planned)?;
        if !planned.tag.starts_with("SHOW") {
            *self.own.notices.lock() = notices;
        }
        if !values.is_empty() {
            planned.plan = planned.plan.with_param_values(ParamValues::from(values))?;
        }
        self.begin(planned, &resolver, Handed::Nothing).await.map_err(|e| place_of_outer(e, &prepared.sql))
    }

    async fn begin(&self, planned: Planned, resolver: &Arc<Resolver>, handed: Handed) -> Result<Ready> {
        let plan = planned.plan;
        if let Some(command) = session_command(&plan) {
            self.change(&command)?;
            return Ok(Ready::Done);
        }
        let mut state = state(resolver, &self.current_schema())?;
        self.apply_variables(&mut state);
        match handed {
            Handed::Nothing => {}
            Handed::Bound(rows) => state.config_mut().set_extension(Arc::new(rows)),
            Handed::Ingest(rows) => state.config_mut().set_extension(Arc::new(rows)),
        }
        let needs_online = uses_lookup(&plan)?;
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
        Ok(Outcome::Rows(Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema, rows))))
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
            false => match limit.over(crate::services::boxed(self.finish(begun.ready, &cancel))).await? {
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
        limit.over(crate::services::boxed(self.finish(ready, &cancel))).await
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
        let (kind, tag, looks_up) = (planned.kind, planned.tag, uses_lookup(&planned.plan)?);
        let ready = self.begin(planned, &resolver, Handed::Nothing).await.map_err(|e| place_of_outer(e, sql))?;
        Ok(Begun { ready, kind, tag, looks_up })
    }

    /// Warnings and notices of the last statement.
    pub fn notices(&self) -> Vec<Notice> {
        let list = Arc::clone(&self.own.notices.lock());
        let list = list.lock();
        list.iter().map(|m| Notice { level: "notice", message: m.clone() }).collect()
    }

    pub fn current_schema(&self) -> String {
        self.own.schema.read().clone()
    }

    /// `USE`, for clients that set it as an option.
    pub async fn set_current_schema(&self, schema: &str) -> Result<()> {
        self.services().registry.snapshot().await?.schema(schema)?;
        *self.own.schema.write() = schema.to_string();
        Ok(())
    }

    /// USE, SET, RESET: what lasts for the session.
    fn change(&self, command: &Command) -> Result<()> {
        match command {
            Command::Use { schema } => *self.own.schema.write() = schema.clone(),
            Command::Set { variable, value } if variable == "schema" => {
                self.services().registry.cached().schema(value)?;
                *self.own.schema.write() = value.clone();
            }
            Command::Set { variable, value } if variable == STRATEGY => {
                let strategy: PitStrategy = value.parse().map_err(|e| Error::invalid(format!("{variable} {e}, not {value:?}")))?;
                self.own.variables.write().insert(variable.clone(), strategy.to_string());
            }
            Command::Set { variable, value } if variable == TIMEOUT => {
                timeout(value).map_err(|e| Error::invalid(format!("{variable} {e}, not {value:?}")))?;
                self.own.variables.write().insert(variable.clone(), value.clone());
            }
            Command::Set { variable, value } if variable == PARTS && !value.parse().is_ok_and(|n| (1..=MAX_PARTS).contains(&n)) => {
                return Err(Error::invalid(format!("{variable} wants a whole number from 1 to {MAX_PARTS}, not {value:?}")));
            }
            Command::Set { variable, value } => {
                if !value.parse::<usize>().is_ok_and(|n| n > 0) {
                    return Err(Error::invalid(format!("{variable} wants a whole number greater than 0, not {value:?}")));
                }
                self.own.variables.write().insert(variable.clone(), value.clone());
            }
            Command::Reset { variable } if variable == "schema" => *self.own.schema.write() = self.engine.config().schema.clone(),
            Command::Reset { variable } => {
                self.own.variables.write().remove(variable);
            }
            other => return Err(Error::internal(format!("{} is no session command", other.describe()))),
        }
        Ok(())
    }

    fn apply_variables(&self, state: &mut datafusion::execution::session_state::SessionState) {
        let variables = self.own.variables.read();
        state.config_mut().set_extension(Arc::new(system::Variables(variables.clone())));
        let strategy = variables.get(STRATEGY).and_then(|v| v.parse().ok()).unwrap_or_default();
        let number = |n: &str| variables.get(n).and_then(|v| v.parse::<usize>().ok());
        let parts = number(PARTS).unwrap_or(1).clamp(1, MAX_PARTS);
        PitJoinOptions { strategy, parts, ..PitJoinOptions::default() }.put_into(state.config_mut());
        let options = state.config_mut().options_mut();
        if let Some(n) = number("batch_size").and_then(|n| ConfigNonZeroUsize::try_new(n).ok()) {
            options.execution.batch_size = n;
        }
        if let Some(n) = number("threads").filter(|n| *n > 0) {
            options.execution.target_partitions = n;
        }
    }

    pub async fn schemas(&self) -> Result<Vec<String>> {
        Ok(self.services().registry.snapshot().await?.schemas.keys().cloned().collect())
    }

    /// All tables, views, feature views and system tables. Columns are read only where wanted.
    pub async fn tables(&self, with_columns: bool) -> Result<Vec<TableInfo>> {
        let session = self.clone();
        self.workers().plan(&Cancel::default(), Box::pin(async move { session.list_tables(with_columns).await })).await
    }

    async fn list_tables(&self, with_columns: bool) -> Result<Vec<TableInfo>> {
        let resolver = self.resolver(vec![], Notices::default()).await?;
        let catalog = Arc::clone(&resolver.catalog);
        let mut out = vec![];
        for name in catalog.relation_names() {
            let Some(mut info) = info(&catalog, name) else { continue };
            if with_columns {
                // a source that cannot be read now is still listed
                info.columns = match resolver.load(&name.schema, &name.name).await {
                    Ok(Some(t)) => Some(t.schema()),
                    _ => Some(Arc::new(Schema::empty())),
                };
            }
            out.push(info);
        }
        for name in system::names() {
            let mut info = TableInfo {
                schema: SYSTEM_SCHEMA.into(),
                name: name.to_string(),
                kind: "SYSTEM TABLE",
                comment: None,
                columns: None,
                primary_key: vec![],
            };
            if with_columns {
                info.columns = resolver.load(SYSTEM_SCHEMA, name).await?.map(|t| t.schema());
            }
            out.push(info);
        }
        out.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        Ok(out)
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

fn info(catalog: &CatalogSnapshot, name: &Name) -> Option<TableInfo> {
    let table = |kind, comment: &Option<String>, primary_key| {
        Some(TableInfo { schema: name.schema.clone(), name: name.name.clone(), kind, comment: comment.clone(), columns: None, primary_key })
    };
    match catalog.relation(name)? {
        Relation::Table(t) => table("TABLE", &t.about.comment, vec![]),
        Relation::View(v) => table("VIEW", &v.about.comment, vec![]),
        Relation::TrainingSet(t) => table("TABLE", &t.about.comment, vec![]),
        Relation::FeatureView(s) => {
            let v = s.current()?;
            table("TABLE", &v.about.comment, v.keys.iter().map(|k| k.name.clone()).collect())
        }
        Relation::Service(_) => None,
    }
}

/// The columns of a query's result, all nullable, without the planner's private metadata.
fn result_schema(plan: &LogicalPlan) -> SchemaRef {
    Arc::new(plan.schema().as_arrow().clone())
}

/// One row of bound values, in the types that the statement wants; a value that would be another one there is refused.
fn row_values(batch: &RecordBatch, row: usize, prepared: &Prepared) -> Result<Vec<ScalarValue>> {
    if row >= batch.num_rows() {
        return Ok(vec![]);
    }
    let value = |(i, c): (usize, &ArrayRef)| {
        let one = c.slice(row, 1);
        let one = match prepared.parameters.get(i) {
            Some(Some(want)) => exactly(&one, want).map_err(|e| e.context(format!("parameter ${}", i + 1)))?,
            _ => one,
        };
        Ok(ScalarValue::try_from_array(&one, 0)?)
    };
    batch.columns().iter().enumerate().map(value).collect()
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

fn uses_lookup(plan: &LogicalPlan) -> Result<bool> {
    use datafusion::common::tree_node::TreeNodeRecursion;
    let mut found = false;
    plan.apply_with_subqueries(|p| {
        if let LogicalPlan::Extension(e) = p
            && e.node.as_any().is::<crate::plan::online_lookup::OnlineLookupNode>()
        {
            found = true;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
