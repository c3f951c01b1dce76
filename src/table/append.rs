//! Appends of numbered rows. `_seq` carries the number of the commit, and a commit that lost its number to
//! another INSERT may not keep it: equal `_seq` would leave a full tie to the bytes of the rows, which are
//! not the same offline and online.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::execution::TaskContext;
use futures::future::BoxFuture;

use super::replace;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::FeatureView;
use crate::plan::feature_table::SEQ;
use crate::services::Services;
use crate::store::offline::{Commit, NewFile, Snapshot};

const MAX_ATTEMPTS: u32 = 50;

/// Commits new files, numbered after `base`, behind whatever others have committed meanwhile; rows whose
/// numbers are taken get later ones. A watermark only moves forward.
pub fn append<'a>(
    services: &'a Services,
    view: &'a FeatureView,
    base: Snapshot,
    mut commit: Commit,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<Snapshot>> {
    Box::pin(async move {
        let done = attempts(services, view, base, &mut commit, cx).await;
        if let Err(e) = &done {
            services.store.take_back(&view.location, &commit.adds, e).await;
        }
        done
    })
}

fn attempts<'a>(
    services: &'a Services,
    view: &'a FeatureView,
    base: Snapshot,
    commit: &'a mut Commit,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<Snapshot>> {
    Box::pin(async move {
        // One at a time in this process: whoever is overtaken while it waits numbers its rows once, not once per
        // rival. Between processes the version decides.
        let turn = services.store.append_turn(&view.location);
        let _turn = turn.lock().await;
        let mut number = base.next_sequence();
        let mut current = base.clone();
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 {
                clock::sleep(Duration::from_millis(u64::from(attempt.min(20)))).await;
            }
            current = services.store.refresh(&current).await?;
            if current.table_id() != base.table_id() || current.schema() != base.schema() {
                return Err(Error::conflict(format!("table {:?} got another schema meanwhile", base.location())));
            }
            let next = current.next_sequence();
            if number < next {
                // Many rows take longer to number than others need for a commit: numbers ahead let the next
                // attempt commit without doing it again, and nobody else may have taken them.
                let ahead = next + (1 << attempt.min(10)) - 1;
                let fresh = renumbered(services, view, &current, &commit.adds, ((ahead - number) as i64) << 32, cx).await?;
                services.store.discard(&view.location, &std::mem::replace(&mut commit.adds, fresh)).await;
                number = ahead;
            }
            let watermark = commit.watermark.map(|w| current.watermark().map_or(w, |known| known.max(w)));
            match services.store.commit(&current, Commit { watermark, ..commit.clone() }).await {
                Err(e) if e.kind() == Kind::Conflict => {}
                other => return other,
            }
        }
        Err(Error::conflict(format!("{MAX_ATTEMPTS} attempts to append lost against other writers"))
            .with_hint("nothing was stored; try again"))
    })
}

/// The rows of new files once more, their `_seq` moved on; their order stays.
async fn renumbered(
    services: &Services,
    view: &FeatureView,
    table: &Snapshot,
    files: &[NewFile],
    by: i64,
    cx: &Arc<TaskContext>,
) -> Result<Vec<NewFile>> {
    let mut made = vec![];
    for file in files {
        match replace::rewrite(services, view, table, &Arc::new(file.data_file()), cx, |b| moved(b, by)).await {
            Ok(more) => made.extend(more),
            Err(e) => {
                services.store.discard(&view.location, &made).await;
                return Err(e);
            }
        }
    }
    Ok(made)
}

fn moved(batch: &RecordBatch, by: i64) -> Result<RecordBatch> {
    let i = batch.schema().index_of(SEQ)?;
    let old = batch.column(i).as_primitive_opt::<Int64Type>().ok_or_else(|| Error::internal("column _seq is not BIGINT"))?;
    let new: Int64Array = old.unary(|s| s + by);
    let mut columns = batch.columns().to_vec();
    columns[i] = Arc::new(new) as ArrayRef;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}
