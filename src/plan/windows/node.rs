//! The logical node: labels with the aggregates of one windowed view's events.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::Field;
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, Result as DfResult, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::types::timestamp_type;
use crate::model::windowed::{Windowed, slot_name};
use crate::plan::pit_join::PitItem;

/// What one windowed view is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub struct WindowItem {
    /// Keys, instants and order of labels and events, as of a point-in-time join.
    pub pit: PitItem,
    /// Qualifies the columns that the item adds.
    pub qualifier: TableReference,
    /// Columns of the events that the aggregates read, in the order of `Windowed::arguments_of(slots)`.
    pub arguments: Vec<Expr>,
    /// The aggregates that are wanted: indices into `Windowed::slots`, ascending.
    pub slots: Vec<usize>,
}

/// Label rows in their order, each with the aggregates of its key's events as of its instant. Output: the fields of
/// `labels`; the slots that are wanted; the event timestamp: that of the newest event by the instant, where it is not
/// before the older end of the longest window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WindowJoinNode {
    pub labels: LogicalPlan,
    /// One row per event.
    pub events: LogicalPlan,
    pub view: Arc<FeatureView>,
    pub item: WindowItem,
    schema: DFSchemaRef,
}

impl WindowJoinNode {
    /// Checks types and casts keys to common types. Errors name the columns at fault.
    pub fn try_new(labels: LogicalPlan, events: LogicalPlan, view: Arc<FeatureView>, mut item: WindowItem) -> Result<Self> {
        let name = item.pit.description.clone();
        item.pit = item.pit.coerced(labels.schema(), events.schema()).map_err(|e| e.context(name))?;
        Ok(Self::assemble(labels, events, view, item)?)
    }

    fn assemble(labels: LogicalPlan, events: LogicalPlan, view: Arc<FeatureView>, item: WindowItem) -> DfResult<Self> {
        let windowed = windowed(&view)?;
        let mut fields: Vec<_> = labels.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        for i in &item.slots {
            let slot = windowed.slots.get(*i).ok_or_else(|| Error::internal(format!("{} has no aggregate {i}", view.versioned_name())))?;
            let field = Field::new(slot_name(*i), slot.data_type.arrow().clone(), true);
            fields.push((Some(item.qualifier.clone()), Arc::new(field)));
        }
        fields.push((Some(item.qualifier.clone()), Arc::new(Field::new(&view.event_timestamp, timestamp_type(), true))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, labels.schema().metadata().clone())?);
        Ok(WindowJoinNode { labels, events, view, item, schema })
    }

    /// The same with only those aggregates that some columns name; `None`: all are named.
    pub(super) fn with_slots_of(&self, asked: &[Column]) -> DfResult<Option<Self>> {
        let is_asked = |slot: &usize| {
            let name = slot_name(*slot);
            asked.iter().any(|c| c.name == name && c.relation.as_ref().is_none_or(|r| *r == self.item.qualifier))
        };
        let slots: Vec<usize> = self.item.slots.iter().copied().filter(is_asked).collect();
        if slots.len() == self.item.slots.len() {
            return Ok(None);
        }
        let windowed = windowed(&self.view)?;
        let (before, after) = (windowed.arguments_of(&self.item.slots), windowed.arguments_of(&slots));
        let kept = before.iter().zip(&self.item.arguments).filter(|(c, _)| after.contains(c));
        let arguments = kept.map(|(_, e)| e.clone()).collect();
        let item = WindowItem { slots, arguments, ..self.item.clone() };
        Self::assemble(self.labels.clone(), self.events.clone(), Arc::clone(&self.view), item).map(Some)
    }

    /// Number of leading output columns that come from the labels.
    pub fn label_width(&self) -> usize {
        self.labels.schema().fields().len()
    }
}

/// What makes the view windowed.
pub(super) fn windowed(view: &FeatureView) -> Result<&Windowed> {
    view.windowed.as_deref().ok_or_else(|| Error::internal(format!("feature view {} has no windows", view.versioned_name())))
}

impl PartialOrd for WindowJoinNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let order = (&self.labels, &self.events, &self.item).partial_cmp(&(&other.labels, &other.events, &other.item));
        // `Equal` must mean `==`
        order.filter(|o| *o != Ordering::Equal || self == other)
    }
}

impl UserDefinedLogicalNodeCore for WindowJoinNode {
    fn name(&self) -> &str {
        "WindowJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.labels, &self.events]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.item.pit.expressions().into_iter().chain(self.item.arguments.iter().cloned()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowJoin: {}, {}", self.item.pit, describe(&self.view, &self.item.slots))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let (Some(events), Some(labels), true) = (inputs.pop(), inputs.pop(), inputs.is_empty()) else {
            return Err(DataFusionError::Internal("WindowJoin has two inputs".into()));
        };
        let mut exprs = exprs.into_iter();
        let pit = self.item.pit.with_expressions(&mut exprs);
        let arguments: Vec<Expr> = exprs.map(Expr::unalias).collect();
        match pit {
            Some(pit) if arguments.len() == self.item.arguments.len() => {
                Self::assemble(labels, events, Arc::clone(&self.view), WindowItem { pit, arguments, ..self.item.clone() })
            }
            _ => Err(DataFusionError::Internal("WindowJoin got the wrong number of expressions".into())),
        }
    }

    // Columns of `expressions()` are added by the caller.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.label_width();
        Some(vec![output_columns.iter().copied().filter(|c| *c < width).collect(), vec![]])
    }
}

/// `[count(*) over 30 days, …]`: how EXPLAIN shows the aggregates.
pub fn describe(view: &FeatureView, slots: &[usize]) -> String {
    let all = view.windowed.as_ref().map(|w| w.slots.as_slice()).unwrap_or_default();
    let shown: Vec<String> = slots.iter().filter_map(|s| all.get(*s)).map(|s| s.aggregate.describe()).collect();
    format!("[{}]", shown.join(", "))
}
