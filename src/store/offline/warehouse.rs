//! The place that holds everything, and its marker file.

use std::collections::HashMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use datafusion::execution::object_store::ObjectStoreUrl;
use deltalake::logstore::{LogStoreRef, StorageConfig, logstore_for, logstore_with};
use futures::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use url::Url;

use super::delta_error;
use super::snapshot::Snapshot;
use crate::clock::{Clock, Micros, new_id};
use crate::error::{Error, Result};

const MARKER: &str = "_remige/warehouse.json";
/// What this program writes; older formats are read, newer ones refused.
const FORMAT: u32 = 1;
/// Snapshots kept in memory so that an unchanged table costs one request.
const MAX_CACHED: usize = 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    warehouse_id: String,
    created_at: Micros,
}

/// A warehouse: a directory or object-store prefix with Delta tables at relative locations.
pub struct OfflineStore {
    url: Url,
    display: String,
    local: Option<PathBuf>,
    warehouse_id: String,
    clock: Clock,
    /// What a test lets happen between a writer's work and its next commit to a feature table or training set.
    #[cfg(test)]
    pub(crate) meanwhile: Mutex<Option<futures::future::BoxFuture<'static, ()>>>,
    /// The same between a VACUUM's look at the files and what it does next.
    #[cfg(test)]
    pub(crate) after_listing: Mutex<Option<futures::future::BoxFuture<'static, ()>>>,
    /// The store without prefix; paths in it are what scans name.
    root: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The store below the warehouse.
    files: Arc<dyn ObjectStore>,
    newest: Mutex<HashMap<String, Snapshot>>,
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Looks for the newest version that are under way.
    pub(super) coalescing: super::snapshot_coalescing::Coalescing<Snapshot>,
}

impl std::fmt::Debug for OfflineStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfflineStore").field("url", &self.display).finish_non_exhaustive()
    }
}

impl OfflineStore {
    /// Opens the warehouse at a local path or URL, and makes it on first use. A directory that holds
    /// something else is refused and left as it is; so is a warehouse of a newer format. Credentials
    /// of object stores come from the environment.
    pub fn open<'a>(location: &'a str, clock: Clock) -> futures::future::BoxFuture<'a, Result<Arc<Self>>> {
        Box::pin(async move {
            let place = Place::resolve(location)?;
            let files: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&place.root), place.prefix.clone()));
            let warehouse_id = ensure_marker(files.as_ref(), location, &clock).await?;
            Ok(Arc::new(OfflineStore {
                url: place.url,
                display: location.to_string(),
                local: place.local,
                warehouse_id,
                clock,
                #[cfg(test)]
                meanwhile: Mutex::new(None),
                #[cfg(test)]
                after_listing: Mutex::new(None),
                root: place.root,
                prefix: place.prefix,
                files,
                newest: Mutex::new(HashMap::new()),
                turns: Mutex::new(HashMap::new()),
                coalescing: Default::default(),
            }))
        })
    }

    /// The id in the marker file: the same for every process that opens this warehouse.
    pub fn warehouse_id(&self) -> &str {
        &self.warehouse_id
    }

    /// The location as the user gave it, for messages.
    pub fn root(&self) -> &str {
        &self.display
    }

    /// The directory of a warehouse on a local disk.
    pub fn local_dir(&self) -> Option<&FsPath> {
        self.local.as_deref()
    }

    /// Held by whoever appends to a table in this process and does not want to race.
    pub fn append_turn(&self, location: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.turns.lock();
        all.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(all.entry(location.to_string()).or_default())
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Path or URL of something in the warehouse, for messages and manifests.
    pub fn display_path(&self, relative: &str) -> String {
        match &self.local {
            Some(dir) => dir.join(relative).display().to_string(),
            None => format!("{}/{relative}", self.url.as_str().trim_end_matches('/')),
        }
    }

    /// Removes every file of a table. Readers that hold a snapshot of it will fail.
    pub fn delete_table<'a>(&'a self, location: &'a str) -> futures::future::BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let prefix = table_path(location)?;
            self.forget(location);
            let listed = self.files.list(Some(&prefix)).map(|m| m.map(|m| m.location)).boxed();
            let mut deleted = self.files.delete_stream(listed);
            while let Some(done) = deleted.next().await {
                match done {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => return Err(Error::from(e).context(format!("table {:?}", self.display_path(location)))),
                }
            }
            if let Some(dir) = &self.local {
                // Empty directories mean nothing to an object store, but users see them.
                let dir = dir.join(location);
                let _ = tokio::fs::remove_dir_all(dir).await;
            }
            Ok(())
        })
    }

    pub(crate) fn files(&self) -> &Arc<dyn ObjectStore> {
        &self.files
    }

    pub(crate) fn root_store(&self) -> &Arc<dyn ObjectStore> {
        &self.root
    }

    pub(crate) fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// The key under which scans find the store in DataFusion's registry.
    pub(crate) fn object_store_url(&self) -> Result<ObjectStoreUrl> {
        if self.is_local() {
            return Ok(ObjectStoreUrl::local_filesystem());
        }
        Ok(ObjectStoreUrl::parse(&self.url[..url::Position::BeforePath])?)
    }

    /// Path of a file of a table in `root_store`.
    pub(crate) fn absolute(&self, location: &str, file: &Path) -> Result<Path> {
        let table = table_path(location)?;
        Ok(self.prefix.parts().chain(table.parts()).chain(file.parts()).collect())
    }

    pub(crate) fn log_store(&self, location: &str) -> Result<LogStoreRef> {
        table_path(location)?;
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| Error::invalid(format!("{:?} cannot hold a warehouse", self.display)))?
            .pop_if_empty()
            .extend(location.split('/'))
            .push("");
        logstore_with(Arc::clone(&self.root), &url, StorageConfig::default()).map_err(|e| delta_error(e, location))
    }

    pub(crate) fn cached(&self, location: &str) -> Option<Snapshot> {
        self.newest.lock().get(location).cloned()
    }

    pub(crate) fn remember(&self, snapshot: &Snapshot) {
        let mut newest = self.newest.lock();
        if newest.len() >= MAX_CACHED && !newest.contains_key(snapshot.location()) {
            newest.clear();
        }
        let kept = newest.entry(snapshot.location().to_string()).or_insert_with(|| snapshot.clone());
        if kept.version() < snapshot.version() || kept.table_id() != snapshot.table_id() {
            *kept = snapshot.clone();
        }
    }

    pub(crate) fn forget(&self, location: &str) {
        self.newest.lock().remove(location);
    }
}

