//! Sorted writes of feature tables: rows in, data files out, in the one order that everything relies on.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::layout::{stats_columns, stored_schema};
use crate::plan::feature_table::SEQ;
use crate::services::Services;
use crate::store::offline::{Snapshot, WriteSpec};

/// Adds `_seq`: number of the commit << 32 | row number in the statement.
#[derive(Debug)]
pub struct Sequence {
    base: i64,
    next: u64,
}

impl Sequence {
    /// For rows of the commit after `base`.
    pub fn after(base: &Snapshot) -> Self {
        Sequence { base: (base.next_sequence() as i64) << 32, next: 0 }
    }

    pub fn add(&mut self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let from = self.next;
        self.next += batch.num_rows() as u64;
        if self.next > u32::MAX as u64 {
            return Err(
                Error::invalid("one statement stores at most 4,294,967,295 rows").with_hint("refresh in ranges: REFRESH … FROM … TO …")
            );
        }
        let seq: Int64Array = (from..self.next).map(|n| self.base | n as i64).collect();
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(seq) as ArrayRef);
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

/// Sort columns of a feature table's files.
pub fn order(view: &FeatureView) -> Vec<String> {
    stats_columns(view)
}

pub fn spec(services: &Services, view: &FeatureView) -> WriteSpec {
    WriteSpec {
        schema: stored_schema(view),
        order: order(view),
        stats_columns: stats_columns(view),
        target_file_rows: services.config.target_file_rows,
        row_group_rows: services.config.row_group_rows,
        memory: Some(Arc::clone(&services.runtime.memory_pool)),
    }
}

/// Sorts a stream by columns, ascending, NULLs first; spills where the memory limit says so.
pub fn sorted(input: SendableRecordBatchStream, by: &[String], cx: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
    let schema = input.schema();
    let exprs = by
        .iter()
        .map(|c| {
            Ok(PhysicalSortExpr {
                expr: Arc::new(Column::new_with_schema(c, &schema)?),
                options: SortOptions { descending: false, nulls_first: true },
            })
        })
        .collect::<DfResult<Vec<_>>>()?;
    let Some(ordering) = LexOrdering::new(exprs) else { return Ok(input) };
    let source = once(input)?;
    Ok(SortExec::new(ordering, source).execute(0, Arc::clone(cx))?)
}

/// A plan leaf that gives a stream once.
pub fn once(input: SendableRecordBatchStream) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = input.schema();
    let part = Arc::new(Once { schema: Arc::clone(&schema), stream: Mutex::new(Some(input)) });
    Ok(Arc::new(StreamingTableExec::try_new(schema, vec![part], None, None, false, None)?))
}

struct Once {
    schema: SchemaRef,
    stream: Mutex<Option<SendableRecordBatchStream>>,
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Once")
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }
    fn execute(&self, _cx: Arc<TaskContext>) -> SendableRecordBatchStream {
        match self.stream.lock().take() {
            Some(s) => s,
            None => stream_of(Arc::clone(&self.schema), futures::stream::once(async { Err(Error::internal("a stream was read twice")) })),
        }
    }
}

/// A stream of ours as a stream of DataFusion's.
pub fn stream_of(schema: SchemaRef, s: impl Stream<Item = Result<RecordBatch>> + Send + 'static) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema, s.map(|r| r.map_err(Into::into))))
}

/// Schema with `_seq` behind the visible columns.
pub fn with_seq(visible: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = visible.fields().iter().cloned().collect();
    fields.push(Arc::new(datafusion::arrow::datatypes::Field::new(SEQ, datafusion::arrow::datatypes::DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}
