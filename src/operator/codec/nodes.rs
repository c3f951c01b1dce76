//! One arm per node.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::PhysicalProtoConverterExtension;
use datafusion_proto::protobuf::PhysicalExprNode;

use super::message::*;
use super::{PlanCodec, Reading, cancel, damaged, pit_join, window_join};
use crate::error::Error;
use crate::operator::bound_rows::BoundRowsExec;
use crate::operator::interruptible::Guarded;
use crate::operator::online_lookup::OnlineLookupExec;
use crate::operator::ordered_scan::{OrderedScan, inner_scan};
use crate::operator::pit_join::{InLabelOrderExec, PitJoinExec};
use crate::operator::portions::Portions;
use crate::operator::repartition::SplitRepartitionExec;
use crate::operator::window_join::WindowJoinExec;
use crate::plan::online_lookup::LookupItem;
use crate::store::offline::SureBounds;

type Plan = Arc<dyn ExecutionPlan>;

pub fn write(codec: &PlanCodec, plan: &Plan, converter: &dyn PhysicalProtoConverterExtension) -> Result<Node> {
    if let Some(join) = plan.downcast_ref::<PitJoinExec>() {
        return Ok(Node::PitJoin(pit_join::write(join.spec(), &|e| converter.physical_expr_to_proto(e, codec))?));
    }
    if let Some(join) = plan.downcast_ref::<WindowJoinExec>() {
        return Ok(Node::WindowJoin(window_join::write(join.spec(), &|e| converter.physical_expr_to_proto(e, codec))?));
    }
    if let Some(lookup) = plan.downcast_ref::<OnlineLookupExec>() {
        return write_lookup(codec, lookup).map(Node::OnlineLookup);
    }
    if plan.is::<OrderedScan>() {
        let scan = converter.execution_plan_to_proto(inner_scan(plan), codec)?;
        return Ok(Node::OrderedScan(OrderedScanMessage { scan: Some(Box::new(scan)), sure: sure_files(inner_scan(plan)) }));
    }
    if plan.is::<BoundRowsExec>() {
        let rows = codec.rows.as_ref().ok_or_else(|| Error::internal("no rows are bound to the statement of this plan"))?;
        let rows: Plan = MemorySourceConfig::try_new_exec(&[vec![rows.clone()]], rows.schema(), None)?;
        let rows = Box::new(converter.execution_plan_to_proto(&rows, codec)?);
        return Ok(Node::BoundRows(BoundRowsMessage { rows: Some(rows) }));
    }
    if let Some(portions) = plan.downcast_ref::<Portions>() {
        let (lists, limit, rows) = portions.limits();
        return Ok(Node::Portions(PortionsMessage { lists: wide(lists), limit: limit as u64, rows: rows as u64 }));
    }
    if let Some(split) = plan.downcast_ref::<SplitRepartitionExec>() {
        let Partitioning::Hash(keys, partitions) = split.partitioning() else {
            return Err(Error::internal("a split repartition is one by hash").into());
        };
        let keys = keys.iter().map(|e| converter.physical_expr_to_proto(e, codec)).collect::<Result<_>>()?;
        return Ok(Node::SplitRepartition(SplitRepartitionMessage { keys, partitions: *partitions as u64 }));
    }
    if plan.is::<InLabelOrderExec>() {
        return Ok(Node::InLabelOrder(Empty {}));
    }
    if plan.is::<Guarded>() {
        return Ok(Node::Guarded(Empty {}));
    }
    Err(Error::invalid(format!("{} cannot be sent to another machine", plan.name())).into())
}