/// A table's location as an object path; refuses what could leave the warehouse.
pub(crate) fn table_path(location: &str) -> Result<Path> {
    match Path::parse(location) {
        Ok(p) if !location.is_empty() && p.as_ref() == location => Ok(p),
        _ => Err(Error::internal(format!("{location:?} is not a table location"))),
    }
}

struct Place {
    url: Url,
    local: Option<PathBuf>,
    root: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Place {
    fn resolve(location: &str) -> Result<Place> {
        let bad = |why: String| Error::invalid(format!("{location:?} is not a usable warehouse location: {why}"));
        let url = if location.contains("://") { Some(Url::parse(location).map_err(|e| bad(e.to_string()))?) } else { None };
        let path = match &url {
            None => Some(PathBuf::from(location)),
            Some(u) if u.scheme() == "file" => Some(u.to_file_path().map_err(|()| bad("it is not an absolute path".into()))?),
            Some(_) => None,
        };
        match (path, url) {
            (Some(path), _) => Place::local(location, &path),
            (None, Some(url)) => {
                let log = logstore_for(&url, StorageConfig::default()).map_err(|e| delta_error(e, "warehouse"))?;
                let (_, prefix) = object_store::ObjectStoreScheme::parse(&url).map_err(|e| bad(e.to_string()))?;
                Ok(Place { url, local: None, root: log.root_object_store(None), prefix })
            }
            (None, None) => Err(bad("it is empty".into())),
        }
    }

    fn local(location: &str, path: &FsPath) -> Result<Place> {
        if path.as_os_str().is_empty() {
            return Err(
                Error::invalid("the warehouse location is empty").with_hint("give a directory, for example --warehouse ./warehouse")
            );
        }
        let io = |e: std::io::Error| Error::from(e).context(format!("warehouse {location:?}"));
        if path.is_file() {
            return Err(Error::invalid(format!("{location:?} is a file, not a warehouse directory")));
        }
        std::fs::create_dir_all(path).map_err(io)?;
        let dir = path.canonicalize().map_err(io)?;
        let url = Url::from_directory_path(&dir).map_err(|()| Error::invalid(format!("{location:?} is not an absolute path")))?;
        let prefix =
            Path::from_absolute_path(&dir).map_err(|e| Error::invalid(e.to_string()).context(format!("warehouse {location:?}")))?;
        Ok(Place { url, local: Some(dir), root: Arc::new(LocalFileSystem::new()), prefix })
    }
}

async fn ensure_marker(files: &dyn ObjectStore, location: &str, clock: &Clock) -> Result<String> {
    if let Some(id) = read_marker(files, location).await? {
        return Ok(id);
    }
    if let Some(first) = files.list(None).next().await {
        let found = first.map_err(|e| Error::from(e).context(format!("warehouse {location:?}")))?;
        // Somebody may have made the warehouse between the two looks.
        return match read_marker(files, location).await? {
            Some(id) => Ok(id),
            None => Err(Error::invalid(format!(
                "{location:?} is not a Remige warehouse: it holds {:?} and no {MARKER}",
                found.location.as_ref()
            ))
            .with_hint("give an empty or new directory; nothing was changed")),
        };
    }
    let marker = Marker { format: FORMAT, warehouse_id: new_id(), created_at: clock.now() };
    let text = serde_json::to_string_pretty(&marker).map_err(|e| Error::internal(e.to_string()))?;
    match files.put_opts(&Path::from(MARKER), PutPayload::from(text), PutMode::Create.into()).await {
        Ok(_) => Ok(marker.warehouse_id),
        Err(object_store::Error::AlreadyExists { .. }) => read_marker(files, location)
            .await?
            .ok_or_else(|| Error::unavailable(format!("{MARKER} of warehouse {location:?} came and went"))),
        Err(e) => Err(Error::from(e).context(format!("warehouse {location:?}"))),
    }
}

async fn read_marker(files: &dyn ObjectStore, location: &str) -> Result<Option<String>> {
    let bytes = match files.get(&Path::from(MARKER)).await {
        Ok(found) => found.bytes().await?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(Error::from(e).context(format!("warehouse {location:?}"))),
    };
    let format = serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|v| v.get("format")?.as_u64());
    match format {
        Some(f) if f > u64::from(FORMAT) => {
            Err(Error::invalid(format!("warehouse {location:?} has format {f}; this version of remige reads formats up to {FORMAT}"))
                .with_hint("use the newer remige that made it"))
        }
        _ => serde_json::from_slice::<Marker>(&bytes).map(|m| Some(m.warehouse_id)).map_err(|e| {
            Error::invalid(format!("{MARKER} of warehouse {location:?} is damaged: {e}")).with_hint("restore the file; nothing was changed")
        }),
    }
}
