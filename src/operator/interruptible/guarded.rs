//! Looks between the batches of its input whether they are still wanted, and lets other tasks run.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt};

use crate::cancel::Cancel;
use crate::error::Error;

#[derive(Debug)]
pub struct Guarded {
    input: Arc<dyn ExecutionPlan>,
    cancel: Cancel,
    properties: Arc<PlanProperties>,
}

impl Guarded {
    pub fn new(input: Arc<dyn ExecutionPlan>, cancel: Cancel) -> Self {
        let properties = PlanProperties::clone(input.properties()).with_scheduling_type(SchedulingType::Cooperative).into();
        Guarded { input, cancel, properties }
    }
}

impl DisplayAs for Guarded {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Guarded")
    }
}

impl ExecutionPlan for Guarded {
    fn name(&self) -> &str {
        "Guarded"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Guarded::new(input, self.cancel.clone()))),
            _ => Err(Error::internal("a guarded plan has one input").into()),
        }
    }
    fn execute(&self, partition: usize, cx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = Looking { rows: self.input.execute(partition, cx)?, cancel: self.cancel.clone() };
        Ok(make_cooperative(Box::pin(rows)))
    }
    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }
    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }
}

struct Looking {
    rows: SendableRecordBatchStream,
    cancel: Cancel,
}

impl Stream for Looking {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.cancel.check() {
            Ok(()) => self.rows.poll_next_unpin(cx),
            Err(e) => Poll::Ready(Some(Err(e.into()))),
        }
    }
}

impl RecordBatchStream for Looking {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }
}
