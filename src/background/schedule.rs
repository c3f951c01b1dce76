//! REFRESH EVERY: a server runs REFRESH, then MATERIALIZE where the view is ONLINE, as a user would. What is due
//! `services/due.rs` reads from the runs on record; a lease per view keeps two servers from doing it twice.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::catalog::CatalogSnapshot;
use crate::catalog::runs::orphan_from;
use crate::clock::{self, MINUTE, Micros};
use crate::error::{Kind, Result};
use crate::model::FeatureView;
use crate::plan::command::{Command, Extent, Range};
use crate::services::due::{History, Standing, Step, ViewId, id, upstream};
use crate::services::{Services, boxed, lease};
use crate::session::Engine;
use crate::telemetry;

/// How long an orphan rests that could not be settled.
const SETTLE_AGAIN: Micros = 10 * MINUTE;

/// The task; ended when dropped.
pub(super) struct Schedule {
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Schedule {
    pub fn start(engine: Arc<Engine>) -> Self {
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        let workers = engine.services().workers.handle().clone();
        task.spawn_on(run(engine, stop.clone()), &workers);
        Schedule { stop, task }
    }

    /// Begins nothing new; what runs may finish within `grace`. A REFRESH that is stopped has committed nothing, a
    /// MATERIALIZE goes on where it was.
    pub async fn end(mut self, grace: Duration) {
        self.stop.cancel();
        if clock::timeout(grace, self.task.join_next()).await.is_err() {
            tracing::warn!("the grace time is over: stopping the scheduled runs");
        }
    }
}

async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let every = engine.config().schedule.check_every;
    if every <= 0 {
        tracing::info!("schedule.check_every is 0: this server runs no schedules");
        return;
    }
    let mut checks = clock::ticks(Duration::from_micros(every.unsigned_abs()));
    let mut scheduler = Scheduler::new(engine, stop.clone());
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = checks.tick() => scheduler.rested.clear(),
            true = scheduler.one_ends() => {}
        }
        scheduler.look().await;
    }
    while scheduler.one_ends().await {}
}

struct Scheduler {
    engine: Arc<Engine>,
    stop: CancellationToken,
    jobs: JoinSet<()>,
    at_work: HashMap<Id, ViewId>,
    /// Tried since the last check: one try per view and check, also where the try could not be recorded.
    rested: HashSet<ViewId>,
    /// What the last look saw, and when something is due if that stays so.
    seen: Option<(Versions, Micros)>,
    /// Of this version of the catalog.
    upstream: (u64, HashMap<ViewId, HashSet<ViewId>>),
}

/// Of the catalog and of the record of runs.
type Versions = (u64, u64);

impl Scheduler {
    fn new(engine: Arc<Engine>, stop: CancellationToken) -> Self {
        Scheduler {
            engine,
            stop,
            jobs: JoinSet::new(),
            at_work: HashMap::new(),
            rested: HashSet::new(),
            seen: None,
            upstream: (u64::MAX, HashMap::new()),
        }
    }

    /// Waits until one view is done; `false`: none is at work.
    async fn one_ends(&mut self) -> bool {
        let ended = match self.jobs.join_next_with_id().await {
            None => return false,
            Some(Ok((task, ()))) => task,
            Some(Err(e)) => {
                tracing::error!(error = %e, "a scheduled run broke off");
                e.id()
            }
        };
        if let Some(view) = self.at_work.remove(&ended) {
            self.rested.insert(view);
        }
        self.seen = None;
        metrics::gauge!(telemetry::SCHEDULE_RUNNING).set(self.at_work.len() as f64);
        true
    }

    /// Begins what is due, as far as there is room.
    async fn look(&mut self) {
        let engine = Arc::clone(&self.engine);
        if let Err(e) = boxed(self.try_look(engine.services())).await {
            tracing::warn!(error = %e, "what is due could not be read; it is tried again");
        }
    }

