//! Sessions, tables and columns for the tests of this module.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::*;
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, col};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};

use crate::operator::input_order::KeepInputOrder;
use crate::operator::pit_join::options::PitJoinOptions;
use crate::operator::pit_join::planner::PitJoinPlanner;
use crate::plan::pit_join::rules::PushLabelFilters;
use crate::plan::pit_join::{MatchOp, PitItem, PitJoinNode};

#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(PitJoinPlanner)]).create_physical_plan(plan, session).await
    }
}

pub static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());

pub fn session(batch_size: usize, runtime: Arc<RuntimeEnv>) -> SessionState {
    let config = SessionConfig::new().with_batch_size(batch_size).with_target_partitions(3);
    SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_query_planner(Arc::new(Planner))
        .with_optimizer_rule(Arc::new(PushLabelFilters))
        .with_physical_optimizer_rule(Arc::new(KeepInputOrder))
        .build()
}

/// Footers are read anew each time, and without indexes of pages where nobody asks for them.
pub fn without_cache() -> Arc<RuntimeEnv> {
    Arc::new(RuntimeEnvBuilder::new().with_metadata_cache_limit(0).build().unwrap())
}

/// A metric of the plan's join.
pub fn metric(plan: &Arc<dyn ExecutionPlan>, name: &str) -> usize {
    let mut plan = plan;
    while plan.name() != "PitJoinExec" {
        plan = plan.children()[0];
    }
    plan.metrics().and_then(|m| m.sum_by_name(name)).map_or(0, |v| v.as_usize())
}

/// Cuts a batch into partitions and batches at the given rows.
pub fn partitions(batch: &RecordBatch, partitions: usize, batch_rows: usize) -> Vec<Vec<RecordBatch>> {
    let rows = batch.num_rows();
    let part_rows = rows.div_ceil(partitions).max(1);
    (0..partitions)
        .map(|p| {
            let (start, end) = ((p * part_rows).min(rows), ((p + 1) * part_rows).min(rows));
            (start..end).step_by(batch_rows).map(|s| batch.slice(s, batch_rows.min(end - s))).collect()
        })
        .collect()
}

pub fn scan(name: &str, parts: Vec<Vec<RecordBatch>>, schema: Arc<Schema>) -> LogicalPlan {
    let table = MemTable::try_new(schema, parts).unwrap();
    LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None).unwrap().build().unwrap()
}

/// The batches as Parquet files, one to a part, in an object store of the session; `folder` is used once.
pub async fn parquet(
    state: &SessionState,
    name: &str,
    folder: &str,
    parts: Vec<Vec<RecordBatch>>,
    schema: Arc<Schema>,
    row_group_rows: usize,
) -> LogicalPlan {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(row_group_rows)).build();
    parquet_with(state, name, folder, parts, schema, properties).await
}

/// Pages of so many rows.
pub fn paged(row_group_rows: usize, page_rows: usize) -> WriterPropertiesBuilder {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(row_group_rows));
    properties.set_data_page_row_count_limit(page_rows).set_write_batch_size(page_rows)
}

/// The same, written otherwise.
pub async fn parquet_with(
    state: &SessionState,
    name: &str,
    folder: &str,
    parts: Vec<Vec<RecordBatch>>,
    schema: Arc<Schema>,
    properties: WriterProperties,
) -> LogicalPlan {
    let url = datafusion::execution::object_store::ObjectStoreUrl::parse("mem://tests/").unwrap();
    let registry = state.runtime_env();
    let store = match registry.object_store(&url) {
        Ok(store) => store,
        Err(_) => {
            let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
            registry.register_object_store(url.as_ref(), Arc::clone(&store));
            store
        }
    };
    for (i, batches) in parts.iter().enumerate() {
        let mut bytes = vec![];
        let mut writer = ArrowWriter::try_new(&mut bytes, Arc::clone(&schema), Some(properties.clone())).unwrap();
        batches.iter().for_each(|b| writer.write(b).unwrap());
        writer.close().unwrap();
        store.put(&format!("{folder}/{name}/{i:03}.parquet").into(), bytes.into()).await.unwrap();
    }
    let url = ListingTableUrl::parse(format!("mem://tests/{folder}/{name}/")).unwrap();
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let config = ListingTableConfig::new(url).with_listing_options(options).with_schema(schema);
    let table = ListingTable::try_new(config).unwrap();
    LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None).unwrap().build().unwrap()
}

