//! The window join: plain data and expressions.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;

use super::damaged;
use super::message::WindowJoinMessage;
use super::pit_join::{Read, Write, read_item, write_item};
use crate::operator::window_join::{WindowJoinExec, WindowJoinSpec};

pub fn write(spec: &WindowJoinSpec, write: &Write) -> Result<WindowJoinMessage> {
    let aggregate = |a| serde_json::to_string(a).map_err(|e| damaged(&e));
    Ok(WindowJoinMessage {
        item: Some(Box::new(write_item(&spec.item, write)?)),
        argument_names: spec.arguments.iter().map(|(name, _)| name.clone()).collect(),
        arguments: spec.arguments.iter().map(|(_, e)| write(e)).collect::<Result<_>>()?,
        aggregates: spec.aggregates.iter().map(aggregate).collect::<Result<_>>()?,
        longest: serde_json::to_string(&spec.longest).map_err(|e| damaged(&e))?,
        added: Some((&Schema::new(spec.added.clone())).try_into()?),
    })
}

pub fn read(message: WindowJoinMessage, inputs: &[Arc<dyn ExecutionPlan>], read: &Read) -> Result<Arc<dyn ExecutionPlan>> {
    let [labels, events] = inputs else { return Err(damaged(&"a window join has two inputs")) };
    if message.argument_names.len() != message.arguments.len() {
        return Err(damaged(&"an argument of a window join has no name"));
    }
    let item = message.item.ok_or_else(|| damaged(&"a window join asks nothing"))?;
    let (left, right) = (labels.schema(), events.schema());
    let arguments = message.argument_names.into_iter().zip(&message.arguments);
    let added: Schema = message.added.as_ref().ok_or_else(|| damaged(&"a schema is missing"))?.try_into()?;
    let aggregates = message.aggregates.iter().map(|a| serde_json::from_str(a).map_err(|e| damaged(&e))).collect::<Result<Vec<_>>>()?;
    if added.fields().len() != aggregates.len() + 1 {
        return Err(damaged(&"a window join has more columns than aggregates, or fewer"));
    }
    Ok(Arc::new(WindowJoinExec::new(WindowJoinSpec {
        labels: Arc::clone(labels),
        events: Arc::clone(events),
        item: read_item(*item, &left, &right, read)?,
        arguments: arguments.map(|(name, e)| Ok((name, read(e, &right)?))).collect::<Result<_>>()?,
        aggregates,
        longest: serde_json::from_str(&message.longest).map_err(|e| damaged(&e))?,
        added: added.fields().iter().cloned().collect(),
    })))
}
