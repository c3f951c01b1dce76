//! Answers of lookups: small, in memory, and of few schemas that come again and again. The schema message is made once,
//! and all messages are there when the answer begins, so that they leave in one piece.

use std::sync::Arc;

use arrow_flight::{FlightData, SchemaAsIpc};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use datafusion::arrow::record_batch::RecordBatch;
use futures::stream;

use super::encode::{FlightStream, MESSAGE_TARGET, batch_bytes, encode, to_wire, wire_schema};
use crate::error::{Error, Result};

/// Schemas of lookups that were answered, the most used ones.
pub(super) struct EncodedAnswers(quick_cache::sync::Cache<usize, Arc<Wire>>);

struct Wire {
    /// Held, so that its address, under which it is found, is no other's.
    plan: SchemaRef,
    schema: SchemaRef,
    message: FlightData,
}

impl std::fmt::Debug for EncodedAnswers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncodedAnswers({})", self.0.len())
    }
}

impl EncodedAnswers {
    pub fn new(kept: usize) -> Self {
        EncodedAnswers(quick_cache::sync::Cache::new(kept.max(1)))
    }

    fn of(&self, plan: &SchemaRef) -> Arc<Wire> {
        let address = Arc::as_ptr(plan) as usize;
        if let Some(wire) = self.0.get(&address).filter(|w| Arc::ptr_eq(&w.plan, plan)) {
            return wire;
        }
        let schema = wire_schema(plan);
        let message = SchemaAsIpc::new(&schema, &IpcWriteOptions::default()).into();
        let wire = Arc::new(Wire { plan: Arc::clone(plan), schema, message });
        self.0.insert(address, Arc::clone(&wire));
        wire
    }

    /// The answer of a plan that makes `schema`, the same one each time; `text` stands for it in errors.
    pub fn encode(&self, schema: &SchemaRef, batches: Vec<RecordBatch>, text: Arc<str>) -> Result<FlightStream> {
        let wire = self.of(schema);
        if batches.iter().map(batch_bytes).sum::<usize>() > MESSAGE_TARGET {
            return Ok(encode(stream::iter(batches.into_iter().map(Ok::<_, Error>)), Arc::clone(&wire.schema), text));
        }
        let (made, options) = (IpcDataGenerator::default(), IpcWriteOptions::default());
        let mut context = IpcWriteContext::default();
        let mut messages = vec![Ok(wire.message.clone())];
        for batch in &batches {
            // no dictionaries cross the wire, see `wire_type`
            let (_, data) = made.encode(&to_wire(batch, &wire.schema)?, &mut DictionaryTracker::new(false), &options, &mut context)?;
            messages.push(Ok(FlightData::from(data)));
        }
        Ok(Box::pin(stream::iter(messages)))
    }
}
