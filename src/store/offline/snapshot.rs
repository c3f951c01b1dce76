//! One version of a table: its files and what the log says about them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use deltalake::DeltaTable;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{Action, Add, CommitInfo, StructType};
use deltalake::logstore::{LogStore, LogStoreRef, get_actions};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::SaveMode;
use deltalake::table::state::DeltaTableState;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::stats::{ColumnRange, Ranges, from_json, tag};
use super::warehouse::OfflineStore;
use super::watermark::{HAS_WATERMARK, read_watermark};
use super::{ADDED_KEY, AHEAD_KEY, ENGINE, ORDER_KEY, SEQ, delta_error};
use crate::clock::{DAY, MILLISECOND, Micros};
use crate::error::{Error, Kind, Result};

const DEFAULT_LOG_RETENTION: Micros = 3650 * DAY;

/// How a table is made.
#[derive(Debug, Clone, Default)]
pub struct TableOptions {
    /// Columns with statistics in the log: keys and timestamps. Empty: Delta's default, the first 32.
    pub stats_columns: Vec<String>,
    /// Commits may set a watermark.
    pub watermark: bool,
    /// How far back versions can be read. Default: ten years; nobody but us cleans the log.
    pub log_retention: Option<Micros>,
    /// Further table properties.
    pub properties: BTreeMap<String, String>,
    pub comment: Option<String>,
}

/// A data file that belongs to a version of a table.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// Relative to the table.
    pub path: String,
    /// Bytes.
    pub size: u64,
    pub rows: Option<u64>,
    /// Columns by which the rows are sorted, ascending, NULLs first; empty: not known to be sorted.
    pub order: Vec<String>,
    /// Version that added it and its place in that commit: the order in which rows were written.
    /// Files of other writers come first.
    pub(crate) added: (u64, u32),
    /// See [`AHEAD_KEY`].
    pub(crate) ahead: u64,
    pub(crate) modified_ms: i64,
    pub(crate) ranges: Ranges,
    pub(crate) has_deletions: bool,
    pub(crate) is_partitioned: bool,
}

impl DataFile {
    pub fn range(&self, column: &str) -> Option<&ColumnRange> {
        self.ranges.get(column)
    }
    pub fn min(&self, column: &str) -> Option<&ScalarValue> {
        self.range(column)?.min.as_ref()
    }
    pub fn max(&self, column: &str) -> Option<&ScalarValue> {
        self.range(column)?.max.as_ref()
    }

    pub(crate) fn from_add(add: &Add, schema: &SchemaRef) -> Self {
        let order = parse_order(&add.tags);
        let ours = order.is_some();
        let added = tag(&add.tags, ADDED_KEY).and_then(parse_added).unwrap_or_default();
        let (rows, ranges) = add.stats.as_deref().map_or((None, Ranges::new()), |s| from_json(s, schema, ours));
        DataFile {
            path: add.path.clone(),
            size: add.size.try_into().unwrap_or(0),
            rows,
            order: order.unwrap_or_default(),
            added,
            ahead: tag(&add.tags, AHEAD_KEY).and_then(|t| t.parse().ok()).unwrap_or_else(|| numbers_ahead(&ranges, added.0)),
            modified_ms: add.modification_time,
            ranges,
            has_deletions: add.deletion_vector.is_some(),
            is_partitioned: !add.partition_values.is_empty(),
        }
    }

    pub(crate) fn tags(&self) -> HashMap<String, Option<String>> {
        file_tags(&self.order, self.added, self.ahead)
    }

    pub(crate) fn object_path(&self) -> Path {
        Path::parse(&self.path).unwrap_or_else(|_| Path::from(self.path.as_str()))
    }
}

/// One version of a table. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot(Arc<Inner>);

struct Inner {
    location: String,
    log: LogStoreRef,
    state: DeltaTableState,
    schema: SchemaRef,
    files: Vec<Arc<DataFile>>,
    watermark: Option<Micros>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({}@{}, {} files)", self.0.location, self.version(), self.0.files.len())
    }
}

