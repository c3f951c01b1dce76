//! One Redis server: a few sockets for lookups, others for loads, so that neither waits behind the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline, RedisConnectionInfo,
    RedisError, RedisResult, TlsCertificates, Value,
};

use super::address::{Address, Host, Login};
use crate::clock;
use crate::config::{MIN_TIMEOUT, OnlineSettings};
use crate::error::{Error, Result};

const LOAD_CONNECTIONS: usize = 2;
/// Commands of one socket that may wait to be written.
const QUEUE: usize = 1024;

/// What a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Read,
    Load,
}

/// How to connect to any server of the store.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Option<TlsCertificates>,
    login: Login,
    db: i64,
    timeout: Duration,
    read_timeout: Duration,
    read_connections: usize,
}

impl Connector {
    pub fn new(address: &Address, settings: &OnlineSettings) -> Result<Connector> {
        let duration = |micros: i64| Duration::from_micros(micros.max(MIN_TIMEOUT) as u64);
        Ok(Connector {
            tls: certificates(address, settings)?,
            login: address.login.clone(),
            db: address.db,
            timeout: duration(settings.timeout),
            read_timeout: duration(settings.timeout.min(settings.lookup_deadline)),
            read_connections: settings.redis.read_connections.max(1),
        })
    }

    /// The same for Sentinels, which have users of their own and no databases.
    pub fn with_login(&self, login: &Login) -> Connector {
        Connector { login: login.clone(), db: 0, read_connections: 1, ..self.clone() }
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub fn node(&self, host: &Host) -> RedisResult<Node> {
        let client = self.client(host)?;
        let lane = |timeout: Duration, count: usize| {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(self.timeout))
                .set_response_timeout(Some(timeout))
                .set_pipeline_buffer_size(QUEUE);
            (0..count).map(|_| Socket::new(client.clone(), config.clone(), timeout)).collect()
        };
        Ok(Node {
            host: host.clone(),
            reads: lane(self.read_timeout, self.read_connections),
            loads: lane(self.timeout, LOAD_CONNECTIONS),
            turn: AtomicUsize::new(0),
            era: AtomicU64::new(0),
        })
    }

    fn client(&self, host: &Host) -> RedisResult<Client> {
        let addr = match &self.tls {
            None => ConnectionAddr::Tcp(host.name.clone(), host.port),
            Some(_) => ConnectionAddr::TcpTls { host: host.name.clone(), port: host.port, insecure: false, tls_params: None },
        };
        let mut login = RedisConnectionInfo::default().set_db(self.db).set_lib_name("remige", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &self.login.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.login.password {
            login = login.set_password(password);
        }
        // Acknowledgements that stay away for so long: the machine is gone, and the socket too.
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(self.timeout);
        let info = addr.into_connection_info()?.set_tcp_settings(tcp).set_redis_settings(login);
        match &self.tls {
            None => Client::open(info),
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        }
    }
}

/// Reads the files that the settings name.
fn certificates(address: &Address, settings: &OnlineSettings) -> Result<Option<TlsCertificates>> {
    let given = [
        ("online_settings.tls_ca", &settings.redis.tls_ca),
        ("online_settings.tls_cert", &settings.redis.tls_cert),
        ("online_settings.tls_key", &settings.redis.tls_key),
    ];
    if !address.tls {
        return match given.into_iter().find(|(_, path)| path.is_some()) {
            Some((name, _)) => Err(Error::invalid(format!("{name} is set, but the online store {} is not read over TLS", address.shown))
                .with_hint("write rediss:// in place of redis://, or leave the setting out")),
            None => Ok(None),
        };
    }
    // Our dependencies bring two providers and rustls will not choose. An error says that one was chosen before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut files = vec![];
    for (name, path) in given {
        files.push(match path {
            Some(path) => Some(std::fs::read(path).map_err(|e| Error::from(e).context(format!("{name} ({})", path.display())))?),
            None => None,
        });
    }
    let [root_cert, client_cert, client_key] = <[_; 3]>::try_from(files).map_err(|_| Error::internal("three files"))?;
    let client_tls = match (client_cert, client_key) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        (None, None) => None,
        _ => {
            return Err(Error::invalid("the certificate of a client and its key belong together")
                .with_hint("set both online_settings.tls_cert and online_settings.tls_key"));
        }
    };
    let certificates = TlsCertificates { client_tls, root_cert };
    // Now, so that a file which holds no certificate is an error of the settings.
    let probe = ConnectionAddr::TcpTls { host: "localhost".into(), port: 1, insecure: false, tls_params: None };
    let probe = probe.into_connection_info().and_then(|info| Client::build_with_tls(info, certificates.clone()));
    probe.map_err(|e| {
        Error::invalid(format!("the certificates for the online store {} cannot be used: {e}", address.shown))
            .with_hint("online_settings.tls_ca, tls_cert and tls_key name files in PEM form")
    })?;
    Ok(Some(certificates))
}

