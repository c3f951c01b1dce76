//! Rows that clients send: parameters and bulk ingest.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatchOptions;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, future, stream};

use super::admission::Place;
use super::encode::wire_type;
use super::incoming::{Incoming, Pieces, guarded, unreadable};
use super::messages::Messages;
use crate::clock;
use crate::error::{Error, Result};
use crate::model::exact::exactly;

/// How long a client may take for its next rows before its statement gives its place to others.
const PAUSE: Duration = Duration::from_secs(1);

/// What the rows of a client may take.
pub(super) struct Room {
    /// Bytes of one message of rows, or of all parameters.
    pub limit: usize,
    pub pool: Arc<dyn MemoryPool>,
}

impl Room {
    fn reserve(&self, what: &str) -> MemoryReservation {
        MemoryConsumer::new(what).register(&self.pool)
    }
}

/// The decoded messages; each is looked at first.
fn decoder(messages: Messages, mut incoming: Incoming) -> BoxStream<'static, Result<DecodedPayload>> {
    // Updates without parameters, and some clients' last messages, carry no Arrow data.
    let messages =
        messages.try_filter(|m| future::ready(!m.data_header.is_empty())).map_err(|s| FlightError::Tonic(Box::new(s))).and_then(move |m| {
            let admitted = incoming.admit(&m.data_header, &m.data_body);
            future::ready(admitted.map(|()| m).map_err(|e| FlightError::ExternalError(Box::new(e))))
        });
    AssertUnwindSafe(FlightDataDecoder::new(messages))
        .catch_unwind()
        .map(|message| match message {
            Ok(message) => message.map(|m| m.payload).map_err(client_error),
            Err(_) => Err(unreadable()),
        })
        .boxed()
}

fn client_error(e: FlightError) -> Error {
    match e {
        FlightError::Tonic(s) if s.code() == tonic::Code::OutOfRange || s.code() == tonic::Code::ResourceExhausted => {
            Error::exhausted(s.message().to_string()).with_hint("send smaller record batches")
        }
        FlightError::Tonic(s) if s.code() == tonic::Code::Aborted || s.code() == tonic::Code::DeadlineExceeded => {
            Error::cancelled(s.message().to_string()).with_hint("nothing was stored")
        }
        FlightError::Tonic(s) => Error::invalid(s.message().to_string()),
        FlightError::Arrow(a) => Error::from(a).context("record batch from the client"),
        FlightError::ExternalError(e) => match e.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::invalid(format!("record batch from the client: {other}")),
        },
        other => Error::invalid(format!("record batch from the client: {other}")),
    }
}

/// All rows of a parameter stream; `None` where the client sent no schema.
pub(super) async fn parameters(messages: Messages, room: Room) -> Result<Option<RecordBatch>> {
    let mut decoder = decoder(messages, Incoming::parameters(room.limit));
    let mut flat = Incoming::parameters(room.limit);
    let reserved = room.reserve("parameters");
    let (mut schema, mut batches) = (None, vec![]);
    while let Some(message) = decoder.try_next().await? {
        match message {
            DecodedPayload::Schema(s) => schema = Some(s),
            DecodedPayload::RecordBatch(b) => {
                let bytes = guarded(|| flat.admit_flat(&b))?;
                // as they came, put together, and as the types of the statement
                reserved.try_grow(bytes.saturating_mul(3))?;
                batches.push(b);
            }
            DecodedPayload::None => {}
        }
    }
    match schema {
        Some(schema) => guarded(|| Ok(Some(concat_batches(&schema, &batches)?))),
        None => Ok(None),
    }
}

