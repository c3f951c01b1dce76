//! MATERIALIZE: from Delta to the online store (storage.md, "Online rows").
//!
//! A full load fills a new generation from one version of the table and switches to it; everything else
//! applies the range of versions after the watermark, whole and in order. Both may be repeated at any time.

mod changes;
mod newest;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use self::changes::Touched;
use self::newest::{Expiry, Newest, Picked};
use super::read::scan;
use super::refresh::{recorded, takes_over};
use super::resolve::Resolver;
use super::{Services, boxed};
use crate::catalog::{CatalogChange, CatalogSnapshot, Run, VersionRef};
use crate::clock::Micros;
use crate::error::{Error, Kind, Result};
use crate::model::FeatureView;
use crate::model::codec::row::{ORDER_LEN, PREFIX_LEN, Prefix};
use crate::model::codec::{EncodedKey, row_schema};
use crate::plan::names::Names;
use crate::progress::Task;
use crate::store::offline::{Changed, Commit, Operation, Snapshot};
use crate::store::online::{KeysOf, OnlineStore, OnlineView, Pointer, PutKind, PutRow, supersedes};

const MAX_ATTEMPTS: u32 = 10;
/// Rows, or bytes, handed to the store at once.
const CHUNK_ROWS: usize = 10_000;
const CHUNK_BYTES: usize = 8 << 20;

/// Brings each view's online rows up to its newest Delta version; answers one row of `system.runs` each.
/// Stops at the first failure.
pub fn run<'a>(
    resolver: &'a Arc<Resolver>,
    views: &'a [Arc<FeatureView>],
    full: bool,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<Vec<Run>>> {
    Box::pin(async move {
        let mut out = vec![];
        for view in views {
            out.push(boxed(run_one(resolver, view, full, cx)).await?);
        }
        Ok(out)
    })
}

fn run_one<'a>(
    resolver: &'a Arc<Resolver>,
    view: &'a Arc<FeatureView>,
    full: bool,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<Run>> {
    Box::pin(async move {
        let services = &resolver.services;
        recorded(services, "materialize", view, |mut run| async move {
            let done = async {
                let mut job = Job::new(services, view, cx).await?;
                let version = job.bring_up(full, &|m| resolver.notice(m)).await?;
                if mark(services, view).await? {
                    resolver.notice(format!("{} means version v{} from now on", view.name, view.version));
                }
                Ok((version, job))
            };
            let (version, job) = boxed(done).await.map_err(|e: Error| e.context(format!("MATERIALIZE FEATURE VIEW {}", view.name)))?;
            run.delta_version = Some(version);
            (run.rows_read, run.rows_written, run.rows_skipped) = (job.read, job.written, job.skipped);
            job.progress.finish();
            Ok(run)
        })
        .await
    })
}

/// Applies what is not yet applied, for INSERT into an ONLINE push view; answers rows written. Leaves no
/// run behind.
pub fn apply<'a>(services: &'a Arc<Services>, view: &'a Arc<FeatureView>, cx: &'a Arc<TaskContext>) -> BoxFuture<'a, Result<u64>> {
    Box::pin(async move {
        let mut job = Job::new(services, view, cx).await?;
        job.serving = true;
        job.bring_up(false, &|m| tracing::info!(view = %view.name, "{m}")).await?;
        mark(services, view).await?;
        Ok(job.written)
    })
}

/// Notes that a version is online, and lets the bare name move on to it where nothing else is missing; true
/// where it moved.
fn mark<'a>(services: &'a Services, view: &'a FeatureView) -> BoxFuture<'a, Result<bool>> {
    Box::pin(async move {
        let (name, version) = (view.name.clone(), view.version);
        let moved = std::sync::atomic::AtomicBool::new(false);
        let needed = |c: &CatalogSnapshot| -> Result<Vec<CatalogChange>> {
            let series = c.feature_view_series(&name)?;
            let view = c.feature_view(&name, Some(version))?;
            let mut changes = vec![];
            if !series.materialized.contains(&version) {
                changes.push(CatalogChange::MarkMaterialized(VersionRef::from(view)));
            }
            let change = takes_over(series, view, series.filled.contains(&version), true);
            moved.store(change.is_some(), std::sync::atomic::Ordering::Relaxed);
            changes.extend(change);
            Ok(changes)
        };
        if needed(services.registry.snapshot().await?.as_ref())?.is_empty() {
            return Ok(false);
        }
        services.registry.commit(None, needed).await?;
        Ok(moved.load(std::sync::atomic::Ordering::Relaxed))
    })
}

