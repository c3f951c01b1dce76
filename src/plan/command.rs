//! Effects as plan leaves: a statement that changes something becomes one node, which EXPLAIN shows and
//! execution carries out.

mod touches;

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use serde::{Deserialize, Serialize};

use super::alteration::Alteration;
use super::answers;
use crate::catalog::Runs;
use crate::catalog::ddl::{Ddl, Exists};
use crate::clock::{Micros, format_micros};
use crate::error::Result;
use crate::model::types::ColumnType;
use crate::model::{About, Name, Table, ViewVersionId};
use crate::sql::cursor::format_interval;

/// Which instants a REFRESH replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Range {
    Incremental,
    Full,
    /// Inclusive at both ends.
    FromTo(Micros, Micros),
}

/// How much of a feature view a MATERIALIZE writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Extent {
    /// What changed since the last one; all of it where that cannot be told.
    Changes,
    /// All of it, beside what is served until then.
    Full,
    /// All of it, over what is served.
    InPlace,
}

/// A training set to be made from the rows of a query.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrainingSetSpec {
    pub name: Name,
    pub query: String,
    pub query_schema: String,
    pub exists: Exists,
    pub about: About,
}

/// Keys that VERIFY draws at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sample {
    pub keys: u64,
    /// `None`: any.
    pub seed: Option<i64>,
}

/// What VERIFY checks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VerifyTarget {
    FeatureView(ViewVersionId),
    /// All items of a feature service.
    Service(Name),
}

/// What a DELETE removes rows from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeleteTarget {
    FeatureView(ViewVersionId),
    /// A table of CREATE TABLE; by its place, because the name may come to mean another one.
    Table {
        name: Name,
        location: String,
    },
}

impl fmt::Display for DeleteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeleteTarget::FeatureView(id) => id.fmt(f),
            DeleteTarget::Table { name, .. } => name.fmt(f),
        }
    }
}

/// The rows that a DELETE removes are found by the query beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deletion {
    pub target: DeleteTarget,
    /// Of the Delta table, at which the query was planned.
    pub delta_version: u64,
    /// The statement, to be planned again where the table has changed since.
    pub statement: String,
    /// For names without a schema.
    pub schema: String,
}

/// What bulk ingest does with the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IngestMode {
    /// The table must not exist.
    Create,
    /// The table must exist.
    Append,
    /// A plain table is replaced.
    Replace,
    CreateOrAppend,
}

/// An effect, as data: it can be compared, written down and sent; it holds no handle.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    Ddl(Ddl),
    /// Nothing to do (IF EXISTS, IF NOT EXISTS).
    Nothing {
        what: String,
    },
    /// A table with the rows of the query beside it, or an empty one.
    CreateTableAs {
        table: Table,
        exists: Exists,
    },
    CreateTrainingSet(TrainingSetSpec),
    RebuildTrainingSet(Name),
    Delete(Deletion),
    /// Other columns of a plain table.
    AlterTable(Alteration),
    /// Rows that a client sends as a stream.
    Ingest {
        table: Name,
        mode: IngestMode,
    },
    Refresh {
        views: Vec<ViewVersionId>,
        range: Range,
        at: Option<Micros>,
    },
    Materialize {
        views: Vec<ViewVersionId>,
        extent: Extent,
    },
    Optimize {
        view: ViewVersionId,
    },
    Vacuum {
        view: ViewVersionId,
        /// `None`: as long as the settings say.
        retain: Option<Micros>,
        dry_run: bool,
    },
    Verify {
        target: VerifyTarget,
        /// `None`: all keys.
        sample: Option<Sample>,
    },
    /// A statement with a name, for the session.
    Prepare {
        name: String,
        /// Of its parameters; empty: as the statement wants them.
        types: Vec<ColumnType>,
        statement: String,
    },
    Execute {
        name: String,
        /// Constant expressions.
        arguments: Vec<String>,
    },
    Deallocate {
        /// `None`: all.
        name: Option<String>,
    },
    Use {
        schema: String,
    },
    Set {
        variable: String,
        value: String,
    },
    Reset {
        variable: String,
    },
}

