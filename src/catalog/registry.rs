//! The registry: compare-and-set commits to the event log, and its fold.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use tokio::runtime::Handle;

use super::change::CatalogChange;
use super::event::{self, Event};
use super::snapshot::CatalogSnapshot;
use crate::activity::Activity;
use crate::clock::{self, Micros};
use crate::error::{Error, Kind, Result};
use crate::store::offline::{Commit, DataFile, OfflineStore, READ_AHEAD, Snapshot, TableOptions};

const LOCATION: &str = "_remige/registry";
/// How often a commit starts over after losing a race.
const MAX_ATTEMPTS: u32 = 100;

/// True where a failed catalog commit certainly did not happen, so that what it would have named may go. After any
/// other error (the log cannot be reached or read back) the catalog may name it.
pub fn is_undone(e: &Error) -> bool {
    matches!(e.kind(), Kind::Syntax | Kind::NotFound | Kind::AlreadyExists | Kind::Invalid | Kind::Conflict | Kind::NotBuilt)
}

/// The catalog of a warehouse. One per process; shared.
#[derive(Debug)]
pub struct Registry {
    store: Arc<OfflineStore>,
    loaded: ArcSwap<Loaded>,
    /// One refresh or commit of this process at a time.
    turn: tokio::sync::Mutex<()>,
    /// A refresh ahead of its time is under way.
    ahead: AtomicBool,
    /// Of whoever opened it. Lookups wait for `turn`, so whoever holds it has its requests made there: on the threads of
    /// statements they would wait for as long as a statement keeps those busy.
    runtime: Handle,
}

#[derive(Debug)]
struct Loaded {
    table: Snapshot,
    catalog: Arc<CatalogSnapshot>,
    checked_at: Micros,
}