/// The same session with other options of the join.
pub fn with_options(state: &SessionState, options: PitJoinOptions, partitions: usize) -> SessionState {
    let mut config = state.config().clone().with_target_partitions(partitions);
    options.put_into(&mut config);
    SessionStateBuilder::new_from_existing(state.clone()).with_config(config).build()
}

/// One partition, one batch.
pub fn table(name: &str, columns: Vec<(&str, ArrayRef)>) -> LogicalPlan {
    let batch = batch(columns);
    let schema = batch.schema();
    scan(name, vec![vec![batch]], schema)
}

pub fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|c| c.1).collect()).unwrap()
}

/// `l.at >= <view>.ts` without keys, tie-break or TTL.
pub fn item(view: &str) -> PitItem {
    PitItem {
        keys: vec![],
        at: col("l.at"),
        time: col(format!("{view}.ts")),
        created: None,
        seq: None,
        known_by: None,
        ttl: None,
        op: MatchOp::AtOrBefore,
        inner: false,
        round_to_micros: true,
        features_only: false,
        description: format!("{view}@v1"),
    }
}

pub fn on(view: &str, keys: &[(&str, &str)]) -> PitItem {
    let keys: Vec<(Expr, Expr)> = keys.iter().map(|(l, r)| (col(format!("l.{l}")), col(format!("{view}.{r}")))).collect();
    PitItem { keys, ..item(view) }
}

pub fn join(labels: LogicalPlan, views: Vec<LogicalPlan>, items: Vec<PitItem>) -> crate::error::Result<LogicalPlan> {
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(PitJoinNode::try_new(labels, views, items)?) }))
}

pub async fn run_in(state: &SessionState, plan: &LogicalPlan) -> Result<RecordBatch> {
    let physical = state.create_physical_plan(plan).await?;
    let batches = collect(Arc::clone(&physical), state.task_ctx()).await?;
    let limit = state.config().batch_size();
    assert!(batches.iter().all(|b| b.num_rows() <= limit), "a batch is too large");
    Ok(concat_batches(&physical.schema(), &batches)?)
}

pub async fn run(plan: &LogicalPlan) -> RecordBatch {
    run_in(&session(8192, Arc::default()), plan).await.unwrap()
}

/// The optimized logical and physical plan as text.
pub async fn explain(plan: &LogicalPlan) -> (String, String) {
    let state = session(8192, Arc::default());
    let logical = state.optimize(plan).unwrap();
    let physical = state.create_physical_plan(plan).await.unwrap();
    (logical.display_indent().to_string(), displayable(physical.as_ref()).indent(false).to_string())
}

pub fn ints(batch: &RecordBatch, column: &str) -> Vec<Option<i64>> {
    let column = cast(batch.column_by_name(column).unwrap(), &DataType::Int64).unwrap();
    column.as_primitive::<datafusion::arrow::datatypes::Int64Type>().iter().collect()
}

pub fn int(v: impl IntoIterator<Item = impl Into<Option<i64>>>) -> ArrayRef {
    Arc::new(v.into_iter().map(Into::into).collect::<Int64Array>())
}

pub fn text(v: impl IntoIterator<Item = impl Into<Option<&'static str>>>) -> ArrayRef {
    Arc::new(v.into_iter().map(Into::into).collect::<StringArray>())
}

/// Microseconds, UTC.
pub fn us(v: impl IntoIterator<Item = impl Into<Option<i64>>>) -> ArrayRef {
    stamp(v, TimeUnit::Microsecond, Some("UTC"))
}

pub fn stamp(v: impl IntoIterator<Item = impl Into<Option<i64>>>, unit: TimeUnit, zone: Option<&str>) -> ArrayRef {
    let numbers = int(v);
    let instants = cast(&numbers, &DataType::Timestamp(unit, zone.map(|_| "UTC".into()))).unwrap();
    cast(&instants, &DataType::Timestamp(unit, zone.map(Into::into))).unwrap()
}
