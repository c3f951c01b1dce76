//! The statements of the dialect: one file per family, each with syntax and plan. `parse` dispatches on
//! the first words; whatever is not ours goes to the stock parser after the token pass.

mod about;
mod alter;
mod copy;
mod copy_options;
mod create_entity;
mod create_feature_view;
mod create_service;
mod delete;
pub use delete::Delete;
mod describe;
mod drop;
mod elsewhere;
mod explain;
mod kept;
mod maintain;
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
pub use table::absolute;
mod training_set;
mod verify;
mod waiting;
pub use waiting::with_waiting;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement as DfStatement;

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
#[derive(Debug, Clone)]
pub enum Statement {
    Sql(sql::Sql),
    Explain(explain::Explain),
    Delete(Box<delete::Delete>),
    CreateEntity(create_entity::CreateEntity),
    CreateFeatureView(Box<create_feature_view::CreateFeatureView>),
    CreateService(create_service::CreateService),
    CreateTrainingSet(training_set::CreateTrainingSet),
    RebuildTrainingSet(NameRef),
    CreateSchema(schema::CreateSchema),
    CreateView(table::CreateView),
    CreateExternal(Box<table::CreateExternal>),
    CreateTableAs(table::CreateTableAs),
    Drop(drop::Drop),
    AlterFeatureView(alter::AlterFeatureView),
    Refresh(refresh::Refresh),
    Materialize(refresh::Materialize),
    Optimize(NameRef),
    Vacuum(maintain::Vacuum),
    Verify(verify::Verify),
    Use(String),
    Set {
        variable: String,
        value: String,
    },
    Reset(String),
    /// The zone of the session, which is this one.
    Utc,
    Show(show::Show),
    Describe(NameRef),
    ShowCreate(show_create::ShowCreate),
}

/// First words of all statements, for suggestions.
const FIRST: &[&str] = &[
    "SELECT",
    "WITH",
    "VALUES",
    "CREATE",
    "DROP",
    "ALTER",
    "REFRESH",
    "MATERIALIZE",
    "OPTIMIZE",
    "VACUUM",
    "REBUILD",
    "VERIFY",
    "VALIDATE",
    "SHOW",
    "DESCRIBE",
    "USE",
    "SET",
    "RESET",
    "COPY",
    "EXPLAIN",
    "INSERT",
    "DELETE",
    "UPDATE",
];

/// First words of statements that are refused with what to write instead.
const REFUSED: &[&str] = &["MERGE", "TRUNCATE"];

const OBJECTS: &[&str] = &["ENTITY", "FEATURE VIEW", "FEATURE SERVICE", "TRAINING SET", "SCHEMA", "EXTERNAL TABLE", "TABLE", "VIEW"];

/// Parses one statement.
pub fn parse(text: &str) -> Result<Statement> {
    read(text).map_err(|e| elsewhere::inside(e, text))
}

fn read(text: &str) -> Result<Statement> {
    let mut c = Cursor::new(text)?;
    if c.is_end() {
        return Err(Error::syntax("there is no statement"));
    }
    for words in ["VALIDATE", "SHOW LINEAGE"] {
        if c.is(words) {
            return Err(Error::not_built(words).with_span(c.here()));
        }
    }
    elsewhere::refuse(&c, "")?;
    if c.is("EXPLAIN") {
        return explain::parse(c);
    }
    if c.eat("CREATE") {
        return create(c);
    }
    if c.eat("DROP") {
        return drop::parse(c);
    }
    if c.eat("ALTER") {
        return alter::parse(c);
    }
    if c.is("REFRESH") || c.is("MATERIALIZE") {
        return refresh::parse(c);
    }
    if c.is("OPTIMIZE") || c.is("VACUUM") {
        return maintain::parse(c);
    }
    if c.is("VERIFY") {
        return verify::parse(c);
    }
    if c.eat("REBUILD") {
        c.want("TRAINING SET")?;
        let name = c.plain_name("training set")?;
        c.end(&[])?;
        return Ok(Statement::RebuildTrainingSet(name));
    }
    if c.eat("SHOW CREATE") {
        return show_create::parse(c);
    }
    if c.is("SHOW") {
        return show::parse(c);
    }
    if c.eat("DESCRIBE") || c.eat("DESC") {
        for kind in ["FEATURE VIEW", "FEATURE SERVICE", "ENTITY", "TRAINING SET", "TABLE", "VIEW"] {
            if c.eat(kind) {
                break;
            }
        }
        let name = c.name("the name of an object")?;
        c.end(&[])?;
        return Ok(Statement::Describe(name));
    }
    if c.is("USE") || c.is("SET") || c.is("RESET") {
        return settings::parse(c);
    }
    if c.is("COPY")
        && let Some(insert) = copy::from(text)?
    {
        return sql::parse(&insert);
    }
    let first = c.peek(0).map(|t| t.token.to_string()).unwrap_or_default();
    if !FIRST.contains(&first.to_uppercase().as_str())
        && !first.starts_with('(')
        && !first.eq_ignore_ascii_case("from")
        && !REFUSED.contains(&first.to_uppercase().as_str())
    {
        let e = Error::syntax(format!("{first:?} begins no statement")).with_span(c.here());
        return Err(match nearest(&first, FIRST.iter().copied()) {
            Some(best) => e.with_hint(format!("did you mean {best}?")),
            None => e.with_hint(format!("statements begin with {}", FIRST.join(", "))),
        });
    }
    sql::parse(text)
}

