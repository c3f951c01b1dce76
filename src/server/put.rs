//! DoPut: what a client says and sends in one stream. The first message has the command.

use arrow_flight::sql::{Command, DoPutUpdateResult};
use arrow_flight::{FlightData, PutResult};
use futures::{StreamExt, stream};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::flight_sql::{BoxStream, NO_SUBSTRAIT};
use super::messages::Messages;
use super::sessions::Caller;

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
