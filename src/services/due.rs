//! When a feature view is due. The runs on record decide, and nothing else: a server that starts anew and a
//! second server over the same warehouse come to the same answer.
//!
//! Ticks are the multiples of REFRESH EVERY since 1970-01-01T00:00:00Z. A view is due where a tick has passed
//! since the instant that its last complete REFRESH brought it up to, however many have.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use crate::catalog::{CatalogSnapshot, Relation, Run, RunStatus};
use crate::clock::Micros;
use crate::config::ScheduleSettings;
use crate::model::{Dependency, FeatureView, Name};

/// A version of a feature view.
pub type ViewId = (Name, u32);

pub fn id(view: &FeatureView) -> ViewId {
    (view.name.clone(), view.version)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Refresh,
    /// For an ONLINE view, after each complete REFRESH, whoever ran it.
    Materialize,
}

impl Step {
    pub const ALL: [Step; 2] = [Step::Refresh, Step::Materialize];

    /// The kind of its runs.
    pub fn kind(self) -> &'static str {
        match self {
            Step::Refresh => "refresh",
            Step::Materialize => "materialize",
        }
    }
}

/// From when on a step is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    /// As the schedule has it, whatever failed since.
    wanted: Micros,
    /// The same, or later where the next try waits after a failure.
    from: Micros,
}

/// What the record says about one view version. Instants are microseconds, UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// End of the last complete REFRESH that succeeded.
    pub refreshed_at: Option<Micros>,
    /// End of the last MATERIALIZE that succeeded.
    pub materialized_at: Option<Micros>,
    /// `None`: it is not scheduled, or there is nothing to do.
    refresh: Option<Due>,
    materialize: Option<Due>,
    /// Runs of either kind that failed since the last success of that kind.
    pub failures: usize,
    /// Of the latest of them.
    pub last_error: Option<String>,
}

impl Standing {
    fn due(&self, step: Step) -> Option<Due> {
        match step {
            Step::Refresh => self.refresh,
            Step::Materialize => self.materialize,
        }
    }

    pub fn due_from(&self, step: Step) -> Option<Micros> {
        self.due(step).map(|d| d.from)
    }

    pub fn is_due(&self, step: Step, now: Micros) -> bool {
        self.due_from(step).is_some_and(|from| from <= now)
    }

    /// When the server does something next, as things stand: the pause after a failure included.
    pub fn next_due(&self) -> Option<Micros> {
        Step::ALL.iter().filter_map(|s| self.due_from(*s)).min()
    }

    /// For how long something is to be done that is not, whatever the reason: a view that fails is late also while
    /// its next try waits.
    pub fn overdue(&self, now: Micros) -> Micros {
        let since = Step::ALL.iter().filter_map(|s| self.due(*s)).map(|d| d.wanted).min();
        since.map_or(0, |wanted| now.saturating_sub(wanted).max(0))
    }
}

/// The runs of views, by view.
pub struct History<'a>(HashMap<(&'a str, u32), Vec<&'a Run>>);

impl<'a> History<'a> {
    /// `runs`: newest first, as `Runs::list` gives them.
    pub fn new(runs: &'a [Run]) -> Self {
        let mut by_view: HashMap<_, Vec<&Run>> = HashMap::new();
        for run in runs {
            // by place, not by name: a view that was dropped and made again is another
            if let (Some(location), Some(version)) = (&run.location, run.version) {
                by_view.entry((location.as_str(), version)).or_default().push(run);
            }
        }
        History(by_view)
    }

