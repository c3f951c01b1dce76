//! The plans that matter, as text: what the optimizer makes of our statements, seen at every change and at every update
//! of DataFusion. `REMIGE_WRITE=1 cargo test --test it plans` writes tests/it/plans.txt anew; read the difference.

use std::path::Path;

use datafusion::arrow::array::AsArray;
use futures::TryStreamExt;
use remige::clock::Clock;
use remige::config::Config;
use remige::session::{Engine, Outcome, Session};

const FILE: &str = "tests/it/plans.txt";

const SETUP: &str = "
    CREATE ENTITY u KEY (id BIGINT);
    CREATE TABLE src (id BIGINT, ts TIMESTAMP, x BIGINT, s VARCHAR);
    INSERT INTO src VALUES (1, '2026-01-01', 10, 'a'), (2, '2026-01-02', 20, 'b');
    CREATE TABLE labels (id BIGINT, at TIMESTAMP, y BIGINT);
    INSERT INTO labels VALUES (1, '2026-01-03', 0), (2, '2026-01-01', 1);
    CREATE FEATURE VIEW v ENTITY u EVENT TIMESTAMP ts ONLINE TTL INTERVAL '30 days' AS SELECT id, ts, x, s FROM src;
    CREATE FEATURE VIEW p (n BIGINT) ENTITY u EVENT TIMESTAMP ts ONLINE;
    CREATE FEATURE SERVICE z AS SELECT v.x, v.x + p.n AS y FROM v, p;
    REFRESH FEATURE VIEW v FULL;
    INSERT INTO p (id, ts, n) VALUES (1, '2026-01-01', 5);
    MATERIALIZE FEATURE VIEW v FULL";

const STATEMENTS: &[&str] = &[
    "SELECT l.*, v.x, p.n FROM labels l ASOF JOIN v AT l.at ASOF JOIN p AT l.at",
    "SELECT l.id, f.x FROM labels l ASOF JOIN src f MATCH_CONDITION (l.at >= f.ts) ON l.id = f.id WITHIN INTERVAL '1 day'",
    "SELECT l.id, v.x FROM labels l ASOF JOIN v AT l.at WHERE l.y = 1 AND v.x > 5 LIMIT 3",
    "SELECT l.id, v.x FROM labels l ASOF JOIN v AT l.at WHERE l.y = 1 AND l.id IN (SELECT id FROM src)",
    "SELECT v.s, count(*) FROM labels l ASOF JOIN v AT l.at GROUP BY v.s",
    "SELECT l.id, z.y FROM labels l ASOF JOIN z AT l.at",
    "SELECT x FROM v WHERE id = 1 ORDER BY id, ts",
    "SELECT * FROM ONLINE_LOOKUP('z', 1)",
    "SELECT l.id, v.x FROM labels l ONLINE JOIN v",
    "INSERT INTO p (id, ts, n) SELECT id, ts, x FROM src",
    "DELETE FROM p WHERE id = 1",
    "REFRESH FEATURE VIEW v FULL",
    "CREATE TRAINING SET t AS SELECT l.*, v.x FROM labels l ASOF JOIN v AT l.at",
];

async fn rows(session: &Session, sql: &str) -> Vec<Vec<String>> {
    let Outcome::Rows(rows) = session.execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")) else { return vec![] };
    let batches: Vec<_> = rows.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let row = |b: &datafusion::arrow::array::RecordBatch, r: usize| {
        b.columns().iter().map(|c| c.as_string::<i32>().value(r).to_string()).collect()
    };
    batches.iter().flat_map(|b| (0..b.num_rows()).map(|r| row(b, r)).collect::<Vec<_>>()).collect()
}

/// Without what differs from warehouse to warehouse: folders and names of files.
fn plain(plan: &str, warehouse: &Path) -> String {
    let warehouse = warehouse.to_string_lossy();
    let plan = plan.replace(warehouse.as_ref(), "W").replace(warehouse.trim_start_matches('/'), "W");
    let mut out = String::new();
    for line in plan.trim_end().lines() {
        let words = line.split_inclusive(['[', ']', ',', ' ']).map(|word| match word.rsplit_once('/') {
            Some((path, file)) if file.contains(".parquet") => {
                let table = path.rsplit('/').nth(1).unwrap_or_default();
                format!("{table}/*.parquet{}", file.split_once(".parquet").map_or("", |f| f.1))
            }
            _ => word.to_string(),
        });
        out.extend(words);
        out.push('\n');
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let warehouse = dir.path().join("warehouse");
    let config = Config { warehouse: warehouse.to_string_lossy().to_string(), threads: 2, ..Config::default() };
    let session = Engine::open(config, Clock::fixed(1_772_366_400_000_000)).await.unwrap().session();
    for (sql, ..) in Session::split(SETUP).unwrap() {
        rows_of_setup(&session, &sql).await;
    }
    let mut made = String::new();
    for parts in [1, 2] {
        rows_of_setup(&session, &format!("SET pit_join_parts = {parts}")).await;
        // in parts: a plan where the order is seen, one where it is not
        for sql in STATEMENTS.iter().filter(|s| parts == 1 || s.starts_with("SELECT l.*") || s.contains("GROUP BY")) {
            let shown = if parts == 1 { String::new() } else { format!("SET pit_join_parts = {parts}; ") };
            made.push_str(&format!("{shown}{sql}\n\n"));
            for row in rows(&session, &format!("EXPLAIN {sql}")).await {
                made.push_str(&format!("{}\n{}\n", row[0], plain(&row[1], &warehouse)));
            }
            made.push_str("----\n\n");
        }
    }
    if std::env::var_os("REMIGE_WRITE").is_some() {
        std::fs::write(FILE, &made).unwrap();
    }
    let kept = std::fs::read_to_string(FILE).unwrap();
    for (made, kept) in made.split("----\n").zip(kept.split("----\n")) {
        assert_eq!(made, kept, "REMIGE_WRITE=1 writes tests/it/plans.txt anew");
    }
    assert_eq!(made.len(), kept.len());
}

async fn rows_of_setup(session: &Session, sql: &str) {
    if let Outcome::Rows(rows) = session.execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")) {
        rows.try_collect::<Vec<_>>().await.unwrap();
    }
}
