//! The resolve step: the one place where names become tables. It runs before planning and does all the
//! IO that planning needs: the catalog as of the statement, and the snapshots of the tables named.

mod plain;
mod tables;

pub use tables::Tables;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Weak};

use datafusion::catalog::TableProvider;
use datafusion::common::DFSchema;
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::effects::Effects;
use super::source;
use super::system;
use crate::catalog::{CatalogSnapshot, Relation, SYSTEM_SCHEMA};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::windowed::EVENTS;
use crate::model::{Dependency, FeatureView, Name, ObjectKind, PinnedFile, PinnedTable, Table, Travel, VersionSpec, View, ViewVersionId};
use crate::plan::feature_table::FeatureTable;
use crate::plan::names::Names;
use crate::plan::plain_table::PlainTable;
use crate::plan::weight::Weight;
use crate::plan::wildcard::renamed;
use crate::plan::windows;
use crate::services::Services;
use crate::sql::as_of;
use crate::sql::cursor::NameRef;
use crate::sql::references::split_travel;
use crate::sql::rewrite::TIME_TRAVEL;
use crate::store::offline::{ScanOptions, Snapshot};
use crate::table::managed::ManagedTable;

/// Tables and names of one statement.
pub struct Resolver {
    me: Weak<Resolver>,
    pub services: Arc<Services>,
    pub catalog: Arc<CatalogSnapshot>,
    pub schema: String,
    /// The statement's instant: what `now()` means.
    pub instant: Micros,
    parameters: Vec<ScalarValue>,
    notices: Arc<Mutex<Vec<String>>>,
    /// Versions to read instead of the newest: location -> Delta version (REBUILD).
    pins: HashMap<String, u64>,
    effects: Arc<dyn Effects>,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    tables: HashMap<(String, String), Option<Arc<dyn TableProvider>>>,
    features: HashMap<(Name, u32), Arc<FeatureTable>>,
    snapshots: BTreeMap<String, PinnedTable>,
    external: BTreeMap<String, Arc<Table>>,
    /// Views being planned, against cycles.
    views: Vec<Name>,
    /// What the queries of the statement itself read.
    reads: Vec<Dependency>,
    /// How much each view reads.
    weights: HashMap<Name, Weight>,
    /// That of the query planned last.
    last: Weight,
}

impl Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resolver({}, catalog version {})", self.schema, self.catalog.version)
    }
}

/// What a resolver is made with.
pub struct Scope {
    pub schema: String,
    pub instant: Micros,
    pub parameters: Vec<ScalarValue>,
    pub notices: Arc<Mutex<Vec<String>>>,
    pub pins: HashMap<String, u64>,
    pub effects: Arc<dyn Effects>,
}

impl Resolver {
    pub fn new(services: Arc<Services>, catalog: Arc<CatalogSnapshot>, scope: Scope) -> Arc<Self> {
        Arc::new_cyclic(|me| Resolver {
            me: me.clone(),
            services,
            catalog,
            schema: scope.schema,
            instant: scope.instant,
            parameters: scope.parameters,
            notices: scope.notices,
            pins: scope.pins,
            effects: scope.effects,
            loaded: Mutex::default(),
        })
    }

    pub fn shared(&self) -> Result<Arc<Resolver>> {
        self.me.upgrade().ok_or_else(|| Error::internal("the statement has ended"))
    }

    /// The same statement over another catalog, and over tables as they are now.
    pub fn again(&self, catalog: Arc<CatalogSnapshot>) -> Arc<Resolver> {
        let scope = Scope {
            schema: self.schema.clone(),
            instant: self.instant,
            parameters: self.parameters.clone(),
            notices: self.notice_list(),
            pins: self.pins.clone(),
            effects: self.effects(),
        };
        Resolver::new(Arc::clone(&self.services), catalog, scope)
    }

    /// The values bound to `$1`, `$2`, …; none while the statement is only prepared.
    pub fn parameters(&self) -> &[ScalarValue] {
        &self.parameters
    }

    /// Lets a table stand for a name, in this statement alone.
    pub fn provide(&self, schema: &str, name: &str, table: Arc<dyn TableProvider>) {
        self.loaded.lock().tables.insert((schema.to_string(), name.to_string()), Some(table));
    }