impl Registry {
    /// Opens the registry, and makes it on first use.
    pub fn open(store: Arc<OfflineStore>) -> futures::future::BoxFuture<'static, Result<Arc<Self>>> {
        Box::pin(async move {
            let table = match store.snapshot(LOCATION, None).await {
                Err(e) if e.kind() == Kind::NotFound => create(&store).await?,
                other => other.map_err(|e| e.context("registry"))?,
            };
            let checked_at = store.clock().now();
            let catalog = fold(&store, &table, &CatalogSnapshot::empty(), None, &[]).await?;
            let loaded = ArcSwap::from_pointee(Loaded { table, catalog: Arc::new(catalog), checked_at });
            let (turn, ahead) = (tokio::sync::Mutex::new(()), AtomicBool::new(false));
            Ok(Arc::new(Registry { store, loaded, turn, ahead, runtime: Handle::current() }))
        })
    }

    /// The catalog as last seen; no IO.
    pub fn cached(&self) -> Arc<CatalogSnapshot> {
        Arc::clone(&self.loaded.load().catalog)
    }

    /// How long ago [`cached`](Self::cached) was known to be the newest, in microseconds.
    pub fn cached_age(&self) -> Micros {
        self.store.clock().now().saturating_sub(self.loaded.load().checked_at).max(0)
    }

    /// A catalog at most `max_age` old. Past half of that age it is refreshed in the background, so that who asks
    /// often waits for nothing.
    pub fn recent(self: &Arc<Self>, max_age: Micros) -> futures::future::BoxFuture<'_, Result<Arc<CatalogSnapshot>>> {
        Box::pin(async move {
            let age = self.cached_age();
            if age <= max_age {
                if age > max_age / 2 && !self.ahead.swap(true, Ordering::AcqRel) {
                    let me = Arc::clone(self);
                    self.runtime.spawn(async move {
                        if let Err(e) = me.snapshot().await {
                            tracing::debug!(error = %e, "the catalog was not refreshed ahead of its time");
                        }
                        me.ahead.store(false, Ordering::Release);
                    });
                }
                return Ok(self.cached());
            }
            let me = Arc::clone(self);
            self.there(async move {
                let _turn = me.turn.lock().await;
                // somebody else may have looked while this one waited
                if me.cached_age() <= max_age {
                    return Ok(me.cached());
                }
                Ok(Arc::clone(&me.refresh().await?.catalog))
            })
            .await
        })
    }

    /// The newest catalog: one request when nothing changed, else the new events are read.
    pub fn snapshot<'a>(self: &'a Arc<Self>) -> futures::future::BoxFuture<'a, Result<Arc<CatalogSnapshot>>> {
        Box::pin(async move {
            let me = Arc::clone(self);
            self.there(async move {
                let _turn = me.turn.lock().await;
                Ok(Arc::clone(&me.refresh().await?.catalog))
            })
            .await
        })
    }

    /// Does the work on the threads of `runtime`, to its end.
    async fn there<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        // for whoever watches the statement this is a wait for a store
        let _wait = Activity::current().begin();
        match self.runtime.spawn(work).await {
            Ok(done) => done,
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::unavailable("the catalog cannot be read: this process is ending")),
            },
        }
    }

    /// The catalog as it was at an earlier version.
    pub fn at_version<'a>(self: &'a Arc<Self>, version: u64) -> futures::future::BoxFuture<'a, Result<Arc<CatalogSnapshot>>> {
        Box::pin(async move {
            let newest = self.snapshot().await?;
            if version == newest.version {
                return Ok(newest);
            }
            if version > newest.version {
                return Err(Error::not_found(format!("the catalog has no version {version} yet; its newest is {}", newest.version)));
            }
            let table = self.loaded.load().table.clone();
            Ok(Arc::new(fold(&self.store, &table, &CatalogSnapshot::empty(), Some(version), &[]).await?))
        })
    }

    /// All changes from a catalog version on, in order.
    pub fn events<'a>(self: &'a Arc<Self>, from_version: u64) -> futures::future::BoxFuture<'a, Result<Vec<Event>>> {
        Box::pin(async move {
            self.snapshot().await?;
            let table = self.loaded.load().table.clone();
            read_events(&self.store, &table, table.files(), from_version, None).await
        })
    }

    /// Commits a list of changes, all or nothing. `build` checks what the changes rest on and answers them, beside
    /// what the caller wants to know of them, which is answered once they are committed; when another commit was
    /// first it is asked again with the newer catalog. No changes: no commit. Afterwards nothing may refer to
    /// something that does not exist.
    pub async fn commit<T, F>(self: &Arc<Self>, run_id: Option<&str>, build: F) -> Result<T>
    where
        F: Fn(&CatalogSnapshot) -> Result<(Vec<CatalogChange>, T)>,
    {
        let _turn = self.turn.lock().await;
        for attempt in 0..MAX_ATTEMPTS {
            let me = Arc::clone(self);
            let before = self.there(async move { me.refresh().await }).await?;
            let (changes, answer) = build(&before.catalog)?;
            if changes.is_empty() {
                return Ok(answer);
            }
            let mut next = CatalogSnapshot::clone(&before.catalog);
            next.version += 1;
            next.at = self.store.clock().now();
            let events = Event::of(&before.catalog, next.version, next.at, run_id, &changes)?;
            for change in changes {
                next.apply(change)?;
            }
            next.check_references()?;
            let (me, run_id, rows) = (Arc::clone(self), run_id.map(str::to_string), event::to_batch(&events)?);
            let write = async move { me.write(&before.table, Arc::new(next), &rows, run_id).await };
            match self.there(write).await {
                Ok(()) => return Ok(answer),
                Err(e) if e.kind() == Kind::Conflict => {
                    clock::sleep(Duration::from_millis(u64::from(attempt.min(20)))).await;
                }
                Err(e) => return Err(e),
            }
        }
        Err(Error::conflict(format!("the registry changed {MAX_ATTEMPTS} times while this change was tried")).with_hint("try again"))
    }

    /// Commits the events of the `next` catalog after a version of the log; a conflict where another commit was first.
    async fn write(&self, before: &Snapshot, next: Arc<CatalogSnapshot>, events: &RecordBatch, run_id: Option<String>) -> Result<()> {
        let adds = self.store.write_small_file(before, events).await?;
        let commit = Commit { adds: adds.clone(), run_id, ..Default::default() };
        match self.store.commit(before, commit).await {
            Ok(table) => {
                self.install(self.compacted(table).await, next, self.store.clock().now());
                Ok(())
            }
            Err(e) if e.kind() == Kind::Conflict => {
                self.store.discard(LOCATION, &adds).await;
                Err(e)
            }
            Err(e) => Err(e.context("registry")),
        }
    }

    async fn refresh(&self) -> Result<Arc<Loaded>> {
        let known = self.loaded.load_full();
        let checked_at = self.store.clock().now();
        let table = self.store.refresh(&known.table).await.map_err(|e| e.context("registry"))?;
        let catalog = if table.version() == known.table.version() {
            Arc::clone(&known.catalog)
        } else {
            Arc::new(fold(&self.store, &table, &known.catalog, None, known.table.files()).await?)
        };
        self.install(table, catalog, checked_at);
        Ok(self.loaded.load_full())
    }

    fn install(&self, table: Snapshot, catalog: Arc<CatalogSnapshot>, checked_at: Micros) {
        self.loaded.store(Arc::new(Loaded { table, catalog, checked_at }));
    }

    /// Housekeeping; its failure must not look like a failed commit.
    async fn compacted(&self, table: Snapshot) -> Snapshot {
        match self.store.compact(&table).await {
            Ok(Some(compacted)) => compacted,
            Ok(None) => table,
            Err(e) => {
                tracing::warn!(error = %e, "the registry was not compacted");
                table
            }
        }
    }
}

