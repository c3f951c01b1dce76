//! The whole pipeline on one screen (interface; being built).

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;

use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// One open warehouse in this process.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    clock: Clock,
    progress: Progress,
}

/// How a statement answers, known before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Rows; running it changes nothing.
    Query,
    /// Rows, but it changes something: run exactly once (REFRESH, MATERIALIZE, REBUILD, …).
    Command,
    /// No rows: DDL, INSERT, DELETE, SET; answers a number of rows.
    Update,
}

/// A planned statement that can be run many times with different parameters.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub sql: String,
    pub kind: StatementKind,
    /// Columns of the result; empty for an Update.
    pub schema: SchemaRef,
    /// One per placeholder, in the order $1, $2, …; `None`: any type (bind as text).
    pub parameters: Vec<Option<DataType>>,
    /// USE, SET and what else lasts for the session: refused where a client has none.
    pub changes_session: bool,
}

pub enum Outcome {
    Rows(SendableRecordBatchStream),
    /// Rows affected.
    Updated(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// `warning` or `notice`.
    pub level: &'static str,
    pub message: String,
}

/// What bulk ingest does with the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// The table must not exist.
    Create,
    /// The table must exist.
    Append,
    /// A plain table is replaced.
    Replace,
    CreateOrAppend,
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

/// One user's conversation: current schema, settings, the notices of the last statement.
#[derive(Debug, Clone)]
pub struct Session {
    engine: Arc<Engine>,
}

impl Engine {
    pub async fn open(config: Config, clock: Clock) -> Result<Arc<Engine>> {
        Engine::open_with(config, clock, Progress::default()).await
    }
    /// As `open`; long work is reported to `progress`.
    pub async fn open_with(config: Config, clock: Clock, progress: Progress) -> Result<Arc<Engine>> {
        Ok(Arc::new(Engine { config, clock, progress }))
    }
    pub fn progress(&self) -> &Progress {
        &self.progress
    }
    pub fn config(&self) -> &Config {
        &self.config
    }
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
    pub fn session(self: &Arc<Self>) -> Session {
        Session { engine: Arc::clone(self) }
    }
}

impl Session {
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
    /// Cuts a script into statements: (text, line, column of its first character in the script).
    pub fn split(text: &str) -> Result<Vec<(String, u64, u64)>> {
        let _ = text;
        Err(Error::not_built("split"))
    }
    /// Plans exactly one statement; runs nothing.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        let _ = sql;
        Err(Error::not_built("prepare"))
    }
    /// Runs a prepared statement once per row of `parameters` (columns in placeholder order);
    /// without parameters: once. Results of several rows follow one another; counts add up.
    pub async fn run(&self, prepared: &Prepared, parameters: Option<RecordBatch>) -> Result<Outcome> {
        let _ = (prepared, parameters);
        Err(Error::not_built("run"))
    }
    /// Prepares and runs one statement without parameters.
    pub async fn execute(&self, sql: &str) -> Result<Outcome> {
        let p = self.prepare(sql).await?;
        self.run(&p, None).await
    }
    /// Warnings and notices of the last statement.
    pub fn notices(&self) -> Vec<Notice> {
        vec![]
    }
    pub fn current_schema(&self) -> String {
        self.engine.config.schema.clone()
    }
    /// `USE`, for clients that set it as an option.
    pub async fn set_current_schema(&self, schema: &str) -> Result<()> {
        let _ = schema;
        Err(Error::not_built("USE"))
    }
    pub async fn schemas(&self) -> Result<Vec<String>> {
        Err(Error::not_built("schemas"))
    }
    /// All tables, views, feature views and system tables. Columns are read only where wanted.
    pub async fn tables(&self, with_columns: bool) -> Result<Vec<TableInfo>> {
        let _ = with_columns;
        Err(Error::not_built("tables"))
    }
    /// Bulk ingest: one atomic commit; answers rows stored.
    pub async fn ingest(&self, schema: Option<&str>, table: &str, mode: IngestMode, rows: SendableRecordBatchStream) -> Result<u64> {
        let _ = (schema, table, mode, rows);
        Err(Error::not_built("ingest"))
    }
}
