//! A bounded cache of hot rows in front of another store.
//!
//! What it answers is at most `freshness` older than what the store behind it would answer, and never older than a
//! write of this process that has ended. Rows are kept per view and generation, in a *space*: another generation
//! gets another space, so that no answer mixes two.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::{Health, KeysOf, OnlineStore, OnlineView, Pointer, PutRow, PutStats, RowPage, RowsOf, WriteClaim};
use crate::clock::{Clock, Micros};
use crate::config::OnlineSettings;
use crate::error::{Error, Result};
use crate::telemetry;

#[cfg(test)]
mod tests;

/// What an entry takes beside the bytes of key and row.
const OVERHEAD: u64 = 160;
/// For the size of the cache's tables only.
const TYPICAL_ENTRY: usize = 512;

/// A store with a cache of hot rows in front of it; see [`super::connect`].
pub struct CachedStore {
    inner: Arc<dyn OnlineStore>,
    clock: Clock,
    freshness: Micros,
    rows: Cache<RowKey, Held, Weight>,
    views: RwLock<HashMap<OnlineView, Arc<Mutex<View>>>>,
    /// Orders reads by their beginning.
    reads: AtomicU64,
    spaces: AtomicU64,
}

/// What is known of one view.
#[derive(Debug, Default)]
struct View {
    space: u64,
    /// The generation that the rows of the space are of.
    generation: Option<u32>,
    known: Option<Known>,
    /// Counts writes of this process: rows that were read before the last one ended are not kept.
    writes: u64,
}

#[derive(Debug, Clone)]
struct Known {
    pointer: Pointer,
    watermark: Option<u64>,
    at: Moment,
}

/// When a read began.
#[derive(Debug, Clone, Copy)]
struct Moment {
    read: u64,
    time: Micros,
}

/// A row, or that there is none, as of a read.
#[derive(Debug, Clone)]
struct Held {
    row: Option<Bytes>,
    watermark: Option<u64>,
    at: Moment,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RowKey {
    space: u64,
    key: Box<[u8]>,
}

/// A `RowKey` that owns nothing; hashes alike.
#[derive(Hash)]
struct RowKeyRef<'a> {
    space: u64,
    key: &'a [u8],
}

impl Equivalent<RowKey> for RowKeyRef<'_> {
    fn equivalent(&self, other: &RowKey) -> bool {
        self.space == other.space && *self.key == *other.key
    }
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<RowKey, Held> for Weight {
    fn weight(&self, key: &RowKey, held: &Held) -> u64 {
        OVERHEAD + key.key.len() as u64 + held.row.as_ref().map_or(0, |r| r.len() as u64)
    }
}

impl std::fmt::Debug for CachedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedStore").field("inner", &self.inner).field("freshness", &self.freshness).finish_non_exhaustive()
    }
}

/// What the cache says to one request.
struct Looked {
    view: Arc<Mutex<View>>,
    writes: u64,
    known: Option<Known>,
    rows: Vec<Option<Held>>,
    /// Places in the request of keys that must be read.
    missing: Vec<usize>,
}

impl Looked {
    /// The generation of what the cache has given.
    fn generation(&self) -> Option<u32> {
        let used = self.missing.is_empty() || self.missing.len() < self.rows.len();
        self.known.as_ref().filter(|_| used).map(|k| k.pointer.generation)
    }
}

impl CachedStore {
    /// Holds at most `cache_bytes` of the settings, each row for at most their `cache_freshness`.
    pub fn new(inner: Arc<dyn OnlineStore>, settings: &OnlineSettings, clock: Clock) -> Self {
        let bytes = settings.cache_bytes;
        CachedStore {
            inner,
            clock,
            freshness: settings.cache_freshness,
            rows: Cache::with_weighter(bytes / TYPICAL_ENTRY, bytes as u64, Weight),
            views: RwLock::default(),
            reads: AtomicU64::new(0),
            spaces: AtomicU64::new(0),
        }
    }

