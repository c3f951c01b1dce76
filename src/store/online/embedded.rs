//! The embedded store: one redb file per view and generation, in the warehouse directory.
//!
//! One process writes a view at a time, any number read it and see every commit of the writer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use redb::{
    Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};

use super::embedded_files::{self as files, FileLock, Opened, redb_error};
use super::{KeysOf, OnlineStore, OnlineView, Opening, Pointer, PutRow, PutStats, RowPage, RowsOf, WriteClaim, mixed, supersedes};
use crate::config::OnlineSettings;
use crate::error::{Error, Result};
use crate::model::codec::key;

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const WATERMARK: &str = "watermark";
const ATTEMPTS: usize = 20;
/// Rows in one page of a scan.
const PAGE: usize = 10_000;

#[derive(Debug)]
pub struct EmbeddedStore {
    root: PathBuf,
    cache: usize,
    wait: Duration,
    views: Mutex<HashMap<u32, Arc<View>>>,
}

/// What this process has open of one view.
#[derive(Debug)]
struct View {
    dir: PathBuf,
    cache: usize,
    wait: Duration,
    lock: Mutex<Weak<FileLock>>,
    /// Generations being filled stay open to write until they are published or dropped, others only
    /// while the view is claimed: opening is what a small write would pay most for.
    writers: Mutex<HashMap<u32, Writer>>,
    claims: AtomicUsize,
    readers: Mutex<HashMap<u32, Arc<Reader>>>,
}

#[derive(Debug)]
struct Writer {
    db: Database,
    while_claimed: bool,
}

/// A claim of one caller; the last one closes what was kept open for it.
struct Held {
    view: Arc<View>,
    _lock: Arc<FileLock>,
}

impl Held {
    fn new(view: &Arc<View>) -> Result<Held> {
        let _lock = view.claim()?;
        view.claims.fetch_add(1, Ordering::SeqCst);
        Ok(Held { view: Arc::clone(view), _lock })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.view.claims.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.view.writers.lock().retain(|_, w| !w.while_claimed);
        }
    }
}

struct Reader(ReadOnlyDatabase);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

/// As the list of stores opens it.
pub(super) fn open(opening: Opening<'_>) -> Result<Arc<dyn OnlineStore>> {
    match opening.warehouse {
        Some(dir) => Ok(Arc::new(EmbeddedStore::new(dir, opening.settings))),
        None => Err(Error::invalid("the embedded online store needs a warehouse in a local directory, this one is on an object store")
            .with_hint("use a server: --online redis://host:port")),
    }
}

impl EmbeddedStore {
    /// The store of the warehouse at `warehouse`; files are made by the first write.
    pub fn new(warehouse: &Path, settings: &OnlineSettings) -> Self {
        EmbeddedStore {
            root: warehouse.join("_online"),
            cache: settings.embedded.cache,
            wait: Duration::from_micros(settings.timeout.max(0) as u64),
            views: Mutex::default(),
        }
    }

    fn view(&self, view: &OnlineView) -> Arc<View> {
        let make = || View {
            dir: self.root.join(view.online_id.to_string()),
            cache: self.cache,
            wait: self.wait,
            lock: Mutex::default(),
            writers: Mutex::default(),
            claims: AtomicUsize::new(0),
            readers: Mutex::default(),
        };
        Arc::clone(self.views.lock().entry(view.online_id).or_insert_with(|| Arc::new(make())))
    }

    /// The rows of some of the requests.
    async fn read(&self, requests: &[KeysOf<'_>], which: &[usize]) -> Result<Vec<RowsOf>> {
        let of = |r: &KeysOf<'_>| (self.view(r.view), r.keys.iter().map(|k| k.to_vec()).collect::<Vec<_>>());
        let work: Vec<_> = which.iter().map(|i| of(&requests[*i])).collect();
        tokio::task::spawn_blocking(move || work.iter().map(|(view, keys)| view.get(keys)).collect()).await?
    }

    /// Runs file work on a thread that may block.
    async fn with<T: Send + 'static>(&self, view: &OnlineView, f: impl FnOnce(&View) -> Result<T> + Send + 'static) -> Result<T> {
        let view = self.view(view);
        tokio::task::spawn_blocking(move || f(&view)).await?
    }
}

