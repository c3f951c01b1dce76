//! Files of a table that nobody needs any more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use deltalake::kernel::Action;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

use super::READ_AHEAD;
use super::changes::ranges;
use super::snapshot::{DataFile, commit_path};
use super::warehouse::{OfflineStore, table_path};
use crate::clock::{DAY, MILLISECOND, Micros};
use crate::error::{Error, Result};

/// Files that no commit names are at least this old when they are removed: their writer may still commit them.
pub const STRAY_AGE: Micros = DAY;

/// What a VACUUM must leave. Instants are microseconds, UTC.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    /// Versions that were the newest one at this instant or later.
    pub since: Micros,
    /// This version and all later ones too: what the next incremental MATERIALIZE reads.
    pub from: Option<u64>,
    /// These versions too, however old: training sets pin them.
    pub versions: BTreeSet<u64>,
    /// Files that the log does not name, written at this instant or later: a writer may be about to commit them.
    pub strays_since: Micros,
}

/// What can go.
#[derive(Debug, Clone, Default)]
pub struct Garbage {
    files: Vec<Path>,
    /// Halves of files that a killed writer left on the local disk; object stores do not list them.
    halves: Vec<std::path::PathBuf>,
    pub bytes: u64,
    /// This version and all later ones can be read afterwards.
    pub readable_from: u64,
    /// The log begins later than the table: files that it does not name are left alone.
    pub log_is_cut: bool,
}

impl Garbage {
    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len() + self.halves.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// When a file belonged to the table: [added, removed).
#[derive(Debug, Clone, Copy)]
struct Life {
    added: u64,
    removed: Option<u64>,
}

impl OfflineStore {
    /// Finds what can go; removes nothing.
    pub fn garbage<'a>(&'a self, location: &'a str, keep: &'a Keep) -> BoxFuture<'a, Result<Garbage>> {
        Box::pin(async move {
            // The files are listed before the log is read: what is committed in between is then known.
            let listed = self.data_files(location).await?;
            let head = self.snapshot(location, None).await?;
            let log = self.read_log(location, head.version(), keep.since).await?;
            let readable_from = log.kept_from.min(keep.from.unwrap_or(u64::MAX));
            let needed = |life: &Life| match life.removed {
                None => true,
                Some(removed) => removed > readable_from || keep.versions.range(life.added..removed).next().is_some(),
            };
            let current: HashSet<Path> = head.files().iter().flat_map(|f| names(&f.path)).collect();
            let mut out = Garbage { readable_from, log_is_cut: log.is_cut, ..Default::default() };
            for file in listed {
                let stray = !log.is_cut && file.written < keep.strays_since;
                let gone = match log.lives.get(&file.name) {
                    Some(lives) => !lives.iter().any(needed),
                    None => stray,
                };
                if gone && !current.contains(&file.name) {
                    out.bytes += file.size;
                    out.files.push(file.path);
                }
            }
            for (path, size) in self.half_files(location, keep.strays_since).await? {
                out.bytes += size;
                out.halves.push(path);
            }
            #[cfg(test)]
            if let Some(others) = { self.after_listing.lock().take() } {
                others.await;
            }
            Ok(out)
        })
    }

    /// Removes what [`garbage`](Self::garbage) found. May be repeated.
    pub fn remove_garbage<'a>(&'a self, location: &'a str, garbage: Garbage) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let paths = futures::stream::iter(garbage.files.into_iter().map(Ok)).boxed();
            let mut removed = self.files().delete_stream(paths);
            while let Some(done) = removed.next().await {
                match done {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => return Err(Error::from(e).context(format!("table {:?}", self.display_path(location)))),
                }
            }
            for path in garbage.halves {
                match tokio::fs::remove_file(&path).await {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::from(e).context(path.display())),
                    _ => {}
                }
            }
            Ok(())
        })
    }

    /// The first of these files of a table that is not there.
    pub fn first_missing<'a>(&'a self, location: &'a str, files: &'a [Arc<DataFile>]) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(async move {
            let looks = files.iter().map(|f| async move {
                let path = table_path(&format!("{location}/{}", f.object_path()))?;
                match self.files().head(&path).await {
                    Ok(_) => Ok(None),
                    Err(object_store::Error::NotFound { .. }) => Ok(Some(f.path.clone())),
                    Err(e) => Err(Error::from(e).context(format!("table {location:?}"))),
                }
            });
            let looks: Vec<_> = looks.collect();
            let mut looks = futures::stream::iter(looks).buffered(READ_AHEAD);
            while let Some(missing) = looks.try_next().await? {
                if missing.is_some() {
                    return Ok(missing);
                }
            }
            Ok(None)
        })
    }

    async fn data_files(&self, location: &str) -> Result<Vec<Listed>> {
        let prefix = table_path(location)?;
        let mut listed = self.files().list(Some(&prefix));
        let mut out = vec![];
        while let Some(meta) = listed.try_next().await.map_err(|e| Error::from(e).context(format!("table {location:?}")))? {
            let name: Path = match meta.location.prefix_match(&prefix) {
                Some(parts) => parts.collect(),
                None => continue,
            };
            // the log itself, and whatever other engines keep beside the data
            let ours = !name.as_ref().starts_with(['_', '.']) && name.as_ref().ends_with(".parquet");
            if ours {
                out.push(Listed { name, path: meta.location, size: meta.size, written: meta.last_modified.timestamp_micros() });
            }
        }
        Ok(out)
    }

    /// `part-….parquet#1`: what the local store writes until a file is whole.
    async fn half_files(&self, location: &str, before: Micros) -> Result<Vec<(std::path::PathBuf, u64)>> {
        let mut out = vec![];
        let Some(dir) = self.local_dir() else { return Ok(out) };
        let Ok(mut entries) = tokio::fs::read_dir(dir.join(location)).await else { return Ok(out) };
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_half = name.rsplit_once(".parquet#").is_some_and(|(_, n)| n.chars().all(|c| c.is_ascii_digit()));
            let (true, Ok(meta)) = (is_half, entry.metadata().await) else { continue };
            let written = meta.modified().ok().map(|t| chrono::DateTime::<chrono::Utc>::from(t).timestamp_micros());
            if written.is_some_and(|w| w < before) {
                out.push((entry.path(), meta.len()));
            }
        }
        Ok(out)
    }

    /// The life of every file that the log names.
    async fn read_log(&self, location: &str, head: u64, since: Micros) -> Result<Log> {
        let first = self.first_version(location).await?;
        let mut log = Log { lives: HashMap::new(), kept_from: head, is_cut: first > 0 };
        let mut recent = None;
        for versions in ranges(first, head) {
            let commits = self.read_commits(location, versions.clone()).await?;
            for (version, actions) in versions.zip(commits) {
                let Some(actions) = actions else {
                    log.is_cut = true;
                    continue;
                };
                let at = match committed(&actions) {
                    Some(at) => at,
                    None => self.written(location, version).await?,
                };
                if at > since {
                    recent.get_or_insert(version);
                }
                actions.into_iter().for_each(|a| log.take(a, version));
            }
        }
        // the version before the first recent commit was the newest one until then
        log.kept_from = recent.map_or(head, |v| v.saturating_sub(1));
        Ok(log)
    }

    async fn written(&self, location: &str, version: u64) -> Result<Micros> {
        let path = table_path(&format!("{location}/{}", commit_path(version)))?;
        let meta = self.files().head(&path).await.map_err(|e| Error::from(e).context(format!("table {location:?}")))?;
        Ok(meta.last_modified.timestamp_micros())
    }
}

