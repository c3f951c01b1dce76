//! The statements of the dialect: one file per family, each with syntax and plan. `parse` dispatches on
//! the first words, by [`STATEMENTS`]; whatever is not ours goes to the stock parser after the token pass.

mod about;
mod alter;
mod alter_table;
mod copy;
mod copy_options;
mod create_entity;
mod create_feature_view;
mod create_service;
mod delete;
pub use delete::{Delete, over_events};
mod describe;
mod drop;
mod elsewhere;
mod explain;
mod kept;
mod maintain;
mod prepare;
mod refresh;
mod schema;
mod settings;
pub use settings::VARIABLES;
mod show;
mod show_create;
mod show_lists;
mod sql;
pub use sql::refuse_changes;
mod table;
mod table_of_statements;
pub use table::absolute;
mod training_set;
mod truncate;
mod verify;
mod waiting;
pub use waiting::with_waiting;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement as DfStatement;
use sqlparser::tokenizer::Token;

use crate::catalog::ddl::Ddl;
use crate::clock::Micros;
use crate::error::{Error, Result, nearest};
use crate::model::Dependency;
use crate::plan::StatementKind;
use crate::plan::command::{Command, CommandNode};
use crate::plan::names::Names;
use crate::sql::Cursor;
use crate::sql::cursor::NameRef;

/// What planning a statement may use; everything is read, nothing is changed.
#[async_trait]
pub trait Planning: Send + Sync {
    fn names(&self) -> &Arc<dyn Names>;
    /// The statement's instant.
    fn now(&self) -> Micros;
    /// Plans a statement of the stock parser, its ASOF joins and lookups included, in a schema.
    async fn sql(&self, statement: DfStatement, schema: &str) -> Result<LogicalPlan>;
    /// Refuses a plan that could not be run: what is stored now and run later is better refused now.
    /// `text` is what it was planned from.
    fn check(&self, plan: &LogicalPlan, text: &str) -> Result<()>;
    /// Columns of a table, view, feature view or training set.
    async fn columns(&self, name: &NameRef) -> Result<SchemaRef>;
    /// The value of a constant expression (`now() - INTERVAL '7 days'`, `'2026-02-01'`, `$1`).
    async fn constant(&self, expression: &str) -> Result<ScalarValue>;
    /// Level and text of the notices of the statement before.
    fn warnings(&self) -> Vec<(String, String)>;
    /// Columns of files that a CREATE EXTERNAL TABLE names, after checking that they can be read.
    async fn infer(&self, table: &crate::model::Table) -> Result<SchemaRef>;
    /// Whether the files of a new external table lie in folders `key=value` that nobody named.
    async fn finds_hive(&self, table: &crate::model::Table) -> Result<bool>;
    /// The objects that the queries planned so far read, by the names that they give them.
    fn dependencies(&self) -> Vec<Dependency>;
    /// Refuses what the catalog does not allow now.
    fn allows(&self, ddl: &Ddl) -> Result<()> {
        ddl.changes(self.names().catalog()).map(|_| ())
    }
    /// Greatest clock difference that a timestamp may be ahead.
    fn clock_tolerance(&self) -> Micros;
}

/// A statement ready to run.
#[derive(Debug, Clone)]
pub struct Planned {
    pub plan: LogicalPlan,
    pub kind: StatementKind,
    /// `CREATE ENTITY`, `INSERT`, …: what a shell prints when it is done.
    pub tag: &'static str,
    /// USE, SET: belongs to a session.
    pub changes_session: bool,
}

impl Planned {
    pub fn query(plan: LogicalPlan) -> Self {
        Planned { plan, kind: StatementKind::Query, tag: "SELECT", changes_session: false }
    }

    pub fn ddl(tag: &'static str, ddl: Ddl) -> Result<Self> {
        Planned::command(tag, Command::Ddl(ddl), vec![])
    }

    pub fn command(tag: &'static str, command: Command, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Planned::noted(tag, command, inputs, None)
    }

    /// A command, and what planning found out about it.
    pub fn noted(tag: &'static str, command: Command, inputs: Vec<LogicalPlan>, note: Option<String>) -> Result<Self> {
        let kind = if command.answer().is_some() { StatementKind::Command } else { StatementKind::Update };
        let changes_session = command.is_of_session();
        Ok(Planned { plan: CommandNode::plan(command, inputs, note)?, kind, tag, changes_session })
    }
}

/// One statement, parsed; no name has been looked up.
#[async_trait]
pub trait Statement: Debug + Send + Sync {
    /// Plans the statement: names are looked up and checked, nothing is changed.
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned>;
}

pub type Parsed = Box<dyn Statement>;

/// A statement of which the first words have been read.
pub struct Head<'a> {
    /// Behind the words.
    pub cursor: Cursor<'a>,
    /// OR REPLACE stands behind CREATE.
    pub or_replace: bool,
    /// Before the words that follow CREATE or CREATE OR REPLACE; else at the beginning.
    pub start: Cursor<'a>,
}

pub use table_of_statements::{STATEMENTS, first_words, keywords, words_of};

/// Parses one statement.
pub fn parse(text: &str) -> Result<Parsed> {
    read(text).map_err(|e| elsewhere::inside(e, text))
}

fn read(text: &str) -> Result<Parsed> {
    let mut c = Cursor::new(text)?;
    if c.is_end() {
        return Err(Error::syntax("there is no statement"));
    }
    elsewhere::refuse(&c, "")?;
    let first = c.clone();
    if c.eat("CREATE") {
        let or_replace = c.eat("OR REPLACE");
        elsewhere::refuse(&c, "CREATE")?;
        return match table_of_statements::find(&c, "CREATE ") {
            Some((entry, cursor)) => (entry.parse)(Head { cursor, or_replace, start: c }),
            None => Err(not_created(&c)),
        };
    }
    match table_of_statements::find(&c, "") {
        Some((entry, cursor)) => (entry.parse)(Head { cursor, or_replace: false, start: first }),
        None if c.is_token(&Token::LParen) => sql::read(text),
        None => Err(unknown(&c)),
    }
}

fn unknown(c: &Cursor<'_>) -> Error {
    let first = c.peek(0).map(|t| t.token.to_string()).unwrap_or_default();
    let e = Error::syntax(format!("{first:?} begins no statement")).with_span(c.here());
    match nearest(&first, first_words()) {
        Some(best) => e.with_hint(format!("did you mean {best}?")),
        None => e.with_hint(format!("statements begin with {}", first_words().join(", "))),
    }
}

fn not_created(c: &Cursor<'_>) -> Error {
    if c.is("FEATURE") {
        let mut c = c.clone();
        c.eat("FEATURE");
        return c.expected("VIEW or SERVICE after FEATURE");
    }
    let found = c.peek(0).map(|t| t.token.to_string()).unwrap_or_default();
    let e = Error::syntax(format!("CREATE {found} is not a statement")).with_span(c.here());
    let objects: Vec<&str> = STATEMENTS.iter().filter(|s| s.shown).filter_map(|s| s.words.strip_prefix("CREATE ")).collect();
    match nearest(&found, objects.iter().map(|o| o.split(' ').next().unwrap_or(o))) {
        Some(best) => e.with_hint(format!("did you mean CREATE {best}?")),
        None => e.with_hint(format!("CREATE can make {}", objects.join(", "))),
    }
}
