//! Full loads: a new generation is filled beside what is served, verified, and switched to.

use std::time::Duration;

use futures::future::BoxFuture;

use super::newest::Newest;
use super::pump::{Choice, Target};
use super::verify::Sample;
use super::{Applied, Gates, Job};
use crate::error::{Error, Result};
use crate::exec::lease::while_held;
use crate::exec::read::scan;
use crate::exec::{boxed, sweep};
use crate::model::codec::row_schema;
use crate::store::online::Pointer;

/// How often a load that another process has begun is looked at.
const POLL: Duration = Duration::from_millis(200);

impl Job<'_> {
    /// Loads everything while no other process does. Whoever has the lease saves the others the work;
    /// generations keep them apart. `false`: the table changed too much meanwhile, or, where `wanted` is
    /// not set, somebody else has loaded it.
    pub(super) fn load<'s>(&'s mut self, gates: &'s Gates, seen: &'s Option<Pointer>, wanted: bool) -> BoxFuture<'s, Result<bool>> {
        Box::pin(async move {
            let services = self.services;
            let lease = sweep::load_lease(&self.id);
            let mut waiting = None;
            loop {
                let done = while_held(services, &lease, boxed(self.full_load(gates))).await?;
                if let Some(done) = done {
                    return Ok(done);
                }
                if waiting.is_none() {
                    let who = services.store.lease_holder(&lease).await?.unwrap_or_else(|| "another process".into());
                    tracing::info!(view = %self.view.name, holder = who, "waiting for another load of the feature view");
                    waiting = Some(services.progress.start(&format!("waiting for {who}, which loads {}", self.view.name), None));
                }
                tokio::time::sleep(POLL).await;
                if !wanted && self.online.pointer(&self.id).await? != *seen {
                    return Ok(false);
                }
            }
        })
    }

    fn full_load<'s>(&'s mut self, gates: &'s Gates) -> BoxFuture<'s, Result<bool>> {
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
            let done = boxed(self.fill(generation, gates)).await;
            if !matches!(done, Ok(true))
                && let Err(e) = self.online.drop_generation(&self.id, generation).await
            {
                tracing::warn!(view = %self.view.name, generation, error = %e, "an unfinished generation could not be dropped");
            }
            done
        })
    }

    /// `false`: more changed meanwhile than can be caught up with.
    fn fill<'s>(&'s mut self, generation: u32, gates: &'s Gates) -> BoxFuture<'s, Result<bool>> {
        Box::pin(async move {
            let expected = self.online.pointer(&self.id).await?;
            let snapshot = self.services.store.snapshot(&self.view.location, None).await?;
            let version = snapshot.version();
            let target = Target { generation, asof: version, kind: None, ttl: self.view.ttl, current: false };
            let rows = scan(self.services, self.view, &snapshot, None, None, true, self.cx).await?;
            let mut newest = Newest::new(self.view, snapshot.schema(), self.now)?;
            let mut sample = Sample::new();
            let before = self.written;
            self.pump(rows, &mut newest, Choice::All(Some(&mut sample)), target).await?;
            let loaded = self.written - before;
            sample.compare(self.online.as_ref(), &self.id, generation, || self.services.clock.now()).await?;
            let watermark = newest.held_below(snapshot.files()).map_or(version, |h| h.min(version));
            if !self.online.advance_watermark(&self.id, generation, None, watermark).await? {
                return Err(Error::conflict(format!("generation {generation} is written by somebody else")));
            }
            // INSERTs wait from here on, so that none of them is missed by the switch
            let _apply = gates.apply.lock().await;
            let newer = self.services.store.snapshot(&self.view.location, None).await?.version() > version;
            if newer && let Applied::FullPass(_) = self.catch_up(target).await? {
                return Ok(false);
            }
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
            Ok(true)
        })
    }
}
