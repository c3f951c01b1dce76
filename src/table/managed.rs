//! Tables made by CREATE TABLE: plain Delta tables in the warehouse.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result as DfResult, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};
use futures::StreamExt;

use super::conform::{misfit, row_text};
use super::swap;
use crate::clock::new_id;
use crate::error::{Error, Kind, Result};
use crate::model::exact::{Misfit, exact};
use crate::model::{Name, Table};
use crate::services::{Services, boxed};
use crate::store::offline::{Commit, NewFile, OfflineStore, Operation, Snapshot, TableOptions, WriteSpec};

/// Columns that show which row an error means.
const SHOWN: usize = 3;

/// A managed table at one Delta version.
#[derive(Debug)]
pub struct ManagedTable {
    services: Arc<Services>,
    table: Arc<Table>,
    snapshot: Snapshot,
    read: Arc<dyn TableProvider>,
    writable: bool,
}

impl ManagedTable {
    pub fn new(services: Arc<Services>, table: Arc<Table>, snapshot: Snapshot, read: Arc<dyn TableProvider>, writable: bool) -> Self {
        ManagedTable { services, table, snapshot, read, writable }
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub fn name(&self) -> &Name {
        &self.table.name
    }
}

#[async_trait]
impl TableProvider for ManagedTable {
    fn schema(&self) -> SchemaRef {
        self.read.schema()
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
        self.read.scan(state, projection, filters, limit).await
    }
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        self.read.supports_filters_pushdown(filters)
    }
    fn statistics(&self) -> Option<Statistics> {
        self.read.statistics()
    }
    async fn insert_into(&self, _state: &dyn Session, input: Arc<dyn ExecutionPlan>, op: InsertOp) -> DfResult<Arc<dyn ExecutionPlan>> {
        if !self.writable {
            return Err(Error::invalid(format!("table {}: an old version cannot be written", self.table.name)).into());
        }
        if op == InsertOp::Replace {
            return Err(Error::not_built("REPLACE INTO").into());
        }
        let sink = Append {
            services: Arc::clone(&self.services),
            table: Arc::clone(&self.table),
            schema: self.read.schema(),
            overwrites: (op == InsertOp::Overwrite).then(|| self.snapshot.clone()),
        };
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}

struct Append {
    services: Arc<Services>,
    table: Arc<Table>,
    schema: SchemaRef,
    /// The version of which all rows go: its query may have read them, and later ones must not be lost.
    overwrites: Option<Snapshot>,
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Append({})", self.table.name)
    }
}

impl DisplayAs for Append {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "insert into {}", self.table.name)
    }
}

#[async_trait]
impl DataSink for Append {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }
    async fn write_all(&self, data: SendableRecordBatchStream, _cx: &Arc<TaskContext>) -> DfResult<u64> {
        let data = crate::services::stall::watch(&self.services, data);
        Ok(append(&self.services, &self.table, data, &self.schema, self.overwrites.as_ref()).await?)
    }
}

/// Appends a stream (columns by position, those that were `planned`) to a managed table in one commit, or replaces the rows
/// of a version.
pub async fn append(
    services: &Services,
    table: &Table,
    data: SendableRecordBatchStream,
    planned: &SchemaRef,
    overwrites: Option<&Snapshot>,
) -> Result<u64> {
    let stored = boxed(store(services, table, data, planned, overwrites)).await;
    if matches!(stored, Ok(0)) {
        return stored;
    }
    match (swap::still_there(services, table).await, stored) {
        (Err(gone), _) => Err(gone),
        (Ok(()), stored) => stored.map_err(|e| e.context(format!("table {}", table.name))),
    }
}

