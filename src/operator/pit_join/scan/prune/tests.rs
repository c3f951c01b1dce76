//! What of Parquet files is not read because no label sees it, and that the answer is the same.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::provider_as_source;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableType};
use datafusion::physical_plan::{ExecutionPlan, collect};
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};

use crate::operator::pit_join::tests::testing::*;
use crate::plan::pit_join::{MatchOp, PitItem};
use crate::store::offline::SureBounds;

const ROWS: i64 = 60_000;
const ROWS_PER_KEY: i64 = 60;

/// Keys 0 to 999, each with instants 0, 10 000, … 590 000; `v` numbers the rows.
fn features() -> RecordBatch {
    batch(vec![
        ("k", int((0..ROWS).map(|r| r / ROWS_PER_KEY))),
        ("ts", us((0..ROWS).map(|r| r % ROWS_PER_KEY * 10_000))),
        ("v", int(0..ROWS)),
        ("w", Arc::new((0..ROWS).map(|r| Some(format!("row {r} of a table whose values are never the same"))).collect::<StringArray>())),
    ])
}

/// Three files of row groups with 7 000, 7 000 and 6 000 rows and pages of 100.
async fn three_files(
    state: &SessionState,
    folder: &str,
    write: impl Fn(WriterPropertiesBuilder) -> WriterPropertiesBuilder,
) -> LogicalPlan {
    let rows = features();
    let schema = rows.schema();
    parquet_with(state, "f", folder, partitions(&rows, 3, 5_000), schema, write(paged(7_000, 100)).build()).await
}

fn labels(keys: &[i64], at: i64) -> LogicalPlan {
    let rows = keys.len() as i64;
    table("l", vec![("id", int(0..rows)), ("k", int(keys.to_vec())), ("at", us((0..rows).map(|_| at)))])
}

struct Answer {
    values: Vec<Option<i64>>,
    physical: Arc<dyn ExecutionPlan>,
}

impl Answer {
    /// Files, row groups: read and not; pages not read; rows read and not.
    fn counts(&self) -> [usize; 7] {
        let names = ["files_read", "files_pruned", "row_groups_read", "row_groups_pruned", "pages_pruned", "feature_rows", "rows_pruned"];
        names.map(|n| metric(&self.physical, n))
    }
}

async fn ask(state: &SessionState, labels: LogicalPlan, view: LogicalPlan, item: PitItem) -> Answer {
    let physical = state.create_physical_plan(&join(labels, vec![view], vec![item]).unwrap()).await.unwrap();
    let batches = collect(Arc::clone(&physical), state.task_ctx()).await.unwrap();
    Answer { values: batches.iter().flat_map(|b| ints(b, "v")).collect(), physical }
}

fn keyed() -> PitItem {
    on("f", &[("k", "k")])
}

fn some<const N: usize>(values: [i64; N]) -> Vec<Option<i64>> {
    values.map(Some).to_vec()
}

#[tokio::test]
async fn pages_without_a_key_of_the_labels_are_not_read() {
    for runtime in [Arc::default(), without_cache()] {
        let state = session(8192, runtime);
        let view = three_files(&state, "x", |p| p).await;
        // Rows 600 to 720 of the first file's first row group, and 3 000 to 3 060 of the second file's second.
        let answer = ask(&state, labels(&[500, 11, 10, 5_000], 600_000), view, keyed()).await;
        assert_eq!(answer.values, [Some(30_059), Some(719), Some(659), None]);
        assert_eq!(answer.counts(), [2, 1, 2, 7, 2 * (68 + 69), 300, 59_700]);
    }
}

