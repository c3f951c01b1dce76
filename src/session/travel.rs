//! Plans of whole statements, written down and run in another session of the same warehouse.

use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use tempfile::TempDir;

use super::*;
use crate::operator::codec::PlanCodec;

const SETUP: &str = "
    CREATE ENTITY u KEY (id BIGINT);
    CREATE TABLE src AS SELECT id, ts, id * 10 AS x, 'text ' || id AS s, CAST(id AS DECIMAL(10, 2)) AS d FROM (
        SELECT row_number() OVER (ORDER BY value)::BIGINT AS id, value AS ts
        FROM generate_series(TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-03', INTERVAL '1 hour') AS g(value));
    CREATE TABLE labels AS SELECT id % 60 AS id, ts + INTERVAL '90 minutes' AS at FROM src;
    CREATE VIEW w AS SELECT * FROM src WHERE x > 20;
    CREATE FEATURE VIEW v ENTITY u EVENT TIMESTAMP ts ONLINE AS SELECT id, ts, x, s, d FROM src;
    CREATE FEATURE VIEW p (n BIGINT) ENTITY u EVENT TIMESTAMP ts ONLINE;
    CREATE FEATURE VIEW n ENTITY u EVENT TIMESTAMP ts AS SELECT count(*) OVER LAST '30 days' AS c, sum(x) FILTER (WHERE x > 20) OVER ALL AS t FROM src;
    CREATE FEATURE SERVICE z AS SELECT v.x, v.x + p.n AS y FROM v, p;
    INSERT INTO p (id, ts, n) SELECT id, ts, x FROM src;
    REFRESH FEATURE VIEW n FULL; REFRESH FEATURE VIEW v FULL; MATERIALIZE FEATURE VIEW v FULL; MATERIALIZE FEATURE VIEW p FULL";

/// Nodes and expressions of every kind.
const QUERIES: &[&str] = &[
    "SELECT * FROM labels l ASOF JOIN v AT l.at ASOF JOIN p AT l.at",
    "SELECT l.id, f.x FROM labels l ASOF JOIN src f MATCH_CONDITION (l.at >= f.ts) ON l.id = f.id WITHIN INTERVAL '1 day'",
    "SELECT l.id, f.x FROM (SELECT id, max(at) AS at FROM labels GROUP BY id) l ASOF JOIN v f AT l.at WHERE f.x + 1 > 30 ORDER BY l.id",
    "SELECT s, count(*), sum(x), max(d) FROM (SELECT l.id, f.x, f.s, f.d FROM labels l ASOF JOIN v f AT l.at) GROUP BY s ORDER BY s",
    "SELECT l.id, n.c, n.t FROM labels l ASOF JOIN n AT l.at ORDER BY l.id",
    "SELECT id FROM src WHERE ts - TIMESTAMP '2026-01-01 00:00:00' > INTERVAL '1 day' ORDER BY id",
    "SELECT * FROM ONLINE_LOOKUP('v', (SELECT id FROM src))",
    "SELECT * FROM ONLINE_LOOKUP('z', (SELECT id FROM labels))",
    "SELECT l.id, o.x FROM labels l ONLINE JOIN v o",
    "SELECT id * 2 + x - 1, -x, d * d, s || '!' FROM w",
    "SELECT id, unnest(make_array(x, x + 1)) FROM src",
    "SELECT a.id, b.x FROM src a JOIN v b ON a.id = b.id AND a.x < b.x + 1",
    "SELECT a.id FROM src a, src b WHERE a.x < b.x AND a.id > 45",
    "SELECT id, x, row_number() OVER (PARTITION BY id % 3 ORDER BY ts) FROM src",
    "SELECT date_trunc('day', ts), count(DISTINCT id) FROM src GROUP BY 1",
    "SELECT arg_max(s, ts), mode(id % 3), date_diff('hour', min(ts), max(ts)) FROM src",
    "SELECT * FROM src WHERE id IN (SELECT id FROM labels) AND EXISTS (SELECT 1 FROM v WHERE v.id = src.id)",
    "SELECT ts AT TIME ZONE 'Europe/Berlin' FROM src UNION ALL SELECT at FROM labels",
    "SELECT id, lag(x) IGNORE NULLS OVER (ORDER BY ts) FROM src LIMIT 7",
];

async fn engine() -> (TempDir, Arc<Engine>) {
    let dir = TempDir::new().unwrap();
    let config = Config { warehouse: dir.path().to_string_lossy().into(), ..Config::default() };
    let engine = Engine::open(config, Clock::system()).await.unwrap();
    let session = engine.session();
    for (sql, ..) in Session::split(SETUP).unwrap() {
        session.execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    (dir, engine)
}

/// The state that a statement of this session runs in, with the online store.
async fn state_of(session: &Session) -> (SessionState, Arc<Resolver>) {
    let resolver = session.resolver(vec![], Notices::default()).await.unwrap();
    let mut state = state(&resolver, &session.current_schema()).unwrap();
    session.apply_variables(&mut state);
    state.config_mut().set_extension(crate::services::lookups(session.services()).await.unwrap());
    (state, resolver)
}

async fn physical(session: &Session, sql: &str) -> (Arc<dyn ExecutionPlan>, SessionState) {
    let (state, resolver) = state_of(session).await;
    let planned = session.plan(sql, &resolver).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    // of the same resolver, which has loaded the tables
    // joins that can be stopped are nodes, too
    let plan = Cancel::default().scope(state.create_physical_plan(&planned.plan)).await;
    (plan.unwrap_or_else(|e| panic!("{sql}: {e}")), state)
}

/// The rows as text: in order, where the statement says so.
async fn rows(plan: Arc<dyn ExecutionPlan>, state: &SessionState, sql: &str) -> Vec<String> {
    let batches = collect(plan, state.task_ctx()).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut lines: Vec<String> = pretty_format_batches(&batches).unwrap().to_string().lines().map(str::to_string).collect();
    // widths differ with the batches
    lines.iter_mut().for_each(|l| *l = l.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.retain(|l| !l.starts_with('+'));
    if !sql.contains("ORDER BY") && !sql.contains("ASOF JOIN v AT") {
        lines.sort();
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_gives_the_same_rows_in_another_session() {
    let (_dir, engine) = engine().await;
    let (here, there) = (engine.session(), engine.session());
    let mut seen = std::collections::BTreeSet::new();
    for parts in ["1", "2"] {
        here.execute(&format!("SET pit_join_parts = {parts}")).await.unwrap();
        for sql in QUERIES {
            let (plan, state) = physical(&here, sql).await;
            let codec = PlanCodec::of_statement(engine.services().clock.now(), None);
            let bytes = codec.encode(Arc::clone(&plan)).unwrap_or_else(|e| panic!("{sql}: {e}"));
            let (other, _) = state_of(&there).await;
            let read = PlanCodec::default().decode(&bytes, &other.task_ctx()).unwrap_or_else(|e| panic!("{sql}: {e}"));
            assert_eq!(read.schema(), plan.schema(), "{sql}");
            let shown = |p: &Arc<dyn ExecutionPlan>| displayable(p.as_ref()).indent(false).to_string();
            let nodes =
                |p: &Arc<dyn ExecutionPlan>| shown(p).lines().map(|l| l.trim().split(':').next().unwrap().to_string()).collect::<Vec<_>>();
            assert_eq!(nodes(&read), nodes(&plan), "{sql}");
            seen.extend(nodes(&plan));
            assert_eq!(rows(read, &other, sql).await, rows(plan, &state, sql).await, "{sql}");
        }
    }
    for node in ["PitJoinExec", "InLabelOrderExec", "OnlineLookupExec", "Guarded", "Portions", "SplitRepartitionExec"] {
        assert!(seen.contains(node), "no statement has {node}: {seen:?}");
    }
}

#[tokio::test]
async fn the_rows_of_a_prepared_statement_travel_with_it() {
    let (_dir, engine) = engine().await;
    let session = engine.session();
    let keys = RecordBatch::try_from_iter([("$1", Arc::new(datafusion::arrow::array::Int64Array::from(vec![7, 99])) as _)]).unwrap();
    let (state, _) = state_of(&session).await;
    let leaf = LogicalPlan::Extension(datafusion::logical_expr::Extension {
        node: Arc::new(crate::plan::bound_rows::BoundRowsNode::new(&[DataType::Int64]).unwrap()),
    });
    let plan = state.create_physical_plan(&leaf).await.unwrap();
    let without = PlanCodec::default().encode(Arc::clone(&plan)).unwrap_err();
    assert!(without.to_string().contains("no rows are bound"), "{without}");
    let bytes = PlanCodec::of_statement(0, Some(keys)).encode(plan).unwrap();
    let read = PlanCodec::default().decode(&bytes, &state.task_ctx()).unwrap();
    assert_eq!(rows(read, &state, "").await, ["| $1 |", "| 7 |", "| 99 |"]);
}

#[tokio::test]
async fn what_changes_the_warehouse_stays() {
    let (dir, engine) = engine().await;
    let session = engine.session();
    let copy = format!("COPY (SELECT 1 AS a) TO '{}/x.parquet'", dir.path().display());
    for (sql, node) in
        [("INSERT INTO src (id, ts) VALUES (1, now())", "DataSinkExec"), ("DROP TABLE labels", "CommandExec"), (&copy, "DataSinkExec")]
    {
        let (plan, _) = physical(&session, sql).await;
        let e = PlanCodec::of_statement(0, None).encode(plan).unwrap_err().to_string();
        assert!(e.contains(node) && e.contains("stays with the machine that planned it"), "{sql}: {e}");
    }
    // "now" is asked of who writes the plan
    let (plan, state) = physical(&session, "SELECT * FROM ONLINE_LOOKUP('v', (SELECT 1 AS id))").await;
    let e = PlanCodec::default().encode(Arc::clone(&plan)).unwrap_err().to_string();
    assert!(e.contains("the instant of its statement"), "{e}");
    // bytes that are no plan, and those of another version
    let bytes = PlanCodec::of_statement(0, None).encode(plan).unwrap();
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        assert!(PlanCodec::default().decode(&bytes[..cut], &state.task_ctx()).is_err(), "{cut}");
    }
}
