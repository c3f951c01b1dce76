//! Every setting: name, default, meaning, limit. `settings` lists them for files, variables and flags;
//! `load` reads these; `value` is the text form of sizes and durations.

mod load;
mod settings;
mod stores;
mod value;

use std::fmt;
use std::path::PathBuf;

use crate::clock::{DAY, HOUR, MILLISECOND, MINUTE, Micros, SECOND};

pub use load::{FILE_NAME, Flag, Loaded, load, load_text, read_file};
pub use settings::{SETTINGS, Setting, WAREHOUSE, example_file};
pub(crate) use stores::each_store;
pub use stores::{ONLINE_KINDS, OnlineKind};
pub use value::{parse_duration, show_duration};

/// The settings of one process. Order of precedence, highest first: flag, environment
/// (`REMIGE_…`), `remige.toml`, default.
#[derive(Clone)]
pub struct Config {
    /// Directory or object-store URL that holds everything. Default `./warehouse`.
    pub warehouse: String,
    /// Schema that bare names mean at the start of a session. Default `public`.
    pub schema: String,
    /// `embedded`, `redis://…`, `redis+cluster://…`, `redis+sentinel://…`, the last three over TLS with `rediss`.
    pub online: String,
    /// Bytes that statements may use for sorting, joining and buffering. Default: half of the memory.
    pub memory_limit: usize,
    /// Partitions that a query works on at once. Default: the number of cores.
    pub threads: usize,
    /// Where operators spill. Default: the system's temporary directory.
    pub spill_dir: Option<PathBuf>,
    /// Rows per batch inside the engine.
    pub batch_size: usize,
    /// A statement that made no row, computed nothing and waited for no store for this long ends with an error. 0: never.
    pub stall_timeout: Micros,
    /// Tables that one statement may read; each view and WITH query counts with all that it reads.
    pub max_relations: usize,
    /// A statement that takes longer is ended; 0: none is. Lookups have a deadline of their own.
    pub statement_timeout: Micros,
    /// Rows with an event timestamp further in the future than this are rejected.
    pub clock_tolerance: Micros,
    /// Rows per data file written; bounds what a reader must open at once.
    pub target_file_rows: usize,
    /// Rows per row group of a data file.
    pub row_group_rows: usize,
    pub online_settings: OnlineSettings,
    pub push: PushSettings,
    pub maintenance: MaintenanceSettings,
    pub schedule: ScheduleSettings,
    pub server: ServerSettings,
}

#[derive(Debug, Clone)]
pub struct OnlineSettings {
    /// Connection, and the answer to one command, must come within this time.
    pub timeout: Micros,
    /// A whole lookup must be answered within this time.
    pub lookup_deadline: Micros,
    /// A lookup uses a catalog at most this old.
    pub catalog_max_age: Micros,
    /// Lookups whose plans are kept.
    pub kept_plans: usize,
    /// Keys that one lookup may ask for.
    pub max_keys: usize,
    /// Events of one key in a window without steps, or different values of a count of values, that a lookup answers for.
    pub max_window_events: usize,
    /// Bytes for a cache of hot rows in this process, in front of the online store; 0: none.
    pub cache_bytes: usize,
    /// A lookup answers from that cache what was read at most this long ago.
    pub cache_freshness: Micros,
    /// How long an old generation stays readable after a switch.
    pub generation_grace: Micros,
    /// How long a tombstone is kept.
    pub tombstone_retention: Micros,
    /// Full loads of this process at once.
    pub concurrent_loads: usize,
    /// A server looks this often for online rows that nobody reads any more, and for stored ones that are due; 0: never.
    pub sweep_every: Micros,
    pub embedded: EmbeddedSettings,
    pub redis: RedisSettings,
}

/// Of the embedded online store.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// Bytes of cache of one file.
    pub cache: usize,
}

/// Of Redis as the online store.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Connections for lookups to each server.
    pub read_connections: usize,
    /// Certificates of the authorities that signed the servers' (PEM). `None`: the system's.
    pub tls_ca: Option<PathBuf>,
    /// Our certificate and its key, where the servers ask for one (PEM).
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Keys in one read command.
    pub read_chunk: usize,
    /// Rows in one write command.
    pub write_chunk: usize,
}

