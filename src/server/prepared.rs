//! Prepared statements. Binding gives a new handle and leaves the old one as it was: some clients go
//! on with the new one, JDBC goes back to the old one.

use std::sync::Arc;

use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, DoPutPreparedStatementResult,
};
use arrow_flight::{FlightDescriptor, FlightInfo};
use bytes::Bytes;
use tonic::{Request, Response, Status};

use super::Shared;
use super::decode::Room;
use super::messages::Messages;
use super::sessions::Caller;
use super::statement::caught;
use super::statements::Statement;
use super::{decode, encode, status};
use crate::session::StatementKind;

/// The answer to CreatePreparedStatement; arrow-flight's type does not know `is_update` yet.
pub(super) struct Created {
    pub result: ActionCreatePreparedStatementResult,
    pub is_update: bool,
}

impl Shared {
    pub(super) async fn create_prepared(&self, caller: Caller, request: ActionCreatePreparedStatementRequest) -> Result<Created, Status> {
        let statement = self.plan(caller, &request.query, request.transaction_id.as_ref()).await?;
        let is_update = statement.kind() == StatementKind::Update;
        // Clients take an empty schema for "no rows will come".
        let dataset_schema = if is_update { Bytes::new() } else { encode::schema_bytes(&statement.schema)? };
        let parameter_schema = encode::schema_bytes(&decode::parameter_schema(&statement.prepared.announced))?;
        let (handle, _) = self.statements.insert(statement);
        let result = ActionCreatePreparedStatementResult { prepared_statement_handle: handle, dataset_schema, parameter_schema };
        Ok(Created { result, is_update })
    }

    pub(super) fn close_prepared(&self, request: &ActionClosePreparedStatementRequest) {
        self.statements.remove(&request.prepared_statement_handle);
    }

    pub(super) async fn flight_info_prepared(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let handle = query.prepared_statement_handle;
        let statement = self.statements.get(&handle)?;
        self.flight_info(statement, Some(handle), request.into_inner()).await
    }

    pub(super) async fn bind(
        &self,
        query: CommandPreparedStatementQuery,
        messages: Messages,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let bound = self.bound(&query.prepared_statement_handle, messages).await?;
        let (handle, _) = self.statements.insert(bound);
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    pub(super) async fn put_prepared_update(&self, command: CommandPreparedStatementUpdate, messages: Messages) -> Result<i64, Status> {
        let handle = command.prepared_statement_handle;
        let statement = match self.statements.get(&handle)? {
            // Nothing more is needed: some clients wait for the answer before they end their stream.
            s if s.prepared.parameters.is_empty() && !messages.brings_columns() => s,
            // Bound by an earlier DoPut: this one only says "run".
            s if s.parameters.is_some() => match self.sent(&s, messages).await? {
                Some(bound) => Arc::new(bound),
                None => s,
            },
            s => Arc::new(self.sent(&s, messages).await?.unwrap_or_else(|| s.with_parameters(None))),
        };
        self.run_for_count(&statement).await
    }

    async fn bound(&self, handle: &[u8], messages: Messages) -> Result<Statement, Status> {
        let statement = self.statements.get(handle)?;
        Ok(self.sent(&statement, messages).await?.unwrap_or_else(|| statement.with_parameters(None)))
    }

    /// The statement with the parameters that the client sends; `None` where it sends none.
    async fn sent(&self, statement: &Statement, messages: Messages) -> Result<Option<Statement>, Status> {
        let room = Room { limit: self.settings().max_parameter_bytes, ..self.room() };
        let Some(rows) = decode::parameters(messages, room).await? else { return Ok(None) };
        if rows.num_columns() == 0 && rows.num_rows() == 0 {
            return Ok(None);
        }
        // what does not fit a column is told by the INSERT, which knows the column
        let anything = vec![None; statement.wanted().len()];
        let told = statement.prepared.tag == "INSERT" && statement.wanted().iter().all(Option::is_some);
        let types = if told { anything.as_slice() } else { statement.wanted() };
        let rows = decode::bind(types, &rows).map_err(|e| status::in_statement(&e, statement.sql()))?;
        caught(statement.bind(rows)).await.map(Some).map_err(|e| status::in_statement(&e, statement.sql()))
    }
}
