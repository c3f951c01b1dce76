use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use deltalake::kernel::transaction::CommitBuilder;
use deltalake::kernel::{Action, Add};
use deltalake::protocol::{DeltaOperation, SaveMode};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, DAY, HOUR, MINUTE, SECOND};
use crate::error::Kind;
use crate::model::types::timestamp_type;

const T0: i64 = 1_700_000_000_000_000;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8, false),
        Field::new("event_ts", timestamp_type(), false),
        Field::new("v", DataType::Int64, true),
        Field::new(SEQ, DataType::Int64, false),
    ]))
}

fn rows(data: &[(&str, i64, i64)]) -> RecordBatch {
    let k: ArrayRef = Arc::new(data.iter().map(|r| Some(r.0)).collect::<StringArray>());
    let ts = TimestampMicrosecondArray::from_iter_values(data.iter().map(|r| T0 + r.1)).with_timezone("UTC");
    let v = Int64Array::from_iter_values(data.iter().map(|r| r.2));
    let seq = Int64Array::from_iter_values(0..data.len() as i64);
    RecordBatch::try_new(schema(), vec![k, Arc::new(ts), Arc::new(v), Arc::new(seq)]).unwrap()
}

fn spec(order: &[&str]) -> WriteSpec {
    WriteSpec {
        order: order.iter().map(|c| c.to_string()).collect(),
        stats_columns: ["k", "event_ts", SEQ].map(String::from).to_vec(),
        ..WriteSpec::plain(schema())
    }
}

const ORDER: [&str; 3] = ["k", "event_ts", SEQ];

async fn store(dir: &TempDir, clock: &Clock) -> Arc<OfflineStore> {
    OfflineStore::open(dir.path().join("ware house").to_str().unwrap(), clock.clone()).await.unwrap()
}

async fn table(store: &OfflineStore) -> Snapshot {
    let options = TableOptions { stats_columns: spec(&[]).stats_columns, watermark: true, ..Default::default() };
    store.create_table("features/f1", schema(), options).await.unwrap()
}

async fn write(store: &OfflineStore, order: &[&str], data: &[(&str, i64, i64)]) -> Vec<NewFile> {
    let mut w = store.writer("features/f1", spec(order)).unwrap();
    w.write(&rows(data)).await.unwrap();
    w.finish().await.unwrap()
}

async fn add(store: &OfflineStore, base: &Snapshot, data: &[(&str, i64, i64)]) -> Snapshot {
    let adds = write(store, &ORDER, data).await;
    store.commit(base, Commit { adds, ..Default::default() }).await.unwrap()
}

async fn read(provider: Arc<dyn TableProvider>) -> Vec<String> {
    let ctx = SessionContext::new();
    let batches = ctx.read_table(provider).unwrap().collect().await.unwrap();
    let mut lines: Vec<String> = vec![];
    for line in pretty_format_batches(&batches).unwrap().to_string().lines().skip(3) {
        if line.starts_with('|') {
            lines.push(line.split('|').map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>().join(" "));
        }
    }
    lines.sort();
    lines
}

async fn values(store: &OfflineStore, s: &Snapshot) -> Vec<String> {
    let all = read(store.scan_provider(s, ScanOptions::default()).unwrap()).await;
    let mut out: Vec<String> =
        all.iter().map(|l| format!("{} {}", l.split(' ').next().unwrap(), l.split(' ').next_back().unwrap())).collect();
    out.sort();
    out
}

async fn physical(provider: Arc<dyn TableProvider>, partitions: usize) -> Arc<dyn ExecutionPlan> {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions));
    provider.scan(&ctx.state(), None, &[], None).await.unwrap()
}

#[tokio::test]
async fn a_warehouse_is_made_once_and_recognised() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::fixed(T0);
    let first = store(&dir, &clock).await;
    assert_eq!(store(&dir, &clock).await.warehouse_id(), first.warehouse_id());
    assert!(first.local_dir().unwrap().ends_with("ware house"));
    let url = url::Url::from_directory_path(first.local_dir().unwrap()).unwrap();
    assert_eq!(OfflineStore::open(url.as_str(), clock).await.unwrap().warehouse_id(), first.warehouse_id());
}