/// The rows of a bulk ingest, as they come; a message may hold `room.limit` bytes, also where they come compressed.
/// The statement has its place while it has rows.
pub(super) async fn rows(messages: Messages, room: Room, place: Place) -> Result<SendableRecordBatchStream> {
    let mut decoder = decoder(messages, Incoming::rows(room.limit));
    let schema = loop {
        match decoder.try_next().await? {
            Some(DecodedPayload::Schema(s)) => break s,
            Some(DecodedPayload::RecordBatch(_)) => return Err(Error::invalid("bulk ingest: rows came before their schema")),
            Some(DecodedPayload::None) => {}
            None => return Err(Error::invalid("bulk ingest: the client sent no rows and no schema")),
        }
    };
    let rows = Rows { decoder, reserved: room.reserve("rows of a client"), incoming: Incoming::rows(room.limit), pieces: None, place };
    let batches = stream::try_unfold(rows, |mut rows| async move {
        let next = rows.next().await.map_err(DataFusionError::from)?;
        Ok(next.map(|batch| (batch, rows)))
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
}

struct Rows {
    decoder: BoxStream<'static, Result<DecodedPayload>>,
    incoming: Incoming,
    /// What is left of the last message.
    pieces: Option<Pieces>,
    reserved: MemoryReservation,
    place: Place,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(piece) = self.pieces.as_mut().and_then(Pieces::next) {
                return Ok(Some(piece));
            }
            self.pieces = None;
            self.reserved.free();
            match self.message().await? {
                Some(DecodedPayload::RecordBatch(batch)) => {
                    let pieces = guarded(|| Pieces::of(batch, &mut self.incoming))?;
                    self.place.take().await?;
                    self.reserved.try_grow(pieces.bytes())?;
                    self.pieces = Some(pieces);
                }
                Some(DecodedPayload::Schema(_)) => return Err(Error::invalid("bulk ingest: the schema changed midway")),
                Some(DecodedPayload::None) => {}
                // whatever is done with the rows begins, at the latest, now
                None => return self.place.take().await.map(|()| None),
            }
        }
    }

    async fn message(&mut self) -> Result<Option<DecodedPayload>> {
        if !self.place.is_taken() {
            return self.decoder.try_next().await;
        }
        match clock::timeout(PAUSE, self.decoder.try_next()).await {
            Ok(message) => message,
            Err(_) => {
                self.place.give_back();
                self.decoder.try_next().await
            }
        }
    }
}

/// Name of placeholder `i` (from 0) in schemas that clients see.
fn placeholder(i: usize) -> String {
    format!("${}", i + 1)
}

/// What a client must bind: one nullable column per placeholder, text where any type will do. Instants are announced in
/// milliseconds: JDBC 18.3 sends these, whatever the unit is called. What is bound counts by its own unit, so that clients
/// with finer instants lose nothing.
pub(super) fn parameter_schema(types: &[Option<DataType>]) -> Schema {
    let announced = |t: &DataType| match wire_type(t) {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone),
        other => other,
    };
    let field = |(i, t): (usize, &Option<DataType>)| Field::new(placeholder(i), t.as_ref().map_or(DataType::Utf8, announced), true);
    Schema::new(types.iter().enumerate().map(field).collect::<Vec<_>>())
}