    fn view(&self, view: &OnlineView) -> Arc<Mutex<View>> {
        if let Some(known) = self.views.read().get(view) {
            return Arc::clone(known);
        }
        let new = || Arc::new(Mutex::new(View { space: self.new_space(), ..View::default() }));
        Arc::clone(self.views.write().entry(view.clone()).or_insert_with(new))
    }

    fn new_space(&self) -> u64 {
        self.spaces.fetch_add(1, Ordering::Relaxed)
    }

    fn begin_read(&self) -> Moment {
        Moment { read: self.reads.fetch_add(1, Ordering::Relaxed), time: self.clock.now() }
    }

    fn is_fresh(&self, at: Moment, now: Micros) -> bool {
        // a clock that was set back makes nothing fresh
        now.checked_sub(at.time).is_some_and(|age| (0..self.freshness).contains(&age))
    }

    fn look(&self, request: &KeysOf<'_>, now: Micros) -> Looked {
        let view = self.view(request.view);
        let (space, writes, known) = {
            let v = view.lock();
            (v.space, v.writes, v.known.clone().filter(|k| self.is_fresh(k.at, now)))
        };
        let held = |key: &&[u8]| {
            known.as_ref()?;
            self.rows.get(&RowKeyRef { space, key }).filter(|h| self.is_fresh(h.at, now))
        };
        let rows: Vec<Option<Held>> = request.keys.iter().map(held).collect();
        let missing = rows.iter().enumerate().filter(|(_, r)| r.is_none()).map(|(i, _)| i).collect();
        Looked { view, writes, known, rows, missing }
    }

    /// Keeps what a read has brought, unless a write has ended or a later read has seen another generation since.
    fn keep<'a>(&self, looked: &Looked, at: Moment, keys: impl Iterator<Item = &'a [u8]>, answer: &RowsOf) {
        let mut left = None;
        {
            let mut v = looked.view.lock();
            let later = v.known.as_ref().is_some_and(|k| k.at.read > at.read);
            if v.writes != looked.writes {
                return;
            }
            let Some(pointer) = &answer.pointer else {
                if !later {
                    v.known = None;
                }
                return;
            };
            if v.generation != Some(pointer.generation) {
                if later {
                    return;
                }
                left = v.generation.map(|_| v.space);
                (v.space, v.generation) = (self.new_space(), Some(pointer.generation));
            }
            if !later {
                v.known = Some(Known { pointer: pointer.clone(), watermark: answer.watermark, at });
            }
            for (key, row) in keys.zip(&answer.rows) {
                let newer = |h: &Held| h.at.read > at.read;
                if !self.rows.peek(&RowKeyRef { space: v.space, key }).is_some_and(|h| newer(&h)) {
                    // a copy: the row may be a part of a whole reply, which would be held with it
                    let row = row.as_deref().map(Bytes::copy_from_slice);
                    let held = Held { row, watermark: answer.watermark, at };
                    self.rows.insert(RowKey { space: v.space, key: key.into() }, held);
                }
            }
        }
        if let Some(space) = left {
            self.empty(space);
        }
        self.measure();
    }

    fn empty(&self, space: u64) {
        self.rows.retain(|k, _| k.space != space);
        self.measure();
    }

    fn measure(&self) {
        metrics::gauge!(telemetry::ONLINE_CACHE_BYTES).set(self.rows.weight() as f64);
    }

    /// Reads whole requests past the cache, and keeps what comes.
    async fn read_all(&self, requests: &[KeysOf<'_>], which: &[usize], out: &mut [RowsOf]) -> Result<()> {
        let at = self.begin_read();
        let looked: Vec<Looked> = which.iter().map(|i| self.look(&KeysOf { view: requests[*i].view, keys: vec![] }, at.time)).collect();
        let asked: Vec<KeysOf<'_>> = which.iter().map(|i| requests[*i].clone()).collect();
        let answers = self.ask(&asked).await?;
        for ((i, looked), answer) in which.iter().zip(&looked).zip(answers) {
            self.keep(looked, at, requests[*i].keys.iter().copied(), &answer);
            out[*i] = answer;
        }
        Ok(())
    }

    async fn ask(&self, requests: &[KeysOf<'_>]) -> Result<Vec<RowsOf>> {
        let answers = self.inner.get_batch(requests).await?;
        let whole = answers.len() == requests.len() && answers.iter().zip(requests).all(|(a, r)| a.rows.len() == r.keys.len());
        if whole { Ok(answers) } else { Err(Error::internal(format!("the online store {} left keys out", self.describe()))) }
    }

    /// Begins a write of this process; what it changes is forgotten when it ends, however it ends.
    fn writing(&self, view: &OnlineView, what: Written) -> Writing<'_> {
        Writing { cache: self, view: self.view(view), what }
    }

    fn writing_rows(&self, view: &OnlineView, generation: u32, rows: &[PutRow]) -> Writing<'_> {
        // mostly rows of a generation that nobody reads yet: their keys need not be remembered
        let read = self.view(view).lock().generation == Some(generation);
        let keys = read.then(|| rows.iter().map(|r| r.key.clone()).collect());
        self.writing(view, Written::Rows { generation, keys })
    }
}

