//! Joins whose views are Parquet files: what is read, what is shown, and what happens when memory is short.

use std::sync::Arc;

use datafusion::arrow::array::{Array, RecordBatch, StringViewArray};
use datafusion::common::JoinType;
use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::col;
use futures::StreamExt;

use super::testing::*;
use crate::error::{Error, Kind};
use crate::operator::pit_join::options::{PitJoinOptions, PitStrategy};

const LABELS: i64 = 30_000;
const ROWS: i64 = 60_000;
const KEYS: i64 = 1_000;

/// Keys and times without any order, or (`sorted`) by key and then time.
fn feature_rows(sorted: bool) -> RecordBatch {
    let key = move |r: i64| if sorted { r / (ROWS / KEYS) } else { (r * 7) % KEYS };
    let time = move |r: i64| if sorted { (r % (ROWS / KEYS)) * 10_000 } else { (r * 7919) % 600_000 };
    let rows = || 0..ROWS;
    batch(vec![
        ("k", int(rows().map(key))),
        ("ts", us(rows().map(time))),
        ("v", int(rows())),
        ("w", text(rows().map(|r| if r % 3 == 0 { None } else { Some("a feature of more than twelve letters") }))),
    ])
}

fn label_rows() -> RecordBatch {
    let rows = || 0..LABELS;
    batch(vec![("id", int(rows())), ("k", int(rows().map(|r| (r * 31) % (KEYS + 5)))), ("at", us(rows().map(|r| (r * 13) % 620_000)))])
}

pub async fn labels_and_view(state: &SessionState, sorted: bool) -> (LogicalPlan, LogicalPlan) {
    let (labels, view) = (label_rows(), feature_rows(sorted));
    let (ls, vs) = (labels.schema(), view.schema());
    (
        parquet(state, "l", "x", partitions(&labels, 2, 5_000), ls, 4_000).await,
        parquet(state, "f", "x", partitions(&view, 3, 5_000), vs, 7_000).await,
    )
}

async fn plan(state: &SessionState, sorted: bool) -> LogicalPlan {
    let (labels, view) = labels_and_view(state, sorted).await;
    let joined = join(labels, vec![view], vec![on("f", &[("k", "k")])]).unwrap();
    LogicalPlanBuilder::from(joined).project(vec![col("l.id"), col("f.v"), col("f.w")]).unwrap().build().unwrap()
}

async fn expected(sorted: bool) -> Vec<Option<i64>> {
    let (labels, view) = (label_rows(), feature_rows(sorted));
    let (ls, vs) = (labels.schema(), view.schema());
    let joined = join(scan("l", vec![vec![labels]], ls), vec![scan("f", vec![vec![view]], vs)], vec![on("f", &[("k", "k")])]).unwrap();
    ints(&run(&joined).await, "v")
}

#[tokio::test]
async fn every_strategy_gives_the_same_rows() {
    for sorted in [false, true] {
        let expected = expected(sorted).await;
        assert!(expected.iter().filter(|v| v.is_some()).count() > 20_000);
        for strategy in [PitStrategy::Auto, PitStrategy::Slots, PitStrategy::Merge, PitStrategy::Stream] {
            let state = with_options(&session(1_000, Arc::default()), PitJoinOptions { strategy, ..PitJoinOptions::default() }, 4);
            let physical = state.create_physical_plan(&plan(&state, sorted).await).await.unwrap();
            let batches = collect(Arc::clone(&physical), state.task_ctx()).await.unwrap();
            let got: Vec<_> = batches.iter().flat_map(|b| ints(b, "v")).collect();
            assert_eq!(got, expected, "{strategy} {sorted}");
            assert_eq!(batches.iter().flat_map(|b| ints(b, "id")).collect::<Vec<_>>(), (0..LABELS).map(Some).collect::<Vec<_>>());
            let merged = metric(&physical, "merged_rows");
            let all = ROWS as usize;
            let wanted = match strategy {
                PitStrategy::Merge => all,
                PitStrategy::Auto if sorted => all,
                _ => 0,
            };
            assert_eq!(merged, wanted, "{strategy} {sorted}");
        }
    }
}

#[tokio::test]
async fn explain_shows_the_strategy_and_the_columns() {
    let state = session(8192, Arc::default());
    let physical = state.create_physical_plan(&plan(&state, false).await).await.unwrap();
    let text = displayable(physical.as_ref()).indent(false).to_string();
    assert!(text.contains("strategy=[f@v1: slots or merge, fetch winners"), "{text}");
    assert!(text.contains("columns=[id, v, w] of 7"), "{text}");
}

