//! Running statements. A query runs when its ticket is redeemed, as often as that happens; whatever
//! changes something runs exactly once, inside GetFlightInfo or DoPut.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow_flight::sql::{Any, CommandStatementQuery, CommandStatementUpdate, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use bytes::Bytes;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::{Request, Response, Status};

use super::admission::Place;
use super::encode::{FlightStream, encode};
use super::reader::Watched;
use super::request::duration;
use super::sessions::{Caller, no_session};
use super::statements::{RunGuard, Statement};
use super::{Shared, status};
use crate::clock;
use crate::error::{Error, Result};
use crate::session::{Notice, Outcome, StatementKind};
use crate::telemetry;

/// Results of commands up to this size travel inside their ticket, larger ones stay in the server.
const MAX_TICKET: usize = 1 << 20;
const RESULT_TICKET: &str = "type.googleapis.com/remige.v1.CommandResult";

/// Rows of a command that has run, as messages ready to be sent.
#[derive(Clone, PartialEq, prost::Message)]
struct CommandResult {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<FlightData>,
}

impl Shared {
    /// Plans a statement for a caller; runs nothing.
    pub(super) async fn plan(&self, caller: Caller, sql: &str, transaction: Option<&Bytes>) -> Result<Statement, Status> {
        no_transaction(transaction)?;
        let limit = self.settings().max_statement_bytes;
        if sql.len() > limit {
            return Err(Error::exhausted(format!("the statement has {} bytes, the limit is {limit}", sql.len()))
                .with_hint("bind values as parameters, or raise server.max_statement_bytes")
                .into());
        }
        let session = self.sessions.session(&caller)?;
        let prepared = caught(session.prepare(sql)).await.map_err(|e| status::in_statement(&e, sql))?;
        if prepared.changes_session && caller.id.is_none() {
            let what = sql.split_whitespace().next().unwrap_or("this statement").to_uppercase();
            self.sessions.mark_changed(&caller, &what)?;
        }
        if prepared.tag == "SHOW WARNINGS" && caller.id.is_none() {
            // the statement before it had a session of its own, which is forgotten
            return Err(no_session(prepared.tag).into());
        }
        Ok(Statement::new(caller, session, prepared))
    }

