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
        let server = tokio::spawn(super::super::serve(Arc::clone(&engine), listener, stop.clone().cancelled_owned()));
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
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        stop.cancel();
        server.await.unwrap().unwrap();
        assert_eq!(count(&session, "status <> 'succeeded'").await, 0, "nothing was broken off");
        assert_eq!(count(&session, "kind = 'optimize' AND object = 'public.f'").await, 0, "two files are too few");
        // nobody is left to do it
        let runs = count(&session, "true").await;
        insert(&session, "f", 5).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(count(&session, "true").await, runs);
    }

    #[tokio::test]
    async fn zero_means_never() {
        let (_dir, engine) = engine(0, 0).await;
        insert(&engine.session(), "f", 5).await;
        let upkeep = Upkeep::start(Arc::clone(&engine));
        tokio::time::sleep(Duration::from_millis(100)).await;
        upkeep.end(Duration::from_secs(60)).await;
        assert_eq!(count(&engine.session(), "true").await, 0);
    }
}
