//! The rows of a table with a number each: the place of their file in the snapshot, and their place in the file. A table
//! without `_seq` knows its rows by nothing else. A number means a row of one version only.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt};

use super::scan::{Ordering, ScanOptions};
use super::snapshot::Snapshot;
use super::warehouse::OfflineStore;
use crate::error::{Error, Result};

/// Column with the numbers, behind the others.
pub const ROW: &str = "_remige_row";

/// The first and the last number that rows of a file may have; `place`: of the file in its snapshot.
pub fn numbers_of_file(place: usize) -> Result<(i64, i64)> {
    let place = i32::try_from(place).map_err(|_| Error::invalid("a table of so many files cannot be changed row by row"))?;
    let first = i64::from(place) << 32;
    Ok((first, first | i64::from(u32::MAX)))
}

impl OfflineStore {
    /// The visible columns of a snapshot, and [`ROW`].
    pub fn numbered_provider(&self, snapshot: &Snapshot) -> Result<Arc<dyn TableProvider>> {
        let one = |file| ScanOptions { files: Some(vec![file]), ordering: Ordering::Never, ..Default::default() };
        let files = snapshot.files().iter().map(|f| self.scan_provider(snapshot, one(Arc::clone(f)))).collect::<Result<Vec<_>>>()?;
        let visible = self.scan_provider(snapshot, ScanOptions { files: Some(vec![]), ..Default::default() })?.schema();
        let number = Arc::new(Field::new(ROW, DataType::Int64, false));
        let schema = Arc::new(Schema::new(visible.fields().iter().cloned().chain([number]).collect::<Vec<_>>()));
        Ok(Arc::new(Numbered { schema, files }))
    }
}

#[derive(Debug)]
struct Numbered {
    schema: SchemaRef,
    /// One table per file, in the order of the snapshot.
    files: Vec<Arc<dyn TableProvider>>,
}

#[async_trait]
impl TableProvider for Numbered {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
    fn table_type(&self) -> TableType {
        TableType::Base
    }
    /// No filter is taken: a file that is not read from its first row to its last cannot be counted.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let number = self.schema.fields().len() - 1;
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..=number).collect());
        let stored: Vec<usize> = wanted.iter().copied().filter(|i| *i != number).collect();
        let mut files = Vec::with_capacity(self.files.len());
        for (place, file) in self.files.iter().enumerate() {
            files.push((place, file.scan(state, Some(&stored), &[], None).await?));
        }
        let per_part = files.len().div_ceil(state.config().target_partitions().max(1)).max(1);
        let mut parts: Vec<Vec<_>> = files.chunks(per_part).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(vec![]);
        }
        let schema = Arc::new(self.schema.project(&wanted)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(parts.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let number_at = wanted.iter().position(|i| *i == number);
        Ok(Arc::new(NumberedScan { parts, number_at, schema, properties: Arc::new(properties) }))
    }
}

/// A leaf: the optimizer does not see the scans inside, which it would split or filter.
struct NumberedScan {
    /// Files and their places.
    parts: Vec<Vec<(usize, Arc<dyn ExecutionPlan>)>>,
    number_at: Option<usize>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for NumberedScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NumberedScan({} files)", self.parts.iter().map(Vec::len).sum::<usize>())
    }
}

impl DisplayAs for NumberedScan {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NumberedScan: files={}", self.parts.iter().map(Vec::len).sum::<usize>())
    }
}

impl ExecutionPlan for NumberedScan {
    fn name(&self) -> &str {
        "NumberedScan"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }
    fn apply_expressions(&self, _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }
    fn execute(&self, partition: usize, cx: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let files = self.parts.get(partition).cloned().unwrap_or_default();
        let (schema, number_at) = (Arc::clone(&self.schema), self.number_at);
        let rows = futures::stream::iter(files).map(move |(place, file)| {
            let (first, last) = numbers_of_file(place)?;
            let (schema, mut next) = (Arc::clone(&schema), first);
            let rows = file.execute(0, Arc::clone(&cx))?;
            Ok::<_, datafusion::error::DataFusionError>(rows.map(move |batch| {
                let batch = batch?;
                let numbers = next..next + batch.num_rows() as i64;
                if numbers.end - 1 > last {
                    return Err(Error::invalid("a file of so many rows cannot be changed row by row").into());
                }
                next = numbers.end;
                with_numbers(&batch, number_at, numbers, &schema)
            }))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows.try_flatten())))
    }
}

fn with_numbers(batch: &RecordBatch, at: Option<usize>, numbers: std::ops::Range<i64>, schema: &SchemaRef) -> DfResult<RecordBatch> {
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    if let Some(at) = at {
        columns.insert(at, Arc::new(Int64Array::from_iter_values(numbers)));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
