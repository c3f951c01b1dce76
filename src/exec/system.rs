//! The tables of schema `system`: what the catalog, the stores and the record of runs know, as rows.
//! They are read when a statement scans them, and what is expensive only where its column is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::datasource::TableType;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;

use super::freshness::{self, Freshness};
use super::resolve::Resolver;
use super::served;
use super::services::Services;
use crate::catalog::{CatalogSnapshot, Runs};
use crate::clock::{Micros, SECOND};
use crate::config::{SETTINGS, without_credentials};
use crate::error::{Error, Result};
use crate::model::types::timestamp_type;
use crate::model::{About, Column, FeatureView, Name, Service, Tags};
use crate::operator::pit_join::PitStrategy;
use crate::statement::VARIABLES;

pub const TABLES: &[&str] = &[
    "entities",
    "feature_services",
    "feature_view_versions",
    "feature_views",
    "features",
    "freshness",
    "online",
    "runs",
    "schemas",
    "settings",
    "sources",
    "tables",
    "training_sets",
];

/// What a session has SET; an extension of the statement's session configuration.
#[derive(Debug, Clone, Default)]
pub struct Variables(pub BTreeMap<String, String>);

/// A system table as of the statement; `None`: there is none of this name.
pub async fn table(resolver: &Resolver, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let Some(name) = TABLES.iter().find(|t| **t == name) else { return Ok(None) };
    Ok(Some(Arc::new(SystemTable {
        name,
        schema: schema(name),
        services: Arc::clone(&resolver.services),
        catalog: Arc::clone(&resolver.catalog),
    })))
}

#[derive(Debug)]
struct SystemTable {
    name: &'static str,
    schema: SchemaRef,
    services: Arc<Services>,
    catalog: Arc<CatalogSnapshot>,
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
    fn table_type(&self) -> TableType {
        TableType::View
    }
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let wants = |column: &str| projection.is_none_or(|p| p.iter().any(|i| self.schema.field(*i).name() == column));
        let cost = Cost { size: wants("rows") || wants("watermark"), served: wants("keys") || wants("bytes") };
        let settings = Settings::of(state);
        let batch = self.batch(cost, settings).await?;
        MemTable::try_new(Arc::clone(&self.schema), vec![vec![batch]])?.scan(state, projection, filters, limit).await
    }
}

/// Which expensive columns a statement reads.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Needs the table's snapshot.
    size: bool,
    /// Reads a whole generation of the online store.
    served: bool,
}

/// Settings of the session at hand, by name.
struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    fn of(state: &dyn Session) -> Settings {
        let options = state.config_options();
        let set = state.config().get_extension::<Variables>().unwrap_or_default();
        let value = |name: &str| match name {
            "schema" => options.catalog.default_schema.clone(),
            "batch_size" => options.execution.batch_size.to_string(),
            "threads" => options.execution.target_partitions.to_string(),
            "pit_join_strategy" => set.0.get(name).cloned().unwrap_or_else(|| PitStrategy::default().to_string()),
            other => set.0.get(other).cloned().unwrap_or_default(),
        };
        Settings(VARIABLES.iter().map(|(name, _)| (*name, value(name))).collect())
    }
}

