//! Rows that users bring to push views: INSERT, bulk ingest, DELETE.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, utils::conjunction};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};
use futures::StreamExt;
use parking_lot::Mutex;

use super::refresh::prepare;
use super::rows::{Accept, Conform, Counts, visible_schema};
use super::write::{Sequence, order, sorted, spec};
use super::{Services, append, materialize, replace};
use crate::clock::{Micros, new_id};
use crate::error::{Error, Kind, Result};
use crate::model::FeatureView;
use crate::plan::feature_table::RowSink;
use crate::store::offline::{Commit, Operation};

const MAX_ATTEMPTS: u32 = 10;

/// Stores and removes rows of one push view.
#[derive(Clone)]
pub struct PushSink {
    services: Arc<Services>,
    view: Arc<FeatureView>,
    notices: Arc<Mutex<Vec<String>>>,
}

impl fmt::Debug for PushSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushSink({})", self.view.versioned_name())
    }
}

impl PushSink {
    pub fn new(services: Arc<Services>, view: Arc<FeatureView>, notices: Arc<Mutex<Vec<String>>>) -> Self {
        PushSink { services, view, notices }
    }

    /// Stores a stream in one commit; answers the rows stored.
    pub fn store<'a>(&'a self, input: SendableRecordBatchStream, cx: &'a Arc<TaskContext>) -> futures::future::BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let (services, view) = (&self.services, &self.view);
            // the right to write online comes first: a row that is stored must also be served
            let claim = match view.online {
                true => Some(services.online().await?.claim(&services.online_view(view)).await?),
                false => None,
            };
            let base = services.store.snapshot(&view.location, None).await?;
            let accept = Accept { now: services.clock.now(), tolerance: services.config.clock_tolerance, range: None };
            let conform = Conform::new(Arc::clone(view), &input.schema(), accept)?;
            let counted = Arc::new(Mutex::new((Counts::default(), None::<Micros>)));
            let progress = services.progress.start(&format!("INSERT {}", view.name), None);
            let rows = prepare(input, conform, Some(Sequence::after(&base)), Arc::clone(&counted), progress);
            let mut rows = sorted(rows, &order(view), cx)?;
            let mut writer = services.store.writer(&view.location, spec(services, view))?;
            while let Some(batch) = rows.next().await {
                writer.write(&batch?).await?;
            }
            let stored = writer.rows();
            let adds = writer.finish().await?;
            let (counts, newest) = *counted.lock();
            if counts.rejected > 0 {
                self.notices.lock().push(format!(
                    "feature view {}: {} row(s) rejected (NULL key, NULL event timestamp, or too far in the future)",
                    view.name, counts.rejected
                ));
            }
            if adds.is_empty() {
                return Ok(0);
            }
            let watermark = base.watermark().max(newest.map(|n| n.min(services.clock.now())));
            let commit =
                Commit { adds, operation: Operation::Append, run_id: Some(new_id()), watermark, exposed: true, ..Default::default() };
            let done =
                append::append(services, view, base, commit, cx).await.map_err(|e| e.context(format!("INSERT INTO {}", view.name)))?;
            if view.online {
                self.serve(done.version(), cx).await?;
            }
            drop(claim);
            Ok(stored)
        })
    }

    fn serve<'a>(&'a self, version: u64, cx: &'a Arc<TaskContext>) -> futures::future::BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            materialize::apply(&self.services, &self.view, cx).await.map(|_| ()).map_err(|e| {
                Error::new(
                    e.kind(),
                    format!("feature view {}: stored in version {version}, not yet online: {}", self.view.name, e.message()),
                )
                .with_hint(format!("MATERIALIZE FEATURE VIEW {} repairs it; do not insert the rows again", self.view.name))
            })
        })
    }

    fn remove<'a>(
        &'a self,
        filter: Option<Arc<dyn PhysicalExpr>>,
        cx: &'a Arc<TaskContext>,
    ) -> futures::future::BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let (services, view) = (&self.services, &self.view);
            let claim = match view.online {
                true => Some(services.online().await?.claim(&services.online_view(view)).await?),
                false => None,
            };
            for _ in 0..MAX_ATTEMPTS {
                let base = services.store.snapshot(&view.location, None).await?;
                let (mut adds, mut removes, mut gone) = (vec![], vec![], 0u64);
                for file in base.files() {
                    let mut cut = 0u64;
                    let made = replace::rewrite(services, view, &base, file, cx, |b| {
                        let keep = keep(b, filter.as_ref())?;
                        cut += (b.num_rows() - keep.true_count()) as u64;
                        Ok(filter_record_batch(b, &keep)?)
                    })
                    .await?;
                    if cut == 0 {
                        services.store.discard(&view.location, &made).await;
                        continue;
                    }
                    gone += cut;
                    adds.extend(made);
                    removes.push(file.path.clone());
                }
                if removes.is_empty() {
                    return Ok(0);
                }
                let commit = Commit {
                    adds: adds.clone(),
                    removes,
                    operation: Operation::Delete,
                    run_id: Some(new_id()),
                    exposed: true,
                    ..Default::default()
                };
                match services.store.commit(&base, commit).await {
                    Ok(done) => {
                        if view.online {
                            self.serve(done.version(), cx).await?;
                        }
                        drop(claim);
                        return Ok(gone);
                    }
                    Err(e) => {
                        services.store.take_back(&view.location, &adds, &e).await;
                        if e.kind() != Kind::Conflict {
                            return Err(e);
                        }
                    }
                }
            }
            Err(Error::conflict(format!("DELETE FROM {}: the table changed {MAX_ATTEMPTS} times meanwhile", view.name))
                .with_hint("try again"))
        })
    }
}

