//! Commits: exactly the next version or nothing.

use std::collections::{BTreeMap, HashMap};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, CommitInfo, Metadata, MetadataExt, Remove, StructType, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use serde_json::Value;

use super::snapshot::Snapshot;
use super::warehouse::OfflineStore;
use super::watermark::{WATERMARK_APP, known};
use super::writer::NewFile;
use super::{ENGINE, delta_error};
use crate::clock::{self, MILLISECOND, Micros, new_id};
use crate::error::{Error, Kind, Result};

/// Names in the metadata of a commit (`commitInfo` in the Delta log).
pub(crate) const RUN_ID: &str = "remigeRunId";
pub(crate) const WATERMARK: &str = "remigeWatermark";
const COMMIT_ID: &str = "remigeCommitId";
/// A checkpoint after every so many versions keeps loading short.
const CHECKPOINT_EVERY: u64 = 100;
/// How often an append goes behind another commit before it gives up.
const MAX_APPEND_ATTEMPTS: u32 = 50;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Operation {
    #[default]
    Append,
    Overwrite,
    Delete,
    Optimize,
    AddColumn,
}

/// What one commit does. Times are microseconds, UTC.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub adds: Vec<NewFile>,
    /// Paths of the base snapshot's files.
    pub removes: Vec<String>,
    pub operation: Operation,
    /// The run that made this; found again by `settle` after a crash.
    pub run_id: Option<String>,
    /// New watermark; `None` leaves it as it is, `NO_WATERMARK` takes it away.
    pub watermark: Option<Micros>,
    /// The table's columns from now on: the old ones, then nullable new ones, which files written
    /// before do not have (they read as NULL); any columns where all files are removed.
    pub new_schema: Option<SchemaRef>,
    /// Further application transactions (name, number).
    pub txns: Vec<(String, i64)>,
    /// Further entries of the commit's metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The rows stay the same (OPTIMIZE, compaction): readers of changes skip this commit.
    pub rewrite: bool,
    /// No recorded run tells VACUUM that these files are still wanted.
    pub exposed: bool,
}

