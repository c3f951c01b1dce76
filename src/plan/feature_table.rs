//! A feature view as a table of the SQL planner: what users see (keys, event timestamp, created
//! timestamp, features), and the same with the hidden columns that the point-in-time join orders by.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result as DfResult, Statistics, TableReference};
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;

use crate::error::Error;
use crate::model::FeatureView;
use crate::store::offline::Snapshot;

pub use crate::store::offline::SEQ;

/// Stores rows that INSERT or bulk ingest brings. DELETE goes another way (`plan/deletion.rs`): the filters that an
/// optimizer leaves are not the user's WHERE.
#[async_trait]
pub trait RowSink: Debug + Send + Sync {
    /// A plan that stores its input (visible columns, in order) and answers one row `count`.
    async fn insert(&self, input: Arc<dyn ExecutionPlan>) -> crate::error::Result<Arc<dyn ExecutionPlan>>;
}

/// One version of a feature view at one Delta version.
#[derive(Debug, Clone)]
pub struct FeatureTable {
    pub view: Arc<FeatureView>,
    pub snapshot: Snapshot,
    /// Visible columns.
    pub visible: Arc<dyn TableProvider>,
    /// Visible columns and `_seq`.
    pub full: Arc<dyn TableProvider>,
    pub sink: Option<Arc<dyn RowSink>>,
    /// Of a windowed view what users see: a row per event, with the windows as of its instant. Its table holds the events.
    pub rows: Option<Arc<LogicalPlan>>,
}

impl FeatureTable {
    /// Its rows as stored, with `_seq`.
    pub fn full_scan(&self, qualifier: TableReference) -> crate::error::Result<LogicalPlan> {
        let full = FeatureTable { visible: Arc::clone(&self.full), rows: None, ..self.clone() };
        Ok(LogicalPlanBuilder::scan(qualifier, provider_as_source(Arc::new(full)), None)?.build()?)
    }
}

#[async_trait]
impl TableProvider for FeatureTable {
    /// All columns nullable: INSERT counts rows without key or event timestamp as rejected, it does not fail.
    fn schema(&self) -> SchemaRef {
        let schema = self.rows.as_ref().map_or_else(|| self.visible.schema(), |rows| Arc::clone(rows.schema().inner()));
        let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        Arc::new(Schema::new(fields))
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(rows) = &self.rows else { return self.visible.scan(state, projection, filters, limit).await };
        let mut rows = LogicalPlanBuilder::from(rows.as_ref().clone());
        if let Some(columns) = projection {
            rows = rows.select(columns.iter().copied())?;
        }
        state.create_physical_plan(&rows.build()?).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        match self.rows {
            Some(_) => Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()]),
            None => self.visible.supports_filters_pushdown(filters),
        }
    }

    fn statistics(&self) -> Option<Statistics> {
        self.visible.statistics().filter(|_| self.rows.is_none())
    }

    async fn insert_into(&self, _state: &dyn Session, input: Arc<dyn ExecutionPlan>, op: InsertOp) -> DfResult<Arc<dyn ExecutionPlan>> {
        let name = &self.view.name;
        if op != InsertOp::Append {
            return Err(Error::invalid(format!("INSERT OVERWRITE into feature view {name} is not possible"))
                .with_hint("DELETE FROM … WHERE … removes rows; INSERT INTO adds them")
                .into());
        }
        match &self.sink {
            Some(sink) => Ok(sink.insert(input).await?),
            None => Err(Error::invalid(format!("feature view {name} is computed by its query; rows cannot be inserted"))
                .with_hint(format!("REFRESH FEATURE VIEW {name}, or create a push view (without AS) for rows that you bring"))
                .into()),
        }
    }
}

/// The feature table behind a table scan's source, if it is one.
pub fn as_feature_table(source: &Arc<dyn datafusion::logical_expr::TableSource>) -> Option<FeatureTable> {
    let provider = datafusion::datasource::source_as_provider(source).ok()?;
    let any: &dyn Any = provider.as_ref();
    any.downcast_ref::<FeatureTable>().cloned()
}
