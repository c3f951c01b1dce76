//! A few hundred wrong statements. Each is refused, when it is planned or when it runs, in words of ours: nothing of
//! the engine below shows.

use futures::TryStreamExt;
use remige::clock::Clock;
use remige::config::Config;
use remige::error::{Error, Kind};
use remige::session::{Engine, Outcome, Session};

const NOW: i64 = 1_772_366_400_000_000;

const SETUP: &[&str] = &[
    "CREATE TABLE t AS SELECT * FROM (VALUES (1, 'C-17', 1.5), (2, 'x', 2.5)) v (id, code, amt)",
    "CREATE TABLE t2 AS SELECT * FROM (VALUES (1, TIMESTAMP '2026-01-01 00:00:00')) v (id, ts)",
    "CREATE TABLE ev AS SELECT * FROM (VALUES (1, TIMESTAMP '2026-01-01 00:00:00', 5), (1, TIMESTAMP '2026-01-02 00:00:00', 7)) v (id, ts, amt)",
    "CREATE ENTITY u KEY (id BIGINT)",
    "CREATE FEATURE VIEW v (x BIGINT) ENTITY u EVENT TIMESTAMP ts ONLINE",
    "INSERT INTO v VALUES (1, TIMESTAMP '2026-01-01 00:00:00', 3)",
    "CREATE FEATURE VIEW q ENTITY u EVENT TIMESTAMP ts AS SELECT id, ts, amt FROM ev",
    "CREATE FEATURE SERVICE s AS SELECT v.x FROM v",
];

/// What a message must not hold: words of the engine, and how its language prints values.
const FOREIGN: &[&str] = &[
    "Internal error",
    "DataFusion",
    "datafusion",
    "Physical plan",
    "LogicalPlan",
    " AST",
    "External error",
    "Execution error",
    "Error during planning",
    "ParserError",
    "Arrow error",
    "SchemaError",
    "Schema error",
    "BinaryExpr",
    "ScalarSubquery",
    "OuterReferenceColumn",
    "retract_batch",
    "bug in",
    "RuntimeEnv",
    "Utf8(",
    "Utf8",
    "Int64",
    "Int32",
    "Float64",
    "Boolean(",
    "Timestamp(",
    "Decimal128",
    "Field {",
    "Column {",
    "Ident {",
    "Some(",
    "None,",
];

async fn run(session: &Session, sql: &str) -> Result<(), Error> {
    match session.execute(sql).await? {
        Outcome::Rows(rows) => rows.try_collect::<Vec<_>>().await.map(|_| ()).map_err(Error::from),
        Outcome::Updated(_) => Ok(()),
    }
}

/// What is wrong with how a statement was refused.
fn fault(sql: &str, e: &Error) -> Option<String> {
    let shown = e.render("", None);
    let found: Vec<&&str> = FOREIGN.iter().filter(|f| shown.contains(**f) && !sql.contains(**f)).collect();
    if !found.is_empty() {
        return Some(format!("{sql}\n    shows {found:?}: {shown}"));
    }
    (e.kind() == Kind::Internal).then(|| format!("{sql}\n    is called a fault of ours: {shown}"))
}

