//! The changes a catalog can go through, and their form in the event log.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::{About, Entity, FeatureView, Name, Service, Table, TrainingSet, View, ViewVersionId};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SchemaDef {
    pub name: String,
    #[serde(flatten)]
    pub about: About,
    pub created_at: Micros,
}

/// What putting an object expects of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// The name is free.
    Create,
    /// The name is free or held by an object of the same kind (a feature view: that version with
    /// the same Delta table exists).
    Replace,
}

/// One change. A commit is a list of them.
#[derive(Debug, Clone, PartialEq)]
pub enum CatalogChange {
    CreateSchema(SchemaDef),
    /// The schema must be empty.
    DropSchema(String),
    PutEntity(Entity, PutMode),
    DropEntity(Name),
    PutTable(Table, PutMode),
    DropTable(Name),
    PutView(View, PutMode),
    DropView(Name),
    /// Create: a new version, numbered one above the greatest ever used; the bare name means it only
    /// where it is the first. Replace: changes that version in place.
    PutFeatureView(FeatureView, PutMode),
    /// From now on the bare name means this version.
    SetCurrentVersion(ViewVersionId),
    /// The version had its first complete REFRESH.
    MarkFilled(ViewVersionId),
    /// The version can be looked up online.
    MarkMaterialized(ViewVersionId),
    /// … and no longer (SET OFFLINE, another store).
    ClearMaterialized(ViewVersionId),
    DropFeatureViewVersion(ViewVersionId),
    DropFeatureView(Name),
    PutService(Service, PutMode),
    DropService(Name),
    PutTrainingSet(TrainingSet, PutMode),
    DropTrainingSet(Name),
}

/// A change as columns of the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub kind: &'static str,
    pub op: &'static str,
    pub name: String,
    pub payload: String,
}

impl CatalogChange {
    pub(crate) fn encode(&self) -> Result<Encoded> {
        use CatalogChange::*;
        let (kind, op, name, payload) = match self {
            CreateSchema(s) => ("schema", "create", s.name.clone(), json(s)?),
            DropSchema(s) => ("schema", "drop", s.clone(), json(s)?),
            PutEntity(o, m) => ("entity", put(*m), o.name.to_string(), json(o)?),
            DropEntity(n) => ("entity", "drop", n.to_string(), json(n)?),
            PutTable(o, m) => ("table", put(*m), o.name.to_string(), json(o)?),
            DropTable(n) => ("table", "drop", n.to_string(), json(n)?),
            PutView(o, m) => ("view", put(*m), o.name.to_string(), json(o)?),
            DropView(n) => ("view", "drop", n.to_string(), json(n)?),
            PutFeatureView(o, m) => ("feature_view", put(*m), o.name.to_string(), json(o)?),
            SetCurrentVersion(r) => ("feature_view", "set_current", r.name.to_string(), json(r)?),
            MarkFilled(r) => ("feature_view", "mark_filled", r.name.to_string(), json(r)?),
            MarkMaterialized(r) => ("feature_view", "mark_materialized", r.name.to_string(), json(r)?),
            ClearMaterialized(r) => ("feature_view", "clear_materialized", r.name.to_string(), json(r)?),
            DropFeatureViewVersion(r) => ("feature_view", "drop_version", r.name.to_string(), json(r)?),
            DropFeatureView(n) => ("feature_view", "drop", n.to_string(), json(n)?),
            PutService(o, m) => ("feature_service", put(*m), o.name.to_string(), json(o)?),
            DropService(n) => ("feature_service", "drop", n.to_string(), json(n)?),
            PutTrainingSet(o, m) => ("training_set", put(*m), o.name.to_string(), json(o)?),
            DropTrainingSet(n) => ("training_set", "drop", n.to_string(), json(n)?),
        };
        Ok(Encoded { kind, op, name, payload })
    }

    /// `None`: a kind of change that this version does not know.
    pub(crate) fn decode(kind: &str, op: &str, payload: &str) -> Option<Result<CatalogChange>> {
        use CatalogChange::*;
        let mode = match op {
            "create" => Some(PutMode::Create),
            "replace" => Some(PutMode::Replace),
            _ => None,
        };
        Some(match (kind, op, mode) {
            ("schema", "create", _) => from(payload).map(CreateSchema),
            ("schema", "drop", _) => from(payload).map(DropSchema),
            ("entity", _, Some(m)) => from(payload).map(|o| PutEntity(o, m)),
            ("entity", "drop", _) => from(payload).map(DropEntity),
            ("table", _, Some(m)) => from(payload).map(|o| PutTable(o, m)),
            ("table", "drop", _) => from(payload).map(DropTable),
            ("view", _, Some(m)) => from(payload).map(|o| PutView(o, m)),
            ("view", "drop", _) => from(payload).map(DropView),
            ("feature_view", _, Some(m)) => from(payload).map(|o| PutFeatureView(o, m)),
            ("feature_view", "set_current", _) => from(payload).map(SetCurrentVersion),
            ("feature_view", "mark_filled", _) => from(payload).map(MarkFilled),
            ("feature_view", "mark_materialized", _) => from(payload).map(MarkMaterialized),
            ("feature_view", "clear_materialized", _) => from(payload).map(ClearMaterialized),
            ("feature_view", "drop_version", _) => from(payload).map(DropFeatureViewVersion),
            ("feature_view", "drop", _) => from(payload).map(DropFeatureView),
            ("feature_service", _, Some(m)) => from(payload).map(|o| PutService(o, m)),
            ("feature_service", "drop", _) => from(payload).map(DropService),
            ("training_set", _, Some(m)) => from(payload).map(|o| PutTrainingSet(o, m)),
            ("training_set", "drop", _) => from(payload).map(DropTrainingSet),
            _ => return None,
        })
    }
}

fn put(mode: PutMode) -> &'static str {
    match mode {
        PutMode::Create => "create",
        PutMode::Replace => "replace",
    }
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal(e.to_string()))
}

fn from<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::invalid(e.to_string()))
}