#[tokio::test]
async fn pages_out_of_the_time_of_the_labels_are_not_read() {
    let state = session(8192, without_cache());
    let rows = batch(vec![("ts", us(0..ROWS)), ("v", int(0..ROWS))]);
    let schema = rows.schema();
    let view = || parquet_with(&state, "f", "times", partitions(&rows, 3, 5_000), Arc::clone(&schema), paged(20_000, 100).build());
    let at = |at: i64| labels(&[0, 1], at);
    for (item, value, rows) in [
        (PitItem { ttl: Some(150), ..item("f") }, 30_050, 200),
        (PitItem { ttl: Some(0), ..item("f") }, 30_050, 100),
        (PitItem { ttl: None, ..item("f") }, 30_050, 20_000 + 10_100),
        (PitItem { ttl: Some(150), op: MatchOp::After, ..item("f") }, 30_051, 300),
        (PitItem { ttl: None, op: MatchOp::AtOrAfter, ..item("f") }, 30_050, 10_000 + 20_000),
    ] {
        let answer = ask(&state, at(30_050), view().await, item.clone()).await;
        assert_eq!(answer.values, some([value, value]), "{item:?}");
        assert_eq!(metric(&answer.physical, "feature_rows"), rows, "{item:?}");
    }
    let answer = ask(&state, at(-1), view().await, item("f")).await;
    assert_eq!((answer.values.as_slice(), answer.counts()), ([None, None].as_slice(), [0, 3, 0, 3, 0, 0, 60_000]));
}

#[tokio::test]
async fn files_without_an_index_of_pages_or_without_statistics_are_read() {
    for runtime in [Arc::default(), without_cache()] {
        let state = session(8192, runtime);
        let ask = |view| ask(&state, labels(&[500, 11, 10, 5_000], 600_000), view, keyed());
        let expected = [Some(30_059), Some(719), Some(659), None];
        let view = three_files(&state, "chunk", |p| p.set_statistics_enabled(EnabledStatistics::Chunk)).await;
        let answer = ask(view).await;
        assert_eq!((answer.values.as_slice(), answer.counts()), (expected.as_slice(), [2, 1, 2, 7, 0, 14_000, 46_000]));
        let no_offsets = |p: WriterPropertiesBuilder| p.set_statistics_enabled(EnabledStatistics::Chunk).set_offset_index_disabled(true);
        let answer = ask(three_files(&state, "bare", no_offsets).await).await;
        assert_eq!((answer.values.as_slice(), answer.counts()), (expected.as_slice(), [2, 1, 2, 7, 0, 14_000, 46_000]));
        let nothing = |p: WriterPropertiesBuilder| p.set_statistics_enabled(EnabledStatistics::None).set_offset_index_disabled(true);
        let answer = ask(three_files(&state, "none", nothing).await).await;
        assert_eq!((answer.values.as_slice(), answer.counts()), (expected.as_slice(), [3, 0, 9, 0, 0, 60_000, 0]));
    }
}

/// Long and not: bounds are cut in the middle of letters, and the table's type is not the file's but holds the same.
#[tokio::test]
async fn strings_are_found_by_bounds_that_are_cut() {
    let name = |k: i64| format!("ein überaus länglicher Schlüssel, der sich erst am Ende unterscheidet: {k:04}");
    let names = |keys: Vec<i64>| Arc::new(keys.into_iter().map(|k| Some(name(k))).collect::<StringArray>()) as ArrayRef;
    let rows = features();
    let with_names = |rows: &RecordBatch, t: &DataType| {
        let keys = names((0..rows.num_rows() as i64).map(|r| r / ROWS_PER_KEY).collect());
        batch(vec![("k", cast(&keys, t).unwrap()), ("ts", Arc::clone(rows.column(1))), ("v", Arc::clone(rows.column(2)))])
    };
    for (number, cut) in [6, 40, 70, 200].into_iter().enumerate() {
        for declared in [DataType::Utf8, DataType::Utf8View, DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))] {
            let state = session(8192, without_cache());
            let rows = with_names(&rows, &DataType::Utf8);
            let properties = paged(7_000, 100).set_statistics_truncate_length(Some(cut)).set_column_index_truncate_length(Some(cut));
            parquet_with(&state, "f", "names", partitions(&rows, 3, 5_000), rows.schema(), properties.build()).await;
            let schema = with_names(&rows.slice(0, 0), &declared).schema();
            let view = parquet(&state, "f", "names", vec![], schema, 1).await;
            let keys = cast(&names(vec![500, 11, 10, 5_000]), &declared).unwrap();
            let labels = table("l", vec![("k", keys), ("at", us([600_000; 4]))]);
            let answer = ask(&state, labels, view, keyed()).await;
            assert_eq!(answer.values, [Some(30_059), Some(719), Some(659), None]);
            let read = metric(&answer.physical, "feature_rows");
            // Keys differ only behind the shorter cuts.
            assert_eq!(read, if number == 3 { 300 } else { 60_000 }, "{declared}");
        }
    }
}