/// Puts bound columns into placeholder order and casts them to what the statement expects. Columns
/// are taken by position, unless their names are exactly the placeholders.
pub(super) fn bind(types: &[Option<DataType>], rows: &RecordBatch) -> Result<RecordBatch> {
    if rows.num_columns() != types.len() {
        return Err(Error::invalid(format!(
            "the statement has {} parameter{}, but {} value{} bound",
            types.len(),
            if types.len() == 1 { "" } else { "s" },
            rows.num_columns(),
            if rows.num_columns() == 1 { " is" } else { "s are" },
        ))
        .with_hint("bind one value (or one column of values) per placeholder"));
    }
    let schema = rows.schema();
    let named = (0..types.len()).map(|i| schema.column_with_name(&placeholder(i)).map(|(at, _)| at)).collect::<Option<Vec<_>>>();
    let order = named.unwrap_or_else(|| (0..types.len()).collect());
    let (mut fields, mut columns) = (vec![], vec![]);
    for (i, (at, wanted)) in order.into_iter().zip(types).enumerate() {
        let column = rows.column(at);
        let target = wanted.clone().unwrap_or_else(|| wire_type(column.data_type()));
        // a key must not become another one
        let column = exactly(column, &target)
            .map_err(|e| e.context(format!("parameter {}: cannot use {} as {target}", placeholder(i), column.data_type())))?;
        fields.push(Field::new(placeholder(i), target, true));
        columns.push(column);
    }
    let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new_with_options(schema, columns, &count)?)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{
        Array, ArrayRef, AsArray, DictionaryArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
        TimestampMillisecondArray, TimestampNanosecondArray,
    };
    use datafusion::arrow::datatypes::{Int8Type, Int32Type, TimestampMicrosecondType};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn binds_by_position_and_casts() {
        let given =
            batch(vec![("0", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef), ("1", Arc::new(StringArray::from(vec!["3", "4"])))]);
        let bound = bind(&[Some(DataType::Int32), Some(DataType::Int32)], &given).unwrap();
        assert_eq!(bound.column(0).as_primitive::<Int32Type>().values(), &[1, 2]);
        assert_eq!(bound.column(1).as_primitive::<Int32Type>().values(), &[3, 4]);
    }

    #[test]
    fn placeholder_names_win_over_position() {
        let given = batch(vec![("$2", Arc::new(Int64Array::from(vec![2])) as ArrayRef), ("$1", Arc::new(Int64Array::from(vec![1])))]);
        let bound = bind(&[Some(DataType::Int32), Some(DataType::Int32)], &given).unwrap();
        assert_eq!(bound.column(0).as_primitive::<Int32Type>().value(0), 1);
    }

    #[test]
    fn untyped_parameters_keep_their_type_but_lose_dictionaries() {
        let d: DictionaryArray<Int8Type> = vec!["a", "b"].into_iter().collect();
        let bound = bind(&[None], &batch(vec![("0", Arc::new(d) as ArrayRef)])).unwrap();
        assert_eq!(bound.column(0).data_type(), &DataType::Utf8);
        assert_eq!(parameter_schema(&[None, Some(DataType::Utf8View)]).field(1).data_type(), &DataType::Utf8);
    }

    #[test]
    fn instants_are_announced_in_millis_and_taken_by_their_own_unit() {
        let micros = crate::model::types::timestamp_type();
        let announced = parameter_schema(&[Some(micros.clone())]);
        assert_eq!(announced.field(0).data_type(), &DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())));
        let bound = |column: ArrayRef| {
            let bound = bind(&[Some(micros.clone())], &batch(vec![("0", column)])).unwrap();
            bound.column(0).as_primitive::<TimestampMicrosecondType>().value(0)
        };
        assert_eq!(bound(Arc::new(TimestampMillisecondArray::from(vec![7]).with_timezone("UTC"))), 7_000);
        assert_eq!(bound(Arc::new(TimestampMicrosecondArray::from(vec![7_001]).with_timezone("UTC"))), 7_001);
        assert_eq!(bound(Arc::new(TimestampNanosecondArray::from(vec![7_001_000]))), 7_001);
    }

    #[test]
    fn says_what_does_not_fit() {
        let given = batch(vec![("0", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]);
        let e = bind(&[Some(DataType::Int64)], &given).unwrap_err();
        assert!(e.message().contains("$1") && e.message().contains("Int64"), "{e}");
        let fraction = batch(vec![("0", Arc::new(Float64Array::from(vec![2.0, 1.5])) as ArrayRef)]);
        assert!(bind(&[Some(DataType::Int64)], &fraction).unwrap_err().message().contains("1.5 (Float64) is no BIGINT"));
        assert!(bind(&[Some(DataType::Int64)], &fraction.slice(0, 1)).is_ok());
        let e = bind(&[None, None], &given).unwrap_err();
        assert!(e.message().contains("2 parameters, but 1 value is"), "{e}");
    }
}
