//! What a server does by itself: OPTIMIZE of feature views whose files want it, VACUUM of all of them now and
//! then. It runs the statements that a user would run, one at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::clock::{HOUR, Micros};
use crate::error::{Kind, Result};
use crate::exec::optimize;
use crate::model::FeatureView;
use crate::session::Engine;

/// The task; ended when dropped.
pub(super) struct Upkeep {
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Upkeep {
    pub fn start(engine: Arc<Engine>) -> Self {
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(run(engine, stop.clone()));
        Upkeep { stop, task }
    }

    /// Begins nothing new; what runs may finish within `grace`, and leaves nothing half-done where it cannot.
    pub async fn end(mut self, grace: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(grace, self.task.join_next()).await.is_err() {
            tracing::warn!("the grace time is over: stopping the maintenance of a feature view");
        }
    }
}

async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let settings = engine.config().maintenance.clone();
    let mut optimize = ticks(settings.optimize_every);
    let mut vacuum = ticks(settings.vacuum_every);
    loop {
        let work = tokio::select! {
            () = stop.cancelled() => return,
            () = next(&mut optimize) => Work::Optimize(settings.optimize_files),
            () = next(&mut vacuum) => Work::Vacuum,
        };
        if let Err(e) = all_views(&engine, work, &stop).await {
            tracing::warn!(error = %e, "the catalog could not be read; maintenance is tried again later");
        }
    }
}

#[derive(Clone, Copy)]
enum Work {
    /// Where so many files want it.
    Optimize(usize),
    Vacuum,
}

async fn all_views(engine: &Arc<Engine>, work: Work, stop: &CancellationToken) -> Result<()> {
    let catalog = engine.services().registry.snapshot().await?;
    for view in catalog.feature_views.values().flat_map(|s| s.versions.values()) {
        if stop.is_cancelled() {
            break;
        }
        match one_view(engine, view, work).await {
            Ok(()) => {}
            // another server does it, or somebody dropped the view
            Err(e) if matches!(e.kind(), Kind::Conflict | Kind::NotFound) => tracing::info!(view = %view.versioned_name(), "{e}"),
            Err(e) => tracing::warn!(view = %view.versioned_name(), error = %e, "maintenance failed"),
        }
    }
    Ok(())
}

async fn one_view(engine: &Arc<Engine>, view: &FeatureView, work: Work) -> Result<()> {
    let verb = match work {
        Work::Optimize(from) if optimize::wanted(engine.services(), view).await? < from => return Ok(()),
        Work::Optimize(_) => "OPTIMIZE",
        Work::Vacuum => "VACUUM",
    };
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let name = format!("{}.{}@v{}", quoted(&view.name.schema), quoted(&view.name.name), view.version);
    engine.session().execute(&format!("{verb} FEATURE VIEW {name}")).await.map(|_| ())
}

/// `None`: never. The first tick comes after an hour at most, so that servers that are restarted daily get to it.
fn ticks(every: Micros) -> Option<Interval> {
    let length = |m: Micros| Duration::from_micros(m.unsigned_abs());
    (every > 0).then(|| {
        let mut ticks = interval_at(Instant::now() + length(every.min(HOUR)), length(every));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    })
}

async fn next(ticks: &mut Option<Interval>) {
    match ticks {
        Some(t) => {
            t.tick().await;
        }
        None => std::future::pending().await,
    }
}