/// Rows that come by INSERT or bulk ingest into push views.
#[derive(Debug, Clone, Default)]
pub struct PushSettings {
    /// A commit waits so long for further statements that share it; 0: it takes those that came during the one before it.
    pub commit_interval: Micros,
}

/// What keeps tables fit. A server does it in the background.
#[derive(Debug, Clone)]
pub struct MaintenanceSettings {
    /// A server looks at the files of every feature view this often; 0: it never does OPTIMIZE.
    pub optimize_every: Micros,
    /// It does OPTIMIZE where at least so many files want it.
    pub optimize_files: usize,
    /// It does so at once where INSERTs have made so many commits; 0: it waits for its time.
    pub crowded_commits: usize,
    /// A server does VACUUM of every feature view this often; 0: never.
    pub vacuum_every: Micros,
    /// Versions that were the newest within this time stay readable after a VACUUM that does not say how many.
    pub retain: Micros,
}

/// REFRESH EVERY. A server does it in the background.
#[derive(Debug, Clone)]
pub struct ScheduleSettings {
    /// A server looks this often for feature views that are due; 0: it runs no schedules.
    pub check_every: Micros,
    /// Feature views that it works on at once.
    pub concurrency: usize,
    /// A run that failed is tried again after this time, then after twice as long each time …
    pub retry_first: Micros,
    /// … up to this time.
    pub retry_max: Micros,
}

#[derive(Debug, Clone)]
pub struct ServerSettings {
    pub listen: String,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Address of the Prometheus endpoint; `None`: no endpoint.
    pub metrics: Option<String>,
    /// A server with that endpoint measures the freshness of every feature view this often; 0: never.
    pub freshness_every: Micros,
    /// How long running statements may finish after a SIGTERM.
    pub shutdown_grace: Micros,
    pub max_sessions: usize,
    pub max_prepared: usize,
    pub max_concurrent_statements: usize,
    /// The same for lookups, which have places of their own: results that nobody reads must not hold them up.
    pub max_concurrent_lookups: usize,
    pub max_statement_bytes: usize,
    /// Bytes of one message of a client that carries no rows.
    pub max_request_bytes: usize,
    /// Bytes of one message of rows, also where it comes compressed.
    pub max_message_bytes: usize,
    /// Bytes of parameters bound at once.
    pub max_parameter_bytes: usize,
    /// A prepared statement or result that nobody asked for is forgotten after this time.
    pub handle_ttl: Micros,
    /// Connections at once.
    pub max_connections: usize,
    /// A connection must finish TLS and begin HTTP/2 within this time.
    pub handshake_timeout: Micros,
    /// A connection without a call is closed after this time.
    pub idle_timeout: Micros,
    /// A message that has begun must be whole within this time, and a second more per MiB.
    pub message_timeout: Micros,
    /// A client that sends rows must go on, or end, within this time.
    pub sender_timeout: Micros,
    /// A result that nobody reads on is ended after this time.
    pub reader_timeout: Micros,
}

impl Default for OnlineSettings {
    fn default() -> Self {
        OnlineSettings {
            timeout: 2 * SECOND,
            lookup_deadline: 4 * SECOND,
            catalog_max_age: SECOND,
            kept_plans: 1000,
            max_keys: 100_000,
            max_window_events: 1_000,
            cache_bytes: 0,
            cache_freshness: SECOND,
            generation_grace: MINUTE,
            tombstone_retention: 7 * DAY,
            concurrent_loads: 2,
            sweep_every: 30 * SECOND,
            embedded: EmbeddedSettings::default(),
            redis: RedisSettings::default(),
        }
    }
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        EmbeddedSettings { cache: 64 << 20 }
    }
}

impl Default for RedisSettings {
    fn default() -> Self {
        RedisSettings { read_connections: 4, tls_ca: None, tls_cert: None, tls_key: None, read_chunk: 500, write_chunk: 500 }
    }
}

