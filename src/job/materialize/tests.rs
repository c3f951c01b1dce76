//! From statements to served rows, on every online store.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::physical_plan::execute_stream;
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::clock::{Clock, HOUR, MINUTE, Micros, SECOND, format_micros};
use crate::config::Config;
use crate::error::{Error, Kind};
use crate::plan::feature_table::SEQ;
use crate::session::{Engine, Outcome, Session};
use crate::store::offline::ScanOptions;
use crate::store::online::Place;

macro_rules! on_every_store {
    ($($case:ident),* $(,)?) => {
        mod embedded_store { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(super::Place::embedded).await }
        )* }
        #[cfg(feature = "redis")]
        mod redis_store { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(super::Place::redis).await }
        )* }
    };
}

mod loads;
mod meddler;
mod pushes;

/// 2100-01-01: a server with a clock of its own lets no row go for its age.
const T0: Micros = 4_102_444_800 * SECOND;

struct World {
    engine: Arc<Engine>,
    session: Session,
    clock: Clock,
    place: Place,
    dir: TempDir,
}

/// A warehouse with an entity and the push view `v` (x BIGINT, y VARCHAR).
async fn world(place: Place, clauses: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(T0);
    let engine = open(&dir, &place, &clock).await;
    let w = World { session: engine.session(), engine, clock, place, dir };
    w.run("CREATE ENTITY e KEY (k BIGINT)").await;
    w.run(&format!("CREATE FEATURE VIEW v (x BIGINT, y VARCHAR) ENTITY e EVENT TIMESTAMP ts {clauses}")).await;
    w
}

async fn open(dir: &TempDir, place: &Place, clock: &Clock) -> Arc<Engine> {
    let config = Config { warehouse: dir.path().join("w").display().to_string(), online: place.url.clone(), ..Default::default() };
    Engine::open(config, clock.clone()).await.unwrap()
}

impl World {
    async fn error(&self, sql: &str) -> Error {
        match self.session.execute(sql).await {
            Err(e) => e,
            Ok(Outcome::Rows(s)) => Error::from(s.try_collect::<Vec<_>>().await.unwrap_err()),
            Ok(Outcome::Updated(n)) => panic!("{sql}: {n} rows"),
        }
    }

    /// The online store loses everything.
    async fn wipe(&mut self) {
        if self.place.url == "embedded" {
            std::fs::remove_dir_all(self.dir.path().join("w/_online")).unwrap();
            self.engine = open(&self.dir, &self.place, &self.clock).await;
            self.session = self.engine.session();
        } else {
            self.place.stop();
            self.place.start();
        }
    }

    /// Rows as text, one string per row; `count` rows for an update.
    async fn run(&self, sql: &str) -> Vec<String> {
        let batches = match self.session.execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")) {
            Outcome::Updated(n) => return vec![n.to_string()],
            Outcome::Rows(s) => s.try_collect::<Vec<_>>().await.unwrap_or_else(|e| panic!("{sql}: {e}")),
        };
        let options = FormatOptions::default().with_null("NULL");
        let mut out = vec![];
        for b in &batches {
            let columns: Vec<_> = b.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
            out.extend((0..b.num_rows()).map(|i| columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>().join("|")));
        }
        out
    }

    async fn insert(&self, rows: &[(i64, Micros, i64)]) {
        let values: Vec<String> = rows.iter().map(|(k, t, x)| format!("({k}, TIMESTAMP '{}', {x}, 'y{x}')", format_micros(*t))).collect();
        self.run(&format!("INSERT INTO v (k, ts, x, y) VALUES {}", values.join(", "))).await;
    }

    /// `x|status` of each key.
    async fn look(&self, keys: &str) -> Vec<String> {
        self.run(&format!("SELECT x, v__status FROM ONLINE_LOOKUP('v', {keys}, status => true)")).await
    }

    /// Rows written by MATERIALIZE.
    async fn materialize(&self, full: &str) -> u64 {
        let runs = self.run(&format!("MATERIALIZE FEATURE VIEW v {full}")).await;
        self.clock.advance(SECOND);
        let at = crate::catalog::Runs::schema().index_of("rows_written").unwrap();
        runs[0].split('|').nth(at).unwrap().parse().unwrap()
    }

    async fn is_online(&self) -> bool {
        self.run("SELECT generation FROM system.online WHERE view = 'v'").await != ["NULL"]
    }

    async fn generations(&self) -> (Vec<u32>, u32) {
        let services = self.engine.services();
        let catalog = services.registry.snapshot().await.unwrap();
        let view = catalog.feature_view(&crate::model::Name { schema: self.session.current_schema(), name: "v".into() }, None).unwrap();
        let (store, id) = (services.online().await.unwrap(), services.online_view(view));
        (store.generations(&id).await.unwrap(), store.pointer(&id).await.unwrap().unwrap().generation)
    }
}

