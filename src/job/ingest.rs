//! Bulk ingest: a stream into a table or push view, one commit.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, new_null_array};
use datafusion::arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;

use super::ddl;
use super::push::PushSink;
use crate::catalog::ddl::{Ddl, Exists};
use crate::catalog::is_undone;
use crate::catalog::{Relation, SYSTEM_SCHEMA};
use crate::clock::new_id;
use crate::error::{Error, Result};
use crate::model::layout::check_column_name;
use crate::model::types::ColumnType;
use crate::model::{About, Column, FeatureView, Name, Table};
use crate::plan::command::IngestMode;
use crate::resolve::resolver::Resolver;
use crate::services::boxed;
use crate::table::managed::{append, create_filled, stored_schema_of};
use crate::table::write::stream_of;

/// The rows of a client, which the command finds in its task; they can be taken once.
pub struct IngestRows(Mutex<Option<SendableRecordBatchStream>>);

impl IngestRows {
    pub fn new(rows: SendableRecordBatchStream) -> Self {
        IngestRows(Mutex::new(Some(rows)))
    }
}

/// Stores the rows that the task was given; answers how many.
pub async fn run(resolver: &Arc<Resolver>, name: &Name, mode: IngestMode, cx: &Arc<TaskContext>) -> Result<u64> {
    let rows = cx.session_config().get_extension::<IngestRows>().and_then(|r| r.0.lock().take());
    let rows = rows.ok_or_else(|| Error::internal("the rows to store are missing"))?;
    let services = &resolver.services;
    let catalog = &resolver.catalog;
    catalog.schema(&name.schema)?;
    if name.schema == SYSTEM_SCHEMA {
        return Err(Error::denied("schema system is read-only"));
    }
    check_columns(&rows.schema(), name)?;
    match catalog.relation(name) {
        None if mode == IngestMode::Append => Err(catalog.no_relation(name)),
        None => create(resolver, name, rows, Exists::Refuse).await,
        Some(r) if mode == IngestMode::Create => Err(Error::already_exists(format!("{} {name} exists already", r.kind()))),
        Some(Relation::FeatureView(series)) => {
            let Some(view) = series.current() else { return Err(Error::internal(format!("feature view {name} has no versions"))) };
            if !view.is_push() {
                return Err(Error::invalid(format!("feature view {name} is computed by its query; rows cannot be ingested"))
                    .with_hint(format!("REFRESH FEATURE VIEW {name}")));
            }
            if mode == IngestMode::Replace {
                return Err(Error::invalid(format!("feature view {name} cannot be replaced by ingest"))
                    .with_hint("append, or DELETE FROM it first"));
            }
            let known: Vec<String> = view.stored_columns().into_iter().map(|c| c.name).collect();
            if let Some(extra) = rows.schema().fields().iter().find(|f| !known.contains(f.name())) {
                return Err(Error::already_exists(format!("feature view {name} has no column {:?}", extra.name()))
                    .suggest(extra.name(), known.iter().map(String::as_str))
                    .or_hint(&format!("its columns are {}", known.join(", "))));
            }
            let rows = with_features(rows, view);
            PushSink::new(Arc::clone(services), Arc::new(view.clone()), resolver.notice_list()).store(rows, cx).await
        }
        Some(Relation::Table(t)) if t.managed && mode == IngestMode::Replace => create(resolver, name, rows, Exists::Replace).await,
        Some(Relation::Table(t)) if t.managed => {
            let target = services.store.snapshot(&t.location, None).await?;
            append(services, t, by_name(rows, target.schema(), name)?, target.schema(), None).await
        }
        Some(r) => Err(Error::invalid(format!("{} {name} is not a table that rows can be put into", r.kind()))),
    }
}

/// Rows with the columns that they leave out, as NULL; a key or an event timestamp is never left out.
fn with_features(rows: SendableRecordBatchStream, view: &FeatureView) -> SendableRecordBatchStream {
    let have = rows.schema();
    let required = view.keys.len() + 1;
    let left_out = view.stored_columns().into_iter().skip(required).filter(|c| have.index_of(&c.name).is_err());
    let new: Vec<Field> = left_out.map(|c| Field::new(c.name, c.data_type.into(), true)).collect();
    if new.is_empty() {
        return rows;
    }
    let fields = have.fields().iter().map(|f| f.as_ref().clone()).chain(new.iter().cloned());
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let out = Arc::clone(&schema);
    let s = in_parts(rows, true).map(move |batch| {
        let batch = batch?;
        let nulls = new.iter().map(|f| new_null_array(f.data_type(), batch.num_rows()));
        let columns = batch.columns().iter().cloned().chain(nulls).collect();
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    });
    stream_of(out, s)
}

