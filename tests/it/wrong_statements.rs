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

#[tokio::test(flavor = "multi_thread")]
async fn are_refused_in_our_words() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { warehouse: dir.path().join("warehouse").to_string_lossy().to_string(), ..Config::default() };
    let engine = Engine::open(config, Clock::fixed(NOW)).await.unwrap();
    let session = engine.session();
    for sql in SETUP {
        run(&session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    let statements = include_str!("wrong_statements.sql").lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("--"));
    let (mut all, mut faults) = (0, vec![]);
    for sql in statements {
        all += 1;
        match run(&session, sql).await {
            Ok(()) => faults.push(format!("{sql}\n    was accepted")),
            Err(e) => faults.extend(fault(sql, &e)),
        }
    }
    assert!(all >= 300, "only {all} statements");
    assert!(faults.is_empty(), "{} of {all} statements:\n{}", faults.len(), faults.join("\n"));
}
