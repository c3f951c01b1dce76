//! What a window join is asked.

use std::sync::Arc;

use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::model::window::{Aggregate, Window};
use crate::operator::pit_join::PitExecItem;

/// Labels, events, and which aggregates each label gets.
#[derive(Debug, Clone)]
pub struct WindowJoinSpec {
    pub labels: Arc<dyn ExecutionPlan>,
    pub events: Arc<dyn ExecutionPlan>,
    pub item: PitExecItem,
    /// What the aggregates read of an event, by its name.
    pub arguments: Vec<(String, Arc<dyn PhysicalExpr>)>,
    pub aggregates: Vec<Aggregate>,
    /// The newest event in it is the one whose timestamp is given.
    pub longest: Option<Window>,
    /// The columns behind those of the labels: one per aggregate, then the event timestamp.
    pub added: Vec<FieldRef>,
}

impl WindowJoinSpec {
    pub fn schema(&self) -> SchemaRef {
        let labels = self.labels.schema();
        let fields: Vec<FieldRef> = labels.fields().iter().chain(&self.added).cloned().collect();
        Arc::new(Schema::new_with_metadata(fields, labels.metadata().clone()))
    }

    pub fn keeps_all_labels(&self) -> bool {
        !self.item.inner
    }

    /// The order in which events must come: keys, event timestamp, created timestamp, `_seq`. A key that is cast for the
    /// comparison keeps different values apart, so that its own column's order brings equal ones together too.
    pub fn order_of_events(&self) -> Option<LexOrdering> {
        let options = SortOptions { descending: false, nulls_first: true };
        let item = &self.item;
        let all = item.keys.iter().map(|(_, e)| e).chain([&item.time]).chain([&item.created, &item.seq].into_iter().flatten());
        let mut columns: Vec<Column> = vec![];
        for e in all {
            let mut own: Vec<Column> = collect_columns(e).into_iter().collect();
            own.sort_by_key(Column::index);
            columns.extend(own);
        }
        LexOrdering::new(columns.into_iter().map(|c| PhysicalSortExpr::new(Arc::new(c), options)))
    }

    /// All events in their order. Each partition of the input has it.
    pub fn sorted_events(&self, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let events = &self.events;
        match (events.output_partitioning().partition_count(), self.order_of_events()) {
            (0 | 1, _) | (_, None) => events.execute(0, Arc::clone(context)),
            (_, Some(by)) => SortPreservingMergeExec::new(by, Arc::clone(events)).execute(0, Arc::clone(context)),
        }
    }

    /// The columns of a batch of events that the aggregates read.
    pub fn arguments_schema(&self) -> Result<SchemaRef> {
        let events = self.events.schema();
        let field = |(name, e): &(String, Arc<dyn PhysicalExpr>)| {
            Ok(Arc::new(datafusion::arrow::datatypes::Field::new(name, e.data_type(&events)?, true)))
        };
        Ok(Arc::new(Schema::new(self.arguments.iter().map(field).collect::<Result<Vec<FieldRef>>>()?)))
    }
}
