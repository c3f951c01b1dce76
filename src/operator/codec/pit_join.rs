//! The point-in-time join: plain data and expressions.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::protobuf::PhysicalExprNode;

use super::damaged;
use super::message::{Columns, ItemMessage, PitJoinMessage};
use super::nodes::{narrow, size, wide};
use crate::operator::pit_join::{PitExecItem, PitJoinExec, PitJoinOptions, PitJoinSpec};

pub(super) type Expr = Arc<dyn PhysicalExpr>;
pub(super) type Write<'a> = dyn Fn(&Expr) -> Result<PhysicalExprNode> + 'a;
pub(super) type Read<'a> = dyn Fn(&PhysicalExprNode, &Schema) -> Result<Expr> + 'a;

pub fn write(spec: &PitJoinSpec, write: &Write) -> Result<PitJoinMessage> {
    let options = spec.options;
    Ok(PitJoinMessage {
        items: spec.items.iter().map(|item| write_item(item, write)).collect::<Result<_>>()?,
        label_fetch: spec.label_fetch.map(|n| n as u64),
        projection: spec.projection.as_deref().map(|columns| Columns { indices: wide(columns) }),
        strategy: options.strategy.to_string(),
        chunk_rows: options.chunk_rows.map(|n| n as u64),
        parts: options.parts as u64,
    })
}

pub(super) fn write_item(item: &PitExecItem, write: &Write) -> Result<ItemMessage> {
    let some = |e: &Option<Expr>| e.as_ref().map(write).transpose();
    Ok(ItemMessage {
        label_keys: item.keys.iter().map(|k| write(&k.0)).collect::<Result<_>>()?,
        feature_keys: item.keys.iter().map(|k| write(&k.1)).collect::<Result<_>>()?,
        at: Some(write(&item.at)?),
        time: Some(write(&item.time)?),
        created: some(&item.created)?,
        seq: some(&item.seq)?,
        known_by: some(&item.known_by)?,
        op: serde_json::to_string(&item.op).map_err(|e| damaged(&e))?,
        lines: serde_json::to_string(&item.lines).map_err(|e| damaged(&e))?,
        inner: item.inner,
        description: item.description.clone(),
    })
}

pub fn read(message: PitJoinMessage, inputs: &[Arc<dyn ExecutionPlan>], read: &Read) -> Result<Arc<dyn ExecutionPlan>> {
    let [labels, views @ ..] = inputs else { return Err(damaged(&"a join has no labels")) };
    if views.len() != message.items.len() {
        return Err(damaged(&format!("a join of {} views has {}", message.items.len(), views.len())));
    }
    let item = |(item, view): (ItemMessage, &Arc<dyn ExecutionPlan>)| read_item(item, &labels.schema(), &view.schema(), read);
    let items = message.items.into_iter().zip(views).map(item).collect::<Result<Vec<_>>>()?;
    let options = PitJoinOptions {
        strategy: message.strategy.parse().map_err(|e: String| damaged(&e))?,
        chunk_rows: message.chunk_rows.map(size).transpose()?,
        parts: size(message.parts)?,
    };
    let label_fetch = message.label_fetch.map(size).transpose()?;
    let mut spec = PitJoinSpec::new(Arc::clone(labels), views.to_vec(), items, label_fetch, options);
    spec.projection = message.projection.map(|columns| narrow(&columns.indices)).transpose()?;
    if spec.projection.iter().flatten().any(|c| *c >= spec.width_of_all()) {
        return Err(damaged(&"a join has fewer columns than are asked of it"));
    }
    Ok(Arc::new(PitJoinExec::try_new(spec)?))
}

pub(super) fn read_item(item: ItemMessage, labels: &Schema, view: &Schema, read: &Read) -> Result<PitExecItem> {
    if item.label_keys.len() != item.feature_keys.len() {
        return Err(damaged(&"a key has one side only"));
    }
    let some = |e: &Option<PhysicalExprNode>, schema: &Schema| e.as_ref().map(|e| read(e, schema)).transpose();
    let one = |e: &Option<PhysicalExprNode>, schema: &Schema| some(e, schema)?.ok_or_else(|| damaged(&"an instant is missing"));
    let keys = item.label_keys.iter().zip(&item.feature_keys);
    Ok(PitExecItem {
        keys: keys.map(|(l, r)| Ok((read(l, labels)?, read(r, view)?))).collect::<Result<_>>()?,
        at: one(&item.at, labels)?,
        time: one(&item.time, view)?,
        created: some(&item.created, view)?,
        seq: some(&item.seq, view)?,
        known_by: some(&item.known_by, labels)?,
        op: serde_json::from_str(&item.op).map_err(|e| damaged(&e))?,
        lines: serde_json::from_str(&item.lines).map_err(|e| damaged(&e))?,
        inner: item.inner,
        description: item.description,
        index: 0,
    })
}