    pub(super) async fn flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = self.plan(Caller::of(&request), &query.query, query.transaction_id.as_ref()).await?;
        self.flight_info(Arc::new(statement), None, request.into_inner()).await
    }

    /// Answers GetFlightInfo for a planned statement. `handle` names it where the client has one.
    pub(super) async fn flight_info(
        &self,
        statement: Arc<Statement>,
        handle: Option<Bytes>,
        descriptor: FlightDescriptor,
    ) -> Result<Response<FlightInfo>, Status> {
        statement.check_bound().map_err(|e| status::in_statement(&e, statement.sql()))?;
        let info = FlightInfo::new().with_descriptor(descriptor);
        let info = match statement.kind() {
            StatementKind::Query => {
                let handle = handle.unwrap_or_else(|| self.statements.insert(statement.with_parameters(None)).0);
                let ticket = TicketStatementQuery { statement_handle: handle }.as_any();
                describe(info, &statement.schema)?.with_endpoint(endpoint(&ticket)).with_total_records(-1)
            }
            StatementKind::Update => {
                let rows = self.run_update(&statement).await?;
                describe(info, &Schema::empty())?.with_total_records(rows)
            }
            StatementKind::Command => {
                let rows = self.run_command(&statement).await?;
                let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
                let ticket = self.result_ticket(&statement, rows).await?;
                describe(info, &statement.schema)?.with_endpoint(endpoint(&ticket)).with_total_records(count as i64)
            }
        };
        let info = match statement.kind() {
            StatementKind::Query => info,
            _ => info.with_app_metadata(notices(&statement.session.notices())),
        };
        Ok(Response::new(info))
    }

    async fn result_ticket(&self, statement: &Arc<Statement>, rows: Vec<RecordBatch>) -> Result<Any, Status> {
        let rows = stream::iter(rows.into_iter().map(Ok::<_, Error>));
        let messages: Vec<FlightData> = encode(rows, Arc::clone(&statement.schema), statement.sql().into()).try_collect().await?;
        let result = CommandResult { messages };
        if result.encoded_len() <= MAX_TICKET {
            return Ok(Any { type_url: RESULT_TICKET.into(), value: result.encode_to_vec().into() });
        }
        let (handle, _) = self.statements.insert(statement.with_result(result.messages));
        Ok(TicketStatementQuery { statement_handle: handle }.as_any())
    }

    /// Redeems the ticket that carries a command's result.
    pub(super) fn do_get_result(&self, ticket: &Any) -> Result<Response<FlightStream>, Status> {
        if ticket.type_url != RESULT_TICKET {
            return Err(Status::invalid_argument(format!("DoGet does not know tickets of type {:?}", ticket.type_url)));
        }
        let result = CommandResult::decode(&*ticket.value).map_err(|e| Status::invalid_argument(format!("damaged ticket: {e}")))?;
        Ok(messages(result.messages))
    }

    pub(super) async fn do_get_handle(&self, handle: &[u8]) -> Result<Response<FlightStream>, Status> {
        let statement = self.statements.get(handle)?;
        if let Some(result) = &statement.result {
            return Ok(messages(result.clone()));
        }
        self.fetch(&statement).await
    }

    /// Runs a query for DoGet.
    pub(super) async fn fetch(&self, statement: &Arc<Statement>) -> Result<Response<FlightStream>, Status> {
        if statement.kind() != StatementKind::Query {
            return Err(Status::invalid_argument("fetching runs nothing: call GetFlightInfo, which runs the statement once"));
        }
        statement.check_bound().map_err(|e| status::in_statement(&e, statement.sql()))?;
        let rows = self.run_query(statement).await?;
        Ok(Response::new(encode(rows, Arc::clone(&statement.schema), statement.sql().into())))
    }

    /// All of it is in the first message: some clients wait for the answer before they end their stream.
    pub(super) async fn put_statement_update(&self, command: CommandStatementUpdate, caller: Caller) -> Result<i64, Status> {
        let statement = self.plan(caller, &command.query, command.transaction_id.as_ref()).await?;
        self.run_for_count(&Arc::new(statement)).await
    }

    /// Runs a statement of any kind and answers the rows it affected, -1 where that has no meaning.
    pub(super) async fn run_for_count(&self, statement: &Arc<Statement>) -> Result<i64, Status> {
        statement.check_bound().map_err(|e| status::in_statement(&e, statement.sql()))?;
        match statement.kind() {
            StatementKind::Update => self.run_update(statement).await,
            StatementKind::Command => Ok(rows_written(&self.run_command(statement).await?)),
            StatementKind::Query => {
                let mut rows = self.run_query(statement).await?;
                while rows.try_next().await.map_err(|e| status::in_statement(&Error::from(e), statement.sql()))?.is_some() {}
                Ok(-1)
            }
        }
    }

    async fn run_update(&self, statement: &Arc<Statement>) -> Result<i64, Status> {
        if statement.prepared.changes_session {
            self.sessions.mark_changed(&statement.caller, "this statement")?;
        }
        if statement.parameters.as_ref().is_some_and(|p| p.num_rows() == 0) && !statement.prepared.parameters.is_empty() {
            return Ok(0);
        }
        let mut run = self.begin(statement).await?;
        let outcome = self.outcome(statement, &run).await;
        run.finish(outcome.is_ok());
        match outcome? {
            Outcome::Updated(n) => Ok(i64::try_from(n).unwrap_or(i64::MAX)),
            Outcome::Rows(_) => Err(Status::internal("an update returned rows")),
        }
    }

    async fn run_command(&self, statement: &Arc<Statement>) -> Result<Vec<RecordBatch>, Status> {
        let mut run = self.begin(statement).await?;
        let done = async {
            match self.outcome(statement, &run).await? {
                Outcome::Updated(_) => Err(Status::internal("a command returned no rows")),
                Outcome::Rows(rows) => {
                    let rows = self.interruptible(&run, rows.try_collect::<Vec<_>>().map(|r| r.map_err(Error::from)));
                    rows.await.map_err(|e| status::in_statement(&e, statement.sql()))
                }
            }
        };
        let rows = done.await;
        run.finish(rows.is_ok());
        rows
    }

    /// Starts a query; it ends when its stream is dropped, cancelled, or read to the end.
    async fn run_query(
        &self,
        statement: &Arc<Statement>,
    ) -> Result<stream::BoxStream<'static, datafusion::common::Result<RecordBatch>>, Status> {
        let mut run = self.begin(statement).await?;
        let rows: SendableRecordBatchStream = match self.outcome(statement, &run).await {
            Ok(Outcome::Rows(rows)) => rows,
            Ok(Outcome::Updated(_)) => return Err(Status::internal("a query returned no rows")),
            Err(e) => {
                run.finish(false);
                return Err(e);
            }
        };
        let (cancelled, stopped) = (run.guard.stop.clone().cancelled_owned(), self.stop.clone().cancelled_owned());
        let stop = async move {
            tokio::select! { () = cancelled => Error::cancelled("the statement was cancelled"), () = stopped => stopping() }
        };
        let place = run.place.clone();
        let rows = futures::stream::unfold((rows, Box::pin(stop), run, false), |(mut rows, mut stop, mut run, over)| async move {
            if over {
                return None;
            }
            let next = tokio::select! {
                biased;
                why = &mut stop => Some(Err(why.into())),
                next = rows.next() => next,
            };
            let Some(next) = next else {
                run.finish(true);
                return None;
            };
            let failed = next.is_err();
            if failed {
                run.finish(false);
            }
            Some((next, (rows, stop, run, failed)))
        });
        Ok(Watched::new(rows.boxed(), place, duration(self.settings().reader_timeout)).boxed())
    }

    async fn begin(&self, statement: &Arc<Statement>) -> Result<Run, Status> {
        let gate = if statement.prepared.looks_up { &self.lookups } else { &self.admission };
        let place = Place::of(gate);
        place.take().await?;
        Ok(Run {
            guard: statement.start(),
            place,
            kind: statement.kind(),
            lookup: statement.prepared.looks_up,
            since: clock::stopwatch(),
            ended: false,
        })
    }

    async fn outcome(&self, statement: &Arc<Statement>, run: &Run) -> Result<Outcome, Status> {
        let parameters = if statement.prepared.parameters.is_empty() { None } else { statement.parameters.clone() };
        let running = caught(statement.session.run(&statement.prepared, parameters));
        self.interruptible(run, running).await.map_err(|e| status::in_statement(&e, statement.sql()))
    }

    async fn interruptible<T>(&self, run: &Run, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = run.guard.stop.cancelled() => Err(Error::cancelled("the statement was cancelled")),
            () = self.stop.cancelled() => Err(stopping()),
        }
    }
}