enum Written {
    /// Rows of a generation; `None`: any of them.
    Rows { generation: u32, keys: Option<Vec<Vec<u8>>> },
    /// Which generation is read, or whether one is.
    Pointer,
}

struct Writing<'a> {
    cache: &'a CachedStore,
    view: Arc<Mutex<View>>,
    what: Written,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut v = self.view.lock();
        v.writes += 1;
        match &self.what {
            Written::Rows { generation, .. } if v.generation != Some(*generation) => return,
            Written::Rows { keys: Some(keys), .. } => {
                for key in keys {
                    self.cache.rows.remove(&RowKeyRef { space: v.space, key });
                }
                return;
            }
            Written::Rows { keys: None, .. } | Written::Pointer => {}
        }
        let unknown = View { space: self.cache.new_space(), writes: v.writes, ..View::default() };
        let space = std::mem::replace(&mut *v, unknown).space;
        drop(v);
        self.cache.empty(space);
    }
}

#[async_trait]
impl OnlineStore for CachedStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn check(&self) -> Result<Vec<String>> {
        self.inner.check().await
    }

    fn forgets(&self) -> bool {
        self.inner.forgets()
    }

    async fn health(&self) -> Result<Option<Health>> {
        self.inner.health().await
    }

    async fn claim(&self, view: &OnlineView) -> Result<WriteClaim> {
        self.inner.claim(view).await
    }

    /// As it is now: writers decide by it.
    async fn pointer(&self, view: &OnlineView) -> Result<Option<Pointer>> {
        self.inner.pointer(view).await
    }

    async fn get_batch(&self, requests: &[KeysOf<'_>]) -> Result<Vec<RowsOf>> {
        let at = self.begin_read();
        let looked: Vec<Looked> = requests.iter().map(|r| self.look(r, at.time)).collect();
        let misses: usize = looked.iter().map(|l| l.missing.len()).sum();
        let hits = requests.iter().map(|r| r.keys.len()).sum::<usize>() - misses;
        metrics::counter!(telemetry::ONLINE_CACHE_HITS).increment(hits as u64);
        metrics::counter!(telemetry::ONLINE_CACHE_MISSES).increment(misses as u64);

        let asked: Vec<usize> = (0..requests.len()).filter(|i| looked[*i].known.is_none() || !looked[*i].missing.is_empty()).collect();
        let reads: Vec<KeysOf<'_>> = asked
            .iter()
            .map(|i| KeysOf { view: requests[*i].view, keys: looked[*i].missing.iter().map(|k| requests[*i].keys[*k]).collect() })
            .collect();
        let answers = if reads.is_empty() { vec![] } else { self.ask(&reads).await? };
        // the generations that each view's part of the answer would be of
        let mut seen: HashMap<&OnlineView, BTreeSet<Option<u32>>> = HashMap::new();
        for (request, looked) in requests.iter().zip(&looked) {
            seen.entry(request.view).or_default().extend(looked.generation().map(Some));
        }
        for (read, answer) in reads.iter().zip(&answers) {
            seen.entry(read.view).or_default().insert(answer.pointer.as_ref().map(|p| p.generation));
        }
        let mut out: Vec<RowsOf> = vec![];
        let mut answers = asked.iter().zip(reads.iter().zip(answers)).peekable();
        for (i, looked) in looked.iter().enumerate() {
            let answer = answers.next_if(|(asked, _)| **asked == i).map(|(_, (read, answer))| {
                self.keep(looked, at, read.keys.iter().copied(), &answer);
                answer
            });
            out.push(together(looked, answer));
        }
        let mixed: Vec<usize> = (0..requests.len()).filter(|i| seen.get(requests[*i].view).is_some_and(|g| g.len() > 1)).collect();
        if !mixed.is_empty() {
            // switched since some of these rows were read
            self.read_all(requests, &mixed, &mut out).await?;
        }
        Ok(out)
    }

    async fn begin_generation(&self, view: &OnlineView) -> Result<u32> {
        self.inner.begin_generation(view).await
    }

    async fn load(&self, view: &OnlineView, generation: u32, rows: Vec<PutRow>) -> Result<u64> {
        let _writing = self.writing_rows(view, generation, &rows);
        self.inner.load(view, generation, rows).await
    }

    async fn put(&self, view: &OnlineView, generation: u32, rows: Vec<PutRow>) -> Result<PutStats> {
        let _writing = self.writing_rows(view, generation, &rows);
        self.inner.put(view, generation, rows).await
    }

    async fn watermark(&self, view: &OnlineView, generation: u32) -> Result<Option<u64>> {
        self.inner.watermark(view, generation).await
    }

    async fn advance_watermark(&self, view: &OnlineView, generation: u32, from: Option<u64>, to: u64) -> Result<bool> {
        self.inner.advance_watermark(view, generation, from, to).await
    }

    async fn publish(&self, view: &OnlineView, expected: Option<u32>, pointer: &Pointer, limit: Option<u64>) -> Result<bool> {
        let _writing = self.writing(view, Written::Pointer);
        self.inner.publish(view, expected, pointer, limit).await
    }

    /// As it is now, also of the generation that is read.
    async fn peek(&self, view: &OnlineView, generation: u32, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.inner.peek(view, generation, keys).await
    }

    async fn scan_rows(&self, view: &OnlineView, generation: u32, from: Option<Vec<u8>>) -> Result<RowPage> {
        self.inner.scan_rows(view, generation, from).await
    }

    async fn views(&self, warehouse_id: &str) -> Result<Vec<u32>> {
        self.inner.views(warehouse_id).await
    }

    async fn generations(&self, view: &OnlineView) -> Result<Vec<u32>> {
        self.inner.generations(view).await
    }

    async fn drop_generation(&self, view: &OnlineView, generation: u32) -> Result<u64> {
        let _writing = self.writing(view, Written::Rows { generation, keys: None });
        self.inner.drop_generation(view, generation).await
    }

    async fn drop_view(&self, view: &OnlineView) -> Result<u64> {
        let writing = self.writing(view, Written::Pointer);
        let out = self.inner.drop_view(view).await;
        drop(writing);
        self.views.write().remove(view);
        out
    }

    async fn stats(&self, view: &OnlineView, generation: u32) -> Result<(u64, u64)> {
        self.inner.stats(view, generation).await
    }
}

/// What the cache and the store say together to one request. The rows are complete up to the least watermark.
fn together(looked: &Looked, answer: Option<RowsOf>) -> RowsOf {
    let (pointer, mut watermark, read) = match (answer, &looked.known) {
        (Some(a), _) => (a.pointer, a.watermark, a.rows),
        (None, Some(known)) => (Some(known.pointer.clone()), known.watermark, vec![]),
        (None, None) => (None, None, vec![]),
    };
    let mut read = read.into_iter();
    let mut rows = Vec::with_capacity(looked.rows.len());
    for held in &looked.rows {
        match held {
            Some(held) => {
                watermark = watermark.min(held.watermark);
                rows.push(held.row.clone());
            }
            None => rows.push(read.next().flatten()),
        }
    }
    RowsOf { pointer, watermark, rows }
}
