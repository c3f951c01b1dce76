//! DoPut: what a client says and sends in one stream. The first message has the command.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_flight::sql::{Command, DoPutUpdateResult};
use arrow_flight::{FlightData, PutResult};
use futures::{Stream, StreamExt, stream};
use prost::Message;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Shared;
use super::flight::command;
use super::flight_sql::{BoxStream, NO_SUBSTRAIT};
use super::sessions::Caller;

/// The messages of a DoPut, up to the first error; its end is the client's own.
pub(super) struct Messages {
    first: Option<FlightData>,
    rest: Streaming<FlightData>,
    over: bool,
}

impl Messages {
    /// Reads as far as the command.
    async fn begin(rest: Streaming<FlightData>) -> Result<(Command, Self), Status> {
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

impl Shared {
    pub(super) async fn put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<BoxStream<PutResult>>, Status> {
        let caller = Caller::of(&request);
        let (command, messages) = Messages::begin(request.into_inner()).await?;
        let answer = match command {
            Command::CommandStatementUpdate(c) => count(self.put_statement_update(c, caller).await?),
            Command::CommandStatementIngest(c) => count(self.ingest(c, caller, messages).await?),
            Command::CommandPreparedStatementUpdate(c) => count(self.put_prepared_update(c, messages).await?),
            Command::CommandPreparedStatementQuery(c) => self.bind(c, messages).await?.encode_to_vec(),
            Command::CommandStatementSubstraitPlan(_) => return Err(Status::unimplemented(NO_SUBSTRAIT)),
            other => return Err(Status::unimplemented(format!("DoPut does not know {:?}", other.type_url()))),
        };
        Ok(Response::new(stream::iter([Ok(PutResult { app_metadata: answer.into() })]).boxed()))
    }
}

fn count(record_count: i64) -> Vec<u8> {
    DoPutUpdateResult { record_count }.encode_to_vec()
}
