//! The tables of schema `system`: what the catalog, the stores and the record of runs know, as rows. They are read when
//! a statement scans them, and what is expensive only where its column is asked for.
//!
//! A table is one file and one entry of [`TABLES`]: `system_table!` declares its columns, or it is a view in sql/system.
//! docs/system-tables.md is made from the declarations.

mod declare;
mod dependencies;
mod entities;
mod feature_services;
mod feature_view_versions;
mod features;
mod freshness;
mod online;
mod provider;
mod runs;
mod schemas;
mod settings;
mod sources;
mod tables;
mod training_sets;
mod values;
mod view;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use self::declare::Declared;
use self::provider::{Scan, SystemTable};
pub use self::settings::Variables;
use self::view::{SqlView, sql_view};
use crate::catalog::{CatalogSnapshot, SYSTEM_SCHEMA};
use crate::model::{About, Name, View};
use crate::services::Services;

/// A system table.
#[derive(Debug)]
enum Table {
    Declared(Declared),
    View(SqlView),
}

static TABLES: [Table; 14] = [
    Table::Declared(dependencies::TABLE),
    Table::Declared(entities::TABLE),
    Table::Declared(feature_services::TABLE),
    Table::Declared(feature_view_versions::TABLE),
    Table::View(sql_view!("feature_views")),
    Table::Declared(features::TABLE),
    Table::Declared(freshness::TABLE),
    Table::Declared(online::TABLE),
    Table::Declared(runs::TABLE),
    Table::Declared(schemas::TABLE),
    Table::Declared(settings::TABLE),
    Table::Declared(sources::TABLE),
    Table::Declared(tables::TABLE),
    Table::Declared(training_sets::TABLE),
];

impl Table {
    fn name(&self) -> &'static str {
        match self {
            Table::Declared(t) => t.name,
            Table::View(v) => v.name,
        }
    }
}

/// Names of all system tables, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(Table::name)
}

/// What a name of schema `system` stands for.
pub enum Found {
    Table(Arc<dyn TableProvider>),
    /// It is planned as a view that a user had made.
    View(Box<View>),
}

/// A system table as of the statement; `None`: there is none of this name.
pub fn find(services: &Arc<Services>, catalog: &Arc<CatalogSnapshot>, name: &str) -> Option<Found> {
    let found = TABLES.iter().find(|t| t.name() == name)?;
    Some(match found {
        Table::Declared(table) => Found::Table(Arc::new(SystemTable {
            schema: table.schema(),
            table,
            services: Arc::clone(services),
            catalog: Arc::clone(catalog),
        })),
        Table::View(view) => Found::View(Box::new(definition(view))),
    })
}

/// The view as if a user had made it.
fn definition(view: &SqlView) -> View {
    View {
        name: Name::new(SYSTEM_SCHEMA, view.name),
        columns: vec![],
        query: view.query.to_string(),
        query_schema: SYSTEM_SCHEMA.to_string(),
        reads: vec![],
        about: About::default(),
        created_at: 0,
    }
}