/// What the hints of statements/elsewhere.rs and of others advise, with names of the objects above in their places.
const ADVISED: &[&str] = &[
    "SELECT * FROM t VERSION AS OF 0",
    "CREATE SCHEMA about COMMENT 'x'",
    "ALTER FEATURE VIEW v SET COMMENT 'x'",
    "CREATE OR REPLACE VIEW w COMMENT 'x' AS SELECT * FROM t",
    "CREATE FEATURE VIEW commented (x BIGINT COMMENT 'x') ENTITY u EVENT TIMESTAMP ts",
    "SELECT count(*), count(DISTINCT id), min(id), max(id), avg(id) FROM t",
    "FROM t",
    "DESCRIBE t",
    "SELECT schema, name FROM system.tables WHERE kind = 'view'",
    "SHOW FEATURE VIEWS",
    "SELECT DISTINCT routine_name FROM information_schema.routines ORDER BY routine_name",
    "SELECT name, data_type, comment FROM system.features WHERE feature_view = 'v'",
    "SHOW SCHEMAS",
    "SHOW ENTITIES",
    "SHOW ALL",
    "SHOW RUNS",
    "SELECT * FROM system.freshness",
    "SELECT * FROM system.runs WHERE object LIKE '%t%' ORDER BY started_at",
    "CREATE VIEW recursive AS WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
    "CREATE FEATURE VIEW hourly ENTITY u EVENT TIMESTAMP ts REFRESH EVERY INTERVAL '1 hour' AS SELECT id, ts, amt FROM ev",
    "SELECT row_number() OVER (ORDER BY id), uuid() FROM t",
    "CREATE OR REPLACE TABLE t AS SELECT *, CAST(NULL AS BIGINT) AS c FROM t",
    "CREATE OR REPLACE TABLE t AS SELECT * EXCLUDE (c) FROM t",
    "CREATE OR REPLACE TABLE t AS SELECT * EXCLUDE (amt), amt AS new_name FROM t",
    "CREATE OR REPLACE TABLE t AS SELECT * EXCLUDE (new_name), new_name AS amt FROM t",
    "CREATE OR REPLACE TABLE t AS SELECT * REPLACE (CAST(id AS DOUBLE) AS id) FROM t",
    "CREATE OR REPLACE TABLE t AS SELECT * REPLACE (CASE WHEN id = 1 THEN 7 ELSE id END AS id) FROM t",
    "CREATE TABLE other AS SELECT * FROM t",
    "CREATE OR REPLACE TABLE other AS SELECT * FROM other WHERE NOT (id = 1)",
    "CREATE OR REPLACE TABLE other AS SELECT * FROM other WHERE false",
    "DROP TABLE other",
    "SHOW CREATE VIEW w",
    "SHOW CREATE FEATURE VIEW v",
    "CREATE OR REPLACE ENTITY u KEY (id BIGINT)",
    "INSERT INTO t (id, code) SELECT id, code FROM t",
    "SELECT sum(amt) FILTER (WHERE code = 'x') AS a, sum(amt) FILTER (WHERE code = 'C-17') AS b FROM t",
    "SELECT 'id' AS name, id AS value FROM t UNION ALL SELECT 'amt', amt FROM t",
    "SELECT * FROM t WHERE random() < 0.1",
    "SELECT * FROM t ORDER BY random() LIMIT 1",
    "VACUUM FEATURE VIEW v",
    "OPTIMIZE FEATURE VIEW v",
    "REFRESH FEATURE VIEW q",
    "SET statement_timeout = '30s'",
    "RESET statement_timeout",
    "SET schema = public",
    "USE public",
    "SELECT TIMESTAMP '2026-01-01 00:00:00' AT TIME ZONE 'Europe/Berlin'",
    "SELECT * FROM (SELECT random() AS r, id FROM t) AS q WHERE r < 2 AND r + id > 0",
    "SELECT code, sum(amt) AS s FROM t GROUP BY code HAVING s > 1",
    "SELECT id, row_number() OVER (ORDER BY id) AS rn FROM t QUALIFY rn = 1",
    "SELECT t.id, s.found IS NOT NULL FROM t LEFT JOIN (SELECT DISTINCT id, amt, true AS found FROM ev) AS s ON s.id = t.id AND s.amt = t.amt",
    "SELECT * FROM t WHERE NOT EXISTS (SELECT 1 FROM ev AS q WHERE q.id = t.id AND q.amt = amt)",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_advised_works() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { warehouse: dir.path().join("warehouse").to_string_lossy().to_string(), ..Config::default() };
    let session = Engine::open(config, Clock::fixed(NOW)).await.unwrap().session();
    for sql in SETUP.iter().chain(ADVISED) {
        run(&session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn are_refused_in_our_words() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { warehouse: dir.path().join("warehouse").to_string_lossy().to_string(), ..Config::default() };
    let engine = Engine::open(config, Clock::fixed(NOW)).await.unwrap();
    let session = engine.session();
    for sql in SETUP {
        run(&session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    let (mut all, mut faults, mut advised) = (0, vec![], false);
    for sql in include_str!("wrong_statements.sql").lines().map(str::trim).filter(|l| !l.is_empty()) {
        if let Some(section) = sql.strip_prefix("-- ") {
            advised = section == "with what to write instead";
            continue;
        }
        all += 1;
        match run(&session, sql).await {
            Ok(()) => faults.push(format!("{sql}\n    was accepted")),
            Err(e) => {
                faults.extend(fault(sql, &e));
                let useless = e.hint().is_none_or(|h| h.contains("did you mean"));
                faults.extend((advised && useless).then(|| format!("{sql}\n    says nothing of what to write: {e}")));
            }
        }
    }
    assert!(all >= 300, "only {all} statements");
    assert!(faults.is_empty(), "{} of {all} statements:\n{}", faults.len(), faults.join("\n"));
}
