//! How the two kinds of what DELETE removes rows from differ: push views have `_seq` in their files and are served online;
//! of a plain table's rows the file and the place are known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::execution::TaskContext;
use futures::StreamExt;

use super::numbers::Numbers;
use crate::catalog::dependencies::feature_views_over;
use crate::error::{Error, Kind, Result};
use crate::model::{FeatureView, Name, Table};
use crate::plan::command::DeleteTarget;
use crate::plan::feature_table::SEQ;
use crate::plan::names::Names;
use crate::resolve::resolver::Resolver;
use crate::services::{Services, boxed};
use crate::store::offline::{DataFile, NewFile, Snapshot, numbers_of_file};
use crate::table::write::stream_of;
use crate::table::{managed, replace, swap};

/// What rows are removed from, as the statement's catalog has it.
pub enum Rows {
    View(Arc<FeatureView>),
    Table(Arc<Table>),
}

/// What becomes of a file.
pub struct Cut {
    /// How many of its rows go.
    pub hits: u64,
    /// What holds the others.
    pub adds: Vec<NewFile>,
}

impl Rows {
    pub fn of(resolver: &Resolver, target: &DeleteTarget) -> Result<Rows> {
        match target {
            DeleteTarget::FeatureView(id) => Ok(Rows::View(resolver.version(id)?)),
            DeleteTarget::Table { name, location } => match resolver.catalog.tables.get(name) {
                Some(t) if t.location == *location => Ok(Rows::Table(Arc::clone(t))),
                _ => Err(replaced(name)),
            },
        }
    }

    pub fn name(&self) -> &Name {
        match self {
            Rows::View(v) => &v.name,
            Rows::Table(t) => &t.name,
        }
    }

    pub fn location(&self) -> &str {
        match self {
            Rows::View(v) => &v.location,
            Rows::Table(t) => &t.location,
        }
    }

    /// Writes a file again without the rows that are `gone`, where there are any; `place`: of the file in the snapshot.
    pub async fn cut(&self, services: &Services, base: &Snapshot, place: usize, gone: &Arc<Numbers>, cx: &Arc<TaskContext>) -> Result<Cut> {
        let Some(file) = base.files().get(place) else { return Err(Error::internal("a file of the table is missing")) };
        match self {
            Rows::View(view) => boxed(cut_numbered(services, view, base, file, gone, cx)).await,
            Rows::Table(table) => boxed(cut_counted(services, table, base, (place, file), gone, cx)).await,
        }
    }
}

pub fn replaced(name: &Name) -> Error {
    Error::conflict(format!(
        "DELETE FROM {name}: the table was dropped or replaced meanwhile; no rows of the one of this name were removed"
    ))
    .with_hint("run it again")
}

/// Numbers of rows, as the column of this name or as the only one.
pub fn numbers_of<'a>(batch: &'a RecordBatch, column: Option<&str>) -> Result<&'a Int64Array> {
    let found = match column {
        Some(name) => batch.column_by_name(name),
        None => batch.columns().first(),
    };
    found.and_then(|c| c.as_primitive_opt::<Int64Type>()).ok_or_else(|| Error::internal("there is no column with the numbers of the rows"))
}

/// A file whose rows bear their `_seq`.
async fn cut_numbered(
    services: &Services,
    view: &FeatureView,
    base: &Snapshot,
    file: &Arc<DataFile>,
    gone: &Numbers,
    cx: &Arc<TaskContext>,
) -> Result<Cut> {
    let (hits, rows) = match may_hold(file, gone) {
        true => hits(services, base, file, gone, cx).await?,
        false => (0, 0),
    };
    if hits == 0 || hits == rows {
        return Ok(Cut { hits, adds: vec![] });
    }
    let without = |b: &RecordBatch| {
        let keep: BooleanArray = numbers_of(b, Some(SEQ))?.values().iter().map(|s| Some(!gone.contains(*s))).collect();
        Ok(filter_record_batch(b, &keep)?)
    };
    Ok(Cut { hits, adds: replace::rewrite(services, view, base, file, cx, without).await? })
}

/// Whether the bounds of `_seq` that the log knows leave a place for one of the rows.
fn may_hold(file: &DataFile, gone: &Numbers) -> bool {
    use datafusion::scalar::ScalarValue::Int64;
    match (file.min(SEQ), file.max(SEQ)) {
        (Some(Int64(Some(min))), Some(Int64(Some(max)))) => gone.meets(*min, *max),
        _ => true,
    }
}

/// How many of a file's rows go, and how many it has.
async fn hits(services: &Services, base: &Snapshot, file: &Arc<DataFile>, gone: &Numbers, cx: &Arc<TaskContext>) -> Result<(u64, u64)> {
    let mut batches = replace::numbers(services, base, file, cx).await?;
    let (mut hits, mut rows) = (0, 0);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        hits += numbers_of(&batch, Some(SEQ))?.values().iter().filter(|s| gone.contains(**s)).count() as u64;
        rows += batch.num_rows() as u64;
    }
    Ok((hits, rows))
}

/// A file whose rows are counted from its first.
async fn cut_counted(
    services: &Services,
    table: &Table,
    base: &Snapshot,
    (place, file): (usize, &Arc<DataFile>),
    gone: &Arc<Numbers>,
    cx: &Arc<TaskContext>,
) -> Result<Cut> {
    let (first, last) = numbers_of_file(place)?;
    let hits = gone.count_in(first, last);
    if hits == 0 || Some(hits) == file.rows {
        return Ok(Cut { hits, adds: vec![] });
    }
    let read = Arc::new(AtomicU64::new(0));
    let (gone, seen) = (Arc::clone(gone), Arc::clone(&read));
    let rows = replace::whole(services, base, file, cx).await?;
    let schema = rows.schema();
    let left = rows.map(move |batch| {
        let batch = batch?;
        let from = first + seen.fetch_add(batch.num_rows() as u64, Ordering::Relaxed) as i64;
        let keep: BooleanArray = (from..from + batch.num_rows() as i64).map(|n| Some(!gone.contains(n))).collect();
        Ok(filter_record_batch(&batch, &keep)?)
    });
    // one file, so that it can stand where the old one stood
    let (location, left) = (&table.location, stream_of(schema, left));
    let (kept, adds) = managed::write_files(services, location, Arc::clone(base.schema()), left, usize::MAX).await?;
    let adds: Vec<NewFile> = adds.into_iter().map(|f| f.in_place_of(file)).collect();
    if kept + hits == read.load(Ordering::Relaxed) {
        return Ok(Cut { hits, adds });
    }
    services.store.discard(&table.location, &adds).await;
    Err(Error::internal(format!("DELETE FROM {}: a file has other rows than were counted; nothing was removed", table.name)))
}

/// After rows of a plain table were removed, or could not be: an error where the table is no longer there, which says
/// more than any other; else what is told of those who keep the rows.
pub async fn left_of_table(resolver: &Resolver, table: &Table, removed: bool) -> Result<()> {
    swap::still_there(&resolver.services, table).await.map_err(|e| match e.kind() {
        Kind::Conflict => replaced(&table.name),
        _ => e,
    })?;
    let keepers = if removed { feature_views_over(&resolver.catalog, &table.name) } else { vec![] };
    if !keepers.is_empty() {
        let refresh: Vec<String> = keepers.iter().map(|v| format!("REFRESH FEATURE VIEW {v} FULL")).collect();
        resolver.notice(format!(
            "what was stored from the removed rows of {} stays in feature views that read it; to make them anew: {}",
            table.name,
            refresh.join("; ")
        ));
    }
    Ok(())
}
