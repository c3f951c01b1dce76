//! The online store: newest rows by key, in generations that are switched whole.
//!
//! A full load fills a new generation that nobody reads and `publish` switches to it with one
//! pointer; incremental loads change rows of the current generation in place by [`supersedes`]. Both
//! may be repeated, and two writers may meet, without harm.

use std::any::Any;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Micros};
use crate::config::{ONLINE_KINDS, OnlineKind, OnlineSettings, each_store};
use crate::error::{Error, Result};

mod cached;
#[cfg(test)]
pub(crate) mod conformance;
mod embedded;
mod embedded_files;
#[cfg(feature = "redis")]
mod redis;
mod rule;

#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
pub use cached::CachedStore;
#[cfg(test)]
pub(crate) use conformance::Place;
pub use embedded::EmbeddedStore;
pub use rule::supersedes;

/// One version of a feature view, as keys of a store name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OnlineView {
    pub warehouse_id: String,
    /// `FeatureView::online_id`; never used again.
    pub online_id: u32,
}

/// What readers read: which generation is current, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    pub generation: u32,
    pub schema_id: u32,
    pub view_version: u32,
    /// Delta version of the snapshot that the generation was loaded from.
    pub delta_version: u64,
    /// Rows loaded from that snapshot.
    pub rows: u64,
    pub published_at: Micros,
    /// The view's TTL when it was published: rows older than this may be gone.
    pub ttl: Option<Micros>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutKind {
    /// A row that came new: wins over an older row only.
    Offer,
    /// What the key's row is at this Delta version, newer or not; or that there is none (a tombstone).
    State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRow {
    /// `EncodedKey::stored`
    pub key: Vec<u8>,
    /// As `RowEncoder` makes it.
    pub row: Vec<u8>,
    pub kind: PutKind,
    /// From then on the store may forget the row.
    pub expire_at: Option<Micros>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutStats {
    pub written: u64,
    /// The stored row was as new or newer.
    pub skipped: u64,
}

/// Keys of one view to read.
#[derive(Debug, Clone)]
pub struct KeysOf<'a> {
    pub view: &'a OnlineView,
    pub keys: Vec<&'a [u8]>,
}

/// Rows of one view, one per key asked for, all of the generation that `pointer` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsOf {
    /// `None`: the view was never published; then all rows are `None`.
    pub pointer: Option<Pointer>,
    /// Delta version up to which the generation is complete.
    pub watermark: Option<u64>,
    pub rows: Vec<Option<Bytes>>,
}

impl RowsOf {
    fn unpublished(keys: usize) -> Self {
        RowsOf { pointer: None, watermark: None, rows: vec![None; keys] }
    }
}

/// Requests of one view that were answered from different generations: what a service reads twice must not be two things.
fn mixed(requests: &[KeysOf<'_>], found: &[RowsOf]) -> Vec<usize> {
    let generation = |i: usize| found[i].pointer.as_ref().map(|p| p.generation);
    let differs = |i: &usize| (0..requests.len()).any(|j| requests[*i].view == requests[j].view && generation(*i) != generation(j));
    (0..requests.len()).filter(differs).collect()
}

/// What the servers of a store report, summed over those that take writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// All of them answered. Where not, the figures are 0.
    pub connected: bool,
    /// Keys thrown out for lack of memory since the servers started.
    pub evicted_keys: u64,
    /// Bytes.
    pub used_memory: u64,
    /// Bytes; 0: without limit.
    pub maxmemory: u64,
}

/// Some rows of a generation, see [`OnlineStore::scan_rows`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowPage {
    /// Stored keys and rows, in no order; tombstones and damaged rows too.
    pub rows: Vec<(Vec<u8>, Bytes)>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<Vec<u8>>,
}

