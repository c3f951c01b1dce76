//! A server looks after the online store in the background, see `job/garbage.rs`. Several may: what one has
//! done the others find done.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::error::Kind;
use crate::job::garbage_collection;
use crate::session::Engine;

/// The task; ended when dropped.
pub(super) struct GarbageCollection {
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl GarbageCollection {
    pub fn start(engine: Arc<Engine>) -> Self {
        let (stop, mut task) = (CancellationToken::new(), JoinSet::new());
        let every = engine.config().online_settings.sweep_every;
        if every > 0 {
            let workers = engine.services().workers.handle().clone();
            task.spawn_on(run(engine, Duration::from_micros(every.unsigned_abs()), stop.clone()), &workers);
        }
        GarbageCollection { stop, task }
    }

    /// Begins nothing new; what is cut off after `grace` is done by the next pass of anybody.
    pub async fn end(mut self, grace: Duration) {
        self.stop.cancel();
        let _ = clock::timeout(grace, self.task.join_next()).await;
    }
}

async fn run(engine: Arc<Engine>, every: Duration, stop: CancellationToken) {
    let mut ticks = clock::ticks(every);
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match garbage_collection::pass(engine.services(), &|| stop.is_cancelled()).await {
            Ok(collected) => {
                failing = false;
                tracing::debug!(?collected, "looked after the online store");
            }
            // said once, not twice a minute; a warehouse may be without an online store
            Err(e) if failing || e.kind() == Kind::Invalid => tracing::debug!(error = %e, "the online store could not be looked after"),
            Err(e) => {
                failing = true;
                tracing::warn!(error = %e, "the online store could not be looked after; it is tried again");
            }
        }
    }
}
