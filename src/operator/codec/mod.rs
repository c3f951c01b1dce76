//! Plans as bytes, to run in another session: on another machine, or in another process.
//!
//! DataFusion's own nodes are written by `datafusion-proto`; this adds ours. What it relies on: a Parquet scan travels
//! with its files, their statistics and its projection, and is given a reader with the receiving session's cache of
//! footers. What it adds: which files have bounds that are sure, and that a scan keeps its order. A function goes by
//! its name, and must be registered where the plan is read; those that only a rule puts into plans are written whole.
//!
//! "Now" is data here: the writer gives the instant of its statement. Two things stay with the machine that plans: a
//! command, which changes the warehouse, and a sink, which holds an open commit.

mod functions;
mod message;
mod nodes;
mod pit_join;
mod window_join;

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::ScalarUDF;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_common::physical_expr::proto_decode::PhysicalExprDecodeCtx;
use datafusion::physical_expr_common::physical_expr::proto_encode::PhysicalExprEncodeCtx;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{
    AsExecutionPlan, PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::PhysicalPlanNode;
use prost::Message;

use self::message::{NodeMessage, VERSION};
use super::interruptible::Watched;
use crate::cancel::Cancel;
use crate::clock::Micros;
use crate::error::Error;

/// Writes plans with our nodes in them, and reads them.
#[derive(Debug, Clone, Default)]
pub struct PlanCodec {
    /// What "now" means in a lookup that leaves it open.
    instant: Option<Micros>,
    /// The rows that the statement was started with.
    rows: Option<RecordBatch>,
}

impl PlanCodec {
    /// For a statement that began at `instant` (microseconds, UTC), with the rows bound to its parameters, if any.
    pub fn of_statement(instant: Micros, rows: Option<RecordBatch>) -> Self {
        PlanCodec { instant: Some(instant), rows }
    }

    /// A plan as bytes. Errors: a node that stays with this machine, or cannot be written.
    pub fn encode(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<u8>> {
        stays(&plan)?;
        Ok(PhysicalPlanNode::try_from_physical_plan(plan, self)?.encode_to_vec())
    }

    /// The plan again, with the functions, object stores and settings of `context`. Errors: bytes that are no plan, or
    /// that another version of Remige wrote.
    pub fn decode(&self, bytes: &[u8], context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>> {
        let node = PhysicalPlanNode::decode(bytes).map_err(|e| damaged(&e))?;
        node.try_into_physical_plan(context, self)
    }
}

fn damaged(e: &dyn std::fmt::Display) -> DataFusionError {
    Error::invalid(format!("these bytes are no plan: {e}")).with_hint("run the same version of Remige on every machine").into()
}

/// An error where part of a plan holds what cannot leave its machine.
fn stays(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let why = match plan.name() {
        "CommandExec" => Some("it changes the warehouse"),
        "DataSinkExec" => Some("it holds an open commit"),
        _ => None,
    };
    if let Some(why) = why {
        return Err(Error::invalid(format!("{} stays with the machine that planned it: {why}", plan.name())).into());
    }
    plan.children().into_iter().try_for_each(stays)
}

impl PhysicalExtensionCodec for PlanCodec {
    fn try_encode(&self, node: Arc<dyn ExecutionPlan>, buf: &mut Vec<u8>, converter: &dyn PhysicalProtoConverterExtension) -> Result<()> {
        let node = nodes::write(self, &node, converter)?;
        NodeMessage { version: VERSION, node: Some(node) }.encode(buf).map_err(|e| damaged(&e))
    }

    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let message = NodeMessage::decode(buf).map_err(|e| damaged(&e))?;
        if message.version != VERSION {
            let (theirs, ours) = (message.version, VERSION);
            return Err(damaged(&format!("it is written in form {theirs}, and this version of Remige reads form {ours}")));
        }
        let node = message.node.ok_or_else(|| damaged(&"it names no node"))?;
        nodes::read(node, inputs, &Reading { codec: self, context, converter })
    }

    fn try_encode_udf(&self, function: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        functions::write(function, buf)
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        functions::read(name, buf)
    }

    fn try_encode_expr(&self, expr: &Arc<dyn PhysicalExpr>, _buf: &mut Vec<u8>, _ctx: &PhysicalExprEncodeCtx<'_>) -> Result<()> {
        match expr.is::<Watched>() {
            true => Ok(()),
            false => Err(Error::invalid(format!("the expression {expr} cannot be sent to another machine")).into()),
        }
    }

    /// The only expression of ours is one that looks whether its statement is still wanted: it looks at the one here.
    fn try_decode_expr(
        &self,
        _buf: &[u8],
        inputs: &[Arc<dyn PhysicalExpr>],
        _ctx: &PhysicalExprDecodeCtx<'_>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let [condition] = inputs else { return Err(damaged(&"a watched condition has one child")) };
        Ok(Arc::new(Watched::new(Arc::clone(condition), cancel())))
    }
}

/// That of the statement which reads the plan.
fn cancel() -> Cancel {
    Cancel::current().unwrap_or_default()
}

/// What reading a node needs.
struct Reading<'a> {
    codec: &'a PlanCodec,
    context: &'a TaskContext,
    converter: &'a dyn PhysicalProtoConverterExtension,
}

impl Reading<'_> {
    fn scope(&self) -> PhysicalPlanDecodeContext<'_> {
        PhysicalPlanDecodeContext::new(self.context, self.codec)
    }
}
