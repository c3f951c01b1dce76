//! Which objects an effect reads, writes, makes and removes, and the privilege that each needs.

use serde::{Deserialize, Serialize};

use super::Ddl;
use crate::model::{Dependency, Name, ObjectKind};

/// What a principal may be allowed to do with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// Read rows.
    Select,
    /// Read online values.
    Lookup,
    Insert,
    Refresh,
    Materialize,
    /// Make objects in a schema.
    Create,
    /// ALTER, DROP, DELETE, OPTIMIZE, VACUUM.
    Manage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    Read,
    Write,
    Create,
    Drop,
}

/// One object that an effect touches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Touch {
    pub access: Access,
    /// For making an object: of its schema; for a new schema: of the warehouse.
    pub privilege: Privilege,
    /// `None`: whatever has this name.
    pub kind: Option<ObjectKind>,
    pub object: Name,
    /// Of a feature view; `None`: all versions, or the one that the bare name means.
    pub version: Option<u32>,
}

impl Touch {
    pub fn new(access: Access, privilege: Privilege, kind: ObjectKind, object: &Name) -> Self {
        Touch { access, privilege, kind: Some(kind), object: object.clone(), version: None }
    }

    pub fn at(self, version: Option<u32>) -> Self {
        Touch { version, ..self }
    }

    /// What a stored query reads.
    pub fn read(d: &Dependency) -> Self {
        let privilege = if d.online { Privilege::Lookup } else { Privilege::Select };
        Touch { access: Access::Read, privilege, kind: d.kind, object: d.object.clone(), version: d.version }
    }
}

/// A schema as an object: it is in none.
pub fn schema_name(schema: &str) -> Name {
    Name::new("", schema)
}

impl Ddl {
    /// Every object that the statement names, each with how it is touched. What goes with a CASCADE is not named.
    pub fn touches(&self) -> Vec<Touch> {
        use Access::{Create, Drop, Read, Write};
        let made = |kind, name: &Name| vec![Touch::new(Create, Privilege::Create, kind, name)];
        let dropped = |kind, name: &Name| vec![Touch::new(Drop, Privilege::Manage, kind, name)];
        match self {
            Ddl::CreateSchema { schema, exists: _ } => made(ObjectKind::Schema, &schema_name(&schema.name)),
            Ddl::CreateEntity { entity, exists: _ } => made(ObjectKind::Entity, &entity.name),
            Ddl::CreateView { view, exists: _ } => {
                let reads = view.reads.iter().map(Touch::read);
                made(ObjectKind::View, &view.name).into_iter().chain(reads).collect()
            }
            Ddl::CreateTable { table, exists: _, announced: _ } => made(ObjectKind::Table, &table.name),
            Ddl::CreateFeatureView { view, exists: _ } => {
                let entities = view.entities.iter().map(|e| Touch::new(Read, Privilege::Select, ObjectKind::Entity, e));
                let reads = view.reads.iter().map(Touch::read);
                made(ObjectKind::FeatureView, &view.name).into_iter().chain(entities).chain(reads).collect()
            }
            Ddl::CreateService { service, exists: _ } => {
                let item = |i: &crate::model::ServiceItem| {
                    Touch::new(Read, Privilege::Select, ObjectKind::FeatureView, &i.view).at(i.pin.number())
                };
                made(ObjectKind::FeatureService, &service.name).into_iter().chain(service.items.iter().map(item)).collect()
            }
            Ddl::CreateTrainingSet { set, exists: _ } => made(ObjectKind::TrainingSet, &set.name),
            Ddl::AlterFeatureView { name, version, change: _ } => {
                vec![Touch::new(Write, Privilege::Manage, ObjectKind::FeatureView, name).at(Some(*version))]
            }
            Ddl::DropSchema(name) => dropped(ObjectKind::Schema, &schema_name(name)),
            Ddl::DropEntity(name) => dropped(ObjectKind::Entity, name),
            Ddl::DropTable(name) => dropped(ObjectKind::Table, name),
            Ddl::DropView(name) => dropped(ObjectKind::View, name),
            Ddl::DropFeatureView { name, version, cascade: _ } => {
                vec![Touch::new(Drop, Privilege::Manage, ObjectKind::FeatureView, name).at(*version)]
            }
            Ddl::DropService(name) => dropped(ObjectKind::FeatureService, name),
            Ddl::DropTrainingSet(name) => dropped(ObjectKind::TrainingSet, name),
        }
    }
}
