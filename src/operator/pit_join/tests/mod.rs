//! The matrix that every point-in-time path must pass, case by case, and what the plan looks like.

use std::sync::Arc;

use datafusion::arrow::array::*;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::col;
use futures::StreamExt;

mod files;
mod oracle;
mod parts;
mod properties;
pub mod testing;

use crate::error::{Error, Kind};
use crate::plan::pit_join::{MatchOp, PitItem};
use testing::*;

const HOUR: i64 = 3_600_000_000;

fn some(v: impl IntoIterator<Item = i64>) -> Vec<Option<i64>> {
    v.into_iter().map(Some).collect()
}

/// Labels at `at`, features at `ts` with values 0, 1, 2, …; which value each label gets.
async fn match_times(at: ArrayRef, ts: ArrayRef, change: impl Fn(PitItem) -> PitItem) -> Vec<Option<i64>> {
    let values = int(0..ts.len() as i64);
    let labels = table("l", vec![("at", at)]);
    let view = table("f", vec![("ts", ts), ("v", values)]);
    let plan = join(labels, vec![view], vec![change(item("f"))]).unwrap();
    ints(&run(&plan).await, "v")
}

#[tokio::test]
async fn window_ends_are_inclusive_to_the_microsecond() {
    let t = 100 * HOUR;
    let at = |op, ttl, ts: i64| async move { match_times(us([t]), us([ts]), |i| PitItem { op, ttl, ..i }).await[0].is_some() };
    for (op, ttl, ts, matches) in [
        (MatchOp::AtOrBefore, Some(HOUR), t, true),
        (MatchOp::AtOrBefore, Some(HOUR), t + 1, false),
        (MatchOp::AtOrBefore, Some(HOUR), t - HOUR, true),
        (MatchOp::AtOrBefore, Some(HOUR), t - HOUR - 1, false),
        (MatchOp::AtOrBefore, Some(HOUR), t - HOUR + 1, true),
        (MatchOp::AtOrBefore, None, i64::MIN, true),
        (MatchOp::AtOrBefore, Some(0), t, true),
        (MatchOp::AtOrBefore, Some(0), t - 1, false),
        (MatchOp::AtOrBefore, Some(250_000), t - 250_000, true),
        (MatchOp::AtOrBefore, Some(250_000), t - 250_001, false),
        (MatchOp::Before, None, t, false),
        (MatchOp::Before, None, t - 1, true),
        (MatchOp::AtOrAfter, Some(HOUR), t, true),
        (MatchOp::AtOrAfter, Some(HOUR), t - 1, false),
        (MatchOp::AtOrAfter, Some(HOUR), t + HOUR, true),
        (MatchOp::AtOrAfter, Some(HOUR), t + HOUR + 1, false),
        (MatchOp::After, None, t, false),
        (MatchOp::After, None, t + 1, true),
    ] {
        assert_eq!(at(op, ttl, ts).await, matches, "{op} {ttl:?} {ts}");
    }
}

#[tokio::test]
async fn the_ends_of_time_do_not_overflow() {
    let ends = [i64::MIN, i64::MIN + 1, 0, i64::MAX];
    let found = match_times(us(ends), us(ends), |i| PitItem { ttl: Some(i64::MAX), ..i }).await;
    assert_eq!(found, some([0, 1, 2, 3]));
    let found = match_times(us(ends), us(ends), |i| PitItem { ttl: Some(i64::MAX), op: MatchOp::AtOrAfter, ..i }).await;
    assert_eq!(found, some([0, 1, 2, 3]));
    // Seconds that no nanosecond reaches stay apart from each other.
    let far = 20_000_000_000;
    let at = stamp([0, far, far + 1], TimeUnit::Second, None);
    let plain = |i| PitItem { round_to_micros: false, ..i };
    assert_eq!(match_times(at, stamp([0, i64::MAX], TimeUnit::Nanosecond, None), plain).await, some([0, 1, 1]));
    let late = stamp([far + 1, far], TimeUnit::Second, None);
    let ahead = |i| PitItem { round_to_micros: false, op: MatchOp::AtOrAfter, ..i };
    assert_eq!(match_times(stamp([5], TimeUnit::Nanosecond, None), late, ahead).await, some([1]));
}

