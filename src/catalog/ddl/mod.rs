//! What a DDL statement does to the catalog, as data: a [`Ddl`] says what is wanted, and [`Ddl::changes`] answers, for one
//! state of the catalog, the changes that bring it about. Nothing here has effects: planning asks for the changes to
//! find mistakes, and the commit asks again where another process was faster.

mod alter;
mod circle;
mod create;
mod drop;
mod feature_view;
mod left_behind;
mod touches;

use serde::{Deserialize, Serialize};

use super::{CatalogChange, CatalogSnapshot, PutMode, SchemaDef};
use crate::error::Result;
use crate::model::{Entity, FeatureView, Name, Service, Table, TrainingSet, View};

pub use alter::ViewChange;
pub use create::{Announcement, overtaken};
pub use feature_view::{Outcome, create as feature_view_outcome};
pub use left_behind::readers_of_columns;
pub use touches::{Access, Privilege, Touch};

/// What a CREATE does where an object of that name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Exists {
    Refuse,
    /// IF NOT EXISTS.
    Keep,
    /// OR REPLACE: one of the same kind.
    Replace,
}

impl Exists {
    pub fn of(or_replace: bool, if_not_exists: bool) -> Self {
        match (or_replace, if_not_exists) {
            (true, _) => Exists::Replace,
            (false, true) => Exists::Keep,
            (false, false) => Exists::Refuse,
        }
    }
}

/// A change of definitions that a statement asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ddl {
    CreateSchema {
        schema: SchemaDef,
        exists: Exists,
    },
    CreateEntity {
        entity: Entity,
        exists: Exists,
    },
    CreateView {
        view: View,
        exists: Exists,
    },
    CreateTable {
        table: Table,
        exists: Exists,
        /// Made from the rows of the table that it replaces, which this has announced.
        announced: Option<Announcement>,
    },
    CreateFeatureView {
        /// Version and online id are those of a first version; the changes have the right ones.
        view: FeatureView,
        exists: Exists,
    },
    CreateService {
        service: Service,
        exists: Exists,
    },
    CreateTrainingSet {
        set: TrainingSet,
        exists: Exists,
    },
    AlterFeatureView {
        name: Name,
        version: u32,
        change: ViewChange,
    },
    DropSchema(String),
    DropEntity(Name),
    DropTable(Name),
    DropView(Name),
    DropFeatureView {
        name: Name,
        /// `None`: all versions.
        version: Option<u32>,
        cascade: bool,
    },
    DropService(Name),
    DropTrainingSet(Name),
}

impl Ddl {
    /// The changes that carry this out on a catalog; none where there is nothing to do.
    ///
    /// Errors say why the catalog does not allow it.
    pub fn changes(&self, c: &CatalogSnapshot) -> Result<Vec<CatalogChange>> {
        match self {
            Ddl::CreateSchema { schema, exists } => create::schema(c, schema, *exists),
            Ddl::CreateEntity { entity, exists } => create::entity(c, entity, *exists),
            Ddl::CreateView { view, exists } => create::view(c, view, *exists),
            Ddl::CreateTable { table, exists, announced } => create::table(c, table, *exists, announced.as_ref()),
            Ddl::CreateFeatureView { view, exists } => Ok(feature_view::create(c, view, *exists)?.changes),
            Ddl::CreateService { service, exists } => create::service(c, service, *exists),
            Ddl::CreateTrainingSet { set, exists } => create::training_set(c, set, *exists),
            Ddl::AlterFeatureView { name, version, change } => alter::feature_view(c, name, *version, change),
            Ddl::DropSchema(name) => Ok(vec![CatalogChange::DropSchema(name.clone())]),
            Ddl::DropEntity(name) => drop::entity(c, name),
            Ddl::DropTable(name) => drop::table(c, name),
            Ddl::DropView(name) => drop::view(c, name),
            Ddl::DropFeatureView { name, version, cascade } => drop::feature_view(c, name, *version, *cascade),
            Ddl::DropService(name) => drop::service(c, name),
            Ddl::DropTrainingSet(name) => drop::training_set(c, name),
        }
    }