#[tokio::test]
async fn row_groups_out_of_reach_are_not_read() {
    let state = session(8192, Arc::default());
    let (_, view) = labels_and_view(&state, true).await;
    // Keys 10 to 19 lie in the first of nine row groups.
    let few = batch(vec![("id", int(0..10)), ("k", int(10..20)), ("at", us((0..10).map(|_| 600_000)))]);
    let schema = few.schema();
    let joined = join(scan("l", vec![vec![few]], schema), vec![view.clone()], vec![on("f", &[("k", "k")])]).unwrap();
    let physical = state.create_physical_plan(&joined).await.unwrap();
    let rows = collect(Arc::clone(&physical), state.task_ctx()).await.unwrap();
    assert_eq!(rows.iter().flat_map(|b| ints(b, "v")).collect::<Vec<_>>(), (10..20).map(|k| Some(k * 60 + 59)).collect::<Vec<_>>());
    assert_eq!((metric(&physical, "row_groups_read"), metric(&physical, "row_groups_pruned")), (1, 8));
    // Labels before all rows reach nothing at all.
    let early = batch(vec![("id", int([1])), ("k", int([10])), ("at", us([-1]))]);
    let schema = early.schema();
    let joined = join(scan("l", vec![vec![early]], schema), vec![view], vec![on("f", &[("k", "k")])]).unwrap();
    let physical = state.create_physical_plan(&joined).await.unwrap();
    let rows = collect(Arc::clone(&physical), state.task_ctx()).await.unwrap();
    assert_eq!(rows.iter().flat_map(|b| ints(b, "v")).collect::<Vec<_>>(), [None]);
    assert_eq!((metric(&physical, "row_groups_read"), metric(&physical, "feature_rows")), (0, 0));
}

pub fn limited(bytes: usize) -> Arc<RuntimeEnv> {
    Arc::new(RuntimeEnvBuilder::new().with_memory_limit(bytes, 1.0).build().unwrap())
}

#[tokio::test]
async fn short_memory_takes_the_labels_in_chunks() {
    for (sorted, strategy) in [(false, PitStrategy::Auto), (true, PitStrategy::Auto), (false, PitStrategy::Stream)] {
        let runtime = limited(2_400_000);
        let state = with_options(&session(1_000, Arc::clone(&runtime)), PitJoinOptions { strategy, ..PitJoinOptions::default() }, 2);
        let physical = state.create_physical_plan(&plan(&state, sorted).await).await.unwrap();
        let batches = collect(Arc::clone(&physical), state.task_ctx()).await.unwrap();
        let got: Vec<_> = batches.iter().flat_map(|b| ints(b, "v")).collect();
        assert_eq!(got, expected(sorted).await, "{strategy}");
        assert!(metric(&physical, "label_chunks") > 1, "{strategy}");
        assert!(metric(&physical, "peak_memory_bytes") <= 2_400_000);
        assert_eq!(runtime.memory_pool.reserved(), 0);
    }
}

#[tokio::test]
async fn far_too_little_memory_is_a_clear_error() {
    let state = session(1_000, limited(100_000));
    let error = Error::from(run_in(&state, &plan(&state, false).await).await.unwrap_err());
    assert_eq!(error.kind(), Kind::Exhausted, "{error}");
    assert!(error.message().contains("point-in-time join of f@v1") && error.hint().is_some(), "{error}");
}

#[tokio::test]
async fn dropping_the_stream_frees_its_memory() {
    let runtime = limited(1 << 30);
    let state = session(1_000, Arc::clone(&runtime));
    let physical = state.create_physical_plan(&plan(&state, false).await).await.unwrap();
    let mut stream = physical.execute(0, state.task_ctx()).unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 1_000);
    assert!(runtime.memory_pool.reserved() > 0);
    drop(stream);
    assert_eq!(runtime.memory_pool.reserved(), 0);
}

/// A hash join with a dynamic filter waits until all of its partitions were started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_may_come_out_of_a_hash_join() {
    let state = with_options(&session(1_000, Arc::default()), PitJoinOptions::default(), 4);
    let (labels, view) = labels_and_view(&state, false).await;
    let few = batch(vec![("key", int(0..500))]);
    let schema = few.schema();
    let keys = parquet(&state, "d", "x", partitions(&few, 2, 100), schema, 100).await;
    let labels = LogicalPlanBuilder::from(labels).join(keys, JoinType::Inner, (vec!["l.k"], vec!["d.key"]), None).unwrap().build().unwrap();
    let joined = join(labels, vec![view], vec![on("f", &[("k", "k")])]).unwrap();
    let physical = state.create_physical_plan(&joined).await.unwrap();
    // Only to end a test that hangs.
    let all = crate::clock::timeout(std::time::Duration::from_secs(120), collect(physical, state.task_ctx())).await;
    let expected = (0..LABELS).filter(|r| (r * 31) % (KEYS + 5) < 500).count();
    assert_eq!(all.expect("the join hangs").unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), expected);
}

/// One long value for all labels is there once.
#[tokio::test]
async fn labels_share_a_long_value() {
    let runtime = limited(24 << 20);
    let state = session(1_000, Arc::clone(&runtime));
    let long = "x".repeat(1 << 20);
    let view = batch(vec![("k", int([1])), ("ts", us([0])), ("s", Arc::new(StringViewArray::from(vec![long.as_str()])) as _)]);
    let labels = batch(vec![("id", int(0..5_000)), ("k", int((0..5_000).map(|_| 1))), ("at", us(1..5_001))]);
    let (ls, vs) = (labels.schema(), view.schema());
    let view = parquet(&state, "f", "long", vec![vec![view]], vs, 10).await;
    let joined = join(scan("l", partitions(&labels, 1, 1_000), ls), vec![view], vec![on("f", &[("k", "k")])]).unwrap();
    let physical = state.create_physical_plan(&joined).await.unwrap();
    let mut stream = physical.execute(0, state.task_ctx()).unwrap();
    while let Some(batch) = stream.next().await {
        let batch = batch.unwrap();
        assert!(batch.column_by_name("s").unwrap().get_buffer_memory_size() < 2 << 20);
    }
}
