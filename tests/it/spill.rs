//! Statements under memory limits so low that their repartitions spill. DataFusion 55 could wait for ever there
//! (apache/datafusion#24883): each statement ends, with its rows or an error that names the limit.
//!
//! `REMIGE_SPILL_RUNS` says how often at each limit.

use std::time::Duration;

use futures::TryStreamExt;
use remige::clock::Clock;
use remige::config::Config;
use remige::error::{Error, Kind};
use remige::session::{Engine, Outcome, Session};

/// Far beyond what a run takes, and beyond the time after which a stalled statement ends.
const HANG: Duration = Duration::from_secs(120);
/// Bytes and rows per batch. Below: refused; above: nothing is spilled. In between a repartition spills.
const LIMITS: &[(usize, usize)] = &[(2 << 20, 64), (4 << 20, 64), (8 << 20, 1024), (16 << 20, 64)];

async fn run(session: &Session, sql: &str) -> Result<usize, Error> {
    match session.execute(sql).await? {
        Outcome::Rows(rows) => Ok(rows.try_collect::<Vec<_>>().await?.iter().map(|b| b.num_rows()).sum()),
        Outcome::Updated(n) => Ok(n as usize),
    }
}

/// Whether it gave rows; the limit may also be refused, nothing else.
async fn ends(session: &Session, sql: &str, at: &str) -> bool {
    match remige::clock::timeout(HANG, run(session, sql)).await.unwrap_or_else(|_| panic!("{at}: hangs: {sql}")) {
        Ok(rows) => {
            assert!(rows > 0, "{at}: no rows: {sql}");
            true
        }
        Err(e) => {
            assert_eq!(e.kind(), Kind::Exhausted, "{at}: {e}: {sql}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_spill_end() {
    let runs: usize = std::env::var("REMIGE_SPILL_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let dir = tempfile::tempdir().unwrap();
    let warehouse = dir.path().join("w").to_string_lossy().to_string();
    let plenty = Config { warehouse: warehouse.clone(), threads: 2, ..Config::default() };
    let session = Engine::open(plenty.clone(), Clock::system()).await.unwrap().session();
    for sql in [
        "CREATE TABLE t AS SELECT value % 13 AS g, md5(CAST(value % 30011 AS VARCHAR)) AS trace_id, \
         to_timestamp_seconds(1767225600 + value) AS ts FROM generate_series(1, 120000)",
        "CREATE ENTITY e KEY (g BIGINT, trace_id VARCHAR)",
        "CREATE FEATURE VIEW v ENTITY e EVENT TIMESTAMP ts AS \
         SELECT g, trace_id, max(ts) AS ts, count(*) AS n, count(DISTINCT ts) AS instants FROM t GROUP BY g, trace_id",
    ] {
        run(&session, sql).await.unwrap();
    }
    let (mut answered, mut refused) = (0, 0);
    for (memory_limit, batch_size) in LIMITS.iter().copied() {
        let config = Config { memory_limit, batch_size, ..plenty.clone() };
        let session = Engine::open(config, Clock::system()).await.unwrap().session();
        let at = format!("{memory_limit} bytes, batches of {batch_size}");
        for _ in 0..runs {
            for sql in [
                "SELECT count(*), sum(n) FROM (SELECT g, count(DISTINCT trace_id) AS n FROM t GROUP BY g)",
                "SELECT a.g, count(*) FROM t a JOIN t b ON a.trace_id = b.trace_id AND a.ts = b.ts GROUP BY a.g",
                "SELECT max(r) FROM (SELECT row_number() OVER (PARTITION BY trace_id ORDER BY ts) AS r FROM t)",
                "REFRESH FEATURE VIEW v FULL",
            ] {
                if ends(&session, sql, &at).await {
                    answered += 1;
                } else {
                    refused += 1;
                }
            }
        }
    }
    println!("{answered} answered, {refused} refused");
    assert!(answered > 0 && refused > 0, "the limits do not reach from too little to enough: {answered} answered, {refused} refused");
}