/// Order among the writers of one view in this process: they need not do the same work twice, and no
/// INSERT may fall between a full load's last look at the table and its switch.
#[derive(Default)]
struct Gates {
    full: tokio::sync::Mutex<()>,
    apply: tokio::sync::Mutex<()>,
}

static GATES: LazyLock<Mutex<HashMap<OnlineView, Arc<Gates>>>> = LazyLock::new(Mutex::default);

fn gates(id: &OnlineView) -> Arc<Gates> {
    let mut all = GATES.lock();
    all.retain(|_, g| Arc::strong_count(g) > 1);
    Arc::clone(all.entry(id.clone()).or_default())
}

/// One view being brought up to date.
struct Job<'a> {
    services: &'a Services,
    view: &'a Arc<FeatureView>,
    cx: &'a Arc<TaskContext>,
    online: Arc<dyn OnlineStore>,
    id: OnlineView,
    gates: Arc<Gates>,
    /// Later rows are left out, by all steps alike.
    now: Micros,
    /// For an INSERT: no more than it needs.
    serving: bool,
    read: u64,
    written: u64,
    skipped: u64,
    progress: Task,
    _claim: crate::store::online::WriteClaim,
}

/// Where rows go.
#[derive(Clone, Copy)]
struct Target {
    generation: u32,
    asof: u64,
    /// `None`: blindly, into a generation that nobody reads.
    kind: Option<PutKind>,
    ttl: Option<Micros>,
    /// Whether lookups read the generation.
    current: bool,
}

/// What became of a range.
enum Applied {
    /// The generation holds everything that is due in this version.
    Done(u64),
    /// The range cannot be told, or is too large to compare.
    FullPass(&'static str),
}

impl<'a> Job<'a> {
    fn new(services: &'a Services, view: &'a Arc<FeatureView>, cx: &'a Arc<TaskContext>) -> BoxFuture<'a, Result<Self>> {
        Box::pin(async move {
            let online = services.online().await?;
            let id = services.online_view(view);
            let claim = online.claim(&id).await?;
            Ok(Job {
                services,
                view,
                cx,
                gates: gates(&id),
                online,
                id,
                now: services.clock.now(),
                serving: false,
                read: 0,
                written: 0,
                skipped: 0,
                progress: services.progress.start(&format!("MATERIALIZE {}", view.name), None),
                _claim: claim,
            })
        })
    }

    /// Answers the Delta version that is online now.
    fn bring_up<'s>(&'s mut self, full: bool, notice: &'s (dyn Fn(String) + Sync)) -> BoxFuture<'s, Result<u64>> {
        Box::pin(async move {
            let gates = Arc::clone(&self.gates);
            let mut forced = full;
            for _ in 0..MAX_ATTEMPTS {
                let pointer = self.online.pointer(&self.id).await?;
                let why = match &pointer {
                    Some(_) if forced => None,
                    Some(p) => match self.outdated(p) {
                        Some(why) => Some(why),
                        None => {
                            let _apply = gates.apply.lock().await;
                            let target =
                                Target { generation: p.generation, asof: 0, kind: None, ttl: longest(p.ttl, self.view.ttl), current: true };
                            let applied = self.catch_up(target).await;
                            if self.online.pointer(&self.id).await?.map(|now| now.generation) != Some(p.generation) {
                                // a full load elsewhere has switched meanwhile
                                continue;
                            }
                            match applied? {
                                Applied::Done(version) => {
                                    self.drop_older(p).await;
                                    return Ok(version);
                                }
                                Applied::FullPass(why) => Some(why),
                            }
                        }
                    },
                    None => None,
                };
                let _full = gates.full.lock().await;
                if !full && self.online.pointer(&self.id).await? != pointer {
                    // another statement has loaded it while this one waited
                    continue;
                }
                if let Some(why) = why {
                    notice(format!("feature view {}: {why}; all of it is loaded again", self.view.name));
                }
                match self.full_load(&gates).await {
                    Err(e) if e.kind() == Kind::Conflict => forced = full,
                    Ok(None) => forced = full,
                    other => return other.map(|v| v.unwrap_or_default()),
                }
            }
            Err(Error::conflict(format!("{MAX_ATTEMPTS} attempts lost against other writers")).with_hint("try again"))
        })
    }

    /// Why the current generation cannot be gone on with.
    fn outdated(&self, p: &Pointer) -> Option<&'static str> {
        let longer = match (p.ttl, self.view.ttl) {
            (Some(_), None) => true,
            (Some(old), Some(new)) => new > old,
            (None, _) => false,
        };
        if p.view_version != self.view.version || p.schema_id != row_schema(self.view).0 {
            return Some("its online rows are of another version");
        }
        (longer && !self.serving).then_some("its TTL got longer, and rows that the old one had let go are online again")
    }

