//! What a run replaces. Rows that come out the same stay where they are, with their `_seq`: an hourly run
//! then appends its new rows instead of rewriting the files that its range touches.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::catalog::TableProvider;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::scalar::ScalarValue;
use futures::StreamExt;

use super::write::{order, sorted, spec};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::plan::feature_table::SEQ;
use crate::services::Services;
use crate::store::offline::{DataFile, NewFile, Ordering, ScanOptions, Snapshot};

/// More rows than this in the range are replaced as a whole.
const MAX_COMPARED: usize = 2_000_000;

/// The rows that lie in the range now.
pub enum Old {
    /// FULL: every file goes.
    All,
    /// Too many to compare: the range is cut out of these files.
    Range(Vec<Arc<DataFile>>),
    Compared(Box<Compared>),
}

pub struct Compared {
    converter: RowConverter,
    /// Encoded visible row -> files that hold it, once per row.
    rows: HashMap<Box<[u8]>, Vec<u32>>,
    files: Vec<Arc<DataFile>>,
    _memory: MemoryReservation,
}

/// Instants as a filter over the event timestamp.
fn within(view: &FeatureView, (lo, hi): (Micros, Micros)) -> Expr {
    let t = |m| lit(ScalarValue::TimestampMicrosecond(Some(m), Some("UTC".into())));
    let c = ident(&view.event_timestamp);
    c.clone().gt_eq(t(lo)).and(c.lt_eq(t(hi)))
}

fn overlaps(f: &DataFile, view: &FeatureView, (lo, hi): (Micros, Micros)) -> bool {
    let micros = |v: Option<&ScalarValue>| match v {
        Some(ScalarValue::TimestampMicrosecond(Some(m), _)) => Some(*m),
        _ => None,
    };
    let (min, max) = (micros(f.min(&view.event_timestamp)), micros(f.max(&view.event_timestamp)));
    // bounds in the log may be cut to milliseconds: a foreign writer's are widened by one
    min.is_none_or(|m| m.saturating_sub(1_000) <= hi) && max.is_none_or(|m| m.saturating_add(1_000) >= lo)
}

fn converter(view: &FeatureView) -> Result<RowConverter> {
    let fields = view.stored_columns().into_iter().map(|c| SortField::new(c.data_type.into())).collect();
    Ok(RowConverter::new(fields)?)
}

/// Reads the rows of the range, file by file.
pub fn old_rows<'a>(
    services: &'a Services,
    view: &'a FeatureView,
    base: &'a Snapshot,
    range: (Micros, Micros),
    cx: &'a Arc<TaskContext>,
) -> futures::future::BoxFuture<'a, Result<Old>> {
    Box::pin(async move {
        let files: Vec<Arc<DataFile>> = base.files().iter().filter(|f| overlaps(f, view, range)).cloned().collect();
        let memory = MemoryConsumer::new("REFRESH: rows of the range").register(&services.runtime.memory_pool);
        let converter = converter(view)?;
        let mut rows: HashMap<Box<[u8]>, Vec<u32>> = HashMap::new();
        let mut count = 0;
        for (i, file) in files.iter().enumerate() {
            let mut s = scan(services, base, file, Columns::Visible, Some(within(view, range)), cx).await?;
            while let Some(batch) = s.next().await {
                let batch = inside(view, &batch?, range, true)?;
                count += batch.num_rows();
                if count > MAX_COMPARED {
                    return Ok(Old::Range(files));
                }
                let encoded = converter.convert_columns(batch.columns())?;
                if memory.try_grow(encoded.size() + batch.num_rows() * 64).is_err() {
                    return Ok(Old::Range(files));
                }
                for row in encoded.iter() {
                    rows.entry(row.as_ref().into()).or_default().push(i as u32);
                }
            }
        }
        Ok(Old::Compared(Box::new(Compared { converter, rows, files, _memory: memory })))
    })
}

/// Which columns of a file are read.
#[derive(Clone, Copy, PartialEq)]
enum Columns {
    Visible,
    /// `_seq` too.
    All,
    Seq,
}

/// The `_seq` of a file's rows.
pub fn numbers<'a>(
    services: &'a Services,
    base: &'a Snapshot,
    file: &'a Arc<DataFile>,
    cx: &'a Arc<TaskContext>,
) -> futures::future::BoxFuture<'a, Result<datafusion::execution::SendableRecordBatchStream>> {
    scan(services, base, file, Columns::Seq, None, cx)
}

/// All columns of a file's rows, in their order.
pub fn whole<'a>(
    services: &'a Services,
    base: &'a Snapshot,
    file: &'a Arc<DataFile>,
    cx: &'a Arc<TaskContext>,
) -> futures::future::BoxFuture<'a, Result<datafusion::execution::SendableRecordBatchStream>> {
    scan(services, base, file, Columns::All, None, cx)
}