fn create(mut c: Cursor<'_>) -> Result<Statement> {
    let or_replace = c.eat("OR REPLACE");
    elsewhere::refuse(&c, "CREATE")?;
    if c.eat("ENTITY") {
        return create_entity::parse(c, or_replace);
    }
    if c.eat("FEATURE VIEW") {
        return create_feature_view::parse(c, or_replace);
    }
    if c.eat("FEATURE SERVICE") {
        return create_service::parse(c, or_replace);
    }
    if c.eat("TRAINING SET") {
        return training_set::parse(c, or_replace);
    }
    if c.eat("SCHEMA") {
        return schema::parse(c, false);
    }
    if c.eat("DATABASE") {
        return schema::parse(c, true);
    }
    if c.is("FEATURE") {
        c.eat("FEATURE");
        return Err(c.expected("VIEW or SERVICE after FEATURE"));
    }
    if c.eat("VIEW") {
        return table::parse_view(c, or_replace);
    }
    if c.is("TABLE") || c.is("EXTERNAL TABLE") || c.is("UNBOUNDED EXTERNAL TABLE") {
        return table::parse_create(c.text());
    }
    let found = c.peek(0).map(|t| t.token.to_string()).unwrap_or_default();
    let e = Error::syntax(format!("CREATE {found} is not a statement")).with_span(c.here());
    let firsts: Vec<&str> = OBJECTS.iter().map(|o| o.split(' ').next().unwrap_or(o)).collect();
    Err(match nearest(&found, firsts) {
        Some(best) => e.with_hint(format!("did you mean CREATE {best}?")),
        None => e.with_hint(format!("CREATE can make {}", OBJECTS.join(", "))),
    })
}

impl Statement {
    /// Plans the statement: names are looked up and checked, nothing is changed.
    pub async fn plan(self, p: &dyn Planning) -> Result<Planned> {
        match self {
            Statement::Sql(s) => s.plan(p).await,
            Statement::Explain(s) => s.plan(p).await,
            Statement::Delete(s) => s.plan(p).await,
            Statement::CreateEntity(s) => s.plan(p),
            Statement::CreateFeatureView(s) => s.plan(p).await,
            Statement::CreateService(s) => s.plan(p).await,
            Statement::CreateTrainingSet(s) => s.plan(p).await,
            Statement::RebuildTrainingSet(n) => training_set::rebuild(p, n),
            Statement::CreateSchema(s) => s.plan(p),
            Statement::CreateView(s) => s.plan(p).await,
            Statement::CreateExternal(s) => s.plan(p).await,
            Statement::CreateTableAs(s) => s.plan(p).await,
            Statement::Drop(s) => s.plan(p),
            Statement::AlterFeatureView(s) => s.plan(p),
            Statement::Refresh(s) => s.plan(p).await,
            Statement::Materialize(s) => s.plan(p),
            Statement::Optimize(n) => maintain::optimize(p, &n),
            Statement::Vacuum(s) => s.plan(p),
            Statement::Verify(s) => s.plan(p),
            Statement::Use(s) => settings::plan_use(p, s),
            Statement::Set { variable, value } => Planned::command("SET", Command::Set { variable, value }, vec![]),
            Statement::Reset(variable) => Planned::command("RESET", Command::Reset { variable }, vec![]),
            Statement::Utc => Planned::command("SET", Command::Nothing { what: "SET timezone = 'UTC' (which it is)".into() }, vec![]),
            Statement::Show(s) => s.plan(p).await,
            Statement::Describe(n) => describe::plan(p, n).await,
            Statement::ShowCreate(s) => s.plan(p),
        }
    }
}
