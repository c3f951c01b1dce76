//! Commands as data: what every statement with an effect plans to can be written down, read again, and asked what it
//! touches.

use tempfile::TempDir;

use super::*;
use crate::catalog::ddl::Touch;

const SETUP: &str = "
    CREATE ENTITY u KEY (id BIGINT);
    CREATE TABLE src AS SELECT 1 AS id, TIMESTAMP '2026-01-01' AS ts, 10 AS x;
    CREATE VIEW w AS SELECT * FROM src;
    CREATE FEATURE VIEW v ENTITY u EVENT TIMESTAMP ts ONLINE AS SELECT id, ts, x FROM w;
    CREATE FEATURE VIEW p (n BIGINT) ENTITY u EVENT TIMESTAMP ts;
    CREATE FEATURE SERVICE s AS SELECT v.* FROM v;
    CREATE TRAINING SET t AS SELECT l.id, l.ts, v.x FROM src l ASOF JOIN v AT l.ts;
    CREATE TABLE q AS SELECT 1 AS id;
    CREATE SCHEMA other";

/// Statements with what they touch: access privilege kind name[@version].
const STATEMENTS: &[(&str, &str)] = &[
    ("CREATE SCHEMA a", "create create schema .a"),
    ("CREATE ENTITY e KEY (a BIGINT)", "create create entity public.e"),
    (
        "CREATE VIEW x AS SELECT w.* FROM w, p@v1",
        "create create view public.x, read select feature_view public.p@v1, read select view public.w",
    ),
    ("CREATE TABLE c AS SELECT * FROM src", "create create table public.c"),
    ("CREATE TABLE c (a BIGINT)", "create create table public.c"),
    (
        "CREATE OR REPLACE FEATURE VIEW v ENTITY u EVENT TIMESTAMP ts AS SELECT id, ts, x + 1 AS x FROM src",
        "create create feature_view public.v, read select entity public.u, read select table public.src",
    ),
    ("CREATE FEATURE SERVICE z AS SELECT v.* FROM v@latest v", "create create feature_service public.z, read select feature_view public.v"),
    ("CREATE TRAINING SET y AS SELECT * FROM src", "create create training_set public.y"),
    ("REBUILD TRAINING SET t", "read select training_set public.t"),
    ("ALTER FEATURE VIEW v SET TTL INTERVAL '1 day'", "write manage feature_view public.v@v1"),
    ("ALTER FEATURE VIEW v SET TAGS (a = 'b')", "write manage feature_view public.v@v1"),
    ("DROP SCHEMA other", "drop manage schema .other"),
    ("DROP FEATURE SERVICE s", "drop manage feature_service public.s"),
    ("DROP FEATURE VIEW v CASCADE", "drop manage feature_view public.v"),
    ("DROP TRAINING SET t", "drop manage training_set public.t"),
    ("DROP TABLE IF EXISTS nothing", ""),
    ("DELETE FROM p WHERE id = 1", "write manage feature_view public.p@v1"),
    ("DELETE FROM q WHERE id = 1", "write manage table public.q"),
    ("ALTER TABLE q ADD COLUMN z BIGINT", "write manage table public.q"),
    ("REFRESH FEATURE VIEW v FULL", "write refresh feature_view public.v@v1"),
    ("REFRESH FEATURE VIEW v FROM '2026-01-01' TO '2026-01-02'", "write refresh feature_view public.v@v1"),
    ("MATERIALIZE ALL FEATURE VIEWS", "write materialize feature_view public.v@v1"),
    ("OPTIMIZE FEATURE VIEW v", "write manage feature_view public.v@v1"),
    ("VACUUM FEATURE VIEW v RETAIN INTERVAL '30 days' DRY RUN", "read manage feature_view public.v@v1"),
    ("VERIFY FEATURE VIEW v SAMPLE 10 SEED 1", "read select feature_view public.v@v1"),
    ("VERIFY SERVICE s", "read select feature_service public.s"),
    ("USE other", ""),
    ("SET threads = 1", ""),
    ("RESET threads", ""),
];

fn word(v: impl serde::Serialize) -> String {
    serde_json::to_value(v).unwrap().as_str().unwrap_or_default().to_string()
}

fn shown(t: &Touch) -> String {
    let version = t.version.map(|v| format!("@v{v}")).unwrap_or_default();
    format!("{} {} {} {}{version}", word(t.access), word(t.privilege), word(t.kind), t.object)
}

#[tokio::test]
async fn every_command_can_be_written_down_and_says_what_it_touches() {
    let dir = TempDir::new().unwrap();
    let config = Config { warehouse: dir.path().to_string_lossy().into(), ..Config::default() };
    let session = Engine::open(config, Clock::system()).await.unwrap().session();
    for (sql, ..) in Session::split(SETUP).unwrap() {
        session.execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    for (sql, touched) in STATEMENTS {
        let resolver = session.resolver(vec![], Notices::default()).await.unwrap();
        let planned = session.plan(sql, &resolver).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let LogicalPlan::Extension(e) = &planned.plan else { panic!("{sql} is no command") };
        let command = &e.node.as_any().downcast_ref::<CommandNode>().unwrap().command;
        let text = serde_json::to_string(command.as_ref()).unwrap();
        assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), **command, "{sql}");
        let mut touches: Vec<String> = command.touches().iter().map(shown).collect();
        // what is read follows in no order
        let reads = 1.min(touches.len());
        touches[reads..].sort();
        assert_eq!(touches.join(", "), *touched, "{sql}");
    }
}

/// What a plan reads is told by what the resolver has loaded, and kept with the definition.
#[tokio::test]
async fn a_definition_keeps_what_it_reads() {
    let dir = TempDir::new().unwrap();
    let config = Config { warehouse: dir.path().to_string_lossy().into(), ..Config::default() };
    let engine = Engine::open(config, Clock::system()).await.unwrap();
    let session = engine.session();
    for (sql, ..) in Session::split(SETUP).unwrap() {
        session.execute(&sql).await.unwrap();
    }
    session
        .execute("CREATE VIEW deep AS SELECT w.* FROM w JOIN p@v1 VERSION AS OF 0 q USING (id) WHERE w.id IN (SELECT id FROM src)")
        .await
        .unwrap();
    let catalog = engine.services().registry.snapshot().await.unwrap();
    let view = catalog.view(&Name::new("public", "deep")).unwrap();
    let mut reads: Vec<String> = view.reads.iter().map(|d| format!("{} {d} {:?}", d.kind.unwrap(), d.travel)).collect();
    reads.sort();
    assert_eq!(reads, ["feature view public.p@v1 Some(Version(0))", "table public.src None", "view public.w None"]);
    // an older version kept nothing: the text is read when the log is folded
    let mut old = view.as_ref().clone();
    old.reads.clear();
    let mut folded = CatalogSnapshot::clone(&catalog);
    folded.apply(crate::catalog::CatalogChange::PutView(old, crate::catalog::PutMode::Replace)).unwrap();
    let mut again = folded.view(&view.name).unwrap().reads.clone();
    let mut known = view.reads.clone();
    again.sort();
    known.sort();
    assert_eq!(again, known);
}