fn scan<'a>(
    services: &'a Services,
    base: &'a Snapshot,
    file: &'a Arc<DataFile>,
    columns: Columns,
    filter: Option<Expr>,
    cx: &'a Arc<TaskContext>,
) -> futures::future::BoxFuture<'a, Result<datafusion::execution::SendableRecordBatchStream>> {
    Box::pin(async move {
        let hidden = columns != Columns::Visible;
        let options = ScanOptions { hidden, files: Some(vec![Arc::clone(file)]), ordering: Ordering::Never };
        let provider: Arc<dyn TableProvider> = services.store.scan_provider(base, options)?;
        let filters: Vec<Expr> = filter.into_iter().collect();
        let only = match columns {
            Columns::Seq => Some(vec![provider.schema().index_of(SEQ)?]),
            _ => None,
        };
        let plan = provider.scan(services.session.as_ref(), only.as_ref(), &filters, None).await?;
        crate::services::stall::execute(services, plan, Arc::clone(cx))
    })
}

/// The rows of a batch inside (or outside) of a range.
fn inside(view: &FeatureView, batch: &RecordBatch, (lo, hi): (Micros, Micros), want: bool) -> Result<RecordBatch> {
    let i = batch.schema().index_of(&view.event_timestamp)?;
    let t = batch.column(i).as_primitive::<TimestampMicrosecondType>();
    let keep: BooleanArray = t.iter().map(|v| Some(v.is_some_and(|v| (lo..=hi).contains(&v)) == want)).collect();
    Ok(filter_record_batch(batch, &keep)?)
}

impl Old {
    /// The rows of a batch (visible columns and `_seq`) that are not stored yet; the others are ticked off.
    pub fn unknown(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let Old::Compared(c) = self else { return Ok(batch.clone()) };
        if c.rows.is_empty() {
            return Ok(batch.clone());
        }
        let visible = &batch.columns()[..batch.num_columns() - 1];
        let encoded = c.converter.convert_columns(visible)?;
        let mut fresh = Vec::with_capacity(batch.num_rows());
        for row in encoded.iter() {
            let known = match c.rows.get_mut(row.as_ref()) {
                Some(files) => {
                    files.pop();
                    if files.is_empty() {
                        c.rows.remove(row.as_ref());
                    }
                    true
                }
                None => false,
            };
            fresh.push(!known);
        }
        Ok(filter_record_batch(batch, &BooleanArray::from(fresh))?)
    }

    /// After all new rows were shown: the files to remove. What stays of them is written again into `adds`.
    pub async fn replaced(
        self,
        services: &Services,
        view: &FeatureView,
        base: &Snapshot,
        range: (Micros, Micros),
        cx: &Arc<TaskContext>,
        adds: &mut Vec<NewFile>,
    ) -> Result<Vec<String>> {
        match self {
            Old::All => Ok(base.files().iter().map(|f| f.path.clone()).collect()),
            Old::Range(files) => {
                for file in &files {
                    adds.extend(rewrite(services, view, base, file, cx, |b| inside(view, b, range, false)).await?);
                }
                Ok(files.iter().map(|f| f.path.clone()).collect())
            }
            Old::Compared(mut c) => {
                let mut gone: Vec<u32> = c.rows.values().flatten().copied().collect();
                gone.sort_unstable();
                gone.dedup();
                let mut removes = vec![];
                for i in gone {
                    let Some(file) = c.files.get(i as usize).cloned() else {
                        return Err(Error::internal("a file of the range is missing"));
                    };
                    let made = rewrite(services, view, base, &file, cx, |b| c.without_gone(b, i)).await?;
                    adds.extend(made);
                    removes.push(file.path.clone());
                }
                Ok(removes)
            }
        }
    }
}

impl Compared {
    /// Leaves out, once each, the rows of file `i` that no new row matched.
    fn without_gone(&mut self, batch: &RecordBatch, i: u32) -> Result<RecordBatch> {
        let visible = &batch.columns()[..batch.num_columns() - 1];
        let encoded = self.converter.convert_columns(visible)?;
        let mut keep = Vec::with_capacity(batch.num_rows());
        for row in encoded.iter() {
            let gone = self.rows.get_mut(row.as_ref()).and_then(|files| files.iter().position(|f| *f == i).map(|at| files.swap_remove(at)));
            keep.push(gone.is_none());
        }
        Ok(filter_record_batch(batch, &BooleanArray::from(keep))?)
    }
}

/// Writes a file again with the rows that `keep` leaves of each batch, in order.
pub async fn rewrite(
    services: &Services,
    view: &FeatureView,
    base: &Snapshot,
    file: &Arc<DataFile>,
    cx: &Arc<TaskContext>,
    mut keep: impl FnMut(&RecordBatch) -> Result<RecordBatch>,
) -> Result<Vec<NewFile>> {
    let s = scan(services, base, file, Columns::All, None, cx).await?;
    let columns = order(view);
    let mut s = if file.order == columns { s } else { sorted(s, &columns, cx)? };
    let spec = spec(services, view);
    let schema: SchemaRef = Arc::clone(&spec.schema);
    let mut writer = services.store.writer(&view.location, spec)?;
    while let Some(batch) = s.next().await {
        let kept = keep(&batch?)?;
        if kept.num_rows() > 0 {
            let kept = RecordBatch::try_new(Arc::clone(&schema), kept.columns().to_vec())?;
            writer.write(&kept).await?;
        }
    }
    writer.finish().await
}