#[tokio::test]
async fn any_column_of_a_key_leaves_pages_out() {
    let state = session(8192, without_cache());
    let day = |r: i64| r / 6_000;
    let days = |v: Vec<i64>| cast(&cast(&int(v), &DataType::Int32).unwrap(), &DataType::Date32).unwrap();
    let ids = |v: Vec<i64>| Arc::new(v.into_iter().map(|v| v as u64).collect::<UInt64Array>()) as ArrayRef;
    let rows = batch(vec![
        ("a", days((0..ROWS).map(day).collect())),
        ("b", ids((0..ROWS).map(|r| r % 6_000 / 100).collect())),
        ("ts", us(0..ROWS)),
        ("v", int(0..ROWS)),
    ]);
    let schema = rows.schema();
    let view = parquet_with(&state, "f", "keys", partitions(&rows, 1, 5_000), schema, paged(ROWS as usize, 100).build()).await;
    let labels = table("l", vec![("a", days(vec![3, 3, 7])), ("b", ids(vec![5, 6, 5])), ("at", us([ROWS; 3]))]);
    let answer = ask(&state, labels, view, on("f", &[("a", "a"), ("b", "b")])).await;
    assert_eq!(answer.values, some([18_599, 18_699, 42_599]));
    // Pages 5 and 6 of days 3 and 7; 6 000 rows divide into pages, so that none holds two days.
    assert_eq!(metric(&answer.physical, "feature_rows"), 400);
}

#[tokio::test]
async fn pages_of_nulls_are_not_read() {
    let state = session(8192, without_cache());
    let keys: Int64Array = (0..ROWS).map(|r| if r < 50_000 { None } else { Some(1) }).collect();
    let rows =
        batch(vec![("k", Arc::new(keys)), ("ts", us((0..ROWS).map(|r| if r < 55_000 { Some(r) } else { None }))), ("v", int(0..ROWS))]);
    let schema = rows.schema();
    let view = parquet_with(&state, "f", "nulls", partitions(&rows, 1, 5_000), schema, paged(40_000, 1_000).build()).await;
    let answer = ask(&state, labels(&[1], 100_000), view, keyed()).await;
    assert_eq!(answer.values, some([54_999]));
    assert_eq!(answer.counts(), [1, 0, 1, 1, 30, 5_000, 55_000]);
}

/// A cast to a wider or a narrower integer keeps the value.
#[tokio::test]
async fn integers_of_another_width_leave_pages_out() {
    let rows = features();
    let with_keys = |t: &DataType| {
        let keys = cast(rows.column(0), t).unwrap();
        batch(vec![("k", keys), ("ts", Arc::clone(rows.column(1))), ("v", Arc::clone(rows.column(2)))])
    };
    for (file, declared, asked) in [
        (DataType::Int32, DataType::Int32, DataType::Int64),
        (DataType::Int64, DataType::Int32, DataType::Int16),
        (DataType::UInt16, DataType::Int64, DataType::Int64),
        (DataType::Int16, DataType::UInt32, DataType::Int32),
    ] {
        let state = session(8192, without_cache());
        let written = with_keys(&file);
        parquet_with(&state, "f", "widths", partitions(&written, 3, 5_000), written.schema(), paged(7_000, 100).build()).await;
        let view = parquet(&state, "f", "widths", vec![], with_keys(&declared).schema(), 1).await;
        let labels = table("l", vec![("k", cast(&int([500, 11, 10, 5_000]), &asked).unwrap()), ("at", us([600_000; 4]))]);
        let answer = ask(&state, labels, view, keyed()).await;
        assert_eq!(answer.values, [Some(30_059), Some(719), Some(659), None]);
        assert_eq!(metric(&answer.physical, "feature_rows"), 300, "{file} {declared} {asked}");
    }
}

