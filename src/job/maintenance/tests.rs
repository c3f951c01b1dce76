//! Two engines over one warehouse, as two processes would be. What one does between another's work and its commit
//! is said by `meanwhile`; nothing depends on timing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::TaskContext;
use futures::TryStreamExt;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::catalog::{CatalogChange, PutMode, Run};
use crate::clock::{Clock, DAY, HOUR, MINUTE, Micros, SECOND, format_micros};
use crate::config::Config;
use crate::error::{Kind, Result};
use crate::job::tests::put_online;
use crate::model::{FeatureView, Name};
use crate::session::{Engine, Outcome, Session};
use crate::store::offline::Keep;
use crate::table::read::scan;

const T0: Micros = 1_767_225_600 * SECOND; // 2026-01-01

struct World {
    a: Arc<Engine>,
    b: Arc<Engine>,
    clock: Clock,
    _dir: TempDir,
}

/// The answer's rows as text; a number of rows for an update.
async fn run(session: &Session, sql: &str) -> Result<Vec<String>> {
    let batches = match session.execute(sql).await? {
        Outcome::Updated(n) => return Ok(vec![n.to_string()]),
        Outcome::Rows(s) => s.try_collect::<Vec<_>>().await?,
    };
    let options = FormatOptions::default().with_null("NULL");
    let mut out = vec![];
    for b in &batches {
        let columns: Vec<_> = b.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        out.extend((0..b.num_rows()).map(|i| columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>().join("|")));
    }
    Ok(out)
}

impl World {
    async fn new() -> World {
        World::with(|_| {}).await
    }

    async fn with(settings: impl Fn(&mut Config)) -> World {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::fixed(T0);
        // small enough that tables of a few rows have several files
        let mut config = Config {
            warehouse: dir.path().join("w").display().to_string(),
            target_file_rows: 8,
            row_group_rows: 4,
            threads: 2,
            ..Default::default()
        };
        settings(&mut config);
        let a = Engine::open(config.clone(), clock.clone()).await.unwrap();
        let b = Engine::open(config, clock.clone()).await.unwrap();
        World { a, b, clock, _dir: dir }
    }

