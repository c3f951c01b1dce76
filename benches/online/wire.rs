//! The calls that the load client makes: one connection and its ready-made requests per client.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::ipc::writer::StreamWriter;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::Any;
use arrow_flight::sql::client::{FlightSqlServiceClient, PreparedStatement};
use arrow_flight::{FlightInfo, Ticket};
use futures::TryStreamExt;
use prost::Message;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Cmd, IntoConnectionInfo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use super::lookup_ticket::lookup_ticket;
use super::{Args, Draw, Failure, Mode};

const DIRECT_QUERY: &str = "type.googleapis.com/remige.v1.DirectQuery";

#[derive(Clone, PartialEq, Message)]
struct DirectQuery {
    #[prost(string, tag = "1")]
    sql: String,
    #[prost(bytes = "vec", tag = "2")]
    parameters: Vec<u8>,
}

type Flight = FlightSqlServiceClient<Channel>;

/// One client: its connection and its requests.
pub enum Caller {
    Redis { connection: MultiplexedConnection, requests: Vec<Cmd>, batch: usize },
    Ticket { client: Flight, requests: Vec<Ticket>, batch: usize },
    Prepared { client: Flight, statement: Box<PreparedStatement<Channel>>, requests: Vec<RecordBatch>, batch: usize },
    Http { server: Http, requests: Vec<Vec<u8>>, batch: usize },
}

/// Connects the clients and builds what they will ask.
pub async fn clients(args: &Args) -> Result<Vec<Caller>, Failure> {
    let stored = if args.mode == Mode::RawMget { stored_rows(args).await? } else { vec![] };
    let mut out = Vec::with_capacity(args.clients);
    for i in 0..args.clients {
        let mut draw = Draw::new(args.seed * 1_000 + i as u64);
        let batch = args.batch;
        let mut pool = || -> Vec<Vec<u64>> {
            let from = if stored.is_empty() { args.entities } else { stored.len() as u64 };
            (0..args.pool.max(1)).map(|_| (0..batch).map(|_| draw.below(from)).collect()).collect()
        };
        out.push(match args.mode {
            Mode::RawMget => Caller::Redis {
                connection: redis(&args.address).await?,
                requests: pool().iter().map(|ids| mget(&stored, ids)).collect(),
                batch,
            },
            Mode::Ticket | Mode::QueryTicket => {
                let ticket = |ids: &Vec<u64>| -> Result<Ticket, Failure> {
                    if args.mode == Mode::Ticket {
                        Ok(lookup_ticket(&args.view, &keys(&args.key, ids)?)?)
                    } else {
                        query_ticket(&args.view, &keys("$1", ids)?)
                    }
                };
                let requests = pool().iter().map(ticket).collect::<Result<_, _>>()?;
                Caller::Ticket { client: flight(&args.address).await?, requests, batch }
            }
            Mode::Prepared => {
                let mut client = flight(&args.address).await?;
                let statement = Box::new(client.prepare(format!("SELECT * FROM ONLINE_LOOKUP('{}', $1)", args.view), None).await?);
                let requests = pool().iter().map(|ids| keys("$1", ids)).collect::<Result<_, _>>()?;
                Caller::Prepared { client, statement, requests, batch }
            }
            Mode::Http => {
                let server = Http::connect(&args.address).await?;
                let requests = pool().iter().map(|ids| server.request(args, ids)).collect();
                Caller::Http { server, requests, batch }
            }
        });
    }
    Ok(out)
}

impl Caller {
    /// Makes one request, the `turn`th of the pool; an answer with other rows than asked for is an error.
    pub async fn call(&mut self, turn: usize) -> Result<(), Failure> {
        match self {
            Caller::Redis { connection, requests, batch } => {
                let rows: Vec<Option<Vec<u8>>> = requests[turn % requests.len()].query_async(connection).await?;
                expect(rows.iter().flatten().count(), *batch)
            }
            Caller::Ticket { client, requests, batch } => {
                let rows = fetch(client, requests[turn % requests.len()].clone()).await?;
                expect(rows.iter().map(RecordBatch::num_rows).sum(), *batch)
            }
            Caller::Prepared { client, statement, requests, batch } => {
                let rows = prepared(client, statement, &requests[turn % requests.len()]).await?;
                expect(rows.iter().map(RecordBatch::num_rows).sum(), *batch)
            }
            Caller::Http { server, requests, .. } => server.post(&requests[turn % requests.len()]).await.map(drop),
        }
    }

    /// Makes one request and looks at the values: all features of all keys are there.
    pub async fn check(&mut self) -> Result<(), Failure> {
        match self {
            Caller::Redis { .. } => self.call(0).await,
            Caller::Ticket { client, requests, batch } => whole(&fetch(client, requests[0].clone()).await?, *batch),
            Caller::Prepared { client, statement, requests, batch } => whole(&prepared(client, statement, &requests[0]).await?, *batch),
            Caller::Http { server, requests, batch } => {
                let answer: serde_json::Value = serde_json::from_slice(&server.post(&requests[0]).await?)?;
                let results = answer["results"].as_array().ok_or("no results")?;
                for feature in results {
                    let values = feature["values"].as_array().ok_or("no values")?;
                    expect(values.iter().filter(|v| !v.is_null()).count(), *batch)?;
                }
                Ok(())
            }
        }
    }
}

