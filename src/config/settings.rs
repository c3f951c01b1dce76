//! The list of settings: one line per field of `Config`.

use std::path::PathBuf;

use super::value::{parse_bytes, parse_duration, show_bytes, show_duration};
use super::{Config, MIN_RETAIN, MIN_TIMEOUT, OnlineKind};
use crate::clock::{DAY, HOUR, MILLISECOND, Micros, SECOND};

/// One setting by its name in `remige.toml`: `memory_limit`, `server.listen`.
pub struct Setting {
    /// `section.key`, or `key` for the general ones. The variable is `REMIGE_` + the name in upper case with `_` for `.`.
    pub name: &'static str,
    /// May hold `{stores}`, for how their addresses are written.
    meaning: &'static str,
    /// What the example file shows where the default depends on the machine or is absent.
    example: Option<&'static str>,
    slot: fn(&mut Config) -> Slot<'_>,
}

/// Where a setting lives, and what it may hold.
enum Slot<'a> {
    Text(&'a mut String),
    /// May hold a password: never repeated in a message.
    Store(&'a mut String),
    Address(&'a mut String),
    OptionalAddress(&'a mut Option<String>),
    Path(&'a mut Option<PathBuf>),
    Count(&'a mut usize, usize, usize),
    Bytes(&'a mut usize, usize),
    Time(&'a mut Micros, Micros, Micros),
}

const YEAR: Micros = 365 * DAY;

/// What this build can open.
pub const WAREHOUSE: &str = if cfg!(any(feature = "s3", feature = "gcs", feature = "azure")) {
    "Directory or object-store URL (such as s3://bucket/prefix) that holds everything."
} else {
    "Directory that holds everything."
};

macro_rules! setting {
    ($name:literal, $slot:expr, $meaning:literal) => {
        Setting { name: $name, meaning: $meaning, example: None, slot: $slot }
    };
    ($name:literal, $slot:expr, $meaning:literal, $example:literal) => {
        Setting { name: $name, meaning: $meaning, example: Some($example), slot: $slot }
    };
}

pub const SETTINGS: &[Setting] = &[
    Setting { name: "warehouse", meaning: WAREHOUSE, example: None, slot: |c| Slot::Text(&mut c.warehouse) },
    setting!("schema", |c| Slot::Text(&mut c.schema), "Schema that bare names mean at the start of a session."),
    setting!("online", |c| Slot::Store(&mut c.online), "Online store: {stores}. Keep passwords in REMIGE_ONLINE."),
    setting!(
        "memory_limit",
        |c| Slot::Bytes(&mut c.memory_limit, 16 << 20),
        "Memory for sorting, joining and buffering. Default: half of the machine's.",
        "4GB"
    ),
    setting!(
        "threads",
        |c| Slot::Count(&mut c.threads, 1, 1024),
        "Partitions that a query works on at once. Default: the number of cores.",
        "4"
    ),
    setting!(
        "spill_dir",
        |c| Slot::Path(&mut c.spill_dir),
        "Where operators put what does not fit into memory. Default: the system's temporary directory.",
        "/tmp"
    ),
    setting!("batch_size", |c| Slot::Count(&mut c.batch_size, 16, 1 << 20), "Rows per batch inside the engine."),
    setting!(
        "stall_timeout",
        |c| Slot::Time(&mut c.stall_timeout, 0, YEAR),
        "A statement that made no row, computed nothing and waited for no store for this long ends with an error; 0: never."
    ),
    setting!(
        "max_relations",
        |c| Slot::Count(&mut c.max_relations, 1, 1 << 20),
        "Tables that one statement may read; each view and WITH query counts with all that it reads."
    ),
    setting!(
        "statement_timeout",
        |c| Slot::Time(&mut c.statement_timeout, 0, YEAR),
        "A statement that takes longer, planning and the reading of its rows included, is ended; 0s: none is. Lookups have online_settings.lookup_deadline."
    ),
    setting!(
        "clock_tolerance",
        |c| Slot::Time(&mut c.clock_tolerance, 0, YEAR),
        "Rows with an event timestamp further in the future than this are rejected."
    ),
    setting!("target_file_rows", |c| Slot::Count(&mut c.target_file_rows, 1, 1 << 32), "Rows per data file written."),
    setting!("row_group_rows", |c| Slot::Count(&mut c.row_group_rows, 1, 1 << 24), "Rows per row group of a data file."),
    setting!(
        "online_settings.timeout",
        |c| Slot::Time(&mut c.online_settings.timeout, MIN_TIMEOUT, HOUR),
        "Connection to the online store, and the answer to one command, must come within this time."
    ),
    setting!(
        "online_settings.lookup_deadline",
        |c| Slot::Time(&mut c.online_settings.lookup_deadline, MIN_TIMEOUT, HOUR),
        "A whole lookup must be answered within this time."
    ),
    setting!(
        "online_settings.catalog_max_age",
        |c| Slot::Time(&mut c.online_settings.catalog_max_age, 0, HOUR),
        "A lookup uses a catalog at most this old."
    ),
    setting!(
        "online_settings.kept_plans",
        |c| Slot::Count(&mut c.online_settings.kept_plans, 1, 1 << 20),
        "Lookups whose plans are kept, so that a request need not be planned."
    ),
    setting!(
        "online_settings.read_connections",
        |c| Slot::Count(&mut c.online_settings.redis.read_connections, 1, 64),
        "Connections for lookups to each server of the online store."
    ),
    setting!(
        "online_settings.tls_ca",
        |c| Slot::Path(&mut c.online_settings.redis.tls_ca),
        "Certificates of the authorities that signed the online store's (PEM file), for rediss://. Default: the system's.",
        "redis-ca.crt"
    ),
    setting!(
        "online_settings.tls_cert",
        |c| Slot::Path(&mut c.online_settings.redis.tls_cert),
        "Our certificate, where the online store asks clients for one (PEM file).",
        "redis-client.crt"
    ),
    setting!("online_settings.tls_key", |c| Slot::Path(&mut c.online_settings.redis.tls_key), "Its key (PEM file).", "redis-client.key"),
    setting!(
        "online_settings.read_chunk",
        |c| Slot::Count(&mut c.online_settings.redis.read_chunk, 1, 100_000),
        "Keys in one read command."
    ),
    setting!(
        "online_settings.write_chunk",
        |c| Slot::Count(&mut c.online_settings.redis.write_chunk, 1, 100_000),
        "Rows in one write command."
    ),
    setting!("online_settings.max_keys", |c| Slot::Count(&mut c.online_settings.max_keys, 1, 1 << 30), "Keys that one lookup may ask for."),
    setting!(
        "online_settings.max_window_events",
        |c| Slot::Count(&mut c.online_settings.max_window_events, 1, 1 << 20),
        "Events of one key in a window without steps, or different values of count(DISTINCT) and top_k, beyond which a lookup answers OVER_LIMIT."
    ),
    setting!(
        "online_settings.embedded_cache",
        |c| Slot::Bytes(&mut c.online_settings.embedded.cache, 1 << 20),
        "Cache of one file of the embedded online store."
    ),
    setting!(
        "online_settings.cache_bytes",
        |c| Slot::Bytes(&mut c.online_settings.cache_bytes, 0),
        "Cache of hot rows in front of the online store; 0: none."
    ),
    setting!(
        "online_settings.cache_freshness",
        |c| Slot::Time(&mut c.online_settings.cache_freshness, MILLISECOND, HOUR),
        "Hot rows are answered from that cache for this long; what other processes write is seen after it."
    ),
    setting!(
        "online_settings.generation_grace",
        |c| Slot::Time(&mut c.online_settings.generation_grace, 0, 30 * DAY),
        "How long an old generation stays readable after a switch."
    ),
    setting!(
        "online_settings.tombstone_retention",
        |c| Slot::Time(&mut c.online_settings.tombstone_retention, SECOND, 10 * YEAR),
        "How long the mark of a deleted key is kept."
    ),
    setting!(
        "online_settings.concurrent_loads",
        |c| Slot::Count(&mut c.online_settings.concurrent_loads, 1, 1024),
        "Feature views that this process loads whole at once; further ones wait."
    ),
    setting!(
        "online_settings.sweep_every",
        |c| Slot::Time(&mut c.online_settings.sweep_every, 0, DAY),
        "How often a server removes online rows that nobody reads any more, and applies stored ones that are due; 0s: never."
    ),
    setting!(
        "push.commit_interval",
        |c| Slot::Time(&mut c.push.commit_interval, 0, 10 * SECOND),
        "How long an INSERT into a push view waits for others to share its commit; 0s: only for the commit before it."
    ),
    setting!(
        "maintenance.optimize_every",
        |c| Slot::Time(&mut c.maintenance.optimize_every, 0, YEAR),
        "How often a server looks whether feature views want OPTIMIZE; 0s: never."
    ),
    setting!(
        "maintenance.optimize_files",
        |c| Slot::Count(&mut c.maintenance.optimize_files, 1, 1 << 20),
        "A server does OPTIMIZE where at least so many files want it."
    ),
    setting!(
        "maintenance.crowded_commits",
        |c| Slot::Count(&mut c.maintenance.crowded_commits, 0, 1 << 20),
        "A server does OPTIMIZE at once where INSERTs into a push view have made so many commits; 0: it waits for its time."
    ),
    setting!(
        "maintenance.vacuum_every",
        |c| Slot::Time(&mut c.maintenance.vacuum_every, 0, YEAR),
        "How often a server does VACUUM of each feature view; 0s: never."
    ),
    setting!(
        "maintenance.retain",
        |c| Slot::Time(&mut c.maintenance.retain, MIN_RETAIN, 100 * YEAR),
        "How long old versions stay readable where VACUUM does not say."
    ),
    setting!(
        "schedule.check_every",
        |c| Slot::Time(&mut c.schedule.check_every, 0, HOUR),
        "How often a server looks for feature views whose REFRESH EVERY is due; 0s: it runs no schedules."
    ),
    setting!(
        "schedule.concurrency",
        |c| Slot::Count(&mut c.schedule.concurrency, 1, 1024),
        "Feature views that a server refreshes and materializes at once."
    ),
    setting!(
        "schedule.retry_first",
        |c| Slot::Time(&mut c.schedule.retry_first, SECOND, 30 * DAY),
        "A scheduled run that failed is tried again after this time, then after twice as long each time."
    ),
    setting!("schedule.retry_max", |c| Slot::Time(&mut c.schedule.retry_max, SECOND, 30 * DAY), "The longest time between two tries."),
    setting!("server.listen", |c| Slot::Address(&mut c.server.listen), "Address of the Flight SQL endpoint; port 0 picks a free one."),
    setting!(
        "server.tls_cert",
        |c| Slot::Path(&mut c.server.tls_cert),
        "Certificate (PEM); needed, with tls_key, to listen beyond this machine.",
        "server.crt"
    ),
    setting!("server.tls_key", |c| Slot::Path(&mut c.server.tls_key), "Private key (PEM) of tls_cert.", "server.key"),
    setting!(
        "server.metrics",
        |c| Slot::OptionalAddress(&mut c.server.metrics),
        "Address of the Prometheus endpoint (/metrics). Default: none.",
        "127.0.0.1:9815"
    ),
    setting!(
        "server.freshness_every",
        |c| Slot::Time(&mut c.server.freshness_every, 0, DAY),
        "How often a server with such an endpoint measures the freshness of every feature view; 0s: never."
    ),
    setting!(
        "server.shutdown_grace",
        |c| Slot::Time(&mut c.server.shutdown_grace, 0, HOUR),
        "How long running statements may go on after a SIGTERM."
    ),
    setting!("server.max_sessions", |c| Slot::Count(&mut c.server.max_sessions, 1, 1 << 24), "Sessions at once."),
    setting!("server.max_prepared", |c| Slot::Count(&mut c.server.max_prepared, 1, 1 << 24), "Prepared statements kept at once."),
    setting!(
        "server.max_concurrent_statements",
        |c| Slot::Count(&mut c.server.max_concurrent_statements, 1, 1 << 16),
        "Statements that run at once."
    ),
    setting!(
        "server.max_concurrent_lookups",
        |c| Slot::Count(&mut c.server.max_concurrent_lookups, 1, 1 << 16),
        "Lookups that run at once, beside other statements."
    ),
    setting!("server.max_statement_bytes", |c| Slot::Bytes(&mut c.server.max_statement_bytes, 1024), "Length of one statement's text."),
    setting!(
        "server.max_request_bytes",
        |c| Slot::Bytes(&mut c.server.max_request_bytes, 64 << 10),
        "Size of one message received that carries no rows."
    ),
    setting!(
        "server.max_message_bytes",
        |c| Slot::Bytes(&mut c.server.max_message_bytes, 64 << 10),
        "Size of one message of rows received, also once it is unpacked."
    ),
    setting!("server.max_parameter_bytes", |c| Slot::Bytes(&mut c.server.max_parameter_bytes, 1024), "Parameters bound at once."),
    setting!(
        "server.handle_ttl",
        |c| Slot::Time(&mut c.server.handle_ttl, SECOND, 30 * DAY),
        "A prepared statement or result that nobody asks for is forgotten after this time."
    ),
    setting!("server.max_connections", |c| Slot::Count(&mut c.server.max_connections, 1, 1 << 20), "Connections at once."),
    setting!(
        "server.handshake_timeout",
        |c| Slot::Time(&mut c.server.handshake_timeout, 100 * MILLISECOND, HOUR),
        "A connection must finish TLS and begin HTTP/2 within this time."
    ),
    setting!(
        "server.idle_timeout",
        |c| Slot::Time(&mut c.server.idle_timeout, 100 * MILLISECOND, 30 * DAY),
        "A connection without a call is closed after this time."
    ),
    setting!(
        "server.message_timeout",
        |c| Slot::Time(&mut c.server.message_timeout, 100 * MILLISECOND, HOUR),
        "A message that a client has begun must be whole within this time, and a second more per MiB."
    ),
    setting!(
        "server.sender_timeout",
        |c| Slot::Time(&mut c.server.sender_timeout, 100 * MILLISECOND, DAY),
        "A client that sends rows must send more, or end, within this time."
    ),
    setting!(
        "server.reader_timeout",
        |c| Slot::Time(&mut c.server.reader_timeout, 100 * MILLISECOND, DAY),
        "A result that its client does not read on is ended after this time."
    ),
];

impl Setting {
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|s| s.name == name)
    }

    pub fn meaning(&self) -> String {
        self.meaning.replace("{stores}", &OnlineKind::forms())
    }

    /// `REMIGE_SERVER_LISTEN`
    pub fn variable(&self) -> String {
        format!("REMIGE_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// Parses `value` into the setting's place; the error says what the value must be and does not repeat secrets.
    pub(super) fn set(&self, config: &mut Config, value: &str) -> Result<(), String> {
        let value = value.trim();
        let seen = |rule: String| format!("{rule}, not {value:?}");
        match (self.slot)(config) {
            Slot::Text(to) if value.is_empty() => Err(format!("must not be empty; leave it out for {to:?}")),
            Slot::Text(to) => store(to, Ok(value.to_string())),
            Slot::Store(to) => store(to, check_store(value)),
            Slot::Address(to) => store(to, check_address(value).map_err(seen)),
            Slot::OptionalAddress(to) => store(to, check_address(value).map(Some).map_err(seen)),
            Slot::Path(_) if value.is_empty() => Err("must be a path; leave it out for the default".into()),
            Slot::Path(to) => store(to, Ok(Some(PathBuf::from(value)))),
            Slot::Count(to, low, high) => {
                let parsed = value.replace('_', "").parse().ok().filter(|v| (low..=high).contains(v));
                store(to, parsed.ok_or_else(|| seen(format!("must be a whole number from {low} to {high}"))))
            }
            Slot::Bytes(to, low) => store(
                to,
                parse_bytes(value)
                    .map_err(seen)
                    .and_then(|v| if v < low { Err(seen(format!("must be at least {}", show_bytes(low)))) } else { Ok(v) }),
            ),
            Slot::Time(to, low, high) => store(
                to,
                parse_duration(value).map_err(seen).and_then(|v| {
                    let range = || seen(format!("must be from {} to {}", show_duration(low), show_duration(high)));
                    if (low..=high).contains(&v) { Ok(v) } else { Err(range()) }
                }),
            ),
        }
    }

    /// The value as the file would write it; `None`: not set.
    pub(super) fn toml_value(&self, config: &mut Config) -> Option<String> {
        match (self.slot)(config) {
            Slot::Text(v) | Slot::Store(v) | Slot::Address(v) => Some(quoted(v)),
            Slot::OptionalAddress(v) => v.as_deref().map(quoted),
            Slot::Path(v) => v.as_ref().map(|p| quoted(&p.to_string_lossy())),
            Slot::Count(v, ..) => Some(v.to_string()),
            Slot::Bytes(v, _) => Some(quoted(&show_bytes(*v))),
            Slot::Time(v, ..) => Some(quoted(&show_duration(*v))),
        }
    }

    /// The value for people to read, without a password; `None`: not set.
    pub fn shown(&self, config: &Config) -> Option<String> {
        let mut config = config.clone();
        match (self.slot)(&mut config) {
            Slot::Store(v) => Some(super::without_credentials(v)),
            Slot::Text(v) | Slot::Address(v) => Some(v.clone()),
            Slot::OptionalAddress(v) => v.clone(),
            Slot::Path(v) => v.as_ref().map(|p| p.display().to_string()),
            Slot::Count(v, ..) => Some(v.to_string()),
            Slot::Bytes(v, _) => Some(show_bytes(*v)),
            Slot::Time(v, ..) => Some(show_duration(*v)),
        }
    }

    fn example_value(&self, defaults: &mut Config) -> String {
        let number = matches!((self.slot)(defaults), Slot::Count(..));
        match self.example {
            Some(example) if number => example.to_string(),
            Some(example) => quoted(example),
            None => self.toml_value(defaults).unwrap_or_default(),
        }
    }
}

/// The text of a `remige.toml` in which every setting stands as a comment, with its default.
pub fn example_file() -> String {
    let mut text = String::from(
        "# Settings of Remige. A flag wins over an environment variable, that over this file, this file over the default.\n\
         # Every setting NAME is also a variable REMIGE_NAME (with _ for the dot: REMIGE_SERVER_LISTEN) and a flag --set NAME=VALUE.\n\
         # Relative paths start at the directory in which remige runs.\n",
    );
    let mut defaults = Config::default();
    let mut section = "";
    for setting in SETTINGS {
        let (of, key) = setting.name.split_once('.').unwrap_or(("", setting.name));
        if of != section {
            text.push_str(&format!("\n[{of}]\n"));
            section = of;
        }
        text.push_str(&format!("\n# {}\n# {key} = {}\n", setting.meaning(), setting.example_value(&mut defaults)));
    }
    text
}

fn store<T>(to: &mut T, value: Result<T, String>) -> Result<(), String> {
    *to = value?;
    Ok(())
}

fn check_store(value: &str) -> Result<String, String> {
    super::stores::check(value).map(|()| value.to_string())
}

fn check_address(value: &str) -> Result<String, String> {
    match value.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(value.to_string()),
        _ => Err("must be HOST:PORT such as 127.0.0.1:8815".into()),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names of all fields, as `Debug` shows them. Settings of one kind of online store are named as they were when
    /// there was one list of all kinds.
    fn fields() -> BTreeSet<String> {
        let (mut section, mut kind) = (String::new(), "");
        let mut names = BTreeSet::new();
        for line in format!("{:#?}", Config::default()).lines() {
            let Some((name, rest)) = line.trim_start().split_once(": ") else { continue };
            match line.len() - line.trim_start().len() {
                4 if rest.ends_with("Settings {") => section = format!("{name}."),
                4 => assert!(names.insert(name.to_string())),
                8 if rest == "EmbeddedSettings {" => kind = "embedded_",
                8 if rest == "RedisSettings {" => kind = "",
                8 => assert!(names.insert(format!("{section}{name}"))),
                12 if section == "online_settings." && !rest.starts_with('"') => assert!(names.insert(format!("{section}{kind}{name}"))),
                _ => {}
            }
        }
        names
    }

    #[test]
    fn every_field_is_a_setting() {
        let listed: BTreeSet<String> = SETTINGS.iter().map(|s| s.name.to_string()).collect();
        assert_eq!(listed, fields());
        assert_eq!(listed.len(), SETTINGS.len());
    }

    #[test]
    fn defaults_keep_their_own_limits() {
        for setting in SETTINGS {
            let mut config = Config::default();
            let Some(shown) = setting.toml_value(&mut config) else { continue };
            setting.set(&mut config, shown.trim_matches('"')).unwrap_or_else(|e| panic!("{}: {e}", setting.name));
            assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()), "{}", setting.name);
        }
    }

    #[test]
    fn the_example_file_states_every_setting_and_its_default() {
        let text: String =
            example_file().lines().map(|l| if l.contains(" = ") { l.trim_start_matches("# ") } else { l }.to_string() + "\n").collect();
        let mut loaded = super::super::load_text("remige.toml", &text).unwrap();
        let mut defaults = Config::default();
        for setting in SETTINGS {
            let seen = setting.toml_value(&mut loaded);
            assert!(seen.is_some(), "{}", setting.name);
            if setting.example.is_none() {
                assert_eq!(seen, setting.toml_value(&mut defaults), "{}", setting.name);
            }
        }
    }
}