async fn create(resolver: &Arc<Resolver>, name: &Name, rows: SendableRecordBatchStream, exists: Exists) -> Result<u64> {
    let services = &resolver.services;
    let schema = stored_schema_of(&rows.schema())?;
    let columns = schema
        .fields()
        .iter()
        .map(|f| Ok(Column { name: f.name().clone(), data_type: ColumnType::stored(f.data_type())? }))
        .collect::<Result<_>>()?;
    let table = Table {
        name: name.clone(),
        format: "DELTA".into(),
        location: name.folder("tables", &new_id()),
        managed: true,
        columns,
        options: BTreeMap::new(),
        partition_columns: vec![],
        replacing: None,
        about: About::default(),
        created_at: services.clock.now(),
    };
    let (stored, _) =
        create_filled(services, &table.location, schema, rows, new_id()).await.map_err(|e| e.context(format!("table {name}")))?;
    if let Err(e) = boxed(ddl::run(resolver, &Ddl::CreateTable { table: table.clone(), exists, announced: None })).await {
        if is_undone(&e) {
            services.store.delete_table(&table.location).await?;
        }
        return Err(e);
    }
    Ok(stored)
}

/// Each column once: names that differ in case only are one in a Delta table.
fn check_columns(schema: &SchemaRef, name: &Name) -> Result<()> {
    schema.fields().iter().try_for_each(|f| check_column_name(f.name())).map_err(|e| e.context(name.to_string()))?;
    let mut seen = HashSet::new();
    match schema.fields().iter().find(|f| !seen.insert(f.name().to_lowercase())) {
        None => Ok(()),
        Some(twice) => Err(Error::invalid(format!("{name}: the rows have the column {:?} more than once", twice.name()))
            .with_hint("give every column a name of its own, in other letters than case")),
    }
}

/// Rows of a batch at once where columns are filled in.
const FILLED_ROWS: usize = 16 << 10;

/// Parts of a batch in which NULL columns may be filled in.
fn parts(batch: RecordBatch, filled: bool) -> Vec<RecordBatch> {
    if !filled || batch.num_rows() <= FILLED_ROWS {
        return vec![batch];
    }
    let starts = (0..batch.num_rows()).step_by(FILLED_ROWS);
    starts.map(|at| batch.slice(at, FILLED_ROWS.min(batch.num_rows() - at))).collect()
}

/// The batches of a stream, cut where columns are filled in.
fn in_parts(rows: SendableRecordBatchStream, filled: bool) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
    rows.flat_map(move |batch| {
        let pieces: Vec<Result<RecordBatch>> = match batch {
            Ok(batch) => parts(batch, filled).into_iter().map(Ok).collect(),
            Err(e) => vec![Err(Error::from(e))],
        };
        stream::iter(pieces)
    })
}

/// Columns in the table's order; missing ones are NULL, unknown ones an error.
fn by_name(rows: SendableRecordBatchStream, want: &SchemaRef, name: &Name) -> Result<SendableRecordBatchStream> {
    let have = rows.schema();
    if let Some(extra) = have.fields().iter().find(|f| want.index_of(f.name()).is_err()) {
        let known: Vec<&str> = want.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(Error::already_exists(format!("table {name} has no column {:?}", extra.name()))
            .suggest(extra.name(), known.iter().copied())
            .or_hint(&format!("its columns are {}", known.join(", "))));
    }
    let from: Vec<Option<usize>> = want.fields().iter().map(|f| have.index_of(f.name()).ok()).collect();
    // the types are those of the rows: the table takes each value as it is, or refuses it
    let typed = |(f, i): (&FieldRef, &Option<usize>)| i.map_or_else(|| f.as_ref().clone(), |i| have.field(i).clone()).with_nullable(true);
    let schema: SchemaRef = Arc::new(Schema::new(want.fields().iter().zip(&from).map(typed).collect::<Vec<_>>()));
    let out = Arc::clone(&schema);
    let pieces = in_parts(rows, from.contains(&None));
    let s = pieces.map(move |batch| {
        let batch = batch?;
        let column = |(f, i): (&FieldRef, &Option<usize>)| match i {
            Some(i) => Arc::clone(batch.column(*i)),
            None => new_null_array(f.data_type(), batch.num_rows()),
        };
        let columns = schema.fields().iter().zip(&from).map(column).collect();
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    });
    Ok(stream_of(out, s))
}