impl View {
    fn claim(&self) -> Result<Arc<FileLock>> {
        let mut held = self.lock.lock();
        if let Some(lock) = held.upgrade() {
            return Ok(lock);
        }
        let lock = Arc::new(FileLock::acquire(&self.dir, self.wait)?);
        *held = Arc::downgrade(&lock);
        Ok(lock)
    }

    fn path(&self, generation: u32) -> PathBuf {
        files::generation_path(&self.dir, generation)
    }

    fn reader(&self, generation: u32) -> Result<Option<Arc<Reader>>> {
        let mut readers = self.readers.lock();
        if let Some(reader) = readers.get(&generation) {
            return Ok(Some(Arc::clone(reader)));
        }
        let path = self.path(generation);
        for _ in 0..ATTEMPTS {
            match files::open_reader(&path, self.cache)? {
                Opened::Gone => return Ok(None),
                Opened::NeedsRepair => {
                    // Only a writer may repair. If one lives it does so itself.
                    let _lock = self.claim()?;
                    if !self.writers.lock().contains_key(&generation) {
                        drop(files::open_writer(&path, self.cache)?);
                    }
                }
                Opened::Reader(db) => {
                    // Whoever still reads an older generation holds its own reference.
                    readers.clear();
                    let reader = Arc::new(Reader(db));
                    readers.insert(generation, Arc::clone(&reader));
                    return Ok(Some(reader));
                }
            }
        }
        Err(Error::unavailable(format!("online store file {} could not be repaired", path.display())))
    }

    fn get(&self, keys: &[Vec<u8>]) -> Result<RowsOf> {
        let mut last = None;
        for _ in 0..3 {
            let Some(pointer) = files::read_current(&self.dir)? else { return Ok(RowsOf::unpublished(keys.len())) };
            let generation = pointer.generation;
            // A file that is gone was dropped after a switch that we have not read yet.
            let Some(reader) = self.reader(generation)? else { continue };
            match read_rows(&reader.0, keys) {
                Ok((watermark, rows)) => return Ok(RowsOf { pointer: Some(pointer), watermark, rows }),
                Err(e) => {
                    // After a crash of the writer the handle is stale: open it anew.
                    self.readers.lock().remove(&generation);
                    last = Some(redb_error(&self.path(generation), e));
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::unavailable(format!("the file of the current generation in {} is missing", self.dir.display()))
                .with_hint("MATERIALIZE FEATURE VIEW … FULL writes a new one")
        }))
    }