impl Snapshot {
    /// Path of the table in the warehouse.
    pub fn location(&self) -> &str {
        &self.0.location
    }
    /// Delta version.
    pub fn version(&self) -> u64 {
        self.0.state.version()
    }
    /// Delta's table id: another one after DROP and CREATE.
    pub fn table_id(&self) -> &str {
        self.0.state.metadata().id()
    }
    /// All columns, hidden ones included.
    pub fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }
    /// In the order in which they were written.
    pub fn files(&self) -> &[Arc<DataFile>] {
        &self.0.files
    }
    /// Rows in the table, where every file's count is known.
    pub fn rows(&self) -> Option<u64> {
        self.files().iter().map(|f| f.rows).sum()
    }
    /// The watermark that the last commit with one has set.
    pub fn watermark(&self) -> Option<Micros> {
        self.0.watermark
    }
    /// An upper bound of a column over all files: `None` where unknown or where there are no values.
    pub fn max_of(&self, column: &str) -> Option<ScalarValue> {
        let mut max: Option<&ScalarValue> = None;
        for file in self.files().iter().filter(|f| f.rows != Some(0)) {
            let v = file.max(column)?;
            if max.is_none_or(|m| m.partial_cmp(v).is_some_and(|o| o.is_lt())) {
                max = Some(v);
            }
        }
        max.cloned()
    }
    /// High word of `_seq` for rows of the next commit: above that of every row in the table, and growing
    /// with the versions also where the last rows are gone.
    pub fn next_sequence(&self) -> u64 {
        let last = self.files().iter().filter_map(|f| last_number(&f.ranges));
        (self.version() + 1).max(last.max().map_or(0, |high| high + 1))
    }
    /// Properties of the table.
    pub fn properties(&self) -> &HashMap<String, String> {
        self.0.state.metadata().configuration()
    }

    pub(crate) fn log(&self) -> &LogStoreRef {
        &self.0.log
    }
    pub(crate) fn state(&self) -> &DeltaTableState {
        &self.0.state
    }
    pub(crate) fn has_watermark(&self) -> bool {
        self.properties().contains_key(HAS_WATERMARK)
    }

    pub(crate) fn build(
        location: &str,
        log: LogStoreRef,
        state: DeltaTableState,
        watermark: Option<Micros>,
        before: Option<&Snapshot>,
    ) -> Result<Snapshot> {
        let schema = state.snapshot().arrow_schema();
        let known: HashMap<&str, &Arc<DataFile>> = match before {
            Some(b) if b.schema() == &schema => b.files().iter().map(|f| (f.path.as_str(), f)).collect(),
            _ => HashMap::new(),
        };
        let views = state.snapshot().try_log_data().map_err(|e| delta_error(e, location))?;
        let mut files: Vec<Arc<DataFile>> = views
            .iter()
            .map(|view| {
                let path = view.path();
                match known.get(path.as_ref()) {
                    Some(file) => Arc::clone(file),
                    None => {
                        // The only public way to a file's tags.
                        #[allow(deprecated)]
                        let add = view.add_action();
                        Arc::new(DataFile::from_add(&add, &schema))
                    }
                }
            })
            .collect();
        files.sort_by(|a, b| (a.added, &a.path).cmp(&(b.added, &b.path)));
        Ok(Snapshot(Arc::new(Inner { location: location.to_string(), log, state, schema, files, watermark })))
    }
}

