use std::sync::Arc;

use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::clock::{Clock, HOUR, MINUTE, Micros, SECOND, format_micros};
use crate::config::Config;
use crate::session::{Engine, Outcome, Session};

const T0: Micros = 1_767_225_600 * SECOND; // 2026-01-01

struct World {
    engine: Arc<Engine>,
    session: Session,
    clock: Clock,
    _dir: TempDir,
}

/// A warehouse with an entity and the push view `v` (x BIGINT, y VARCHAR).
async fn world(clauses: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(T0);
    let config = Config { warehouse: dir.path().join("w").display().to_string(), ..Default::default() };
    let engine = Engine::open(config, clock.clone()).await.unwrap();
    let w = World { session: engine.session(), engine, clock, _dir: dir };
    w.run("CREATE ENTITY e KEY (k BIGINT)").await;
    w.run(&format!("CREATE FEATURE VIEW v (x BIGINT, y VARCHAR) ENTITY e EVENT TIMESTAMP ts {clauses}")).await;
    w
}

impl World {
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

    async fn generations(&self) -> (Vec<u32>, u32) {
        let services = self.engine.services();
        let catalog = services.registry.snapshot().await.unwrap();
        let view = catalog.feature_view(&crate::model::Name { schema: self.session.current_schema(), name: "v".into() }, None).unwrap();
        let (store, id) = (services.online().await.unwrap(), services.online_view(view));
        (store.generations(&id).await.unwrap(), store.pointer(&id).await.unwrap().unwrap().generation)
    }
}

#[tokio::test]
async fn what_is_inserted_is_served() {
    let w = world("ONLINE").await;
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

#[tokio::test]
async fn full_and_incremental_loads_by_statement() {
    let w = world("").await;
    w.insert(&[(1, T0 - 10, 10), (1, T0 - 5, 11), (2, T0 - 10, 20)]).await;
    w.run("ALTER FEATURE VIEW v SET ONLINE").await;
    let e = w.session.execute("SELECT x FROM ONLINE_LOOKUP('v', 1)").await;
    let e = match e {
        Err(e) => e.to_string(),
        Ok(Outcome::Rows(s)) => s.try_collect::<Vec<_>>().await.unwrap_err().to_string(),
        Ok(Outcome::Updated(_)) => panic!("a count"),
    };
    assert!(e.contains("MATERIALIZE"), "{e}");
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

#[tokio::test]
async fn a_row_of_the_future_waits_for_its_instant() {
    let w = world("ONLINE").await;
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

#[tokio::test]
async fn a_longer_ttl_loads_anew() {
    let w = world("ONLINE TTL INTERVAL '1 hour'").await;
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

#[tokio::test]
async fn lookups_equal_point_in_time_joins() {
    let mut dice = Dice(7);
    for history in 0..3 {
        let w = world(["ONLINE", "ONLINE TTL INTERVAL '20 seconds'", "ONLINE"][history]).await;
        for step in 0..12 {
            match dice.below(6) {
                0 => drop(w.run(&format!("DELETE FROM v WHERE k = {}", dice.below(5))).await),
                1 => drop(w.run(&format!("DELETE FROM v WHERE x % 4 = {}", dice.below(4))).await),
                2 if step > 0 => drop(w.materialize(["", "FULL"][dice.below(2) as usize]).await),
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