#[tokio::test]
async fn ties_go_by_created_then_sequence_and_null_loses() {
    let view = |created: [Option<i64>; 3], seq: [i64; 3]| {
        table("f", vec![("ts", us([5, 5, 5])), ("created", us(created)), ("seq", int(seq)), ("v", int(0..3))])
    };
    let labels = || table("l", vec![("at", us([9]))]);
    let full = || PitItem { created: Some(col("f.created")), seq: Some(col("f.seq")), ..item("f") };
    for (created, seq, winner) in [
        ([Some(1), Some(3), Some(2)], [1, 2, 3], 1),
        ([None, Some(i64::MIN), None], [9, 1, 8], 1),
        ([Some(3), None, Some(3)], [1, 9, 2], 2),
        // Created after the label: counts, unless KNOWN BY says otherwise.
        ([Some(1), Some(2), Some(1_000)], [1, 2, 3], 2),
        // Full ties: the rows' values decide.
        ([Some(1), Some(1), Some(1)], [4, 4, 4], 2),
    ] {
        let plan = join(labels(), vec![view(created, seq)], vec![full()]).unwrap();
        assert_eq!(ints(&run(&plan).await, "v"), [Some(winner)], "{created:?} {seq:?}");
    }
    // A plain table: the last row in input order.
    let plan = join(labels(), vec![view([Some(9), None, None], [9, 1, 1])], vec![item("f")]).unwrap();
    assert_eq!(ints(&run(&plan).await, "v"), [Some(2)]);
}

#[tokio::test]
async fn known_by_leaves_out_what_was_not_known() {
    let labels = || table("l", vec![("at", us([10, 10, 20, 20, 20])), ("known", us([Some(10), Some(30), Some(5), Some(20), None]))]);
    let view = || table("f", vec![("ts", us([1, 8, 9, 7])), ("created", us([Some(1), Some(8), Some(15), None])), ("v", int(0..4))]);
    let by = PitItem { created: Some(col("f.created")), known_by: Some(col("l.known")), ..item("f") };
    let plan = join(labels(), vec![view()], vec![by.clone()]).unwrap();
    assert_eq!(ints(&run(&plan).await, "v"), [Some(1), Some(2), Some(0), Some(2), None]);
    let error = join(labels(), vec![view()], vec![PitItem { created: None, ..by }]).unwrap_err();
    assert!(error.message().contains("created timestamp") && error.message().contains("f@v1"), "{error}");
}

#[tokio::test]
async fn a_null_value_stays_null() {
    let labels = table("l", vec![("at", us([9]))]);
    let view = table("f", vec![("ts", us([1, 5])), ("v", int([Some(7), None]))]);
    let result = run(&join(labels, vec![view], vec![item("f")]).unwrap()).await;
    assert_eq!((ints(&result, "v"), ints(&result, "ts")), (vec![None], vec![Some(5)]));
}

#[tokio::test]
async fn rows_in_rows_out_in_order() {
    let labels = table(
        "l",
        vec![
            ("a", text(["1", "11", "1", "x", "1", "1"].map(Some).into_iter().chain([None]))),
            ("b", text(["11", "1", "11", "11", "11", "11"].map(Some).into_iter().chain([Some("11")]))),
            ("at", us([Some(9), Some(9), Some(3), Some(9), None, Some(9), Some(9)])),
            ("y", int(0..7)),
        ],
    );
    let view = table(
        "f",
        vec![
            ("a", text([Some("1"), Some("11"), None, Some("1")])),
            ("b", text([Some("11"), Some("1"), Some("11"), None])),
            ("ts", us([2, 2, 2, 2])),
            ("v", int(0..4)),
        ],
    );
    let by = on("f", &[("a", "a"), ("b", "b")]);
    let result = run(&join(labels.clone(), vec![view.clone()], vec![by.clone()]).unwrap()).await;
    assert_eq!(ints(&result, "y"), some(0..7));
    assert_eq!(ints(&result, "v"), [Some(0), Some(1), Some(0), None, None, Some(0), None]);
    let result = run(&join(labels, vec![view], vec![PitItem { inner: true, ..by }]).unwrap()).await;
    assert_eq!(ints(&result, "y"), some([0, 1, 2, 5]));
}