#[tokio::test]
async fn a_strange_directory_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
    let at = dir.path().to_str().unwrap();
    let e = OfflineStore::open(at, Clock::fixed(T0)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Invalid);
    assert!(e.message().contains("is not a Remige warehouse"), "{e}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    let file = dir.path().join("thesis.txt");
    assert!(OfflineStore::open(file.to_str().unwrap(), Clock::fixed(T0)).await.unwrap_err().message().contains("is a file"));
}

#[tokio::test]
async fn newer_formats_and_damaged_markers_are_refused() {
    let dir = TempDir::new().unwrap();
    let marker = dir.path().join("_remige/warehouse.json");
    std::fs::create_dir_all(marker.parent().unwrap()).unwrap();
    for (text, part) in [("{\"format\": 7, \"x\": 1}", "has format 7"), ("{", "is damaged")] {
        std::fs::write(&marker, text).unwrap();
        let e = OfflineStore::open(dir.path().to_str().unwrap(), Clock::fixed(T0)).await.unwrap_err();
        assert!(e.message().contains(part), "{e}");
        assert_eq!(std::fs::read_to_string(&marker).unwrap(), text);
    }
}

#[tokio::test]
async fn unknown_schemes_say_what_to_build() {
    let e = OfflineStore::open("nope://bucket/x", Clock::fixed(T0)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Invalid);
}

#[tokio::test]
async fn rows_come_back_and_hidden_columns_only_on_demand() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    let t = table(&store).await;
    assert_eq!((t.version(), t.files().len(), t.rows()), (0, 0, Some(0)));
    let t = add(&store, &t, &[("a", 1, 10), ("b", 2, 20)]).await;
    assert_eq!((t.version(), t.rows()), (1, Some(2)));
    assert_eq!(values(&store, &t).await, ["a 10", "b 20"]);
    let plain = store.scan_provider(&t, ScanOptions::default()).unwrap();
    assert!(plain.schema().column_with_name(SEQ).is_none());
    let hidden = store.scan_provider(&t, ScanOptions { hidden: true, ..Default::default() }).unwrap();
    assert_eq!(hidden.schema(), schema());
    assert_eq!(t.max_of("event_ts"), Some(ScalarValue::TimestampMicrosecond(Some(T0 + 2), Some("UTC".into()))));
    assert_eq!(t.files()[0].min("k"), Some(&ScalarValue::from("a")));
    assert_eq!(t.files()[0].order, ORDER);
    // A second process sees the same.
    let again = self::store(&dir, &Clock::fixed(T0)).await;
    let t2 = again.snapshot("features/f1", None).await.unwrap();
    assert_eq!(t2.table_id(), t.table_id());
    assert_eq!(t2.files()[0].ranges, t.files()[0].ranges);
    assert_eq!(t2.files()[0].order, ORDER);
}

#[tokio::test]
async fn creating_twice_and_opening_nothing_are_errors() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    table(&store).await;
    let e = store.create_table("features/f1", schema(), TableOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::AlreadyExists);
    assert_eq!(store.snapshot("features/none", None).await.unwrap_err().kind(), Kind::NotFound);
    assert!(store.snapshot("../x", None).await.is_err());
    let e = store.snapshot("features/f1", Some(9)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound);
    assert!(e.hint().unwrap().contains("0 to 0"), "{e}");
    store.delete_table("features/f1").await.unwrap();
    assert_eq!(store.snapshot("features/f1", None).await.unwrap_err().kind(), Kind::NotFound);
    table(&store).await;
}

