use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::Session;
use datafusion::common::TableReference;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{Extension, LogicalPlan, LogicalPlanBuilder, col, lit};
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use tempfile::TempDir;

use super::*;
use crate::clock::Micros;
use crate::error::{Error, Kind};
use crate::model::codec::{RowEncoder, encode_keys};
use crate::model::{About, Feature, FeatureKind, Name};
use crate::plan::online_lookup::{LookupItem, OnlineLookupNode};
use crate::store::online::{KeysOf, Pointer, PutKind, PutRow, PutStats, RowPage, RowsOf, WriteClaim, connect};

#[derive(Debug)]
struct World {
    store: Arc<dyn OnlineStore>,
    clock: Clock,
    settings: OnlineSettings,
    /// Views whose tables have no rows.
    empty: HashSet<String>,
    _dir: TempDir,
}

#[async_trait]
impl LookupContext for World {
    fn store(&self) -> Arc<dyn OnlineStore> {
        Arc::clone(&self.store)
    }
    fn clock(&self) -> Clock {
        self.clock.clone()
    }
    fn settings(&self) -> OnlineSettings {
        self.settings.clone()
    }
    fn online_view(&self, view: &FeatureView) -> OnlineView {
        OnlineView { warehouse_id: "w".into(), online_id: view.online_id }
    }
    async fn table_is_empty(&self, view: &FeatureView) -> Result<bool> {
        Ok(self.empty.contains(&view.name.name))
    }
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let settings = OnlineSettings::default();
    let store = connect("embedded", Some(dir.path()), &settings, Clock::system()).await.unwrap();
    World { store, clock: Clock::fixed(100), settings, empty: HashSet::new(), _dir: dir }
}

fn view(name: &str, online_id: u32, ttl: Option<Micros>, keys: &[(&str, &str)], features: &[(&str, &str)]) -> Arc<FeatureView> {
    Arc::new(FeatureView {
        name: Name::new("public", name),
        version: 1,
        table_id: name.into(),
        location: name.into(),
        online_id,
        entities: vec![],
        keys: keys.iter().map(|(n, t)| Column { name: n.to_string(), data_type: t.parse().unwrap() }).collect(),
        event_timestamp: "ts".into(),
        event_zone: None,
        created_timestamp: None,
        features: features
            .iter()
            .map(|(n, t)| Feature {
                name: n.to_string(),
                data_type: t.parse().unwrap(),
                kind: FeatureKind::Latest,
                comment: None,
                tags: BTreeMap::new(),
            })
            .collect(),
        ttl,
        lookback: 0,
        refresh_every: None,
        suspended: false,
        online: true,
        query: None,
        query_schema: "public".into(),
        reads: vec![],
        snapshot: false,
        windowed: None,
        about: About::default(),
        created_at: 0,
    })
}

fn churn(ttl: Option<Micros>) -> Arc<FeatureView> {
    view("churn", 1, ttl, &[("user", "BIGINT")], &[("a", "BIGINT"), ("b", "VARCHAR")])
}

/// Publishes rows (key, event, a, b); `None` for both values and a negative event: a tombstone.
async fn publish(world: &World, view: &FeatureView, ttl: Option<Micros>, rows: &[(i64, Micros, Option<i64>, Option<&str>)]) {
    let online = world.online_view(view);
    let generation = world.store.begin_generation(&online).await.unwrap();
    let key_column: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
    let keys: Vec<_> = encode_keys(&[key_column]).unwrap().into_iter().flatten().collect();
    let (schema_id, columns) = row_schema(view);
    let encoder = RowEncoder::new(schema_id, &columns);
    let values: [ArrayRef; 2] =
        [Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.2))), Arc::new(StringArray::from_iter(rows.iter().map(|r| r.3)))];
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1));
    let encoded = encoder.encode(&keys, &times, None, &Int64Array::from(vec![0; rows.len()]), 1, &values).unwrap();
    let puts = rows.iter().zip(keys).zip(encoded).map(|((r, key), row)| {
        let row = if r.1 < 0 { encoder.tombstone(&key, 1) } else { row };
        PutRow { key: key.into_stored(), row, kind: PutKind::Offer, expire_at: None }
    });
    world.store.load(&online, generation, puts.collect()).await.unwrap();
    let pointer = Pointer { generation, schema_id, view_version: 1, delta_version: 1, rows: rows.len() as u64, published_at: 0, ttl };
    assert!(world.store.publish(&online, None, &pointer, None).await.unwrap());
}

