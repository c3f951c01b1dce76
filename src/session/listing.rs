//! Lists of what is there, for clients that ask for it without SQL.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};

use super::{Notices, Session};
use crate::cancel::Cancel;
use crate::catalog::{CatalogSnapshot, Relation, SYSTEM_SCHEMA};
use crate::error::Result;
use crate::model::Name;
use crate::resolve::system;

#[derive(Debug, Clone)]
pub struct TableInfo {
    pub schema: String,
    pub name: String,
    /// `TABLE`, `VIEW`, `SYSTEM TABLE`
    pub kind: &'static str,
    pub comment: Option<String>,
    /// Only where asked for.
    pub columns: Option<SchemaRef>,
    /// Join keys of a feature view.
    pub primary_key: Vec<String>,
}

impl Session {
    pub async fn schemas(&self) -> Result<Vec<String>> {
        Ok(self.services().registry.snapshot().await?.schemas.keys().cloned().collect())
    }

    /// All tables, views, feature views and system tables. Columns are read only where wanted.
    pub async fn tables(&self, with_columns: bool) -> Result<Vec<TableInfo>> {
        let session = self.clone();
        self.workers().plan(&Cancel::default(), Box::pin(async move { session.list_tables(with_columns).await })).await
    }

    async fn list_tables(&self, with_columns: bool) -> Result<Vec<TableInfo>> {
        let resolver = self.resolver(vec![], Notices::default()).await?;
        let catalog = Arc::clone(&resolver.catalog);
        let mut out = vec![];
        for name in catalog.relation_names() {
            let Some(mut info) = info(&catalog, name) else { continue };
            if with_columns {
                // a source that cannot be read now is still listed
                info.columns = match resolver.load(&name.schema, &name.name).await {
                    Ok(Some(t)) => Some(t.schema()),
                    _ => Some(Arc::new(Schema::empty())),
                };
            }
            out.push(info);
        }
        for name in system::names() {
            let mut info = TableInfo {
                schema: SYSTEM_SCHEMA.into(),
                name: name.to_string(),
                kind: "SYSTEM TABLE",
                comment: None,
                columns: None,
                primary_key: vec![],
            };
            if with_columns {
                info.columns = resolver.load(SYSTEM_SCHEMA, name).await?.map(|t| t.schema());
            }
            out.push(info);
        }
        out.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        Ok(out)
    }
}

fn info(catalog: &CatalogSnapshot, name: &Name) -> Option<TableInfo> {
    let table = |kind, comment: &Option<String>, primary_key| {
        Some(TableInfo { schema: name.schema.clone(), name: name.name.clone(), kind, comment: comment.clone(), columns: None, primary_key })
    };
    match catalog.relation(name)? {
        Relation::Table(t) => table("TABLE", &t.about.comment, vec![]),
        Relation::View(v) => table("VIEW", &v.about.comment, vec![]),
        Relation::TrainingSet(t) => table("TABLE", &t.about.comment, vec![]),
        Relation::FeatureView(s) => {
            let v = s.current()?;
            table("TABLE", &v.about.comment, v.keys.iter().map(|k| k.name.clone()).collect())
        }
        Relation::Service(_) => None,
    }
}