impl OfflineStore {
    /// Commits version `base.version() + 1`, or fails with a conflict where somebody else has
    /// written that version: reload, decide again, try again. Files that are gone are never committed.
    pub fn commit<'a>(&'a self, base: &'a Snapshot, mut commit: Commit) -> futures::future::BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let what = format!("table {:?}", base.location());
            if commit.watermark.is_some() && !base.has_watermark() {
                return Err(Error::internal(format!("{what} was made without a watermark")));
            }
            #[cfg(test)]
            if ["features/", "tables/", "training_sets/"].iter().any(|folder| base.location().starts_with(folder))
                && let Some(others) = { self.meanwhile.lock().take() }
            {
                others.await;
            }
            let commit = &mut commit;
            let copies = self.renew_late_files(base.location(), commit).await?;
            let done = self.commit_once(base, commit).await;
            match &done {
                Ok(_) => self.discard(base.location(), &copies.old).await,
                Err(e) => self.take_back(base.location(), &copies.new, e).await,
            }
            done
        })
    }

    /// As `commit`. Where the race was lost, the files that it adds are taken back: another attempt writes its own.
    pub async fn commit_or_take_back(&self, base: &Snapshot, commit: Commit) -> Result<Snapshot> {
        let adds = commit.adds.clone();
        let done = self.commit(base, commit).await;
        if let Err(e) = &done {
            self.take_back(base.location(), &adds, e).await;
        }
        done
    }

    fn commit_once<'a>(&'a self, base: &'a Snapshot, commit: &'a Commit) -> futures::future::BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            let what = format!("table {:?}", base.location());
            let commit_id = new_id();
            let actions = self.actions(base, commit, &commit_id)?;
            let txns = transactions(commit, self.clock().now() / MILLISECOND);
            let prepared = CommitBuilder::from(self.exact_commit_properties().with_application_transactions(txns))
                .with_actions(actions)
                .build(Some(base.state()), base.log().clone(), delta_operation(commit.operation))
                .into_prepared_commit_future()
                .await
                .map_err(|e| delta_error(e, &what))?;
            let version = base.version() + 1;
            let state = match prepared.await {
                Ok(done) => done.await.map(|f| f.snapshot).ok(),
                Err(e) => match self.is_mine(base, version, &commit_id).await {
                    Some(true) => None,
                    Some(false) => return Err(delta_error(e, &what)),
                    None => {
                        return Err(Error::unavailable(format!("{what}: it is not known whether version {version} was written: {e}"))
                            .with_hint("look at the table before doing it again"));
                    }
                },
            };
            // From here on the commit has happened, whatever reading it back says.
            let snapshot = match state {
                Some(state) if state.version() == version => {
                    let watermark = commit.watermark.map_or(base.watermark(), known);
                    Snapshot::build(base.location(), base.log().clone(), state, watermark, Some(base))
                }
                _ => self.snapshot(base.location(), Some(version)).await,
            }
            .map_err(|e| e.context(format!("version {version} was written, but cannot be read back")))?;
            if (version + 1).is_multiple_of(CHECKPOINT_EVERY)
                && let Err(e) = snapshot.checkpoint().await
            {
                tracing::warn!(table = base.location(), version, error = %e, "no checkpoint");
            }
            self.remember(&snapshot);
            Ok(snapshot)
        })
    }

    /// Commits new rows behind whatever others have committed since `base`. A watermark only moves forward.
    pub fn append<'a>(&'a self, base: &'a Snapshot, commit: Commit) -> futures::future::BoxFuture<'a, Result<Snapshot>> {
        Box::pin(async move {
            if !commit.removes.is_empty() || commit.rewrite || commit.new_schema.is_some() {
                return Err(Error::internal("append() takes new files only"));
            }
            let mut current = base.clone();
            for attempt in 0..MAX_APPEND_ATTEMPTS {
                let watermark = commit.watermark.map(|w| current.watermark().map_or(w, |known| known.max(w)));
                match self.commit(&current, Commit { watermark, ..commit.clone() }).await {
                    Err(e) if e.kind() == Kind::Conflict => {}
                    other => return other,
                }
                clock::sleep(std::time::Duration::from_millis(u64::from(attempt.min(20)))).await;
                current = self.refresh(&current).await?;
                if current.table_id() != base.table_id() || current.schema() != base.schema() {
                    return Err(Error::conflict(format!("table {:?} got another schema meanwhile", base.location())));
                }
            }
            Err(Error::conflict(format!(
                "table {:?}: {MAX_APPEND_ATTEMPTS} attempts to append lost against other writers",
                base.location()
            )))
        })
    }

    /// Takes files back that no commit names. Best effort: what stays is invisible.
    pub async fn discard(&self, location: &str, files: &[NewFile]) {
        use object_store::ObjectStoreExt;
        for file in files {
            if let Ok(path) = super::warehouse::table_path(&format!("{location}/{}", file.path)) {
                let _ = self.files().delete(&path).await;
            }
        }
    }

    /// Takes the files of a failed commit back where it certainly did not happen: after any error but a lost
    /// race the commit may be in the log, and its files must stay.
    pub async fn take_back(&self, location: &str, files: &[NewFile], error: &Error) {
        if error.kind() == Kind::Conflict {
            self.discard(location, files).await;
        }
    }

    pub(crate) fn exact_commit_properties(&self) -> CommitProperties {
        CommitProperties::default().with_max_retries(0).with_create_checkpoint(false).with_cleanup_expired_logs(Some(false))
    }

    fn actions(&self, base: &Snapshot, commit: &Commit, commit_id: &str) -> Result<Vec<Action>> {
        let now = self.clock().now() / MILLISECOND;
        let mut info: HashMap<String, Value> = commit.metadata.clone().into_iter().collect();
        info.insert(COMMIT_ID.into(), commit_id.into());
        if let Some(run) = &commit.run_id {
            info.insert(RUN_ID.into(), run.as_str().into());
        }
        if let Some(w) = commit.watermark {
            info.insert(WATERMARK.into(), w.into());
        }
        // Commit info of our own, so that the time is the clock's.
        let mut actions = vec![Action::CommitInfo(CommitInfo {
            timestamp: Some(now),
            engine_info: Some(ENGINE.into()),
            read_version: Some(base.version()),
            is_blind_append: Some(commit.operation == Operation::Append && commit.removes.is_empty()),
            info,
            ..delta_operation(commit.operation).get_commit_info()
        })];
        if let Some(schema) = &commit.new_schema {
            actions.push(Action::Metadata(changed_columns(base, schema, commit)?));
        }
        let mut ahead = 0;
        for path in &commit.removes {
            let file = base.files().iter().find(|f| &f.path == path).ok_or_else(|| {
                Error::internal(format!("{path:?} is no file of table {:?} at version {}", base.location(), base.version()))
            })?;
            ahead = ahead.max(file.ahead);
            actions.push(Action::Remove(Remove {
                path: file.path.clone(),
                data_change: !commit.rewrite,
                deletion_timestamp: Some(now),
                extended_file_metadata: Some(true),
                partition_values: Some(HashMap::new()),
                size: i64::try_from(file.size).ok(),
                // So that readers of changes know the order of a file that is gone.
                tags: Some(file.tags()),
                ..Default::default()
            }));
        }
        for (file, place) in commit.adds.iter().zip(0u32..) {
            actions.push(Action::Add(Add {
                path: file.path.clone(),
                size: i64::try_from(file.size).map_err(|e| Error::internal(e.to_string()))?,
                modification_time: now,
                data_change: !commit.rewrite,
                stats: Some(file.stats_json()),
                tags: Some(file.tags(base.version() + 1, place, ahead)),
                ..Default::default()
            }));
        }
        Ok(actions)
    }

    /// Whether version `version` is the very commit we tried to write: a store may have done it and
    /// lost the answer. `None`: the log does not answer either.
    async fn is_mine(&self, base: &Snapshot, version: u64, commit_id: &str) -> Option<bool> {
        let entry = base.log().read_commit_entry(version).await.ok()?;
        Some(entry.is_some_and(|bytes| bytes.windows(commit_id.len()).any(|w| w == commit_id.as_bytes())))
    }
}

