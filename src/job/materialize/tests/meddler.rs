//! A store between the loader and the real one, that does something at a certain moment.

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::error::Result;
use crate::store::online::{KeysOf, OnlineStore, OnlineView, Pointer, PutRow, PutStats, RowPage, RowsOf, WriteClaim};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    BeforeLoad,
    BeforePointer,
    BeforePublish,
    AfterPublish,
    BeforeScan,
}

pub type Act = BoxFuture<'static, ()>;

pub struct Meddler {
    pub store: Arc<dyn OnlineStore>,
    acts: Mutex<Vec<(Moment, Act)>>,
    /// Changes what is loaded.
    pub spoil: Option<fn(&mut Vec<PutRow>)>,
}

impl std::fmt::Debug for Meddler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddler")
    }
}

impl Meddler {
    pub fn acting(store: Arc<dyn OnlineStore>, when: Moment, act: impl Future<Output = ()> + Send + 'static) -> Arc<dyn OnlineStore> {
        Meddler::acting_twice(store, vec![(when, Box::pin(act))])
    }

    pub fn acting_twice(store: Arc<dyn OnlineStore>, acts: Vec<(Moment, Act)>) -> Arc<dyn OnlineStore> {
        Arc::new(Meddler { store, acts: Mutex::new(acts), spoil: None })
    }

    pub fn spoiling(store: Arc<dyn OnlineStore>, spoil: fn(&mut Vec<PutRow>)) -> Arc<dyn OnlineStore> {
        Arc::new(Meddler { store, acts: Mutex::default(), spoil: Some(spoil) })
    }

    async fn act(&self, now: Moment) {
        let act = {
            let mut acts = self.acts.lock();
            let at = acts.iter().position(|(when, _)| *when == now);
            at.map(|at| acts.remove(at))
        };
        if let Some((_, act)) = act {
            act.await;
        }
    }
}

#[async_trait]
impl OnlineStore for Meddler {
    fn describe(&self) -> String {
        self.store.describe()
    }
    fn forgets(&self) -> bool {
        self.store.forgets()
    }
    async fn check(&self) -> Result<Vec<String>> {
        self.store.check().await
    }
    async fn claim(&self, view: &OnlineView) -> Result<WriteClaim> {
        self.store.claim(view).await
    }
    async fn pointer(&self, view: &OnlineView) -> Result<Option<Pointer>> {
        self.act(Moment::BeforePointer).await;
        self.store.pointer(view).await
    }
    async fn get_batch(&self, requests: &[KeysOf<'_>]) -> Result<Vec<RowsOf>> {
        self.store.get_batch(requests).await
    }
    async fn begin_generation(&self, view: &OnlineView) -> Result<u32> {
        self.store.begin_generation(view).await
    }
    async fn load(&self, view: &OnlineView, generation: u32, mut rows: Vec<PutRow>) -> Result<u64> {
        self.act(Moment::BeforeLoad).await;
        let acknowledged = rows.len() as u64;
        if let Some(spoil) = self.spoil {
            spoil(&mut rows);
        }
        self.store.load(view, generation, rows).await.map(|_| acknowledged)
    }
    async fn put(&self, view: &OnlineView, generation: u32, rows: Vec<PutRow>) -> Result<PutStats> {
        self.store.put(view, generation, rows).await
    }
    async fn watermark(&self, view: &OnlineView, generation: u32) -> Result<Option<u64>> {
        self.store.watermark(view, generation).await
    }
    async fn advance_watermark(&self, view: &OnlineView, generation: u32, from: Option<u64>, to: u64) -> Result<bool> {
        self.store.advance_watermark(view, generation, from, to).await
    }
    async fn publish(&self, view: &OnlineView, expected: Option<u32>, pointer: &Pointer, limit: Option<u64>) -> Result<bool> {
        self.act(Moment::BeforePublish).await;
        let done = self.store.publish(view, expected, pointer, limit).await;
        if matches!(done, Ok(true)) {
            self.act(Moment::AfterPublish).await;
        }
        done
    }
    async fn peek(&self, view: &OnlineView, generation: u32, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.store.peek(view, generation, keys).await
    }
    async fn scan_rows(&self, view: &OnlineView, generation: u32, from: Option<Vec<u8>>) -> Result<RowPage> {
        self.act(Moment::BeforeScan).await;
        self.store.scan_rows(view, generation, from).await
    }
    async fn views(&self, warehouse_id: &str) -> Result<Vec<u32>> {
        self.store.views(warehouse_id).await
    }
    async fn generations(&self, view: &OnlineView) -> Result<Vec<u32>> {
        self.store.generations(view).await
    }
    async fn drop_generation(&self, view: &OnlineView, generation: u32) -> Result<u64> {
        self.store.drop_generation(view, generation).await
    }
    async fn drop_view(&self, view: &OnlineView) -> Result<u64> {
        self.store.drop_view(view).await
    }
    async fn stats(&self, view: &OnlineView, generation: u32) -> Result<(u64, u64)> {
        self.store.stats(view, generation).await
    }
}