    /// Loads a new generation and switches to it. `None`: the table changed too much meanwhile.
    fn full_load<'s>(&'s mut self, gates: &'s Gates) -> BoxFuture<'s, Result<Option<u64>>> {
        Box::pin(async move {
            let generation = self.online.begin_generation(&self.id).await?;
            let done = self.fill(generation, gates).await;
            if !matches!(done, Ok(Some(_)))
                && let Err(e) = self.online.drop_generation(&self.id, generation).await
            {
                tracing::warn!(view = %self.view.name, generation, error = %e, "an unfinished generation could not be dropped");
            }
            done
        })
    }

    fn fill<'s>(&'s mut self, generation: u32, gates: &'s Gates) -> BoxFuture<'s, Result<Option<u64>>> {
        Box::pin(async move {
            let expected = self.online.pointer(&self.id).await?;
            let snapshot = self.services.store.snapshot(&self.view.location, None).await?;
            let version = snapshot.version();
            let target = Target { generation, asof: version, kind: None, ttl: self.view.ttl, current: false };
            let rows = scan(self.services, self.view, &snapshot, None, None, true, self.cx).await?;
            let mut newest = Newest::new(self.view, snapshot.schema(), self.now)?;
            let before = self.written;
            self.pump(rows, &mut newest, Choice::All, target).await?;
            let loaded = self.written - before;
            let watermark = newest.held.map_or(version, |h| h.min(version));
            if !self.online.advance_watermark(&self.id, generation, None, watermark).await? {
                return Err(Error::conflict(format!("generation {generation} is written by somebody else")));
            }
            // INSERTs wait from here on, so that none of them is missed by the switch
            let _apply = gates.apply.lock().await;
            let reached = match self.services.store.snapshot(&self.view.location, None).await?.version() {
                newer if newer > version => match self.catch_up(target).await? {
                    Applied::Done(v) => v,
                    Applied::FullPass(_) => return Ok(None),
                },
                _ => version,
            };
            let pointer = Pointer {
                generation,
                schema_id: row_schema(self.view).0,
                view_version: self.view.version,
                delta_version: version,
                rows: loaded,
                published_at: self.services.clock.now(),
                ttl: self.view.ttl,
            };
            if !self.online.publish(&self.id, expected.map(|p| p.generation), &pointer).await? {
                return Err(Error::conflict("another full load was switched to meanwhile"));
            }
            self.drop_older(&pointer).await;
            Ok(Some(reached))
        })
    }

