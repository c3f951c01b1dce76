//! What a server does by itself: OPTIMIZE of feature views whose files want it, at once where INSERTs have made many;
//! VACUUM of all of them now and then. It runs the statements that a user would run, one at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, HOUR, Interval, Micros};
use crate::error::{Kind, Result};
use crate::job::optimize;
use crate::model::FeatureView;
use crate::plan::command::Command;
use crate::session::Engine;

/// The task; ended when dropped.
pub(super) struct Maintenance {
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Maintenance {
    pub fn start(engine: Arc<Engine>) -> Self {
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        let workers = engine.services().workers.handle().clone();
        task.spawn_on(run(engine, stop.clone()), &workers);
        Maintenance { stop, task }
    }

    /// Begins nothing new; what runs may finish within `grace`, and leaves nothing half-done where it cannot.
    pub async fn end(mut self, grace: Duration) {
        self.stop.cancel();
        if clock::timeout(grace, self.task.join_next()).await.is_err() {
            tracing::warn!("the grace time is over: stopping the maintenance of a feature view");
        }
    }
}

async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let settings = engine.config().maintenance.clone();
    let mut optimize = ticks(settings.optimize_every);
    let mut vacuum = ticks(settings.vacuum_every);
    let mut backoff = Backoff::default();
    loop {
        let work = tokio::select! {
            () = stop.cancelled() => return,
            () = next(&mut optimize) => Work::Optimize(settings.optimize_files),
            () = next(&mut vacuum) => Work::Vacuum,
            view = next_compaction(&engine, settings.optimize_every > 0) => {
                maintain(&engine, &view, Work::Optimize(settings.optimize_files), &mut backoff).await;
                continue;
            }
        };
        if let Err(e) = all_views(&engine, work, &mut backoff, &stop).await {
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

/// Rounds of OPTIMIZE that views are left out of after failures: 1, 3, 7, … of them.
#[derive(Debug, Default)]
struct Backoff(HashMap<String, Failures>);

#[derive(Debug, Default)]
struct Failures {
    /// One after the other.
    count: u32,
    rounds_left: u32,
}

impl Backoff {
    /// 2^8 rounds: a day, where they are five minutes apart.
    const MOST: u32 = 8;

    /// Whether it is this view's turn again.
    fn is_due(&mut self, view: &str) -> bool {
        let Some(f) = self.0.get_mut(view).filter(|f| f.rounds_left > 0) else { return true };
        f.rounds_left -= 1;
        false
    }

    fn succeeded(&mut self, view: &str) {
        self.0.remove(view);
    }

    /// Answers how often it has failed by now, and the rounds that it is left out.
    fn failed(&mut self, view: &str) -> (u32, u32) {
        let f = self.0.entry(view.to_string()).or_default();
        f.count = f.count.saturating_add(1);
        f.rounds_left = (1 << f.count.min(Self::MOST)) - 1;
        (f.count, f.rounds_left)
    }

    /// Forgets views that are no more.
    fn retain(&mut self, known: impl Fn(&str) -> bool) {
        self.0.retain(|view, _| known(view));
    }
}

async fn all_views(engine: &Arc<Engine>, work: Work, backoff: &mut Backoff, stop: &CancellationToken) -> Result<()> {
    let catalog = engine.services().registry.snapshot().await?;
    let views = || catalog.feature_views.values().flat_map(|s| s.versions.values());
    backoff.retain(|known| views().any(|v| v.versioned_name() == known));
    for view in views() {
        if stop.is_cancelled() {
            break;
        }
        maintain(engine, view, work, backoff).await;
    }
    Ok(())
}

/// A view that many INSERTs have written into.
async fn next_compaction(engine: &Arc<Engine>, wanted: bool) -> Arc<FeatureView> {
    if wanted { engine.services().compaction_queue.next().await } else { std::future::pending().await }
}

async fn maintain(engine: &Arc<Engine>, view: &FeatureView, work: Work, backoff: &mut Backoff) {
    let (name, optimizes) = (view.versioned_name(), matches!(work, Work::Optimize(_)));
    if optimizes && !backoff.is_due(&name) {
        return;
    }
    match one_view(engine, view, work).await {
        Ok(()) if optimizes => backoff.succeeded(&name),
        Ok(()) => {}
        // another server does it
        Err(e) if e.kind() == Kind::Conflict => tracing::info!(view = %name, "{e}"),
        Err(e) if optimizes => {
            let (failures, rounds) = backoff.failed(&name);
            tracing::warn!(view = %name, error = %e, failures, "OPTIMIZE failed; it is left out for {rounds} round(s)");
        }
        Err(e) => tracing::warn!(view = %name, error = %e, "maintenance failed"),
    }
}

async fn one_view(engine: &Arc<Engine>, view: &FeatureView, work: Work) -> Result<()> {
    let id = view.into();
    let command = match work {
        Work::Optimize(from) if optimize::wanted(engine.services(), view).await? < from => return Ok(()),
        Work::Optimize(_) => Command::Optimize { view: id },
        Work::Vacuum => Command::Vacuum { view: id, retain: None, dry_run: false },
    };
    engine.session().carry_out(command).await.map(|_| ())
}

/// `None`: never. The first tick comes after an hour at most, so that servers that are restarted daily get to it.
fn ticks(every: Micros) -> Option<Interval> {
    let length = |m: Micros| Duration::from_micros(m.unsigned_abs());
    (every > 0).then(|| clock::ticks_after(length(every.min(HOUR)), length(every)))
}

async fn next(ticks: &mut Option<Interval>) {
    match ticks {
        Some(t) => {
            t.tick().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::Int64Type;
    use futures::TryStreamExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::clock::{Clock, MILLISECOND};
    use crate::config::Config;
    use crate::session::{Outcome, Session};

    async fn engine(optimize_every: Micros, vacuum_every: Micros) -> (tempfile::TempDir, Arc<Engine>) {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { warehouse: dir.path().join("w").display().to_string(), ..Default::default() };
        config.maintenance.optimize_every = optimize_every;
        config.maintenance.vacuum_every = vacuum_every;
        config.maintenance.optimize_files = 3;
        let engine = Engine::open(config, Clock::system()).await.unwrap();
        let session = engine.session();
        session.execute("CREATE ENTITY e KEY (k BIGINT)").await.unwrap();
        for view in ["f", "\"G \"\" g\""] {
            session.execute(&format!("CREATE FEATURE VIEW {view} (x BIGINT) ENTITY e EVENT TIMESTAMP ts")).await.unwrap();
        }
        (dir, engine)
    }

    async fn insert(session: &Session, view: &str, times: usize) {
        for i in 0..times {
            session.execute(&format!("INSERT INTO {view} VALUES ({i}, '2026-01-01', {i})")).await.unwrap();
        }
    }

    async fn count(session: &Session, filter: &str) -> i64 {
        let Ok(Outcome::Rows(rows)) = session.execute(&format!("SELECT count(*) FROM system.runs WHERE {filter}")).await else {
            panic!("no rows");
        };
        rows.try_collect::<Vec<_>>().await.unwrap()[0].column(0).as_primitive::<Int64Type>().value(0)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_keeps_tables_fit_until_it_ends() {
        let (_dir, engine) = engine(20 * MILLISECOND, 30 * MILLISECOND).await;
        let session = engine.session();
        insert(&session, "f", 2).await;
        insert(&session, "\"G \"\" g\"", 3).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(crate::server::serve(Arc::clone(&engine), listener, stop.clone().cancelled_owned()));
        let wanted = [
            "kind = 'optimize' AND rows_written = 3 AND object LIKE '%G%'",
            "kind = 'vacuum' AND object LIKE '%G%'",
            "kind = 'vacuum' AND object = 'public.f'",
        ];
        for filter in wanted {
            let mut tries = 0;
            while count(&session, &format!("status = 'succeeded' AND {filter}")).await == 0 {
                tries += 1;
                assert!(tries < 3000, "never: {filter}");
                clock::sleep(Duration::from_millis(20)).await;
            }
        }
        stop.cancel();
        server.await.unwrap().unwrap();
        assert_eq!(count(&session, "status <> 'succeeded'").await, 0, "nothing was broken off");
        assert_eq!(count(&session, "kind = 'optimize' AND object = 'public.f'").await, 0, "two files are too few");
        // nobody is left to do it
        let runs = count(&session, "true").await;
        insert(&session, "f", 5).await;
        clock::sleep(Duration::from_millis(200)).await;
        assert_eq!(count(&session, "true").await, runs);
    }

    #[test]
    fn a_view_that_fails_is_left_out_for_ever_more_rounds() {
        let mut b = Backoff::default();
        let mut tried = vec![];
        for round in 0..40 {
            if b.is_due("f") {
                tried.push(round);
                b.failed("f");
            }
            assert!(b.is_due("g"), "others go on");
        }
        assert_eq!(tried, [0, 2, 6, 14, 30]);
        assert_eq!((6..).map(|_| b.failed("f").1).find(|rounds| *rounds == 255), Some(255));
        assert_eq!(b.failed("f").1, 255, "but not for ever");
        b.succeeded("f");
        assert!(b.is_due("f"));
        assert_eq!(b.failed("f"), (1, 1));
        b.retain(|v| v != "f");
        assert!(b.is_due("f"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_optimize_that_fails_is_not_tried_in_the_next_round() {
        let (_dir, engine) = engine(0, 0).await;
        let session = engine.session();
        insert(&session, "f", 3).await;
        let services = engine.services();
        let view = services.registry.snapshot().await.unwrap().feature_view(&crate::model::Name::new("public", "f"), None).unwrap().clone();
        let table = services.store.snapshot(&view.location, None).await.unwrap();
        let lost = services.store.local_dir().unwrap().join(&view.location).join(&table.files()[0].path);
        std::fs::rename(&lost, lost.with_extension("away")).unwrap();
        let (mut backoff, stop) = (Backoff::default(), CancellationToken::new());
        let mut failed = vec![];
        for _ in 0..4 {
            all_views(&engine, Work::Optimize(3), &mut backoff, &stop).await.unwrap();
            failed.push(count(&session, "kind = 'optimize' AND status = 'failed'").await);
        }
        assert_eq!(failed, [1, 1, 2, 2]);
        std::fs::rename(lost.with_extension("away"), &lost).unwrap();
        for _ in 0..3 {
            all_views(&engine, Work::Optimize(3), &mut backoff, &stop).await.unwrap();
        }
        assert_eq!(count(&session, "kind = 'optimize' AND status = 'succeeded'").await, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_inserts_are_tidied_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { warehouse: dir.path().join("w").display().to_string(), ..Default::default() };
        (config.maintenance.crowded_commits, config.maintenance.optimize_files) = (4, 3);
        let engine = Engine::open(config, Clock::system()).await.unwrap();
        let session = engine.session();
        session.execute("CREATE ENTITY e KEY (k BIGINT)").await.unwrap();
        session.execute("CREATE FEATURE VIEW f (x BIGINT) ENTITY e EVENT TIMESTAMP ts").await.unwrap();
        let maintenance = Maintenance::start(Arc::clone(&engine));
        insert(&session, "f", 3).await;
        clock::sleep(Duration::from_millis(100)).await;
        assert_eq!(count(&session, "kind = 'optimize'").await, 0, "three are not many");
        insert(&session, "f", 1).await;
        let mut tries = 0;
        while count(&session, "kind = 'optimize' AND status = 'succeeded' AND rows_written = 4").await == 0 {
            tries += 1;
            assert!(tries < 3000, "never");
            clock::sleep(Duration::from_millis(20)).await;
        }
        maintenance.end(Duration::from_secs(60)).await;
    }

    #[tokio::test]
    async fn zero_means_never() {
        let (_dir, engine) = engine(0, 0).await;
        insert(&engine.session(), "f", 5).await;
        let maintenance = Maintenance::start(Arc::clone(&engine));
        clock::sleep(Duration::from_millis(100)).await;
        maintenance.end(Duration::from_secs(60)).await;
        assert_eq!(count(&engine.session(), "true").await, 0);
    }
}