#[tokio::test]
async fn of_two_commits_on_one_snapshot_one_loses() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::fixed(T0);
    let (a, b) = (store(&dir, &clock).await, store(&dir, &clock).await);
    let t = table(&a).await;
    let t = add(&a, &t, &[("a", 1, 1), ("b", 2, 2)]).await;
    let all: Vec<String> = t.files().iter().map(|f| f.path.clone()).collect();
    let stale = b.snapshot("features/f1", None).await.unwrap();

    for operation in [Operation::Optimize, Operation::Overwrite, Operation::Delete] {
        let base = a.snapshot("features/f1", None).await.unwrap();
        let removes: Vec<String> = base.files().iter().map(|f| f.path.clone()).collect();
        let adds = write(&a, &ORDER, &[("a", 1, 1), ("b", 2, 2)]).await;
        a.commit(&base, Commit { adds, removes, operation: Operation::Optimize, rewrite: true, ..Default::default() }).await.unwrap();
        let adds = write(&b, &ORDER, &[("z", 9, 9)]).await;
        let rewrite = operation == Operation::Optimize;
        let late = Commit { adds: adds.clone(), removes: all.clone(), operation, rewrite, ..Default::default() };
        let e = b.commit(&stale, late).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Conflict, "{operation:?}: {e}");
        b.discard("features/f1", &adds).await;
        let now = b.snapshot("features/f1", None).await.unwrap();
        assert_eq!(values(&b, &now).await, ["a 1", "b 2"]);
    }
    // The same with the stale side being a plain commit of rows.
    let adds = write(&b, &ORDER, &[("c", 3, 3)]).await;
    let c = Commit { adds, ..Default::default() };
    assert_eq!(b.commit(&stale, c.clone()).await.unwrap_err().kind(), Kind::Conflict);
    // An append goes behind the others.
    let t = b.append(&stale, c).await.unwrap();
    assert_eq!(values(&b, &t).await, ["a 1", "b 2", "c 3"]);
    assert_eq!(values(&a, &a.refresh(&stale).await.unwrap()).await, ["a 1", "b 2", "c 3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_appends_all_arrive() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::fixed(T0);
    let first = store(&dir, &clock).await;
    table(&first).await;
    let mut tasks = vec![];
    for writer in 0..4 {
        let store = store(&dir, &clock).await;
        tasks.push(tokio::spawn(async move {
            for i in 0..5 {
                let base = store.snapshot("features/f1", None).await.unwrap();
                let adds = write(&store, &ORDER, &[("k", writer, i)]).await;
                store.append(&base, Commit { adds, ..Default::default() }).await.unwrap();
            }
        }));
    }
    for t in tasks {
        t.await.unwrap();
    }
    let t = first.snapshot("features/f1", None).await.unwrap();
    assert_eq!((t.version(), t.rows()), (20, Some(20)));
}

#[tokio::test]
async fn files_without_a_commit_are_invisible() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    let t = table(&store).await;
    let t = add(&store, &t, &[("a", 1, 1)]).await;
    let written = write(&store, &ORDER, &[("b", 2, 2)]).await;
    let unfinished = {
        let mut w = store.writer("features/f1", spec(&ORDER)).unwrap();
        w.write(&rows(&[("c", 3, 3)])).await.unwrap();
        w.rows()
    };
    assert_eq!((written.len(), unfinished), (1, 1));
    let t = self::store(&dir, &Clock::fixed(T0)).await.snapshot(t.location(), None).await.unwrap();
    assert_eq!((t.version(), values(&store, &t).await), (1, vec!["a 1".to_string()]));
}

#[tokio::test]
async fn the_watermark_survives_checkpoints() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::fixed(T0);
    let store = store(&dir, &clock).await;
    let mut t = table(&store).await;
    assert_eq!(t.watermark(), None);
    let adds = write(&store, &ORDER, &[("a", 1, 1)]).await;
    let c = Commit { adds, watermark: Some(T0 - 5), run_id: Some("run-1".into()), ..Default::default() };
    t = store.commit(&t, c).await.unwrap();
    for _ in 0..110 {
        t = store.commit(&t, Commit { metadata: [("note".to_string(), "x".into())].into(), ..Default::default() }).await.unwrap();
    }
    let log = store.local_dir().unwrap().join("features/f1/_delta_log");
    assert!(log.join("_last_checkpoint").exists());
    let fresh = self::store(&dir, &clock).await;
    let t2 = fresh.snapshot("features/f1", None).await.unwrap();
    assert_eq!((t2.version(), t2.watermark()), (111, Some(T0 - 5)));
    assert_eq!(t2.files()[0].order, ORDER, "tags survive a checkpoint");
    assert_eq!(t2.files()[0].ranges, t.files()[0].ranges);
    assert_eq!(t2.files()[0].range("event_ts").unwrap().nulls, Some(0));
    let history = fresh.history("features/f1", 1).await.unwrap();
    assert_eq!((history.len(), history[0].version), (111, 1));
    assert_eq!((history[0].run_id.as_deref(), history[0].watermark, history[0].at), (Some("run-1"), Some(T0 - 5), T0));
    assert_eq!(history[1].metadata["note"], "x");
}

