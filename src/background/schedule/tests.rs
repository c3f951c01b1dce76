//! Schedulers over one warehouse with a clock that stands still: what they do depends on no time that passes.

use std::collections::BTreeMap;

use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use tempfile::TempDir;

use super::*;
use crate::catalog::runs::this_process;
use crate::catalog::{CatalogChange, PutMode, Run, RunStatus};
use crate::clock::{Clock, DAY, HOUR, MINUTE, SECOND};
use crate::config::Config;
use crate::model::{Name, View};
use crate::session::Outcome;
use crate::store::offline::Commit;

const NOON: Micros = 1_767_268_800 * SECOND; // 2026-01-01T12:00:00Z

struct World {
    clock: Clock,
    config: Config,
    engine: Arc<Engine>,
    _dir: TempDir,
}

async fn sql(engine: &Arc<Engine>, text: &str) -> Vec<String> {
    let batches = match engine.session().execute(text).await.unwrap_or_else(|e| panic!("{text}: {e}")) {
        Outcome::Updated(n) => return vec![n.to_string()],
        Outcome::Rows(s) => s.try_collect::<Vec<_>>().await.unwrap(),
    };
    let options = FormatOptions::default().with_null("NULL");
    let mut out = vec![];
    for b in &batches {
        let columns: Vec<_> = b.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        out.extend((0..b.num_rows()).map(|i| columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>().join("|")));
    }
    out
}

