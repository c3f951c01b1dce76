//! What clients send: commands, and the messages of a DoPut.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_flight::FlightData;
use arrow_flight::sql::{Any, Command};
use futures::{Stream, StreamExt};
use prost::Message;
use tonic::{Code, Status, Streaming};

pub(super) fn any(bytes: &[u8]) -> Result<Any, Status> {
    Any::decode(bytes).map_err(|e| Status::invalid_argument(format!("not a Flight SQL command: {e}")))
}

pub(super) fn command(bytes: &[u8]) -> Result<Command, Status> {
    Command::try_from(any(bytes)?).map_err(|e| Status::invalid_argument(format!("not a Flight SQL command: {e}")))
}

/// The messages of a DoPut, up to the first error; its end is the client's own.
pub(super) struct Messages {
    first: Option<FlightData>,
    rest: Streaming<FlightData>,
    over: bool,
}

impl Messages {
    /// Reads as far as the command.
    pub async fn begin(rest: Streaming<FlightData>) -> Result<(Command, Self), Status> {
        let mut messages = Messages { first: None, rest, over: false };
        let Some(first) = messages.next().await.transpose()? else {
            return Err(Status::invalid_argument("DoPut: the client sent no message"));
        };
        let Some(descriptor) = &first.flight_descriptor else {
            return Err(Status::invalid_argument("DoPut: the first message has no command"));
        };
        let command = command(&descriptor.cmd)?;
        messages.first = Some(first);
        Ok((command, messages))
    }

    /// Whether the first message brings columns: parameters are to come.
    pub fn brings_columns(&self) -> bool {
        let Some(first) = self.first.as_ref().filter(|f| !f.data_header.is_empty()) else { return false };
        datafusion::arrow::ipc::root_as_message(&first.data_header)
            .ok()
            .and_then(|m| m.header_as_schema())
            .is_none_or(|schema| schema.fields().is_some_and(|f| !f.is_empty()))
    }
}

/// tonic has INTERNAL for what it cannot read.
pub(super) fn readable(status: Status) -> Status {
    match status.code() {
        Code::Internal | Code::Unknown => Status::invalid_argument(format!("a message cannot be read: {}", status.message())),
        _ => status,
    }
}

impl Stream for Messages {
    type Item = Result<FlightData, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if this.over {
            return Poll::Ready(None);
        }
        let next = this.rest.poll_next_unpin(cx).map(|next| next.map(|message| message.map_err(readable)));
        this.over = matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }
}