impl Command {
    /// The statement in short, as EXPLAIN shows it.
    pub fn describe(&self) -> String {
        match self {
            Command::Ddl(ddl) => ddl.describe(),
            Command::Nothing { what } => what.clone(),
            Command::CreateTableAs { table, .. } => format!("CREATE TABLE {}", table.name),
            Command::CreateTrainingSet(s) => format!("CREATE TRAINING SET {}", s.name),
            Command::RebuildTrainingSet(name) => format!("REBUILD TRAINING SET {name}"),
            Command::Delete(d) => format!("DELETE FROM {}", d.target),
            Command::AlterTable(a) => format!("ALTER TABLE {} {}", a.table, a.change),
            Command::Ingest { table, mode } => format!("INGEST {mode:?} {table}"),
            Command::Refresh { views, range, at } => {
                let range = match range {
                    Range::Incremental => String::new(),
                    Range::Full => " FULL".into(),
                    Range::FromTo(a, b) => format!(" FROM {} TO {}", format_micros(*a), format_micros(*b)),
                };
                let at = at.map_or(String::new(), |t| format!(" AT {}", format_micros(t)));
                format!("REFRESH FEATURE VIEW {}{range}{at}", list(views))
            }
            Command::Materialize { views, extent } => {
                let extent = match extent {
                    Extent::Changes => "",
                    Extent::Full => " FULL",
                    Extent::InPlace => " IN PLACE",
                };
                format!("MATERIALIZE FEATURE VIEW {}{extent}", list(views))
            }
            Command::Optimize { view } => format!("OPTIMIZE FEATURE VIEW {view}"),
            Command::Vacuum { view, retain, dry_run } => {
                let retain = retain.map_or(String::new(), |r| format!(" RETAIN {}", format_interval(r)));
                format!("VACUUM FEATURE VIEW {view}{retain}{}", if *dry_run { " DRY RUN" } else { "" })
            }
            Command::Verify { target, sample } => {
                let what = match target {
                    VerifyTarget::FeatureView(view) => format!("FEATURE VIEW {view}"),
                    VerifyTarget::Service(name) => format!("FEATURE SERVICE {name}"),
                };
                let seed = sample.and_then(|s| s.seed).map_or(String::new(), |s| format!(" SEED {s}"));
                format!("VERIFY {what}{}", sample.map_or(String::new(), |s| format!(" SAMPLE {}{seed}", s.keys)))
            }
            Command::Prepare { name, types: _, statement } => format!("PREPARE {name} AS {statement}"),
            Command::Execute { name, arguments } => format!("EXECUTE {name}({})", arguments.join(", ")),
            Command::Deallocate { name } => format!("DEALLOCATE {}", name.as_deref().unwrap_or("ALL")),
            Command::Use { schema } => format!("USE {schema}"),
            Command::Set { variable, value } => format!("SET {variable} = {value}"),
            Command::Reset { variable } => format!("RESET {variable}"),
        }
    }

    /// Columns of the answer; `None` where the answer is a number of rows.
    pub fn answer(&self) -> Option<SchemaRef> {
        match self {
            Command::Refresh { .. } | Command::Materialize { .. } => Some(Runs::schema()),
            Command::RebuildTrainingSet(_) => Some(answers::rebuild()),
            Command::Optimize { .. } => Some(answers::optimize()),
            Command::Vacuum { .. } => Some(answers::vacuum()),
            Command::Verify { .. } => Some(answers::verify()),
            _ => None,
        }
    }

    /// Whether it is about the session alone, which carries it out itself.
    pub fn is_of_session(&self) -> bool {
        use Command::{Deallocate, Execute, Prepare, Reset, Set, Use};
        matches!(self, Use { .. } | Set { .. } | Reset { .. } | Prepare { .. } | Execute { .. } | Deallocate { .. })
    }
}

fn list(views: &[ViewVersionId]) -> String {
    views.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The leaf. `inputs` holds the query of CREATE TABLE AS and CREATE TRAINING SET, or what finds the rows of a DELETE.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommandNode {
    pub command: Arc<Command>,
    pub inputs: Vec<LogicalPlan>,
    /// What planning found out, for EXPLAIN.
    note: Option<String>,
    schema: DFSchemaRef,
}

impl CommandNode {
    pub fn plan(command: Command, inputs: Vec<LogicalPlan>, note: Option<String>) -> Result<LogicalPlan> {
        let schema = command.answer().unwrap_or_else(answers::count);
        let schema = Arc::new(DFSchema::try_from(schema)?);
        let node = CommandNode { command: Arc::new(command), inputs, note, schema };
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    /// The statement in short, with what planning found out.
    pub fn describe(&self) -> String {
        match &self.note {
            Some(note) => format!("{} ({note})", self.command.describe()),
            None => self.command.describe(),
        }
    }
}

impl PartialOrd for CommandNode {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self == other).then_some(std::cmp::Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for CommandNode {
    fn name(&self) -> &str {
        "Command"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }
    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Command: {}", self.describe())
    }
    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        Ok(CommandNode { inputs, ..self.clone() })
    }
    fn necessary_children_exprs(&self, _output: &[usize]) -> Option<Vec<Vec<usize>>> {
        // the whole result of the query is stored
        Some(self.inputs.iter().map(|i| (0..i.schema().fields().len()).collect()).collect())
    }
}
