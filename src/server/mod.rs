//! The Flight SQL endpoint.
//!
//! | RPC | command | file |
//! |---|---|---|
//! | Handshake | Basic, Bearer | `handshake` |
//! | GetFlightInfo, GetSchema, PollFlightInfo, DoGet | StatementQuery | `statement` |
//! | DoPut | StatementUpdate | `statement` |
//! | CreatePreparedStatement, ClosePreparedStatement, GetFlightInfo, DoPut | PreparedStatementQuery/Update | `prepared` |
//! | DoPut | all commands | `put` |
//! | DoPut | StatementIngest | `ingest` |
//! | GetFlightInfo, DoGet | GetCatalogs, GetDbSchemas, GetTables, GetTableTypes, keys | `metadata` |
//! | GetFlightInfo, DoGet | GetSqlInfo, GetXdbcTypeInfo | `sql_info`, `type_info` |
//! | Set/GetSessionOptions, CloseSession | | `session_actions` |
//! | DoGet | DirectQuery: SQL and parameters in the ticket | `direct` |
//! | DoGet | OnlineLookup: name and rows of a lookup in the ticket | `lookup_ticket` |
//! | CancelQuery, CancelFlightInfo | | `cancel` |
//!
//! `flight_sql` holds the table of Flight SQL commands, `flight` the few RPCs around it that
//! arrow-flight leaves out. `status` maps errors to codes, `encode`/`decode` rows to messages; `request` looks at
//! bodies before they are messages, `incoming` at messages before they are decoded.

// `tonic::Status` is what every RPC answers with; boxing it would only move the cost.
#![allow(clippy::result_large_err)]
// Its bytes come from clients: what is cut short or wrong is an error, never a panic.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod admission;
mod cancel;
mod connections;
mod decode;
mod direct;
mod encode;
mod encoded_answers;
pub mod error_detail;
mod flight;
mod flight_sql;
mod handshake;
mod incoming;
mod ingest;
mod lookup_ticket;
mod lz4;
mod messages;
mod metadata;
mod prepared;
mod put;
mod reader;
mod request;
mod session_actions;
mod sessions;
mod sql_info;
mod statement;
mod statements;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod type_info;

pub use direct::{DIRECT_QUERY, DirectQuery};
pub use lookup_ticket::{ONLINE_LOOKUP, OnlineLookup, lookup_ticket};
pub use tls::{check_listener, choose_crypto};

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::background::Background;
use crate::clock;
use crate::config::ServerSettings;
use crate::error::{Error, Result};
use crate::session::Engine;

/// The one catalog that clients see.
pub const CATALOG: &str = "remige";

const MAX_HEADERS: u32 = 64 << 10;
const MAX_STREAMS_PER_CONNECTION: u32 = 256;
/// Shorter than what lookups and messages may take.
const TICK: Duration = Duration::from_millis(100);
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Time for answers to leave after statements were stopped.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What all RPCs share.
#[derive(Debug)]
struct Shared {
    engine: Arc<Engine>,
    sessions: sessions::Sessions,
    statements: statements::Statements,
    admission: Arc<admission::Admission>,
    lookups: Arc<admission::Admission>,
    encoded_answers: encoded_answers::EncodedAnswers,
    sql_info: Static<SqlInfoData>,
    type_info: Static<XdbcTypeInfoData>,
    /// No new work is taken.
    draining: AtomicBool,
    /// The grace time is over: what still runs is stopped.
    stop: CancellationToken,
}

/// Tables that never change; arrow-flight's types have no `Debug`.
struct Static<T>(T);

impl<T> std::fmt::Debug for Static<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Shared {
    fn new(engine: Arc<Engine>) -> Result<Arc<Self>> {
        let settings = engine.config().server.clone();
        Ok(Arc::new(Shared {
            sessions: sessions::Sessions::new(Arc::clone(&engine)),
            statements: statements::Statements::new(
                engine.clock().clone(),
                settings.handle_ttl,
                settings.max_prepared,
                settings.max_parameter_bytes.saturating_mul(4),
            ),
            admission: Arc::new(admission::Admission::new(
                settings.max_concurrent_statements,
                ("statements", "server.max_concurrent_statements"),
            )),
            lookups: Arc::new(admission::Admission::new(settings.max_concurrent_lookups, ("lookups", "server.max_concurrent_lookups"))),
            encoded_answers: encoded_answers::EncodedAnswers::new(engine.config().online_settings.kept_plans),
            sql_info: Static(sql_info::build()?),
            type_info: Static(type_info::build()?),
            draining: AtomicBool::new(false),
            stop: CancellationToken::new(),
            engine,
        }))
    }

    fn settings(&self) -> &ServerSettings {
        &self.engine.config().server
    }

    /// Room for the rows of a client.
    fn room(&self) -> decode::Room {
        decode::Room { limit: self.settings().max_message_bytes, pool: Arc::clone(&self.engine.services().runtime.memory_pool) }
    }
}

/// A timer that ends before the one that is next wakes the thread that waits for messages, which costs a lookup more than
/// its timers do. With one that ends soon there always is an earlier one.
async fn tick() {
    let mut ticks = clock::ticks(TICK);
    loop {
        ticks.tick().await;
    }
}

/// Serves Flight SQL on `listener` until `shutdown` resolves; then takes no new work, lets running
/// statements finish for `server.shutdown_grace`, stops the rest, and returns.
///
/// Without a certificate only a loopback address is served.
pub async fn serve(engine: Arc<Engine>, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<()> {
    let settings = engine.config().server.clone();
    let tls = tls::config(&settings, &listener)?;
    let shared = Shared::new(engine)?;
    let limits = request::Limits::of(shared.engine.config());
    let service = FlightServiceServer::new(flight::Flight::new(Arc::clone(&shared)))
        // they are measured before, by what they are for
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    let service = request::Requests::new(service, limits);
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION);
    if let Some(tls) = tls {
        server = server.tls_config(tls).map_err(|e| Error::invalid(format!("server.tls_cert, server.tls_key: {}", causes(&e))))?;
    }
    let background = Background::start(&shared.engine);
    // ends with this function
    let mut ticking = JoinSet::new();
    ticking.spawn(tick());
    let begun = CancellationToken::new();
    let signal = begun.clone();
    let incoming = connections::accept(listener, &settings);
    let serving = server.add_service(service).serve_with_incoming_shutdown(incoming, signal.cancelled_owned());
    tokio::pin!(serving, shutdown);
    tokio::select! {
        ended = &mut serving => return ended.map_err(|e| Error::unavailable(format!("the server stopped: {}", causes(&e)))),
        () = &mut shutdown => {}
    }
    tracing::info!("shutting down: running statements may finish");
    shared.draining.store(true, Ordering::SeqCst);
    begun.cancel();
    let grace = Duration::from_micros(settings.shutdown_grace.max(0) as u64);
    let drain = async {
        match clock::timeout(grace, &mut serving).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!("the grace time is over: stopping the statements that still run");
                shared.stop.cancel();
                clock::timeout(LAST_WORDS, &mut serving).await.unwrap_or(Ok(()))
            }
        }
    };
    let (drained, ()) = tokio::join!(drain, background.end(grace));
    drained.map_err(|e| Error::unavailable(format!("the server stopped: {}", causes(&e))))
}

/// An error with what lies below it; tonic's own text is only "transport error".
fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