impl Default for MaintenanceSettings {
    fn default() -> Self {
        MaintenanceSettings { optimize_every: 10 * MINUTE, optimize_files: 16, crowded_commits: 100, vacuum_every: DAY, retain: 30 * DAY }
    }
}

impl Default for ScheduleSettings {
    fn default() -> Self {
        ScheduleSettings { check_every: 5 * SECOND, concurrency: 2, retry_first: 30 * SECOND, retry_max: HOUR }
    }
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            listen: "127.0.0.1:8815".into(),
            tls_cert: None,
            tls_key: None,
            metrics: None,
            freshness_every: 30 * SECOND,
            shutdown_grace: 30 * SECOND,
            max_sessions: 1_000,
            max_prepared: 10_000,
            max_concurrent_statements: 64,
            max_concurrent_lookups: 256,
            max_statement_bytes: 1 << 20,
            max_request_bytes: 4 << 20,
            max_message_bytes: 256 << 20,
            max_parameter_bytes: 64 << 20,
            handle_ttl: 30 * MINUTE,
            max_connections: 1_000,
            handshake_timeout: 10 * SECOND,
            idle_timeout: 30 * MINUTE,
            message_timeout: 30 * SECOND,
            sender_timeout: 5 * MINUTE,
            reader_timeout: 5 * MINUTE,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            warehouse: "warehouse".into(),
            schema: "public".into(),
            online: "embedded".into(),
            memory_limit: default_memory_limit(),
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            spill_dir: None,
            batch_size: 8192,
            stall_timeout: 30 * SECOND,
            max_relations: 10_000,
            statement_timeout: 0,
            clock_tolerance: 5 * MINUTE,
            target_file_rows: 4_000_000,
            row_group_rows: 262_144,
            online_settings: OnlineSettings::default(),
            push: PushSettings::default(),
            maintenance: MaintenanceSettings::default(),
            schedule: ScheduleSettings::default(),
            server: ServerSettings::default(),
        }
    }
}

impl Config {
    /// The online store's address without user name, password and query: fit for messages and logs.
    pub fn online_shown(&self) -> String {
        without_credentials(&self.online)
    }
}

/// Shows the online store without its credentials: engines and sessions appear in logs.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart, so that a new field cannot be forgotten.
        let Config {
            warehouse,
            schema,
            online: _,
            memory_limit,
            threads,
            spill_dir,
            batch_size,
            stall_timeout,
            max_relations,
            statement_timeout,
            clock_tolerance,
            target_file_rows,
            row_group_rows,
            online_settings,
            push,
            maintenance,
            schedule,
            server,
        } = self;
        f.debug_struct("Config")
            .field("warehouse", warehouse)
            .field("schema", schema)
            .field("online", &self.online_shown())
            .field("memory_limit", memory_limit)
            .field("threads", threads)
            .field("spill_dir", spill_dir)
            .field("batch_size", batch_size)
            .field("stall_timeout", stall_timeout)
            .field("max_relations", max_relations)
            .field("statement_timeout", statement_timeout)
            .field("clock_tolerance", clock_tolerance)
            .field("target_file_rows", target_file_rows)
            .field("row_group_rows", row_group_rows)
            .field("online_settings", online_settings)
            .field("push", push)
            .field("maintenance", maintenance)
            .field("schedule", schedule)
            .field("server", server)
            .finish()
    }
}

/// A URL without user name, password and query.
pub fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let rest = rest.split(['?', '#']).next().unwrap_or_default();
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{host}")
        }
        None => url.to_string(),
    }
}

/// The shortest time for which versions stay readable: longer than statements run.
pub const MIN_RETAIN: Micros = HOUR;

/// The shortest time that a setting may give a store to answer.
pub const MIN_TIMEOUT: Micros = 10 * MILLISECOND;

fn default_memory_limit() -> usize {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<usize>().ok()
    });
    total.map_or(2 << 30, |kib| kib * 1024 / 2)
}
