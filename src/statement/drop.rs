//! `DROP SCHEMA | ENTITY | TABLE | VIEW | FEATURE VIEW | FEATURE SERVICE | TRAINING SET [IF EXISTS] name [CASCADE]`

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::resolve::resolve_table_references;

use super::readers::{self, Reader};
use super::{Planned, Planning, Statement};
use crate::catalog::{CatalogChange, CatalogSnapshot};
use crate::error::{Error, Result, nearest};
use crate::model::{FeatureView, Name};
use crate::plan::command::{Build, Command};
use crate::sql::Cursor;
use crate::sql::cursor::{NameRef, VersionRef};
use crate::sql::rewrite::TIME_TRAVEL;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Schema,
    Entity,
    Table,
    View,
    FeatureView,
    Service,
    TrainingSet,
}

#[derive(Debug, Clone)]
pub struct Drop {
    kind: Kind,
    name: NameRef,
    if_exists: bool,
    cascade: bool,
}

pub fn parse(mut c: Cursor<'_>) -> Result<Statement> {
    let kinds = [
        ("SCHEMA", Kind::Schema),
        ("DATABASE", Kind::Schema),
        ("ENTITY", Kind::Entity),
        ("EXTERNAL TABLE", Kind::Table),
        ("TABLE", Kind::Table),
        ("VIEW", Kind::View),
        ("FEATURE VIEW", Kind::FeatureView),
        ("FEATURE SERVICE", Kind::Service),
        ("TRAINING SET", Kind::TrainingSet),
    ];
    let Some((_, kind)) = kinds.iter().find(|(w, _)| c.eat(w)).copied() else {
        let found = c.peek(0).map(|t| t.token.to_string()).unwrap_or_default();
        let e = Error::syntax(format!("DROP {found} is not a statement")).with_span(c.here());
        return Err(match nearest(&found, kinds.iter().map(|(w, _)| w.split(' ').next().unwrap_or(w))) {
            Some(best) => e.with_hint(format!("did you mean DROP {best}?")),
            None => e.with_hint(format!("DROP can remove {}", kinds.map(|(w, _)| w).join(", "))),
        });
    };
    let if_exists = c.eat("IF EXISTS");
    let name = if kind == Kind::FeatureView { c.name("feature view")? } else { c.plain_name("name")? };
    let cascade = c.eat("CASCADE");
    if !cascade {
        c.eat("RESTRICT");
    }
    c.end(&["CASCADE"])?;
    Ok(Statement::Drop(Drop { kind, name, if_exists, cascade }))
}

impl Drop {
    pub fn plan(self, p: &dyn Planning) -> Result<Planned> {
        let name = p.names().name(&self.name);
        let span = self.name.span;
        let catalog = p.names().catalog();
        let exists = match self.kind {
            Kind::Schema => catalog.schema(&self.name.name).map(|_| ()),
            Kind::Entity => catalog.entity(&name).map(|_| ()),
            Kind::Table => catalog.table(&name).map(|_| ()),
            Kind::View => catalog.view(&name).map(|_| ()),
            Kind::FeatureView => p.names().feature_view(&self.name).map(|_| ()),
            Kind::Service => catalog.service(&name).map(|_| ()),
            Kind::TrainingSet => catalog.training_set(&name).map(|_| ()),
        };
        let (tag, what) = match self.kind {
            Kind::Schema => ("DROP SCHEMA", format!("DROP SCHEMA {}", self.name.name)),
            Kind::Entity => ("DROP ENTITY", format!("DROP ENTITY {name}")),
            Kind::Table => ("DROP TABLE", format!("DROP TABLE {name}")),
            Kind::View => ("DROP VIEW", format!("DROP VIEW {name}")),
            Kind::FeatureView => ("DROP FEATURE VIEW", format!("DROP FEATURE VIEW {name}")),
            Kind::Service => ("DROP FEATURE SERVICE", format!("DROP FEATURE SERVICE {name}")),
            Kind::TrainingSet => ("DROP TRAINING SET", format!("DROP TRAINING SET {name}")),
        };
        if let Err(e) = exists {
            if self.if_exists && e.kind() == crate::error::Kind::NotFound {
                p.names().notice(format!("{} does not exist; nothing was dropped", self.name.name));
                return Planned::command(tag, Command::Nothing { what }, vec![]);
            }
            return Err(e.or_span(span));
        }
        if !matches!(self.kind, Kind::Schema | Kind::Entity) {
            let version = match self.name.version {
                Some(VersionRef::Number(v)) => Some(v),
                _ => None,
            };
            unread(catalog, &name, version).map_err(|e| e.or_span(span))?;
        }
        let change = |tag, what, build: Build| {
            build(catalog).map_err(|e| e.or_span(span))?;
            Planned::command(tag, Command::Change { what, tables: vec![], build }, vec![])
        };
        match self.kind {
            Kind::Table => Planned::command(tag, Command::DropTable { name }, vec![]),
            Kind::TrainingSet => Planned::command(tag, Command::DropTrainingSet { name }, vec![]),
            Kind::View => change(
                tag,
                what,
                Arc::new(move |c: &CatalogSnapshot| unread(c, &name, None).map(|()| vec![CatalogChange::DropView(name.clone())])),
            ),
            Kind::Service => change(
                tag,
                what,
                Arc::new(move |c: &CatalogSnapshot| unread(c, &name, None).map(|()| vec![CatalogChange::DropService(name.clone())])),
            ),
            Kind::Schema => {
                let (schema, cascade) = (self.name.name.clone(), self.cascade);
                if cascade {
                    return Err(Error::not_built("DROP SCHEMA … CASCADE").or_span(span).with_hint("drop its objects one by one first"));
                }
                change(tag, what, Arc::new(move |_| Ok(vec![CatalogChange::DropSchema(schema.clone())])))
            }
            Kind::Entity => change(
                tag,
                what,
                Arc::new(move |c: &CatalogSnapshot| {
                    let users = c.views_using_entity(&name);
                    if !users.is_empty() {
                        return Err(Error::invalid(format!("entity {name} is used by {}", users.join(", ")))
                            .with_hint("drop these feature views first"));
                    }
                    Ok(vec![CatalogChange::DropEntity(name.clone())])
                }),
            ),
            Kind::FeatureView => {
                let version = match self.name.version {
                    Some(VersionRef::Number(v)) => Some(v),
                    _ => None,
                };
                let series = catalog.feature_view_series(&name)?;
                let views: Vec<Arc<FeatureView>> =
                    series.versions.values().filter(|v| version.is_none_or(|n| n == v.version)).map(|v| Arc::new(v.clone())).collect();
                let cascade = self.cascade;
                let services = catalog.services_using_view(&name, version);
                let build: Build = Arc::new(move |c: &CatalogSnapshot| drop_view(c, &name, version, cascade));
                build(catalog).map_err(|e| e.or_span(span))?;
                if !services.is_empty() {
                    let services = services.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    p.names().notice(format!("CASCADE drops feature service {services}, too"));
                }
                Planned::command(tag, Command::DropFeatureView { views, build, what }, vec![])
            }
        }
    }
}