#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(OnlineLookupPlanner)]);
        planner.create_physical_plan(plan, session).await
    }
}

fn session(world: Arc<World>, memory: Option<usize>) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(4).with_extension(Arc::new(LookupHandle(world)));
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(bytes) = memory {
        runtime = runtime.with_memory_limit(bytes, 1.0);
    }
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(Arc::new(runtime.build().unwrap()))
        .with_query_planner(Arc::new(Planner))
        .build();
    SessionContext::new_with_state(state)
}

fn requests(columns: Vec<(&str, ArrayRef)>) -> LogicalPlanBuilder {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    LogicalPlanBuilder::scan(TableReference::bare("r"), provider_as_source(Arc::new(table)), None).unwrap()
}

fn users(ids: Vec<Option<i64>>) -> LogicalPlanBuilder {
    let tags: ArrayRef = Arc::new(StringArray::from_iter_values((0..ids.len()).map(|i| format!("t{i}"))));
    requests(vec![("tag", tags), ("id", Arc::new(Int64Array::from(ids)))])
}

fn item(alias: &str, view: &Arc<FeatureView>, key_inputs: Vec<usize>) -> LookupItem {
    LookupItem { alias: alias.into(), view: Arc::clone(view), key_inputs, features: (0..view.features.len()).collect() }
}