/// The right to write a view, until dropped.
pub struct WriteClaim(#[allow(dead_code)] Option<Arc<dyn Any + Send + Sync>>);

/// A key-value store that serves feature views. Errors of kind `Unavailable` or `Conflict` may pass.
#[async_trait]
pub trait OnlineStore: Send + Sync + Debug {
    /// Its URL without password.
    fn describe(&self) -> String;

    /// Whether it can be reached, within the timeout; answers warnings about how it is set up.
    async fn check(&self) -> Result<Vec<String>>;

    /// Whether it removes rows by itself when they are past [`PutRow::expire_at`], and takes none that are.
    fn forgets(&self) -> bool {
        false
    }

    /// What its servers report; `None` where there are none.
    async fn health(&self) -> Result<Option<Health>> {
        Ok(None)
    }

    /// Takes the right to write `view` in this process where only one process may (embedded); an error
    /// names the other. Writes take it by themselves; hold it where a later failure would be too late.
    async fn claim(&self, view: &OnlineView) -> Result<WriteClaim>;

    async fn pointer(&self, view: &OnlineView) -> Result<Option<Pointer>>;

    /// One batched read for all views; answers in the order of `requests`. Every row of a view is of
    /// the generation that was current when it was read.
    async fn get_batch(&self, requests: &[KeysOf<'_>]) -> Result<Vec<RowsOf>>;

    /// A new, empty, unpublished generation.
    async fn begin_generation(&self, view: &OnlineView) -> Result<u32>;

    /// Blind writes into an unpublished generation, fastest in key order; answers rows written.
    async fn load(&self, view: &OnlineView, generation: u32, rows: Vec<PutRow>) -> Result<u64>;

    /// Writes the rows that supersede what is stored. A dropped generation: `Conflict`.
    async fn put(&self, view: &OnlineView, generation: u32, rows: Vec<PutRow>) -> Result<PutStats>;

    async fn watermark(&self, view: &OnlineView, generation: u32) -> Result<Option<u64>>;

    /// Sets the watermark to `to` if it is `from` now and `to` is greater; false where it is not.
    async fn advance_watermark(&self, view: &OnlineView, generation: u32, from: Option<u64>, to: u64) -> Result<bool>;

    /// Switches to `pointer` if the current generation is `expected` and, where a `limit` is given, its watermark no
    /// greater; false where it is not.
    async fn publish(&self, view: &OnlineView, expected: Option<u32>, pointer: &Pointer, limit: Option<u64>) -> Result<bool>;

    /// Rows of a generation by key, published or not; `None` for those that are not there.
    async fn peek(&self, view: &OnlineView, generation: u32, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>>;

    /// Walks all rows of a generation: begin with `None`, go on with [`RowPage::next`]. A row that is written
    /// or removed meanwhile may come or not, and any may come twice.
    async fn scan_rows(&self, view: &OnlineView, generation: u32, from: Option<Vec<u8>>) -> Result<RowPage>;

    /// Online ids of all views of a warehouse that may hold space, ascending; without reading all of the store.
    async fn views(&self, warehouse_id: &str) -> Result<Vec<u32>>;

    /// Generations that hold space, published or not, ascending.
    async fn generations(&self, view: &OnlineView) -> Result<Vec<u32>>;

    /// Frees a generation that is not current; answers rows removed.
    async fn drop_generation(&self, view: &OnlineView, generation: u32) -> Result<u64>;

    /// Frees everything of the view and nothing else; answers rows removed.
    async fn drop_view(&self, view: &OnlineView) -> Result<u64>;

    /// Keys and bytes of a generation. Reads all of it in some stores.
    async fn stats(&self, view: &OnlineView, generation: u32) -> Result<(u64, u64)>;
}

/// What a store is opened with: its address, where the warehouse is a local directory that directory, settings, clock.
struct Opening<'a> {
    address: &'a str,
    warehouse: Option<&'a Path>,
    settings: &'a OnlineSettings,
    clock: Clock,
}

type Open = fn(Opening<'_>) -> Result<Arc<dyn OnlineStore>>;

macro_rules! openers {
    ($($kind:ident,)*) => {
        /// In the order of `ONLINE_KINDS`.
        const OPENERS: &[Open] = &[$(self::$kind::open),*];
    };
}
each_store!(openers);

#[cfg(not(feature = "redis"))]
mod redis {
    use super::{Arc, Error, OnlineStore, Opening, Result};

    pub(super) fn open(_: Opening<'_>) -> Result<Arc<dyn OnlineStore>> {
        Err(Error::invalid("this program was built without redis").with_hint("build it with --features redis"))
    }
}

/// Opens the store that an address names. Does not wait for a server: use [`OnlineStore::check`]; its warnings are
/// written to the log once, in the background.
async fn open(opening: Opening<'_>) -> Result<Arc<dyn OnlineStore>> {
    let found = OnlineKind::of(opening.address).and_then(|kind| ONLINE_KINDS.iter().zip(OPENERS).find(|(k, _)| k.name == kind.name));
    let Some((kind, open)) = found else {
        // Only the scheme is named: what follows it may hold a password.
        let scheme = opening.address.split_once(':').map_or(opening.address, |(s, _)| s);
        return Err(Error::invalid(format!("unknown online store {scheme:?}")).with_hint(format!("the stores are {}", OnlineKind::forms())));
    };
    tracing::debug!(store = kind.name, "opening the online store");
    let store = open(opening)?;
    if kind.is_server {
        let checked = Arc::clone(&store);
        tokio::spawn(async move {
            // Where it cannot be reached, whoever needs it will say so.
            for warning in checked.check().await.unwrap_or_default() {
                tracing::warn!("{warning}");
            }
        });
    }
    Ok(store)
}

/// As `open`, with a cache of hot rows in front of the store where the settings ask for one.
pub async fn connect(url: &str, warehouse_dir: Option<&Path>, settings: &OnlineSettings, clock: Clock) -> Result<Arc<dyn OnlineStore>> {
    let store = open(Opening { address: url, warehouse: warehouse_dir, settings, clock: clock.clone() }).await?;
    match settings.cache_bytes {
        0 => Ok(store),
        _ => Ok(Arc::new(CachedStore::new(store, settings, clock))),
    }
}