async fn store(
    services: &Services,
    table: &Table,
    data: SendableRecordBatchStream,
    planned: &SchemaRef,
    overwrites: Option<&Snapshot>,
) -> Result<u64> {
    let base = match overwrites {
        Some(version) => version.clone(),
        None => services.store.snapshot(&table.location, None).await?,
    };
    let columns = |s: &Schema| s.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect::<Vec<_>>();
    if columns(base.schema()) != columns(planned) {
        return Err(Error::conflict("its columns were changed meanwhile; no rows were stored").with_hint("run it again"));
    }
    let (rows, adds) = write(services, &table.location, Arc::clone(base.schema()), data).await?;
    let removes: Vec<String> = overwrites.map_or(vec![], |v| v.files().iter().map(|f| f.path.clone()).collect());
    if adds.is_empty() && removes.is_empty() {
        return Ok(0);
    }
    let operation = if overwrites.is_some() { Operation::Overwrite } else { Operation::Append };
    let commit = Commit { adds: adds.clone(), removes, operation, run_id: Some(new_id()), ..Default::default() };
    let done = match overwrites {
        Some(_) => services.store.commit(&base, commit).await,
        None => services.store.append(&base, commit).await,
    };
    if let Err(e) = done {
        services.store.take_back(&table.location, &adds, &e).await;
        return Err(match e.kind() {
            Kind::Conflict if overwrites.is_some() => swap::overtaken(),
            _ => e,
        });
    }
    Ok(rows)
}

/// Streams rows into data files of a table; nothing is visible yet.
pub async fn write(services: &Services, location: &str, schema: SchemaRef, data: SendableRecordBatchStream) -> Result<(u64, Vec<NewFile>)> {
    write_files(services, location, schema, data, services.config.target_file_rows).await
}

/// The same into files of so many rows.
pub async fn write_files(
    services: &Services,
    location: &str,
    schema: SchemaRef,
    mut data: SendableRecordBatchStream,
    target_file_rows: usize,
) -> Result<(u64, Vec<NewFile>)> {
    let spec = WriteSpec {
        target_file_rows,
        row_group_rows: services.config.row_group_rows,
        memory: Some(Arc::clone(&services.runtime.memory_pool)),
        ..WriteSpec::plain(Arc::clone(&schema))
    };
    let mut writer = services.store.writer(location, spec)?;
    let written = async {
        while let Some(batch) = data.next().await {
            let batch = stored(&batch?, &schema)?;
            if batch.num_rows() > 0 {
                writer.write(&batch).await?;
            }
        }
        Ok(())
    };
    if let Err(e) = written.await {
        writer.abandon().await;
        return Err(e);
    }
    let rows = writer.rows();
    Ok((rows, writer.finish().await?))
}

/// A batch in the stored types of a table, columns by position; a value that would become another one is refused.
pub fn stored(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let refused = |m: Misfit, column: &str| {
        let names = schema.fields().iter().map(|f| f.name().as_str());
        misfit(&m, column, &row_text(names.zip(batch.columns()).take(SHOWN), m.row))
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(|(c, f)| exact(c, f.data_type()).map_err(|m| refused(m, f.name())));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_>>()?)?)
}

/// The stored schema of a result: declared types, all columns nullable.
pub fn stored_schema_of(schema: &Schema) -> Result<SchemaRef> {
    let fields = schema
        .fields()
        .iter()
        .map(|f| Ok(Field::new(f.name(), crate::model::types::ColumnType::stored(f.data_type())?.into(), true)))
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// A table that is being made: whoever is stopped in the middle, by being dropped too, leaves nothing.
struct HalfMade {
    store: Arc<OfflineStore>,
    location: String,
    made: bool,
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        if self.made {
            return;
        }
        let (store, location) = (Arc::clone(&self.store), std::mem::take(&mut self.location));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = store.delete_table(&location).await {
                    tracing::warn!(location, %error, "a half-made table could not be removed");
                }
            });
        }
    }
}

/// Makes a new Delta table from a stream: version 0 is empty, version 1 holds the rows.
pub async fn create_filled(
    services: &Services,
    location: &str,
    schema: SchemaRef,
    data: SendableRecordBatchStream,
    run_id: String,
) -> Result<(u64, Snapshot)> {
    let base = services.store.create_table(location, Arc::clone(&schema), TableOptions::default()).await?;
    let mut half = HalfMade { store: Arc::clone(&services.store), location: location.to_string(), made: false };
    let filled = async {
        let (rows, adds) = write(services, location, schema, data).await?;
        if adds.is_empty() {
            return Ok((0, base.clone()));
        }
        let commit = Commit { adds, operation: Operation::Append, run_id: Some(run_id), ..Default::default() };
        Ok((rows, services.store.commit(&base, commit).await?))
    };
    let filled = filled.await;
    half.made = true;
    match filled {
        Ok(done) => Ok(done),
        Err(e) => {
            if let Err(second) = services.store.delete_table(location).await {
                tracing::warn!(location, error = %second, "a half-made table could not be removed");
            }
            Err(e)
        }
    }
}
