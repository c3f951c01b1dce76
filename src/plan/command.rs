//! Effects as plan leaves: a statement that changes something becomes one node, which EXPLAIN shows and
//! execution carries out.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use super::deletion::Deletion;
use super::target::Target;
use crate::catalog::{CatalogChange, CatalogSnapshot};
use crate::clock::Micros;
use crate::error::Result;
use crate::model::types::timestamp_type;
use crate::model::{FeatureView, Name, Table};

/// Builds the changes from a catalog: once to plan, again when another process was faster.
pub type Build = Arc<dyn Fn(&CatalogSnapshot) -> Result<Vec<CatalogChange>> + Send + Sync>;

/// A Delta table to create before a catalog change names it.
#[derive(Debug, Clone)]
pub struct NewTable {
    pub location: String,
    pub schema: SchemaRef,
    /// Keys and timestamps.
    pub stats_columns: Vec<String>,
}

/// Which instants a REFRESH replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Range {
    Incremental,
    Full,
    /// Inclusive at both ends.
    FromTo(Micros, Micros),
}

/// How much of a feature view a MATERIALIZE writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extent {
    /// What changed since the last one; all of it where that cannot be told.
    Changes,
    /// All of it, beside what is served until then.
    Full,
    /// All of it, over what is served.
    InPlace,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TrainingSetSpec {
    pub name: Name,
    pub query: String,
    pub query_schema: String,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub about: crate::model::About,
}

/// Keys that VERIFY draws at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub keys: u64,
    /// `None`: any.
    pub seed: Option<i64>,
}

