//! The catalog at one version.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::{CatalogChange, PutMode, SchemaDef};
use super::{DEFAULT_SCHEMA, SYSTEM_SCHEMA};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::{
    Dependency, Entity, FeatureView, FeatureViewSeries, Name, ObjectKind, Service, Table, TrainingSet, VersionSpec, View, ViewVersionId,
};

type Map<T> = BTreeMap<Name, Arc<T>>;

/// Everything that exists at one catalog version. Immutable; cheap to share.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogSnapshot {
    /// Number of commits so far.
    pub version: u64,
    /// When the last commit was made.
    pub at: Micros,
    /// `public` and `system` are always among them.
    pub schemas: BTreeMap<String, SchemaDef>,
    pub entities: Map<Entity>,
    pub tables: Map<Table>,
    pub views: Map<View>,
    pub feature_views: Map<FeatureViewSeries>,
    pub services: Map<Service>,
    pub training_sets: Map<TrainingSet>,
    /// Online id for the next version of a feature view.
    pub next_online_id: u32,
}

/// What a name in FROM means. All kinds share one namespace per schema; entities have their own.
#[derive(Debug, Clone, Copy)]
pub enum Relation<'a> {
    Table(&'a Arc<Table>),
    View(&'a Arc<View>),
    FeatureView(&'a Arc<FeatureViewSeries>),
    Service(&'a Arc<Service>),
    TrainingSet(&'a Arc<TrainingSet>),
}

impl Relation<'_> {
    /// As users call it.
    pub fn kind(&self) -> &'static str {
        self.object_kind().words()
    }

    pub fn object_kind(&self) -> ObjectKind {
        match self {
            Relation::Table(_) => ObjectKind::Table,
            Relation::View(_) => ObjectKind::View,
            Relation::FeatureView(_) => ObjectKind::FeatureView,
            Relation::Service(_) => ObjectKind::FeatureService,
            Relation::TrainingSet(_) => ObjectKind::TrainingSet,
        }
    }
}

impl CatalogSnapshot {
    pub(crate) fn empty() -> Self {
        let schema = |name: &str| (name.to_string(), SchemaDef { name: name.to_string(), about: Default::default(), created_at: 0 });
        CatalogSnapshot {
            version: 0,
            at: 0,
            schemas: [schema(DEFAULT_SCHEMA), schema(SYSTEM_SCHEMA)].into(),
            entities: Map::new(),
            tables: Map::new(),
            views: Map::new(),
            feature_views: Map::new(),
            services: Map::new(),
            training_sets: Map::new(),
            next_online_id: 1,
        }
    }

    pub fn schema(&self, name: &str) -> Result<&SchemaDef> {
        self.schemas.get(name).ok_or_else(|| {
            Error::not_found(format!("schema {name:?} does not exist")).suggest(name, self.schemas.keys().map(String::as_str))
        })
    }
    pub fn entity(&self, name: &Name) -> Result<&Arc<Entity>> {
        self.entities.get(name).ok_or_else(|| missing("entity", name, self.entities.keys()))
    }
    pub fn table(&self, name: &Name) -> Result<&Arc<Table>> {
        self.tables.get(name).ok_or_else(|| self.missing_relation("table", name, self.tables.keys()))
    }
    pub fn view(&self, name: &Name) -> Result<&Arc<View>> {
        self.views.get(name).ok_or_else(|| self.missing_relation("view", name, self.views.keys()))
    }
    /// All versions of a feature view.
    pub fn feature_view_series(&self, name: &Name) -> Result<&Arc<FeatureViewSeries>> {
        self.feature_views.get(name).ok_or_else(|| self.missing_relation("feature view", name, self.feature_views.keys()))
    }
    /// One version of a feature view; `None`: the one that the bare name means.
    pub fn feature_view(&self, name: &Name, version: Option<u32>) -> Result<&FeatureView> {
        let series = self.feature_view_series(name)?;
        let wanted = version.unwrap_or(series.current);
        series.versions.get(&wanted).ok_or_else(|| {
            let known: Vec<String> = series.versions.keys().map(|v| format!("@v{v}")).collect();
            Error::not_found(format!("feature view {name} has no version {wanted}"))
                .with_hint(format!("its versions are {}", known.join(", ")))
        })
    }
    pub fn service(&self, name: &Name) -> Result<&Arc<Service>> {
        self.services.get(name).ok_or_else(|| self.missing_relation("feature service", name, self.services.keys()))
    }
    pub fn training_set(&self, name: &Name) -> Result<&Arc<TrainingSet>> {
        self.training_sets.get(name).ok_or_else(|| self.missing_relation("training set", name, self.training_sets.keys()))
    }

    /// What a name in FROM means.
    pub fn relation(&self, name: &Name) -> Option<Relation<'_>> {
        self.tables
            .get(name)
            .map(Relation::Table)
            .or_else(|| self.views.get(name).map(Relation::View))
            .or_else(|| self.feature_views.get(name).map(Relation::FeatureView))
            .or_else(|| self.services.get(name).map(Relation::Service))
            .or_else(|| self.training_sets.get(name).map(Relation::TrainingSet))
    }

    /// All names that [`relation`](Self::relation) knows.
    pub fn relation_names(&self) -> impl Iterator<Item = &Name> {
        let (a, b, c) = (self.tables.keys(), self.views.keys(), self.feature_views.keys());
        a.chain(b).chain(c).chain(self.services.keys()).chain(self.training_sets.keys())
    }

    /// The error for a name in FROM that means nothing.
    pub fn no_relation(&self, name: &Name) -> Error {
        if !self.schemas.contains_key(&name.schema) {
            return self.schema(&name.schema).err().unwrap_or_else(|| Error::internal("schema came and went"));
        }
        missing("table or view", name, self.relation_names())
    }

    /// Versions of feature views that use an entity, as `schema.name@vN`.
    pub fn views_using_entity(&self, name: &Name) -> Vec<String> {
        let versions = self.feature_views.values().flat_map(|s| s.versions.values());
        versions.filter(|v| v.entities.contains(name)).map(FeatureView::versioned_name).collect()
    }

    /// Services that read a feature view: any version of it, or the given one (`view@latest` reads
    /// the version that the bare name means).
    pub fn services_using_view(&self, name: &Name, version: Option<u32>) -> Vec<Name> {
        let current = self.feature_views.get(name).map(|s| s.current);
        let uses = |s: &Service| {
            s.items.iter().any(|i| {
                let pinned = match i.pin {
                    VersionSpec::Version(v) => Some(v),
                    VersionSpec::Latest => current,
                };
                i.view == *name && (version.is_none() || pinned == version)
            })
        };
        self.services.values().filter(|s| uses(s)).map(|s| s.name.clone()).collect()
    }

    fn missing_relation<'a>(&self, kind: &str, name: &Name, candidates: impl Iterator<Item = &'a Name>) -> Error {
        match self.relation(name) {
            Some(other) => Error::not_found(format!("{name} is a {}, not a {kind}", other.kind())),
            None => missing(kind, name, candidates),
        }
    }

    /// Applies one change; on an error the snapshot is of no use.
    pub(crate) fn apply(&mut self, change: CatalogChange) -> Result<()> {
        use CatalogChange::*;
        match change {
            CreateSchema(s) => {
                if self.schemas.contains_key(&s.name) {
                    return Err(Error::already_exists(format!("schema {:?} exists already", s.name)));
                }
                self.schemas.insert(s.name.clone(), s);
            }
            DropSchema(name) => self.drop_schema(&name)?,
            PutEntity(e, mode) => {
                self.writable(&e.name)?;
                if mode == PutMode::Create && self.entities.contains_key(&e.name) {
                    return Err(Error::already_exists(format!("entity {} exists already", e.name)));
                }
                self.entities.insert(e.name.clone(), Arc::new(e));
            }
            DropEntity(name) => {
                self.entity(&name)?;
                self.entities.remove(&name);
            }
            PutTable(o, mode) => {
                self.claim("table", &o.name, mode)?;
                self.tables.insert(o.name.clone(), Arc::new(o));
            }
            DropTable(name) => {
                self.table(&name)?;
                self.tables.remove(&name);
            }
            PutView(mut o, mode) => {
                self.claim("view", &o.name, mode)?;
                if o.reads.is_empty() {
                    o.reads = self.reads_of(&o.query, &o.query_schema);
                }
                self.views.insert(o.name.clone(), Arc::new(o));
            }
            DropView(name) => {
                self.view(&name)?;
                self.views.remove(&name);
            }
            PutFeatureView(view, PutMode::Create) => {
                let view = self.with_reads(view);
                self.create_version(view)?;
            }
            PutFeatureView(view, PutMode::Replace) => {
                let view = self.with_reads(view);
                let at = ViewVersionId::from(&view);
                if view.online_id != self.feature_view(&at.name, Some(at.version))?.online_id {
                    self.claim_online_id(&view)?;
                }
                self.edit_version(&at, |series| {
                    series.versions.insert(view.version, view);
                })?;
            }
            SetCurrentVersion(at) => self.edit_version(&at, |s| s.current = at.version)?,
            MarkFilled(at) => self.edit_version(&at, |s| {
                s.filled.insert(at.version);
            })?,
            MarkMaterialized(at) => self.edit_version(&at, |s| {
                s.materialized.insert(at.version);
            })?,
            ClearMaterialized(at) => self.edit_version(&at, |s| {
                s.materialized.remove(&at.version);
            })?,
            DropFeatureViewVersion(at) => self.drop_version(&at)?,
            DropFeatureView(name) => {
                self.feature_view_series(&name)?;
                self.feature_views.remove(&name);
            }
            PutService(o, mode) => {
                self.claim("feature service", &o.name, mode)?;
                self.services.insert(o.name.clone(), Arc::new(o));
            }
            DropService(name) => {
                self.service(&name)?;
                self.services.remove(&name);
            }
            PutTrainingSet(o, mode) => {
                self.claim("training set", &o.name, mode)?;
                self.training_sets.insert(o.name.clone(), Arc::new(o));
            }
            DropTrainingSet(name) => {
                self.training_set(&name)?;
                self.training_sets.remove(&name);
            }
        }
        Ok(())
    }

    /// What must hold after every commit: nothing refers to something that is not there.
    pub(crate) fn check_references(&self) -> Result<()> {
        for view in self.feature_views.values().flat_map(|s| s.versions.values()) {
            if let Some(gone) = view.entities.iter().find(|e| !self.entities.contains_key(*e)) {
                return Err(Error::invalid(format!("entity {gone} is used by feature view {}", view.versioned_name()))
                    .with_hint("drop the feature view first"));
            }
        }
        for service in self.services.values() {
            for item in &service.items {
                let series = self.feature_views.get(&item.view);
                let there = match item.pin {
                    VersionSpec::Version(v) => series.is_some_and(|s| s.versions.contains_key(&v)),
                    VersionSpec::Latest => series.is_some(),
                };
                if !there {
                    let version = if let VersionSpec::Version(v) = item.pin { format!("@v{v}") } else { String::new() };
                    return Err(Error::invalid(format!("feature view {}{version} is used by feature service {}", item.view, service.name))
                        .with_hint("drop the service first, or use CASCADE"));
                }
            }
        }
        Ok(())
    }

    /// Older versions did not record what a query reads: it is read from its text, once.
    fn with_reads(&self, mut view: FeatureView) -> FeatureView {
        if let (true, Some(query)) = (view.reads.is_empty() && !view.is_push(), &view.query) {
            view.reads = self.reads_of(query, &view.query_schema);
        }
        view
    }

    fn reads_of(&self, query: &str, schema: &str) -> Vec<Dependency> {
        let reads = crate::sql::references::of_query(query, schema);
        reads.into_iter().map(|d| Dependency { kind: self.kind_of(&d.object), ..d }).collect()
    }

    /// The kind of what has a name now.
    pub fn kind_of(&self, name: &Name) -> Option<ObjectKind> {
        match self.relation(name) {
            Some(r) => Some(r.object_kind()),
            None => (name.schema == SYSTEM_SCHEMA).then_some(ObjectKind::SystemTable),
        }
    }

    /// Whether an object needs the Delta table at a place, training sets that were made from it included.
    pub fn uses(&self, location: &str) -> bool {
        self.feature_views.values().flat_map(|s| s.versions.values()).any(|v| v.location == location)
            || self.tables.values().any(|t| t.managed && t.location == location)
            || self.training_sets.values().any(|t| t.location == location)
            || self.pinned_by(location).is_some()
    }

    /// A training set that was made from the Delta table at a place.
    pub fn pinned_by(&self, location: &str) -> Option<&Name> {
        self.training_sets.values().find(|t| t.manifest.tables.iter().any(|p| p.location == location)).map(|t| &t.name)
    }

    fn writable(&self, name: &Name) -> Result<()> {
        self.schema(&name.schema)?;
        if name.schema == SYSTEM_SCHEMA {
            return Err(Error::invalid(format!("schema {SYSTEM_SCHEMA:?} is read-only: {name} cannot be made there")));
        }
        Ok(())
    }

    fn claim(&self, kind: &str, name: &Name, mode: PutMode) -> Result<()> {
        self.writable(name)?;
        match self.relation(name) {
            Some(r) if mode == PutMode::Create || r.kind() != kind => {
                Err(Error::already_exists(format!("{} {name} exists already", r.kind())))
            }
            _ => Ok(()),
        }
    }

    fn drop_schema(&mut self, name: &str) -> Result<()> {
        self.schema(name)?;
        if name == DEFAULT_SCHEMA || name == SYSTEM_SCHEMA {
            return Err(Error::invalid(format!("schema {name:?} cannot be dropped")));
        }
        let held: Vec<String> =
            self.entities.keys().chain(self.relation_names()).filter(|n| n.schema == name).map(Name::to_string).collect();
        if !held.is_empty() {
            let shown: Vec<&str> = held.iter().take(5).map(String::as_str).collect();
            return Err(Error::invalid(format!("schema {name:?} is not empty: it holds {} objects", held.len()))
                .with_hint(format!("drop {} first", shown.join(", "))));
        }
        self.schemas.remove(name);
        Ok(())
    }

    fn create_version(&mut self, view: FeatureView) -> Result<()> {
        let name = view.name.clone();
        let expected = self.feature_views.get(&name).map_or(1, |s| s.last_version + 1);
        if expected == 1 {
            self.claim("feature view", &name, PutMode::Create)?;
        } else if view.version < expected {
            return Err(Error::already_exists(format!("feature view {} exists already", view.versioned_name())));
        }
        if view.version != expected {
            return Err(Error::conflict(format!("feature view {name}: its next version is {expected}, not {}", view.version)));
        }
        self.claim_online_id(&view)?;
        let version = view.version;
        let series = self.feature_views.entry(name).or_insert_with(|| {
            Arc::new(FeatureViewSeries {
                versions: BTreeMap::new(),
                current: version,
                filled: Default::default(),
                materialized: Default::default(),
                last_version: version,
            })
        });
        let series = Arc::make_mut(series);
        series.last_version = version;
        // A push view is complete from the start: there is no query whose rows it could lack.
        if view.is_push() {
            series.filled.insert(version);
        }
        series.versions.insert(version, view);
        Ok(())
    }

    /// Online ids are never used again.
    fn claim_online_id(&mut self, view: &FeatureView) -> Result<()> {
        if view.online_id < self.next_online_id {
            return Err(Error::conflict(format!("feature view {}: online id {} is taken", view.name, view.online_id)));
        }
        self.next_online_id = view.online_id.saturating_add(1);
        Ok(())
    }

    fn edit_version(&mut self, at: &ViewVersionId, edit: impl FnOnce(&mut FeatureViewSeries)) -> Result<()> {
        let view = self.feature_view(&at.name, Some(at.version))?;
        if view.table_id != at.table_id {
            return Err(Error::conflict(format!("feature view {} was dropped and made again meanwhile", view.versioned_name())));
        }
        if let Some(series) = self.feature_views.get_mut(&at.name) {
            edit(Arc::make_mut(series));
        }
        Ok(())
    }

    fn drop_version(&mut self, at: &ViewVersionId) -> Result<()> {
        self.edit_version(at, |series| {
            series.versions.remove(&at.version);
            series.filled.remove(&at.version);
            series.materialized.remove(&at.version);
            if series.current == at.version {
                // The newest that has data, else the newest.
                let best = series.filled.last().or(series.versions.keys().next_back());
                series.current = best.copied().unwrap_or(series.current);
            }
        })?;
        if self.feature_views.get(&at.name).is_some_and(|s| s.versions.is_empty()) {
            self.feature_views.remove(&at.name);
        }
        Ok(())
    }
}

fn missing<'a>(kind: &str, name: &Name, candidates: impl Iterator<Item = &'a Name>) -> Error {
    let all: Vec<&Name> = candidates.collect();
    let err = Error::not_found(format!("{kind} {name} does not exist"));
    if let Some(elsewhere) = all.iter().find(|c| c.name == name.name) {
        return err.with_hint(format!("there is {elsewhere}"));
    }
    err.suggest(&name.name, all.iter().filter(|c| c.schema == name.schema).map(|c| c.name.as_str()))
}
