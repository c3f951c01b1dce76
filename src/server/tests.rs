//! The server through the Rust Flight SQL client, as far as no statement is needed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{Any, Command, CommandGetCrossReference, CommandGetSqlInfo, CommandGetXdbcTypeInfo, ProstMessageExt, SqlInfo};
use arrow_flight::{Action, Empty, FlightDescriptor, FlightInfo, Ticket};
use datafusion::arrow::array::AsArray;
use datafusion::arrow::record_batch::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use super::session_actions::{
    CloseSessionResult, GetSessionOptionsResult, OptionValue, Problem, SetSessionOptionsRequest, SetSessionOptionsResult, Value,
};
use super::*;
use crate::clock::Clock;
use crate::config::Config;

struct Running {
    address: String,
    stop: CancellationToken,
    server: JoinHandle<Result<()>>,
    _dir: tempfile::TempDir,
}

async fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { warehouse: dir.path().join("w").display().to_string(), ..Default::default() };
    config.server.max_statement_bytes = 1000;
    let engine = Engine::open(config, Clock::system()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(engine, listener, stop.clone().cancelled_owned()));
    Running { address, stop, server, _dir: dir }
}

impl Running {
    async fn client(&self) -> FlightSqlServiceClient<Channel> {
        FlightSqlServiceClient::new(Endpoint::from_shared(self.address.clone()).unwrap().connect().await.unwrap())
    }

    async fn end(self) {
        self.stop.cancel();
        self.server.await.unwrap().unwrap();
    }
}

async fn fetch(client: &mut FlightSqlServiceClient<Channel>, info: FlightInfo) -> Vec<RecordBatch> {
    let announced = info.clone().try_decode_schema().unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut rows = client.do_get(ticket).await.unwrap();
    let batches = StreamExt::by_ref(&mut rows).try_collect().await.unwrap();
    assert_eq!(rows.schema().unwrap().as_ref(), &announced, "FlightInfo and DoGet must agree");
    batches
}

fn code(e: FlightError) -> Code {
    match e {
        FlightError::Tonic(status) => status.code(),
        other => panic!("not a status: {other}"),
    }
}

