//! OPTIMIZE FEATURE VIEW: small, unsorted and overlapping files become few sorted ones. The rows stay as they
//! are, `_seq` included, so that ties are decided as before; readers of changes skip the commit.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use futures::StreamExt;
use futures::future::BoxFuture;

use super::maintenance::under_lease;
use crate::catalog::Run;
use crate::error::{Error, Kind, Result};
use crate::model::FeatureView;
use crate::plan::answers;
use crate::plan::names::Names;
use crate::resolve::resolver::Resolver;
use crate::services::record::recorded;
use crate::services::{Services, boxed};
use crate::store::offline::{Commit, DataFile, NewFile, Operation, Snapshot, WriteSpec, files_to_compact};
use crate::table::read::scan;
use crate::table::write::{order, sorted, spec};

/// How often it starts again because somebody replaced files that it was rewriting.
const MAX_ATTEMPTS: u32 = 5;
/// How often one rewrite is tried behind other writers' commits.
const MAX_COMMITS: u32 = 50;

/// What was done to one view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Optimized {
    /// Files and bytes of the whole table.
    pub files: (usize, usize),
    pub bytes: (u64, u64),
    /// Files that were written anew; 0: there was nothing to do.
    pub rewritten: usize,
    pub rows: u64,
    pub written: u64,
    pub version: u64,
}

/// Answers one row of [`answers::optimize`].
pub fn run<'a>(resolver: &'a Arc<Resolver>, view: &'a Arc<FeatureView>, cx: &'a Arc<TaskContext>) -> BoxFuture<'a, Result<RecordBatch>> {
    Box::pin(async move {
        let services = &resolver.services;
        let mut done = Optimized::default();
        let work = recorded(services, "optimize", view, |run| {
            let done = &mut done;
            async move {
                *done = optimize(services, view, &run.run_id, cx)
                    .await
                    .map_err(|e| e.context(format!("OPTIMIZE FEATURE VIEW {}", view.name)))?;
                Ok(Run {
                    rows_read: done.rows,
                    rows_written: done.rows,
                    bytes_written: done.written,
                    delta_version: Some(done.version),
                    ..run
                })
            }
        });
        let run = under_lease(services, view, Box::pin(work)).await?;
        match done.rewritten {
            0 => resolver.notice(format!("feature view {}: nothing to do, its {} file(s) are fit", view.name, done.files.0)),
            n => tracing::info!(view = %view.name, files = n, rows = done.rows, left = done.files.1, "optimized"),
        }
        answer(view, &run, &done)
    })
}

/// How many files an OPTIMIZE would write anew now.
pub async fn wanted(services: &Services, view: &FeatureView) -> Result<usize> {
    let table = services.store.snapshot(&view.location, None).await?;
    Ok(files_to_compact(table.files(), &order(view), services.config.target_file_rows).len())
}

fn answer(view: &FeatureView, run: &Run, done: &Optimized) -> Result<RecordBatch> {
    let text = |t: String| Arc::new(StringArray::from(vec![t])) as ArrayRef;
    let number = |n: u64| Arc::new(Int64Array::from(vec![i64::try_from(n).unwrap_or(i64::MAX)])) as ArrayRef;
    let columns = vec![
        text(view.versioned_name()),
        number(done.files.0 as u64),
        number(done.files.1 as u64),
        number(done.bytes.0),
        number(done.bytes.1),
        number(done.rewritten as u64),
        number(done.rows),
        number(done.version),
        text(run.run_id.clone()),
    ];
    Ok(RecordBatch::try_new(answers::optimize(), columns)?)
}

fn optimize<'a>(
    services: &'a Services,
    view: &'a FeatureView,
    run_id: &'a str,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<Optimized>> {
    Box::pin(async move {
        for _ in 0..MAX_ATTEMPTS {
            let base = services.store.snapshot(&view.location, None).await?;
            let bytes = |s: &Snapshot| s.files().iter().map(|f| f.size).sum::<u64>();
            let (files, size) = (base.files().len(), bytes(&base));
            let old = files_to_compact(base.files(), &order(view), services.config.target_file_rows);
            if old.is_empty() {
                return Ok(Optimized { files: (files, files), bytes: (size, size), version: base.version(), ..Default::default() });
            }
            let rewrite = boxed(rewrite(services, view, base, old, cx)).await?;
            if let Some(after) = boxed(publish(services, &rewrite, run_id)).await? {
                return Ok(Optimized {
                    files: (files, after.files().len()),
                    bytes: (size, bytes(&after)),
                    rewritten: rewrite.old.len(),
                    rows: rewrite.rows,
                    written: rewrite.new.iter().map(|f| f.size).sum(),
                    version: after.version(),
                });
            }
            tracing::info!(view = %view.name, "others replaced files during OPTIMIZE; starting again");
        }
        Err(Error::conflict(format!("others replaced its files {MAX_ATTEMPTS} times meanwhile")).with_hint("try again"))
    })
}

