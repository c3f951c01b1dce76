use std::sync::atomic::AtomicBool;

use tokio::sync::Semaphore;

use super::*;
use crate::clock::SECOND;
use crate::store::online::conformance::{Place, key, offer, pointer, published, values, view};
use crate::store::online::connect;

/// Notes what is read of the store behind the cache; can hold an answer back, and can fail writes.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn OnlineStore>,
    /// Keys of each request of each read.
    reads: Mutex<Vec<Vec<usize>>>,
    held_back: AtomicBool,
    arrived: Semaphore,
    let_go: Semaphore,
    fails: AtomicBool,
}

impl Watched {
    fn reads(&self) -> Vec<Vec<usize>> {
        std::mem::take(&mut *self.reads.lock())
    }
}

#[async_trait]
impl OnlineStore for Watched {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    async fn check(&self) -> Result<Vec<String>> {
        self.inner.check().await
    }
    async fn claim(&self, view: &OnlineView) -> Result<WriteClaim> {
        self.inner.claim(view).await
    }
    async fn pointer(&self, view: &OnlineView) -> Result<Option<Pointer>> {
        self.inner.pointer(view).await
    }
    async fn get_batch(&self, requests: &[KeysOf<'_>]) -> Result<Vec<RowsOf>> {
        self.reads.lock().push(requests.iter().map(|r| r.keys.len()).collect());
        let answer = self.inner.get_batch(requests).await;
        if self.held_back.load(Ordering::SeqCst) {
            self.arrived.add_permits(1);
            self.let_go.acquire().await.unwrap().forget();
        }
        answer
    }
    async fn begin_generation(&self, view: &OnlineView) -> Result<u32> {
        self.inner.begin_generation(view).await
    }
    async fn load(&self, view: &OnlineView, generation: u32, rows: Vec<PutRow>) -> Result<u64> {
        self.inner.load(view, generation, rows).await
    }
    async fn put(&self, view: &OnlineView, generation: u32, rows: Vec<PutRow>) -> Result<PutStats> {
        let done = self.inner.put(view, generation, rows).await;
        if self.fails.load(Ordering::SeqCst) { Err(Error::unavailable("the answer was lost")) } else { done }
    }
    async fn watermark(&self, view: &OnlineView, generation: u32) -> Result<Option<u64>> {
        self.inner.watermark(view, generation).await
    }
    async fn advance_watermark(&self, view: &OnlineView, generation: u32, from: Option<u64>, to: u64) -> Result<bool> {
        self.inner.advance_watermark(view, generation, from, to).await
    }
    async fn publish(&self, view: &OnlineView, expected: Option<u32>, pointer: &Pointer, limit: Option<u64>) -> Result<bool> {
        self.inner.publish(view, expected, pointer, limit).await
    }
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
        self.inner.drop_generation(view, generation).await
    }
    async fn drop_view(&self, view: &OnlineView) -> Result<u64> {
        self.inner.drop_view(view).await
    }
    async fn stats(&self, view: &OnlineView, generation: u32) -> Result<(u64, u64)> {
        self.inner.stats(view, generation).await
    }
}

/// A process with a cache, and another one, without, that writes to the same store.
struct World {
    cached: Arc<CachedStore>,
    watched: Arc<Watched>,
    other: Arc<dyn OnlineStore>,
    clock: Clock,
    _place: Place,
}

async fn world(bytes: usize) -> World {
    let place = Place::embedded();
    let other = place.open().await;
    let watched = Arc::new(Watched {
        inner: place.open().await,
        reads: Mutex::default(),
        held_back: AtomicBool::new(false),
        arrived: Semaphore::new(0),
        let_go: Semaphore::new(0),
        fails: AtomicBool::new(false),
    });
    let clock = Clock::fixed(1_000 * SECOND);
    let settings = OnlineSettings { cache_bytes: bytes, cache_freshness: SECOND, ..Default::default() };
    let cached = Arc::new(CachedStore::new(Arc::clone(&watched) as Arc<dyn OnlineStore>, &settings, clock.clone()));
    World { cached, watched, other, clock, _place: place }
}

/// Switches a view to a new generation with these rows: (key, value).
async fn switch(store: &dyn OnlineStore, view: &OnlineView, rows: &[(i64, i64)]) -> u32 {
    let expected = store.pointer(view).await.unwrap().map(|p| p.generation);
    let generation = store.begin_generation(view).await.unwrap();
    store.load(view, generation, rows.iter().map(|(k, v)| offer(*k, 1, 1, 1, *v)).collect()).await.unwrap();
    assert!(store.publish(view, expected, &pointer(generation), None).await.unwrap());
    generation
}

