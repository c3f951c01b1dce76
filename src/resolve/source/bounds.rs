//! Parquet's bounds of floats leave NaN out, and the reader of DataFusion 55 takes equal bounds for the value of every row.
//! So tables with floats are read without the bounds of whole files; those of row groups still prune.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::ListingTable;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;

use crate::error::Error;

/// Whether a column may hold NaN.
pub fn has_floats(schema: &Schema) -> bool {
    schema.fields().iter().any(|f| match f.data_type() {
        DataType::Dictionary(_, plain) => plain.is_floating(),
        other => other.is_floating(),
    })
}

/// A table of files whose bounds are not looked at.
#[derive(Debug)]
pub struct WithoutBounds(pub Arc<ListingTable>);

#[async_trait]
impl TableProvider for WithoutBounds {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }
    fn table_type(&self) -> TableType {
        self.0.table_type()
    }
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(state) = state.as_any().downcast_ref::<SessionState>() else {
            return Err(Error::internal("files are read in a session of another kind").into());
        };
        let mut state = state.clone();
        state.config_mut().options_mut().execution.collect_statistics = false;
        self.0.scan(&state, projection, filters, limit).await
    }
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        self.0.supports_filters_pushdown(filters)
    }
    async fn insert_into(&self, state: &dyn Session, input: Arc<dyn ExecutionPlan>, op: InsertOp) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.0.insert_into(state, input, op).await
    }
}