async fn what_is_inserted_is_served(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10), (2, T0 - 10, 20), (1, T0 - 5, 11)]).await;
    assert_eq!(w.look("1, 2, 3").await, ["11|PRESENT", "20|PRESENT", "NULL|NOT_FOUND"]);
    w.insert(&[(1, T0 - 7, 9), (2, T0 - 1, 21)]).await;
    assert_eq!(w.look("1, 2").await, ["11|PRESENT", "21|PRESENT"], "an older row changes nothing");
    w.insert(&[(1, T0 - 5, 3)]).await;
    assert_eq!(w.look("1").await, ["3|PRESENT"], "at the same instant the later write wins");
    assert_eq!(w.materialize("").await, 0, "all of it is there already");
    w.run("DELETE FROM v WHERE k = 2").await;
    w.run("DELETE FROM v WHERE x = 3").await;
    assert_eq!(w.look("1, 2").await, ["11|PRESENT", "NULL|NOT_FOUND"], "the row before comes back");
    w.insert(&[(2, T0 - 100, 5)]).await;
    assert_eq!(w.look("2").await, ["5|PRESENT"], "an older row than the deleted one counts");
}

async fn full_and_incremental_loads_by_statement(place: fn() -> Place) {
    let w = world(place(), "").await;
    w.insert(&[(1, T0 - 10, 10), (1, T0 - 5, 11), (2, T0 - 10, 20)]).await;
    w.run("ALTER FEATURE VIEW v SET ONLINE").await;
    let e = w.error("SELECT x FROM ONLINE_LOOKUP('v', 1)").await;
    assert_eq!((e.kind(), e.hint()), (Kind::Invalid, Some("MATERIALIZE FEATURE VIEW public.v")), "{e}");
    assert_eq!(w.materialize("").await, 2);
    assert_eq!(w.look("1, 2").await, ["11|PRESENT", "20|PRESENT"]);
    assert_eq!(w.materialize("").await, 0);
    let (_, first) = w.generations().await;
    assert_eq!(w.materialize("FULL").await, 2);
    let (_, second) = w.generations().await;
    assert!(second > first);
    w.clock.advance(HOUR);
    assert_eq!(w.materialize("").await, 0);
    assert_eq!(w.generations().await, (vec![second], second), "the old generation goes after the grace time");
    assert_eq!(w.look("1, 2").await, ["11|PRESENT", "20|PRESENT"]);
}

async fn a_row_of_the_future_waits_for_its_instant(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    w.insert(&[(1, T0 - 5, 1), (1, T0 + MINUTE, 2), (2, T0 + MINUTE, 3)]).await;
    let later = format!("SELECT x FROM ONLINE_LOOKUP('v', 1, 2, at => TIMESTAMP '{}')", format_micros(T0 + HOUR));
    assert_eq!(w.run(&later).await, ["1", "NULL"]);
    assert_eq!(w.materialize("").await, 0);
    w.insert(&[(3, T0 - 5, 4)]).await;
    assert_eq!(w.look("1, 2, 3").await, ["1|PRESENT", "NULL|NOT_FOUND", "4|PRESENT"]);
    w.clock.set(T0 + 2 * MINUTE);
    assert!(w.materialize("").await >= 2);
    assert_eq!(w.look("1, 2, 3").await, ["2|PRESENT", "3|PRESENT", "4|PRESENT"]);
    assert_eq!(w.materialize("").await, 0);
}

async fn a_longer_ttl_loads_anew(place: fn() -> Place) {
    let w = world(place(), "ONLINE TTL INTERVAL '1 hour'").await;
    w.insert(&[(1, T0 - 2 * HOUR, 1), (2, T0 - 1, 2)]).await;
    assert_eq!(w.look("2").await, ["2|PRESENT"]);
    let (_, first) = w.generations().await;
    w.run("ALTER FEATURE VIEW v SET TTL INTERVAL '3 hours'").await;
    assert_eq!(w.materialize("").await, 2);
    assert!(w.generations().await.1 > first);
    assert_eq!(w.look("1, 2").await, ["1|PRESENT", "2|PRESENT"]);
}

/// A generator of numbers that are always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n) as i64
    }
}