pub fn read(node: Node, inputs: &[Plan], reading: &Reading<'_>) -> Result<Plan> {
    Ok(match node {
        Node::PitJoin(message) => pit_join::read(message, inputs, &|e, schema| reading.expression(e, schema))?,
        Node::WindowJoin(message) => window_join::read(message, inputs, &|e, schema| reading.expression(e, schema))?,
        Node::InLabelOrder(_) => Arc::new(InLabelOrderExec::new(only(inputs)?)),
        Node::OnlineLookup(message) => read_lookup(message, only(inputs)?)?,
        Node::OrderedScan(message) => {
            let scan = message.scan.ok_or_else(|| damaged(&"a scan is missing"))?;
            let scan = reading.converter.proto_to_execution_plan(&scan, &reading.scope())?;
            OrderedScan::wrap(with_sure_files(scan, &message.sure))
        }
        Node::BoundRows(message) => {
            let rows = message.rows.ok_or_else(|| damaged(&"the bound rows are missing"))?;
            reading.converter.proto_to_execution_plan(&rows, &reading.scope())?
        }
        Node::Portions(message) => {
            let portions = Portions::new(only(inputs)?, narrow(&message.lists)?, size(message.limit)?);
            Arc::new(portions.with_rows(size(message.rows)?))
        }
        Node::Guarded(_) => Arc::new(Guarded::new(only(inputs)?, cancel())),
        Node::SplitRepartition(message) => {
            let input = only(inputs)?;
            let schema = input.schema();
            let keys = message.keys.iter().map(|e| reading.expression(e, &schema)).collect::<Result<_>>()?;
            Arc::new(SplitRepartitionExec::by_hash(input, keys, size(message.partitions)?)?)
        }
    })
}

impl Reading<'_> {
    fn expression(&self, e: &PhysicalExprNode, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
        self.converter.proto_to_physical_expr(e, schema, &self.scope())
    }
}

fn only(inputs: &[Plan]) -> Result<Plan> {
    match inputs {
        [input] => Ok(Arc::clone(input)),
        _ => Err(damaged(&format!("a node with one input has {}", inputs.len()))),
    }
}

pub(super) fn size(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(|e| damaged(&e))
}

pub(super) fn wide(indices: &[usize]) -> Vec<u64> {
    indices.iter().map(|i| *i as u64).collect()
}

pub(super) fn narrow(indices: &[u64]) -> Result<Vec<usize>> {
    indices.iter().map(|i| size(*i)).collect()
}

/// A lookup of "now" travels with the instant of its statement, so that all machines mean the same.
fn write_lookup(codec: &PlanCodec, lookup: &OnlineLookupExec) -> Result<OnlineLookupMessage> {
    let at = lookup.at().or(codec.instant).ok_or_else(|| Error::internal("a lookup of now travels with the instant of its statement"))?;
    let item = |item: &LookupItem| {
        Ok(LookupItemMessage {
            alias: item.alias.clone(),
            view: serde_json::to_string(&*item.view).map_err(|e| damaged(&e))?,
            key_inputs: wide(&item.key_inputs),
            features: wide(&item.features),
        })
    };
    Ok(OnlineLookupMessage {
        items: lookup.items().iter().map(item).collect::<Result<_>>()?,
        at,
        schema: Some(lookup.schema().as_ref().try_into()?),
        store: lookup.store().map(str::to_string),
    })
}

fn read_lookup(message: OnlineLookupMessage, input: Plan) -> Result<Plan> {
    let item = |item: LookupItemMessage| {
        Ok(LookupItem {
            alias: item.alias,
            view: Arc::new(serde_json::from_str(&item.view).map_err(|e| damaged(&e))?),
            key_inputs: narrow(&item.key_inputs)?,
            features: narrow(&item.features)?,
        })
    };
    let items = message.items.into_iter().map(item).collect::<Result<Vec<_>>>()?;
    let schema: Schema = message.schema.as_ref().ok_or_else(|| damaged(&"a schema is missing"))?.try_into()?;
    Ok(Arc::new(OnlineLookupExec::new(input, items, Some(message.at), Arc::new(schema), message.store)))
}

fn file_scan(plan: &Plan) -> Option<&FileScanConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

fn sure_files(scan: &Plan) -> Vec<bool> {
    let files = file_scan(scan).into_iter().flat_map(|c| &c.file_groups).flat_map(FileGroup::iter);
    files.map(|f| f.extension::<SureBounds>().is_some()).collect()
}

fn with_sure_files(scan: Plan, sure: &[bool]) -> Plan {
    let Some(config) = file_scan(&scan).filter(|_| sure.contains(&true)) else { return scan };
    let mut sure = sure.iter();
    let mut marked = |file: &PartitionedFile| match sure.next() {
        Some(true) => file.clone().with_extension(SureBounds),
        _ => file.clone(),
    };
    let groups = config.file_groups.iter().map(|g| FileGroup::new(g.iter().map(&mut marked).collect())).collect();
    DataSourceExec::from_data_source(FileScanConfigBuilder::from(config.clone()).with_file_groups(groups).build())
}