fn expect(got: usize, want: usize) -> Result<(), Failure> {
    if got == want { Ok(()) } else { Err(format!("{got} rows or values instead of {want}").into()) }
}

fn whole(rows: &[RecordBatch], batch: usize) -> Result<(), Failure> {
    expect(rows.iter().map(RecordBatch::num_rows).sum(), batch)?;
    let columns = rows.first().map_or(0, RecordBatch::num_columns);
    for c in 0..columns {
        expect(rows.iter().map(|r| r.column(c).len() - r.column(c).null_count()).sum(), batch)?;
    }
    Ok(())
}

fn keys(name: &str, ids: &[u64]) -> Result<RecordBatch, Failure> {
    let ids = Int64Array::from_iter_values(ids.iter().map(|i| *i as i64));
    Ok(RecordBatch::try_from_iter([(name, Arc::new(ids) as _)])?)
}

async fn flight(address: &str) -> Result<Flight, Failure> {
    let endpoint = Endpoint::from_shared(address.replacen("grpc://", "http://", 1))?.tcp_nodelay(true);
    Ok(FlightSqlServiceClient::new_from_inner(FlightServiceClient::new(endpoint.connect().await?)))
}

async fn fetch(client: &mut Flight, ticket: Ticket) -> Result<Vec<RecordBatch>, Failure> {
    Ok(client.do_get(ticket).await?.try_collect().await?)
}

async fn prepared(
    client: &mut Flight,
    statement: &mut PreparedStatement<Channel>,
    rows: &RecordBatch,
) -> Result<Vec<RecordBatch>, Failure> {
    statement.set_parameters(rows.clone())?;
    let info: FlightInfo = statement.execute().await?;
    let ticket = info.endpoint.into_iter().next().and_then(|e| e.ticket).ok_or("an answer without an endpoint")?;
    fetch(client, ticket).await
}

fn query_ticket(view: &str, rows: &RecordBatch) -> Result<Ticket, Failure> {
    let mut parameters = StreamWriter::try_new(vec![], &rows.schema())?;
    parameters.write(rows)?;
    let query = DirectQuery { sql: format!("SELECT * FROM ONLINE_LOOKUP('{view}', $1)"), parameters: parameters.into_inner()? };
    let any = Any { type_url: DIRECT_QUERY.into(), value: query.encode_to_vec().into() };
    Ok(Ticket::new(any.encode_to_vec()))
}

async fn redis(address: &str) -> Result<MultiplexedConnection, Failure> {
    let info = address.into_connection_info()?.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(std::time::Duration::from_secs(60)));
    Ok(redis::Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?)
}

fn mget(stored: &[Vec<u8>], ids: &[u64]) -> Cmd {
    let mut c = redis::cmd("MGET");
    for i in ids {
        c.arg(&stored[*i as usize][..]);
    }
    c
}

/// Names of rows that lie in the store, as many as all requests may want. Rows outnumber all else there,
/// and their names are equally long.
async fn stored_rows(args: &Args) -> Result<Vec<Vec<u8>>, Failure> {
    let wanted = args.clients * args.pool * args.batch + 1_000;
    let mut connection = redis(&args.address).await?;
    let mut by_length = HashMap::<usize, Vec<Vec<u8>>>::new();
    let (mut cursor, mut seen) = (0_u64, 0);
    loop {
        let page: (u64, Vec<Vec<u8>>) = redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(5_000).query_async(&mut connection).await?;
        cursor = page.0;
        seen += page.1.len();
        for name in page.1 {
            by_length.entry(name.len()).or_default().push(name);
        }
        if cursor == 0 || seen >= wanted {
            break;
        }
    }
    by_length.into_values().max_by_key(Vec::len).ok_or_else(|| "the Redis is empty".into())
}

/// HTTP/1.1 on one connection that is kept open.
pub struct Http {
    host: String,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    async fn connect(address: &str) -> Result<Http, Failure> {
        let host = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/').to_string();
        let stream = TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        Ok(Http { host, stream, buffer: vec![] })
    }

    fn request(&self, args: &Args, ids: &[u64]) -> Vec<u8> {
        let features: Vec<String> = (0..args.features).map(|i| format!("{}:f{i}", args.view)).collect();
        let body = serde_json::json!({"features": features, "entities": {&args.key: ids}}).to_string();
        let head = format!(
            "POST /get-online-features HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        [head.into_bytes(), body.into_bytes()].concat()
    }

    /// Sends a request and reads the whole answer; a status other than 200 is an error.
    async fn post(&mut self, request: &[u8]) -> Result<Vec<u8>, Failure> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (length, body) = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffer[..at])?;
                if !head.starts_with("HTTP/1.1 200") {
                    return Err(head.lines().next().unwrap_or_default().to_string().into());
                }
                break (content_length(head).ok_or("an answer without Content-Length")?, at + 4);
            }
        };
        while self.buffer.len() < body + length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
        Ok(self.buffer[body..].to_vec())
    }
}

fn content_length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    })
}