#[tokio::test]
async fn a_table_without_watermark_takes_none() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    let t = store.create_table("t", schema(), TableOptions::default()).await.unwrap();
    assert!(store.commit(&t, Commit { watermark: Some(1), ..Default::default() }).await.is_err());
}

#[tokio::test]
async fn time_travel_by_version_and_instant() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::fixed(T0);
    let store = store(&dir, &clock).await;
    let mut t = table(&store).await;
    for i in 1..=5 {
        clock.advance(10 * SECOND);
        t = add(&store, &t, &[("a", i, i)]).await;
    }
    assert_eq!(values(&store, &store.snapshot("features/f1", Some(2)).await.unwrap()).await, ["a 1", "a 2"]);
    for (at, version) in [(0, 0), (9, 0), (10, 1), (35, 3), (50, 5), (5000, 5)] {
        assert_eq!(store.snapshot_at("features/f1", T0 + at * SECOND).await.unwrap().version(), version, "{at}");
    }
    let e = store.snapshot_at("features/f1", T0 - 1).await.unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound);
    assert!(e.message().contains("2023-11-14T22:13:20Z"), "{e}");
}

#[tokio::test]
async fn changes_come_from_commits_with_a_change_of_data() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    let t0 = table(&store).await;
    let t1 = add(&store, &t0, &[("a", 1, 1)]).await;
    let t2 = add(&store, &t1, &[("b", 2, 2)]).await;
    let old: Vec<String> = t2.files().iter().map(|f| f.path.clone()).collect();
    let adds = write(&store, &ORDER, &[("a", 1, 1), ("b", 2, 2)]).await;
    let optimize = Commit { adds, removes: old, operation: Operation::Optimize, rewrite: true, ..Default::default() };
    let t3 = store.commit(&t2, optimize).await.unwrap();
    let removes = vec![t3.files()[0].path.clone()];
    let adds = write(&store, &ORDER, &[("b", 2, 2)]).await;
    let t4 = store.commit(&t3, Commit { adds, removes, operation: Operation::Delete, ..Default::default() }).await.unwrap();

    let count = async |from, to| match store.changed_files("features/f1", from, to).await.unwrap() {
        Changed::Files(c) => Some((c.added.len(), c.removed.len())),
        Changed::Gap { .. } => None,
    };
    assert_eq!(count(0, 2).await, Some((2, 0)));
    assert_eq!(count(2, 3).await, Some((0, 0)));
    assert_eq!(count(1, 4).await, Some((2, 1)));
    assert_eq!(count(4, 4).await, Some((0, 0)));
    let Changed::Files(c) = store.changed_files("features/f1", 3, 4).await.unwrap() else { panic!("gap") };
    assert_eq!(c.removed[0].order, ORDER);
    let removed = store.scan_provider(&t4, ScanOptions { files: Some(c.removed), ..Default::default() }).unwrap();
    assert_eq!(read(removed).await.len(), 2);
    assert!(store.changed_files("features/f1", 0, 9).await.is_err());

    std::fs::remove_file(store.local_dir().unwrap().join("features/f1/_delta_log/00000000000000000002.json")).unwrap();
    assert!(matches!(store.changed_files("features/f1", 1, 4).await.unwrap(), Changed::Gap { missing: 2 }));
}