#[tokio::test]
async fn one_view_in_two_roles_and_two_views_with_one_feature_name() {
    let labels = table("l", vec![("buyer", int([1, 2])), ("seller", int([2, 3])), ("at", us([9, 9]))]);
    let users = || vec![("id", int([1, 2])), ("ts", us([1, 1])), ("v", int([10, 20]))];
    let views = vec![table("b", users()), table("s", users()), table("o", vec![("ts", us([4])), ("v", int([7]))])];
    let items = vec![on("b", &[("buyer", "id")]), on("s", &[("seller", "id")]), item("o")];
    let plan = join(labels, views, items).unwrap();
    let plan = LogicalPlanBuilder::from(plan)
        .project(vec![col("b.v").alias("bv"), col("s.v").alias("sv"), col("o.v").alias("ov")])
        .unwrap()
        .build()
        .unwrap();
    let result = run(&plan).await;
    assert_eq!(ints(&result, "bv"), some([10, 20]));
    assert_eq!(ints(&result, "sv"), [Some(20), None]);
    assert_eq!(ints(&result, "ov"), some([7, 7]));
}

#[tokio::test]
async fn instants_of_all_zones_and_units() {
    // 2021-11-07T05:30Z and 06:30Z are both 01:30 in New York.
    let (first, second) = (1_636_263_000_000_000, 1_636_266_600_000_000);
    let new_york = stamp([first, second], TimeUnit::Microsecond, Some("America/New_York"));
    let utc = us([first - 1, first, second]);
    assert_eq!(match_times(new_york, utc, |i| i).await, some([1, 2]));
    let naive = stamp([first, second], TimeUnit::Microsecond, None);
    let oslo = stamp([first, second], TimeUnit::Microsecond, Some("+01:00"));
    assert_eq!(match_times(naive, oslo, |i| i).await, some([0, 1]));
    // A date is the start of its day in UTC.
    let date: ArrayRef = Arc::new(Date32Array::from(vec![1, 2]));
    assert_eq!(match_times(us([24 * HOUR - 1, 24 * HOUR, 48 * HOUR]), date, |i| i).await, [None, Some(0), Some(1)]);
    let milli = stamp([1, 2], TimeUnit::Millisecond, None);
    assert_eq!(match_times(us([999, 1_000, 2_500]), milli, |i| i).await, [None, Some(0), Some(1)]);
}

#[tokio::test]
async fn rounding_never_leaks() {
    let (feature, label) = (|v: i64| stamp([v], TimeUnit::Nanosecond, None), |v: i64| stamp([v], TimeUnit::Nanosecond, None));
    for (f, l, micros, matches) in [
        // 999 ns too late, in either precision.
        (1_999, 1_000, true, false),
        (1_999, 1_000, false, false),
        // Known in the same microsecond, but when in it is lost when features are stored: not before its end.
        (1_100, 1_900, true, false),
        (1_100, 1_900, false, true),
        (1_100, 2_000, true, true),
        (1_000, 1_000, true, true),
    ] {
        let found = match_times(label(l), feature(f), |i| PitItem { round_to_micros: micros, ..i }).await;
        assert_eq!(found[0].is_some(), matches, "{f} {l} {micros}");
    }
    // Microseconds against nanoseconds, exactly.
    let found =
        match_times(us([1, 2]), stamp([1_001, 1_999], TimeUnit::Nanosecond, None), |i| PitItem { round_to_micros: false, ..i }).await;
    assert_eq!(found, [None, Some(1)]);
}

#[tokio::test]
async fn numbers_as_time() {
    let plain = |i| PitItem { round_to_micros: false, ..i };
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(-0.0), Some(-1.5), Some(f64::INFINITY), None]));
    let ts: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, 0.0, f64::NEG_INFINITY]));
    assert_eq!(match_times(floats, ts, plain).await, [None, Some(1), Some(2), Some(1), None]);
    let big: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, u64::MAX - 1]));
    assert_eq!(match_times(Arc::clone(&big), big, plain).await, some([0, 1]));
    let values = Decimal128Array::from(vec![-5, 10]).with_precision_and_scale(38, 2).unwrap();
    assert_eq!(match_times(Arc::new(values.clone()), Arc::new(values), plain).await, some([0, 1]));
}

