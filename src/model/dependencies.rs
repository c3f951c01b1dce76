//! What stored queries read, as the registry keeps it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Name, VersionSpec};
use crate::clock::Micros;

/// Kinds of objects that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    Schema,
    Entity,
    Table,
    View,
    FeatureView,
    FeatureService,
    TrainingSet,
    SystemTable,
    /// Files that a query names by itself.
    Files,
}

impl ObjectKind {
    /// The words of statements and errors, in lower case.
    pub fn words(self) -> &'static str {
        match self {
            ObjectKind::Schema => "schema",
            ObjectKind::Entity => "entity",
            ObjectKind::Table => "table",
            ObjectKind::View => "view",
            ObjectKind::FeatureView => "feature view",
            ObjectKind::FeatureService => "feature service",
            ObjectKind::TrainingSet => "training set",
            ObjectKind::SystemTable => "system table",
            ObjectKind::Files => "files",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// Where in time a Delta table is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Travel {
    /// `VERSION AS OF`: a version of the Delta table.
    Version(u64),
    /// `TIMESTAMP AS OF`: microseconds, UTC.
    Instant(Micros),
}

/// One object that a query reads, by the name that the query gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dependency {
    /// Of files that a query names by itself: no schema, and the place.
    pub object: Name,
    /// `None`: there was nothing of this name when the query was stored by an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ObjectKind>,
    /// Of a feature view: the version that the query names; `None`: whichever the bare name means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub travel: Option<Travel>,
    /// By ONLINE_LOOKUP or ONLINE JOIN.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub online: bool,
}

impl Dependency {
    /// The object, as the query reads it now.
    pub fn of(object: Name, version: Option<VersionSpec>) -> Self {
        Dependency { object, kind: None, version: version.and_then(VersionSpec::number), travel: None, online: false }
    }

    /// Whether this reads a name, or the given version of a feature view by its number.
    pub fn names(&self, name: &Name, version: Option<u32>) -> bool {
        self.object == *name && (version.is_none() || self.version == version)
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object.fmt(f)?;
        self.version.map_or(Ok(()), |v| write!(f, "@v{v}"))
    }
}