/// Columns of a system table: name and type.
fn columns(table: &str) -> &'static [(&'static str, T)] {
    use T::*;
    match table {
        "schemas" => &[("name", Text), ("comment", Text), ("owner", Text), ("tags", Text), ("created_at", Time)],
        "entities" => {
            &[("schema", Text), ("name", Text), ("keys", Text), ("comment", Text), ("owner", Text), ("tags", Text), ("created_at", Time)]
        }
        "feature_views" => &[
            ("schema", Text),
            ("name", Text),
            ("version", Int),
            ("entities", Text),
            ("keys", Text),
            ("features", Int),
            ("ttl", Text),
            ("online", Bool),
            ("kind", Text),
            ("rows", Int),
            ("watermark", Time),
            ("event_timestamp", Text),
            ("created_timestamp", Text),
            ("lookback", Text),
            ("refresh_every", Text),
            ("suspended", Bool),
            ("query", Text),
            ("location", Text),
            ("comment", Text),
            ("owner", Text),
            ("tags", Text),
            ("created_at", Time),
        ],
        "feature_view_versions" => &[
            ("schema", Text),
            ("name", Text),
            ("version", Int),
            ("is_current", Bool),
            ("filled", Bool),
            ("materialized", Bool),
            ("rows", Int),
            ("watermark", Time),
            ("location", Text),
            ("query", Text),
            ("comment", Text),
            ("created_at", Time),
        ],
        "features" => &[
            ("schema", Text),
            ("feature_view", Text),
            ("version", Int),
            ("name", Text),
            ("data_type", Text),
            ("comment", Text),
            ("tags", Text),
            ("position", Int),
        ],
        "feature_services" => &[
            ("schema", Text),
            ("name", Text),
            ("wants", Text),
            ("views", Text),
            ("features", Int),
            ("query", Text),
            ("comment", Text),
            ("owner", Text),
            ("tags", Text),
            ("created_at", Time),
        ],
        "training_sets" => &[
            ("schema", Text),
            ("name", Text),
            ("rows", Int),
            ("content_hash", Text),
            ("instant", Time),
            ("location", Text),
            ("catalog_version", Int),
            ("engine_version", Text),
            ("query", Text),
            ("comment", Text),
            ("owner", Text),
            ("tags", Text),
            ("created_at", Time),
        ],
        "sources" => &[
            ("schema", Text),
            ("name", Text),
            ("kind", Text),
            ("format", Text),
            ("location", Text),
            ("comment", Text),
            ("owner", Text),
            ("tags", Text),
            ("created_at", Time),
        ],
        "tables" => &[("schema", Text), ("name", Text), ("kind", Text), ("comment", Text)],
        "freshness" => &[
            ("schema", Text),
            ("view", Text),
            ("version", Int),
            ("is_current", Bool),
            ("online", Bool),
            ("refresh_every", Text),
            ("suspended", Bool),
            ("watermark", Time),
            ("freshness_seconds", Int),
            ("refreshed_at", Time),
            ("refresh_age_seconds", Int),
            ("materialized_at", Time),
            ("materialize_age_seconds", Int),
            ("next_due", Time),
            ("failures", Int),
            ("last_error", Text),
        ],
        "online" => &[
            ("schema", Text),
            ("view", Text),
            ("version", Int),
            ("generation", Int),
            ("online_version", Int),
            ("offline_version", Int),
            ("lag", Int),
            ("keys", Int),
            ("bytes", Int),
            ("published_at", Time),
            ("error", Text),
        ],
        "settings" => &[("name", Text), ("value", Text), ("meaning", Text)],
        _ => &[],
    }
}

#[derive(Debug, Clone, Copy)]
enum T {
    Text,
    Int,
    Bool,
    /// Microseconds, UTC.
    Time,
}

fn schema(table: &str) -> SchemaRef {
    if table == "runs" {
        return Runs::schema();
    }
    let field = |(name, t): &(&str, T)| {
        let t = match t {
            T::Text => DataType::Utf8,
            T::Int => DataType::Int64,
            T::Bool => DataType::Boolean,
            T::Time => timestamp_type(),
        };
        Field::new(*name, t, true)
    };
    Arc::new(Schema::new(columns(table).iter().map(field).collect::<Vec<_>>()))
}

type Row = Vec<ScalarValue>;

fn text(v: impl Into<String>) -> ScalarValue {
    ScalarValue::Utf8(Some(v.into()))
}
fn maybe(v: &Option<String>) -> ScalarValue {
    ScalarValue::Utf8(v.clone())
}
fn int(v: impl TryInto<i64>) -> ScalarValue {
    ScalarValue::Int64(Some(v.try_into().unwrap_or(i64::MAX)))
}
fn maybe_int(v: Option<u64>) -> ScalarValue {
    v.map_or(ScalarValue::Int64(None), int)
}
fn flag(v: bool) -> ScalarValue {
    ScalarValue::Boolean(Some(v))
}
fn time(v: Option<Micros>) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(v, Some("UTC".into()))
}
/// `7 days`
fn span(v: Micros) -> String {
    crate::sql::cursor::format_interval(v).trim_start_matches("INTERVAL ").trim_matches('\'').to_string()
}
fn joined<S: AsRef<str>>(parts: impl IntoIterator<Item = S>) -> ScalarValue {
    text(parts.into_iter().map(|s| s.as_ref().to_string()).collect::<Vec<_>>().join(", "))
}
fn typed(columns: &[Column]) -> ScalarValue {
    joined(columns.iter().map(|c| format!("{} {}", c.name, c.data_type)))
}
fn tags(t: &Tags) -> ScalarValue {
    match t.is_empty() {
        true => ScalarValue::Utf8(None),
        false => joined(t.iter().map(|(k, v)| format!("{k} = {v}"))),
    }
}
/// comment, owner, tags
fn about(a: &About) -> [ScalarValue; 3] {
    [maybe(&a.comment), maybe(&a.owner), tags(&a.tags)]
}
fn name(n: &Name) -> [ScalarValue; 2] {
    [text(&n.schema), text(&n.name)]
}
/// The name as the reader of the row would write it.
fn near(n: &Name, schema: &str) -> String {
    if n.schema == schema { n.name.clone() } else { n.to_string() }
}