fn lookup(input: LogicalPlanBuilder, items: Vec<LookupItem>, at: Option<Micros>) -> LogicalPlanBuilder {
    let node = OnlineLookupNode::try_new(input.build().unwrap(), items, at).unwrap();
    LogicalPlanBuilder::from(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

async fn run(session: &SessionContext, plan: LogicalPlanBuilder) -> Result<String> {
    let batches = session.execute_logical_plan(plan.build()?).await?.collect().await?;
    Ok(pretty_format_batches(&batches)?.to_string())
}

fn table(text: &str) -> String {
    text.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn every_status_in_request_order_with_duplicates() {
    let (world, v) = (world().await, churn(Some(10)));
    let rows = [
        (1, 95, Some(7), Some("x")),
        (2, 90, None, None),
        (3, 89, Some(8), Some("y")),
        (4, 101, Some(9), None),
        (5, -1, None, None),
        (6, 100, None, Some("z")),
    ];
    publish(&world, &v, Some(10), &rows).await;
    let session = session(Arc::new(world), None);
    let ids = vec![Some(6), Some(3), None, Some(1), Some(2), Some(1), Some(4), Some(5), Some(99), None];
    let out = run(&session, lookup(users(ids.clone()), vec![item("f", &v, vec![1])], None)).await.unwrap();
    assert_eq!(
        out,
        table(
            "
            +-----+----+---+---+-----------------------------+-----------------+-----------------------------+
            | tag | id | a | b | ts                          | __status        | _remige_instant             |
            +-----+----+---+---+-----------------------------+-----------------+-----------------------------+
            | t0  | 6  |   | z | 1970-01-01T00:00:00.000100Z | PRESENT         | 1970-01-01T00:00:00.000100Z |
            | t1  | 3  |   |   |                             | OUTSIDE_MAX_AGE | 1970-01-01T00:00:00.000100Z |
            | t2  |    |   |   |                             | NOT_FOUND       | 1970-01-01T00:00:00.000100Z |
            | t3  | 1  | 7 | x | 1970-01-01T00:00:00.000095Z | PRESENT         | 1970-01-01T00:00:00.000100Z |
            | t4  | 2  |   |   | 1970-01-01T00:00:00.000090Z | NULL_VALUE      | 1970-01-01T00:00:00.000100Z |
            | t5  | 1  | 7 | x | 1970-01-01T00:00:00.000095Z | PRESENT         | 1970-01-01T00:00:00.000100Z |
            | t6  | 4  | 9 |   | 1970-01-01T00:00:00.000101Z | PRESENT         | 1970-01-01T00:00:00.000100Z |
            | t7  | 5  |   |   |                             | NOT_FOUND       | 1970-01-01T00:00:00.000100Z |
            | t8  | 99 |   |   |                             | NOT_FOUND       | 1970-01-01T00:00:00.000100Z |
            | t9  |    |   |   |                             | NOT_FOUND       | 1970-01-01T00:00:00.000100Z |
            +-----+----+---+---+-----------------------------+-----------------+-----------------------------+"
        )
    );
    // 4 is later than this clock, not than that of its writer. At another instant what is ten older is not there; and only the columns asked for.
    let plan = lookup(users(ids), vec![item("f", &v, vec![1])], Some(101)).filter(col("r.id").eq(lit(4i64)).or(col("r.id").eq(lit(2i64))));
    let plan = plan.unwrap().project([col("f.a"), col("f.__status"), col("r.tag")]).unwrap();
    let out = run(&session, plan).await.unwrap();
    assert_eq!(
        out,
        table(
            "
            +---+-----------------+-----+
            | a | __status        | tag |
            +---+-----------------+-----+
            |   | OUTSIDE_MAX_AGE | t4  |
            | 9 | PRESENT         | t6  |
            +---+-----------------+-----+"
        )
    );
}

#[tokio::test]
async fn several_views_and_roles_in_one_read() {
    let (world, v) = (world().await, churn(None));
    let other = view("plan", 2, None, &[("user", "BIGINT")], &[("a", "BIGINT"), ("b", "VARCHAR")]);
    publish(&world, &v, None, &[(1, 1, Some(10), None), (2, 1, Some(20), None)]).await;
    publish(&world, &other, None, &[(2, 1, Some(200), None)]).await;
    let counting = Arc::new(Counting { inner: Arc::clone(&world.store), reads: AtomicU64::new(0), delay: None });
    let session = session(Arc::new(World { store: counting.clone(), ..world }), None);
    let input = requests(vec![
        ("sender", Arc::new(Int64Array::from(vec![1, 2]))),
        // A text that is a number is a BIGINT key too.
        ("receiver", Arc::new(StringArray::from(vec!["2", "1"]))),
    ]);
    let mut narrow = item("o", &other, vec![1]);
    narrow.features = vec![0];
    let items = vec![item("s", &v, vec![0]), item("r2", &v, vec![1]), narrow];
    let plan = lookup(input, items, None);
    let plan = plan.project([col("s.a"), col("r2.a"), col("o.a"), col("o.__status"), col("r.receiver")]).unwrap();
    let out = run(&session, plan).await.unwrap();
    assert_eq!(
        out,
        table(
            "
            +----+----+-----+-----------+----------+
            | a  | a  | a   | __status  | receiver |
            +----+----+-----+-----------+----------+
            | 10 | 20 | 200 | PRESENT   | 2        |
            | 20 | 10 |     | NOT_FOUND | 1        |
            +----+----+-----+-----------+----------+"
        )
    );
    assert_eq!(counting.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_view_never_materialized() {
    let (mut world, v) = (world().await, churn(None));
    let plan = || lookup(users(vec![Some(1)]), vec![item("f", &v, vec![1])], None);
    world.empty.insert("churn".into());
    let out = run(&session(Arc::new(world), None), plan()).await.unwrap();
    assert!(out.contains("NOT_FOUND"), "{out}");

    let filled = self::world().await;
    let e = run(&session(Arc::new(filled), None), plan()).await.unwrap_err();
    assert_eq!((e.kind(), e.message()), (Kind::Invalid, "feature view public.churn was never materialized"));
    assert_eq!(e.hint(), Some("MATERIALIZE FEATURE VIEW public.churn"));
}

#[tokio::test]
async fn wrong_keys_schemas_and_limits_are_errors() {
    let (world, v) = (world().await, churn(None));
    publish(&world, &v, None, &[(1, 1, Some(1), Some("x"))]).await;
    let world = Arc::new(world);
    let s = session(world.clone(), None);
    let text = requests(vec![("id", Arc::new(StringArray::from(vec!["1", "one"])))]);
    let e = run(&s, lookup(text, vec![item("f", &v, vec![0])], None)).await.unwrap_err();
    assert!(e.kind() == Kind::Invalid && e.message().contains("\"user\"") && e.message().contains("one"), "{e}");

    let mut newer = (*v).clone();
    newer.version = 2;
    let e = run(&s, lookup(users(vec![Some(1)]), vec![item("f", &Arc::new(newer), vec![1])], None)).await.unwrap_err();
    assert!(e.kind() == Kind::Conflict && e.message().contains("schema 1"), "{e}");

    let e = run(&session(world.clone(), Some(64)), lookup(users(vec![Some(1); 3]), vec![item("f", &v, vec![1])], None)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Exhausted, "{e}");

    let few = World { settings: OnlineSettings { max_keys: 2, ..Default::default() }, store: world.store(), ..self::world().await };
    let e = run(&session(Arc::new(few), None), lookup(users(vec![Some(1); 3]), vec![item("f", &v, vec![1])], None)).await.unwrap_err();
    assert!(e.kind() == Kind::Exhausted && e.message().contains("2 keys"), "{e}");

    let slow = Counting { inner: world.store(), reads: AtomicU64::new(0), delay: Some(std::time::Duration::from_secs(3600)) };
    let settings = OnlineSettings { lookup_deadline: 20_000, ..Default::default() };
    let slow = World { settings, store: Arc::new(slow), ..self::world().await };
    let e = run(&session(Arc::new(slow), None), lookup(users(vec![Some(1)]), vec![item("f", &v, vec![1])], None)).await.unwrap_err();
    assert!(e.kind() == Kind::Unavailable && e.message().contains("20 ms"), "{e}");

    assert!(OnlineLookupNode::try_new(users(vec![]).build().unwrap(), vec![item("f", &v, vec![7])], None).is_err());
    assert!(OnlineLookupNode::try_new(users(vec![]).build().unwrap(), vec![item("f", &v, vec![])], None).is_err());
}

#[tokio::test]
async fn a_statement_reads_one_generation_only() {
    let (world, v) = (world().await, churn(None));
    publish(&world, &v, None, &[(1, 1, Some(1), None), (2, 1, Some(2), None)]).await;
    let world = Arc::new(world);
    let s = session(world.clone(), None);
    let both = users(vec![Some(1)]).union(users(vec![Some(2)]).build().unwrap()).unwrap();
    let plan = lookup(both, vec![item("f", &v, vec![1])], None).build().unwrap();
    let physical = s.state().create_physical_plan(&plan).await.unwrap();
    let mut rows = execute_stream(Arc::clone(&physical), s.task_ctx()).unwrap();
    assert_eq!(rows.next().await.unwrap().unwrap().num_rows(), 1);
    let (store, online) = (world.store(), world.online_view(&v));
    let pointer = store.pointer(&online).await.unwrap().unwrap();
    let generation = store.begin_generation(&online).await.unwrap();
    assert!(store.publish(&online, Some(pointer.generation), &Pointer { generation, ..pointer }, None).await.unwrap());
    let e = Error::from(rows.next().await.unwrap().unwrap_err());
    assert!(e.kind() == Kind::Conflict && e.message().contains("public.churn") && e.hint().unwrap().contains("again"), "{e}");
    // whoever begins now reads the new one
    assert_eq!(collect(physical, s.task_ctx()).await.unwrap().iter().map(|b| b.num_rows()).sum::<usize>(), 2);
}

#[tokio::test]
async fn now_is_read_once_per_query_and_anew_for_the_next() {
    let (world, v) = (world().await, churn(Some(10)));
    publish(&world, &v, None, &[(1, 95, Some(7), None)]).await;
    let world = Arc::new(world);
    let s = session(world.clone(), None);
    let plan = lookup(users(vec![Some(1)]), vec![item("f", &v, vec![1])], None).build().unwrap();
    let physical = s.state().create_physical_plan(&plan).await.unwrap();
    for (now, status) in [(100, "PRESENT"), (106, "OUTSIDE_MAX_AGE"), (94, "PRESENT")] {
        world.clock.set(now);
        let out = collect(Arc::clone(&physical), s.task_ctx()).await.unwrap();
        assert!(pretty_format_batches(&out).unwrap().to_string().contains(status), "{now} {status}");
    }
    // The TTL that the rows were published with counts where it is the narrower one.
    let long = churn(None);
    let world = Arc::new(self::world().await);
    publish(&world, &long, Some(10), &[(1, 89, Some(7), None)]).await;
    let out = run(&session(world, None), lookup(users(vec![Some(1)]), vec![item("f", &long, vec![1])], None)).await.unwrap();
    assert!(out.contains("OUTSIDE_MAX_AGE"), "{out}");
}

#[tokio::test]
async fn plans_explain_themselves_and_keep_order() {
    let (world, v) = (world().await, churn(None));
    let rows: Vec<_> = (0..500).map(|k| (k, 1, Some(k * 10), None)).collect();
    publish(&world, &v, None, &rows).await;
    let s = session(Arc::new(world), None);
    // Several batches, as a filter above the scan would make repartitioning tempting.
    let ids: Vec<_> = (0..500).map(|k| Some((k * 7) % 600)).collect();
    let plan =
        lookup(users(ids.clone()), vec![item("f", &v, vec![1])], Some(5)).project([col("r.id"), col("f.a")]).unwrap().build().unwrap();
    let optimized = s.state().optimize(&plan).unwrap();
    let text = optimized.display_indent().to_string();
    assert!(text.contains("OnlineLookup: f = public.churn@v1 [a, b] by (r.id), at=1970-01-01T00:00:00.000005Z"), "{text}");
    assert!(text.contains("projection=[id]"), "the tag is not read: {text}");

    let physical = s.state().create_physical_plan(&plan).await.unwrap();
    let batches = collect(Arc::clone(&physical), s.task_ctx()).await.unwrap();
    let mut got = vec![];
    for b in &batches {
        let column = |i: usize| b.column(i).as_any().downcast_ref::<Int64Array>().unwrap().iter().collect::<Vec<_>>();
        got.extend(column(0).into_iter().zip(column(1)));
    }
    let want: Vec<_> = ids.iter().map(|id| (*id, id.filter(|k| *k < 500).map(|k| k * 10))).collect();
    assert_eq!(got, want);
    let text = DisplayableExecutionPlan::with_metrics(&*physical).indent(true).to_string();
    for part in ["OnlineLookupExec: f = public.churn@v1 [a, b] by (id)", "store=embedded", "lookups=500", "keys=500", "store_round_trips="]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let hits = want.iter().filter(|(_, a)| a.is_some()).count();
    assert!(text.contains(&format!("hits={hits}")), "{hits} {text}");
    // LIMIT goes below.
    let limited = LogicalPlanBuilder::from(plan).limit(0, Some(2)).unwrap().build().unwrap();
    let text = s.state().optimize(&limited).unwrap().display_indent().to_string();
    assert!(text.contains("fetch=2"), "{text}");
}

/// Counts reads, and can be slow.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn OnlineStore>,
    reads: AtomicU64,
    delay: Option<std::time::Duration>,
}

#[async_trait]
impl OnlineStore for Counting {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    async fn get_batch(&self, requests: &[KeysOf<'_>]) -> Result<Vec<RowsOf>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if let Some(d) = self.delay {
            crate::clock::sleep(d).await;
        }
        self.inner.get_batch(requests).await
    }
    async fn check(&self) -> Result<Vec<String>> {
        Err(Error::internal("reads only"))
    }
    async fn claim(&self, _: &OnlineView) -> Result<WriteClaim> {
        Err(Error::internal("reads only"))
    }
    async fn pointer(&self, view: &OnlineView) -> Result<Option<Pointer>> {
        self.inner.pointer(view).await
    }
    async fn begin_generation(&self, _: &OnlineView) -> Result<u32> {
        Err(Error::internal("reads only"))
    }
    async fn load(&self, _: &OnlineView, _: u32, _: Vec<PutRow>) -> Result<u64> {
        Err(Error::internal("reads only"))
    }
    async fn put(&self, _: &OnlineView, _: u32, _: Vec<PutRow>) -> Result<PutStats> {
        Err(Error::internal("reads only"))
    }
    async fn watermark(&self, _: &OnlineView, _: u32) -> Result<Option<u64>> {
        Err(Error::internal("reads only"))
    }
    async fn advance_watermark(&self, _: &OnlineView, _: u32, _: Option<u64>, _: u64) -> Result<bool> {
        Err(Error::internal("reads only"))
    }
    async fn publish(&self, _: &OnlineView, _: Option<u32>, _: &Pointer, _: Option<u64>) -> Result<bool> {
        Err(Error::internal("reads only"))
    }
    async fn peek(&self, _: &OnlineView, _: u32, _: &[&[u8]]) -> Result<Vec<Option<bytes::Bytes>>> {
        Err(Error::internal("reads only"))
    }
    async fn scan_rows(&self, _: &OnlineView, _: u32, _: Option<Vec<u8>>) -> Result<RowPage> {
        Err(Error::internal("reads only"))
    }
    async fn views(&self, _: &str) -> Result<Vec<u32>> {
        Err(Error::internal("reads only"))
    }
    async fn generations(&self, _: &OnlineView) -> Result<Vec<u32>> {
        Err(Error::internal("reads only"))
    }
    async fn drop_generation(&self, _: &OnlineView, _: u32) -> Result<u64> {
        Err(Error::internal("reads only"))
    }
    async fn drop_view(&self, _: &OnlineView) -> Result<u64> {
        Err(Error::internal("reads only"))
    }
    async fn stats(&self, _: &OnlineView, _: u32) -> Result<(u64, u64)> {
        Err(Error::internal("reads only"))
    }
}