async fn create(store: &OfflineStore) -> Result<Snapshot> {
    let options = TableOptions {
        stats_columns: vec!["catalog_version".into(), "at".into()],
        comment: Some("Changes of the Remige catalog, one row each".into()),
        ..Default::default()
    };
    match store.create_table(LOCATION, event::schema(), options).await {
        Err(e) if e.kind() == Kind::AlreadyExists => store.snapshot(LOCATION, None).await,
        other => other,
    }
}

/// Folds the events after `base` (up to `until`) into it. Files in `known` hold none of them.
async fn fold(
    store: &OfflineStore,
    table: &Snapshot,
    base: &CatalogSnapshot,
    until: Option<u64>,
    known: &[Arc<DataFile>],
) -> Result<CatalogSnapshot> {
    let known: HashSet<&str> = known.iter().map(|f| f.path.as_str()).collect();
    let new: Vec<Arc<DataFile>> = table.files().iter().filter(|f| !known.contains(f.path.as_str())).cloned().collect();
    let events = read_events(store, table, &new, base.version + 1, until).await?;
    let mut catalog = base.clone();
    let mut ordinal = 0;
    for e in &events {
        let expected = if e.catalog_version == catalog.version { (e.catalog_version, ordinal + 1) } else { (catalog.version + 1, 0) };
        if (e.catalog_version, e.ordinal) != expected {
            return Err(damaged(store, format!("change {}.{} follows {}.{ordinal}", e.catalog_version, e.ordinal, catalog.version)));
        }
        let change = e.change()?;
        catalog
            .apply(change)
            .map_err(|why| damaged(store, format!("change {} of {} {}: {}", e.catalog_version, e.object_kind, e.name, why.message())))?;
        (catalog.version, catalog.at, ordinal) = (e.catalog_version, e.at, e.ordinal);
    }
    if let Some(wanted) = until.filter(|u| *u != catalog.version) {
        return Err(damaged(store, format!("change {wanted} is missing")));
    }
    Ok(catalog)
}

async fn read_events(store: &OfflineStore, table: &Snapshot, files: &[Arc<DataFile>], from: u64, until: Option<u64>) -> Result<Vec<Event>> {
    let wanted = files.iter().filter(|f| {
        let bound = |v: Option<&ScalarValue>| match v {
            Some(ScalarValue::Int64(Some(v))) => u64::try_from(*v).ok(),
            _ => None,
        };
        bound(f.max("catalog_version")).is_none_or(|max| max >= from)
            && bound(f.min("catalog_version")).is_none_or(|min| until.is_none_or(|u| min <= u))
    });
    let wanted: Vec<Arc<DataFile>> = wanted.cloned().collect();
    let mut events = vec![];
    for files in wanted.chunks(READ_AHEAD) {
        let read = store.read_small_files(table, files).await.map_err(|e| e.context("registry"))?;
        for (file, batches) in files.iter().zip(read) {
            for batch in &batches {
                event::from_batch(batch, &mut events).map_err(|why| damaged(store, format!("{LOCATION}/{} {why}", file.path)))?;
            }
        }
    }
    events.retain(|e| e.catalog_version >= from && until.is_none_or(|u| e.catalog_version <= u));
    events.sort_by_key(|e| (e.catalog_version, e.ordinal));
    Ok(events)
}

fn damaged(store: &OfflineStore, why: String) -> Error {
    Error::invalid(format!("the registry at {} is damaged: {why}", store.display_path(LOCATION)))
        .with_hint("restore its files; nothing was changed")
}