fn row<const A: usize, const B: usize>(first: [ScalarValue; A], last: [ScalarValue; B]) -> Row {
    first.into_iter().chain(last).collect()
}

fn to_batch(schema: &SchemaRef, rows: Vec<Row>) -> Result<RecordBatch> {
    if rows.iter().any(|r| r.len() != schema.fields().len()) {
        return Err(Error::internal("a system table and its columns differ"));
    }
    let mut columns: Vec<Vec<ScalarValue>> = schema.fields().iter().map(|_| Vec::with_capacity(rows.len())).collect();
    for row in rows {
        columns.iter_mut().zip(row).for_each(|(c, v)| c.push(v));
    }
    let array = |(values, f): (Vec<ScalarValue>, &Arc<Field>)| -> Result<ArrayRef> {
        match values.is_empty() {
            true => Ok(new_empty_array(f.data_type())),
            false => Ok(ScalarValue::iter_to_array(values)?),
        }
    };
    let arrays = columns.into_iter().zip(schema.fields()).map(array).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), arrays)?)
}

impl SystemTable {
    fn batch(&self, cost: Cost, settings: Settings) -> BoxFuture<'_, Result<RecordBatch>> {
        Box::pin(async move {
            let rows = match self.name {
                "runs" => return self.services.runs.batch().await,
                "feature_views" => self.feature_views(cost).await,
                "feature_view_versions" => self.versions(cost).await,
                "freshness" => self.freshness().await?,
                "online" => self.online(cost).await,
                "schemas" => self.schemas(),
                "entities" => self.entities(),
                "features" => self.features(),
                "feature_services" => self.catalog.services.values().map(|s| self.service(s)).collect(),
                "training_sets" => self.training_sets(),
                "sources" => self.sources(),
                "tables" => self.tables(),
                "settings" => self.settings(settings),
                other => return Err(Error::internal(format!("system.{other} has no rows"))),
            };
            to_batch(&self.schema, rows)
        })
    }

    fn schemas(&self) -> Vec<Row> {
        let at = |t: Micros| time((t != 0).then_some(t));
        self.catalog
            .schemas
            .values()
            .map(|s| row([text(&s.name)], about(&s.about)).into_iter().chain([at(s.created_at)]).collect())
            .collect()
    }

    fn entities(&self) -> Vec<Row> {
        let one = |e: &Arc<crate::model::Entity>| {
            let [schema, name] = name(&e.name);
            row([schema, name, typed(&e.keys)], about(&e.about)).into_iter().chain([time(Some(e.created_at))]).collect()
        };
        self.catalog.entities.values().map(one).collect()
    }

    /// Rows and watermark of a view's table; NULL where it cannot be read, so that a list still lists it.
    async fn size(&self, view: &FeatureView, cost: Cost) -> (ScalarValue, ScalarValue) {
        if !cost.size {
            return (maybe_int(None), time(None));
        }
        match self.services.store.snapshot(&view.location, None).await {
            Ok(s) => (maybe_int(s.rows()), time(s.watermark())),
            Err(e) => {
                tracing::warn!(view = view.versioned_name(), error = %e, "the table of a feature view cannot be read");
                (maybe_int(None), time(None))
            }
        }
    }

    async fn feature_views(&self, cost: Cost) -> Vec<Row> {
        let mut rows = vec![];
        for v in self.catalog.feature_views.values().filter_map(|s| s.current()) {
            let (count, watermark) = self.size(v, cost).await;
            let kind = match (&v.query, v.snapshot) {
                (None, _) => "push",
                (_, true) => "snapshot",
                _ => "query",
            };
            let [schema, name] = name(&v.name);
            let first = [
                schema,
                name,
                int(v.version),
                joined(v.entities.iter().map(|e| near(e, &v.name.schema))),
                typed(&v.keys),
                int(v.features.len()),
                maybe(&v.ttl.map(span)),
                flag(v.online),
                text(kind),
                count,
                watermark,
                text(&v.event_timestamp),
                maybe(&v.created_timestamp),
                text(span(v.lookback)),
                maybe(&v.refresh_every.map(span)),
                flag(v.suspended),
                maybe(&v.query),
                text(self.services.store.display_path(&v.location)),
            ];
            rows.push(row(first, about(&v.about)).into_iter().chain([time(Some(v.created_at))]).collect());
        }
        rows
    }

    async fn versions(&self, cost: Cost) -> Vec<Row> {
        let mut rows = vec![];
        for s in self.catalog.feature_views.values() {
            for v in s.versions.values() {
                let (count, watermark) = self.size(v, cost).await;
                let [schema, name] = name(&v.name);
                rows.push(vec![
                    schema,
                    name,
                    int(v.version),
                    flag(s.current == v.version),
                    flag(s.filled.contains(&v.version)),
                    flag(s.materialized.contains(&v.version)),
                    count,
                    watermark,
                    text(self.services.store.display_path(&v.location)),
                    maybe(&v.query),
                    maybe(&v.about.comment),
                    time(Some(v.created_at)),
                ]);
            }
        }
        rows
    }

    async fn freshness(&self) -> Result<Vec<Row>> {
        let now = self.services.clock.now();
        let age = |at: Option<Micros>| ScalarValue::Int64(at.map(|t| now.saturating_sub(t).div_euclid(SECOND)));
        let one = |f: Freshness| {
            let (v, s) = (&f.view, &f.standing);
            let [schema, name] = name(&v.name);
            vec![
                schema,
                name,
                int(v.version),
                flag(f.is_current),
                flag(v.online),
                maybe(&v.refresh_every.map(span)),
                flag(v.suspended),
                time(f.watermark),
                age(f.watermark),
                time(s.refreshed_at),
                age(s.refreshed_at),
                time(s.materialized_at),
                age(s.materialized_at),
                time(s.next_due()),
                int(s.failures),
                maybe(&s.last_error),
            ]
        };
        Ok(freshness::all(&self.services, &self.catalog).await?.into_iter().map(one).collect())
    }

    /// Features of the versions that bare names mean.
    fn features(&self) -> Vec<Row> {
        let mut rows = vec![];
        for v in self.catalog.feature_views.values().filter_map(|s| s.current()) {
            for (i, f) in v.features.iter().enumerate() {
                let [schema, view] = name(&v.name);
                rows.push(vec![
                    schema,
                    view,
                    int(v.version),
                    text(&f.name),
                    text(f.data_type.to_string()),
                    maybe(&f.comment),
                    tags(&f.tags),
                    int(i + 1),
                ]);
            }
        }
        rows
    }

    fn service(&self, s: &Service) -> Row {
        let mut wants: Vec<String> = vec![];
        let mut views = vec![];
        for item in &s.items {
            let version = item.pin.number();
            let at = version.map_or("latest".to_string(), |v| format!("v{v}"));
            views.push(format!("{}@{at}", near(&item.view, &s.name.schema)));
            let Ok(view) = self.catalog.feature_view(&item.view, version) else { continue };
            for key in &view.keys {
                let callers = item.callers_name(&key.name);
                if !wants.iter().any(|w| w == callers) {
                    wants.push(callers.to_string());
                }
            }
        }
        wants.extend(s.request.iter().map(|r| r.name.clone()));
        let [schema, name] = name(&s.name);
        let first = [schema, name, joined(wants), joined(views), int(s.outputs.len()), text(&s.query)];
        row(first, about(&s.about)).into_iter().chain([time(Some(s.created_at))]).collect()
    }

    fn training_sets(&self) -> Vec<Row> {
        let one = |t: &Arc<crate::model::TrainingSet>| {
            let m = &t.manifest;
            let [schema, name] = name(&t.name);
            let first = [
                schema,
                name,
                int(m.rows),
                text(&m.content_hash),
                time(Some(m.instant)),
                text(self.services.store.display_path(&t.location)),
                int(m.catalog_version),
                text(&m.engine_version),
                text(&t.query),
            ];
            row(first, about(&t.about)).into_iter().chain([time(Some(t.created_at))]).collect()
        };
        self.catalog.training_sets.values().map(one).collect()
    }

    fn sources(&self) -> Vec<Row> {
        let one = |t: &Arc<crate::model::Table>| {
            let location = if t.managed { self.services.store.display_path(&t.location) } else { without_credentials(&t.location) };
            let [schema, name] = name(&t.name);
            let kind = if t.managed { "table" } else { "external table" };
            row([schema, name, text(kind), text(&t.format), text(location)], about(&t.about))
                .into_iter()
                .chain([time(Some(t.created_at))])
                .collect()
        };
        self.catalog.tables.values().map(one).collect()
    }

    fn tables(&self) -> Vec<Row> {
        use crate::catalog::{Relation, SYSTEM_SCHEMA};
        let mut rows = vec![];
        for n in self.catalog.relation_names() {
            let Some(relation) = self.catalog.relation(n) else { continue };
            let comment = match relation {
                Relation::Table(t) => maybe(&t.about.comment),
                Relation::View(v) => maybe(&v.about.comment),
                Relation::FeatureView(s) => s.current().map_or(ScalarValue::Utf8(None), |v| maybe(&v.about.comment)),
                Relation::Service(s) => maybe(&s.about.comment),
                Relation::TrainingSet(t) => maybe(&t.about.comment),
            };
            rows.push(row(name(n), [text(relation.kind()), comment]));
        }
        rows.extend(TABLES.iter().map(|t| vec![text(SYSTEM_SCHEMA), text(*t), text("system table"), ScalarValue::Utf8(None)]));
        rows
    }

    /// Views that are or were served. What an unreachable store would say is NULL, and `error` says why.
    async fn online(&self, cost: Cost) -> Vec<Row> {
        let mut lost: Option<String> = None;
        let mut rows = vec![];
        for v in served::versions(&self.catalog) {
            let offline = self.services.store.snapshot(&v.location, None).await.ok().map(|s| s.version());
            let mut state = Served::default();
            // one wait for a store that is gone, not one per view
            if lost.is_none() {
                match self.served(v, cost).await {
                    Ok(s) => state = s,
                    Err(e) => {
                        tracing::warn!(error = %e, "the online store cannot be read");
                        lost = Some(e.message().to_string());
                    }
                }
            }
            let lag = offline.zip(state.version).map(|(a, b)| a.saturating_sub(b));
            let [schema, view] = name(&v.name);
            rows.push(vec![
                schema,
                view,
                int(v.version),
                maybe_int(state.generation),
                maybe_int(state.version),
                maybe_int(offline),
                maybe_int(lag),
                maybe_int(state.size.map(|s| s.0)),
                maybe_int(state.size.map(|s| s.1)),
                time(state.published_at),
                maybe(&lost),
            ]);
        }
        rows
    }

    fn served<'a>(&'a self, view: &'a FeatureView, cost: Cost) -> BoxFuture<'a, Result<Served>> {
        Box::pin(async move {
            let store = self.services.online().await?;
            let view = self.services.online_view(view);
            let Some(pointer) = store.pointer(&view).await? else { return Ok(Served::default()) };
            let size = match cost.served {
                true => Some(store.stats(&view, pointer.generation).await?),
                false => None,
            };
            let version = store.watermark(&view, pointer.generation).await?;
            Ok(Served { generation: Some(u64::from(pointer.generation)), version, size, published_at: Some(pointer.published_at) })
        })
    }

    fn settings(&self, session: Settings) -> Vec<Row> {
        let own = VARIABLES.iter().map(|(n, meaning)| vec![text(*n), maybe(&session.0.get(n).cloned()), text(*meaning)]);
        let fixed = SETTINGS.iter().filter(|s| !VARIABLES.iter().any(|(n, _)| *n == s.name));
        let fixed = fixed.map(|s| vec![text(s.name), maybe(&s.shown(&self.services.config)), text(s.meaning)]);
        own.chain(fixed).collect()
    }
}

#[derive(Default)]
struct Served {
    generation: Option<u64>,
    version: Option<u64>,
    size: Option<(u64, u64)>,
    published_at: Option<Micros>,
}