    async fn sql(&self, sql: &str) -> Vec<String> {
        run(&self.a.session(), sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    async fn script(&self, script: &str) {
        for (text, ..) in Session::split(script).unwrap() {
            self.sql(&text).await;
        }
    }

    /// `first` by one process; `second` by another before `first` commits to a feature table, or afterwards where it
    /// has nothing to commit. Answers both, and whether `second` came first.
    async fn interleaved(&self, first: &str, second: &str, wait: Micros) -> (Result<Vec<String>>, Result<Vec<String>>, bool) {
        let (other, text, clock) = (self.b.session(), second.to_string(), self.clock.clone());
        let outcome = Arc::new(parking_lot::Mutex::new(None));
        let seen = Arc::clone(&outcome);
        let step = Box::pin(async move {
            clock.advance(wait);
            let done = run(&other, &text).await;
            *seen.lock() = Some(done);
        });
        *self.a.services().store.meanwhile.lock() = Some(step);
        let first_done = run(&self.a.session(), first).await;
        let rest = self.a.services().store.meanwhile.lock().take();
        let reached = rest.is_none();
        if let Some(step) = rest {
            step.await;
        }
        let second_done = outcome.lock().take().unwrap();
        (first_done, second_done, reached)
    }

    async fn view(&self, name: &str) -> FeatureView {
        let catalog = self.a.services().registry.snapshot().await.unwrap();
        catalog.feature_view(&Name::new("public", name), None).unwrap().clone()
    }

    /// All rows, `_seq` last, in the order of a sorted read.
    async fn rows(&self, name: &str) -> Vec<String> {
        let (services, view) = (self.b.services(), self.view(name).await);
        let snapshot = services.store.snapshot(&view.location, None).await.unwrap();
        let rows = scan(services, &view, &snapshot, None, None, true, &Arc::new(TaskContext::default())).await.unwrap();
        let batches: Vec<_> = rows.try_collect().await.unwrap();
        let mut out = vec![];
        for b in &batches {
            let columns: Vec<_> = b.columns().iter().map(|c| ArrayFormatter::try_new(c, &FormatOptions::default()).unwrap()).collect();
            out.extend((0..b.num_rows()).map(|i| columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>().join("|")));
        }
        out
    }

    /// Rows of the table per data file, in files of one order.
    async fn files(&self, name: &str) -> Vec<u64> {
        let view = self.view(name).await;
        let snapshot = self.b.services().store.snapshot(&view.location, None).await.unwrap();
        snapshot.files().iter().map(|f| f.rows.unwrap()).collect()
    }

    async fn version(&self, name: &str) -> u64 {
        let view = self.view(name).await;
        self.b.services().store.snapshot(&view.location, None).await.unwrap().version()
    }

    async fn data_files(&self, name: &str) -> usize {
        let dir = self.dir(name).await;
        std::fs::read_dir(dir).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains(".parquet")).count()
    }

    async fn dir(&self, name: &str) -> PathBuf {
        self.a.services().store.local_dir().unwrap().join(self.view(name).await.location)
    }
}

fn without_seq(rows: &[String]) -> Vec<String> {
    let mut out: Vec<String> = rows.iter().map(|r| r.rsplit_once('|').unwrap().0.to_string()).collect();
    out.sort();
    out
}

/// A push view `p` of five commits, and a view `q` over the table `src`, refreshed three times.
async fn filled() -> World {
    let w = World::new().await;
    w.script(
        "CREATE ENTITY e KEY (k BIGINT);
        CREATE FEATURE VIEW p (x BIGINT) ENTITY e EVENT TIMESTAMP ts;
        CREATE TABLE src (k BIGINT, ts TIMESTAMP, x BIGINT);
        CREATE FEATURE VIEW q ENTITY e EVENT TIMESTAMP ts LOOKBACK INTERVAL '1 hour' AS SELECT k, ts, x FROM src",
    )
    .await;
    for i in 0..3 {
        let rows: Vec<String> =
            (0..3).map(|k| format!("({k}, TIMESTAMP '{}', {})", format_micros(T0 - 10 * HOUR + (i * 3 + k) * MINUTE), i * 3 + k)).collect();
        w.sql(&format!("INSERT INTO p VALUES {}", rows.join(", "))).await;
        w.sql(&format!("INSERT INTO src VALUES {}", rows.join(", "))).await;
        w.sql("REFRESH FEATURE VIEW q").await;
    }
    // work for a later run: one row more, one less than was stored
    w.sql(&format!(
        "INSERT INTO src VALUES (7, TIMESTAMP '{}', 70), (8, TIMESTAMP '{}', 80)",
        format_micros(T0 - 5 * HOUR),
        format_micros(T0 - MINUTE)
    ))
    .await;
    w
}

const ON_P: [&str; 5] = [
    "OPTIMIZE FEATURE VIEW p",
    "INSERT INTO p VALUES (1, TIMESTAMP '2025-12-31 23:00:00', 100), (9, TIMESTAMP '2025-12-31 23:00:00', 101)",
    "DELETE FROM p WHERE k = 1",
    "DELETE FROM p",
    "VACUUM FEATURE VIEW p RETAIN INTERVAL '1 hour'",
];
const ON_Q: [&str; 4] = [
    "OPTIMIZE FEATURE VIEW q",
    "REFRESH FEATURE VIEW q",
    "REFRESH FEATURE VIEW q FULL",
    "REFRESH FEATURE VIEW q FROM '2025-12-31 14:02:00' TO '2025-12-31 20:00:00'",
];

/// Whichever two statements meet, the outcome is that of one after the other (docs/storage.md, "Two writers").
async fn one_after_another(view: &str, statements: &[&str]) {
    for (i, first) in statements.iter().enumerate() {
        for (j, second) in statements.iter().enumerate() {
            if i != 0 && j != 0 {
                // pairs without OPTIMIZE are not this module's
                continue;
            }
            let serial = filled().await;
            serial.sql(second).await;
            serial.sql(first).await;
            let expected = without_seq(&serial.rows(view).await);
            let w = filled().await;
            let before: BTreeMap<String, String> =
                w.rows(view).await.iter().map(|r| r.rsplit_once('|').unwrap()).map(|(r, seq)| (r.into(), seq.into())).collect();
            // as after a lease that ended while its holder slept
            let (x, y, _) = w.interleaved(first, second, HOUR).await;
            x.unwrap_or_else(|e| panic!("{first}, meanwhile {second}: {e}"));
            y.unwrap_or_else(|e| panic!("{second} during {first}: {e}"));
            let rows = w.rows(view).await;
            assert_eq!(without_seq(&rows), expected, "{first}, meanwhile {second}");
            if view == "p" {
                for row in &rows {
                    let (row, seq) = row.rsplit_once('|').unwrap();
                    assert!(before.get(row).is_none_or(|s| s == seq), "{first}, meanwhile {second}: {row} has got another _seq");
                }
            }
            assert!(w.files(view).await.iter().sum::<u64>() == rows.len() as u64);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn optimize_against_insert_delete_vacuum_and_itself() {
    one_after_another("p", &ON_P).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn optimize_against_refresh_of_every_kind() {
    one_after_another("q", &ON_Q).await;
}

#[tokio::test]
async fn many_small_files_become_one_sorted_file_and_the_next_run_finds_nothing() {
    let w = filled().await;
    let before = w.rows("p").await;
    assert_eq!(w.files("p").await, [3, 3, 3]);
    let (version, history) = (w.version("p").await, w.sql("SELECT count(*) FROM system.runs WHERE kind = 'optimize'").await);
    assert_eq!(history, ["0"]);
    let done = w.sql("OPTIMIZE FEATURE VIEW p").await;
    assert!(done[0].starts_with("public.p@v1|3|2|"), "{done:?}");
    assert_eq!((w.files("p").await, w.version("p").await), (vec![8, 1], version + 1));
    assert_eq!(w.rows("p").await, before, "rows and _seq are as they were");
    let session = w.a.session();
    run(&session, "OPTIMIZE FEATURE VIEW p").await.unwrap();
    assert!(session.notices()[0].message.contains("nothing to do, its 2 file(s) are fit"), "{:?}", session.notices());
    assert_eq!(w.version("p").await, version + 1, "no commit");
    let runs = w.sql("SELECT status, rows_written, delta_version FROM system.runs WHERE kind = 'optimize' ORDER BY rows_written").await;
    assert_eq!(runs, [format!("succeeded|0|{}", version + 1), format!("succeeded|9|{}", version + 1)]);
    // old versions can still be read
    assert_eq!(w.sql(&format!("SELECT count(*) FROM p VERSION AS OF {version}")).await, ["9"]);
}

#[tokio::test]
async fn a_small_memory_limit_sorts_instead_of_merging() {
    let w = World::with(|c| {
        c.memory_limit = 24 << 20;
        c.target_file_rows = 4_000;
        c.row_group_rows = 1_000;
    })
    .await;
    w.script("CREATE ENTITY e KEY (k BIGINT); CREATE FEATURE VIEW p (x VARCHAR) ENTITY e EVENT TIMESTAMP ts").await;
    for i in 0..4 {
        // texts that do not compress
        let text: Vec<String> = (0..20).map(|n| format!("encode(sha512('{n}-{i}-' || v), 'hex')")).collect();
        let text = text.join(" || ");
        w.sql(&format!(
            "INSERT INTO p SELECT (v * 7919 + {i}) % 1000, TIMESTAMP '2025-12-01', {text} AS x FROM generate_series(1, 1500) AS t (v)"
        ))
        .await;
    }
    let table = w.a.services().store.snapshot(&w.view("p").await.location, None).await.unwrap();
    assert!(table.files().iter().map(|f| f.size).sum::<u64>() > 6 << 20, "more than a quarter of the limit");
    let before = w.rows("p").await;
    w.sql("OPTIMIZE FEATURE VIEW p").await;
    assert_eq!(w.files("p").await, [4_000, 2_000]);
    assert!(w.rows("p").await == before, "the rows have changed");
}

#[tokio::test]
async fn a_lease_lets_one_process_work_at_a_time() {
    let w = filled().await;
    let (x, y, _) = w.interleaved("OPTIMIZE FEATURE VIEW p", "OPTIMIZE FEATURE VIEW p", 0).await;
    x.unwrap();
    let e = y.unwrap_err();
    assert_eq!(e.kind(), Kind::Conflict);
    assert!(e.message().contains("is being maintained already, by "), "{e}");
    let (x, y, _) = w.interleaved("OPTIMIZE FEATURE VIEW q", "VACUUM FEATURE VIEW q", 0).await;
    assert_eq!((x.is_ok(), y.map_err(|e| e.kind())), (true, Err(Kind::Conflict)));
    assert_eq!(w.sql("SELECT count(*) FROM system.runs WHERE status <> 'succeeded'").await, ["0"], "what was refused is no run");
    // of a process that was killed: nobody waits for it
    let (store, dead) = (&w.b.services().store, crate::catalog::runs::this_process() + "0");
    let name = format!("maintenance/{}", w.view("p").await.table_id);
    assert!(store.acquire_lease(&name, &dead, HOUR).await.unwrap().is_some());
    w.sql("VACUUM FEATURE VIEW p").await;
    // given back
    assert!(run(&w.b.session(), "OPTIMIZE FEATURE VIEW p").await.is_ok());
}

#[tokio::test]
async fn of_two_optimizes_on_one_version_the_later_gives_up_its_files() {
    let w = filled().await;
    let before = w.rows("p").await;
    let (x, y, _) = w.interleaved("OPTIMIZE FEATURE VIEW p", "OPTIMIZE FEATURE VIEW p", HOUR).await;
    assert!(y.unwrap()[0].starts_with("public.p@v1|3|2|"));
    assert!(x.unwrap()[0].starts_with("public.p@v1|2|2|"), "it finds a table that is fit");
    assert_eq!(w.rows("p").await, before);
    assert_eq!(w.data_files("p").await, 5, "three old ones, two new ones, none of the loser's");
}

#[tokio::test]
async fn an_optimize_goes_behind_inserts_without_starting_again() {
    let w = filled().await;
    let (x, y, _) = w.interleaved("OPTIMIZE FEATURE VIEW p", ON_P[1], 0).await;
    y.unwrap();
    assert!(x.unwrap()[0].starts_with("public.p@v1|3|3|"), "two new files and the inserted one");
    assert_eq!(w.files("p").await.iter().sum::<u64>(), 11);
}

#[tokio::test]
async fn files_of_other_engines_are_sorted() {
    let w = filled().await;
    // what Spark would leave: the same rows in a file without our tags
    let (view, services) = (w.view("p").await, w.a.services());
    let log = w.dir("p").await.join("_delta_log");
    let base = services.store.snapshot(&view.location, None).await.unwrap();
    let last = log.join(format!("{:020}.json", base.version()));
    let text: String = std::fs::read_to_string(&last)
        .unwrap()
        .lines()
        .filter(|l| l.contains("\"add\""))
        .map(|l| {
            let mut action: serde_json::Value = serde_json::from_str(l).unwrap();
            let add = action["add"].as_object_mut().unwrap();
            let old = add["path"].as_str().unwrap().to_string();
            std::fs::copy(log.parent().unwrap().join(&old), log.parent().unwrap().join("foreign.parquet")).unwrap();
            add.insert("path".into(), "foreign.parquet".into());
            add.remove("tags");
            action.to_string() + "\n"
        })
        .collect();
    std::fs::write(log.join(format!("{:020}.json", base.version() + 1)), text).unwrap();
    let before = w.rows("p").await;
    assert_eq!(before.len(), 12);
    w.sql("OPTIMIZE FEATURE VIEW p").await;
    assert_eq!(w.rows("p").await, before);
    let table = services.store.snapshot(&view.location, None).await.unwrap();
    assert!(table.files().iter().all(|f| f.order == ["k", "ts", "_seq"]), "{:?}", table.files());
}

/// `x|status` of keys.
async fn look(w: &World, keys: &str) -> Vec<String> {
    w.sql(&format!("SELECT x, p__status FROM ONLINE_LOOKUP('p', {keys}, status => true)")).await
}

/// Rows read and written by MATERIALIZE.
async fn materialize(w: &World) -> String {
    w.sql("MATERIALIZE FEATURE VIEW p").await;
    w.clock.advance(SECOND);
    w.sql("SELECT rows_read, rows_written FROM system.runs WHERE kind = 'materialize' ORDER BY started_at DESC LIMIT 1").await[0].clone()
}

#[tokio::test]
async fn what_is_online_is_not_loaded_again() {
    let w = filled().await;
    w.sql("ALTER FEATURE VIEW p SET ONLINE").await;
    assert_eq!(materialize(&w).await, "9|3");
    w.sql("OPTIMIZE FEATURE VIEW p").await;
    assert_eq!(materialize(&w).await, "0|0");
    assert_eq!(look(&w, "0, 1, 2").await, ["6|PRESENT", "7|PRESENT", "8|PRESENT"]);
    w.sql(ON_P[1]).await;
    assert_eq!(look(&w, "1, 9").await, ["100|PRESENT", "101|PRESENT"]);
    // rows that came and were rewritten before anybody served them
    put_online(w.a.services(), "p", None, false).await;
    w.script(
        "INSERT INTO p VALUES (1, TIMESTAMP '2025-12-31 23:20:00', 150), (8, TIMESTAMP '2025-12-31 23:20:00', 8); OPTIMIZE FEATURE VIEW p",
    )
    .await;
    put_online(w.a.services(), "p", None, true).await;
    assert_eq!(materialize(&w).await, "2|2", "they alone are read");
    assert_eq!(look(&w, "1, 8, 0").await, ["150|PRESENT", "8|PRESENT", "6|PRESENT"]);
    // and some of them removed again
    put_online(w.a.services(), "p", None, false).await;
    w.script("INSERT INTO p VALUES (2, TIMESTAMP '2025-12-31 23:30:00', 200); DELETE FROM p WHERE k = 9; OPTIMIZE FEATURE VIEW p").await;
    put_online(w.a.services(), "p", None, true).await;
    materialize(&w).await;
    assert_eq!(look(&w, "1, 2, 9").await, ["150|PRESENT", "200|PRESENT", "NULL|NOT_FOUND"]);
}

#[tokio::test]
async fn an_optimize_in_the_middle_of_a_materialize_loses_nothing() {
    let w = filled().await;
    w.sql("ALTER FEATURE VIEW p SET ONLINE").await;
    // the commit that is waited for is the INSERT's: its online writes then span both versions
    let (x, y, _) = w.interleaved(ON_P[1], "OPTIMIZE FEATURE VIEW p", 0).await;
    x.unwrap();
    y.unwrap();
    materialize(&w).await;
    assert_eq!(look(&w, "0, 1, 9").await, ["6|PRESENT", "100|PRESENT", "101|PRESENT"]);
}

#[tokio::test]
async fn vacuum_leaves_what_the_retention_and_training_sets_need() {
    let w = filled().await;
    w.script(
        "CREATE TABLE labels AS SELECT * FROM (VALUES (1, TIMESTAMP '2026-01-01')) AS t (k, at);
        CREATE TRAINING SET pinned AS SELECT l.*, p.x FROM labels l ASOF JOIN p AT l.at",
    )
    .await;
    let pinned = w.version("p").await;
    w.clock.advance(DAY);
    w.sql("DELETE FROM p WHERE k = 2").await;
    w.clock.advance(2 * HOUR);
    w.sql("OPTIMIZE FEATURE VIEW p").await;
    let optimized = w.version("p").await;
    let files = w.data_files("p").await;
    assert_eq!(files, 7, "three of INSERT, three of DELETE, one of OPTIMIZE");

    // all of it within the retention
    assert!(w.sql("VACUUM FEATURE VIEW p").await[0].starts_with("public.p@v1|0|0|0|false|"));
    w.clock.advance(30 * MINUTE);
    let dry = w.sql("VACUUM FEATURE VIEW p RETAIN INTERVAL '1 hour' DRY RUN").await;
    assert!(
        dry[0].starts_with("public.p@v1|0|") && dry[0].ends_with("|true|NULL"),
        "the version before OPTIMIZE was current an hour ago: {dry:?}"
    );
    w.clock.advance(HOUR);
    let dry = w.sql("VACUUM FEATURE VIEW p DRY RUN RETAIN INTERVAL '1 hour'").await;
    assert!(dry[0].starts_with("public.p@v1|3|"), "{dry:?}");
    assert_eq!(w.data_files("p").await, files, "a dry run removes nothing");
    let done = w.sql("VACUUM FEATURE VIEW p RETAIN INTERVAL '1 hour'").await;
    assert!(done[0].starts_with("public.p@v1|3|") && done[0].contains(&format!("|{optimized}|false|")), "{done:?}");
    assert_eq!(w.data_files("p").await, files - 3);

    assert_eq!(w.rows("p").await.len(), 6);
    let rebuilt = w.sql("REBUILD TRAINING SET pinned").await;
    assert!(rebuilt[0].ends_with("|true"), "{rebuilt:?}");
    assert_eq!(w.sql(&format!("SELECT count(*) FROM p VERSION AS OF {pinned}")).await, ["9"]);
    let e = run(&w.a.session(), &format!("SELECT sum(x) FROM p VERSION AS OF {}", pinned + 1)).await.unwrap_err();
    assert!(e.kind() == Kind::NotFound && e.to_string().contains("VACUUM"), "{e}");

    w.sql("DROP TRAINING SET pinned").await;
    assert!(w.sql("VACUUM FEATURE VIEW p RETAIN INTERVAL '1 hour'").await[0].starts_with("public.p@v1|3|"));
    assert_eq!(w.data_files("p").await, 1);
    assert_eq!(w.rows("p").await.len(), 6);
}

#[tokio::test]
async fn vacuum_leaves_what_the_next_materialize_reads() {
    let w = filled().await;
    w.sql("ALTER FEATURE VIEW p SET ONLINE").await;
    materialize(&w).await;
    put_online(w.a.services(), "p", None, false).await;
    w.script("DELETE FROM p WHERE k = 2; INSERT INTO p VALUES (0, TIMESTAMP '2025-12-31 23:30:00', 300); OPTIMIZE FEATURE VIEW p").await;
    w.clock.advance(2 * DAY);
    put_online(w.a.services(), "p", None, true).await;
    let session = w.a.session();
    assert!(run(&session, "VACUUM FEATURE VIEW p RETAIN INTERVAL '1 day'").await.unwrap()[0].contains("|0|0|"));
    assert!(session.notices()[0].message.contains("are kept for the next MATERIALIZE"), "{:?}", session.notices());
    materialize(&w).await;
    assert_eq!(look(&w, "0, 1, 2").await, ["300|PRESENT", "7|PRESENT", "NULL|NOT_FOUND"]);
    assert!(w.sql("VACUUM FEATURE VIEW p RETAIN INTERVAL '1 day'").await[0].starts_with("public.p@v1|7|"));
    assert_eq!(w.data_files("p").await, 1);
}

#[tokio::test]
async fn a_materialize_that_finds_files_gone_loads_everything() {
    let w = filled().await;
    w.sql("ALTER FEATURE VIEW p SET ONLINE").await;
    materialize(&w).await;
    put_online(w.a.services(), "p", None, false).await;
    w.script("DELETE FROM p WHERE k = 2; OPTIMIZE FEATURE VIEW p").await;
    w.clock.advance(2 * DAY);
    // not ONLINE: nothing says that its versions are needed
    assert!(w.sql("VACUUM FEATURE VIEW p RETAIN INTERVAL '1 day'").await[0].starts_with("public.p@v1|6|"));
    put_online(w.a.services(), "p", None, true).await;
    let session = w.a.session();
    run(&session, "MATERIALIZE FEATURE VIEW p").await.unwrap();
    assert!(session.notices()[0].message.contains("files that changed are gone; all of it is loaded again"), "{:?}", session.notices());
    assert_eq!(look(&w, "0, 1, 2").await, ["6|PRESENT", "7|PRESENT", "NULL|NOT_FOUND"]);
}

#[tokio::test]
async fn vacuum_removes_what_dead_writers_left_and_nothing_of_living_ones() {
    let w = filled().await;
    let dir = w.dir("p").await;
    let leave = |name: &str, age: Micros| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "x").unwrap();
        let at = std::time::UNIX_EPOCH + Duration::from_micros((T0 - age).unsigned_abs());
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
    };
    leave("part-old.zstd.parquet", 3 * DAY);
    leave("part-half.zstd.parquet#2", 3 * DAY);
    leave("part-new.zstd.parquet", HOUR);
    leave("part-new-half.zstd.parquet#1", HOUR);
    leave("notes.txt", 300 * DAY);
    leave("_change_data/old.parquet", 300 * DAY);
    let vacuum = "VACUUM FEATURE VIEW p RETAIN INTERVAL '1 hour'";
    // a run that began before they were written and is not over
    let running = Run {
        run_id: "slow".into(),
        kind: "refresh".into(),
        object: "public.p".into(),
        started_at: T0 - 4 * DAY,
        location: Some(w.view("p").await.location),
        process: Some(crate::catalog::runs::this_process()),
        ..Default::default()
    };
    w.a.services().runs.start(&running).await.unwrap();
    assert!(w.sql(vacuum).await[0].starts_with("public.p@v1|0|"));
    w.a.services().runs.finish(&Run { status: crate::catalog::RunStatus::Failed, ..running }).await.unwrap();
    assert!(w.sql(vacuum).await[0].starts_with("public.p@v1|2|2|"));
    let left = |name: &str| dir.join(name).exists();
    assert!(!left("part-old.zstd.parquet") && !left("part-half.zstd.parquet#2"));
    assert!(left("part-new.zstd.parquet") && left("part-new-half.zstd.parquet#1") && left("notes.txt") && left("_change_data/old.parquet"));
    assert_eq!(w.rows("p").await.len(), 9);
}

/// So late that every file of this test is days old.
fn days_later() -> Micros {
    Clock::system().now() + 3 * DAY - T0
}

const NEW_ROW: &str = "INSERT INTO p VALUES (5, TIMESTAMP '2025-12-31 23:00:00', 500)";

#[tokio::test]
async fn a_statement_whose_files_vacuum_removed_fails_before_its_commit() {
    for slow in [NEW_ROW, "DELETE FROM p WHERE k = 1"] {
        let w = filled().await;
        let (before, version) = (w.rows("p").await, w.version("p").await);
        let (x, y, reached) = w.interleaved(slow, "VACUUM FEATURE VIEW p RETAIN INTERVAL '1 hour'", days_later()).await;
        assert!(y.unwrap()[0] != "public.p@v1|0|0|0|false" && reached);
        let e = x.expect_err(slow);
        assert_eq!(e.kind(), Kind::Unavailable, "{e}");
        assert!(e.message().contains(&w.view("p").await.location) && e.message().contains("VACUUM removed its files"), "{e}");
        assert!(e.hint().unwrap().contains("run the statement again"), "{e}");
        assert_eq!((w.rows("p").await, w.version("p").await), (before, version), "{slow}");
        w.sql(slow).await;
    }
    // a run speaks for its files
    let w = filled().await;
    let (x, y, _) = w.interleaved("REFRESH FEATURE VIEW q", "VACUUM FEATURE VIEW q RETAIN INTERVAL '1 hour'", days_later()).await;
    y.unwrap();
    x.unwrap();
    assert!(!w.rows("q").await.is_empty());
}

#[tokio::test]
async fn files_on_the_list_of_a_vacuum_are_committed_under_other_names() {
    for slow in [NEW_ROW, "DELETE FROM p WHERE k = 1"] {
        let serial = filled().await;
        serial.sql(slow).await;
        let expected = serial.rows("p").await;
        let w = filled().await;
        let (store, clock, location) = (Arc::clone(&w.b.services().store), w.clock.clone(), w.view("p").await.location);
        let list = Arc::new(parking_lot::Mutex::new(None));
        let found = Arc::clone(&list);
        let step = {
            let (store, location) = (Arc::clone(&store), location.clone());
            Box::pin(async move {
                clock.advance(days_later());
                let keep = Keep { since: clock.now() - DAY, strays_since: clock.now() - DAY, ..Default::default() };
                *found.lock() = Some(store.garbage(&location, &keep).await.unwrap());
            })
        };
        *w.a.services().store.meanwhile.lock() = Some(step);
        w.sql(slow).await;
        let list = list.lock().take().unwrap();
        assert!(!list.is_empty());
        store.remove_garbage(&location, list).await.unwrap();
        assert_eq!(w.rows("p").await, expected, "{slow}");
        assert_eq!(w.data_files("p").await, serial.data_files("p").await, "the old files are not left");
    }
}

const OLD: &str = "CREATE TABLE labels AS SELECT * FROM (VALUES (1, TIMESTAMP '2026-01-01')) AS t (k, at)";

/// `filled()`, and long ago its rows of key 2 were deleted. Answers the version before that too.
async fn with_an_old_version() -> (World, u64) {
    let w = filled().await;
    w.sql(OLD).await;
    let old = w.version("p").await;
    w.clock.advance(DAY);
    w.sql("DELETE FROM p WHERE k = 2").await;
    w.clock.advance(DAY);
    (w, old)
}

const VACUUM_P: &str = "VACUUM FEATURE VIEW p RETAIN INTERVAL '1 hour'";

fn training_set(version: u64) -> String {
    format!("CREATE TRAINING SET t AS SELECT k, ts, x FROM p VERSION AS OF {version}")
}

#[tokio::test]
async fn a_training_set_whose_version_vacuum_removed_meanwhile_is_not_made() {
    let (w, old) = with_an_old_version().await;
    let (x, y, reached) = w.interleaved(&training_set(old), VACUUM_P, 0).await;
    assert!(y.unwrap()[0].starts_with("public.p@v1|3|") && reached);
    let e = x.unwrap_err();
    assert_eq!(e.kind(), Kind::Conflict, "{e}");
    assert!(e.message().contains("training set public.t") && e.message().contains("VACUUM removed"), "{e}");
    assert_eq!(w.sql("SELECT count(*) FROM system.training_sets").await, ["0"]);
    assert_eq!(std::fs::read_dir(w.a.services().store.local_dir().unwrap().join("training_sets/public/t")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_training_set_that_would_be_replaced_stays_where_the_new_one_cannot_be_made() {
    let (w, old) = with_an_old_version().await;
    w.sql("CREATE TRAINING SET t AS SELECT l.*, p.x FROM labels l ASOF JOIN p AT l.at").await;
    let replace = training_set(old).replace("CREATE", "CREATE OR REPLACE");
    let (x, _, _) = w.interleaved(&replace, VACUUM_P, 0).await;
    assert_eq!(x.unwrap_err().kind(), Kind::Conflict);
    assert!(w.sql("REBUILD TRAINING SET t").await[0].ends_with("|true"));
    assert_eq!(w.sql("SELECT x FROM t").await, ["7"]);
}

#[tokio::test]
async fn an_old_version_is_not_pinned_while_a_vacuum_is_at_work() {
    let (w, old) = with_an_old_version().await;
    let (other, outcome) = (w.b.session(), Arc::new(parking_lot::Mutex::new(None)));
    let seen = Arc::clone(&outcome);
    *w.a.services().store.after_listing.lock() = Some(Box::pin(async move {
        let done = run(&other, &training_set(old)).await;
        *seen.lock() = Some(done);
    }));
    assert!(w.sql(VACUUM_P).await[0].starts_with("public.p@v1|3|"));
    let e = outcome.lock().take().unwrap().unwrap_err();
    assert!(e.kind() == Kind::Conflict && e.message().contains("is removing old files"), "{e}");
    assert_eq!(w.sql("SELECT count(*) FROM system.training_sets").await, ["0"]);
}

#[tokio::test]
async fn vacuum_reads_once_more_what_is_pinned_before_it_removes() {
    let (w, old) = with_an_old_version().await;
    w.sql("CREATE TRAINING SET t AS SELECT l.*, p.x FROM labels l ASOF JOIN p AT l.at").await;
    let services = Arc::clone(w.b.services());
    *w.a.services().store.after_listing.lock() = Some(Box::pin(async move {
        let mut set = services.registry.snapshot().await.unwrap().training_set(&Name::new("public", "t")).unwrap().as_ref().clone();
        set.manifest.tables.iter_mut().for_each(|t| t.version = if t.name.contains("p@v1") { old } else { t.version });
        let change = CatalogChange::PutTrainingSet(set, PutMode::Replace);
        services.registry.commit(None, |_| Ok((vec![change.clone()], ()))).await.unwrap();
    }));
    assert!(w.sql(VACUUM_P).await[0].starts_with("public.p@v1|0|"));
    assert_eq!(w.sql(&format!("SELECT count(x) FROM p VERSION AS OF {old}")).await, ["9"]);
}

#[tokio::test]
async fn vacuum_leaves_the_versions_that_stored_queries_name() {
    let before = format_micros(T0 + HOUR);
    let stored = [
        ("VIEW reader AS SELECT * FROM p VERSION AS OF {old}", "DROP VIEW reader"),
        ("VIEW reader AS SELECT * FROM public.p@v1 TIMESTAMP AS OF '{before}'", "DROP VIEW reader"),
        (
            "FEATURE VIEW reader ENTITY e EVENT TIMESTAMP ts AS SELECT k, ts, x FROM (SELECT * FROM p TIMESTAMP AS OF '{before}') AS s",
            "DROP FEATURE VIEW reader",
        ),
    ];
    for (query, drop) in stored {
        let (w, old) = with_an_old_version().await;
        w.sql(&format!("CREATE {}", query.replace("{old}", &old.to_string()).replace("{before}", &before))).await;
        assert!(w.sql(VACUUM_P).await[0].starts_with("public.p@v1|0|"), "{query}");
        if query.starts_with("VIEW") {
            assert_eq!(w.sql("SELECT count(x) FROM reader").await, ["9"]);
        }
        w.sql(drop).await;
        assert!(w.sql(VACUUM_P).await[0].starts_with("public.p@v1|3|"), "{query}");
    }
}

/// So many courses, each on a warehouse of its own; PROPTEST_CASES asks for more.
fn cases(few: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { few };
    ProptestConfig { cases, max_shrink_iters: 60, max_shrink_time: 120_000, failure_persistence: None, ..asked }
}

#[derive(Debug, Clone)]
enum Step {
    /// Keys of the rows.
    Insert(Vec<i64>),
    Delete(i64),
    Optimize,
    /// Time passes, too.
    Vacuum,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(0i64..4, 1..6).prop_map(Step::Insert),
        1 => (0i64..4).prop_map(Step::Delete),
        3 => Just(Step::Optimize),
        1 => Just(Step::Vacuum),
    ]
}

/// Key by value: what the table should hold.
#[derive(Default, Clone)]
struct Model {
    rows: BTreeMap<i64, i64>,
    next: i64,
}

impl Model {
    /// Applies a step, and answers its statement.
    fn apply(&mut self, step: &Step) -> String {
        match step {
            Step::Insert(keys) => {
                let rows: Vec<String> = keys
                    .iter()
                    .map(|k| {
                        self.next += 1;
                        self.rows.insert(self.next, *k);
                        format!("({k}, TIMESTAMP '2025-12-01', {})", self.next)
                    })
                    .collect();
                format!("INSERT INTO p VALUES {}", rows.join(", "))
            }
            Step::Delete(key) => {
                self.rows.retain(|_, k| k != key);
                format!("DELETE FROM p WHERE k = {key}")
            }
            Step::Optimize => "OPTIMIZE FEATURE VIEW p".into(),
            Step::Vacuum => "VACUUM FEATURE VIEW p RETAIN INTERVAL '1 hour'".into(),
        }
    }
}

async fn any_course(course: &[(Step, Option<Step>)]) {
    let w = World::new().await;
    w.script("CREATE ENTITY e KEY (k BIGINT); CREATE FEATURE VIEW p (x BIGINT) ENTITY e EVENT TIMESTAMP ts").await;
    let mut model = Model::default();
    let mut seqs: BTreeMap<i64, i64> = BTreeMap::new();
    for (first, second) in course {
        match second {
            None => {
                w.sql(&model.apply(first)).await;
            }
            Some(second) => {
                let mut second_first = model.clone();
                let (y, x) = (second_first.apply(second), second_first.apply(first));
                let (x_done, y_done, reached) = w.interleaved(&x, &y, HOUR).await;
                if reached {
                    model = second_first;
                } else {
                    // what commits nothing makes no new rows
                    assert_eq!((model.apply(first), model.apply(second)), (x.clone(), y.clone()));
                }
                x_done.unwrap_or_else(|e| panic!("{x}: {e}"));
                y_done.unwrap_or_else(|e| panic!("{y}: {e}"));
            }
        }
        if matches!(first, Step::Vacuum) {
            w.clock.advance(2 * HOUR);
        }
        let rows = w.rows("p").await;
        let mut seen = BTreeMap::new();
        for row in &rows {
            let part: Vec<&str> = row.split('|').collect();
            let (k, x, seq): (i64, i64, i64) = (part[0].parse().unwrap(), part[2].parse().unwrap(), part[3].parse().unwrap());
            assert_eq!(seen.insert(x, k), None, "{row} is there twice");
            assert_eq!(*seqs.entry(x).or_insert(seq), seq, "{row} had another _seq");
        }
        assert_eq!(seen, model.rows, "{first:?}, meanwhile {second:?}");
    }
    w.sql("OPTIMIZE FEATURE VIEW p").await;
    let files = w.files("p").await;
    assert!(files.iter().filter(|rows| **rows < 4).count() <= 1, "{files:?}");
    let shown: BTreeSet<String> = w.sql("SELECT x FROM p").await.into_iter().collect();
    assert_eq!(shown, model.rows.keys().map(i64::to_string).collect());
}

proptest! {
    #![proptest_config(cases(12))]
    #[test]
    fn no_row_is_lost_or_doubled(course in prop::collection::vec((step(), prop::option::of(step())), 1..7)) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(any_course(&course));
    }
}

#[derive(Debug, Clone)]
enum Change {
    /// (key, minute, value)
    Add(Vec<(i64, i64, i64)>),
    /// The source holds these rows only.
    Replace(Vec<(i64, i64, i64)>),
    Refresh(&'static str),
    Optimize,
    Materialize,
}

fn change() -> impl Strategy<Value = Change> {
    let rows = || prop::collection::vec((0i64..4, 0i64..4, 0i64..4), 1..6);
    prop_oneof![
        4 => rows().prop_map(Change::Add),
        1 => rows().prop_map(Change::Replace),
        5 => prop::sample::select(vec!["", "FULL", "FROM '2025-12-31 23:01' TO '2025-12-31 23:02'"]).prop_map(Change::Refresh),
        5 => Just(Change::Optimize),
        3 => Just(Change::Materialize),
    ]
}

/// The law (sql/README.md, "The law"), whatever OPTIMIZE did between the versions.
async fn online_is_offline(changes: &[Change]) {
    let w = World::with(|c| c.target_file_rows = 4).await;
    w.script(
        "CREATE ENTITY e KEY (k BIGINT); CREATE TABLE src (k BIGINT, ts TIMESTAMP, x BIGINT);
        CREATE FEATURE VIEW q ENTITY e EVENT TIMESTAMP ts LOOKBACK INTERVAL '2 minutes' ONLINE AS SELECT k, ts, x FROM src",
    )
    .await;
    for change in changes.iter().chain(&[Change::Materialize]) {
        let rows = |rows: &[(i64, i64, i64)]| {
            let rows: Vec<String> = rows.iter().map(|(k, m, x)| format!("({k}, TIMESTAMP '2025-12-31 23:0{m}:00', {x})")).collect();
            rows.join(", ")
        };
        match change {
            Change::Add(r) => drop(w.sql(&format!("INSERT INTO src VALUES {}", rows(r))).await),
            Change::Replace(r) => drop(w.sql(&format!("INSERT OVERWRITE src VALUES {}", rows(r))).await),
            Change::Refresh(how) => drop(w.sql(&format!("REFRESH FEATURE VIEW q {how}")).await),
            Change::Optimize => drop(w.sql("OPTIMIZE FEATURE VIEW q").await),
            Change::Materialize => {
                w.sql("MATERIALIZE FEATURE VIEW q").await;
                let online = w.sql("SELECT k, x FROM ONLINE_LOOKUP('q', 0, 1, 2, 3)").await;
                let labels = "(SELECT column1 AS k, TIMESTAMP '2026-01-01' AS at FROM (VALUES (0), (1), (2), (3)))";
                let offline = w.sql(&format!("SELECT l.k, q.x FROM {labels} l ASOF JOIN q AT l.at")).await;
                assert_eq!(online, offline, "after {changes:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(10))]
    #[test]
    fn lookups_do_not_notice_an_optimize(changes in prop::collection::vec(change(), 3..14)) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(online_is_offline(&changes));
    }
}