#[tokio::test]
async fn empty_sides_and_empty_windows() {
    let none = || us(Vec::<i64>::new());
    assert_eq!(match_times(us([1, 2]), none(), |i| i).await, [None, None]);
    assert!(match_times(none(), us([1, 2]), |i| i).await.is_empty());
    assert!(match_times(none(), none(), |i| i).await.is_empty());
    assert_eq!(match_times(us([100, 200]), us([1, 2]), |i| PitItem { ttl: Some(5), ..i }).await, [None, None]);
    assert_eq!(match_times(us([1, 2]), us([None, None]), |i| i).await, [None, None]);
    let labels = scan("l", vec![vec![]], batch(vec![("at", us([1]))]).schema());
    let view = scan("f", vec![vec![], vec![]], batch(vec![("ts", us([1])), ("v", int([1]))]).schema());
    assert_eq!(run(&join(labels, vec![view], vec![item("f")]).unwrap()).await.num_rows(), 0);
}

#[tokio::test]
async fn features_of_any_type_survive_being_beaten_often() {
    let n = 300i64;
    let texts: StringViewArray = (0..n).map(|i| (i % 7 != 0).then(|| format!("a rather long text number {i}"))).collect();
    let dict =
        cast(&(Arc::new(texts.clone()) as ArrayRef), &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))).unwrap();
    let list = ListArray::from_iter_primitive::<datafusion::arrow::datatypes::Int64Type, _, _>((0..n).map(|i| Some(vec![Some(i), None])));
    let pair = StructArray::from(vec![(Arc::new(Field::new("x", DataType::Int64, true)), int(0..n))]);
    let columns = vec![
        ("k", int((0..n).map(|i| i % 5))),
        ("ts", us(0..n)),
        ("text", Arc::new(texts) as ArrayRef),
        ("dict", dict),
        ("list", Arc::new(list)),
        ("pair", Arc::new(pair)),
    ];
    let all = batch(columns);
    let labels = table("l", vec![("k", int([0, 1, 2, 3, 4, 5])), ("at", us([n, n, 100, n, 3, n]))]);
    let view = scan("f", partitions(&all, 3, 7), all.schema());
    let plan = join(labels, vec![view], vec![on("f", &[("k", "k")])]).unwrap();
    for batch_size in [1, 4, 8192] {
        let result = run_in(&session(batch_size, Arc::default()), &plan).await.unwrap();
        let rows = [295, 296, 97, 298];
        for (label, row) in rows.into_iter().enumerate() {
            for (c, name) in ["ts", "text", "dict", "list", "pair"].into_iter().enumerate() {
                let (got, want) = (result.column(3 + c).slice(label, 1), all.column_by_name(name).unwrap().slice(row, 1));
                assert_eq!(got.to_data(), want.to_data(), "{name} of label {label}");
            }
        }
        for label in [4, 5] {
            assert!((2..8).all(|c| result.column(c).is_null(label)));
        }
    }
}

#[test]
fn wrong_types_are_named() {
    let labels = || {
        table("l", vec![("k", int([1])), ("x", cast(&int([1]), &DataType::Float64).unwrap()), ("at", us([1])), ("s", text([Some("1")]))])
    };
    let view = || table("f", vec![("k", text([Some("1")])), ("x", cast(&int([1]), &DataType::Float64).unwrap()), ("ts", us([1]))]);
    let fails = |i: PitItem| join(labels(), vec![view()], vec![i]).unwrap_err();
    let e = fails(on("f", &[("k", "k")]));
    assert!(e.message().contains("l.k") && e.message().contains("f.k") && e.hint().is_some(), "{e}");
    let e = fails(on("f", &[("x", "x")]));
    assert!(e.message().contains("l.x") && e.message().contains("DOUBLE"), "{e}");
    let e = fails(PitItem { at: col("l.s"), ..item("f") });
    assert!(e.to_string().contains("CAST(l.s AS TIMESTAMP)"), "{e}");
    let e = fails(PitItem { at: col("l.k"), ..item("f") });
    assert!(e.message().contains("l.k") && e.message().contains("f.ts"), "{e}");
    let e = fails(on("f", &[("nope", "k")]));
    assert_eq!(e.kind(), Kind::NotFound, "{e}");
}

/// 20,000 labels in 3 partitions of small and uneven batches.
fn many_labels() -> LogicalPlan {
    let n = 20_000;
    let all = batch(vec![("id", int(0..n)), ("k", int((0..n).map(|i| i % 100))), ("at", us((0..n).map(|i| (i * 7_919) % n)))]);
    scan("l", partitions(&all, 3, 999), all.schema())
}

