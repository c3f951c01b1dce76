//! MATERIALIZE: from Delta to the online store (docs/storage.md, "Materialize").
//!
//! A full load fills a new generation from one version of the table and switches to it; everything else
//! applies the range of versions after the watermark, whole and in order. Both may be repeated at any time.

mod changes;
mod chooser;
mod in_place;
mod load;
mod newest;
mod pump;
mod records;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::Arc;

use datafusion::execution::TaskContext;
use futures::StreamExt;
use futures::future::BoxFuture;

use self::changes::Touched;
use self::chooser::Chooser;
use self::newest::Layout;
use self::pump::{Choice, Target};
use super::generations;
use super::versions::{each_version, takes_over};
use crate::catalog::{CatalogChange, CatalogSnapshot, Run};
use crate::clock::Micros;
use crate::error::{Error, Kind, Result};
use crate::model::codec::row_schema;
use crate::model::{FeatureView, ViewVersionId};
use crate::plan::command::Extent;
use crate::plan::names::Names;
use crate::progress::Task;
use crate::resolve::resolver::Resolver;
use crate::services::record::recorded;
use crate::services::view_locks::ViewLocks;
use crate::services::{Services, boxed};
use crate::store::offline::{Changed, Commit, Operation, Snapshot};
use crate::store::online::{OnlineStore, OnlineView, Pointer, PutKind};
use crate::table::read::scan;

const MAX_ATTEMPTS: u32 = 10;

/// Brings each view's online rows up to its newest Delta version; answers one row of `system.runs` each.
/// Stops at the first failure.
pub fn run<'a>(
    resolver: &'a Arc<Resolver>,
    views: &'a [Arc<FeatureView>],
    extent: Extent,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<Vec<Run>>> {
    Box::pin(async move { each_version(views, |view| boxed(run_one(resolver, view, extent, cx))).await })
}