    pub fn standing(&self, view: &FeatureView, settings: &ScheduleSettings) -> Standing {
        let runs = self.0.get(&(view.location.as_str(), view.version));
        let runs = || runs.into_iter().flatten().copied();
        let refresh = Record::of(Step::Refresh, runs());
        let materialize = Record::of(Step::Materialize, runs());
        let latest = [&refresh, &materialize].into_iter().filter_map(|r| r.failed).max_by_key(|r| ended(r));
        let mut standing = Standing {
            refreshed_at: refresh.succeeded.map(ended),
            materialized_at: materialize.succeeded.map(ended),
            failures: refresh.failures + materialize.failures,
            last_error: latest.and_then(|r| r.error.clone()),
            ..Default::default()
        };
        let Some(every) = view.refresh_every.filter(|e| *e > 0 && !view.suspended && !view.is_push()) else { return standing };
        let tick = refresh.succeeded.map_or(view.created_at, |r| tick_after(r.until.unwrap_or(r.started_at), every));
        standing.refresh = Some(refresh.due(tick, settings));
        standing.materialize = match (refresh.succeeded.map(ended), materialize.succeeded.map(|r| r.started_at)) {
            (Some(refreshed), began) if view.online && began.is_none_or(|b| b < refreshed) => Some(materialize.due(refreshed, settings)),
            _ => None,
        };
        standing
    }
}

/// The runs of one step.
struct Record<'a> {
    succeeded: Option<&'a Run>,
    /// The latest of those that failed since.
    failed: Option<&'a Run>,
    failures: usize,
}

impl<'a> Record<'a> {
    fn of(step: Step, runs: impl Iterator<Item = &'a Run>) -> Self {
        let mut record = Record { succeeded: None, failed: None, failures: 0 };
        // a REFRESH of a range leaves the view no fresher than it was
        for run in runs.filter(|r| r.kind == step.kind() && (step != Step::Refresh || r.until.is_some())) {
            match run.status {
                RunStatus::Succeeded => {
                    record.succeeded = Some(run);
                    break;
                }
                RunStatus::Failed => {
                    record.failed.get_or_insert(run);
                    record.failures += 1;
                }
                RunStatus::Running | RunStatus::Cancelled => {}
            }
        }
        record
    }

    fn due(&self, wanted: Micros, settings: &ScheduleSettings) -> Due {
        let from = self.failed.map_or(wanted, |f| wanted.max(ended(f).saturating_add(pause(self.failures, settings))));
        Due { wanted, from }
    }
}

fn ended(run: &Run) -> Micros {
    run.finished_at.unwrap_or(run.started_at)
}

/// The first tick after an instant.
fn tick_after(at: Micros, every: Micros) -> Micros {
    at.div_euclid(every).saturating_add(1).saturating_mul(every)
}

/// How long to wait after so many failures in a row.
fn pause(failures: usize, settings: &ScheduleSettings) -> Micros {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(62);
    settings.retry_first.saturating_mul(1 << doublings).min(settings.retry_max.max(settings.retry_first))
}

/// The feature view versions that each one's query reads, through views, services and one another.
pub fn upstream(catalog: &CatalogSnapshot) -> HashMap<ViewId, HashSet<ViewId>> {
    let versions = || catalog.feature_views.values().flat_map(|s| s.versions.values());
    let direct: HashMap<ViewId, HashSet<ViewId>> = versions().map(|v| (id(v), reads(catalog, v))).collect();
    let all = |of: &ViewId| {
        let mut found: HashSet<ViewId> = HashSet::new();
        let mut open: Vec<&ViewId> = direct.get(of).into_iter().flatten().collect();
        while let Some(next) = open.pop() {
            if found.insert(next.clone()) {
                open.extend(direct.get(next).into_iter().flatten());
            }
        }
        found
    };
    direct.keys().map(|v| (v.clone(), all(v))).collect()
}

fn reads(catalog: &CatalogSnapshot, view: &FeatureView) -> HashSet<ViewId> {
    let mut found = HashSet::new();
    let mut seen: HashSet<&Name> = HashSet::new();
    let mut open: Vec<(&Name, Option<u32>)> = named(&view.reads).collect();
    while let Some((name, version)) = open.pop() {
        match catalog.relation(name) {
            Some(Relation::FeatureView(_)) => found.extend(catalog.feature_view(name, version).ok().map(id)),
            Some(Relation::View(v)) if seen.insert(name) => open.extend(named(&v.reads)),
            Some(Relation::Service(s)) => open.extend(s.items.iter().map(|item| (&item.view, item.pin.number()))),
            _ => {}
        }
    }
    found
}

fn named(reads: &[Dependency]) -> impl Iterator<Item = (&Name, Option<u32>)> {
    reads.iter().map(|d| (&d.object, d.version))
}