/// What Spark or the Python library would do: a file without our tags, rows in any order.
async fn foreign_append(store: &OfflineStore, base: &Snapshot, data: &[(&str, i64, i64)]) -> Snapshot {
    let path = store.local_dir().unwrap().join(base.location()).join("foreign.parquet");
    let mut w = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), schema(), None).unwrap();
    w.write(&rows(data)).unwrap();
    w.close().unwrap();
    let add = Add {
        path: "foreign.parquet".into(),
        size: std::fs::metadata(&path).unwrap().len() as i64,
        data_change: true,
        ..Default::default()
    };
    CommitBuilder::default()
        .with_actions(vec![Action::Add(add)])
        .build(
            Some(base.state()),
            base.log().clone(),
            DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None },
        )
        .await
        .unwrap();
    store.refresh(base).await.unwrap()
}

#[tokio::test]
async fn an_unsorted_foreign_file_turns_the_order_off() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    let t = table(&store).await;
    let t = add(&store, &t, &[("a", 1, 1), ("c", 2, 2)]).await;
    let t = add(&store, &t, &[("b", 1, 1), ("d", 2, 2)]).await;
    let provider = |s: &Snapshot| store.scan_provider(s, ScanOptions { hidden: true, ..Default::default() }).unwrap();
    let plan = physical(provider(&t), 4).await;
    let order: Vec<String> = plan.output_ordering().unwrap().iter().map(|e| e.to_string()).collect();
    assert_eq!(order, ["k@0 ASC", "event_ts@1 ASC", "_seq@3 ASC"]);
    assert_eq!(plan.output_partitioning().partition_count(), 2, "the files overlap: two runs");

    let t = foreign_append(&store, &t, &[("z", 9, 9), ("a", 0, 0)]).await;
    assert!(physical(provider(&t), 4).await.output_ordering().is_none());
    assert_eq!(values(&store, &t).await, ["a 0", "a 1", "b 1", "c 2", "d 2", "z 9"]);
    // Sorted by SQL it is still right.
    let ctx = SessionContext::new();
    let got = ctx.read_table(provider(&t)).unwrap().sort(vec![col("k").sort(true, true), col("event_ts").sort(true, true)]).unwrap();
    let got = got.collect().await.unwrap();
    let keys: Vec<String> = got
        .iter()
        .flat_map(|b| b.column(0).as_any().downcast_ref::<StringArray>().unwrap().iter().map(|k| k.unwrap().to_string()))
        .collect();
    assert_eq!(keys, ["a", "a", "b", "c", "d", "z"]);
}

#[tokio::test]
async fn files_that_follow_one_another_are_one_run() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    let t = table(&store).await;
    let names: Vec<String> = (0..100).map(|i| format!("k{i:03}")).collect();
    let data: Vec<(&str, i64, i64)> = names.iter().enumerate().map(|(i, k)| (k.as_str(), i as i64, i as i64)).collect();
    let stream = RecordBatchStreamAdapter::new(schema(), futures::stream::iter(data.chunks(7).map(|c| Ok(rows(c))).collect::<Vec<_>>()));
    let adds = store
        .write_files(t.location(), WriteSpec { target_file_rows: 10, row_group_rows: 3, ..spec(&ORDER) }, Box::pin(stream))
        .await
        .unwrap();
    assert_eq!(adds.iter().map(|f| f.rows).collect::<Vec<_>>(), [10; 10]);
    let t = store.commit(&t, Commit { adds, ..Default::default() }).await.unwrap();
    let plan = physical(store.scan_provider(&t, ScanOptions { hidden: true, ..Default::default() }).unwrap(), 4).await;
    assert_eq!(plan.output_partitioning().partition_count(), 1);
    assert!(plan.output_ordering().is_some());
    let ctx = SessionContext::new();
    let batches = datafusion::physical_plan::collect(plan, ctx.task_ctx()).await.unwrap();
    let got: Vec<i64> = batches.iter().flat_map(|b| b.column(2).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()).collect();
    assert_eq!(got, (0..100).collect::<Vec<i64>>());
}

