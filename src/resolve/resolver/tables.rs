//! The tables of a statement as the SQL planner asks for them.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::TableType;

use super::Resolver;
use crate::catalog::{Relation, SYSTEM_SCHEMA};
use crate::model::Name;
use crate::resolve::system;
use crate::sql::cursor::CATALOG;

/// The catalog as the SQL planner and information_schema see it.
#[derive(Debug)]
pub struct Tables(pub Arc<Resolver>);

impl CatalogProviderList for Tables {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }
    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_string()]
    }
    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(Tables(Arc::clone(&self.0))) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for Tables {
    fn schema_names(&self) -> Vec<String> {
        self.0.catalog.schemas.keys().cloned().collect()
    }
    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.0.catalog.schema(name).ok()?;
        Some(Arc::new(SchemaTables { resolver: Arc::clone(&self.0), schema: name.to_string() }))
    }
}

#[derive(Debug)]
struct SchemaTables {
    resolver: Arc<Resolver>,
    schema: String,
}

#[async_trait]
impl SchemaProvider for SchemaTables {
    fn table_names(&self) -> Vec<String> {
        if self.schema == SYSTEM_SCHEMA {
            return system::names().map(str::to_string).collect();
        }
        let of = |n: &&Name| n.schema == self.schema && !self.resolver.catalog.services.contains_key(*n);
        self.resolver.catalog.relation_names().filter(of).map(|n| n.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.resolver.load(&self.schema, name).await?)
    }

    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        let n = Name::new(&self.schema, name);
        Ok(match self.resolver.catalog.relation(&n) {
            Some(Relation::View(_)) => Some(TableType::View),
            Some(Relation::Service(_)) => None,
            Some(_) => Some(TableType::Base),
            None => (self.schema == SYSTEM_SCHEMA && system::names().any(|t| t == name)).then_some(TableType::View),
        })
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|t| t == name)
    }
}
