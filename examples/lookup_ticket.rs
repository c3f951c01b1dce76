//! A lookup in one round trip: DoGet with a ticket that names the service and carries the keys.
//! The Rust twin of `lookup_ticket.py`; copy `lookup_ticket` into your own code.
//!
//! ```sh
//! python examples/lookup_ticket.py grpc://127.0.0.1:8815         # makes the feature view
//! cargo run --example lookup_ticket -- grpc://127.0.0.1:8815
//! ```

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::Ticket;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::Any;
use futures::TryStreamExt;
use prost::Message;
use tonic::Request;
use tonic::transport::Endpoint;

const TYPE: &str = "type.googleapis.com/remige.v1.OnlineLookup";

/// What a ticket of type `OnlineLookup` holds.
#[derive(Clone, PartialEq, Message)]
pub struct OnlineLookup {
    /// Feature view or service, with or without its schema.
    #[prost(string, tag = "1")]
    pub name: String,
    /// An Arrow IPC stream: a column per key and per request column, by name, in any order.
    #[prost(bytes = "vec", tag = "2")]
    pub rows: Vec<u8>,
    /// Whether each view's status and event timestamp are answered too.
    #[prost(bool, tag = "3")]
    pub status: bool,
    /// Judges the age of rows at this instant, µs UTC; `None`: now.
    #[prost(int64, optional, tag = "4")]
    pub at: Option<i64>,
    /// What a name without a schema belongs to; empty: the session's schema.
    #[prost(string, tag = "5")]
    pub schema: String,
}

/// A ticket that answers one row per row of `keys`, in that order: what
/// `SELECT * FROM ONLINE_LOOKUP(name, keys)` answers.
///
/// # Errors
/// Where Arrow cannot write `keys` as an IPC stream.
pub fn lookup_ticket(name: &str, keys: &RecordBatch) -> Result<Ticket, ArrowError> {
    let mut rows = StreamWriter::try_new(vec![], &keys.schema())?;
    rows.write(keys)?;
    let lookup = OnlineLookup { name: name.into(), rows: rows.into_inner()?, ..OnlineLookup::default() };
    let any = Any { type_url: TYPE.into(), value: lookup.encode_to_vec().into() };
    Ok(Ticket::new(any.encode_to_vec()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("usage: lookup_ticket grpc://HOST:PORT")?;
    // One channel serves any number of tasks: clone the client, do not connect anew.
    let endpoint = Endpoint::from_shared(address.replacen("grpc://", "http://", 1))?.tcp_nodelay(true);
    let mut client = FlightServiceClient::new(endpoint.connect_timeout(Duration::from_secs(2)).connect().await?);

    let keys = RecordBatch::try_from_iter([("rider_id", Arc::new(Int64Array::from(vec![2, 1, 7])) as _)])?;
    let mut request = Request::new(lookup_ticket("ticket_rides", &keys)?);
    // The server hears of it; an Endpoint's timeout is the client's alone, and ends when the answer begins.
    request.set_timeout(Duration::from_millis(500));
    let answer = client.do_get(request).await?.into_inner().map_err(|e| FlightError::Tonic(Box::new(e)));
    let found: Vec<RecordBatch> = FlightRecordBatchStream::new_from_flight_data(answer).try_collect().await?;
    println!("{}", pretty_format_batches(&found)?);
    Ok(())
}