/// Bounds are the file's; the rows are the table's, after a cast that rounds.
#[tokio::test]
async fn files_of_another_type_are_not_pruned_by_it() {
    for runtime in [Arc::default(), without_cache()] {
        let state = session(8192, runtime);
        let second = 1_000_000_000;
        let instants = || (0..1_000i64).map(|r| (r + 1) * second + 500);
        let file = batch(vec![
            ("k", int((0..1_000).map(|r| r / 10))),
            ("ts", stamp(instants(), TimeUnit::Nanosecond, None)),
            ("v", int(0..1_000)),
        ]);
        // As text, 10 comes before 2.
        let key = text(["10"]);
        let declared = batch(vec![("k", Arc::clone(&key)), ("ts", stamp([1_000], TimeUnit::Millisecond, None)), ("v", int([7]))]).schema();
        let written = file.schema();
        parquet_with(&state, "f", "typed", vec![vec![file]], written, paged(100, 10).build()).await;
        let view = parquet(&state, "f", "typed", vec![], declared, 10).await;
        // By the file's bounds every row of key 10 lies after this instant.
        let one = table("l", vec![("k", key), ("at", stamp([101_000], TimeUnit::Millisecond, None))]);
        let item = PitItem { round_to_micros: false, ..keyed() };
        let answer = ask(&state, one, view, item).await;
        assert_eq!((answer.values.as_slice(), answer.counts()), (some([100]).as_slice(), [1, 0, 10, 0, 0, 1_000, 0]));
    }
}

/// Files as they are listed, with what is known about them.
#[derive(Debug)]
struct Listed {
    schema: SchemaRef,
    files: Vec<PartitionedFile>,
}

#[async_trait]
impl TableProvider for Listed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(&self, _: &dyn Session, projection: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        let url = ObjectStoreUrl::parse("mem://tests/")?;
        let config = FileScanConfigBuilder::new(url, Arc::new(ParquetSource::new(Arc::clone(&self.schema))))
            .with_file_groups(vec![FileGroup::new(self.files.clone())])
            .with_projection_indices(projection.cloned())?;
        Ok(DataSourceExec::from_data_source(config.build()))
    }
}

#[tokio::test]
async fn files_known_to_be_out_of_reach_are_not_even_opened() {
    let state = session(8192, without_cache());
    let rows = features().slice(0, 6_000);
    let schema = rows.schema();
    parquet_with(&state, "f", "known", vec![vec![rows]], Arc::clone(&schema), paged(6_000, 100).build()).await;
    let url = ObjectStoreUrl::parse("mem://tests/").unwrap();
    let store = state.runtime_env().object_store(&url).unwrap();
    let meta = object_store::ObjectStoreExt::head(store.as_ref(), &"known/f/000.parquet".into()).await.unwrap();
    let known = |least: i64, greatest: i64| {
        let mut statistics = Statistics::new_unknown(&schema);
        statistics.num_rows = Precision::Exact(6_000);
        statistics.column_statistics[0] = ColumnStatistics {
            min_value: Precision::Inexact(ScalarValue::Int64(Some(least))),
            max_value: Precision::Inexact(ScalarValue::Int64(Some(greatest))),
            ..ColumnStatistics::new_unknown()
        };
        Arc::new(statistics)
    };
    let file = PartitionedFile::new_from_meta(meta.clone()).with_statistics(known(-5, 100)).with_extension(SureBounds);
    // It is not there.
    let mut gone = meta;
    gone.location = "known/f/gone.parquet".into();
    let gone = PartitionedFile::new_from_meta(gone).with_statistics(known(200, 300));
    let listed = |gone: PartitionedFile| {
        let table = Listed { schema: Arc::clone(&schema), files: vec![gone, file.clone()] };
        LogicalPlanBuilder::scan("f", provider_as_source(Arc::new(table)), None).unwrap().build().unwrap()
    };
    let answer = ask(&state, labels(&[10, 99, 400], 600_000), listed(gone.clone().with_extension(SureBounds)), keyed()).await;
    assert_eq!(answer.values, [Some(659), Some(5_999), None]);
    assert_eq!(&answer.counts()[..4], [1, 1, 1, 0]);
    assert_eq!(metric(&answer.physical, "rows_pruned"), 6_000 + 6_000 - 100 - 100);
    // What may be a guess leaves no file out.
    let joined = join(labels(&[10], 600_000), vec![listed(gone)], vec![keyed()]).unwrap();
    let error = run_in(&state, &joined).await.unwrap_err().to_string();
    assert!(error.contains("reading the footer of known/f/gone.parquet"), "{error}");
}