async fn lookups_equal_point_in_time_joins(place: fn() -> Place) {
    let mut dice = Dice(7);
    for history in 0..3 {
        let w = world(place(), ["ONLINE", "ONLINE TTL INTERVAL '20 seconds'", "ONLINE"][history]).await;
        for step in 0..12 {
            match dice.below(6) {
                0 => drop(w.run(&format!("DELETE FROM v WHERE k = {}", dice.below(5))).await),
                1 => drop(w.run(&format!("DELETE FROM v WHERE x % 4 = {}", dice.below(4))).await),
                2 if step > 0 => {
                    let extent = ["", "FULL", "IN PLACE"][dice.below(3) as usize];
                    // nothing can be replaced before the first rows
                    let _ = w.materialize(if w.is_online().await { extent } else { "" }).await;
                }
                _ => {
                    let rows: Vec<_> = (0..1 + dice.below(6))
                        .map(|_| (dice.below(5), w.clock.now() + (dice.below(40) - 35) * SECOND, dice.below(100)))
                        .collect();
                    w.insert(&rows).await;
                }
            }
            w.clock.advance(dice.below(8) * SECOND);
            if step % 3 != 2 {
                continue;
            }
            w.materialize("").await;
            // MATERIALIZE moved the clock by a second; rows between are of no version that is online
            let at = format_micros(w.clock.now() - SECOND);
            let mut online = w.run(&format!("SELECT k, x, y FROM ONLINE_LOOKUP('v', 0, 1, 2, 3, 4, at => TIMESTAMP '{at}')")).await;
            let labels = format!("(SELECT column1 AS k, TIMESTAMP '{at}' AS at FROM (VALUES (0), (1), (2), (3), (4)))");
            let mut offline = w.run(&format!("SELECT l.k, v.x, v.y FROM {labels} l ASOF JOIN v AT l.at")).await;
            online.sort();
            offline.sort();
            assert_eq!(online, offline, "history {history}, step {step}, at {at}");
        }
    }
}

async fn what_a_query_view_changes_is_applied(place: fn() -> Place) {
    let w = world(place(), "").await;
    w.run("CREATE TABLE src (k BIGINT, ts TIMESTAMP, x BIGINT)").await;
    w.run("CREATE FEATURE VIEW q ENTITY e EVENT TIMESTAMP ts ONLINE AS SELECT k, ts, x FROM src").await;
    let look = "SELECT x FROM ONLINE_LOOKUP('q', 1, 2, 3)";
    w.run("INSERT INTO src VALUES (1, '2099-12-31', 10), (2, '2099-12-31', 20)").await;
    w.run("REFRESH FEATURE VIEW q").await;
    w.run("MATERIALIZE FEATURE VIEW q").await;
    assert_eq!(w.run(look).await, ["10", "20", "NULL"]);
    w.run("INSERT OVERWRITE src VALUES (1, '2099-12-31', 11), (3, '2099-12-31', 30)").await;
    w.run("REFRESH FEATURE VIEW q FULL").await;
    assert_eq!(w.run(look).await, ["10", "20", "NULL"], "not before MATERIALIZE");
    w.run("MATERIALIZE FEATURE VIEW q").await;
    assert_eq!(w.run(look).await, ["11", "NULL", "30"], "changed, removed, added");
}

async fn a_store_that_lost_everything_is_filled_again(place: fn() -> Place) {
    let mut w = world(place(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10), (2, T0 - 10, 20)]).await;
    assert_eq!(w.look("1, 2").await, ["10|PRESENT", "20|PRESENT"]);
    w.wipe().await;
    let e = w.error("SELECT x FROM ONLINE_LOOKUP('v', 1)").await;
    assert_eq!((e.kind(), e.hint()), (Kind::Invalid, Some("MATERIALIZE FEATURE VIEW public.v")), "{e}");
    assert_eq!(w.materialize("").await, 2);
    assert_eq!(w.look("1, 2").await, ["10|PRESENT", "20|PRESENT"]);
    w.wipe().await;
    w.insert(&[(1, T0 - 5, 11)]).await;
    assert_eq!(w.look("1, 2").await, ["11|PRESENT", "20|PRESENT"], "INSERT serves what was there before it, too");
}

on_every_store!(
    what_is_inserted_is_served,
    full_and_incremental_loads_by_statement,
    a_row_of_the_future_waits_for_its_instant,
    a_longer_ttl_loads_anew,
    lookups_equal_point_in_time_joins,
    what_a_query_view_changes_is_applied,
    a_store_that_lost_everything_is_filled_again,
);