#[tokio::test]
async fn filters_leave_files_out() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    let mut t = table(&store).await;
    for i in 0..5 {
        t = add(&store, &t, &[("a", i * 10, i), ("b", i * 10 + 5, i)]).await;
    }
    let ctx = SessionContext::new();
    let provider = store.scan_provider(&t, ScanOptions::default()).unwrap();
    let at = |us: i64| lit(ScalarValue::TimestampMicrosecond(Some(T0 + us), Some("UTC".into())));
    for (filter, files, rows) in [
        (col("event_ts").gt_eq(at(20)).and(col("event_ts").lt(at(30))), 1, 2),
        (col("k").eq(lit("zzz")), 0, 0),
        (col("k").eq(lit("a")), 5, 5),
        (col("v").eq(lit(3i64)), 5, 2),
    ] {
        let plan = provider.scan(&ctx.state(), None, std::slice::from_ref(&filter), None).await.unwrap();
        let text = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
        assert_eq!(text.matches(".parquet").count(), files, "{filter}: {text}");
        let got = ctx.read_table(Arc::clone(&provider)).unwrap().filter(filter).unwrap().count().await.unwrap();
        assert_eq!(got, rows);
    }

    assert_eq!(ctx.read_table(provider).unwrap().count().await.unwrap(), 10);
}

#[tokio::test]
async fn unsorted_rows_are_refused_for_a_sorted_file() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    table(&store).await;
    let mut w = store.writer("features/f1", spec(&ORDER)).unwrap();
    w.write(&rows(&[("b", 1, 1)])).await.unwrap();
    assert!(w.write(&rows(&[("a", 1, 1)])).await.is_err());
    let bad = futures::stream::iter(vec![Ok(rows(&[("b", 1, 1)])), Err(Error::invalid("source broke").into())]);
    let stream = Box::pin(RecordBatchStreamAdapter::new(schema(), bad));
    let e = store.write_files("features/f1", WriteSpec { target_file_rows: 1, ..spec(&ORDER) }, stream).await.unwrap_err();
    assert_eq!(e.message(), "source broke");
    drop(w);
    let left = std::fs::read_dir(store.local_dir().unwrap().join("features/f1")).unwrap();
    let left: Vec<_> = left.map(|f| f.unwrap().file_name()).filter(|n| n.to_str().unwrap().ends_with(".parquet")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn others_can_read_our_tables() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::fixed(T0);
    let store = store(&dir, &clock).await;
    let t = table(&store).await;
    add(&store, &t, &[("a", 1, 1), ("b", 2, 2)]).await;
    let path = store.local_dir().unwrap().join("features/f1");
    let foreign = open_foreign_delta(path.to_str().unwrap(), None, None).await.unwrap().provider;
    assert_eq!(read(foreign).await.len(), 2);
    let empty = open_foreign_delta(path.to_str().unwrap(), Some(0), None).await.unwrap().provider;
    assert_eq!(read(empty).await.len(), 0);
    let e = open_foreign_delta("/nowhere/at/all", None, None).await.err().unwrap();
    assert_eq!(e.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_damaged_log_names_the_file() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::fixed(T0);
    let first = store(&dir, &clock).await;
    let t = table(&first).await;
    add(&first, &t, &[("a", 1, 1)]).await;
    let file = first.local_dir().unwrap().join("features/f1/_delta_log/00000000000000000001.json");
    std::fs::write(&file, "{\"add\": nonsense").unwrap();
    let e = store(&dir, &clock).await.snapshot("features/f1", None).await.unwrap_err();
    assert!(e.message().contains("00000000000000000001.json"), "{e}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"add\": nonsense");
}

#[tokio::test]
async fn a_lease_has_one_holder_at_a_time() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::fixed(T0);
    let (a, b) = (store(&dir, &clock).await, store(&dir, &clock).await);
    let mut first = a.acquire_lease("refresh/f1", "a", SECOND).await.unwrap().unwrap();
    assert!(b.acquire_lease("refresh/f1", "b", SECOND).await.unwrap().is_none());
    assert_eq!(b.lease_holder("refresh/f1").await.unwrap().as_deref(), Some("a"));
    clock.advance(2 * SECOND);
    assert!(first.renew().await.unwrap());
    clock.advance(2 * SECOND);
    assert!(b.acquire_lease("refresh/f1", "b", SECOND).await.unwrap().is_none());
    clock.advance(SECOND);
    let second = b.acquire_lease("refresh/f1", "b", SECOND).await.unwrap().unwrap();
    assert_eq!((first.fencing(), second.fencing()), (1, 2));
    assert!(!first.renew().await.unwrap(), "the sleeper learns that it lost");
    second.release().await.unwrap();
    assert_eq!(a.lease_holder("refresh/f1").await.unwrap(), None);
    assert_eq!(a.acquire_lease("refresh/f1", "a", SECOND).await.unwrap().unwrap().fencing(), 3);
}

