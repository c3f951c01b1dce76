//! Full loads: a new generation is filled beside what is served, verified, and switched to.

use std::time::Duration;

use futures::future::BoxFuture;

use super::chooser::Chooser;
use super::pump::{Choice, Target};
use super::verify::Sample;
use super::{Applied, Job, MAX_ATTEMPTS};
use crate::clock::{self, stopwatch};
use crate::error::{Error, Result};
use crate::model::codec::row_schema;
use crate::services::boxed;
use crate::services::lease::{load_lease, while_held};
use crate::services::view_locks::ViewLocks;
use crate::store::online::Pointer;
use crate::table::read::scan;

/// How often a load that another process has begun is looked at.
const POLL: Duration = Duration::from_millis(200);
/// Between attempts to switch while another process goes on serving newer rows.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

impl Job<'_> {
    /// Loads everything while no other process does. Whoever has the lease saves the others the work;
    /// generations keep them apart. `false`: the table changed too much meanwhile, or, where `wanted` is
    /// not set, somebody else has loaded it.
    pub(super) fn load<'s>(&'s mut self, locks: &'s ViewLocks, seen: &'s Option<Pointer>, wanted: bool) -> BoxFuture<'s, Result<bool>> {
        Box::pin(async move {
            let services = self.services;
            let lease = load_lease(&self.id);
            let holder = async || Ok::<_, Error>(services.store.lease_holder(&lease).await?.unwrap_or_else(|| "another process".into()));
            let mut waiting = None;
            let watch = stopwatch();
            let patience = Duration::from_micros(services.config.online_settings.timeout.max(0) as u64);
            loop {
                let done = while_held(services, &lease, boxed(self.full_load(locks))).await?;
                if let Some(done) = done {
                    return Ok(done);
                }
                if waiting.is_none() {
                    let who = holder().await?;
                    tracing::info!(view = %self.view.name, holder = who, "waiting for another load of the feature view");
                    waiting = Some(services.progress.start(&format!("waiting for {who}, which loads {}", self.view.name), None));
                }
                if self.serving && watch.elapsed() > patience {
                    let who = holder().await?;
                    return Err(Error::unavailable(format!("feature view {} is being loaded by {who}", self.view.name))
                        .with_hint("what is stored is served once that load is done"));
                }
                clock::sleep(POLL).await;
                if !wanted && self.online.pointer(&self.id).await? != *seen {
                    return Ok(false);
                }
            }
        })
    }

    fn full_load<'s>(&'s mut self, locks: &'s ViewLocks) -> BoxFuture<'s, Result<bool>> {
        Box::pin(async move {
            let services = self.services;
            let closed = |_| Error::internal("full loads take no more turns");
            let _turn = match services.loads.try_acquire() {
                Ok(turn) => turn,
                Err(_) => {
                    let _shown = services.progress.start(&format!("MATERIALIZE {}: waiting for other loads", self.view.name), None);
                    services.loads.acquire().await.map_err(closed)?
                }
            };
            let generation = self.online.begin_generation(&self.id).await?;
            let done = boxed(self.fill(generation, locks)).await;
            if !matches!(done, Ok(true))
                && let Err(e) = self.online.drop_generation(&self.id, generation).await
            {
                tracing::warn!(view = %self.view.name, generation, error = %e, "an unfinished generation could not be dropped");
            }
            done
        })
    }

    /// `false`: more changed meanwhile than can be caught up with.
    fn fill<'s>(&'s mut self, generation: u32, locks: &'s ViewLocks) -> BoxFuture<'s, Result<bool>> {
        Box::pin(async move {
            let expected = self.online.pointer(&self.id).await?;
            let snapshot = self.look(&self.view.location).await?;
            let version = snapshot.version();
            let target = Target { generation, asof: version, kind: None, ttl: self.view.ttl, told: true };
            let rows = scan(self.services, self.view, &snapshot, None, None, true, self.cx).await?;
            let mut newest = Chooser::new(self.services, self.view, snapshot.schema(), self.now)?;
            let mut sample = Sample::new();
            let before = self.written;
            self.pump(rows, &mut newest, Choice::All(Some(&mut sample)), target).await?;
            let loaded = self.written - before;
            // the clock of the store may be ahead of ours
            let ahead = self.services.config.clock_tolerance;
            sample.compare(self.online.as_ref(), &self.id, generation, || self.services.clock.now().saturating_add(ahead)).await?;
            let watermark = newest.held_below(snapshot.files()).map_or(version, |h| h.min(version));
            if !self.online.advance_watermark(&self.id, generation, None, watermark).await? {
                return Err(Error::conflict(format!("generation {generation} is written by somebody else")));
            }
            // INSERTs of this process wait from here on, so that none of them is missed by the switch
            let _apply = locks.apply.lock().await;
            let pointer = Pointer {
                generation,
                schema_id: row_schema(self.view).0,
                view_version: self.view.version,
                delta_version: version,
                rows: loaded,
                published_at: self.services.clock.now(),
                ttl: self.view.ttl,
            };
            self.switch(expected.map(|p| p.generation), pointer, target).await
        })
    }

    /// Catches up and switches; `false`: more changed meanwhile than can be caught up with.
    ///
    /// Another process may serve a row from the current generation between our last look at the table and the switch.
    /// Lookups must not go back behind it: the switch fails where the current watermark is beyond what the new
    /// generation has.
    async fn switch(&mut self, current: Option<u32>, mut pointer: Pointer, target: Target) -> Result<bool> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..MAX_ATTEMPTS {
            let served = match current {
                Some(g) => self.online.watermark(&self.id, g).await?,
                None => None,
            };
            let Applied::Done(version) = self.catch_up(target).await? else { return Ok(false) };
            let reached = self.online.watermark(&self.id, pointer.generation).await?;
            // where the table has lost versions (it was restored), there is nothing to wait for
            let limit = if served > Some(version) { served } else { reached };
            pointer.published_at = self.services.clock.now();
            if self.online.publish(&self.id, current, &pointer, limit).await? {
                return Ok(true);
            }
            if self.online.pointer(&self.id).await?.map(|p| p.generation) != current {
                return Err(Error::conflict("another full load was switched to meanwhile"));
            }
            clock::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
        Err(Error::unavailable("what is served has rows that are not due by the clock of this process, so that a switch would hide them")
            .with_hint("try again in a moment; the clocks of the machines should agree"))
    }
}
