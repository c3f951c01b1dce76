//! The table of Flight SQL commands but those of DoPut (`put`): one line each, the work is in the modules.

use std::sync::Arc;

use arrow_flight::sql::metadata::SqlInfoDataBuilder;
use arrow_flight::sql::server::FlightSqlService;
use arrow_flight::sql::*;
use arrow_flight::{Action, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, SchemaResult, Ticket};
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::direct::DIRECT_QUERY;
use super::encode::{self, FlightStream};
use super::lookup_ticket::ONLINE_LOOKUP;
use super::sessions::Caller;
use super::{Shared, metadata};

pub(super) type BoxStream<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;
type Info = Result<Response<FlightInfo>, Status>;
type Rows = Result<Response<FlightStream>, Status>;

pub(super) struct FlightSql(pub Arc<Shared>);

const NO_TRANSACTIONS: &str = "transactions are not supported: every statement commits by itself";
pub(super) const NO_SUBSTRAIT: &str = "Substrait plans are not supported: send SQL";

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = FlightSql;

    async fn do_handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<BoxStream<HandshakeResponse>>, Status> {
        self.0.handshake(request).await
    }

    // Statements

    async fn get_flight_info_statement(&self, query: CommandStatementQuery, request: Request<FlightDescriptor>) -> Info {
        self.0.flight_info_statement(query, request).await
    }
    async fn do_get_statement(&self, ticket: TicketStatementQuery, _: Request<Ticket>) -> Rows {
        self.0.do_get_handle(&ticket.statement_handle).await
    }
    async fn do_get_fallback(&self, request: Request<Ticket>, ticket: Any) -> Rows {
        match ticket.type_url.as_str() {
            ONLINE_LOOKUP => self.0.do_get_lookup(&ticket, Caller::of(&request)).await,
            DIRECT_QUERY => self.0.do_get_direct(&ticket, Caller::of(&request)).await,
            _ => self.0.do_get_result(&ticket),
        }
    }

    // Prepared statements

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        Ok(self.0.create_prepared(Caller::of(&request), query).await?.result)
    }
    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        self.0.close_prepared(&query);
        Ok(())
    }
    async fn get_flight_info_prepared_statement(&self, query: CommandPreparedStatementQuery, request: Request<FlightDescriptor>) -> Info {
        self.0.flight_info_prepared(query, request).await
    }
    async fn do_get_prepared_statement(&self, query: CommandPreparedStatementQuery, _: Request<Ticket>) -> Rows {
        self.0.do_get_handle(&query.prepared_statement_handle).await
    }

    // Metadata

    async fn get_flight_info_catalogs(&self, c: CommandGetCatalogs, r: Request<FlightDescriptor>) -> Info {
        metadata::flight_info(&c, &metadata::catalogs_schema(), r)
    }
    async fn do_get_catalogs(&self, _: CommandGetCatalogs, _: Request<Ticket>) -> Rows {
        self.0.catalogs()
    }
    async fn get_flight_info_schemas(&self, c: CommandGetDbSchemas, r: Request<FlightDescriptor>) -> Info {
        metadata::flight_info(&c, &c.clone().into_builder().schema(), r)
    }
    async fn do_get_schemas(&self, c: CommandGetDbSchemas, r: Request<Ticket>) -> Rows {
        self.0.schemas(c, &Caller::of(&r)).await
    }
    async fn get_flight_info_tables(&self, c: CommandGetTables, r: Request<FlightDescriptor>) -> Info {
        metadata::flight_info(&c, &c.clone().into_builder().schema(), r)
    }
    async fn do_get_tables(&self, c: CommandGetTables, r: Request<Ticket>) -> Rows {
        self.0.tables(c, &Caller::of(&r)).await
    }
    async fn get_flight_info_table_types(&self, c: CommandGetTableTypes, r: Request<FlightDescriptor>) -> Info {
        metadata::flight_info(&c, &metadata::table_types_schema(), r)
    }
    async fn do_get_table_types(&self, _: CommandGetTableTypes, _: Request<Ticket>) -> Rows {
        self.0.table_types()
    }
    async fn get_flight_info_sql_info(&self, c: CommandGetSqlInfo, r: Request<FlightDescriptor>) -> Info {
        metadata::flight_info(&c, SqlInfoDataBuilder::schema(), r)
    }
    async fn do_get_sql_info(&self, c: CommandGetSqlInfo, _: Request<Ticket>) -> Rows {
        metadata::answer(c.into_builder(&self.0.sql_info.0).build())
    }
    async fn get_flight_info_xdbc_type_info(&self, c: CommandGetXdbcTypeInfo, r: Request<FlightDescriptor>) -> Info {
        metadata::flight_info(&c, &self.0.type_info.0.schema(), r)
    }
    async fn do_get_xdbc_type_info(&self, c: CommandGetXdbcTypeInfo, _: Request<Ticket>) -> Rows {
        metadata::answer(c.into_builder(&self.0.type_info.0).build())
    }
    async fn get_flight_info_primary_keys(&self, c: CommandGetPrimaryKeys, r: Request<FlightDescriptor>) -> Info {
        metadata::flight_info(&c, &metadata::primary_keys_schema(), r)
    }
    async fn do_get_primary_keys(&self, c: CommandGetPrimaryKeys, r: Request<Ticket>) -> Rows {
        self.0.primary_keys(c, &Caller::of(&r)).await
    }
    async fn get_flight_info_exported_keys(&self, c: CommandGetExportedKeys, r: Request<FlightDescriptor>) -> Info {
        metadata::flight_info(&c, &metadata::foreign_keys_schema(), r)
    }
    async fn do_get_exported_keys(&self, _: CommandGetExportedKeys, _: Request<Ticket>) -> Rows {
        metadata::foreign_keys()
    }
    async fn get_flight_info_imported_keys(&self, c: CommandGetImportedKeys, r: Request<FlightDescriptor>) -> Info {
        metadata::flight_info(&c, &metadata::foreign_keys_schema(), r)
    }
    async fn do_get_imported_keys(&self, _: CommandGetImportedKeys, _: Request<Ticket>) -> Rows {
        metadata::foreign_keys()
    }
    async fn get_flight_info_cross_reference(&self, c: CommandGetCrossReference, r: Request<FlightDescriptor>) -> Info {
        metadata::flight_info(&c, &metadata::foreign_keys_schema(), r)
    }
    async fn do_get_cross_reference(&self, _: CommandGetCrossReference, _: Request<Ticket>) -> Rows {
        metadata::foreign_keys()
    }
    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}

    // Cancelling

    async fn do_action_cancel_query(&self, query: ActionCancelQueryRequest, _: Request<Action>) -> Result<ActionCancelQueryResult, Status> {
        self.0.cancel_query(&query)
    }

    // What there is not

    async fn get_flight_info_fallback(&self, command: Command, _: Request<FlightDescriptor>) -> Info {
        Err(Status::unimplemented(format!("GetFlightInfo does not know {:?}", command.type_url())))
    }
    async fn do_action_fallback(&self, request: Request<Action>) -> Result<Response<BoxStream<arrow_flight::Result>>, Status> {
        Err(Status::unimplemented(format!("there is no action {:?}", request.get_ref().r#type)))
    }
    async fn get_flight_info_substrait_plan(&self, _: CommandStatementSubstraitPlan, _: Request<FlightDescriptor>) -> Info {
        Err(Status::unimplemented(NO_SUBSTRAIT))
    }
    async fn do_action_create_prepared_substrait_plan(
        &self,
        _: ActionCreatePreparedSubstraitPlanRequest,
        _: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        Err(Status::unimplemented(NO_SUBSTRAIT))
    }
    async fn do_action_begin_transaction(
        &self,
        _: ActionBeginTransactionRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        Err(Status::unimplemented(NO_TRANSACTIONS))
    }
    async fn do_action_end_transaction(&self, _: ActionEndTransactionRequest, _: Request<Action>) -> Result<(), Status> {
        Err(Status::unimplemented(NO_TRANSACTIONS))
    }
    async fn do_action_begin_savepoint(
        &self,
        _: ActionBeginSavepointRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginSavepointResult, Status> {
        Err(Status::unimplemented(NO_TRANSACTIONS))
    }
    async fn do_action_end_savepoint(&self, _: ActionEndSavepointRequest, _: Request<Action>) -> Result<(), Status> {
        Err(Status::unimplemented(NO_TRANSACTIONS))
    }
}

impl FlightSql {
    /// The schema that a command's rows will have; plans a statement, runs nothing.
    pub(super) async fn schema(&self, command: Command, caller: Caller) -> Result<SchemaResult, Status> {
        let schema = match command {
            Command::CommandStatementQuery(q) => self.0.plan(caller, &q.query, q.transaction_id.as_ref()).await?.schema,
            Command::CommandPreparedStatementQuery(q) => Arc::clone(&self.0.statements.get(&q.prepared_statement_handle)?.schema),
            Command::CommandGetCatalogs(_) => metadata::catalogs_schema(),
            Command::CommandGetDbSchemas(c) => c.into_builder().schema(),
            Command::CommandGetTables(c) => c.into_builder().schema(),
            Command::CommandGetTableTypes(_) => metadata::table_types_schema(),
            Command::CommandGetSqlInfo(_) => Arc::new(SqlInfoDataBuilder::schema().clone()),
            Command::CommandGetXdbcTypeInfo(_) => self.0.type_info.0.schema(),
            Command::CommandGetPrimaryKeys(_) => metadata::primary_keys_schema(),
            Command::CommandGetExportedKeys(_) | Command::CommandGetImportedKeys(_) | Command::CommandGetCrossReference(_) => {
                metadata::foreign_keys_schema()
            }
            other => return Err(Status::unimplemented(format!("GetSchema does not know {:?}", other.type_url()))),
        };
        Ok(SchemaResult { schema: encode::schema_bytes(&schema)? })
    }
}