    /// One durable write transaction on a generation; nothing is written where `f` fails.
    fn write<T>(&self, generation: u32, f: impl FnOnce(&WriteTransaction, &Path) -> Result<T>) -> Result<T> {
        let _lock = self.claim()?;
        let path = self.path(generation);
        let mut writers = self.writers.lock();
        let writer = match writers.entry(generation) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(slot) => match files::open_writer(&path, self.cache)? {
                Some(db) => slot.insert(Writer { db, while_claimed: true }),
                None => {
                    return Err(Error::conflict(format!("generation {generation} in {} was dropped", self.dir.display()))
                        .with_hint("run MATERIALIZE again"));
                }
            },
        };
        let out = commit(&writer.db, &path, f);
        if self.claims.load(Ordering::SeqCst) == 0 {
            writers.retain(|_, w| !w.while_claimed);
        }
        out
    }

    /// A generation as it is now, also one that is being filled; `None`: it was dropped.
    fn look<T>(&self, generation: u32, f: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<Option<T>> {
        let path = self.path(generation);
        let failed = |e| redb_error(&path, e);
        if let Some(w) = self.writers.lock().get(&generation) {
            return f(&w.db.begin_read().map_err(|e| failed(e.into()))?).map(Some).map_err(failed);
        }
        match files::open_reader(&path, self.cache)? {
            Opened::Reader(db) => f(&db.begin_read().map_err(|e| failed(e.into()))?).map(Some).map_err(failed),
            Opened::Gone => Ok(None),
            Opened::NeedsRepair => {
                Err(Error::unavailable(format!("online store file {} was not closed", path.display())).with_hint("run MATERIALIZE again"))
            }
        }
    }

    fn begin(&self) -> Result<u32> {
        let _lock = self.claim()?;
        let generation = files::take_number(&self.dir)?;
        let path = self.path(generation);
        let db = files::create(&path, self.cache)?;
        // Readers expect both tables.
        let txn = db.begin_write().map_err(|e| redb_error(&path, e))?;
        txn.open_table(ROWS).map_err(|e| redb_error(&path, e))?;
        txn.open_table(META).map_err(|e| redb_error(&path, e))?;
        txn.commit().map_err(|e| redb_error(&path, e))?;
        files::sync_dir(&self.dir)?;
        self.writers.lock().insert(generation, Writer { db, while_claimed: false });
        Ok(generation)
    }

    fn publish(&self, expected: Option<u32>, pointer: &Pointer, limit: Option<u64>) -> Result<bool> {
        let _lock = self.claim()?;
        if files::read_current(&self.dir)?.map(|p| p.generation) != expected {
            return Ok(false);
        }
        // one that cannot be read any more is what a full load repairs
        let watermark = |served| self.look(served, watermark_of).ok().flatten().flatten();
        if limit.is_some() && expected.and_then(watermark) > limit {
            return Ok(false);
        }
        let path = self.path(pointer.generation);
        if !path.exists() {
            return Err(Error::conflict(format!("generation {} in {} was dropped", pointer.generation, self.dir.display())));
        }
        if let Some(w) = self.writers.lock().remove(&pointer.generation) {
            w.db.close().map_err(|e| redb_error(&path, e))?;
        }
        files::write_current(&self.dir, pointer)?;
        Ok(true)
    }

    fn remove(&self, generation: u32) -> Result<u64> {
        self.writers.lock().remove(&generation);
        self.readers.lock().remove(&generation);
        let path = self.path(generation);
        let rows = match files::open_reader(&path, self.cache) {
            Ok(Opened::Gone) => return Ok(0),
            Ok(Opened::Reader(db)) => count(&db).unwrap_or(0),
            // Never read, never finished, or damaged: it goes all the same, and what is in it does not count.
            Ok(Opened::NeedsRepair) | Err(_) => 0,
        };
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(files::at(&path)(e)),
            _ => Ok(rows),
        }
    }

    fn stats(&self, generation: u32) -> Result<(u64, u64)> {
        let path = self.path(generation);
        match files::open_reader(&path, self.cache)? {
            Opened::Reader(db) => {
                let bytes = std::fs::metadata(&path).map_err(files::at(&path))?.len();
                Ok((count(&db).map_err(|e| redb_error(&path, e))?, bytes))
            }
            Opened::Gone => Ok((0, 0)),
            Opened::NeedsRepair => Err(Error::unavailable(format!("online store file {} was not closed", path.display()))),
        }
    }
}

/// One durable write transaction.
fn commit<T>(db: &Database, path: &Path, f: impl FnOnce(&WriteTransaction, &Path) -> Result<T>) -> Result<T> {
    let txn = db.begin_write().map_err(|e| redb_error(path, e))?;
    let out = f(&txn, path)?;
    txn.commit().map_err(|e| redb_error(path, e))?;
    Ok(out)
}

fn page(txn: &ReadTransaction, from: Option<Vec<u8>>) -> Result<RowPage, redb::Error> {
    let table = txn.open_table(ROWS)?;
    let mut page = RowPage::default();
    let first = from.map_or(Bound::Unbounded, Bound::Included);
    for row in table.range::<&[u8]>((first.as_ref().map(Vec::as_slice), Bound::Unbounded))? {
        let (key, row) = row?;
        if page.rows.len() == PAGE {
            page.next = Some(key.value().to_vec());
            break;
        }
        page.rows.push((key.value().to_vec(), Bytes::copy_from_slice(row.value())));
    }
    Ok(page)
}