    /// Drops what no reader can need: generations older than the current one, once it has been current for
    /// the grace time. Newer ones may be loading in another process; the next full load leaves them behind.
    async fn drop_older(&self, current: &Pointer) {
        let grace = self.services.config.online_settings.generation_grace;
        let over = current.published_at.saturating_add(grace) <= self.services.clock.now();
        let dropped = async {
            let older: Vec<u32> = self.online.generations(&self.id).await?.into_iter().filter(|g| *g < current.generation).collect();
            // the last of them was current until now
            let keep = if over { 0 } else { 1 };
            for g in &older[..older.len().saturating_sub(keep)] {
                self.online.drop_generation(&self.id, *g).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(e) = boxed(dropped).await {
            tracing::warn!(view = %self.view.name, error = %e, "an old generation could not be dropped");
        }
    }

    /// Applies (watermark, newest version] to a generation.
    fn catch_up<'s>(&'s mut self, target: Target) -> BoxFuture<'s, Result<Applied>> {
        Box::pin(async move {
            let location = &self.view.location;
            let mut renumbered = false;
            for _ in 0..MAX_ATTEMPTS {
                let snapshot = self.services.store.snapshot(location, None).await?;
                let version = snapshot.version();
                let Some(from) = self.online.watermark(&self.id, target.generation).await? else {
                    return Ok(Applied::FullPass("the online store has lost its watermark"));
                };
                if from == version {
                    return Ok(Applied::Done(version));
                }
                if from > version {
                    return Ok(Applied::FullPass("the online rows are of a version that the table does not have"));
                }
                let changes = match self.services.store.changed_files(location, from, version).await? {
                    Changed::Gap { .. } => return Ok(Applied::FullPass("the log no longer tells what changed")),
                    Changed::Files(c) => c,
                };
                let target = Target { asof: version, ..target };
                let (held, came_due) = match self.range(&snapshot, changes, target).await {
                    Ok(Some(done)) => done,
                    Ok(None) => return Ok(Applied::FullPass("more rows changed than memory holds")),
                    Err(e) if e.kind() == Kind::NotFound => return Ok(Applied::FullPass("files that changed are gone")),
                    Err(e) => return Err(e),
                };
                if came_due && !renumbered {
                    // These rows were left out when this very version was applied, so that what is stored counts
                    // as its state: they need a version of their own.
                    let commit = Commit { operation: Operation::Append, run_id: Some(crate::clock::new_id()), ..Default::default() };
                    self.services.store.append(&snapshot, commit).await?;
                    renumbered = true;
                    continue;
                }
                let to = held.map_or(version, |h| h.min(version));
                if to > from && !self.online.advance_watermark(&self.id, target.generation, Some(from), to).await? {
                    continue;
                }
                if to < version || self.services.store.snapshot(location, None).await?.version() == version {
                    return Ok(Applied::Done(version));
                }
            }
            Err(Error::conflict(format!("the table changed {MAX_ATTEMPTS} times meanwhile")).with_hint("try again"))
        })
    }