fn run_one<'a>(
    resolver: &'a Arc<Resolver>,
    view: &'a Arc<FeatureView>,
    extent: Extent,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<Run>> {
    Box::pin(async move {
        let services = &resolver.services;
        recorded(services, "materialize", view, |mut run| async move {
            let done = async {
                let mut job = Job::new(services, view, cx).await?;
                if job.never_refreshed(&resolver.catalog).await? {
                    resolver.notice(format!(
                        "feature view {}: it was never refreshed, so there is nothing to bring online: \
                         REFRESH FEATURE VIEW {1}, then MATERIALIZE FEATURE VIEW {1}",
                        view.versioned_name(),
                        view.quoted_name()
                    ));
                }
                let version = job.bring_up(extent, &|m| resolver.notice(m)).await?;
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
        job.bring_up(Extent::Changes, &|m| tracing::info!(view = %view.name, "{m}")).await?;
        mark(services, view).await?;
        Ok(job.written)
    })
}

/// Notes that a version is online, and lets the bare name move on to it where nothing else is missing; true
/// where it moved.
fn mark<'a>(services: &'a Services, view: &'a FeatureView) -> BoxFuture<'a, Result<bool>> {
    Box::pin(async move {
        let (name, version, written) = (view.name.clone(), view.version, view.online_id);
        // the changes, and whether the name moves
        let needed = |c: &CatalogSnapshot| -> Result<(Vec<CatalogChange>, bool)> {
            let series = c.feature_view_series(&name)?;
            let view = c.feature_view(&name, Some(version))?;
            let mut changes = vec![];
            if view.online_id != written {
                // set OFFLINE and ONLINE meanwhile: nobody reads what was written
                return Ok((changes, false));
            }
            let filled = series.filled.contains(&version);
            // what waits for the name is online when it is so whole
            if !series.materialized.contains(&version) && (filled || version <= series.current) {
                changes.push(CatalogChange::MarkMaterialized(ViewVersionId::from(view)));
            }
            let change = takes_over(series, view, filled, true);
            let moves = change.is_some();
            changes.extend(change);
            Ok((changes, moves))
        };
        if needed(services.registry.snapshot().await?.as_ref())?.0.is_empty() {
            return Ok(false);
        }
        services.registry.commit(None, needed).await
    })
}

/// One view being brought up to date.
struct Job<'a> {
    services: &'a Services,
    view: &'a Arc<FeatureView>,
    cx: &'a Arc<TaskContext>,
    online: Arc<dyn OnlineStore>,
    id: OnlineView,
    locks: Arc<ViewLocks>,
    /// Later rows are left out. Taken anew after every look at the table: what others have stored and serve by then
    /// was not late for them.
    now: Micros,
    /// For an INSERT: no more than it needs.
    serving: bool,
    read: u64,
    written: u64,
    skipped: u64,
    progress: Task,
    _claim: crate::store::online::WriteClaim,
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
                locks: services.view_locks.of(&id),
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

    /// Whether no REFRESH has filled the view. `catalog`: of the statement.
    fn never_refreshed<'s>(&'s self, catalog: &'s CatalogSnapshot) -> BoxFuture<'s, Result<bool>> {
        Box::pin(async move {
            let filled = catalog.feature_view_series(&self.view.name).is_ok_and(|s| s.filled.contains(&self.view.version));
            if self.view.is_push() || filled {
                return Ok(false);
            }
            Ok(self.services.store.snapshot(&self.view.location, None).await?.files().is_empty())
        })
    }

    /// Answers the Delta version that is online now.
    fn bring_up<'s>(&'s mut self, extent: Extent, notice: &'s (dyn Fn(String) + Sync)) -> BoxFuture<'s, Result<u64>> {
        Box::pin(async move {
            let locks = Arc::clone(&self.locks);
            if extent == Extent::InPlace {
                self.in_place(&locks, notice).await?;
            }
            let mut forced = extent == Extent::Full;
            for _ in 0..MAX_ATTEMPTS {
                let pointer = self.online.pointer(&self.id).await?;
                let why = match &pointer {
                    Some(_) if forced => None,
                    Some(p) => match self.outdated(p) {
                        Some(why) => Some(why),
                        None => {
                            let _apply = locks.apply.lock().await;
                            let target =
                                Target { generation: p.generation, asof: 0, kind: None, ttl: longest(p.ttl, self.view.ttl), told: true };
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
                let _full = locks.full.lock().await;
                if !forced && self.online.pointer(&self.id).await? != pointer {
                    // another statement has loaded it while this one waited
                    continue;
                }
                if let Some(why) = why {
                    notice(format!("feature view {}: {why}; all of it is loaded again", self.view.name));
                }
                match self.load(&locks, &pointer, forced).await {
                    // What others have committed between the load's last look at the table and its switch is in
                    // neither generation: the next round applies it.
                    Ok(loaded) => forced &= !loaded,
                    Err(e) if e.kind() == Kind::Conflict => {}
                    Err(e) => return Err(e),
                }
            }
            Err(Error::conflict(format!("{MAX_ATTEMPTS} attempts lost against other writers")).with_hint("try again"))
        })
    }

    /// The newest version of the table, and the instant by which its rows are due.
    async fn look(&mut self, location: &str) -> Result<Snapshot> {
        let snapshot = self.services.store.snapshot(location, None).await?;
        self.now = self.services.clock.now();
        Ok(snapshot)
    }

    /// Drops generations that nobody reads any more; a failure to do so is none of the statement's.
    async fn drop_older(&self, current: &Pointer) {
        if let Err(e) = boxed(generations::older(self.services, self.online.as_ref(), &self.id, current)).await {
            tracing::warn!(view = %self.view.name, error = %e, "an old generation could not be dropped");
        }
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

    /// Applies (watermark, newest version] to a generation.
    fn catch_up<'s>(&'s mut self, target: Target) -> BoxFuture<'s, Result<Applied>> {
        Box::pin(async move {
            let location = &self.view.location;
            let mut renumbered = false;
            for _ in 0..MAX_ATTEMPTS {
                let snapshot = self.look(location).await?;
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
            let mut newest = Chooser::new(self.services, self.view, snapshot.schema(), self.now)?;
            let mut due = false;
            if self.view.windowed.is_some() && !self.note_keys_with_news(snapshot, &mut touched).await? {
                return Ok(None);
            }
            let mut again = std::mem::take(&mut touched.again);
            let near = touched.near(self.view);
            if !touched.new.is_empty() && self.view.windowed.is_none() {
                let rows = scan(self.services, self.view, snapshot, Some(touched.new.clone()), None, true, self.cx).await?;
                let offer = Target { kind: Some(PutKind::Offer), ..target };
                due |= self.pump(rows, &mut newest, Choice::Offers(&mut touched, &again), offer).await?;
            }
            if !again.is_empty() {
                let rows = scan(self.services, self.view, snapshot, None, near, true, self.cx).await?;
                let state = Target { kind: Some(PutKind::State), ..target };
                due |= self.pump(rows, &mut newest, Choice::Again(&mut again), state).await?;
            }
            Ok(Some((newest.held_below(&touched.new), due)))
        })
    }
}

impl Job<'_> {
    /// Marks all keys that have new events to be evaluated again; `false`: they are more than memory holds.
    fn note_keys_with_news<'s>(&'s self, snapshot: &'s Snapshot, touched: &'s mut Touched) -> BoxFuture<'s, Result<bool>> {
        Box::pin(async move {
            if touched.new.is_empty() {
                return Ok(true);
            }
            let layout = Layout::new(self.view, snapshot.schema())?;
            let mut rows = scan(self.services, self.view, snapshot, Some(touched.new.clone()), None, true, self.cx).await?;
            while let Some(batch) = rows.next().await {
                if !touched.note_news(&layout, &batch?)? {
                    return Ok(false);
                }
                tokio::task::consume_budget().await;
            }
            Ok(true)
        })
    }
}

/// The greater limit; `None` is no limit.
fn longest(a: Option<Micros>, b: Option<Micros>) -> Option<Micros> {
    a.zip(b).map(|(a, b)| a.max(b))
}