#[tokio::test]
async fn a_row_is_answered_until_it_is_as_old_as_allowed() {
    let (w, v) = (world(1 << 20).await, view(1));
    let g = switch(&*w.other, &v, &[(1, 10)]).await;
    assert_eq!(values(&*w.cached, &v, &[1, 2]).await, [Some(10), None]);
    w.other.put(&v, g, vec![offer(1, 2, 2, 2, 11), offer(2, 2, 2, 2, 20)]).await.unwrap();
    assert_eq!(w.watched.reads(), [[2]]);
    // Neither is read again: not the row, not its absence.
    w.clock.advance(SECOND - 1);
    assert_eq!(values(&*w.cached, &v, &[2, 1, 1]).await, [None, Some(10), Some(10)]);
    assert_eq!(w.watched.reads(), Vec::<Vec<usize>>::new());
    w.clock.advance(1);
    assert_eq!(values(&*w.cached, &v, &[1, 2]).await, [Some(11), Some(20)]);
    assert_eq!(w.watched.reads(), [[2]]);
    // A clock that is set back cannot tell how old a row is.
    w.clock.advance(-1);
    values(&*w.cached, &v, &[1]).await;
    assert_eq!(w.watched.reads(), [[1]]);
}

#[tokio::test]
async fn only_missing_keys_are_read() {
    let (w, x, y) = (world(1 << 20).await, view(1), view(2));
    switch(&*w.other, &x, &[(1, 10), (2, 20), (3, 30)]).await;
    switch(&*w.other, &y, &[(1, -1)]).await;
    values(&*w.cached, &x, &[1, 2]).await;
    assert_eq!(values(&*w.cached, &x, &[3, 1, 4, 2]).await, [Some(30), Some(10), None, Some(20)]);
    assert_eq!(w.watched.reads(), [[2], [2]]);
    // Several views: only those that lack something are asked for, in one read.
    let (one, two) = (key(1), key(2));
    let requests = [
        KeysOf { view: &x, keys: vec![one.stored(), two.stored()] },
        KeysOf { view: &y, keys: vec![two.stored(), one.stored()] },
        KeysOf { view: &view(3), keys: vec![one.stored()] },
    ];
    let first = w.cached.get_batch(&requests).await.unwrap();
    assert_eq!(w.watched.reads(), [[2, 1]]);
    assert_eq!(first, w.other.get_batch(&requests).await.unwrap());
    // What was never published is asked for again.
    assert_eq!(w.cached.get_batch(&requests).await.unwrap(), first);
    assert_eq!(w.watched.reads(), [[1]]);
}

#[tokio::test]
async fn an_answer_is_of_one_generation() {
    let (w, v) = (world(1 << 20).await, view(1));
    switch(&*w.other, &v, &[(1, 10), (2, 20), (3, 30)]).await;
    values(&*w.cached, &v, &[1, 2]).await;
    let second = switch(&*w.other, &v, &[(1, 11), (3, 31)]).await;
    assert_eq!(values(&*w.cached, &v, &[1, 2]).await, [Some(10), Some(20)]);
    w.watched.reads();
    // The read of key 3 tells of the switch: the others are read again.
    assert_eq!(values(&*w.cached, &v, &[1, 2, 3]).await, [Some(11), None, Some(31)]);
    assert_eq!(w.watched.reads(), [[1], [3]]);
    assert_eq!(w.cached.rows.len(), 3, "rows of the old generation are gone");
    // Also where one view is asked twice, and only one of the requests lacks a key.
    switch(&*w.other, &v, &[(1, 12), (4, 42)]).await;
    let keys = [key(1), key(4), key(9)];
    let requests = [KeysOf { view: &v, keys: vec![keys[0].stored()] }, KeysOf { view: &v, keys: vec![keys[1].stored()] }];
    let got = w.cached.get_batch(&requests).await.unwrap();
    assert!(got.iter().all(|r| r.pointer.as_ref().is_some_and(|p| p.generation > second)), "{got:?}");
    assert_eq!(got, w.other.get_batch(&requests).await.unwrap());
    // Dropped by another process.
    w.other.drop_view(&v).await.unwrap();
    let both = [KeysOf { view: &v, keys: vec![keys[0].stored(), keys[2].stored()] }];
    assert_eq!(w.cached.get_batch(&both).await.unwrap(), [RowsOf::unpublished(2)]);
}

#[tokio::test]
async fn writes_of_this_process_are_seen_at_once() {
    let (w, v) = (world(1 << 20).await, view(1));
    let g = switch(&*w.cached, &v, &[(1, 10), (2, 20)]).await;
    values(&*w.cached, &v, &[1, 2, 3]).await;
    w.cached.put(&v, g, vec![offer(3, 1, 1, 2, 30), offer(1, 2, 2, 2, 11)]).await.unwrap();
    w.watched.reads();
    assert_eq!(values(&*w.cached, &v, &[1, 2, 3]).await, [Some(11), Some(20), Some(30)]);
    assert_eq!(w.watched.reads(), [[2]], "what was not written is still known");
    // Rows of another generation touch nothing; its publication everything.
    let next = w.cached.begin_generation(&v).await.unwrap();
    w.cached.load(&v, next, vec![offer(1, 1, 1, 1, 99)]).await.unwrap();
    assert_eq!(values(&*w.cached, &v, &[1]).await, [Some(11)]);
    assert_eq!(w.watched.reads(), Vec::<Vec<usize>>::new());
    assert!(w.cached.publish(&v, Some(g), &pointer(next), None).await.unwrap());
    assert_eq!(values(&*w.cached, &v, &[1, 2]).await, [Some(99), None]);
    w.cached.drop_view(&v).await.unwrap();
    assert_eq!(values(&*w.cached, &v, &[1, 2]).await, [None, None]);
    assert_eq!(w.cached.rows.len(), 0);
    // A write whose answer was lost may have happened.
    let g = switch(&*w.cached, &v, &[(1, 10)]).await;
    values(&*w.cached, &v, &[1]).await;
    w.watched.fails.store(true, Ordering::SeqCst);
    assert!(w.cached.put(&v, g, vec![offer(1, 2, 2, 2, 12)]).await.is_err());
    assert_eq!(values(&*w.cached, &v, &[1]).await, [Some(12)]);
}

