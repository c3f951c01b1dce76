//! CREATE of everything but feature views.

use serde::{Deserialize, Serialize};

use super::super::{CatalogChange, CatalogSnapshot, PutMode, Relation, SchemaDef};
use super::{Exists, circle};
use crate::error::{Error, Result};
use crate::model::{Entity, Name, ObjectKind, Service, Table, TrainingSet, View};

pub fn schema(c: &CatalogSnapshot, schema: &SchemaDef, exists: Exists) -> Result<Vec<CatalogChange>> {
    match c.schema(&schema.name) {
        Ok(_) if exists == Exists::Keep => Ok(vec![]),
        Ok(_) => Err(Error::already_exists(format!("schema {:?} exists already", schema.name)).with_hint("IF NOT EXISTS keeps it")),
        Err(_) => Ok(vec![CatalogChange::CreateSchema(schema.clone())]),
    }
}

pub fn entity(c: &CatalogSnapshot, entity: &Entity, exists: Exists) -> Result<Vec<CatalogChange>> {
    let name = &entity.name;
    c.schema(&name.schema)?;
    let Some(old) = c.entities.get(name) else { return Ok(vec![CatalogChange::PutEntity(entity.clone(), PutMode::Create)]) };
    match exists {
        Exists::Keep => Ok(vec![]),
        Exists::Refuse => Err(Error::already_exists(format!("entity {name} exists already"))
            .with_hint("CREATE OR REPLACE ENTITY changes it, IF NOT EXISTS keeps it")),
        Exists::Replace => {
            let users = c.views_using_entity(name);
            if old.keys != entity.keys && !users.is_empty() {
                return Err(Error::invalid(format!(
                    "the keys of entity {name} cannot change while feature views use it: {}",
                    users.join(", ")
                ))
                .with_hint("create another entity, and new feature views on it"));
            }
            Ok(vec![CatalogChange::PutEntity(Entity { created_at: old.created_at, ..entity.clone() }, PutMode::Replace)])
        }
    }
}

/// How one relation comes under a name; `None`: it stays as it is. Replaces only its own kind.
fn place(c: &CatalogSnapshot, name: &Name, kind: ObjectKind, exists: Exists) -> Result<Option<PutMode>> {
    c.schema(&name.schema)?;
    match c.relation(name).map(|r| r.object_kind()) {
        None => Ok(Some(PutMode::Create)),
        Some(_) if exists == Exists::Keep => Ok(None),
        Some(have) if exists == Exists::Replace && have == kind => Ok(Some(PutMode::Replace)),
        Some(have) => Err(Error::already_exists(format!("{have} {name} exists already"))
            .with_hint(format!("choose another name, DROP it first, or write CREATE OR REPLACE for a {kind}"))),
    }
}

pub fn view(c: &CatalogSnapshot, view: &View, exists: Exists) -> Result<Vec<CatalogChange>> {
    let Some(mode) = place(c, &view.name, ObjectKind::View, exists)? else { return Ok(vec![]) };
    circle::view(c, view)?;
    Ok(vec![CatalogChange::PutView(view.clone(), mode)])
}

/// Says that a table is about to be replaced by one made from its rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Announcement {
    pub id: String,
    /// Where the table lies that is replaced.
    pub location: String,
}

impl Announcement {
    /// Whether a table is still the one that was announced.
    pub fn stands(&self, table: &Table) -> bool {
        table.location == self.location && table.replacing.as_ref() == Some(&self.id)
    }
}

/// The error of a statement that would lose the rows of others.
pub fn overtaken() -> Error {
    Error::conflict("somebody else changed it meanwhile; nothing was stored").with_hint("run it again")
}

pub fn table(c: &CatalogSnapshot, table: &Table, exists: Exists, announced: Option<&Announcement>) -> Result<Vec<CatalogChange>> {
    let mode = match (announced, c.relation(&table.name)) {
        (None, _) => place(c, &table.name, ObjectKind::Table, exists)?,
        (Some(a), Some(Relation::Table(t))) if a.stands(t) => Some(PutMode::Replace),
        (Some(_), _) => return Err(overtaken().context(format!("table {}", table.name))),
    };
    Ok(mode.map(|m| CatalogChange::PutTable(table.clone(), m)).into_iter().collect())
}

pub fn training_set(c: &CatalogSnapshot, set: &TrainingSet, exists: Exists) -> Result<Vec<CatalogChange>> {
    let name = &set.name;
    c.schema(&name.schema)?;
    // a table whose owner was dropped meanwhile may be gone before the manifest could keep it
    if let Some(gone) = set.manifest.tables.iter().find(|t| t.is_ours() && !c.uses(&t.location)) {
        return Err(Error::conflict(format!("training set {name}: {} was dropped while it was made", gone.name)));
    }
    let mode = match c.relation(name) {
        None => PutMode::Create,
        Some(_) if exists == Exists::Keep => return Ok(vec![]),
        Some(Relation::TrainingSet(_)) if exists == Exists::Replace => PutMode::Replace,
        Some(r) => return Err(Error::already_exists(format!("{} {name} exists already", r.kind()))),
    };
    Ok(vec![CatalogChange::PutTrainingSet(set.clone(), mode)])
}

pub fn service(c: &CatalogSnapshot, service: &Service, exists: Exists) -> Result<Vec<CatalogChange>> {
    let name = &service.name;
    c.schema(&name.schema)?;
    for item in &service.items {
        c.feature_view(&item.view, item.pin.number())?;
    }
    let old = c.services.get(name);
    if !(exists == Exists::Keep && old.is_some()) {
        circle::service(c, service)?;
    }
    match (old, exists) {
        (None, _) => match c.relation(name) {
            Some(r) => Err(Error::already_exists(format!("{} {name} has this name already", r.kind()))),
            None => Ok(vec![CatalogChange::PutService(service.clone(), PutMode::Create)]),
        },
        (Some(_), Exists::Keep) => Ok(vec![]),
        (Some(old), Exists::Replace) => {
            Ok(vec![CatalogChange::PutService(Service { created_at: old.created_at, ..service.clone() }, PutMode::Replace)])
        }
        (Some(_), Exists::Refuse) => Err(Error::already_exists(format!("feature service {name} exists already"))
            .with_hint("CREATE OR REPLACE FEATURE SERVICE changes it, IF NOT EXISTS keeps it")),
    }
}