    /// How many tables the statement has by now.
    pub fn loaded_tables(&self) -> usize {
        self.loaded.lock().tables.len()
    }

    /// The same for files that the statement names; they are remembered for the manifest.
    pub fn provide_files(&self, schema: &str, files: Arc<Table>, table: Arc<dyn TableProvider>) {
        let mut l = self.loaded.lock();
        l.tables.insert((schema.to_string(), files.name.name.clone()), Some(table));
        l.external.insert(files.location.clone(), files);
    }

    pub fn effects(&self) -> Arc<dyn Effects> {
        Arc::clone(&self.effects)
    }

    pub fn notice_list(&self) -> Arc<Mutex<Vec<String>>> {
        Arc::clone(&self.notices)
    }

    /// A version of a feature view that a command names, as the statement's catalog has it.
    pub fn version(&self, id: &ViewVersionId) -> Result<Arc<FeatureView>> {
        let view = self.catalog.feature_view(&id.name, Some(id.version))?;
        match view.table_id == id.table_id {
            true => Ok(Arc::new(view.clone())),
            false => Err(Error::conflict(format!("feature view {id} was dropped and made again meanwhile")).with_hint("try again")),
        }
    }

    pub fn versions(&self, ids: &[ViewVersionId]) -> Result<Vec<Arc<FeatureView>>> {
        ids.iter().map(|id| self.version(id)).collect()
    }

    /// Notes what a query of the statement reads, by the names that it gives; what views read in their turn is theirs.
    pub fn note(&self, reads: Vec<Dependency>) {
        let mut l = self.loaded.lock();
        if !l.views.is_empty() {
            return;
        }
        for d in reads {
            let files = l.external.values().find(|t| t.name.schema.is_empty() && t.name.name == d.object.name);
            let d = match files {
                Some(t) => Dependency { kind: Some(ObjectKind::Files), ..Dependency::of(Name::new("", &t.location), None) },
                None => {
                    let d = self.of_view(d);
                    Dependency { kind: self.catalog.kind_of(&d.object), ..d }
                }
            };
            if !l.reads.contains(&d) {
                l.reads.push(d);
            }
        }
    }

    /// `view$events` is read of the view.
    fn of_view(&self, d: Dependency) -> Dependency {
        let view = d.object.name.strip_suffix(EVENTS).map(|view| Name::new(&d.object.schema, view));
        match view.filter(|view| self.catalog.relation(&d.object).is_none() && self.catalog.feature_views.contains_key(view)) {
            Some(object) => Dependency { object, ..d },
            None => d,
        }
    }

    /// What the queries planned so far read.
    pub fn dependencies(&self) -> Vec<Dependency> {
        self.loaded.lock().reads.clone()
    }

    /// The Delta tables that the statement reads, at their versions.
    pub fn pinned_tables(&self) -> Vec<PinnedTable> {
        self.loaded.lock().snapshots.values().cloned().collect()
    }

    /// The plain files that the statement's external tables name.
    pub async fn pinned_files(&self) -> Result<Vec<PinnedFile>> {
        let tables: Vec<Arc<Table>> = self.loaded.lock().external.values().cloned().collect();
        let mut out = vec![];
        for t in tables {
            if t.name.schema.is_empty() {
                return Err(Error::invalid("files that a query names by itself are not remembered, so nobody could make this again")
                    .with_hint("CREATE EXTERNAL TABLE … LOCATION '…' gives them a name, or CREATE TABLE … AS SELECT keeps their rows"));
            }
            out.extend(source::files(&self.services, &t).await?);
        }
        Ok(out)
    }

    /// A Delta table of ours at the version this statement reads; remembered for the manifest.
    async fn snapshot(&self, name: String, location: &str, travel: Option<Travel>) -> Result<Snapshot> {
        let store = &self.services.store;
        let s = match travel {
            Some(Travel::Version(v)) => store.snapshot(location, Some(v)).await,
            Some(Travel::Instant(t)) => store.snapshot_at(location, t).await,
            None => store.snapshot(location, self.pins.get(location).copied()).await,
        }
        .map_err(|e| e.context(&name))?;
        let pinned = PinnedTable { name, location: location.to_string(), table_id: s.table_id().to_string(), version: s.version() };
        self.loaded.lock().snapshots.insert(format!("{location}@{}", s.version()), pinned);
        Ok(s)
    }

