//! Rows that users bring to push views: INSERT, bulk ingest.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result as DfResult;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::{group_commit, materialize};
use crate::clock::{Micros, new_id};
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::local_time::Doubtful;
use crate::plan::feature_table::RowSink;
use crate::services::{Services, boxed};
use crate::store::offline::{Commit, Operation, Snapshot};
use crate::store::online::WriteClaim;
use crate::table::append;
use crate::table::conform::{Accept, Conform, Counts, doubtful_notice, visible_schema};
use crate::table::prepare::prepare;
use crate::table::write::{Sequence, order, sorted, spec, stream_of};

/// Statements of more rows, or bytes, have a commit of their own.
const SMALL_ROWS: usize = 4096;
const SMALL_BYTES: usize = 8 << 20;

/// Stores rows of one push view.
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

    /// Stores a stream in one commit, which small ones share; answers the rows stored.
    pub fn store<'a>(&'a self, mut input: SendableRecordBatchStream, cx: &'a Arc<TaskContext>) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let (services, view) = (&self.services, &self.view);
            let accept = Accept { now: services.clock.now(), tolerance: services.config.clock_tolerance, range: None };
            let schema = input.schema();
            let mut conform = Conform::new(Arc::clone(view), &schema, accept)?;
            let mut head = vec![];
            let (mut rows, mut bytes) = (0, 0);
            while rows <= SMALL_ROWS && bytes <= SMALL_BYTES {
                let Some(batch) = input.next().await else {
                    let mut kept = vec![];
                    for batch in &head {
                        kept.push(conform.batch(batch)?);
                    }
                    kept.retain(|b| b.num_rows() > 0);
                    self.tell(&conform.counts, &conform.doubtful().lock())?;
                    let stored = kept.iter().map(|b| b.num_rows() as u64).sum();
                    if stored > 0 {
                        group_commit::store(services, view, kept, conform.counts.newest, cx).await?;
                    }
                    return Ok(stored);
                };
                let batch = batch?;
                rows += batch.num_rows();
                bytes += batch.get_array_memory_size();
                head.push(batch);
            }
            let all = futures::stream::iter(head.into_iter().map(Ok)).chain(input.map(|b| b.map_err(Error::from)));
            boxed(self.store_alone(stream_of(schema, all), conform, cx)).await
        })
    }

    async fn store_alone(&self, input: SendableRecordBatchStream, conform: Conform, cx: &Arc<TaskContext>) -> Result<u64> {
        let (services, view) = (&self.services, &self.view);
        // the right to write online comes first: a row that is stored must also be served
        let claim = claim(services, view, "INSERT INTO").await?;
        let base = services.store.snapshot(&view.location, None).await?;
        let counted = Arc::new(Mutex::new(Counts::default()));
        let progress = services.progress.start(&format!("INSERT {}", view.name), None);
        let doubtful = conform.doubtful();
        let rows = prepare(input, conform, Some(Sequence::after(&base)), Arc::clone(&counted), progress);
        let stored = boxed(commit(services, view, base, rows, || counted.lock().newest, cx)).await?;
        self.tell(&counted.lock(), &doubtful.lock())?;
        drop(claim);
        Ok(stored)
    }

    /// Says what is left out, and what was doubtful; an error where that is every row.
    fn tell(&self, counts: &Counts, doubtful: &Doubtful) -> Result<()> {
        doubtful_notice(&self.view, doubtful, |told| self.notices.lock().push(told));
        if counts.rejected.rows > 0 && counts.rejected.rows == counts.read {
            return Err(counts.rejected.all(&self.view));
        }
        self.notices.lock().extend(counts.rejected.notice(&self.view));
        Ok(())
    }
}

/// The right to write the online rows of a view that has any.
pub(super) async fn claim(services: &Services, view: &FeatureView, statement: &str) -> Result<Option<WriteClaim>> {
    if !view.online {
        return Ok(None);
    }
    let claimed = async { services.online().await?.claim(&services.online_view(view)).await };
    claimed.await.map(Some).map_err(|e: Error| e.context(format!("{statement} {}", view.name)))
}

/// Sorts and stores numbered rows, and brings them online where the view is; the right to write online is the
/// caller's; answers how many. `newest`, asked when all rows have come: their greatest event timestamp.
pub fn commit<'a>(
    services: &'a Arc<Services>,
    view: &'a Arc<FeatureView>,
    base: Snapshot,
    rows: SendableRecordBatchStream,
    newest: impl FnOnce() -> Option<Micros> + Send + 'a,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<u64>> {
    Box::pin(async move {
        let mut rows = sorted(rows, &order(view), cx)?;
        let mut writer = services.store.writer(&view.location, spec(services, view))?;
        let written = async {
            while let Some(batch) = rows.next().await {
                writer.write(&batch?).await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(e) = written.await {
            writer.abandon().await;
            return Err(e);
        }
        let stored = writer.rows();
        let adds = writer.finish().await?;
        if adds.is_empty() {
            return Ok(stored);
        }
        let watermark = base.watermark().max(newest().map(|n| n.min(services.clock.now())));
        let commit = Commit { adds, operation: Operation::Append, run_id: Some(new_id()), watermark, exposed: true, ..Default::default() };
        let done = append::append(services, view, base, commit, cx).await.map_err(|e| e.context(format!("INSERT INTO {}", view.name)))?;
        services.compaction_queue.committed(view, services.config.maintenance.crowded_commits);
        if view.online {
            serve(services, view, done.version(), cx).await?;
        }
        Ok(stored)
    })
}

/// Brings online what was just stored.
pub(super) fn serve<'a>(
    services: &'a Arc<Services>,
    view: &'a Arc<FeatureView>,
    version: u64,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        materialize::apply(services, view, cx).await.map(|_| ()).map_err(|e| {
            Error::new(e.kind(), format!("feature view {}: stored in version {version}, not yet online: {}", view.name, e.message()))
                .with_hint(format!("MATERIALIZE FEATURE VIEW {} repairs it; do not insert the rows again", view.name))
        })
    })
}

#[async_trait]
impl RowSink for PushSink {
    async fn insert(&self, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(Insert(self.clone(), visible_schema(&self.view, false))), None)))
    }
}

struct Insert(PushSink, SchemaRef);

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

#[async_trait]
impl DataSink for Insert {
    fn schema(&self) -> &SchemaRef {
        &self.1
    }
    async fn write_all(&self, data: SendableRecordBatchStream, cx: &Arc<TaskContext>) -> DfResult<u64> {
        Ok(self.0.store(crate::services::stall::watch(&self.0.services, data), cx).await?)
    }
}