/// Refuses to drop what views read: they would fail at their next use, or read something else that is
/// called the same later. `version`: of a feature view, where only that one goes.
pub fn unread(c: &CatalogSnapshot, name: &Name, version: Option<u32>) -> Result<()> {
    let readers: Vec<String> = readers::of(c, name, version).iter().map(Reader::shown).collect();
    if readers.is_empty() {
        return Ok(());
    }
    let kind = c.relation(name).map_or("relation", |r| r.kind());
    let first = readers::to_drop(c, name, version).join("; ");
    Err(Error::invalid(format!("{kind} {name} is read by {}", readers.join(", ")))
        .with_hint(format!("drop them first: {first}; or change their queries with CREATE OR REPLACE")))
}

/// The relations that a query names, what it looks up online included; `@vN` apart.
pub fn tables_of(query: &str, schema: &str) -> Vec<(Name, Option<u32>)> {
    crate::sql::parse::statement(query).map_or_else(|_| vec![], |s| tables_in(&s, schema))
}

/// As `tables_of`, of a statement.
pub fn tables_in(statement: &DfStatement, schema: &str) -> Vec<(Name, Option<u32>)> {
    let (tables, _) = resolve_table_references(statement, true).unwrap_or_default();
    let one = |t: &TableReference| {
        let text = t.table().split(TIME_TRAVEL).next().unwrap_or_default();
        let (name, version) = match text.split_once('@') {
            Some((n, v)) => (n, v.strip_prefix('v').and_then(|v| v.parse().ok())),
            None => (text, None),
        };
        (Name::new(t.schema().unwrap_or(schema), name), version)
    };
    let asked = crate::plan::lookup::named_in(statement).into_iter().map(|n| {
        let version = match n.version {
            Some(VersionRef::Number(v)) => Some(v),
            _ => None,
        };
        (Name::new(n.schema.as_deref().unwrap_or(schema), n.name), version)
    });
    tables.iter().map(one).chain(asked).collect()
}

fn drop_view(c: &CatalogSnapshot, name: &Name, version: Option<u32>, cascade: bool) -> Result<Vec<CatalogChange>> {
    let series = c.feature_view_series(name)?;
    unread(c, name, version)?;
    let services = c.services_using_view(name, version);
    let list: Vec<String> = services.iter().map(|s| s.to_string()).collect();
    // a view may look a service up
    let read =
        services.iter().filter(|s| !readers::of(c, s, None).is_empty()).map(|s| unread(c, s, None).map_err(|e| e.message().to_string()));
    let read: Vec<String> = read.filter_map(std::result::Result::err).collect();
    if !services.is_empty() && (!cascade || !read.is_empty()) {
        let why = if read.is_empty() { String::new() } else { format!(", and {}", read.join(", and ")) };
        let hint = match read.is_empty() {
            true => "drop the service first, or write CASCADE to drop it too".to_string(),
            false => format!("drop them first: {}", readers::to_drop_services(c, &services).join("; ")),
        };
        return Err(Error::invalid(format!("feature view {name} is used by feature service {}{why}", list.join(", "))).with_hint(hint));
    }
    let mut changes: Vec<CatalogChange> = services.into_iter().map(CatalogChange::DropService).collect();
    match version {
        Some(v) if series.versions.len() > 1 => {
            if v == series.current {
                return Err(Error::invalid(format!(
                    "{name}@v{v} is what {name} means now; it cannot be dropped while other versions stay"
                ))
                .with_hint("fill the newer version first (REFRESH, MATERIALIZE), or drop the whole feature view"));
            }
            changes.push(CatalogChange::DropFeatureViewVersion(crate::catalog::VersionRef::from(c.feature_view(name, Some(v))?)));
        }
        _ => changes.push(CatalogChange::DropFeatureView(name.clone())),
    }
    Ok(changes)
}
