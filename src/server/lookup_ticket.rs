//! A lookup in one call: DoGet with a ticket that holds the name and the rows asked for. Its bytes are a promise:
//! any Flight client can make one (`examples/lookup_ticket.py`, [`lookup_ticket`]).

use std::sync::Arc;

use arrow_flight::Ticket;
use arrow_flight::sql::Any;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::record_batch::RecordBatch;
use prost::Message;
use tonic::{Response, Status};

use super::direct::rows;
use super::encode::FlightStream;
use super::sessions::Caller;
use super::statement::{caught, stopping};
use super::{Shared, status};
use crate::error::{Error, Result};
use crate::session::LookupRequest;
use crate::telemetry;

/// Type of the `google.protobuf.Any` that such a ticket is.
pub const ONLINE_LOOKUP: &str = "type.googleapis.com/remige.v1.OnlineLookup";

/// The value of an [`ONLINE_LOOKUP`] ticket.
#[derive(Clone, PartialEq, Message)]
pub struct OnlineLookup {
    /// A feature service or view, as the function ONLINE_LOOKUP takes it: `churn_v1`, `project.churn_v1`, `orders@v2`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// An Arrow IPC stream: one row per row asked for. Columns are taken by name: the key columns by the
    /// callers' names, then the request columns; others are not looked at.
    #[prost(bytes = "bytes", tag = "2")]
    pub rows: bytes::Bytes,
    /// Adds `<item>__status` and `<item>__event_timestamp` per item.
    #[prost(bool, tag = "3")]
    pub status: bool,
    /// Judge rows at this instant (microseconds since 1970, UTC) instead of now.
    #[prost(int64, optional, tag = "4")]
    pub at: Option<i64>,
    /// The schema of an unqualified name; empty: the session's.
    #[prost(string, tag = "5")]
    pub schema: String,
}

/// A ticket for DoGet that answers `SELECT * FROM ONLINE_LOOKUP(name, rows …)` in one round trip.
pub fn lookup_ticket(request: &LookupRequest, rows: &RecordBatch) -> Result<Ticket> {
    let mut ipc = StreamWriter::try_new(Vec::with_capacity(1024), &rows.schema())?;
    ipc.write(rows)?;
    let value = OnlineLookup {
        name: request.name.clone(),
        rows: ipc.into_inner()?.into(),
        status: request.status,
        at: request.at,
        schema: request.schema.clone().unwrap_or_default(),
    };
    let any = Any { type_url: ONLINE_LOOKUP.into(), value: value.encode_to_vec().into() };
    Ok(Ticket { ticket: any.encode_to_vec().into() })
}

impl Shared {
    pub(super) async fn do_get_lookup(&self, ticket: &Any, caller: Caller) -> Result<Response<FlightStream>, Status> {
        let asked = OnlineLookup::decode(&*ticket.value).map_err(|e| Status::invalid_argument(format!("damaged ticket: {e}")))?;
        let request = LookupRequest {
            schema: (!asked.schema.is_empty()).then_some(asked.schema),
            name: asked.name,
            status: asked.status,
            at: asked.at,
        };
        let session = self.sessions.session(&caller)?;
        let _place = self.lookups.enter().await?;
        let batch = rows(&asked.rows, self.settings().max_parameter_bytes)?;
        let looking = caught(async {
            let (schema, batches) = session.lookup(&request, &batch).await?;
            let text: Arc<str> = format!("ONLINE_LOOKUP('{}')", request.name).into();
            self.encoded_answers.encode(&schema, batches, text)
        });
        let done = tokio::select! {
            done = looking => done,
            () = self.stop.cancelled() => Err(stopping()),
        };
        let outcome = if done.is_ok() { "ok" } else { "error" };
        metrics::counter!(telemetry::STATEMENTS, "kind" => "lookup", "outcome" => outcome).increment(1);
        let answer = done.map_err(|e: Error| status::in_statement(&e, &format!("ONLINE_LOOKUP('{}')", request.name)))?;
        Ok(Response::new(answer))
    }
}

#[cfg(test)]
mod tests;