impl OfflineStore {
    /// Makes an empty table (version 0). Fails with AlreadyExists where there is one.
    pub fn create_table<'a>(
        &'a self,
        location: &'a str,
        schema: SchemaRef,
        options: TableOptions,
    ) -> futures::future::BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let log = self.log_store(location)?;
            let kernel: StructType = schema
                .as_ref()
                .try_into_kernel()
                .map_err(|e: datafusion::arrow::error::ArrowError| Error::invalid(e.to_string()).context(format!("table {location:?}")))?;
            let days = (options.log_retention.unwrap_or(DEFAULT_LOG_RETENTION) / DAY).max(1);
            let mut properties: HashMap<String, Option<String>> = HashMap::from([
                ("delta.enableExpiredLogCleanup".into(), Some("false".into())),
                ("delta.logRetentionDuration".into(), Some(format!("interval {days} days"))),
            ]);
            if !options.stats_columns.is_empty() {
                let names: Vec<String> = options.stats_columns.iter().map(|c| backtick(c)).collect();
                properties.insert("delta.dataSkippingStatsColumns".into(), Some(names.join(",")));
            }
            if options.watermark {
                properties.insert(HAS_WATERMARK.into(), Some("true".into()));
            }
            properties.extend(options.properties.into_iter().map(|(k, v)| (k, Some(v))));
            let mut create = CreateBuilder::new()
                .with_log_store(Arc::clone(&log))
                .with_save_mode(SaveMode::ErrorIfExists)
                .with_columns(kernel.fields().cloned())
                .with_configuration(properties)
                .with_raise_if_key_not_exists(false)
                .with_commit_properties(self.exact_commit_properties())
                .with_actions([Action::CommitInfo(CommitInfo {
                    timestamp: Some(self.clock().now() / MILLISECOND),
                    operation: Some("CREATE TABLE".into()),
                    engine_info: Some(ENGINE.into()),
                    ..Default::default()
                })]);
            if let Some(comment) = options.comment {
                create = create.with_comment(comment);
            }
            let what = format!("table {location:?}");
            let exists = || Error::already_exists(format!("{what} exists already"));
            if log.is_delta_table_location().await.map_err(|e| delta_error(e, &what))? {
                return Err(exists());
            }
            let table = match create.await {
                Ok(table) => table,
                Err(e) => {
                    let err = delta_error(e, &what);
                    let taken = log.is_delta_table_location().await.unwrap_or(false);
                    return Err(if taken { exists() } else { err });
                }
            };
            let state = table.snapshot().map_err(|e| delta_error(e, &what))?.clone();
            let snapshot = Snapshot::build(location, log, state, None, None)?;
            self.remember(&snapshot);
            Ok(snapshot)
        })
    }

    /// A version of a table; `None`: the newest, which costs one request when nothing changed.
    pub fn snapshot<'a>(&'a self, location: &'a str, version: Option<u64>) -> futures::future::BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let Some(version) = version else {
                return self.coalescing.join(location, || self.newest(location)).await;
            };
            match self.cached(location).filter(|known| known.version() == version) {
                Some(known) => Ok(known),
                None => self.load(location, Some(version)).await,
            }
        })
    }

    async fn newest(&self, location: &str) -> Result<Snapshot> {
        if let Some(known) = self.cached(location) {
            return self.refresh(&known).await;
        }
        let snapshot = self.load(location, None).await?;
        self.remember(&snapshot);
        Ok(snapshot)
    }

    /// The newest version of the table that `snapshot` is a version of.
    pub fn refresh<'a>(&'a self, snapshot: &'a Snapshot) -> futures::future::BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let next = commit_path(snapshot.version() + 1);
            match snapshot.log().object_store(None).head(&next).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(snapshot.clone()),
                Err(e) => return Err(Error::from(e).context(format!("table {:?}", snapshot.location()))),
                Ok(_) => {}
            }
            let mut state = snapshot.state().clone();
            if let Err(e) = state.update(snapshot.log().as_ref(), None).await {
                return Err(self.explain_log(snapshot.location(), delta_error(e, &format!("table {:?}", snapshot.location()))).await);
            }
            let watermark = read_watermark(&state, snapshot.log(), snapshot.location()).await?;
            let fresh = Snapshot::build(snapshot.location(), Arc::clone(snapshot.log()), state, watermark, Some(snapshot))?;
            self.remember(&fresh);
            Ok(fresh)
        })
    }

    /// The last version committed at or before an instant.
    pub fn snapshot_at<'a>(&'a self, location: &'a str, at: Micros) -> futures::future::BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let newest = self.snapshot(location, None).await?;
            let log = newest.log();
            let first = self.first_version(location).await?;
            let (mut low, mut high, mut found) = (first, newest.version(), None);
            while low <= high {
                let middle = low + (high - low) / 2;
                if commit_time(log.as_ref(), middle, location).await? <= at {
                    found = Some(middle);
                    low = middle + 1;
                } else if middle == first {
                    break;
                } else {
                    high = middle - 1;
                }
            }
            match found {
                Some(v) => self.snapshot(location, Some(v)).await,
                None => Err(Error::not_found(format!(
                    "table {location:?} has no version as old as {}: its first is of {}",
                    crate::clock::format_micros(at),
                    crate::clock::format_micros(commit_time(log.as_ref(), first, location).await?)
                ))),
            }
        })
    }

    async fn load(&self, location: &str, version: Option<u64>) -> Result<Snapshot> {
        let log = self.log_store(location)?;
        let what = format!("table {location:?}");
        let state = match DeltaTableState::try_new(log.as_ref(), version).await {
            Ok(state) if version.is_none_or(|v| state.version() == v) => state,
            Ok(_) => return Err(self.no_version(location, version).await),
            Err(e) => {
                if !log.is_delta_table_location().await.unwrap_or(true) {
                    return Err(Error::not_found(format!("{what} does not exist")));
                }
                let damage = self.explain_log(location, delta_error(e, &what)).await;
                return Err(if version.is_some() && damage.kind() != Kind::Invalid {
                    self.no_version(location, version).await
                } else {
                    damage
                });
            }
        };
        let watermark = read_watermark(&state, &log, location).await?;
        Snapshot::build(location, log, state, watermark, None)
    }

    async fn no_version(&self, location: &str, version: Option<u64>) -> Error {
        let newest = match Box::pin(self.load(location, None)).await {
            Ok(s) => s.version(),
            Err(e) => return e,
        };
        let first = self.first_version(location).await.unwrap_or(0);
        Error::not_found(format!("table {location:?} has no version {}", version.unwrap_or_default()))
            .with_hint(format!("versions {first} to {newest} can be read"))
    }

    /// The oldest version whose commit is still in the log.
    pub(crate) async fn first_version(&self, location: &str) -> Result<u64> {
        let versions = self.log_versions(location).await?;
        versions.into_iter().min().ok_or_else(|| Error::not_found(format!("table {location:?} does not exist")))
    }

    async fn log_versions(&self, location: &str) -> Result<Vec<u64>> {
        let log = self.log_store(location)?;
        let store = log.object_store(None);
        let mut listed = store.list(Some(log.log_path()));
        let mut out = vec![];
        while let Some(meta) = listed.next().await {
            let meta = meta?;
            let name = meta.location.filename().unwrap_or_default();
            if let Some(v) = name.strip_suffix(".json").filter(|n| n.len() == 20).and_then(|n| n.parse().ok()) {
                out.push(v);
            }
        }
        Ok(out)
    }

    /// Names the file at fault where the log cannot be read.
    async fn explain_log(&self, location: &str, error: Error) -> Error {
        if matches!(error.kind(), Kind::Unavailable | Kind::Denied) {
            return error;
        }
        let (Ok(log), Ok(mut versions)) = (self.log_store(location), self.log_versions(location).await) else { return error };
        versions.sort_unstable();
        for version in versions {
            let bad = match log.read_commit_entry(version).await {
                Ok(Some(bytes)) => get_actions(version, &bytes).err().map(|e| e.to_string()),
                _ => continue,
            };
            if let Some(why) = bad {
                let file = self.display_path(&format!("{location}/{}", commit_path(version)));
                return Error::invalid(format!("table {location:?} is damaged: {file} cannot be read: {why}"))
                    .with_hint("restore this file; nothing was changed");
            }
        }
        error
    }
}