fn features() -> LogicalPlan {
    table(
        "f",
        vec![("k", int((0..1000).map(|i| i % 100))), ("ts", us((0..1000).map(|i| i * 20))), ("v", int(0..1000)), ("unused", int(0..1000))],
    )
}

fn joined() -> LogicalPlanBuilder {
    LogicalPlanBuilder::from(join(many_labels(), vec![features()], vec![on("f", &[("k", "k")])]).unwrap())
}

#[tokio::test]
async fn label_order_is_kept_below_filters_and_limits() {
    let all = run(&joined().build().unwrap()).await;
    assert_eq!(ints(&all, "id"), some(0..20_000));
    let odd = (col("l.id") % lit(2i64)).not_eq(lit(0i64));
    let filtered = run(&joined().filter(odd.clone()).unwrap().build().unwrap()).await;
    assert_eq!(ints(&filtered, "id"), some((1..20_000).step_by(2)));
    let limited = run(&joined().filter(odd).unwrap().limit(5, Some(9_000)).unwrap().build().unwrap()).await;
    assert_eq!(ints(&limited, "id"), some((11..20_000).step_by(2).take(9_000)));
    let sorted = LogicalPlanBuilder::from(many_labels()).sort(vec![col("l.id").sort(false, false)]).unwrap().build().unwrap();
    let by_sort = join(sorted, vec![features()], vec![on("f", &[("k", "k")])]).unwrap();
    assert_eq!(ints(&run(&by_sort).await, "id"), some((0..20_000).rev()));
}

#[tokio::test]
async fn a_plain_tables_last_row_wins_whatever_the_partitions() {
    let n = 20_000;
    let rows = batch(vec![("ts", us((0..n).map(|i| i / 10_000))), ("v", int(0..n))]);
    let view = LogicalPlanBuilder::from(scan("f", partitions(&rows, 2, 777), rows.schema()))
        .filter(col("f.v").not_eq(lit(19_999i64)))
        .unwrap()
        .build()
        .unwrap();
    let plan = join(table("l", vec![("at", us([0, 5]))]), vec![view], vec![item("f")]).unwrap();
    assert_eq!(ints(&run(&plan).await, "v"), some([9_999, 19_998]));
}

#[tokio::test]
async fn unused_columns_are_not_read() {
    let plan = joined().project(vec![col("l.id"), col("f.v")]).unwrap().build().unwrap();
    let (logical, physical) = explain(&plan).await;
    assert!(!logical.contains("unused") && !physical.contains("unused"), "{logical}\n{physical}");
    assert!(logical.contains("TableScan: f projection=[k, ts, v]"), "{logical}");
    let result = run(&plan).await;
    assert_eq!((result.num_rows(), result.num_columns()), (20_000, 2));
    let counted =
        joined().aggregate(Vec::<datafusion::logical_expr::Expr>::new(), vec![count(lit(1)).alias("n")]).unwrap().build().unwrap();
    assert_eq!(ints(&run(&counted).await, "n"), [Some(20_000)]);
    assert!(explain(&counted).await.0.contains("TableScan: f projection=[k, ts]"));
}

#[tokio::test]
async fn label_predicates_go_below_and_feature_predicates_stay() {
    let filtered = joined().filter(col("l.id").gt(lit(100i64)).and(col("f.v").gt(lit(500i64)))).unwrap().build().unwrap();
    let (logical, _) = explain(&filtered).await;
    let place = |what: &str| logical.find(what).unwrap_or_else(|| panic!("no {what} in\n{logical}"));
    assert!(place("f.v >") < place("PitJoin") && place("PitJoin") < place("l.id >"), "{logical}");
    let all = run(&joined().build().unwrap()).await;
    let expected: Vec<_> =
        ints(&all, "id").into_iter().zip(ints(&all, "v")).filter(|(id, v)| *id > Some(100) && *v > Some(500)).map(|(id, _)| id).collect();
    assert!(!expected.is_empty());
    assert!(!explain(&filtered).await.1.contains("RepartitionExec"), "the order of the labels is lost");
    let got = ints(&run(&filtered).await, "id");
    assert_eq!((got.len(), &got[..5]), (expected.len(), &expected[..5]));
    assert_eq!(got, expected);
    // A random predicate must see every joined row.
    let random = datafusion::functions::math::expr_fn::random().gt_eq(col("l.id") * lit(0.0));
    let (logical, _) = explain(&joined().filter(random).unwrap().build().unwrap()).await;
    assert!(logical.find("random").unwrap() < logical.find("PitJoin").unwrap(), "{logical}");
}