/// One statement while it runs; measured when it ends, also by being dropped.
struct Run {
    guard: RunGuard,
    place: Place,
    kind: StatementKind,
    /// Lookups are many and small: they are no lines of the log.
    lookup: bool,
    since: std::time::Instant,
    ended: bool,
}

impl Run {
    fn finish(&mut self, ok: bool) {
        self.record(if ok { "ok" } else { "error" });
    }

    fn record(&mut self, outcome: &'static str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let kind = match self.kind {
            StatementKind::Query if self.lookup => "lookup",
            StatementKind::Query => "query",
            StatementKind::Command => "command",
            StatementKind::Update => "update",
        };
        let seconds = self.since.elapsed().as_secs_f64();
        metrics::counter!(telemetry::STATEMENTS, "kind" => kind, "outcome" => outcome).increment(1);
        metrics::histogram!(telemetry::STATEMENT_SECONDS, "kind" => kind).record(seconds);
        match self.lookup {
            true => tracing::debug!(kind, outcome, seconds, "statement"),
            false => tracing::info!(kind, outcome, seconds, "statement"),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.record("dropped");
        self.place.give_back();
    }
}

/// A panic below costs one statement, not the connection and everybody else on it.
pub(super) async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done,
        Err(_) => Err(Error::internal("the statement failed in an unforeseen way; the server's log has the details")),
    }
}

pub(super) fn stopping() -> Error {
    Error::unavailable("the server is shutting down")
}

pub(super) fn no_transaction(id: Option<&Bytes>) -> Result<()> {
    match id {
        Some(id) if !id.is_empty() => {
            Err(Error::invalid("transactions are not supported: every statement commits by itself").with_hint("connect with autocommit"))
        }
        _ => Ok(()),
    }
}

fn messages(messages: Vec<FlightData>) -> Response<FlightStream> {
    Response::new(Box::pin(stream::iter(messages.into_iter().map(Ok))))
}

fn endpoint(ticket: &Any) -> FlightEndpoint {
    FlightEndpoint::new().with_ticket(Ticket::new(ticket.encode_to_vec()))
}

fn describe(info: FlightInfo, schema: &Schema) -> Result<FlightInfo> {
    Ok(info.try_with_schema(schema)?)
}

/// What the rows of a command say in `rows_written`; -1 where they have no such column.
fn rows_written(rows: &[RecordBatch]) -> i64 {
    let sum = |b: &RecordBatch| {
        let column = cast(b.column_by_name("rows_written")?, &DataType::Int64).ok()?;
        Some(column.as_primitive::<Int64Type>().iter().flatten().sum::<i64>())
    };
    rows.iter().map(sum).sum::<Option<i64>>().unwrap_or(-1)
}

/// Notices as JSON, for clients that look at `app_metadata` (our own shell does).
fn notices(notices: &[Notice]) -> Bytes {
    if notices.is_empty() {
        return Bytes::new();
    }
    let list: Vec<_> = notices.iter().map(|n| serde_json::json!({ "level": n.level, "message": n.message })).collect();
    serde_json::Value::from(list).to_string().into()
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int64Array, UInt64Array};

    use super::*;

    #[test]
    fn rows_written_adds_up() {
        let a = RecordBatch::try_from_iter([("rows_written", Arc::new(UInt64Array::from(vec![Some(3), None])) as _)]).unwrap();
        let b = RecordBatch::try_from_iter([("rows_written", Arc::new(Int64Array::from(vec![4])) as _)]).unwrap();
        assert_eq!(rows_written(&[a, b]), 7);
        let other = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![4])) as _)]).unwrap();
        assert_eq!(rows_written(&[other]), -1);
    }

    #[test]
    fn transactions_are_refused() {
        assert!(no_transaction(Some(&Bytes::from_static(b"t"))).is_err());
        assert!(no_transaction(Some(&Bytes::new())).is_ok() && no_transaction(None).is_ok());
    }
}