#[tokio::test]
async fn a_lease_of_the_future_lasts_no_longer_than_any_other() {
    let dir = TempDir::new().unwrap();
    let now = Clock::system().now();
    let (clock, wrong) = (Clock::fixed(now), Clock::fixed(now + 400 * DAY));
    let (a, b) = (store(&dir, &clock).await, store(&dir, &wrong).await);
    let mut ahead = b.acquire_lease("l", "ahead", 10 * MINUTE).await.unwrap().unwrap();
    assert!(a.acquire_lease("l", "a", MINUTE).await.unwrap().is_none(), "its holder was alive a moment ago");
    assert!(ahead.renew().await.unwrap());
    assert_eq!(a.lease_holder("l").await.unwrap().as_deref(), Some("ahead"));
    clock.advance(HOUR);
    assert_eq!(a.lease_holder("l").await.unwrap(), None);
    assert!(a.acquire_lease("l", "a", MINUTE).await.unwrap().is_some());
    assert!(!ahead.renew().await.unwrap());
    // nor does one that asks for years
    let b = store(&dir, &clock).await;
    let _years = b.acquire_lease("m", "years", 1000 * DAY).await.unwrap().unwrap();
    assert!(a.acquire_lease("m", "a", MINUTE).await.unwrap().is_none());
    clock.advance(HOUR);
    assert!(a.acquire_lease("m", "a", MINUTE).await.unwrap().is_some());
}

#[tokio::test]
async fn unsorted_tables_come_back_as_they_were_written() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    let mut t = table(&store).await;
    for i in 0..4i64 {
        let mut w = store.writer("features/f1", WriteSpec { target_file_rows: 2, ..spec(&[]) }).unwrap();
        w.write(&rows(&[("z", 1, i * 4), ("y", 1, i * 4 + 1), ("x", 1, i * 4 + 2), ("w", 1, i * 4 + 3)])).await.unwrap();
        let adds = w.finish().await.unwrap();
        t = store.commit(&t, Commit { adds, ..Default::default() }).await.unwrap();
    }
    t.checkpoint().await.unwrap();
    let fresh = self::store(&dir, &Clock::fixed(T0)).await;
    let t = fresh.snapshot("features/f1", None).await.unwrap();
    for partitions in [1, 3] {
        let plan = physical(fresh.scan_provider(&t, ScanOptions::default()).unwrap(), partitions).await;
        let mut got: Vec<i64> = vec![];
        for p in 0..plan.output_partitioning().partition_count() {
            let stream = plan.execute(p, SessionContext::new().task_ctx()).unwrap();
            for b in datafusion::physical_plan::common::collect(stream).await.unwrap() {
                got.extend(b.column(2).as_any().downcast_ref::<Int64Array>().unwrap().values());
            }
        }
        assert_eq!(got, (0..16).collect::<Vec<i64>>());
    }
}

#[tokio::test]
async fn what_a_plain_scan_would_misread_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    let t = table(&store).await;
    let t = add(&store, &t, &[("a", 1, 1)]).await;
    let refused = |t: &Snapshot, edit: fn(&mut DataFile)| {
        let mut file = DataFile::clone(&t.files()[0]);
        edit(&mut file);
        let options = ScanOptions { files: Some(vec![Arc::new(file)]), ..Default::default() };
        store.scan_provider(t, options).unwrap_err().message().to_string()
    };
    assert!(refused(&t, |f| f.has_deletions = true).contains("deletion vectors"));
    assert!(refused(&t, |f| f.is_partitioned = true).contains("partitions"));
    let properties = [("delta.columnMapping.mode".to_string(), "name".to_string())].into();
    let mapped = store.create_table("mapped", schema(), TableOptions { properties, ..Default::default() }).await.unwrap();
    let e = store.scan_provider(&mapped, ScanOptions::default()).unwrap_err();
    assert!(e.message().contains("column mapping"), "{e}");
}