struct Listed {
    /// Relative to the table.
    name: Path,
    path: Path,
    size: u64,
    written: Micros,
}

struct Log {
    lives: HashMap<Path, Vec<Life>>,
    kept_from: u64,
    is_cut: bool,
}

impl Log {
    fn take(&mut self, action: Action, version: u64) {
        match action {
            Action::Add(add) => {
                for name in names(&add.path) {
                    self.lives.entry(name).or_default().push(Life { added: version, removed: None });
                }
            }
            Action::Remove(remove) => {
                for name in names(&remove.path) {
                    let lives = self.lives.entry(name).or_default();
                    match lives.last_mut().filter(|l| l.removed.is_none()) {
                        Some(life) => life.removed = Some(version),
                        None => lives.push(Life { added: 0, removed: Some(version) }),
                    }
                }
            }
            _ => {}
        }
    }
}

fn committed(actions: &[Action]) -> Option<Micros> {
    let info = actions.iter().find_map(|a| if let Action::CommitInfo(i) = a { Some(i) } else { None })?;
    let ms = info.timestamp.or_else(|| info.info.get("timestamp").and_then(Value::as_i64))?;
    Some(ms.saturating_mul(MILLISECOND))
}

/// A path in the log as it may be called in the store: as it stands and, from writers that escape, unescaped.
fn names(path: &str) -> impl Iterator<Item = Path> {
    let plain = Path::parse(path).unwrap_or_else(|_| Path::from(path));
    let unescaped = path.contains('%').then(|| Path::from_url_path(path).ok()).flatten();
    std::iter::once(plain).chain(unescaped)
}
