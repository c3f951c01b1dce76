//! A query in one call: DoGet with a ticket that holds the SQL and its parameters. Any Flight client
//! can make one, so that it may only read.

use std::sync::Arc;

use arrow_flight::sql::Any;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::record_batch::RecordBatch;
use prost::Message;
use tonic::{Response, Status};

use super::encode::FlightStream;
use super::incoming::{Incoming, admit_stream, guarded};
use super::sessions::Caller;
use super::statement::caught;
use super::{Shared, decode, status};
use crate::error::{Error, Result};
use crate::session::StatementKind;

/// Type of the `google.protobuf.Any` that such a ticket is.
pub const DIRECT_QUERY: &str = "type.googleapis.com/remige.v1.DirectQuery";

/// The value of a [`DIRECT_QUERY`] ticket.
#[derive(Clone, PartialEq, Message)]
pub struct DirectQuery {
    #[prost(string, tag = "1")]
    pub sql: String,
    /// An Arrow IPC stream: one column per placeholder, one row per run. Empty: no parameters.
    #[prost(bytes = "vec", tag = "2")]
    pub parameters: Vec<u8>,
}

impl Shared {
    pub(super) async fn do_get_direct(&self, ticket: &Any, caller: Caller) -> Result<Response<FlightStream>, Status> {
        let query = DirectQuery::decode(&*ticket.value).map_err(|e| Status::invalid_argument(format!("damaged ticket: {e}")))?;
        let mut statement = self.plan(caller, &query.sql, None).await?;
        if statement.kind() != StatementKind::Query {
            return Err(Error::invalid("a ticket may only read").with_hint("send this statement with GetFlightInfo or DoPut").into());
        }
        if !query.parameters.is_empty() {
            let rows = rows(&query.parameters, self.settings().max_parameter_bytes)?;
            let bound = decode::bind(statement.wanted(), &rows).map_err(|e| status::in_statement(&e, &query.sql))?;
            statement = caught(statement.bind(bound)).await.map_err(|e| status::in_statement(&e, &query.sql))?;
        }
        self.fetch(&Arc::new(statement)).await
    }
}

pub(super) fn rows(ipc: &[u8], limit: usize) -> Result<RecordBatch> {
    if ipc.len() > limit {
        return Err(Error::exhausted(format!("the parameters have {} bytes, the limit is {limit}", ipc.len())));
    }
    if ipc.is_empty() {
        return Err(
            Error::invalid("the ticket holds no rows").with_hint("put an Arrow IPC stream into it, with one column per value wanted")
        );
    }
    let mut incoming = Incoming::parameters(limit);
    admit_stream(ipc, &mut incoming)?;
    guarded(|| {
        let unread = |e: ArrowError| Error::invalid(format!("the ticket's parameters cannot be read: {e}"));
        let reader = StreamReader::try_new(ipc, None).map_err(unread)?;
        let schema = reader.schema();
        let mut batches = vec![];
        for batch in reader {
            let batch = batch.map_err(unread)?;
            incoming.admit_flat(&batch)?;
            batches.push(batch);
        }
        Ok(concat_batches(&schema, &batches)?)
    })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{AsArray, Int64Array};
    use datafusion::arrow::datatypes::Int64Type;
    use datafusion::arrow::ipc::writer::StreamWriter;

    use super::*;

    #[test]
    fn parameters_are_an_ipc_stream() {
        let batch = RecordBatch::try_from_iter([("0", Arc::new(Int64Array::from(vec![1, 2])) as _)]).unwrap();
        let mut writer = StreamWriter::try_new(vec![], &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        let bytes = writer.into_inner().unwrap();
        let read = rows(&bytes, 10_000).unwrap();
        assert_eq!(read.column(0).as_primitive::<Int64Type>().values(), &[1, 2, 1, 2]);
        assert!(rows(&bytes, 10).is_err());
        for cut in [1, 8, 40, bytes.len() / 2] {
            let damaged: Vec<u8> = bytes[..cut].iter().map(|b| b.wrapping_add(1)).collect();
            assert!(rows(&damaged, 10_000).is_err(), "{cut}");
        }
    }
}