    /// The statement in short, as EXPLAIN shows it.
    pub fn describe(&self) -> String {
        match self {
            Ddl::CreateSchema { schema, .. } => format!("CREATE SCHEMA {}", schema.name),
            Ddl::CreateEntity { entity, .. } => format!("CREATE ENTITY {}", entity.name),
            Ddl::CreateView { view, .. } => format!("CREATE VIEW {}", view.name),
            Ddl::CreateTable { table, .. } if table.managed => format!("CREATE TABLE {}", table.name),
            Ddl::CreateTable { table, .. } => format!("CREATE EXTERNAL TABLE {}", table.name),
            Ddl::CreateFeatureView { view, .. } => format!("CREATE FEATURE VIEW {}", view.name),
            Ddl::CreateService { service, .. } => format!("CREATE FEATURE SERVICE {}", service.name),
            Ddl::CreateTrainingSet { set, .. } => format!("CREATE TRAINING SET {}", set.name),
            Ddl::AlterFeatureView { name, version, .. } => format!("ALTER FEATURE VIEW {name}@v{version}"),
            Ddl::DropSchema(name) => format!("DROP SCHEMA {name}"),
            Ddl::DropEntity(name) => format!("DROP ENTITY {name}"),
            Ddl::DropTable(name) => format!("DROP TABLE {name}"),
            Ddl::DropView(name) => format!("DROP VIEW {name}"),
            Ddl::DropFeatureView { name, version, .. } => {
                format!("DROP FEATURE VIEW {name}{}", version.map(|v| format!("@v{v}")).unwrap_or_default())
            }
            Ddl::DropService(name) => format!("DROP FEATURE SERVICE {name}"),
            Ddl::DropTrainingSet(name) => format!("DROP TRAINING SET {name}"),
        }
    }
}

/// The version of a feature view that changes make, which needs a Delta table.
pub fn made(changes: &[CatalogChange]) -> Option<&FeatureView> {
    changes.iter().find_map(|change| match change {
        CatalogChange::PutFeatureView(view, PutMode::Create) => Some(view),
        _ => None,
    })
}

/// What definitions held that are no longer there.
#[derive(Debug, Clone, PartialEq)]
pub enum Released {
    /// The Delta table at a place, of a plain table of ours.
    Table(String),
    TrainingSet(Box<TrainingSet>),
    /// The Delta table and the online rows of a version.
    FeatureView(Box<FeatureView>),
    /// The online rows of a version that is no longer ONLINE, or has another online id.
    Online(Box<FeatureView>),
}

/// What changes of a catalog leave behind; `before` is the catalog that they were made for.
pub fn released(before: &CatalogSnapshot, changes: &[CatalogChange]) -> Vec<Released> {
    changes.iter().flat_map(|change| released_by(before, change)).collect()
}

fn released_by(before: &CatalogSnapshot, change: &CatalogChange) -> Vec<Released> {
    let version = |name: &Name, version| before.feature_view(name, Some(version)).ok();
    let dropped = |v: &FeatureView| Released::FeatureView(Box::new(v.clone()));
    match change {
        CatalogChange::DropTable(name) => table(before, name, None).into_iter().collect(),
        CatalogChange::PutTable(new, PutMode::Replace) => table(before, &new.name, Some(&new.location)).into_iter().collect(),
        CatalogChange::DropTrainingSet(name) => training_set(before, name).into_iter().collect(),
        CatalogChange::PutTrainingSet(new, PutMode::Replace) => training_set(before, &new.name).into_iter().collect(),
        CatalogChange::DropFeatureView(name) => {
            before.feature_views.get(name).into_iter().flat_map(|s| s.versions.values()).map(dropped).collect()
        }
        CatalogChange::DropFeatureViewVersion(id) => version(&id.name, id.version).map(dropped).into_iter().collect(),
        CatalogChange::PutFeatureView(new, PutMode::Replace) => {
            let old = version(&new.name, new.version).filter(|old| old.online && !new.online);
            old.map(|v| Released::Online(Box::new(v.clone()))).into_iter().collect()
        }
        _ => vec![],
    }
}

fn table(before: &CatalogSnapshot, name: &Name, kept: Option<&str>) -> Option<Released> {
    let old = before.tables.get(name).filter(|t| t.managed && Some(t.location.as_str()) != kept)?;
    Some(Released::Table(old.location.clone()))
}

fn training_set(before: &CatalogSnapshot, name: &Name) -> Option<Released> {
    before.training_sets.get(name).map(|t| Released::TrainingSet(Box::new(t.as_ref().clone())))
}
