//! CancelQuery and CancelFlightInfo: the statement is found by the handle in the ticket.

use arrow_flight::sql::{ActionCancelQueryRequest, ActionCancelQueryResult, Any, Command, TicketStatementQuery};
use arrow_flight::{CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::Shared;

impl Shared {
    pub(super) fn cancel_query(&self, request: &ActionCancelQueryRequest) -> Result<ActionCancelQueryResult, Status> {
        let info = FlightInfo::decode(&*request.info).map_err(unreadable)?;
        // Both enums number their values alike.
        Ok(ActionCancelQueryResult { result: self.cancel(&info)? as i32 })
    }

    pub(super) fn cancel_flight_info(&self, body: &[u8]) -> Result<Bytes, Status> {
        let request = CancelFlightInfoRequest::decode(body).map_err(unreadable)?;
        let info = request.info.ok_or_else(|| Status::invalid_argument("CancelFlightInfo: no FlightInfo given"))?;
        Ok(CancelFlightInfoResult::new(self.cancel(&info)?).encode_to_vec().into())
    }

    fn cancel(&self, info: &FlightInfo) -> Result<CancelStatus, Status> {
        let mut stopped = CancelStatus::NotCancellable;
        for ticket in info.endpoint.iter().filter_map(|e| e.ticket.as_ref()) {
            let any = Any::decode(&*ticket.ticket).map_err(unreadable)?;
            if let Ok(Command::TicketStatementQuery(TicketStatementQuery { statement_handle })) = Command::try_from(any)
                && self.statements.get(&statement_handle)?.cancel()
            {
                stopped = CancelStatus::Cancelled;
            }
        }
        Ok(stopped)
    }
}

fn unreadable(e: prost::DecodeError) -> Status {
    Status::invalid_argument(format!("the FlightInfo to cancel cannot be read: {e}"))
}
