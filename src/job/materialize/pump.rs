//! Rows on their way from a sorted scan to the online store: the newest of each key, in chunks. One chunk is
//! written while the next is made ready.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::task::JoinSet;

use super::Job;
use super::changes::Touched;
use super::chooser::{Chooser, Picked};
use super::newest::Expiry;
use super::verify::Sample;
use crate::clock::Micros;
use crate::error::Result;
use crate::model::codec::EncodedKey;
use crate::model::codec::row::{ORDER_LEN, PREFIX_LEN, Prefix, is_tombstone};
use crate::store::online::{OnlineStore, OnlineView, PutKind, PutRow, supersedes};

/// Rows, or bytes, handed to the store at once. The embedded store writes each chunk to the disk for good.
const CHUNK_ROWS: usize = 50_000;
const CHUNK_BYTES: usize = 8 << 20;

/// Where rows go.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub generation: u32,
    pub asof: u64,
    /// `None`: blindly, into a generation that nobody reads.
    pub kind: Option<PutKind>,
    pub ttl: Option<Micros>,
    /// Whether rows count that are refused because the store holds their key's state of this version.
    pub told: bool,
}

/// Which rows of a stream count.
pub(super) enum Choice<'c> {
    All(Option<&'c mut Sample>),
    /// New rows of keys that lost none.
    Offers(&'c mut Touched, &'c HashSet<EncodedKey>),
    /// Rows of these keys. What is left of them at the end has no row.
    Again(&'c mut HashSet<EncodedKey>),
}

impl Choice<'_> {
    fn wanted(&mut self, newest: &Chooser, batch: &RecordBatch, keys: &[Option<EncodedKey>]) -> Result<Option<Vec<bool>>> {
        match self {
            Choice::All(_) => Ok(None),
            Choice::Offers(touched, again) => touched.offers(newest.layout(), batch, keys, again),
            Choice::Again(left) => Ok(Some(keys.iter().map(|k| k.as_ref().is_some_and(|k| left.contains(k))).collect())),
        }
    }
}

#[derive(Default)]
pub(super) struct Chunk {
    rows: Vec<PutRow>,
    bytes: usize,
}

impl Chunk {
    fn take(&mut self, newest: &Chooser, picked: Picked, choice: &mut Choice<'_>, target: Target, expiry: &Expiry) -> Result<()> {
        if let Choice::Again(left) = choice {
            for key in picked.keys() {
                left.remove(key);
            }
        }
        for row in newest.encode(picked, target.asof, target.kind.unwrap_or(PutKind::Offer), expiry)? {
            match choice {
                Choice::All(Some(sample)) => sample.see(&row),
                // what is stored under such a key is buried behind the pass
                Choice::All(None) if is_tombstone(&row.row) => continue,
                _ => {}
            }
            self.push(row);
        }
        Ok(())
    }

    pub fn push(&mut self, row: PutRow) {
        self.bytes += row.key.len() + row.row.len();
        self.rows.push(row);
    }

    pub fn is_full(&self) -> bool {
        self.rows.len() >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES
    }
}

/// What became of a chunk.
pub(super) struct Written {
    rows: u64,
    skipped: u64,
    /// Rows were refused that came due since this version was applied.
    due: bool,
}

/// The chunk that is being written; given up when dropped.
pub(super) type Sent = JoinSet<Result<Written>>;