    /// The table of a feature view version, loaded once per statement.
    pub fn load_features<'a>(&'a self, view: &'a FeatureView, travel: Option<Travel>) -> BoxFuture<'a, Result<Arc<FeatureTable>>> {
        Box::pin(self.load_features_once(view, travel))
    }

    async fn load_features_once(&self, view: &FeatureView, travel: Option<Travel>) -> Result<Arc<FeatureTable>> {
        let key = (view.name.clone(), view.version);
        if travel.is_none()
            && let Some(t) = self.loaded.lock().features.get(&key)
        {
            return Ok(Arc::clone(t));
        }
        let snapshot = self.snapshot(view.versioned_name(), &view.location, travel).await?;
        let store = &self.services.store;
        let visible = store.scan_provider(&snapshot, ScanOptions::default())?;
        let full = store.scan_provider(&snapshot, ScanOptions { hidden: true, ..Default::default() })?;
        let view = Arc::new(view.clone());
        let sink = match view.is_push() && travel.is_none() {
            true => Some(self.effects.row_sink(&self.services, &view, self.notice_list())),
            false => None,
        };
        let mut table = FeatureTable { view, snapshot, visible, full, sink, rows: None };
        if table.view.windowed.is_some() {
            table.rows = Some(Arc::new(windows::join::rows(self, &table)?));
        }
        let table = Arc::new(table);
        if travel.is_none() {
            self.loaded.lock().features.insert(key, Arc::clone(&table));
        }
        Ok(table)
    }

