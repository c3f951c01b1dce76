//! The Flight RPCs around Flight SQL: who calls, deadlines, and what arrow-flight leaves out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{ActionCreatePreparedStatementRequest, Any, ProstMessageExt};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo,
    PutResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Shared;
use super::encode::FlightStream;
use super::flight_sql::{BoxStream, FlightSql};
use super::messages::{any, command};
use super::prepared::Created;
use super::request::Seen;
use super::sessions::Caller;
use crate::clock::{self, stopwatch};

/// How much earlier than the client's deadline a statement ends, at least.
const EARLY: Duration = Duration::from_millis(1);

const CREATE_PREPARED: &str = "CreatePreparedStatement";
const CLOSE_SESSION: &str = "CloseSession";
const ACTIONS: [(&str, &str); 7] = [
    (CREATE_PREPARED, "Plans a statement and names it"),
    ("ClosePreparedStatement", "Forgets a prepared statement"),
    ("CancelQuery", "Stops a running statement"),
    ("CancelFlightInfo", "Stops a running statement"),
    ("SetSessionOptions", "Sets catalog or schema of the session"),
    ("GetSessionOptions", "Answers catalog and schema of the session"),
    (CLOSE_SESSION, "Ends the session"),
];

pub(super) struct Flight {
    shared: Arc<Shared>,
    sql: FlightSql,
}

impl Flight {
    pub fn new(shared: Arc<Shared>) -> Self {
        Flight { sql: FlightSql(Arc::clone(&shared)), shared }
    }

    /// Takes a request in, or refuses it; the caller goes with it.
    fn admit<T>(&self, request: &mut Request<T>) -> Result<Caller, Status> {
        Seen::mark(request);
        if self.shared.draining.load(Ordering::SeqCst) {
            return Err(Status::unavailable("the server is shutting down"));
        }
        let caller = self.shared.sessions.caller(request.metadata())?;
        request.extensions_mut().insert(caller.clone());
        Ok(caller)
    }

    async fn create_prepared(&self, body: &Bytes, caller: Caller) -> Result<Bytes, Status> {
        let any = any(body)?;
        let request: ActionCreatePreparedStatementRequest = any
            .unpack()
            .map_err(|e| Status::invalid_argument(e.to_string()))?
            .ok_or_else(|| Status::invalid_argument(format!("expected ActionCreatePreparedStatementRequest, found {:?}", any.type_url)))?;
        let created = self.shared.create_prepared(caller, request).await?;
        Ok(with_is_update(&created).encode_to_vec().into())
    }
}

/// Adds field 4, `is_update`, which arrow-flight's type does not have.
fn with_is_update(created: &Created) -> Any {
    let mut any = created.result.as_any();
    let mut value = any.value.to_vec();
    value.extend([4 << 3, u8::from(created.is_update)]);
    any.value = value.into();
    any
}

/// The time that the client grants (`grpc-timeout`); tonic applies it only until a stream begins. A century is what some
/// clients send for "none", and more than a timer takes.
fn deadline(headers: &MetadataMap) -> Option<Duration> {
    given(headers).filter(|limit| *limit < Duration::from_secs(86_400 * 365))
}

fn given(headers: &MetadataMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(n.saturating_mul(60))),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

/// What the client's time suffices for.
fn until(rows: FlightStream, left: Duration) -> FlightStream {
    let over = Box::pin(clock::sleep(left));
    Box::pin(stream::unfold((rows, over, false), |(mut rows, mut over, done)| async move {
        if done {
            return None;
        }
        tokio::select! {
            biased;
            () = &mut over => Some((Err(late()), (rows, over, true))),
            next = rows.next() => next.map(|item| (item, (rows, over, false))),
        }
    }))
}

fn late() -> Status {
    Status::deadline_exceeded("the statement did not end within the client's time limit")
}

#[tonic::async_trait]
impl FlightService for Flight {
    type HandshakeStream = BoxStream<HandshakeResponse>;
    type ListFlightsStream = BoxStream<FlightInfo>;
    type DoGetStream = FlightStream;
    type DoPutStream = BoxStream<PutResult>;
    type DoActionStream = BoxStream<arrow_flight::Result>;
    type ListActionsStream = BoxStream<ActionType>;
    type DoExchangeStream = BoxStream<FlightData>;

    async fn handshake(&self, mut request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        self.admit(&mut request)?;
        self.sql.handshake(request).await
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(Status::unimplemented("there is no list of flights: use GetTables"))
    }

