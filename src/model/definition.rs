//! The objects that users declare, as the registry stores them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::dependencies::Dependency;
use super::types::{ColumnType, quote};
use super::windowed::Windowed;
use crate::clock::Micros;

pub type Tags = BTreeMap<String, String>;

/// A name inside a schema; both parts as stored (folded to lower case unless quoted).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    pub schema: String,
    pub name: String,
}

impl Name {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Name { schema: schema.into(), name: name.into() }
    }

    /// A new folder of the warehouse for what has this name, under the folder of its kind. `id` makes it unique.
    pub fn folder(&self, kind: &str, id: &str) -> String {
        let id: String = id.chars().take(8).collect();
        format!("{kind}/{}/{}/{id}", part_of_path(&self.schema), part_of_path(&self.name))
    }
}

/// A name as a part of a path: what paths give another meaning to becomes `_`, so that every name has a place.
fn part_of_path(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ' | '.');
    let part: String = name.chars().take(60).map(|c| if plain(c) { c } else { '_' }).collect();
    if part.chars().all(|c| matches!(c, '.' | ' ')) { "_".repeat(part.len().max(1)) } else { part }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: ColumnType,
}

/// Who owns an object and what is said about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct About {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entity {
    pub name: Name,
    pub keys: Vec<Column>,
    #[serde(flatten)]
    pub about: About,
    pub created_at: Micros,
}

/// What a feature's value at an instant is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// A column of the latest row at or before the instant.
    #[default]
    Latest,
    /// An expression over aggregates of the events in windows as of the instant.
    Windowed,
}

impl FeatureKind {
    fn is_latest(&self) -> bool {
        *self == FeatureKind::Latest
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Feature {
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: ColumnType,
    /// Not written where it is `latest`, as in every registry of older versions.
    #[serde(default, skip_serializing_if = "FeatureKind::is_latest")]
    pub kind: FeatureKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
}

impl Feature {
    /// The latest value of a column, about which nothing is said.
    pub fn new(name: String, data_type: ColumnType) -> Self {
        Feature { name, data_type, kind: FeatureKind::Latest, comment: None, tags: Tags::new() }
    }
}

/// One version of a feature view.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FeatureView {
    pub name: Name,
    /// 1, 2, …: `name@vN`.
    pub version: u32,
    /// Id of the Delta table; never used again, also not after DROP and CREATE.
    pub table_id: String,
    /// Path of the Delta table, relative to the warehouse.
    pub location: String,
    /// Number of the view in online keys; never used again.
    pub online_id: u32,
    pub entities: Vec<Name>,
    /// Key columns in the entities' order.
    pub keys: Vec<Column>,
    pub event_timestamp: String,
    /// Zone of zone-less event timestamps of the query; `None`: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_timestamp: Option<String>,
    pub features: Vec<Feature>,
    /// `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Micros>,
    #[serde(default)]
    pub lookback: Micros,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_every: Option<Micros>,
    #[serde(default)]
    pub suspended: bool,
    #[serde(default)]
    pub online: bool,
    /// The SELECT after AS, as the user wrote it; `None` for a push view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Schema in which the query's bare names are looked up.
    pub query_schema: String,
    /// What the query reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<Dependency>,
    /// The event timestamp is `now()`: every run is one snapshot.
    #[serde(default)]
    pub snapshot: bool,
    /// Its features are aggregates over windows, and its table holds events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windowed: Option<Box<Windowed>>,
    #[serde(flatten)]
    pub about: About,
    pub created_at: Micros,
}

impl FeatureView {
    pub fn is_push(&self) -> bool {
        self.query.is_none() || self.windowed.as_ref().is_some_and(|w| w.pushed)
    }

    /// `schema.name@vN`
    pub fn versioned_name(&self) -> String {
        format!("{}@v{}", self.name, self.version)
    }

    /// The same as a statement names it.
    pub fn quoted_name(&self) -> String {
        format!("{}.{}@v{}", quote(&self.name.schema), quote(&self.name.name), self.version)
    }

    /// Columns as users see them: keys, event timestamp, created timestamp, features.
    pub fn visible_columns(&self) -> Vec<Column> {
        [self.leading_columns(), self.feature_columns()].concat()
    }

    /// Columns of the table, `_seq` aside: keys, event timestamp, created timestamp, then the features, or what a
    /// windowed view keeps of each event.
    pub fn stored_columns(&self) -> Vec<Column> {
        [self.leading_columns(), self.value_columns()].concat()
    }

    /// What the table holds behind keys and timestamps.
    pub fn value_columns(&self) -> Vec<Column> {
        match &self.windowed {
            Some(w) => w.columns.clone(),
            None => self.feature_columns(),
        }
    }

    /// The same as features of their own.
    pub fn value_features(&self) -> Vec<Feature> {
        match &self.windowed {
            Some(w) => w.columns.iter().map(|c| Feature::new(c.name.clone(), c.data_type.clone())).collect(),
            None => self.features.clone(),
        }
    }

    fn feature_columns(&self) -> Vec<Column> {
        self.features.iter().map(|f| Column { name: f.name.clone(), data_type: f.data_type.clone() }).collect()
    }