    /// Applies one range. Answers the version that rows not yet due hold the watermark at, and whether rows
    /// were refused that came due since this version was applied; `None`: too much changed.
    #[allow(clippy::type_complexity)]
    fn range<'s>(
        &'s mut self,
        snapshot: &'s Snapshot,
        changes: crate::store::offline::Changes,
        target: Target,
    ) -> BoxFuture<'s, Result<Option<(Option<u64>, bool)>>> {
        Box::pin(async move {
            let Some(mut touched) = Touched::read(self.services, self.view, snapshot, changes, self.cx).await? else { return Ok(None) };
            let mut newest = Newest::new(self.view, snapshot.schema(), self.now)?;
            let mut due = false;
            let mut again = std::mem::take(&mut touched.again);
            let near = touched.near(self.view);
            if !touched.new.is_empty() {
                let rows = scan(self.services, self.view, snapshot, Some(touched.new.clone()), None, true, self.cx).await?;
                let offer = Target { kind: Some(PutKind::Offer), ..target };
                due |= self.pump(rows, &mut newest, Choice::Offers(&mut touched, &again), offer).await?;
            }
            if !again.is_empty() {
                let rows = scan(self.services, self.view, snapshot, None, near, true, self.cx).await?;
                let state = Target { kind: Some(PutKind::State), ..target };
                due |= self.pump(rows, &mut newest, Choice::Again(&mut again), state).await?;
            }
            Ok(Some((newest.held, due)))
        })
    }

    /// Hands the newest rows of a sorted stream to the store; whether rows that came due were refused.
    fn pump<'s>(
        &'s mut self,
        mut rows: SendableRecordBatchStream,
        newest: &'s mut Newest,
        mut choice: Choice<'s>,
        target: Target,
    ) -> BoxFuture<'s, Result<bool>> {
        Box::pin(async move {
            let expiry = Expiry { now: self.now, ttl: target.ttl, tombstones: self.services.config.online_settings.tombstone_retention };
            let mut chunk = Chunk::default();
            let mut due = false;
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                self.read += batch.num_rows() as u64;
                self.progress.advance(batch.num_rows() as u64);
                let keys = newest.layout().keys(&batch)?;
                let wanted = choice.wanted(newest, &batch, &keys)?;
                if let Some(picked) = newest.batch(&batch, keys, wanted.as_deref())? {
                    chunk.take(newest, picked, &mut choice, target, &expiry)?;
                }
                if chunk.is_full() {
                    due |= self.flush(&mut chunk, target).await?;
                }
                tokio::task::consume_budget().await;
            }
            if let Some(picked) = newest.finish() {
                chunk.take(newest, picked, &mut choice, target, &expiry)?;
            }
            if let Choice::Again(left) = choice {
                for key in left.drain() {
                    chunk.push(newest.tombstone(&key, target.asof, &expiry));
                    if chunk.is_full() {
                        due |= self.flush(&mut chunk, target).await?;
                    }
                }
            }
            due |= self.flush(&mut chunk, target).await?;
            Ok(due)
        })
    }

    fn flush<'s>(&'s mut self, chunk: &'s mut Chunk, target: Target) -> BoxFuture<'s, Result<bool>> {
        Box::pin(async move {
            let rows = std::mem::take(chunk).rows;
            if rows.is_empty() {
                return Ok(false);
            }
            let counter = metrics::counter!(crate::telemetry::MATERIALIZE_ROWS, "view" => self.view.name.to_string());
            if target.kind.is_none() {
                let n = self.online.load(&self.id, target.generation, rows).await?;
                self.written += n;
                counter.increment(n);
                return Ok(false);
            }
            let tried = target.current.then(|| rows.clone());
            let stats = self.online.put(&self.id, target.generation, rows).await?;
            self.written += stats.written;
            self.skipped += stats.skipped;
            counter.increment(stats.written);
            match tried {
                Some(rows) if stats.skipped > 0 => self.refused(&rows, target.asof).await,
                _ => Ok(false),
            }
        })
    }

    /// Whether the store refused one of the rows only because it holds the key's state of this version.
    async fn refused(&self, rows: &[PutRow], asof: u64) -> Result<bool> {
        let keys = rows.iter().map(|r| r.key.as_slice()).collect();
        let found = self.online.get_batch(&[KeysOf { view: &self.id, keys }]).await?;
        let stored = found.iter().flat_map(|f| &f.rows);
        for (new, stored) in rows.iter().zip(stored) {
            let Some(stored) = stored else { continue };
            if Prefix::read(stored)?.asof != asof || !differs(&new.row, stored) {
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
}

/// Whether two encoded rows differ in more than the version they are of.
fn differs(a: &[u8], b: &[u8]) -> bool {
    a.get(..ORDER_LEN) != b.get(..ORDER_LEN) || a.get(PREFIX_LEN..) != b.get(PREFIX_LEN..)
}

/// The greater limit; `None` is no limit.
fn longest(a: Option<Micros>, b: Option<Micros>) -> Option<Micros> {
    a.zip(b).map(|(a, b)| a.max(b))
}

/// Which rows of a stream count.
enum Choice<'c> {
    All,
    /// New rows of keys that lost none.
    Offers(&'c mut Touched, &'c HashSet<EncodedKey>),
    /// Rows of these keys. What is left of them at the end has no row.
    Again(&'c mut HashSet<EncodedKey>),
}

impl Choice<'_> {
    fn wanted(&mut self, newest: &Newest, batch: &RecordBatch, keys: &[Option<EncodedKey>]) -> Result<Option<Vec<bool>>> {
        match self {
            Choice::All => Ok(None),
            Choice::Offers(touched, again) => touched.offers(newest.layout(), batch, keys, again),
            Choice::Again(left) => Ok(Some(keys.iter().map(|k| k.as_ref().is_some_and(|k| left.contains(k))).collect())),
        }
    }
}

/// Rows on their way to the store.
#[derive(Default)]
struct Chunk {
    rows: Vec<PutRow>,
    bytes: usize,
}

impl Chunk {
    fn take(&mut self, newest: &Newest, picked: Picked, choice: &mut Choice<'_>, target: Target, expiry: &Expiry) -> Result<()> {
        for row in newest.encode(&picked, target.asof, target.kind.unwrap_or(PutKind::Offer), expiry)? {
            self.push(row);
        }
        if let Choice::Again(left) = choice {
            for key in &picked.keys {
                left.remove(key);
            }
        }
        Ok(())
    }

    fn push(&mut self, row: PutRow) {
        self.bytes += row.key.len() + row.row.len();
        self.rows.push(row);
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES
    }
}