    /// Loads a relation by schema and name as the SQL planner asks for it; `None`: there is none, or it is
    /// a service (whose views are loaded).
    pub fn load<'a>(&'a self, schema: &'a str, table: &'a str) -> BoxFuture<'a, Result<Option<Arc<dyn TableProvider>>>> {
        Box::pin(self.load_once(schema, table))
    }

    async fn load_once(&self, schema: &str, table: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let key = (schema.to_string(), table.to_string());
        if let Some(known) = self.loaded.lock().tables.get(&key) {
            return Ok(known.clone());
        }
        let found = self.find(schema, table).await?;
        self.loaded.lock().tables.insert(key, found.clone());
        Ok(found)
    }

    async fn find(&self, schema: &str, table: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some((view, instant)) = as_of::split(table) {
            return self.live(schema, view, instant).await;
        }
        let (base, travel) = split_travel(table)?;
        let n = NameRef::from_parts(vec![schema.to_string(), base.to_string()], None)?;
        let name = Name::new(schema, n.name.clone());
        if schema == SYSTEM_SCHEMA {
            return match system::find(&self.services, &self.catalog, &n.name) {
                None => Ok(None),
                Some(system::Found::Table(table)) => Ok(Some(table)),
                Some(system::Found::View(view)) => self.view(&name, &view).await.map(Some),
            };
        }
        let Some(relation) = self.catalog.relation(&name) else {
            return Ok(self.events(&name, n.version.and_then(VersionSpec::number), travel).await?.map(|t| t as Arc<dyn TableProvider>));
        };
        let kind = relation.kind();
        if n.version.is_some() && !matches!(relation, Relation::FeatureView(_)) {
            return Err(Error::invalid(format!("{kind} {name} has no versions to name with @"))
                .with_hint(format!("Delta versions are read with {} VERSION AS OF n", name.name)));
        }
        let provider: Arc<dyn TableProvider> = match relation {
            Relation::FeatureView(_) => {
                let version = n.version.and_then(VersionSpec::number);
                let view = self.catalog.feature_view(&name, version)?;
                self.load_features(view, travel).await?
            }
            Relation::Table(t) if t.managed => {
                let s = self.snapshot(name.to_string(), &t.location, travel).await?;
                let read = self.services.store.scan_provider(&s, ScanOptions::default())?;
                let writable = travel.is_none();
                Arc::new(ManagedTable::new(Arc::clone(&self.services), Arc::new((**t).clone()), s, read, writable))
            }
            Relation::Table(t) if source::is_versioned(t) => {
                let pin = self.pins.get(&t.location).copied();
                let found = source::open_at(t, travel, pin).await.map_err(|e| e.context(format!("table {name}")))?;
                let pinned =
                    PinnedTable { name: name.to_string(), location: t.location.clone(), table_id: found.table_id, version: found.version };
                self.loaded.lock().snapshots.insert(format!("{}@{}", t.location, found.version), pinned);
                found.provider
            }
            Relation::Table(t) => {
                if travel.is_some() {
                    return Err(Error::invalid(format!("table {name} is stored as {}: only Delta tables can be read in time", t.format)));
                }
                self.loaded.lock().external.insert(name.to_string(), Arc::new((**t).clone()));
                source::open(&self.services, t).await.map_err(|e| e.context(format!("table {name}")))?
            }
            Relation::TrainingSet(t) => {
                let s = self.snapshot(name.to_string(), &t.location, travel).await?;
                self.services.store.scan_provider(&s, ScanOptions::default())?
            }
            Relation::View(v) => {
                if travel.is_some() {
                    return Err(Error::invalid(format!("view {name} cannot be read in time"))
                        .with_hint("write VERSION AS OF behind the tables that it reads"));
                }
                self.view(&name, v).await?
            }
            Relation::Service(s) => {
                for item in &s.items {
                    let view = self.pinned(item)?;
                    self.load_features(&view, None).await?;
                }
                return Ok(None);
            }
        };
        Ok(Some(provider))
    }

    /// `view AT instant`: of each key that is known by the instant its live row, or its windows.
    async fn live(&self, schema: &str, table: &str, instant: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let n = NameRef::from_parts(vec![schema.to_string(), table.to_string()], None)?;
        let name = Name::new(schema, n.name.clone());
        let view = match self.catalog.relation(&name) {
            Some(Relation::FeatureView(_)) => self.catalog.feature_view(&name, n.version.and_then(VersionSpec::number))?,
            Some(other) => {
                return Err(Error::invalid(format!("{} {name} cannot be read AT an instant: feature views can", other.kind()))
                    .with_hint("WHERE event_timestamp <= instant leaves out later rows; an alias called at wants AS"));
            }
            None => return Ok(None),
        };
        let query = as_of::query(view, instant);
        // what the query of it reads is the view, which the statement names
        self.loaded.lock().views.push(name.clone());
        let planned = async { super::planner::plan_sql(&self.shared()?, crate::sql::parse::statement(&query)?, schema).await }.await;
        self.loaded.lock().views.pop();
        let plan = planned
            .map_err(|e| Error::new(e.kind(), e.message()).context(format!("{name} AT {instant}")).or_hint(e.hint().unwrap_or_default()))?;
        Ok(Some(Arc::new(ViewTable::new(plan, Some(query)))))
    }

    /// `view$events`: what the table of a windowed view holds.
    async fn events(&self, name: &Name, version: Option<u32>, travel: Option<Travel>) -> Result<Option<Arc<FeatureTable>>> {
        let Some(view) = name.name.strip_suffix(EVENTS).map(|view| Name::new(&name.schema, view)) else { return Ok(None) };
        let Ok(view) = self.catalog.feature_view(&view, version) else { return Ok(None) };
        if view.windowed.is_none() {
            return Ok(None);
        }
        let table = self.load_features(view, travel).await?;
        let view = Arc::new(FeatureView { features: view.value_features(), windowed: None, ..view.clone() });
        Ok(Some(Arc::new(FeatureTable { view, rows: None, ..table.as_ref().clone() })))
    }

    /// A view, planned as of the statement.
    pub fn view<'a>(&'a self, name: &'a Name, view: &'a View) -> BoxFuture<'a, Result<Arc<dyn TableProvider>>> {
        Box::pin(self.view_once(name, view))
    }

    async fn view_once(&self, name: &Name, view: &View) -> Result<Arc<dyn TableProvider>> {
        {
            let mut l = self.loaded.lock();
            if l.views.contains(name) {
                return Err(Error::invalid(format!("view {name} reads itself")).with_hint("change one of the views in the circle"));
            }
            l.views.push(name.clone());
        }
        let planned = async {
            let statement = crate::sql::parse::statement(&view.query)?;
            let plan = super::planner::plan_sql(&self.shared()?, statement, &view.query_schema).await?;
            renamed(plan, &view.columns)
        };
        let plan = planned.await.map_err(|e| {
            Error::new(e.kind(), e.message())
                .context(format!("view {name}"))
                .or_hint(e.hint().unwrap_or("the view's query no longer works; CREATE OR REPLACE VIEW changes it"))
        });
        {
            let mut l = self.loaded.lock();
            l.views.pop();
            let weight = l.last;
            l.weights.insert(name.clone(), weight);
        }
        Ok(Arc::new(ViewTable::new(plan?, Some(view.query.clone()))) as Arc<dyn TableProvider>)
    }

    /// How much a view reads that is loaded; `None`: it is none.
    pub fn weight(&self, schema: &str, name: &str) -> Option<Weight> {
        self.loaded.lock().weights.get(&Name::new(schema, name)).copied()
    }

    /// Notes how much the query reads that is planned now.
    pub fn weighed(&self, weight: Weight) {
        self.loaded.lock().last = weight;
    }

    /// The error for a name that is nothing, or nothing that can be read as a table.
    pub fn unknown(&self, schema: &str, table: &str) -> Error {
        let base = table.split(TIME_TRAVEL).next().unwrap_or(table);
        let name = Name::new(schema, base.split('@').next().unwrap_or(base));
        if self.catalog.services.contains_key(&name) {
            return Error::invalid(format!("feature service {name} is not a table by itself"))
                .with_hint(format!("join it: FROM labels ASOF JOIN {0} AT labels.ts; or look it up: ONLINE_LOOKUP('{0}', …)", name.name));
        }
        if self.catalog.schema(schema).is_err() {
            return self
                .catalog
                .schema(schema)
                .map(|_| ())
                .err()
                .unwrap_or_else(|| Error::not_found(format!("schema {schema:?} does not exist")));
        }
        if schema == SYSTEM_SCHEMA {
            return Error::not_found(format!("table system.{base} does not exist"))
                .suggest(base, system::names())
                .or_hint(&format!("schema system has {}", system::names().collect::<Vec<_>>().join(", ")));
        }
        self.catalog.no_relation(&name)
    }
}