    async fn get_flight_info(&self, mut request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let caller = self.admit(&mut request)?;
        command(&request.get_ref().cmd)?;
        let mut response = self.sql.get_flight_info(request).await?;
        self.shared.sessions.offer(&caller, &mut response);
        Ok(response)
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        // No descriptor in the answer: it is complete.
        Ok(self.get_flight_info(request).await?.map(|info| PollInfo { info: Some(info), progress: Some(1.0), ..PollInfo::default() }))
    }

    async fn get_schema(&self, mut request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let caller = self.admit(&mut request)?;
        let schema = self.sql.schema(command(&request.get_ref().cmd)?, caller.clone()).await?;
        let mut response = Response::new(schema);
        self.shared.sessions.offer(&caller, &mut response);
        Ok(response)
    }

    async fn do_get(&self, mut request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        self.admit(&mut request)?;
        command(&request.get_ref().ticket)?;
        let Some(limit) = deadline(request.metadata()) else { return self.sql.do_get(request).await };
        let begun = stopwatch();
        // tonic would say CANCELLED when the time is over: be a little earlier
        let answer = clock::timeout(limit.saturating_sub((limit / 50).clamp(EARLY, EARLY * 50)), self.sql.do_get(request)).await;
        let answer = answer.map_err(|_| late())??;
        Ok(answer.map(|rows| until(rows, limit.saturating_sub(begun.elapsed()))))
    }

    async fn do_put(&self, mut request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        self.admit(&mut request)?;
        self.shared.put(request).await
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("DoExchange is not supported"))
    }

    async fn do_action(&self, mut request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let caller = match self.admit(&mut request) {
            // What has ended is closed: clients close as they leave, some twice.
            Err(e) if e.code() == Code::Unauthenticated && request.get_ref().r#type == CLOSE_SESSION => Caller::default(),
            admitted => admitted?,
        };
        let action = request.get_ref();
        let body = match action.r#type.as_str() {
            CREATE_PREPARED => self.create_prepared(&action.body, caller.clone()).await?,
            "SetSessionOptions" => self.shared.set_session_options(&action.body, &caller).await?,
            "GetSessionOptions" => self.shared.get_session_options(&caller)?,
            CLOSE_SESSION => self.shared.close_session(&caller),
            "CancelFlightInfo" => self.shared.cancel_flight_info(&action.body)?,
            _ => return self.sql.do_action(request).await,
        };
        let output: Self::DoActionStream = stream::iter([Ok(arrow_flight::Result { body })]).boxed();
        let mut response = Response::new(output);
        self.shared.sessions.offer(&caller, &mut response);
        Ok(response)
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = ACTIONS.map(|(name, what)| Ok(ActionType { r#type: name.into(), description: what.into() }));
        Ok(Response::new(stream::iter(actions).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::ActionCreatePreparedStatementResult;

    use super::*;

    #[test]
    fn is_update_is_field_four_and_older_clients_still_read_the_rest() {
        #[derive(Clone, PartialEq, Message)]
        struct Newer {
            #[prost(bytes = "bytes", tag = "1")]
            handle: Bytes,
            #[prost(bool, optional, tag = "4")]
            is_update: Option<bool>,
        }
        for is_update in [true, false] {
            let result = ActionCreatePreparedStatementResult { prepared_statement_handle: "h".into(), ..Default::default() };
            let any = with_is_update(&Created { result, is_update });
            assert_eq!(Newer::decode(&*any.value).unwrap(), Newer { handle: "h".into(), is_update: Some(is_update) });
            assert_eq!(any.unpack::<ActionCreatePreparedStatementResult>().unwrap().unwrap().prepared_statement_handle, "h");
        }
    }

    #[test]
    fn reads_the_clients_deadline() {
        for (text, want) in [
            ("10S", Some(Duration::from_secs(10))),
            ("250m", Some(Duration::from_millis(250))),
            ("1H", Some(Duration::from_secs(3600))),
            ("x", None),
            ("S", None),
        ] {
            let mut headers = MetadataMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(deadline(&headers), want, "{text}");
        }
        assert_eq!(deadline(&MetadataMap::new()), None);
    }

    #[tokio::test]
    async fn a_stream_ends_at_its_deadline() {
        let endless: FlightStream = stream::pending().boxed();
        let mut rows = until(endless, Duration::from_millis(5));
        assert_eq!(rows.next().await.unwrap().unwrap_err().code(), tonic::Code::DeadlineExceeded);
        assert!(rows.next().await.is_none());
    }
}