/// New files that hold the very rows of `old` ones, not committed yet.
struct Rewrite {
    base: Snapshot,
    old: Vec<Arc<DataFile>>,
    new: Vec<NewFile>,
    rows: u64,
}

async fn rewrite(
    services: &Services,
    view: &FeatureView,
    base: Snapshot,
    old: Vec<Arc<DataFile>>,
    cx: &Arc<TaskContext>,
) -> Result<Rewrite> {
    let expected: Option<u64> = old.iter().map(|f| f.rows).sum();
    let progress = services.progress.start(&format!("OPTIMIZE {}", view.name), expected);
    let spec = WriteSpec { schema: Arc::clone(base.schema()), ..spec(services, view) };
    let mut rows = in_order(services, view, &base, &old, cx).await?;
    let mut writer = services.store.writer(base.location(), spec)?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        writer.write(&batch).await?;
        progress.advance(batch.num_rows() as u64);
        tokio::task::consume_budget().await;
    }
    progress.finish();
    let rows = writer.rows();
    let new = writer.finish().await?;
    if expected.is_some_and(|n| n != rows) {
        services.store.discard(base.location(), &new).await;
        return Err(Error::internal(format!("{} rows became {rows}; nothing was changed", expected.unwrap_or_default())));
    }
    Ok(Rewrite { base, old, new, rows })
}

/// Merges sorted files, or sorts, and spills, where that takes less memory: a merge holds a row group of every
/// file, which the memory limit does not see.
async fn in_order(
    services: &Services,
    view: &FeatureView,
    base: &Snapshot,
    old: &[Arc<DataFile>],
    cx: &Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let row_group = |f: &DataFile| match f.rows {
        Some(rows) if rows > services.config.row_group_rows as u64 => f.size / (rows / services.config.row_group_rows as u64),
        _ => f.size,
    };
    let merge = old.iter().map(|f| row_group(f)).sum::<u64>() <= services.config.memory_limit as u64 / 4;
    let rows = scan(services, view, base, Some(old.to_vec()), None, merge, cx).await?;
    if merge { Ok(rows) } else { sorted(rows, &order(view), cx) }
}

/// Commits a rewrite, behind whatever others have committed since its base. `None`: one of the old files is no
/// longer there, so that the new ones would bring back, or double, rows; they are taken back.
async fn publish(services: &Services, rewrite: &Rewrite, run_id: &str) -> Result<Option<Snapshot>> {
    let store = &services.store;
    let location = rewrite.base.location();
    let commit = Commit {
        adds: rewrite.new.clone(),
        removes: rewrite.old.iter().map(|f| f.path.clone()).collect(),
        operation: Operation::Optimize,
        run_id: Some(run_id.to_string()),
        rewrite: true,
        ..Default::default()
    };
    let mut base = rewrite.base.clone();
    for _ in 0..MAX_COMMITS {
        let there: HashSet<&str> = base.files().iter().map(|f| f.path.as_str()).collect();
        if rewrite.new.iter().any(|f| there.contains(f.path.as_str())) {
            // the store did it and lost the answer
            return Ok(Some(base));
        }
        let same_table = base.table_id() == rewrite.base.table_id() && base.schema() == rewrite.base.schema();
        if !same_table || !rewrite.old.iter().all(|f| there.contains(f.path.as_str())) {
            store.discard(location, &rewrite.new).await;
            return Ok(None);
        }
        match store.commit(&base, commit.clone()).await {
            Ok(after) => return Ok(Some(after)),
            // after any other error the commit may be there: what is not, VACUUM removes
            Err(e) if e.kind() != Kind::Conflict => return Err(e),
            Err(_) => base = store.refresh(&base).await?,
        }
    }
    store.discard(location, &rewrite.new).await;
    Err(Error::conflict(format!("{MAX_COMMITS} attempts to commit lost against other writers")).with_hint("try again"))
}