fn count(db: &ReadOnlyDatabase) -> Result<u64, redb::Error> {
    Ok(db.begin_read()?.open_table(ROWS)?.len()?)
}

/// Watermark and rows of one snapshot.
fn read_rows(db: &ReadOnlyDatabase, keys: &[Vec<u8>]) -> Result<(Option<u64>, Vec<Option<Bytes>>), redb::Error> {
    let txn = db.begin_read()?;
    Ok((watermark_of(&txn)?, rows_at(&txn, keys)?))
}

fn watermark_of(txn: &ReadTransaction) -> Result<Option<u64>, redb::Error> {
    Ok(txn.open_table(META)?.get(WATERMARK)?.map(|v| v.value()))
}

fn rows_at(txn: &ReadTransaction, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, redb::Error> {
    let table = txn.open_table(ROWS)?;
    keys.iter().map(|k| Ok(table.get(k.as_slice())?.map(|v| Bytes::copy_from_slice(v.value())))).collect()
}

#[async_trait]
impl OnlineStore for EmbeddedStore {
    fn describe(&self) -> String {
        format!("embedded ({})", self.root.display())
    }

    async fn check(&self) -> Result<Vec<String>> {
        tokio::fs::create_dir_all(&self.root).await.map_err(files::at(&self.root))?;
        Ok(vec![])
    }

    async fn claim(&self, view: &OnlineView) -> Result<WriteClaim> {
        let view = self.view(view);
        let held = tokio::task::spawn_blocking(move || Held::new(&view)).await??;
        Ok(WriteClaim(Some(Arc::new(held))))
    }

    async fn pointer(&self, view: &OnlineView) -> Result<Option<Pointer>> {
        self.with(view, |v| files::read_current(&v.dir)).await
    }

    async fn get_batch(&self, requests: &[KeysOf<'_>]) -> Result<Vec<RowsOf>> {
        let mut found = self.read(requests, &(0..requests.len()).collect::<Vec<_>>()).await?;
        for _ in 0..ATTEMPTS {
            let again = mixed(requests, &found);
            if again.is_empty() {
                return Ok(found);
            }
            for (at, rows) in again.iter().zip(self.read(requests, &again).await?) {
                found[*at] = rows;
            }
        }
        Err(Error::conflict(format!("generations in {} change faster than they can be read", self.root.display())).with_hint("try again"))
    }

    async fn begin_generation(&self, view: &OnlineView) -> Result<u32> {
        self.with(view, View::begin).await
    }

    async fn load(&self, view: &OnlineView, generation: u32, mut rows: Vec<PutRow>) -> Result<u64> {
        self.with(view, move |v| {
            rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            v.write(generation, |txn, path| {
                let mut table = txn.open_table(ROWS).map_err(|e| redb_error(path, e))?;
                for r in &rows {
                    table.insert(r.key.as_slice(), r.row.as_slice()).map_err(|e| redb_error(path, e))?;
                }
                Ok(rows.len() as u64)
            })
        })
        .await
    }

    async fn put(&self, view: &OnlineView, generation: u32, rows: Vec<PutRow>) -> Result<PutStats> {
        self.with(view, move |v| {
            v.write(generation, |txn, path| {
                let mut table = txn.open_table(ROWS).map_err(|e| redb_error(path, e))?;
                let mut stats = PutStats::default();
                for r in &rows {
                    let wins = {
                        let stored = table.get(r.key.as_slice()).map_err(|e| redb_error(path, e))?;
                        supersedes(r.kind, &r.row, stored.as_ref().map(|s| s.value()))
                            .map_err(|e| e.context(format!("key {}", key::display(&r.key))))?
                    };
                    if wins {
                        table.insert(r.key.as_slice(), r.row.as_slice()).map_err(|e| redb_error(path, e))?;
                        stats.written += 1;
                    } else {
                        stats.skipped += 1;
                    }
                }
                Ok(stats)
            })
        })
        .await
    }

    async fn watermark(&self, view: &OnlineView, generation: u32) -> Result<Option<u64>> {
        self.with(view, move |v| {
            let path = v.path(generation);
            match files::open_reader(&path, v.cache)? {
                Opened::Reader(db) => Ok(read_rows(&db, &[]).map_err(|e| redb_error(&path, e))?.0),
                Opened::Gone => Ok(None),
                Opened::NeedsRepair => v.write(generation, |txn, path| {
                    let table = txn.open_table(META).map_err(|e| redb_error(path, e))?;
                    let value = table.get(WATERMARK).map_err(|e| redb_error(path, e))?;
                    Ok(value.map(|v| v.value()))
                }),
            }
        })
        .await
    }

    async fn advance_watermark(&self, view: &OnlineView, generation: u32, from: Option<u64>, to: u64) -> Result<bool> {
        self.with(view, move |v| {
            v.write(generation, |txn, path| {
                let mut table = txn.open_table(META).map_err(|e| redb_error(path, e))?;
                let now = table.get(WATERMARK).map_err(|e| redb_error(path, e))?.map(|v| v.value());
                let moves = now == from && from.is_none_or(|f| to > f);
                if moves {
                    table.insert(WATERMARK, to).map_err(|e| redb_error(path, e))?;
                }
                Ok(moves)
            })
        })
        .await
    }

    async fn publish(&self, view: &OnlineView, expected: Option<u32>, pointer: &Pointer, limit: Option<u64>) -> Result<bool> {
        let pointer = pointer.clone();
        self.with(view, move |v| v.publish(expected, &pointer, limit)).await
    }

    async fn peek(&self, view: &OnlineView, generation: u32, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|k| k.to_vec()).collect();
        self.with(view, move |v| Ok(v.look(generation, |txn| rows_at(txn, &keys))?.unwrap_or_else(|| vec![None; keys.len()]))).await
    }

    async fn scan_rows(&self, view: &OnlineView, generation: u32, from: Option<Vec<u8>>) -> Result<RowPage> {
        self.with(view, move |v| Ok(v.look(generation, |txn| page(txn, from))?.unwrap_or_default())).await
    }

    async fn views(&self, _warehouse_id: &str) -> Result<Vec<u32>> {
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || files::views(&root)).await?
    }

    async fn generations(&self, view: &OnlineView) -> Result<Vec<u32>> {
        self.with(view, |v| files::list(&v.dir)).await
    }

    async fn drop_generation(&self, view: &OnlineView, generation: u32) -> Result<u64> {
        self.with(view, move |v| {
            let _lock = v.claim()?;
            if files::read_current(&v.dir)?.is_some_and(|p| p.generation == generation) {
                return Err(Error::invalid(format!("generation {generation} is current")).with_hint("publish another one first"));
            }
            v.remove(generation)
        })
        .await
    }

    async fn drop_view(&self, view: &OnlineView) -> Result<u64> {
        let out = self
            .with(view, |v| {
                if !v.dir.exists() {
                    return Ok(0);
                }
                let _lock = v.claim()?;
                let current = v.dir.join("CURRENT");
                if current.exists() {
                    std::fs::remove_file(&current).map_err(files::at(&current))?;
                }
                let mut rows = 0;
                for generation in files::list(&v.dir)? {
                    rows += v.remove(generation)?;
                }
                std::fs::remove_dir_all(&v.dir).map_err(files::at(&v.dir))?;
                Ok(rows)
            })
            .await;
        self.views.lock().remove(&view.online_id);
        out
    }

    async fn stats(&self, view: &OnlineView, generation: u32) -> Result<(u64, u64)> {
        self.with(view, move |v| v.stats(generation)).await
    }
}
