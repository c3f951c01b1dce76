//! ONLINE JOIN where a script of SQL cannot see: plans, parameters, limits, tables of many files.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use remige::clock::Clock;
use remige::config::Config;
use remige::error::{Error, Kind};
use remige::session::{Engine, Outcome, Session};

async fn open(dir: &tempfile::TempDir, max_keys: usize) -> Session {
    let mut config = Config { warehouse: dir.path().join("w").to_string_lossy().to_string(), threads: 4, ..Config::default() };
    config.online_settings.max_keys = max_keys;
    Engine::open(config, Clock::fixed(1_772_366_400_000_000)).await.unwrap().session()
}

async fn rows(session: &Session, text: &str, parameters: Option<RecordBatch>) -> Result<Vec<RecordBatch>, Error> {
    let prepared = session.prepare(text).await?;
    match session.run(&prepared, parameters).await? {
        Outcome::Rows(rows) => Ok(rows.try_collect().await?),
        Outcome::Updated(_) => Ok(vec![]),
    }
}

async fn script(session: &Session, text: &str) {
    for (text, ..) in Session::split(text).unwrap() {
        rows(session, &text, None).await.unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

fn column(batches: &[RecordBatch], i: usize) -> Vec<Option<i64>> {
    batches.iter().flat_map(|b| b.column(i).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect()
}

const DEFINITIONS: &str = "
    CREATE ENTITY user KEY (user_id BIGINT);
    CREATE FEATURE VIEW f (x BIGINT, y VARCHAR) ENTITY user EVENT TIMESTAMP ts ONLINE;
    CREATE FEATURE VIEW g (z BIGINT) ENTITY user EVENT TIMESTAMP ts ONLINE;
    INSERT INTO f SELECT value, TIMESTAMP '2026-01-01 00:00:00', value * 10, 'y' FROM generate_series(1, 40);
    INSERT INTO g SELECT value, TIMESTAMP '2026-01-01 00:00:00', -value FROM generate_series(1, 20);";

#[tokio::test(flavor = "multi_thread")]
async fn joins_in_a_row_read_once_and_filters_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(&dir, 100).await;
    script(&s, DEFINITIONS).await;
    let text = "EXPLAIN SELECT r.user_id, f.x, g.z, o.x FROM (VALUES (1, 2), (3, 4)) r (user_id, other)
                ONLINE INNER JOIN f ONLINE JOIN g ONLINE JOIN f o FOR (user_id = r.other) WHERE r.user_id > 1 AND g.z < 0";
    let shown = pretty_format_batches(&rows(&s, text, None).await.unwrap()).unwrap().to_string();
    let physical = shown.split("physical_plan").nth(1).unwrap();
    assert_eq!(physical.matches("OnlineLookupExec").count(), 1, "{shown}");
    let below = physical.split("OnlineLookupExec").nth(1).unwrap();
    assert!(below.contains("FilterExec: column1@0 > 1"), "{shown}");
    // A key that another join has brought needs a second read.
    let text = "EXPLAIN SELECT 1 FROM (VALUES (1)) r (user_id) ONLINE JOIN f ONLINE JOIN g FOR (user_id = f.x)";
    let shown = pretty_format_batches(&rows(&s, text, None).await.unwrap()).unwrap().to_string();
    assert_eq!(shown.matches("OnlineLookupExec").count(), 2, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_stand_in_the_left_side() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(&dir, 100).await;
    script(&s, DEFINITIONS).await;
    let bound = |values: Vec<Option<i64>>| {
        let columns = values.into_iter().enumerate().map(|(i, v)| (format!("p{i}"), Arc::new(Int64Array::from(vec![v])) as ArrayRef, true));
        Some(RecordBatch::try_from_iter_with_nullable(columns).unwrap())
    };
    for text in [
        "SELECT r.n, f.x FROM (VALUES (1, CAST($1 AS BIGINT)), (2, CAST($2 AS BIGINT))) r (n, user_id) ONLINE JOIN f",
        "SELECT r.n, f.x FROM (VALUES (1, $1), (2, $2)) r (n, user_id) ONLINE JOIN f",
        "SELECT r.n, f.x FROM (VALUES (1, $1), (2, $2)) r (n, id) ONLINE JOIN f FOR (user_id = id)",
    ] {
        let got = rows(&s, text, bound(vec![Some(7), None])).await.unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!((column(&got, 0), column(&got, 1)), (vec![Some(1), Some(2)], vec![Some(70), None]), "{text}");
    }
    let text = "SELECT f.x FROM (VALUES (1), (2)) r (n) ONLINE JOIN f FOR (user_id = $1)";
    let got = rows(&s, text, bound(vec![Some(4)])).await.unwrap();
    assert_eq!(column(&got, 0), [Some(40), Some(40)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_many_files_come_in_their_order_up_to_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(&dir, 60).await;
    script(&s, DEFINITIONS).await;
    let csv = dir.path().join("labels");
    std::fs::create_dir(&csv).unwrap();
    let mut want = vec![];
    for file in 0..5i64 {
        let ids: Vec<i64> = (0..12).map(|i| (file * 12 + i * 7) % 50).collect();
        std::fs::write(csv.join(format!("{file}.csv")), ids.iter().fold("user_id\n".to_string(), |t, i| format!("{t}{i}\n"))).unwrap();
        want.extend(ids);
    }
    let text = format!("CREATE EXTERNAL TABLE labels STORED AS CSV LOCATION '{}/' OPTIONS ('format.has_header' 'true')", csv.display());
    script(&s, &text).await;
    let live = |id: i64| (1..=40).contains(&id).then_some(id * 10);
    for batch_size in [1, 5, 8192] {
        script(&s, &format!("SET batch_size = {batch_size}")).await;
        let got = rows(&s, "SELECT l.user_id, f.x + 0 AS x FROM labels l ONLINE JOIN f", None).await.unwrap();
        assert_eq!(column(&got, 0), want.iter().map(|i| Some(*i)).collect::<Vec<_>>());
        assert_eq!(column(&got, 1), want.iter().map(|i| live(*i)).collect::<Vec<_>>());
        let got = rows(&s, "SELECT l.user_id FROM labels l ONLINE INNER JOIN f LIMIT 15 OFFSET 3", None).await.unwrap();
        let inner: Vec<_> = want.iter().filter(|i| live(**i).is_some()).skip(3).take(15).map(|i| Some(*i)).collect();
        assert_eq!(column(&got, 0), inner);
        let got = rows(&s, "SELECT user_id, x FROM ONLINE_LOOKUP('f', (SELECT user_id FROM labels)) LIMIT 20", None).await.unwrap();
        assert_eq!(column(&got, 0).len(), 20);
    }
    // The limit counts the rows of all partitions, and only those that are looked up.
    std::fs::write(csv.join("5.csv"), "user_id\n1\n").unwrap();
    let e = rows(&s, "SELECT f.x FROM labels l ONLINE JOIN f", None).await.unwrap_err();
    assert!(e.kind() == Kind::Exhausted && e.message().contains("60 keys") && e.hint().is_some_and(|h| h.contains("ASOF JOIN")), "{e}");
    let got = rows(&s, "SELECT f.x FROM labels l ONLINE JOIN f WHERE l.user_id = 1", None).await.unwrap();
    assert!(column(&got, 0).iter().all(|x| *x == Some(10)) && !column(&got, 0).is_empty());
}
