//! Joins with several output partitions.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::JoinType;
use datafusion::execution::SessionState;
use datafusion::functions_aggregate::expr_fn::{count, max};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::col;

use super::files::{labels_and_view, limited};
use super::testing::*;
use super::{joined, some};
use crate::error::{Error, Kind};
use crate::operator::pit_join::options::{PitJoinOptions, PitStrategy};

fn in_parts(state: &SessionState, parts: usize) -> SessionState {
    with_options(state, PitJoinOptions { parts, ..PitJoinOptions::default() }, 2)
}

/// The rows, and the physical plan as text.
async fn run_shown(state: &SessionState, plan: &LogicalPlan) -> (Vec<RecordBatch>, String) {
    let physical = state.create_physical_plan(plan).await.unwrap();
    let shown = displayable(physical.as_ref()).indent(false).to_string();
    // Only to end a test that hangs.
    let rows = crate::clock::timeout(std::time::Duration::from_secs(120), collect(physical, state.task_ctx())).await;
    (rows.expect("the join hangs").unwrap(), shown)
}

fn ids(rows: &[RecordBatch]) -> Vec<Option<i64>> {
    rows.iter().flat_map(|b| ints(b, "id")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_the_labels_is_kept_where_it_is_seen() {
    let odd = || (col("l.id") % lit(2i64)).not_eq(lit(0i64));
    for parts in [2, 3, 7] {
        let state = in_parts(&session(1_000, Arc::default()), parts);
        let (rows, shown) = run_shown(&state, &joined().build().unwrap()).await;
        assert_eq!(ids(&rows), some(0..20_000));
        assert!(shown.contains(&format!("InLabelOrderExec: parts={parts}")) && shown.contains(&format!("; parts={parts}")), "{shown}");
        let filtered = joined().filter(odd()).unwrap().build().unwrap();
        assert_eq!(ids(&run_shown(&state, &filtered).await.0), some((1..20_000).step_by(2)));
        let limited = joined().filter(odd()).unwrap().limit(5, Some(9_000)).unwrap().build().unwrap();
        assert_eq!(ids(&run_shown(&state, &limited).await.0), some((11..20_000).step_by(2).take(9_000)));
        // the first rows, though an aggregate is above
        let first = joined().filter(odd()).unwrap().limit(0, Some(3)).unwrap();
        let last = first.aggregate(Vec::<datafusion::logical_expr::Expr>::new(), vec![max(col("l.id")).alias("id")]).unwrap();
        assert_eq!(ids(&run_shown(&state, &last.build().unwrap()).await.0), some([5]));
        // numbers of rows by no order of their own
        let numbered = joined().window(vec![row_number().alias("n")]).unwrap();
        let (rows, _) = run_shown(&state, &numbered.project(vec![col("l.id"), col("n")]).unwrap().build().unwrap()).await;
        assert!(rows.iter().all(|b| ints(b, "id").iter().zip(ints(b, "n")).all(|(id, n)| id.map(|i| i + 1) == n)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_go_on_as_they_are_where_no_order_is_seen() {
    let state = in_parts(&session(1_000, Arc::default()), 3);
    let counted = joined().aggregate(vec![col("l.k")], vec![count(lit(1)).alias("id")]).unwrap().build().unwrap();
    let (rows, shown) = run_shown(&state, &counted).await;
    assert_eq!(ids(&rows), some([200; 100]));
    assert!(!shown.contains("InLabelOrderExec") && shown.contains("; parts=3"), "{shown}");
    let sorted = joined().sort(vec![col("l.id").sort(false, false)]).unwrap().build().unwrap();
    let (rows, shown) = run_shown(&state, &sorted).await;
    assert_eq!(ids(&rows), some((0..20_000).rev()));
    assert!(!shown.contains("InLabelOrderExec"), "{shown}");
    // Labels that are counted are the first ones, which are those of the first part.
    let few = joined().limit(0, Some(10)).unwrap().build().unwrap();
    let (rows, shown) = run_shown(&state, &few).await;
    assert_eq!(ids(&rows), some(0..10));
    assert!(shown.contains("labels fetch=10") && !shown.contains("parts="), "{shown}");
}

/// Each part reads what its own labels reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_reads_what_its_keys_reach() {
    let state = in_parts(&session(8_192, Arc::default()), 2);
    let (_, view) = labels_and_view(&state, true).await;
    // Keys 0..10 in one row group of the labels, 900..910 in the other.
    let labels = batch(vec![("id", int(0..20)), ("k", int((0..10).chain(900..910))), ("at", us((0..20).map(|_| 600_000)))]);
    let schema = labels.schema();
    let labels = parquet(&state, "l", "parts", vec![vec![labels]], schema, 10).await;
    let plan = join(labels, vec![view], vec![on("f", &[("k", "k")])]).unwrap();
    let physical = state.create_physical_plan(&plan).await.unwrap();
    let rows = collect(Arc::clone(&physical), state.task_ctx()).await.unwrap();
    let wanted = (0..10).chain(900..910).map(|k| k * 60 + 59);
    assert_eq!(rows.iter().flat_map(|b| ints(b, "v")).collect::<Vec<_>>(), some(wanted));
    assert_eq!((metric(&physical, "row_groups_read"), metric(&physical, "label_rows")), (2, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_share_the_memory_limit() {
    for strategy in [PitStrategy::Auto, PitStrategy::Stream] {
        let runtime = limited(6_000_000);
        let options = PitJoinOptions { strategy, parts: 3, ..PitJoinOptions::default() };
        let state = with_options(&session(1_000, Arc::clone(&runtime)), options, 2);
        let (labels, view) = labels_and_view(&state, false).await;
        let plan = join(labels, vec![view], vec![on("f", &[("k", "k")])]).unwrap();
        let physical = state.create_physical_plan(&plan).await.unwrap();
        let rows = collect(Arc::clone(&physical), state.task_ctx()).await.unwrap();
        assert_eq!(ids(&rows), some(0..30_000));
        // the sum of the parts' peaks
        assert!(metric(&physical, "peak_memory_bytes") <= 6_000_000, "{strategy}");
        assert_eq!(runtime.memory_pool.reserved(), 0);
    }
    let state = in_parts(&session(1_000, limited(1_200_000)), 6);
    let (labels, view) = labels_and_view(&state, false).await;
    let plan = join(labels, vec![view], vec![on("f", &[("k", "k")])]).unwrap();
    let error = Error::from(run_in(&state, &plan).await.unwrap_err());
    assert_eq!(error.kind(), Kind::Exhausted, "{error}");
    assert!(error.message().contains("SET pit_join_parts to less than 6"), "{error}");
}

/// Every partition of the labels is executed once, whatever they come from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_may_come_out_of_a_hash_join_and_views_out_of_an_aggregate() {
    for parts in [1, 2, 5] {
        let options = PitJoinOptions { parts, ..PitJoinOptions::default() };
        let state = with_options(&session(1_000, Arc::default()), options, 4);
        let (labels, view) = labels_and_view(&state, false).await;
        let few = batch(vec![("key", int(0..500))]);
        let schema = few.schema();
        let keys = parquet(&state, "d", "parts-x", partitions(&few, 2, 100), schema, 100).await;
        let labels =
            LogicalPlanBuilder::from(labels).join(keys, JoinType::Inner, (vec!["l.k"], vec!["d.key"]), None).unwrap().build().unwrap();
        let view = LogicalPlanBuilder::from(view)
            .aggregate(vec![col("f.k"), col("f.ts")], vec![count(lit(1)).alias("n")])
            .unwrap()
            .alias("f")
            .unwrap()
            .build()
            .unwrap();
        let plan = join(labels, vec![view], vec![on("f", &[("k", "k")])]).unwrap();
        let found = LogicalPlanBuilder::from(plan).aggregate(vec![col("f.n")], vec![count(lit(1)).alias("id")]).unwrap().build().unwrap();
        let (rows, _) = run_shown(&state, &found).await;
        let all: i64 = ids(&rows).into_iter().flatten().sum();
        assert_eq!(all as usize, (0..30_000).filter(|r| (r * 31) % 1_005 < 500).count(), "{parts} parts");
    }
}