    async fn try_look(&mut self, services: &Services) -> Result<()> {
        let room = services.config.schedule.concurrency.max(1).saturating_sub(self.jobs.len());
        if room == 0 {
            return Ok(());
        }
        let catalog = services.registry.snapshot().await?;
        let versions = (catalog.version, services.runs.version().await?);
        let now = services.clock.now();
        if self.seen.is_some_and(|(seen, due)| seen == versions && now < due) {
            return Ok(());
        }
        let mut runs = services.runs.list().await?;
        if runs.iter().filter_map(orphan_from).any(|from| from <= now) {
            match services.settle_runs().await {
                Ok(0) => {}
                Ok(_) => runs = services.runs.list().await?,
                // what became of a run holds no schedule up
                Err(e) => tracing::warn!(error = %e, "unfinished runs could not be settled; it is tried again"),
            }
        }
        if self.upstream.0 != catalog.version {
            self.upstream = (catalog.version, upstream(&catalog));
        }
        let history = History::new(&runs);
        let scheduled = catalog.feature_views.values().flat_map(|s| s.versions.values()).filter(|v| v.refresh_every.is_some());
        let standings: HashMap<ViewId, (&FeatureView, Standing)> =
            scheduled.map(|v| (id(v), (v, history.standing(v, &services.config.schedule)))).collect();
        let mut due: Vec<(Micros, ViewId)> = vec![];
        let again = |from: Micros| if from <= now { now.saturating_add(SETTLE_AGAIN) } else { from };
        let mut next = runs.iter().filter_map(orphan_from).map(again).min().unwrap_or(Micros::MAX);
        for (view, (_, standing)) in &standings {
            let Some(at) = standing.next_due() else { continue };
            next = next.min(at);
            if at <= now && !self.at_work.values().any(|v| v == view) && !self.rested.contains(view) {
                due.push((at, view.clone()));
            }
        }
        // who waits longest comes first
        due.sort();
        let waits = |view: &ViewId| self.reads_due(view, &standings, now);
        let free: Vec<ViewId> = due.into_iter().map(|(_, v)| v).filter(|v| !waits(v)).take(room).collect();
        for view in free {
            if let Some((definition, _)) = standings.get(&view) {
                self.begin(view, (*definition).clone());
            }
        }
        self.seen = Some((versions, next));
        Ok(())
    }

    /// Whether a view that this one reads is to be refreshed first. Of views that read one another none waits.
    fn reads_due(&self, view: &ViewId, standings: &HashMap<ViewId, (&FeatureView, Standing)>, now: Micros) -> bool {
        let above = |v: &ViewId| self.upstream.1.get(v);
        above(view).into_iter().flatten().any(|u| {
            let circle = above(u).is_some_and(|a| a.contains(view));
            !circle && standings.get(u).is_some_and(|(_, s)| s.is_due(Step::Refresh, now))
        })
    }

    fn begin(&mut self, view: ViewId, definition: FeatureView) {
        let (engine, stop) = (Arc::clone(&self.engine), self.stop.clone());
        let task = self.jobs.spawn(async move {
            match boxed(job(&engine, &definition, &stop)).await {
                Ok(true) => {}
                Ok(false) => tracing::debug!(view = definition.versioned_name(), "another server refreshes it"),
                // another server does it, or somebody dropped the view
                Err(e) if matches!(e.kind(), Kind::Conflict | Kind::NotFound) => {
                    tracing::info!(view = definition.versioned_name(), "{e}");
                }
                Err(e) => tracing::warn!(view = definition.versioned_name(), error = %e, "a scheduled run failed"),
            }
        });
        self.at_work.insert(task.id(), view);
        metrics::gauge!(telemetry::SCHEDULE_RUNNING).set(self.at_work.len() as f64);
    }
}

/// Brings one view up to date while holding its lease; `false`: somebody else does.
async fn job(engine: &Arc<Engine>, view: &FeatureView, stop: &CancellationToken) -> Result<bool> {
    let services = engine.services();
    let lease = lease::schedule_lease(view);
    let work = async {
        for step in Step::ALL {
            if stop.is_cancelled() {
                break;
            }
            // somebody may have done it, or changed the view, since it was found to be due
            let catalog = services.registry.snapshot().await?;
            let Some(view) = same(&catalog, view).filter(|v| step == Step::Refresh || v.online) else { break };
            let runs = services.runs.list().await?;
            if History::new(&runs).standing(view, &services.config.schedule).is_due(step, services.clock.now()) {
                boxed(execute(engine, view, step)).await?;
            }
        }
        Ok(())
    };
    Ok(lease::while_held(services, &lease, boxed(work)).await?.is_some())
}

fn same<'a>(catalog: &'a CatalogSnapshot, view: &FeatureView) -> Option<&'a FeatureView> {
    catalog.feature_view(&view.name, Some(view.version)).ok().filter(|v| v.table_id == view.table_id)
}

async fn execute(engine: &Arc<Engine>, view: &FeatureView, step: Step) -> Result<()> {
    let views = vec![view.into()];
    let command = match step {
        Step::Refresh => Command::Refresh { views, range: Range::Incremental, at: None },
        Step::Materialize => Command::Materialize { views, extent: Extent::Changes },
    };
    let session = engine.session();
    session.carry_out(command).await?;
    for notice in session.notices() {
        tracing::info!(view = view.versioned_name(), "{}", notice.message);
    }
    Ok(())
}