    /// Keys and timestamps.
    fn leading_columns(&self) -> Vec<Column> {
        let ts = ColumnType::timestamp();
        let mut out = self.keys.clone();
        out.push(Column { name: self.event_timestamp.clone(), data_type: ts.clone() });
        if let Some(c) = &self.created_timestamp {
            out.push(Column { name: c.clone(), data_type: ts });
        }
        out
    }

    pub fn key_names(&self) -> Vec<&str> {
        self.keys.iter().map(|k| k.name.as_str()).collect()
    }
}

/// All versions of a feature view under one name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FeatureViewSeries {
    pub versions: BTreeMap<u32, FeatureView>,
    /// The version that the bare name means.
    pub current: u32,
    /// Versions that had a complete REFRESH (push views: their creation).
    #[serde(default)]
    pub filled: std::collections::BTreeSet<u32>,
    /// Versions that were materialized to the online store.
    #[serde(default)]
    pub materialized: std::collections::BTreeSet<u32>,
    /// Greatest version number ever used, dropped ones included.
    pub last_version: u32,
}

impl FeatureViewSeries {
    pub fn current(&self) -> Option<&FeatureView> {
        self.versions.get(&self.current)
    }
    pub fn latest(&self) -> Option<&FeatureView> {
        self.versions.values().next_back()
    }
    /// The newest version, where the bare name does not mean it yet.
    pub fn waiting(&self) -> Option<&FeatureView> {
        self.latest().filter(|v| v.version > self.current)
    }
}

/// The version of a feature view that a name says: `view@vN`, `view@latest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionSpec {
    Version(u32),
    /// The version that the bare name means at the time of use.
    Latest,
}

impl VersionSpec {
    /// `None`: whichever version the bare name means.
    pub fn number(self) -> Option<u32> {
        match self {
            VersionSpec::Version(v) => Some(v),
            VersionSpec::Latest => None,
        }
    }
}

/// One version of a feature view; `table_id` tells it from one dropped and made again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ViewVersionId {
    pub name: Name,
    pub version: u32,
    pub table_id: String,
}

impl From<&FeatureView> for ViewVersionId {
    fn from(v: &FeatureView) -> Self {
        ViewVersionId { name: v.name.clone(), version: v.version, table_id: v.table_id.clone() }
    }
}

impl fmt::Display for ViewVersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@v{}", self.name, self.version)
    }
}

/// One entry of a service's FROM.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceItem {
    pub alias: String,
    pub view: Name,
    pub pin: VersionSpec,
    /// `FOR (key = callers_name)`; keys not named here keep their own name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, String>,
}

impl ServiceItem {
    /// The caller's column for a key of the view.
    pub fn callers_name<'a>(&'a self, key: &'a str) -> &'a str {
        self.roles.get(key).map_or(key, String::as_str)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Service {
    pub name: Name,
    pub request: Vec<Column>,
    pub items: Vec<ServiceItem>,
    /// Expressions in SQL over the items' aliases, keys and request columns, with their output names.
    pub outputs: Vec<ServiceOutput>,
    /// The SELECT after AS, as the user wrote it.
    pub query: String,
    #[serde(flatten)]
    pub about: About,
    pub created_at: Micros,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceOutput {
    pub name: String,
    pub expr: String,
    #[serde(rename = "type")]
    pub data_type: ColumnType,
}

/// A plain table: external files, or a Delta table of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Table {
    pub name: Name,
    /// PARQUET, CSV, JSON or DELTA.
    pub format: String,
    /// URL or absolute path; for a managed table relative to the warehouse.
    pub location: String,
    /// Made by CREATE TABLE: its data are ours and go with DROP.
    pub managed: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_columns: Vec<String>,
    /// The statement that is about to put another table in the place of this one, made from its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacing: Option<String>,
    #[serde(flatten)]
    pub about: About,
    pub created_at: Micros,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    pub name: Name,
    /// Names of its columns, where they are not those of the query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    pub query: String,
    /// Schema in which the query's bare names are looked up.
    pub query_schema: String,
    /// What the query reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<Dependency>,
    #[serde(flatten)]
    pub about: About,
    pub created_at: Micros,
}

/// What a training set was made from, so that it can be made again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrainingSet {
    pub name: Name,
    pub location: String,
    pub query: String,
    pub query_schema: String,
    pub manifest: Manifest,
    #[serde(flatten)]
    pub about: About,
    pub created_at: Micros,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Manifest {
    pub catalog_version: u64,
    /// The instant that `now()` meant.
    pub instant: Micros,
    pub engine_version: String,
    /// Delta tables: name as resolved, table path or URL, version.
    pub tables: Vec<PinnedTable>,
    /// Plain files: path, size, etag or mtime.
    pub files: Vec<PinnedFile>,
    pub settings: BTreeMap<String, String>,
    pub rows: u64,
    /// Order-independent over (schema, canonical row encoding).
    pub content_hash: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PinnedTable {
    pub name: String,
    pub location: String,
    pub table_id: String,
    pub version: u64,
}

impl PinnedTable {
    /// Whether the table lies in the warehouse, where its place is relative; tables of others are never removed.
    pub fn is_ours(&self) -> bool {
        !self.location.contains("://") && !self.location.starts_with('/')
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PinnedFile {
    pub table: String,
    pub path: String,
    pub size: u64,
    pub fingerprint: String,
}
