//! What commits did: history, and the files that changed between two versions.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use deltalake::kernel::{Action, Remove};
use deltalake::logstore::get_actions;
use serde_json::{Map, Value};

use super::commit::{RUN_ID, WATERMARK};
use super::snapshot::{DataFile, parse_order};
use super::stats::Ranges;
use super::warehouse::OfflineStore;
use super::watermark::known;
use super::{READ_AHEAD, delta_error};
use crate::clock::{MILLISECOND, Micros};
use crate::error::{Error, Result};

/// One entry of a table's history.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitRecord {
    pub version: u64,
    /// Microseconds, UTC; 0 where the commit does not say.
    pub at: Micros,
    pub operation: String,
    pub run_id: Option<String>,
    /// The watermark that this commit has set.
    pub watermark: Option<Micros>,
    /// Everything else its writer said.
    pub metadata: Map<String, Value>,
}

/// Answer of [`OfflineStore::changed_files`].
#[derive(Debug, Clone)]
pub enum Changed {
    Files(Changes),
    /// The log no longer tells: version `missing` is gone. Do a full pass.
    Gap {
        missing: u64,
    },
}

/// Files that commits with a change of data added or removed. A file may be in both lists. Removed
/// files can be read until a VACUUM.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    pub added: Vec<Arc<DataFile>>,
    pub removed: Vec<Arc<DataFile>>,
    /// Paths that commits without a change of data removed: their rows went on in other files.
    pub rewritten: HashSet<String>,
    /// The table's columns or properties changed in between.
    pub schema_changed: bool,
}

impl OfflineStore {
    /// Commits from `from_version` on, oldest first; those that are no longer in the log are left out.
    pub fn history<'a>(&'a self, location: &'a str, from_version: u64) -> futures::future::BoxFuture<'a, Result<Vec<CommitRecord>>> {
        Box::pin(async move {
            let newest = self.snapshot(location, None).await?.version();
            let first = self.first_version(location).await?.max(from_version);
            let mut records = vec![];
            for versions in ranges(first, newest) {
                let commits = self.read_commits(location, versions.clone()).await?;
                records.extend(versions.zip(commits).filter_map(|(v, actions)| record(v, actions?)));
            }
            Ok(records)
        })
    }

    /// The files that changed after version `from`, up to and including version `to`.
    pub fn changed_files<'a>(&'a self, location: &'a str, from: u64, to: u64) -> futures::future::BoxFuture<'a, Result<Changed>> {
        Box::pin(async move {
            let snapshot = self.snapshot(location, None).await?;
            if to > snapshot.version() || from > to {
                return Err(Error::internal(format!("table {location:?} has no changes from {from} to {to}")));
            }
            let mut known: HashMap<String, Arc<DataFile>> = snapshot.files().iter().map(|f| (f.path.clone(), Arc::clone(f))).collect();
            let mut out = Changes::default();
            for versions in ranges(from + 1, to) {
                let commits = self.read_commits(location, versions.clone()).await?;
                for (version, actions) in versions.zip(commits) {
                    let Some(actions) = actions else { return Ok(Changed::Gap { missing: version }) };
                    for action in actions {
                        out.take(action, snapshot.schema(), &mut known);
                    }
                }
            }
            Ok(Changed::Files(out))
        })
    }

    pub(super) async fn read_commits(&self, location: &str, versions: RangeInclusive<u64>) -> Result<Vec<Option<Vec<Action>>>> {
        futures::future::try_join_all(versions.map(|v| self.read_commit(location, v))).await
    }

    async fn read_commit(&self, location: &str, version: u64) -> Result<Option<Vec<Action>>> {
        let what = format!("table {location:?}");
        let log = self.log_store(location)?;
        match log.read_commit_entry(version).await.map_err(|e| delta_error(e, &what))? {
            Some(bytes) => Ok(Some(get_actions(version, &bytes).map_err(|e| delta_error(e, &what))?)),
            None => Ok(None),
        }
    }
}

impl Changes {
    fn take(&mut self, action: Action, schema: &SchemaRef, known: &mut HashMap<String, Arc<DataFile>>) {
        match action {
            Action::Add(add) => {
                let file = Arc::new(DataFile::from_add(&add, schema));
                known.insert(add.path.clone(), Arc::clone(&file));
                if add.data_change {
                    self.added.push(file);
                }
            }
            Action::Remove(remove) if remove.data_change => {
                self.removed.push(known.get(&remove.path).cloned().unwrap_or_else(|| Arc::new(removed_file(&remove))));
            }
            Action::Remove(remove) => {
                self.rewritten.insert(remove.path);
            }
            Action::Metadata(_) => self.schema_changed = true,
            _ => {}
        }
    }
}

/// Both ends inclusive, cut into pieces that are read at once.
pub(super) fn ranges(from: u64, to: u64) -> impl Iterator<Item = RangeInclusive<u64>> {
    let step = READ_AHEAD as u64;
    (from..=to).step_by(READ_AHEAD).map(move |a| a..=to.min(a + step - 1))
}

fn record(version: u64, actions: Vec<Action>) -> Option<CommitRecord> {
    let info = actions.into_iter().find_map(|a| if let Action::CommitInfo(i) = a { Some(i) } else { None })?;
    let text = |key: &str| info.info.get(key).and_then(Value::as_str).map(str::to_string);
    Some(CommitRecord {
        version,
        at: info.timestamp.map_or(0, |ms| ms.saturating_mul(MILLISECOND)),
        run_id: text(RUN_ID),
        watermark: info.info.get(WATERMARK).and_then(Value::as_i64).and_then(known),
        operation: info.operation.unwrap_or_default(),
        metadata: info.info.into_iter().collect(),
    })
}

/// A removed file that no snapshot at hand describes: only its order may be known.
fn removed_file(remove: &Remove) -> DataFile {
    DataFile {
        path: remove.path.clone(),
        size: remove.size.and_then(|s| u64::try_from(s).ok()).unwrap_or(0),
        rows: None,
        order: parse_order(&remove.tags).unwrap_or_default(),
        added: (0, 0),
        ahead: 0,
        modified_ms: remove.deletion_timestamp.unwrap_or(0),
        ranges: Ranges::new(),
        has_deletions: remove.deletion_vector.is_some(),
        is_partitioned: remove.partition_values.as_ref().is_some_and(|p| !p.is_empty()),
    }
}