/// Rows that a DELETE leaves: those for which the filter is not true.
fn keep(batch: &RecordBatch, filter: Option<&Arc<dyn PhysicalExpr>>) -> Result<BooleanArray> {
    let Some(f) = filter else { return Ok(BooleanArray::from(vec![false; batch.num_rows()])) };
    let hit = f.evaluate(batch)?.into_array(batch.num_rows())?;
    let hit = hit.as_boolean();
    Ok(hit.iter().map(|h| Some(h != Some(true))).collect())
}

#[async_trait]
impl RowSink for PushSink {
    async fn insert(&self, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(Insert(self.clone(), visible_schema(&self.view, false))), None)))
    }

    async fn delete(&self, state: &dyn Session, filters: Vec<Expr>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = visible_schema(&self.view, false);
        let filter = match conjunction(filters) {
            Some(f) => {
                // filters name columns with the table's qualifier
                let bare = datafusion::logical_expr::expr_rewriter::unnormalize_col(f);
                Some(state.create_physical_expr(bare, &DFSchema::try_from(schema.as_ref().clone())?)?)
            }
            None => None,
        };
        let input = Arc::new(EmptyExec::new(Arc::clone(&schema)));
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(Delete(self.clone(), filter, schema)), None)))
    }
}

struct Insert(PushSink, SchemaRef);

#[derive(Debug)]
struct Delete(PushSink, Option<Arc<dyn PhysicalExpr>>, SchemaRef);

impl fmt::Debug for Insert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl DisplayAs for Insert {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "insert into {}", self.0.view.versioned_name())
    }
}

impl DisplayAs for Delete {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delete from {}", self.0.view.versioned_name())
    }
}

#[async_trait]
impl DataSink for Insert {
    fn schema(&self) -> &SchemaRef {
        &self.1
    }
    async fn write_all(&self, data: SendableRecordBatchStream, cx: &Arc<TaskContext>) -> DfResult<u64> {
        Ok(self.0.store(data, cx).await?)
    }
}

#[async_trait]
impl DataSink for Delete {
    fn schema(&self) -> &SchemaRef {
        &self.2
    }
    async fn write_all(&self, _data: SendableRecordBatchStream, cx: &Arc<TaskContext>) -> DfResult<u64> {
        Ok(self.0.remove(self.1.clone(), cx).await?)
    }
}