impl World {
    async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::fixed(NOON);
        let config = Config { warehouse: dir.path().join("w").display().to_string(), threads: 1, ..Config::default() };
        let engine = Engine::open(config.clone(), clock.clone()).await.unwrap();
        let w = World { clock, config, engine, _dir: dir };
        w.sql("CREATE ENTITY e KEY (k BIGINT)").await;
        w.sql("CREATE TABLE src AS SELECT 1 AS k, TIMESTAMP '2026-01-01 11:00:00' AS ts, '10' AS v").await;
        w
    }

    async fn sql(&self, text: &str) -> Vec<String> {
        sql(&self.engine, text).await
    }

    /// An hourly view.
    async fn view(&self, name: &str, clauses: &str, query: &str) {
        self.sql(&format!("CREATE FEATURE VIEW {name} ENTITY e EVENT TIMESTAMP ts REFRESH EVERY INTERVAL '1 hour' {clauses} AS {query}"))
            .await;
    }

    /// As a server that starts now.
    fn scheduler(&self) -> Scheduler {
        Scheduler::new(Arc::clone(&self.engine), CancellationToken::new())
    }

    /// As a second process.
    async fn another(&self) -> Arc<Engine> {
        Engine::open(self.config.clone(), self.clock.clone()).await.unwrap()
    }

    /// Runs, earlier ones first.
    async fn runs(&self) -> Vec<String> {
        let mut runs = self.engine.services().runs.list().await.unwrap();
        let text = |r: &Run| format!("{} {} {}", r.kind, r.object.trim_start_matches("public."), r.status.as_str());
        // the clock stands: of those that began at one instant the text says which comes first
        runs.sort_by_key(|r| (r.started_at, text(r)));
        runs.iter().map(text).collect()
    }

    async fn count(&self, run: &str) -> usize {
        self.runs().await.iter().filter(|r| *r == run).count()
    }

    async fn run(&self, id: &str) -> Run {
        self.engine.services().runs.list().await.unwrap().into_iter().find(|r| r.run_id == id).unwrap()
    }

    async fn definition(&self, name: &str) -> FeatureView {
        self.engine.services().registry.snapshot().await.unwrap().feature_view(&Name::new("public", name), None).unwrap().clone()
    }

    /// Waits until the runs are these.
    async fn until(&self, want: &[&str]) {
        let mut tries = 0;
        while self.runs().await != want {
            tries += 1;
            assert!(tries < 3000, "never {want:?}");
            crate::clock::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A REFRESH that began now, by a process of that name.
fn begun(w: &World, view: &FeatureView, id: &str, process: &str) -> Run {
    Run {
        run_id: id.into(),
        kind: "refresh".into(),
        object: view.name.to_string(),
        version: Some(view.version),
        started_at: w.clock.now(),
        until: Some(w.clock.now()),
        location: Some(view.location.clone()),
        process: Some(process.into()),
        ..Run::default()
    }
}

impl Scheduler {
    /// One check, and all that follows from it.
    async fn check(&mut self) {
        self.rested.clear();
        self.look().await;
        while self.one_ends().await {
            self.look().await;
        }
    }
}

const PLAIN: &str = "SELECT k, ts, CAST(v AS BIGINT) AS v FROM src";

#[tokio::test(flavor = "multi_thread")]
async fn each_tick_is_done_once_and_missed_ones_are_one() {
    let w = World::new().await;
    w.view("f", "", PLAIN).await;
    let mut s = w.scheduler();
    s.check().await;
    assert_eq!(w.runs().await, ["refresh f succeeded"], "a new view is due at once");
    assert_eq!(w.sql("SELECT v FROM f").await, ["10"]);
    s.check().await;
    w.clock.advance(HOUR - 1);
    s.check().await;
    assert_eq!(w.runs().await.len(), 1, "no tick has passed");
    w.clock.advance(1);
    s.check().await;
    s.check().await;
    assert_eq!(w.runs().await.len(), 2);
    w.clock.advance(5 * HOUR + MINUTE);
    // another server, which knows nothing but the warehouse
    let mut restarted = Scheduler::new(w.another().await, CancellationToken::new());
    restarted.check().await;
    restarted.check().await;
    s.check().await;
    assert_eq!(w.runs().await, ["refresh f succeeded"; 3], "five missed ticks are caught up once");
}

#[tokio::test(flavor = "multi_thread")]
async fn online_views_are_loaded_after_the_refresh() {
    let w = World::new().await;
    w.view("f", "ONLINE", PLAIN).await;
    let mut s = w.scheduler();
    s.check().await;
    assert_eq!(w.count("refresh f succeeded").await, 1);
    assert_eq!(w.count("materialize f succeeded").await, 1);
    assert_eq!(w.sql("SELECT v FROM ONLINE_LOOKUP('f', 1)").await, ["10"]);
    // a REFRESH that a user ran, as after a server that died between the two steps
    w.clock.advance(MINUTE);
    w.sql("CREATE OR REPLACE TABLE src AS SELECT 1 AS k, TIMESTAMP '2026-01-01 11:30:00' AS ts, '11' AS v").await;
    w.sql("REFRESH FEATURE VIEW f").await;
    assert_eq!(w.sql("SELECT v FROM ONLINE_LOOKUP('f', 1)").await, ["10"]);
    w.clock.advance(MINUTE);
    s.check().await;
    assert_eq!(w.sql("SELECT v FROM ONLINE_LOOKUP('f', 1)").await, ["11"]);
    assert_eq!((w.count("refresh f succeeded").await, w.count("materialize f succeeded").await), (2, 2));
    // a range by hand is no tick
    w.clock.advance(HOUR);
    w.sql("REFRESH FEATURE VIEW f FROM '2026-01-01' TO '2026-01-01 11:30'").await;
    s.check().await;
    assert_eq!((w.count("refresh f succeeded").await, w.count("materialize f succeeded").await), (4, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_views_wait_and_resumed_ones_catch_up_once() {
    let w = World::new().await;
    w.view("f", "", PLAIN).await;
    let mut s = w.scheduler();
    s.check().await;
    w.sql("ALTER FEATURE VIEW f SUSPEND").await;
    assert_eq!(w.sql("SELECT refresh_every, suspended FROM system.feature_views").await, ["1 hour|true"]);
    w.clock.advance(3 * HOUR);
    s.check().await;
    assert_eq!(w.runs().await.len(), 1);
    assert_eq!(w.sql("SELECT suspended, next_due IS NULL FROM system.freshness").await, ["true|true"]);
    w.sql("ALTER FEATURE VIEW f RESUME").await;
    s.check().await;
    s.check().await;
    assert_eq!(w.runs().await.len(), 2);
    w.sql("ALTER FEATURE VIEW f SET REFRESH EVERY INTERVAL '0 hours'").await;
    w.clock.advance(3 * HOUR);
    s.check().await;
    assert_eq!(w.runs().await.len(), 2, "no schedule any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_do_each_tick_once() {
    let w = World::new().await;
    for name in ["a", "b", "c"] {
        w.view(name, "ONLINE", PLAIN).await;
    }
    let other = w.another().await;
    for tick in 1..=3 {
        let (mut one, mut two) = (w.scheduler(), Scheduler::new(Arc::clone(&other), CancellationToken::new()));
        let both = async |s: &mut Scheduler| {
            for _ in 0..3 {
                s.check().await;
            }
        };
        tokio::join!(both(&mut one), both(&mut two));
        // what one server left to the other is done when both have nothing to do
        one.check().await;
        two.check().await;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        w.runs().await.into_iter().for_each(|r| *counts.entry(r).or_default() += 1);
        let all = ["a", "b", "c"].iter().flat_map(|v| Step::ALL.map(|s| (format!("{} {v} succeeded", s.kind()), tick)));
        assert_eq!(counts, all.collect());
        w.clock.advance(HOUR);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_server_is_at_is_left_to_it() {
    let w = World::new().await;
    w.view("f", "", PLAIN).await;
    let view = w.engine.services().registry.snapshot().await.unwrap().feature_view(&Name::new("public", "f"), None).unwrap().clone();
    let store = &w.another().await.services().store.clone();
    let name = format!("schedule/{}", view.table_id);
    let held = store.acquire_lease(&name, "elsewhere/1/2", 10 * SECOND).await.unwrap().unwrap();
    let mut s = w.scheduler();
    s.check().await;
    s.check().await;
    assert_eq!(w.runs().await.len(), 0);
    // it went down: its lease ends by itself
    w.clock.advance(29 * SECOND);
    s.check().await;
    assert_eq!(w.runs().await.len(), 0);
    w.clock.advance(SECOND);
    s.check().await;
    assert_eq!(w.runs().await, ["refresh f succeeded"]);
    drop(held);
    assert_eq!(store.lease_holder(&name).await.unwrap(), None, "given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_view_backs_off_and_holds_nobody_up() {
    let w = World::new().await;
    w.sql("CREATE TABLE broken AS SELECT 1 AS k, TIMESTAMP '2026-01-01 11:00:00' AS ts, 'x' AS v").await;
    w.view("a", "ONLINE", &PLAIN.replace("src", "broken")).await;
    // reads the one that fails
    w.view("b", "", "SELECT k, ts, v + 1 AS w FROM a").await;
    w.view("c", "", PLAIN).await;
    let mut s = w.scheduler();
    s.check().await;
    assert_eq!(w.count("refresh a failed").await, 1);
    assert_eq!((w.count("refresh b succeeded").await, w.count("refresh c succeeded").await), (1, 1));
    assert_eq!(
        w.sql("SELECT failures, next_due, last_error LIKE '%REFRESH FEATURE VIEW public.a%x%' FROM system.freshness WHERE view = 'a'")
            .await,
        ["1|2026-01-01T12:00:30Z|true"]
    );
    let mut tries = vec![];
    for second in 1..=300 {
        w.clock.set(NOON + second * SECOND);
        // a new server each time: the record alone says how long to wait
        let before = w.count("refresh a failed").await;
        if second % 15 == 0 {
            w.scheduler().check().await;
        }
        if w.count("refresh a failed").await > before {
            tries.push(second);
        }
    }
    assert_eq!(tries, [30, 90, 210], "30 s, 60 s, 120 s after one another");
    assert_eq!(w.count("refresh b succeeded").await, 1);
    w.sql("CREATE OR REPLACE TABLE broken AS SELECT 1 AS k, TIMESTAMP '2026-01-01 11:00:00' AS ts, '7' AS v").await;
    w.clock.set(NOON + 450 * SECOND);
    s.check().await;
    assert_eq!((w.count("refresh a succeeded").await, w.count("materialize a succeeded").await), (1, 1));
    assert_eq!(
        w.sql("SELECT failures, last_error, next_due FROM system.freshness WHERE view = 'a'").await,
        ["0|NULL|2026-01-01T13:00:00Z"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn views_run_after_those_that_they_read() {
    let w = World::new().await;
    // through a view, and through another feature view; made so that neither names nor ages give the order
    w.sql("CREATE FEATURE VIEW z ENTITY e EVENT TIMESTAMP ts AS SELECT k, ts, CAST(v AS BIGINT) AS v FROM src").await;
    w.sql("CREATE VIEW zz AS SELECT k, ts, v * 2 AS v FROM z").await;
    w.view("m", "", "SELECT k, ts, v + 1 AS v FROM zz").await;
    w.view("a", "", "SELECT l.k, l.ts, r.v + 100 AS w FROM src l ASOF JOIN m r ON l.k = r.k AND l.ts >= r.ts").await;
    w.sql("ALTER FEATURE VIEW z SET REFRESH EVERY INTERVAL '1 hour'").await;
    let mut s = w.scheduler();
    for (n, v) in [(1, 10), (2, 50)] {
        w.sql(&format!("CREATE OR REPLACE TABLE src AS SELECT 1 AS k, TIMESTAMP '2026-01-01 11:00:00' AS ts, '{v}' AS v")).await;
        // one check does all of it, one view after another
        s.check().await;
        assert_eq!(w.runs().await.len(), 3 * n);
        assert_eq!(w.sql("SELECT w FROM a").await, [(2 * v + 101).to_string()]);
        w.clock.advance(HOUR);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_that_read_one_another_do_not_wait_for_ever() {
    let w = World::new().await;
    w.sql("CREATE VIEW first AS SELECT k, ts, CAST(v AS BIGINT) AS v FROM src").await;
    w.view("a", "", "SELECT k, ts, v FROM first").await;
    w.view("b", "", "SELECT k, ts, v FROM a").await;
    // no statement makes a circle; a registry of an older version may hold one
    let registry = &w.engine.services().registry;
    let circle = registry.commit(None, |c| {
        let mut first = View::clone(c.view(&Name::new("public", "first"))?);
        first.query = "SELECT k, ts, v FROM b".into();
        first.reads.clear();
        Ok((vec![CatalogChange::PutView(first, PutMode::Replace)], ()))
    });
    circle.await.unwrap();
    w.scheduler().check().await;
    assert_eq!(w.runs().await, ["refresh a succeeded", "refresh b succeeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_views_at_once_than_set() {
    let w = World::new().await;
    for i in 0..5 {
        w.view(&format!("f{i}"), "", PLAIN).await;
    }
    let mut s = w.scheduler();
    s.look().await;
    assert_eq!(s.at_work.len(), 2);
    s.look().await;
    assert_eq!(s.at_work.len(), 2);
    s.check().await;
    assert_eq!(w.runs().await, (0..5).map(|i| format!("refresh f{i} succeeded")).collect::<Vec<_>>());
}

/// A query that does not end by itself.
const ENDLESS: &str = "SELECT 1 AS k, TIMESTAMP '2026-01-01' AS ts, count(*) AS v \
    FROM generate_series(1, 10000000) a CROSS JOIN generate_series(1, 10000000) b CROSS JOIN generate_series(1, 10000000) c \
    WHERE a.value + b.value <> c.value";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_begins_nothing_and_leaves_nothing_half_done() {
    let w = World::new().await;
    w.view("f", "ONLINE", ENDLESS).await;
    let schedule = Schedule::start(Arc::clone(&w.engine));
    w.until(&["refresh f running"]).await;
    schedule.end(Duration::ZERO).await;
    // nothing was materialized
    w.until(&["refresh f cancelled"]).await;
    assert_eq!(w.sql("SELECT count(*) FROM f").await, ["0"]);
    // the next server needs nothing from the one that was stopped
    w.sql(&format!("CREATE OR REPLACE FEATURE VIEW f ENTITY e EVENT TIMESTAMP ts ONLINE REFRESH EVERY INTERVAL '1 hour' AS {PLAIN}")).await;
    w.sql("ALTER FEATURE VIEW f@v1 SUSPEND").await;
    let other = w.another().await;
    let mut s = Scheduler::new(Arc::clone(&other), CancellationToken::new());
    s.check().await;
    assert_eq!(sql(&other, "SELECT v FROM ONLINE_LOOKUP('f', 1)").await, ["10"]);

    w.clock.advance(HOUR);
    let stopped = CancellationToken::new();
    stopped.cancel();
    let before = w.runs().await;
    Scheduler::new(Arc::clone(&other), stopped).check().await;
    assert_eq!(w.runs().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_its_client_gives_up_is_shown_as_cancelled() {
    let w = World::new().await;
    w.view("f", "", ENDLESS).await;
    let session = w.engine.session();
    let client = tokio::spawn(async move { session.execute("REFRESH FEATURE VIEW f").await.map(drop) });
    w.until(&["refresh f running"]).await;
    client.abort();
    w.until(&["refresh f cancelled"]).await;
    assert_eq!(w.sql("SELECT finished_at, error LIKE '%the client gave it up%' FROM system.runs").await, ["2026-01-01T12:00:00Z|true"]);
    assert_eq!(w.sql("SELECT failures, last_error, next_due FROM system.freshness").await, ["0|NULL|2026-01-01T12:00:00Z"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_run_of_an_unreadable_table_holds_nobody_up() {
    let w = World::new().await;
    w.view("a", "", PLAIN).await;
    w.view("b", "", PLAIN).await;
    w.scheduler().check().await;
    let view = w.definition("a").await;
    // a process was killed in the middle of a REFRESH, and the log of its table is damaged
    w.engine.services().runs.start(&begun(&w, &view, "killed", &(this_process() + "0"))).await.unwrap();
    let log = w.engine.services().store.local_dir().unwrap().join(&view.location).join("_delta_log/00000000000000000001.json");
    let good = std::fs::read(&log).unwrap();
    std::fs::write(&log, "{\"add\": nonsense").unwrap();
    w.clock.advance(HOUR);
    let mut restarted = Scheduler::new(w.another().await, CancellationToken::new());
    restarted.check().await;
    assert_eq!((w.count("refresh b succeeded").await, w.count("refresh a failed").await), (2, 1));
    assert_eq!(w.run("killed").await.status, RunStatus::Running, "it is not known what became of it");
    std::fs::write(&log, good).unwrap();
    w.clock.advance(SETTLE_AGAIN);
    restarted.check().await;
    assert_eq!(w.run("killed").await.error.as_deref(), Some("the process ended before the run did"));
    assert_eq!((w.count("refresh a succeeded").await, w.count("refresh b succeeded").await), (2, 2));
}

#[tokio::test]
async fn orphans_of_other_machines_are_settled_after_a_day() {
    let w = World::new().await;
    w.view("f", "", PLAIN).await;
    w.sql("ALTER FEATURE VIEW f SUSPEND").await;
    let (view, services) = (w.definition("f").await, Arc::clone(w.engine.services()));
    let elsewhere = |id: &str| begun(&w, &view, id, "pod-7/1/m-4026532000-b-9");
    let alive = [elsewhere("slow"), elsewhere("late")];
    for run in [elsewhere("lost"), elsewhere("done"), begun(&w, &view, "here", &this_process())].iter().chain(&alive) {
        services.runs.start(run).await.unwrap();
    }
    let table = services.store.snapshot(&view.location, None).await.unwrap();
    services.store.commit(&table, Commit { run_id: Some("done".into()), ..Default::default() }).await.unwrap();
    w.clock.advance(DAY - 1);
    assert_eq!(services.settle_runs().await.unwrap(), 0);
    w.clock.advance(2);
    // one who works on the view may be the one who runs it
    let lease = services.store.acquire_lease(&lease::schedule_lease(&view), "pod-7/1/x", HOUR).await.unwrap().unwrap();
    assert_eq!(services.settle_runs().await.unwrap(), 1);
    assert_eq!((w.run("done").await.status, w.run("lost").await.status), (RunStatus::Succeeded, RunStatus::Running));
    lease.release().await.unwrap();
    assert_eq!(services.settle_runs().await.unwrap(), 3);
    let lost = w.run("lost").await;
    assert_eq!((lost.status, lost.finished_at), (RunStatus::Failed, Some(NOON + DAY)));
    assert!(lost.error.unwrap().contains("did not end within 24 hours"));
    assert_eq!(w.run("here").await.status, RunStatus::Running, "this process lives");
    // two of them lived, and say how they ended
    let [slow, late] = alive;
    services.runs.finish(&Run { status: RunStatus::Succeeded, rows_written: 7, ..slow }).await.unwrap();
    services.runs.finish(&Run { status: RunStatus::Failed, error: Some("a disk is full".into()), ..late }).await.unwrap();
    assert_eq!((w.run("slow").await.status, w.run("slow").await.rows_written), (RunStatus::Succeeded, 7));
    assert_eq!(w.run("late").await.error.as_deref(), Some("a disk is full"));

    // a server sees to it, also where nothing is due
    services.runs.start(&elsewhere("again")).await.unwrap();
    let mut s = w.scheduler();
    s.check().await;
    w.clock.advance(DAY);
    s.check().await;
    assert_eq!(w.run("again").await.status, RunStatus::Failed);
}

#[tokio::test]
async fn zero_means_that_this_server_runs_no_schedules() {
    let w = World::new().await;
    w.view("f", "", PLAIN).await;
    let mut config = w.config.clone();
    config.schedule.check_every = 0;
    let engine = Engine::open(config, w.clock.clone()).await.unwrap();
    let mut schedule = Schedule::start(engine);
    schedule.task.join_next().await.unwrap().unwrap();
    schedule.end(Duration::ZERO).await;
    assert_eq!(w.runs().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_runs_schedules_until_it_ends() {
    let w = World::new().await;
    w.view("\"G \"\" g\"", "ONLINE", PLAIN).await;
    let schedule = Schedule::start(Arc::clone(&w.engine));
    let mut tries = 0;
    while w.count("materialize G \" g succeeded").await == 0 {
        tries += 1;
        assert!(tries < 3000, "never");
        crate::clock::sleep(Duration::from_millis(20)).await;
    }
    schedule.end(Duration::from_secs(60)).await;
    w.clock.advance(HOUR);
    assert_eq!(w.runs().await.len(), 2);
}
