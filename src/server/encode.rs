//! Results as clients can read them: one normalised schema for FlightInfo and DoGet, and messages
//! below the 4 MiB that gRPC clients accept by default.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use arrow::compute::{CastOptions, cast_with_options};
use arrow::record_batch::RecordBatchOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::arrow::ipc::writer::IpcWriteOptions;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use futures::{Stream, StreamExt, TryStreamExt};
use tonic::Status;

use super::status;
use crate::error::{Error, Result};

pub(super) type FlightStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send + 'static>>;

/// Bytes of data in one message; clients refuse messages above 4 MiB, headers included.
pub(super) const MESSAGE_TARGET: usize = 2 << 20;

/// The type in which a column crosses the wire. JDBC 18 cannot read views, list views, half floats,
/// run ends and short decimals, and reads the indexes of dictionaries as values.
pub(super) fn wire_type(t: &DataType) -> DataType {
    use DataType::*;
    match t {
        Utf8View => Utf8,
        BinaryView => Binary,
        Float16 => Float32,
        Decimal32(p, s) | Decimal64(p, s) => Decimal128(*p, *s),
        Dictionary(_, v) => wire_type(v),
        RunEndEncoded(_, v) => wire_type(v.data_type()),
        // The Flight encoder announces a large list as a list, so that it must be one.
        List(f) | LargeList(f) | ListView(f) | LargeListView(f) => List(wire_field(f)),
        FixedSizeList(f, n) => FixedSizeList(wire_field(f), *n),
        Struct(fields) => Struct(fields.iter().map(wire_field).collect()),
        Map(entries, sorted) => Map(wire_entries(entries), *sorted),
        other => other.clone(),
    }
}

fn wire_field(f: &FieldRef) -> FieldRef {
    // The plan and its batches may disagree about nullability; strict clients compare it.
    let nullable = !matches!(f.data_type(), DataType::Union(..));
    Arc::new(Field::new(f.name(), wire_type(f.data_type()), nullable).with_metadata(f.metadata().clone()))
}

fn wire_entries(entries: &FieldRef) -> FieldRef {
    let DataType::Struct(fields) = entries.data_type() else { return Arc::clone(entries) };
    let fields: Fields = fields
        .iter()
        .enumerate()
        .map(|(i, f)| if i == 0 { Arc::new(Field::new(f.name(), wire_type(f.data_type()), false)) } else { wire_field(f) })
        .collect();
    Arc::new(Field::new(entries.name(), DataType::Struct(fields), false))
}

pub(super) fn wire_schema(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(wire_field).collect::<Fields>()))
}

/// Casts a batch to its wire schema, column by column.
pub(super) fn to_wire(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.num_columns() != schema.fields().len() {
        return Err(Error::internal(format!(
            "the statement promised {} columns and returned {}",
            schema.fields().len(),
            batch.num_columns()
        )));
    }
    let options = CastOptions { safe: false, ..Default::default() };
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(c, f)| {
            if c.data_type() == f.data_type() {
                return Ok(Arc::clone(c));
            }
            cast_with_options(c, f.data_type(), &options).map_err(|e| Error::from(e).context(format!("column {:?}", f.name())))
        })
        .collect::<Result<Vec<_>>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows)?)
}

/// Encodes rows for DoGet. The schema message comes first, also where there are no rows. Dropping
/// the stream drops `rows`, and with it the running query.
pub(super) fn encode<S, E>(rows: S, schema: SchemaRef, sql: Arc<str>) -> FlightStream
where
    S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
    E: Into<DataFusionError> + Send + 'static,
{
    let target = Arc::clone(&schema);
    let batches = AssertUnwindSafe(rows)
        .catch_unwind()
        .map(move |item| match item {
            Ok(Ok(batch)) => to_wire(&batch, &target),
            Ok(Err(e)) => Err(Error::from(e.into())),
            Err(_) => Err(Error::internal("the statement failed in an unforeseen way; the server's log has the details")),
        })
        .map(move |batch| batch.map_err(|e| FlightError::from(status::in_statement(&e, &sql))))
        .map_ok(|batch| futures::stream::iter(split(batch, MESSAGE_TARGET).into_iter().map(Ok)))
        .try_flatten();
    // The encoder would split by the size of the buffers, which slices share.
    let encoder = FlightDataEncoderBuilder::new().with_schema(schema).with_max_flight_data_size(usize::MAX).build(batches);
    Box::pin(encoder.map_err(Status::from))
}

/// Rows that are in memory already: metadata, mostly.
pub(super) fn encode_batch(batch: RecordBatch) -> FlightStream {
    let schema = batch.schema();
    let batches = futures::stream::iter(split(batch, MESSAGE_TARGET).into_iter().map(Ok));
    let encoder = FlightDataEncoderBuilder::new().with_schema(schema).with_max_flight_data_size(usize::MAX).build(batches);
    Box::pin(encoder.map_err(Status::from))
}

/// A schema as an IPC message, as Flight SQL carries it in actions and in GetTables.
pub(super) fn schema_bytes(schema: &Schema) -> Result<Bytes> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into()?;
    Ok(bytes)
}

/// Halves a batch until its parts are below `target` bytes; a single row cannot be split.
fn split(batch: RecordBatch, target: usize) -> Vec<RecordBatch> {
    let mut out = vec![];
    let mut todo = vec![batch];
    while let Some(b) = todo.pop() {
        if b.num_rows() <= 1 || batch_bytes(&b) <= target {
            out.push(b);
            continue;
        }
        let half = b.num_rows() / 2;
        todo.push(b.slice(half, b.num_rows() - half));
        todo.push(b.slice(0, half));
    }
    out
}

pub(super) fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|c| sliced_bytes(c.as_ref())).sum()
}

/// Bytes that an array puts on the wire: of a slice only its part.
fn sliced_bytes(array: &dyn Array) -> usize {
    let nulls = array.len().div_ceil(8);
    let list = |offsets: &[i32], values: &dyn Array| {
        let (start, end) = (offsets.first().copied().unwrap_or(0) as usize, offsets.last().copied().unwrap_or(0) as usize);
        nulls + 4 * (array.len() + 1) + sliced_bytes(values.slice(start, end - start).as_ref())
    };
    match array.data_type() {
        DataType::List(_) => {
            let a = array.as_list::<i32>();
            list(a.value_offsets(), a.values().as_ref())
        }
        DataType::Map(..) => {
            let a = array.as_map();
            list(a.value_offsets(), a.entries())
        }
        DataType::FixedSizeList(..) => nulls + sliced_bytes(array.as_fixed_size_list().values().as_ref()),
        DataType::Struct(_) => nulls + array.as_struct().columns().iter().map(|c| sliced_bytes(c.as_ref())).sum::<usize>(),
        // Children of dense unions are not cut by a slice: count them by their share.
        DataType::Union(..) => nulls + 16 * array.len(),
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
    }
}

#[cfg(test)]
mod tests;