fn changed_columns(base: &Snapshot, schema: &SchemaRef, commit: &Commit) -> Result<Metadata> {
    let what = format!("table {:?}", base.location());
    let (old, new) = (base.schema().fields(), schema.fields());
    let kept = old.len() <= new.len() && old.iter().zip(new).all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
    let all_written = base.files().iter().all(|f| commit.removes.contains(&f.path));
    if !all_written && (!kept || new.iter().skip(old.len()).any(|f| !f.is_nullable())) {
        return Err(Error::internal(format!("{what}: only nullable columns can be added, behind the others")));
    }
    let kernel: StructType = schema.as_ref().try_into_kernel().map_err(|e: ArrowError| Error::invalid(e.to_string()).context(&what))?;
    base.state().metadata().clone().with_schema(&kernel).map_err(|e| delta_error(e.into(), &what))
}

fn transactions(commit: &Commit, now_ms: i64) -> Vec<Transaction> {
    let watermark = commit.watermark.map(|w| (WATERMARK_APP.to_string(), w));
    let all = commit.txns.iter().cloned().chain(watermark);
    all.map(|(app, n)| Transaction::new_with_last_update(app, n, Some(now_ms))).collect()
}

fn delta_operation(operation: Operation) -> DeltaOperation {
    let write = |mode| DeltaOperation::Write { mode, partition_by: None, predicate: None };
    match operation {
        Operation::Append => write(SaveMode::Append),
        Operation::Overwrite => write(SaveMode::Overwrite),
        Operation::Delete => DeltaOperation::Delete { predicate: None },
        // the columns stand in the metadata of the same commit
        Operation::AddColumn => DeltaOperation::AddColumn { fields: vec![] },
        Operation::Optimize => DeltaOperation::Optimize { predicate: None, target_size: 0 },
    }
}