impl Names for Resolver {
    fn catalog(&self) -> &Arc<CatalogSnapshot> {
        &self.catalog
    }

    fn schema(&self) -> &str {
        &self.schema
    }

    fn feature_table(&self, view: &FeatureView) -> Result<Arc<FeatureTable>> {
        let key = (view.name.clone(), view.version);
        self.loaded
            .lock()
            .features
            .get(&key)
            .cloned()
            .ok_or_else(|| Error::internal(format!("the table of {} was not loaded", view.versioned_name())))
    }

    fn plain_table(&self, name: &Name) -> Result<PlainTable> {
        self.numbered(name)
    }

    fn sql_expression(&self, mut parsed: sqlparser::ast::Expr, schema: &DFSchema) -> Result<Expr> {
        let base = self.services.base()?;
        super::planner::check_functions_in(&parsed, base)?;
        crate::sql::marks::mark_expression(&mut parsed);
        let with_alias = sqlparser::ast::ExprWithAlias { expr: parsed, alias: None };
        let expr = base.create_logical_expr_from_sql_expr(with_alias, schema)?;
        Ok(crate::plan::settle::expression(expr, schema)?)
    }

    fn parameter(&self, placeholder: &str) -> Option<ScalarValue> {
        let n: usize = placeholder.strip_prefix('$')?.parse().ok()?;
        self.parameters.get(n.checked_sub(1)?).cloned()
    }

    fn notice(&self, message: String) {
        let mut list = self.notices.lock();
        if !list.contains(&message) {
            list.push(message);
        }
    }
}