#[tokio::test]
async fn written_rows_count_against_the_memory_pool() {
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    table(&store).await;
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100));
    let mut w = store.writer("features/f1", WriteSpec { memory: Some(Arc::clone(&pool)), ..spec(&ORDER) }).unwrap();
    assert_eq!(w.write(&rows(&[("a", 1, 1)])).await.unwrap_err().kind(), Kind::Exhausted);
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100 << 20));
    let mut w = store.writer("features/f1", WriteSpec { memory: Some(Arc::clone(&pool)), ..spec(&ORDER) }).unwrap();
    w.write(&rows(&[("a", 1, 1)])).await.unwrap();
    assert!(pool.reserved() > 0);
    w.finish().await.unwrap();
    assert_eq!(pool.reserved(), 0);
}

/// Futures of the public API can be spawned.
#[tokio::test]
async fn futures_are_send() {
    fn send<T: Send>(t: T) -> T {
        t
    }
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    let t = send(store.create_table("t", schema(), TableOptions::default())).await.unwrap();
    send(store.snapshot("t", None)).await.unwrap();
    send(store.snapshot_at("t", T0)).await.unwrap();
    send(store.history("t", 0)).await.unwrap();
    send(store.changed_files("t", 0, 0)).await.unwrap();
    let none = Box::pin(RecordBatchStreamAdapter::new(schema(), futures::stream::empty()));
    let adds = send(store.write_files("t", spec(&[]), none)).await.unwrap();
    assert!(adds.is_empty(), "no rows, no files");
    send(store.append(&t, Commit { adds, ..Default::default() })).await.unwrap();
    send(store.acquire_lease("l", "me", SECOND)).await.unwrap();
    send(store.delete_table("t")).await.unwrap();
}

#[tokio::test]
async fn columns_can_be_added_and_old_rows_read_null() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir, &Clock::fixed(T0)).await;
    let t = table(&store).await;
    let t = add(&store, &t, &[("a", 1, 1)]).await;
    let mut fields = schema().fields().to_vec();
    let wrong: SchemaRef = Arc::new(Schema::new(fields[1..].to_vec()));
    let e = store.commit(&t, Commit { new_schema: Some(wrong), ..Default::default() }).await.unwrap_err();
    assert!(e.message().contains("only nullable columns"), "{e}");
    fields.push(Arc::new(Field::new("w", DataType::Utf8, true)));
    let wider: SchemaRef = Arc::new(Schema::new(fields));
    let t2 = store.commit(&t, Commit { new_schema: Some(Arc::clone(&wider)), ..Default::default() }).await.unwrap();
    assert_eq!((t2.schema(), t2.table_id()), (&wider, t.table_id()));
    let mut columns = rows(&[("b", 2, 2)]).columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec!["new"])));
    let mut w = store.writer("features/f1", WriteSpec { schema: Arc::clone(&wider), ..spec(&ORDER) }).unwrap();
    w.write(&RecordBatch::try_new(wider, columns).unwrap()).await.unwrap();
    let t3 = store.commit(&t2, Commit { adds: w.finish().await.unwrap(), ..Default::default() }).await.unwrap();
    let got = read(store.scan_provider(&t3, ScanOptions::default()).unwrap()).await;
    assert_eq!(got, ["a 2023-11-14T22:13:20.000001Z 1", "b 2023-11-14T22:13:20.000002Z 2 new"]);
    let Changed::Files(c) = store.changed_files("features/f1", 1, 3).await.unwrap() else { panic!("gap") };
    assert!(c.schema_changed);
    assert_eq!(store.snapshot("features/f1", Some(1)).await.unwrap().schema(), t.schema());
}