impl Job<'_> {
    pub(super) fn expiry(&self, target: Target) -> Expiry {
        let tombstones = self.services.config.online_settings.tombstone_retention;
        let ttl = match &self.view.windowed {
            Some(windowed) => windowed.reach(),
            None => target.ttl,
        };
        Expiry { now: self.now, ttl, tombstones, forgets: self.online.forgets() }
    }

    /// Hands the newest rows of a sorted stream to the store; whether rows that came due were refused.
    pub(super) fn pump<'s>(
        &'s mut self,
        mut rows: SendableRecordBatchStream,
        newest: &'s mut Chooser,
        mut choice: Choice<'s>,
        target: Target,
    ) -> BoxFuture<'s, Result<bool>> {
        Box::pin(async move {
            let expiry = self.expiry(target);
            let (mut chunk, mut sent) = (Chunk::default(), Sent::new());
            let mut due = false;
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                self.read += batch.num_rows() as u64;
                self.progress.advance(batch.num_rows() as u64);
                let batch = newest.events(batch)?;
                let keys = newest.layout().keys(&batch)?;
                let wanted = choice.wanted(newest, &batch, &keys)?;
                if let Some(picked) = newest.batch(&batch, keys, wanted.as_deref())? {
                    chunk.take(newest, picked, &mut choice, target, &expiry)?;
                }
                if chunk.is_full() {
                    due |= self.send(&mut chunk, target, &mut sent).await?;
                }
                tokio::task::consume_budget().await;
            }
            if let Some(picked) = newest.finish()? {
                chunk.take(newest, picked, &mut choice, target, &expiry)?;
            }
            if let Choice::Again(left) = choice {
                for key in left.drain() {
                    chunk.push(newest.tombstone(&key, target.asof, &expiry));
                    if chunk.is_full() {
                        due |= self.send(&mut chunk, target, &mut sent).await?;
                    }
                }
            }
            due |= self.send(&mut chunk, target, &mut sent).await?;
            Ok(due | self.settle(&mut sent).await?)
        })
    }

    /// Begins to write a chunk when the one before it is written; whether that one met rows that came due.
    pub(super) fn send<'s>(&'s mut self, chunk: &'s mut Chunk, target: Target, sent: &'s mut Sent) -> BoxFuture<'s, Result<bool>> {
        Box::pin(async move {
            let due = self.settle(sent).await?;
            let rows = std::mem::take(chunk).rows;
            if !rows.is_empty() {
                sent.spawn(write(Arc::clone(&self.online), self.id.clone(), target, rows));
            }
            Ok(due)
        })
    }

    pub(super) async fn settle(&mut self, sent: &mut Sent) -> Result<bool> {
        let mut due = false;
        while let Some(done) = sent.join_next().await {
            let done = done??;
            self.written += done.rows;
            self.skipped += done.skipped;
            due |= done.due;
            metrics::counter!(crate::telemetry::MATERIALIZE_ROWS, "view" => self.view.name.to_string()).increment(done.rows);
        }
        Ok(due)
    }
}

async fn write(online: Arc<dyn OnlineStore>, id: OnlineView, target: Target, rows: Vec<PutRow>) -> Result<Written> {
    if target.kind.is_none() {
        let rows = online.load(&id, target.generation, rows).await?;
        return Ok(Written { rows, skipped: 0, due: false });
    }
    let tried = target.told.then(|| rows.clone());
    let stats = online.put(&id, target.generation, rows).await?;
    let due = match tried {
        Some(rows) if stats.skipped > 0 => refused(online.as_ref(), &id, &rows, target).await?,
        _ => false,
    };
    Ok(Written { rows: stats.written, skipped: stats.skipped, due })
}

/// Whether the store refused one of the rows only because it holds the key's state of this version.
async fn refused(online: &dyn OnlineStore, id: &OnlineView, rows: &[PutRow], target: Target) -> Result<bool> {
    let keys: Vec<&[u8]> = rows.iter().map(|r| r.key.as_slice()).collect();
    let found = online.peek(id, target.generation, &keys).await?;
    for (new, stored) in rows.iter().zip(&found) {
        let Some(stored) = stored else { continue };
        if Prefix::read(stored)?.asof != target.asof || !differs(&new.row, stored) {
            continue;
        }
        let mut later = new.row.clone();
        later[ORDER_LEN..PREFIX_LEN].copy_from_slice(&u64::MAX.to_be_bytes());
        if supersedes(new.kind, &later, Some(stored))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether two encoded rows differ in more than the version they are of.
fn differs(a: &[u8], b: &[u8]) -> bool {
    a.get(..ORDER_LEN) != b.get(..ORDER_LEN) || a.get(PREFIX_LEN..) != b.get(PREFIX_LEN..)
}