#[cfg(feature = "redis")]
mod redis_cluster {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn full_and_incremental_loads_by_statement() {
        super::full_and_incremental_loads_by_statement(super::Place::cluster).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_store_that_lost_everything_is_filled_again() {
        super::a_store_that_lost_everything_is_filled_again(super::Place::cluster).await
    }
}

/// Two handles of one warehouse stand for two processes: they share nothing but the files.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_of_inserts_that_race_are_numbered_apart() {
    const STATEMENTS: i64 = 24;
    let w = world(Place::redis(), "ONLINE").await;
    w.run("CREATE FEATURE VIEW c (x BIGINT, y VARCHAR) ENTITY e EVENT TIMESTAMP ts CREATED TIMESTAMP made").await;
    let other = open(&w.dir, &w.place, &w.clock).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..STATEMENTS {
        let session = [&w.engine, &other][n as usize % 2].session();
        tasks.spawn(async move {
            // no order of values passes for the order of commits
            let (a, b) = (n * 37 % 101, 100 - n * 53 % 97);
            let values = format!("(1, TIMESTAMP '2099-12-31', {a}, 'y{b}'), (2, TIMESTAMP '2099-12-31', {b}, 'y{a}')");
            session.execute(&format!("INSERT INTO v (k, ts, x, y) VALUES {values}")).await.unwrap();
            let values = format!("(1, TIMESTAMP '2099-12-31', TIMESTAMP '2099-12-31', {a}, 'y{b}')");
            session.execute(&format!("INSERT INTO c (k, ts, made, x, y) VALUES {values}")).await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let services = w.engine.services();
    for (view, rows) in [("v", 2 * STATEMENTS), ("c", STATEMENTS)] {
        let name = crate::model::Name { schema: w.session.current_schema(), name: view.into() };
        let catalog = services.registry.snapshot().await.unwrap();
        let location = &catalog.feature_view(&name, None).unwrap().location;
        let snapshot = services.store.snapshot(location, None).await.unwrap();
        let mut seen = BTreeSet::new();
        for file in snapshot.files() {
            let options = ScanOptions { hidden: true, files: Some(vec![Arc::clone(file)]), ..Default::default() };
            let scan = services.store.scan_provider(&snapshot, options).unwrap();
            let plan = scan.scan(services.session.as_ref(), None, &[], None).await.unwrap();
            let cx = services.session.task_ctx();
            let batches: Vec<_> = execute_stream(plan, cx).unwrap().try_collect().await.unwrap();
            let numbers = batches.iter().flat_map(|b| b.column_by_name(SEQ).unwrap().as_primitive::<Int64Type>().values().to_vec());
            // files come in the order of their commits
            let numbers: BTreeSet<i64> = numbers.collect();
            assert!(seen.last() < numbers.first(), "{view}: {seen:?} {numbers:?}");
            seen.extend(numbers);
        }
        assert_eq!(seen.len() as i64, rows, "{view}");
    }
    w.run("ALTER FEATURE VIEW c SET ONLINE").await;
    w.run("MATERIALIZE FEATURE VIEW c").await;
    for view in ["v", "c"] {
        let online = w.run(&format!("SELECT k, x, y FROM ONLINE_LOOKUP('{view}', 1, 2)")).await;
        let labels = format!("(SELECT column1 AS k, TIMESTAMP '{}' AS at FROM (VALUES (1), (2)))", format_micros(T0));
        assert_eq!(online, w.run(&format!("SELECT l.k, {view}.x, {view}.y FROM {labels} l ASOF JOIN {view} AT l.at")).await, "{view}");
    }
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_down_or_hangs_is_an_error_in_time() {
    let mut w = world(Place::redis(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10)]).await;
    let named = w.place.url.clone();
    let statements = ["SELECT x FROM ONLINE_LOOKUP('v', 1)", "MATERIALIZE FEATURE VIEW v", "MATERIALIZE FEATURE VIEW v FULL"];
    for hangs in [true, false] {
        match hangs {
            true => w.place.pause(true),
            false => w.place.stop(),
        }
        for sql in statements {
            let e = crate::clock::timeout(std::time::Duration::from_secs(5), w.error(sql)).await.unwrap_or_else(|_| panic!("{sql} waits"));
            assert!(e.kind() == Kind::Unavailable && e.message().contains(&named), "{sql}: {e}");
        }
        if hangs {
            w.place.pause(false);
        }
    }
    // what cannot be served is not stored
    let e = w.error("INSERT INTO v (k, ts, x) VALUES (1, '2099-12-31 23:59:59.999999', 11)").await;
    assert!(e.kind() == Kind::Unavailable && e.message().contains(&named), "{e}");
    assert_eq!(w.run("SELECT count(*) FROM v").await, ["1"]);
    assert!(w.run("SELECT error FROM system.online").await[0].contains(&named));
    w.place.start();
    w.run("MATERIALIZE FEATURE VIEW v").await;
    assert_eq!(w.look("1").await, ["10|PRESENT"]);
    assert_eq!(w.run("SELECT error FROM system.online").await, ["NULL"]);
}