async fn action<M: Message + Default>(client: &mut FlightSqlServiceClient<Channel>, name: &str, body: Vec<u8>) -> Result<M, tonic::Status> {
    let mut request = Request::new(Action::new(name, body));
    if let Some(token) = client.token() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut answers = client.inner_mut().do_action(request).await?.into_inner();
    Ok(M::decode(answers.message().await?.unwrap().body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_there_before_any_table() {
    let server = start().await;
    let mut c = server.client().await;
    let info = c.get_catalogs().await.unwrap();
    assert_eq!(fetch(&mut c, info).await[0].column(0).as_string::<i32>().value(0), CATALOG);
    let info = c.get_table_types().await.unwrap();
    assert_eq!(
        fetch(&mut c, info).await[0].column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
        ["SYSTEM TABLE", "TABLE", "VIEW"]
    );
    let info = c.get_sql_info(vec![SqlInfo::FlightSqlServerTransaction, SqlInfo::FlightSqlServerName]).await.unwrap();
    assert_eq!(fetch(&mut c, info).await[0].num_rows(), 2);
    let info = c.get_sql_info(vec![]).await.unwrap();
    assert!(fetch(&mut c, info).await[0].num_rows() > 80);
    let info = c.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    assert_eq!(fetch(&mut c, info).await[0].num_columns(), 19);
    let info = c.get_cross_reference(CommandGetCrossReference::default()).await.unwrap();
    assert_eq!(fetch(&mut c, info).await.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    drop(c);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_gives_a_session_and_closing_ends_it() {
    let server = start().await;
    let mut c = server.client().await;
    let payload = c.handshake("anybody", "anything").await.unwrap();
    let token = String::from_utf8(payload.to_vec()).unwrap();
    assert_eq!(c.token(), Some(&token), "the response header carries the token");

    let options: GetSessionOptionsResult = action(&mut c, "GetSessionOptions", vec![]).await.unwrap();
    assert_eq!(options.options["schema"].value, Some(Value::Text("public".into())));
    let text = |v: &str| OptionValue { value: Some(Value::Text(v.into())) };
    let wanted = HashMap::from([
        ("catalog".to_string(), text(CATALOG)),
        ("colour".to_string(), text("red")),
        ("schema".to_string(), OptionValue { value: Some(Value::Bool(true)) }),
    ]);
    let body = SetSessionOptionsRequest { options: wanted }.encode_to_vec();
    let answer: SetSessionOptionsResult = action(&mut c, "SetSessionOptions", body.clone()).await.unwrap();
    let problems: HashMap<&str, i32> = answer.errors.iter().map(|(k, e)| (k.as_str(), e.value)).collect();
    assert_eq!(problems, HashMap::from([("colour", Problem::InvalidName as i32), ("schema", Problem::InvalidValue as i32)]));

    let closed: CloseSessionResult = action(&mut c, "CloseSession", vec![]).await.unwrap();
    assert_eq!(closed.status, 1);
    assert_eq!(action::<CloseSessionResult>(&mut c, "CloseSession", vec![]).await.unwrap().status, 1, "closing twice is fine");
    let e = action::<GetSessionOptionsResult>(&mut c, "GetSessionOptions", vec![]).await.unwrap_err();
    assert_eq!(e.code(), Code::Unauthenticated);

    c.clear_token();
    let e = action::<SetSessionOptionsResult>(&mut c, "SetSessionOptions", body).await.unwrap_err();
    assert!(e.message().contains("with_cookie_middleware"), "{}", e.message());
    drop(c);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_session_is_offered_a_cookie() {
    let server = start().await;
    let mut c = server.client().await;
    let ask = || Request::new(FlightDescriptor::new_cmd(CommandGetSqlInfo { info: vec![8] }.as_any().encode_to_vec()));
    let offered = c.inner_mut().get_flight_info(ask()).await.unwrap();
    let cookie = offered.metadata().get("set-cookie").unwrap().to_str().unwrap().split(';').next().unwrap().to_string();
    let mut again = ask();
    again.metadata_mut().insert("cookie", cookie.parse().unwrap());
    let kept = c.inner_mut().get_flight_info(again).await.unwrap();
    assert!(kept.metadata().get("set-cookie").is_none(), "a caller with a session keeps it");
    let mut forged = ask();
    forged.metadata_mut().insert("cookie", cookie.replace('-', "0").parse().unwrap());
    assert_eq!(c.inner_mut().get_flight_info(forged).await.unwrap_err().code(), Code::Unauthenticated);
    drop(c);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_answered_with_a_code_not_with_a_crash() {
    let server = start().await;
    let mut c = server.client().await;
    let inner = c.inner_mut();
    for bytes in [
        vec![0xff, 0xff, 0xff],
        vec![1; 50],
        Any { type_url: Command::CommandGetSqlInfo(Default::default()).type_url().into(), value: vec![0xff; 9].into() }.encode_to_vec(),
    ] {
        let e = inner.get_flight_info(FlightDescriptor::new_cmd(bytes.clone())).await.unwrap_err();
        assert_eq!(e.code(), Code::InvalidArgument, "{bytes:?}");
        assert_eq!(inner.get_schema(FlightDescriptor::new_cmd(bytes.clone())).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(inner.do_get(Ticket::new(bytes)).await.err().unwrap().code(), Code::InvalidArgument);
    }
    assert_eq!(inner.get_flight_info(FlightDescriptor::new_path(vec!["a".into()])).await.unwrap_err().code(), Code::Unimplemented);
    for name in ["CreatePreparedStatement", "CancelFlightInfo", "SetSessionOptions", "CancelQuery"] {
        let e = inner.do_action(Action::new(name, vec![0xff, 1, 2])).await.err().unwrap();
        assert_eq!(e.code(), Code::InvalidArgument, "{name}");
    }
    assert_eq!(inner.do_action(Action::new("Fly", vec![])).await.err().unwrap().code(), Code::Unimplemented);
    let actions: Vec<_> = inner.list_actions(Empty {}).await.unwrap().into_inner().try_collect().await.unwrap();
    assert_eq!(actions.len(), 7);
    assert_eq!(code(c.begin_transaction().await.unwrap_err()), Code::Unimplemented);
    assert_eq!(code(c.execute("SELECT 1".into(), Some("tx".into())).await.unwrap_err()), Code::InvalidArgument);
    assert_eq!(code(c.execute("x".repeat(1001), None).await.unwrap_err()), Code::ResourceExhausted);
    drop(c);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_the_end() {
    let server = start().await;
    let mut c = server.client().await;
    c.get_catalogs().await.unwrap();
    crate::clock::timeout(Duration::from_secs(20), server.end()).await.expect("the server must not wait for its grace time");
    assert!(c.get_catalogs().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_stays_on_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { warehouse: dir.path().join("w").display().to_string(), ..Default::default() };
    let engine = Engine::open(config.clone(), Clock::system()).await.unwrap();
    let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let e = serve(engine, open, std::future::pending()).await.unwrap_err();
    assert!(e.to_string().contains("--tls-cert"), "{e}");

    config.server.tls_cert = Some(dir.path().join("no.pem"));
    let engine = Engine::open(config.clone(), Clock::system()).await.unwrap();
    let local = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(serve(engine, local, std::future::pending()).await.unwrap_err().to_string().contains("--tls-key"));

    config.server.tls_key = Some(dir.path().join("no.key"));
    let engine: Arc<Engine> = Engine::open(config, Clock::system()).await.unwrap();
    let local = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(serve(engine, local, std::future::pending()).await.unwrap_err().message().contains("no.pem"));
}

/// Made for this test with openssl, for `localhost`, valid for a hundred years; it protects nothing.
const CERT: &str = include_str!("testdata/localhost.crt");
const KEY: &str = include_str!("testdata/localhost.key");

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    std::fs::write(&cert, CERT).unwrap();
    std::fs::write(&key, KEY).unwrap();
    let mut config = Config { warehouse: dir.path().join("w").display().to_string(), ..Default::default() };
    (config.server.tls_cert, config.server.tls_key) = (Some(cert), Some(key));
    let engine = Engine::open(config, Clock::system()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(engine, listener, stop.clone().cancelled_owned()));
    let tls = tonic::transport::ClientTlsConfig::new().ca_certificate(tonic::transport::Certificate::from_pem(CERT));
    let channel = Endpoint::from_shared(address).unwrap().tls_config(tls).unwrap().connect().await.unwrap();
    let mut c = FlightSqlServiceClient::new(channel);
    c.get_catalogs().await.unwrap();
    drop(c);
    stop.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_with_name_and_rows_answers_in_one_call() {
    use datafusion::arrow::array::{ArrayRef, Int64Array};
    use datafusion::arrow::datatypes::Int64Type;
    let server = start().await;
    let mut c = server.client().await;
    for sql in [
        "CREATE ENTITY u KEY (user_id BIGINT)",
        "CREATE FEATURE VIEW f (orders BIGINT) ENTITY u EVENT TIMESTAMP ts ONLINE",
        "INSERT INTO f VALUES (1, TIMESTAMP '2024-01-01 00:00:00', 10), (2, TIMESTAMP '2024-01-01 00:00:00', 20)",
    ] {
        c.execute_update(sql.to_string(), None).await.unwrap();
    }
    let keys = |column: &str, keys: Vec<Option<i64>>| {
        RecordBatch::try_from_iter([(column, Arc::new(Int64Array::from(keys)) as ArrayRef)]).unwrap()
    };
    let request = crate::session::LookupRequest { name: "f".into(), status: true, ..Default::default() };
    let ticket = lookup_ticket(&request, &keys("user_id", vec![Some(2), Some(3), None, Some(1), Some(2)])).unwrap();
    let rows: Vec<RecordBatch> = c.do_get(ticket.clone()).await.unwrap().try_collect().await.unwrap();
    let orders: Vec<Option<i64>> = rows[0].column_by_name("orders").unwrap().as_primitive::<Int64Type>().iter().collect();
    assert_eq!(orders, [Some(20), None, None, Some(10), Some(20)]);
    let status: Vec<_> = rows[0].column_by_name("f__status").unwrap().as_string::<i32>().iter().flatten().collect();
    assert_eq!(status, ["PRESENT", "NOT_FOUND", "NOT_FOUND", "PRESENT", "PRESENT"]);
    // no rows asked for: columns, and no rows
    let none = lookup_ticket(&request, &keys("user_id", vec![])).unwrap();
    let mut answer = c.do_get(none).await.unwrap();
    let batches: Vec<RecordBatch> = StreamExt::by_ref(&mut answer).try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    assert_eq!(answer.schema().unwrap().fields().len(), 4);

    let wrong = lookup_ticket(&request, &keys("user", vec![Some(1)])).unwrap();
    let refused = c.do_get(wrong).await.err().unwrap();
    assert_eq!(code(refused), Code::NotFound);
    let damaged = Any { type_url: ONLINE_LOOKUP.into(), value: vec![0xff; 9].into() };
    let damaged = c.do_get(Ticket { ticket: damaged.encode_to_vec().into() }).await;
    assert!(damaged.is_err());
    let empty = OnlineLookup { name: "f".into(), ..Default::default() };
    let empty = Any { type_url: ONLINE_LOOKUP.into(), value: empty.encode_to_vec().into() };
    assert!(c.do_get(Ticket { ticket: empty.encode_to_vec().into() }).await.is_err());
    drop(c);
    server.end().await;
}