impl Snapshot {
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        let what = format!("checkpoint of table {:?}", self.location());
        let mut table = DeltaTable::new(Arc::clone(self.log()));
        table.load_version(self.version()).await.map_err(|e| delta_error(e, &what))?;
        deltalake::checkpoints::create_checkpoint(&table, None).await.map_err(|e| delta_error(e, &what))
    }
}

pub(crate) fn commit_path(version: u64) -> Path {
    Path::from_iter(["_delta_log".to_string(), format!("{version:020}.json")])
}

/// When a version was committed: what its commit says, else when the file was written.
async fn commit_time(log: &dyn LogStore, version: u64, location: &str) -> Result<Micros> {
    let path = commit_path(version);
    let got = log.object_store(None).get(&path).await.map_err(|e| Error::from(e).context(format!("table {location:?}")))?;
    let written = got.meta.last_modified.timestamp_micros();
    let bytes = got.bytes().await?;
    let stated = serde_json::Deserializer::from_slice(&bytes)
        .into_iter::<serde_json::Value>()
        .flatten()
        .find_map(|v| v.get("commitInfo")?.get("timestamp")?.as_i64());
    Ok(stated.map_or(written, |ms| ms.saturating_mul(MILLISECOND)))
}

/// What we write down about a file besides Delta's own statistics.
pub(crate) fn file_tags(order: &[String], (version, place): (u64, u32), ahead: u64) -> HashMap<String, Option<String>> {
    let mut tags =
        HashMap::from([(ORDER_KEY.to_string(), Some(order_text(order))), (ADDED_KEY.to_string(), Some(format!("{version}.{place}")))]);
    if ahead > 0 {
        tags.insert(AHEAD_KEY.to_string(), Some(ahead.to_string()));
    }
    tags
}

/// The greatest high word of `_seq` in a file.
fn last_number(ranges: &Ranges) -> Option<u64> {
    match ranges.get(SEQ)?.max {
        Some(ScalarValue::Int64(Some(s))) => u64::try_from(s >> 32).ok(),
        _ => None,
    }
}

/// By how much a file's numbers exceed the version that added it.
pub(crate) fn numbers_ahead(ranges: &Ranges, version: u64) -> u64 {
    last_number(ranges).map_or(0, |n| n.saturating_sub(version))
}

pub(crate) fn order_text(order: &[String]) -> String {
    serde_json::Value::from(order.to_vec()).to_string()
}

pub(crate) fn parse_order(tags: &Option<HashMap<String, Option<String>>>) -> Option<Vec<String>> {
    serde_json::from_str(tag(tags, ORDER_KEY)?).ok()
}

fn parse_added(text: &str) -> Option<(u64, u32)> {
    let (version, place) = text.split_once('.')?;
    Some((version.parse().ok()?, place.parse().ok()?))
}

fn backtick(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { name.to_string() } else { format!("`{}`", name.replace('`', "``")) }
}
