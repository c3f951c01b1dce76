//! A declared table as the engine reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::datasource::TableType;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::{PhysicalExpr, conjunction_opt};
use datafusion::physical_plan::ExecutionPlan;

use super::declare::Declared;
use super::settings;
use crate::catalog::CatalogSnapshot;
use crate::services::Services;

#[derive(Debug)]
pub struct SystemTable {
    pub table: &'static Declared,
    pub schema: SchemaRef,
    pub services: Arc<Services>,
    pub catalog: Arc<CatalogSnapshot>,
}

/// One read of a system table.
pub struct Scan {
    pub services: Arc<Services>,
    pub catalog: Arc<CatalogSnapshot>,
    /// The session's variables, by name.
    pub variables: BTreeMap<&'static str, String>,
    /// Rows that it refuses may be left out; over all columns of the table.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// Flags that must be true: rows without them may be left out.
    flags: Vec<String>,
    /// Columns that are read; `None`: all.
    columns: Option<Vec<String>>,
}

impl Scan {
    pub fn wants(&self, column: &str) -> bool {
        self.columns.as_ref().is_none_or(|c| c.iter().any(|name| name == column))
    }

    /// Whether only rows are read whose flag is true.
    pub fn only(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }
}

impl SystemTable {
    fn scan_of(&self, state: &dyn Session, projection: Option<&Vec<usize>>, filters: &[Expr]) -> Scan {
        let flag = |f: &Expr| if let Expr::Column(c) = f { Some(c.name.clone()) } else { None };
        Scan {
            services: Arc::clone(&self.services),
            catalog: Arc::clone(&self.catalog),
            variables: settings::variables(state),
            filter: self.physical(state, filters),
            flags: filters.iter().filter_map(flag).collect(),
            columns: projection.map(|p| p.iter().map(|i| self.schema.field(*i).name().clone()).collect()),
        }
    }

    /// What cannot be judged here is left to the filter above.
    fn physical(&self, state: &dyn Session, filters: &[Expr]) -> Option<Arc<dyn PhysicalExpr>> {
        let schema = DFSchema::try_from(self.schema.as_ref().clone()).ok()?;
        let all = filters.iter().map(|f| state.create_physical_expr(f.clone(), &schema).ok());
        conjunction_opt(all.flatten())
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    /// A table may leave out what a filter refuses; the filter itself stays.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let takes = |f: &&Expr| match f.is_volatile() {
            true => TableProviderFilterPushDown::Unsupported,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(takes).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let scan = self.scan_of(state, projection, filters);
        let batch = (self.table.read)(self.table, &scan).await?;
        // the batch has the columns that are read alone, in the order of the declaration
        let schema = batch.schema();
        let place = |i: &usize| schema.index_of(self.schema.field(*i).name());
        let places = projection.map(|p| p.iter().map(place).collect::<Result<Vec<_>, _>>()).transpose()?;
        MemTable::try_new(Arc::clone(&schema), vec![vec![batch]])?.scan(state, places.as_ref(), &[], limit).await
    }
}