#[tokio::test]
async fn a_row_read_before_a_write_ended_is_not_kept() {
    let (w, v) = (world(1 << 20).await, view(1));
    let g = switch(&*w.cached, &v, &[(1, 10)]).await;
    for (write, want) in [(false, 10), (true, 11)] {
        w.watched.held_back.store(true, Ordering::SeqCst);
        let reader = {
            let (cached, v) = (Arc::clone(&w.cached), v.clone());
            tokio::spawn(async move { values(&*cached, &v, &[1, 7]).await })
        };
        w.watched.arrived.acquire().await.unwrap().forget();
        w.watched.held_back.store(false, Ordering::SeqCst);
        if write {
            w.cached.put(&v, g, vec![offer(1, 2, 2, 2, 11)]).await.unwrap();
        }
        w.watched.let_go.add_permits(1);
        // The reader began before the write ended, so the old row is right for it.
        assert_eq!(reader.await.unwrap(), [Some(10), None]);
        assert_eq!(values(&*w.cached, &v, &[1]).await, [Some(want)]);
        w.clock.advance(SECOND);
    }
}

#[tokio::test]
async fn a_late_answer_does_not_undo_a_switch() {
    let (w, v) = (world(1 << 20).await, view(1));
    switch(&*w.other, &v, &[(1, 10), (2, 20)]).await;
    w.watched.held_back.store(true, Ordering::SeqCst);
    let reader = {
        let (cached, v) = (Arc::clone(&w.cached), v.clone());
        tokio::spawn(async move { values(&*cached, &v, &[1, 2]).await })
    };
    w.watched.arrived.acquire().await.unwrap().forget();
    w.watched.held_back.store(false, Ordering::SeqCst);
    switch(&*w.other, &v, &[(1, 11)]).await;
    assert_eq!(values(&*w.cached, &v, &[1]).await, [Some(11)]);
    w.watched.let_go.add_permits(1);
    assert_eq!(reader.await.unwrap(), [Some(10), Some(20)]);
    assert_eq!(values(&*w.cached, &v, &[1, 2]).await, [Some(11), None]);
}

#[tokio::test]
async fn the_watermark_holds_for_every_row_of_an_answer() {
    let (w, v) = (world(1 << 20).await, view(1));
    let g = published(&*w.other, &v).await;
    assert!(w.other.advance_watermark(&v, g, None, 5).await.unwrap());
    values(&*w.cached, &v, &[1]).await;
    w.other.put(&v, g, vec![offer(1, 1, 1, 6, 10), offer(2, 1, 1, 6, 20)]).await.unwrap();
    assert!(w.other.advance_watermark(&v, g, Some(5), 6).await.unwrap());
    let keys = [key(1), key(2)];
    let of = |which: &[usize]| which.iter().map(|i| keys[*i].stored()).collect::<Vec<_>>();
    for (which, watermark) in [(vec![0, 1], 5), (vec![1], 6), (vec![0], 5)] {
        let got = w.cached.get_batch(&[KeysOf { view: &v, keys: of(&which) }]).await.unwrap();
        assert_eq!(got[0].watermark, Some(watermark), "{which:?}");
    }
}

#[tokio::test]
async fn memory_is_bounded() {
    const BYTES: usize = 256 << 10;
    let (w, v) = (world(BYTES).await, view(1));
    switch(&*w.other, &v, &(0..10_000).map(|k| (k, k)).collect::<Vec<_>>()).await;
    for from in (0..10_000).step_by(1_000) {
        let keys: Vec<i64> = (from..from + 1_000).collect();
        let want: Vec<_> = keys.iter().map(|k| Some(*k)).collect();
        assert_eq!(values(&*w.cached, &v, &keys).await, want);
    }
    let weight = w.cached.rows.weight();
    assert!(weight > 0 && weight <= BYTES as u64, "{weight}");
    assert!(w.cached.rows.len() < 10_000);
}

#[tokio::test]
async fn there_is_a_cache_only_where_one_is_asked_for() {
    let place = Place::embedded();
    let open = async |cache_bytes| {
        let settings = OnlineSettings { cache_bytes, ..Default::default() };
        connect(&place.url, Some(place.path()), &settings, Clock::system()).await.unwrap()
    };
    assert!(!format!("{:?}", open(0).await).starts_with("CachedStore"));
    assert!(format!("{:?}", open(1 << 20).await).starts_with("CachedStore"));
}