#[derive(Clone)]
pub enum Command {
    /// DDL.
    Change {
        what: String,
        tables: Vec<NewTable>,
        build: Build,
    },
    /// Nothing to do (IF EXISTS, IF NOT EXISTS).
    Nothing {
        what: String,
    },
    CreateTableAs {
        table: Table,
        or_replace: bool,
        if_not_exists: bool,
    },
    CreateTrainingSet(TrainingSetSpec),
    Rebuild {
        name: Name,
    },
    /// Removes the rows that the input finds.
    Delete(Box<Deletion>),
    DropTable {
        name: Name,
    },
    DropTrainingSet {
        name: Name,
    },
    Refresh {
        views: Vec<Arc<FeatureView>>,
        range: Range,
        at: Option<Micros>,
    },
    Materialize {
        views: Vec<Arc<FeatureView>>,
        extent: Extent,
    },
    Optimize {
        view: Arc<FeatureView>,
    },
    Vacuum {
        view: Arc<FeatureView>,
        /// `None`: as long as the settings say.
        retain: Option<Micros>,
        dry_run: bool,
    },
    Verify {
        target: Target,
        /// `None`: all keys.
        sample: Option<Sample>,
    },
    /// What the online store holds of the view goes, too.
    SetOffline {
        view: Arc<FeatureView>,
        build: Build,
        what: String,
    },
    DropFeatureView {
        views: Vec<Arc<FeatureView>>,
        build: Build,
        what: String,
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
    pub fn describe(&self) -> String {
        match self {
            Command::Change { what, .. } | Command::Nothing { what } => what.clone(),
            Command::SetOffline { what, .. } | Command::DropFeatureView { what, .. } => what.clone(),
            Command::CreateTableAs { table, .. } => format!("CREATE TABLE {}", table.name),
            Command::CreateTrainingSet(s) => format!("CREATE TRAINING SET {}", s.name),
            Command::Rebuild { name } => format!("REBUILD TRAINING SET {name}"),
            Command::Delete(d) => format!("DELETE FROM {}", d.table.view.versioned_name()),
            Command::DropTable { name } => format!("DROP TABLE {name}"),
            Command::DropTrainingSet { name } => format!("DROP TRAINING SET {name}"),
            Command::Refresh { views, range, at } => {
                let range = match range {
                    Range::Incremental => String::new(),
                    Range::Full => " FULL".into(),
                    Range::FromTo(a, b) => format!(" FROM {} TO {}", crate::clock::format_micros(*a), crate::clock::format_micros(*b)),
                };
                let at = at.map_or(String::new(), |t| format!(" AT {}", crate::clock::format_micros(t)));
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
            Command::Optimize { view } => format!("OPTIMIZE FEATURE VIEW {}", view.versioned_name()),
            Command::Vacuum { view, retain, dry_run } => {
                let retain = retain.map_or(String::new(), |r| format!(" RETAIN {}", crate::sql::cursor::format_interval(r)));
                format!("VACUUM FEATURE VIEW {}{retain}{}", view.versioned_name(), if *dry_run { " DRY RUN" } else { "" })
            }
            Command::Verify { target, sample } => {
                let what = match (&target.outputs, &target.items[..]) {
                    (None, [item]) => format!("FEATURE VIEW {}", item.view.versioned_name()),
                    _ => format!("FEATURE SERVICE {}", target.name),
                };
                let seed = sample.and_then(|s| s.seed).map_or(String::new(), |s| format!(" SEED {s}"));
                format!("VERIFY {what}{}", sample.map_or(String::new(), |s| format!(" SAMPLE {}{seed}", s.keys)))
            }
            Command::Use { schema } => format!("USE {schema}"),
            Command::Set { variable, value } => format!("SET {variable} = {value}"),
            Command::Reset { variable } => format!("RESET {variable}"),
        }
    }

    /// Columns of the answer; `None` where the answer is a number of rows.
    pub fn answer(&self) -> Option<SchemaRef> {
        match self {
            Command::Refresh { .. } | Command::Materialize { .. } => Some(crate::catalog::Runs::schema()),
            Command::Rebuild { .. } => Some(Arc::new(Schema::new(vec![
                Field::new("training_set", DataType::Utf8, false),
                Field::new("rows", DataType::Int64, false),
                Field::new("content_hash", DataType::Utf8, false),
                Field::new("identical", DataType::Boolean, false),
            ]))),
            Command::Optimize { .. } => Some(Arc::new(Schema::new(vec![
                Field::new("feature_view", DataType::Utf8, false),
                Field::new("files_before", DataType::Int64, false),
                Field::new("files_after", DataType::Int64, false),
                Field::new("bytes_before", DataType::Int64, false),
                Field::new("bytes_after", DataType::Int64, false),
                Field::new("files_rewritten", DataType::Int64, false),
                Field::new("rows_rewritten", DataType::Int64, false),
                Field::new("delta_version", DataType::Int64, false),
                Field::new("run_id", DataType::Utf8, false),
            ]))),
            Command::Vacuum { .. } => Some(Arc::new(Schema::new(vec![
                Field::new("feature_view", DataType::Utf8, false),
                Field::new("files_removed", DataType::Int64, false),
                Field::new("bytes_removed", DataType::Int64, false),
                Field::new("readable_from", DataType::Int64, false),
                Field::new("dry_run", DataType::Boolean, false),
                Field::new("run_id", DataType::Utf8, true),
            ]))),
            Command::Verify { .. } => Some(Arc::new(Schema::new(vec![
                Field::new("object", DataType::Utf8, false),
                Field::new("item", DataType::Utf8, true),
                Field::new("feature_view", DataType::Utf8, true),
                Field::new("version", DataType::Int64, true),
                Field::new("generation", DataType::Int64, true),
                Field::new("online_delta_version", DataType::Int64, true),
                Field::new("offline_delta_version", DataType::Int64, true),
                Field::new("lag", DataType::Int64, true),
                Field::new("at", timestamp_type(), false),
                Field::new("keys_checked", DataType::Int64, false),
                Field::new("mismatches", DataType::Int64, false),
                Field::new("missing_online", DataType::Int64, false),
                Field::new("extra_online", DataType::Int64, false),
                Field::new("sample_seed", DataType::Int64, true),
                Field::new("examples", DataType::Utf8, true),
            ]))),
            _ => None,
        }
    }
}

fn list(views: &[Arc<FeatureView>]) -> String {
    views.iter().map(|v| v.versioned_name()).collect::<Vec<_>>().join(", ")
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// The leaf. `inputs` holds the query of CREATE TABLE AS and CREATE TRAINING SET, or what finds the rows of a DELETE.
#[derive(Debug, Clone)]
pub struct CommandNode {
    pub command: Arc<Command>,
    pub inputs: Vec<LogicalPlan>,
    schema: DFSchemaRef,
}

/// Column of the answer of a statement that counts rows.
pub fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]))
}

impl CommandNode {
    pub fn plan(command: Command, inputs: Vec<LogicalPlan>) -> Result<LogicalPlan> {
        let schema = command.answer().unwrap_or_else(count_schema);
        let schema = Arc::new(DFSchema::try_from(schema)?);
        let node = CommandNode { command: Arc::new(command), inputs, schema };
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }
}

impl PartialEq for CommandNode {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.command, &other.command) && self.inputs == other.inputs
    }
}
impl Eq for CommandNode {}
impl PartialOrd for CommandNode {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self == other).then_some(std::cmp::Ordering::Equal)
    }
}
impl Hash for CommandNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.command.describe().hash(state);
        self.inputs.hash(state);
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
        write!(f, "Command: {}", self.command.describe())
    }
    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        Ok(CommandNode { command: Arc::clone(&self.command), inputs, schema: Arc::clone(&self.schema) })
    }
    fn necessary_children_exprs(&self, _output: &[usize]) -> Option<Vec<Vec<usize>>> {
        // the whole result of the query is stored
        Some(self.inputs.iter().map(|i| (0..i.schema().fields().len()).collect()).collect())
    }
}