#[tokio::test]
async fn a_limit_reads_only_its_labels() {
    let limited = joined().limit(2, Some(3)).unwrap().build().unwrap();
    assert!(explain(&limited).await.0.contains("labels fetch=5"));
    assert_eq!(ints(&run(&limited).await, "id"), some(2..5));
    let inner = PitItem { inner: true, ..on("f", &[("k", "k")]) };
    let inner =
        LogicalPlanBuilder::from(join(many_labels(), vec![features()], vec![inner]).unwrap()).limit(0, Some(3)).unwrap().build().unwrap();
    assert!(!explain(&inner).await.0.contains("labels fetch"));
    // A filter above a limit sees the limited rows only.
    let above = joined().limit(0, Some(10)).unwrap().filter(col("l.id").gt(lit(7i64))).unwrap().build().unwrap();
    assert_eq!(ints(&run(&above).await, "id"), some([8, 9]));
}

#[tokio::test]
async fn too_little_memory_is_a_clear_error() {
    let runtime = Arc::new(RuntimeEnvBuilder::new().with_memory_limit(200_000, 1.0).build().unwrap());
    let error = Error::from(run_in(&session(8192, runtime), &joined().build().unwrap()).await.unwrap_err());
    assert_eq!(error.kind(), Kind::Exhausted, "{error}");
    assert!(error.message().contains("point-in-time join of f@v1") && error.hint().is_some(), "{error}");
}

#[tokio::test]
async fn memory_is_given_back_when_the_stream_is_dropped() {
    let runtime = Arc::new(RuntimeEnvBuilder::new().with_memory_limit(1 << 30, 1.0).build().unwrap());
    let state = session(100, Arc::clone(&runtime));
    let physical = state.create_physical_plan(&joined().build().unwrap()).await.unwrap();
    let mut stream = physical.execute(0, state.task_ctx()).unwrap();
    assert_eq!(runtime.memory_pool.reserved(), 0);
    assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 100);
    assert!(runtime.memory_pool.reserved() > 20_000 * 24);
    drop(stream);
    assert_eq!(runtime.memory_pool.reserved(), 0);
}

#[tokio::test]
async fn the_plan_counts_and_measures() {
    let state = session(8192, Arc::default());
    let physical = state.create_physical_plan(&joined().build().unwrap()).await.unwrap();
    let statistics = StatisticsContext::new().compute(physical.as_ref(), &StatisticsArgs::new()).unwrap();
    assert_eq!(statistics.num_rows.get_value(), Some(&20_000));
    collect(Arc::clone(&physical), state.task_ctx()).await.unwrap();
    let metrics = physical.metrics().unwrap();
    let value = |name| metrics.sum_by_name(name).map(|m| m.as_usize());
    assert_eq!((value("label_rows"), value("feature_rows"), metrics.output_rows()), (Some(20_000), Some(1_000), Some(20_000)));
    assert!(value("matched_rows") > Some(10_000) && value("peak_memory_bytes") > Some(20_000 * 24));
    let text = displayable(physical.as_ref()).one_line().to_string();
    assert_eq!(text.trim(), "PitJoinExec: left f@v1 on (k@1 = k@0, at@2 >= ts@1); strategy=[f@v1: stream, keep winners]");
    // Another run of the same plan is another join.
    assert_eq!(collect(physical, state.task_ctx()).await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 20_000);
}

#[tokio::test]
async fn an_error_of_a_view_is_the_error_of_the_join() {
    let bad = LogicalPlanBuilder::from(features())
        .project(vec![col("f.k"), col("f.ts"), (lit(1i64) / (col("f.v") - col("f.v"))).alias("v")])
        .unwrap();
    let bad = bad.alias("f").unwrap().build().unwrap();
    let plan = join(many_labels(), vec![bad], vec![on("f", &[("k", "k")])]).unwrap();
    let error = run_in(&session(8192, Arc::default()), &plan).await.unwrap_err();
    assert!(!matches!(error, DataFusionError::Internal(_)) && error.to_string().contains("ivide by zero"), "{error}");
}