pub(super) struct Node {
    pub host: Host,
    reads: Vec<Socket>,
    loads: Vec<Socket>,
    turn: AtomicUsize,
    /// Grows when a connection is lost. Then the server has most likely closed all, and those that
    /// were made before are not used again: a command that is sent anew must not find the next dead one.
    era: AtomicU64,
}

impl Node {
    /// Errors of the server are values here ([`Value::ServerError`]), those of the connection are not.
    pub async fn command(&self, lane: Lane, command: &Cmd) -> RedisResult<Value> {
        let socket = self.socket(lane);
        let _busy = Busy::new(&socket.busy);
        let mut open = socket.open(self.era.load(Ordering::Relaxed)).await?;
        let answer = open.connection.send_packed_command(command).await;
        self.noticed(&open, answer)
    }

    /// An answer per command.
    pub async fn pipeline(&self, lane: Lane, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let socket = self.socket(lane);
        let _busy = Busy::new(&socket.busy);
        let mut open = socket.open(self.era.load(Ordering::Relaxed)).await?;
        let answers = open.connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
        let answers = self.noticed(&open, answers)?;
        match answers.len() == pipeline.len() {
            true => Ok(answers),
            false => Err(RedisError::from((ErrorKind::Client, "the server answers too few values"))),
        }
    }

    fn noticed<T>(&self, open: &Open, answer: RedisResult<T>) -> RedisResult<T> {
        if answer.as_ref().is_err_and(is_lost) {
            let _ = self.era.compare_exchange(open.era, open.era + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        answer
    }

    /// The one with the least to do; of several such ones in turn.
    fn socket(&self, lane: Lane) -> &Socket {
        let sockets = match lane {
            Lane::Read => &self.reads,
            Lane::Load => &self.loads,
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % sockets.len();
        let (before, after) = sockets.split_at(turn);
        let mut best = &sockets[turn];
        for s in after.iter().chain(before) {
            if s.busy.load(Ordering::Relaxed) < best.busy.load(Ordering::Relaxed) {
                best = s;
            }
        }
        best
    }
}

struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Busy(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An attempt that everybody waits for, and that goes on when those who wait give up: a lookup with
/// a short deadline must not start it over and over again.
pub(super) type Flight<T, E> = Shared<BoxFuture<'static, Result<T, E>>>;

pub(super) fn flight<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static, ended: fn() -> E) -> Flight<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    let task = tokio::spawn(work);
    async move { task.await.unwrap_or_else(|_| Err(ended())) }.boxed().shared()
}

pub(super) fn ended() -> RedisError {
    RedisError::from((ErrorKind::Client, "the program ends"))
}

struct Socket {
    client: Arc<(Client, AsyncConnectionConfig)>,
    /// How long a command waits for the connection. Connecting may take longer, for those who come later.
    patience: Duration,
    now: Mutex<Connecting>,
    busy: AtomicUsize,
}

#[derive(Default)]
struct Connecting {
    /// Counts attempts.
    number: u64,
    /// The node's when the attempt began.
    era: u64,
    flight: Option<Flight<MultiplexedConnection, RedisError>>,
}

struct Open {
    connection: MultiplexedConnection,
    era: u64,
}

impl Socket {
    fn new(client: Client, config: AsyncConnectionConfig, patience: Duration) -> Self {
        Socket { client: Arc::new((client, config)), patience, now: Mutex::default(), busy: AtomicUsize::new(0) }
    }

    async fn open(&self, era: u64) -> RedisResult<Open> {
        let (number, era, flight) = {
            let mut now = self.now.lock();
            if now.era < era {
                now.flight = None;
            }
            match now.flight.clone().map(|f| f.now_or_never()) {
                Some(Some(Ok(connection))) => return Ok(Open { connection, era: now.era }),
                // It failed after all who had waited for it gave up.
                Some(Some(Err(_))) => now.flight = None,
                _ => (),
            }
            if now.flight.is_none() {
                now.number += 1;
                now.era = now.era.max(era);
            }
            let client = Arc::clone(&self.client);
            let connect = async move { client.0.get_multiplexed_async_connection_with_config(&client.1).await };
            (now.number, now.era, now.flight.get_or_insert_with(|| flight(connect, ended)).clone())
        };
        let answer = clock::timeout(self.patience, flight).await;
        let answer = answer.map_err(|_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))?;
        if answer.is_err() {
            let mut now = self.now.lock();
            if now.number == number {
                now.flight = None;
            }
        }
        Ok(Open { connection: answer?, era })
    }
}

/// The connection is gone, as opposed to an answer that does not come.
pub(super) fn is_lost(e: &RedisError) -> bool {
    e.is_io_error() && !e.is_timeout() || is_cut(e)
}

/// The connection ended inside an answer, or went on with what is none.
pub(super) fn is_cut(e: &RedisError) -> bool {
    e.kind() == ErrorKind::Parse
}
