//! The Redis store (one server): a STRING key per row, MGET with the pointer, a script that compares.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, Script, ScriptInvocation, ServerErrorKind, cmd, pipe};

use super::redis_keys::{ADVANCE, CONDEMN, Keys, PUBLISH, PUT, pattern};
use super::{KeysOf, OnlineStore, OnlineView, Pointer, PutKind, PutRow, PutStats, RowsOf, WriteClaim};
use crate::clock::{Clock, MILLISECOND};
use crate::config::{MIN_TIMEOUT, OnlineSettings};
use crate::error::{Error, Result};

const SCAN_COUNT: usize = 1000;

pub struct RedisStore {
    /// Without password.
    pub(super) url: String,
    /// Lookups; bulk writes go their own way, so that they hold up no lookup.
    pub(super) reads: ConnectionManager,
    writes: ConnectionManager,
    pub(super) read_chunk: usize,
    write_chunk: usize,
    clock: Clock,
    /// The generation last seen as current; readers guess it and check the pointer they read along.
    pub(super) generations: RwLock<HashMap<OnlineView, u32>>,
    scripts: Scripts,
}

struct Scripts {
    put: Script,
    advance: Script,
    publish: Script,
    condemn: Script,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("url", &self.url).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Prepares connections to `redis://[user:password@]host[:port][/db]`; waits for nothing.
    pub fn connect(url: &str, settings: &OnlineSettings, clock: Clock) -> Result<Self> {
        let bad = |why: String| {
            Error::invalid(format!("the address of the online store (redis://…) is wrong: {why}"))
                .with_hint("write redis://host:port, or redis://user:password@host:port/db")
        };
        let mut shown = url::Url::parse(url).map_err(|e| bad(e.to_string()))?;
        // A url without a host cannot have a user either.
        let _ = (shown.set_password(None), shown.set_username(""));
        let info = url.into_connection_info().map_err(|e| bad(e.category().to_string()))?;
        let client =
            Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true))).map_err(|e| bad(e.category().to_string()))?;
        let timeout = Duration::from_micros(settings.timeout.max(MIN_TIMEOUT) as u64);
        let manager = || {
            let config = ConnectionManagerConfig::new()
                .set_number_of_retries(0)
                .set_connection_timeout(Some(timeout))
                .set_response_timeout(Some(timeout));
            client.get_connection_manager_lazy(config).map_err(|e| bad(e.category().to_string()))
        };
        Ok(RedisStore {
            url: shown.as_str().trim_end_matches('/').to_string(),
            reads: manager()?,
            writes: manager()?,
            read_chunk: settings.read_chunk.max(1),
            write_chunk: settings.write_chunk.max(1),
            clock,
            generations: RwLock::default(),
            scripts: Scripts {
                put: Script::new(PUT),
                advance: Script::new(ADVANCE),
                publish: Script::new(PUBLISH),
                condemn: Script::new(CONDEMN),
            },
        })
    }

    fn error(&self, e: RedisError) -> Error {
        let text = e.to_string();
        match e.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => self.denied(&text),
            _ if matches!(e.code(), Some("NOAUTH" | "WRONGPASS")) => self.denied(&text),
            _ if text.contains("\"OOM\"") || text.contains("OOM command not allowed") => {
                Error::exhausted(format!("the online store {} is out of memory; what it held before is served on", self.url))
                    .with_hint("raise maxmemory of the server (two generations of the largest view must fit) and run the statement again")
            }
            ErrorKind::Io => Error::unavailable(format!("cannot reach the online store {}: {text}", self.url))
                .with_hint("check that the server runs and that the address is right"),
            ErrorKind::Server(
                ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ReadOnly | ServerErrorKind::TryAgain,
            ) => Error::unavailable(format!("the online store {} is not ready: {text}", self.url)),
            _ => Error::internal(format!("the online store {} answers: {text}", self.url)),
        }
    }

    fn denied(&self, text: &str) -> Error {
        Error::denied(format!("the online store {} refuses us: {text}", self.url))
            .with_hint("check user, password and permissions in its address")
    }

    fn dropped(&self, view: &OnlineView, generation: u32) -> Error {
        Error::conflict(format!(
            "generation {generation} of view {} is gone from the online store {}: it was dropped, or the store was emptied",
            view.online_id, self.url
        ))
        .with_hint("run MATERIALIZE again")
    }

    /// Runs a command that may be repeated: once more where the connection had been lost.
    pub(super) async fn ask<T: FromRedisValue>(&self, connection: &ConnectionManager, command: &Cmd) -> Result<T> {
        let mut c = connection.clone();
        let first = command.query_async(&mut c).await;
        let answer = match first {
            Err(e) if is_lost(&e) => command.query_async(&mut c).await,
            answer => answer,
        };
        answer.map_err(|e| self.error(e))
    }

    /// Runs a script that may be repeated.
    async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T> {
        let mut c = self.writes.clone();
        let first = script.invoke_async(&mut c).await;
        let answer = match first {
            Err(e) if is_lost(&e) => script.invoke_async(&mut c).await,
            answer => answer,
        };
        answer.map_err(|e| self.error(e))
    }

    /// Runs a script that must not be repeated; a connection lost earlier is noticed first.
    async fn run_once<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T> {
        self.ask::<()>(&self.writes, &cmd("PING")).await?;
        script.invoke_async(&mut self.writes.clone()).await.map_err(|e| self.error(e))
    }

    pub(super) fn parse_pointer(&self, view: &OnlineView, text: Option<&[u8]>) -> Result<Option<Pointer>> {
        text.map(serde_json::from_slice).transpose().map_err(|e| {
            Error::internal(format!("the online pointer of view {} in {} is damaged: {e}", view.online_id, self.url))
                .with_hint("MATERIALIZE FEATURE VIEW … FULL after DEL of its key")
        })
    }

    pub(super) fn parse_watermark(&self, text: &[u8]) -> Result<u64> {
        std::str::from_utf8(text)
            .ok()
            .and_then(|t| t.parse().ok())
            .ok_or_else(|| Error::internal(format!("a watermark in the online store {} is no number", self.url)))
    }

    /// One page of the keys that begin with `prefix`, and the cursor of the next; begin with 0.
    async fn scan(&self, prefix: &str, cursor: u64) -> Result<(Option<u64>, Vec<Vec<u8>>)> {
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern(prefix)).arg("COUNT").arg(SCAN_COUNT);
        let (next, mut keys): (u64, Vec<Vec<u8>>) = self.ask(&self.writes, &command).await?;
        keys.retain(|k| k.starts_with(prefix.as_bytes()));
        Ok(((next != 0).then_some(next), keys))
    }

    async fn unlink(&self, keys: &[Vec<u8>]) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        self.ask(&self.writes, cmd("UNLINK").arg(keys)).await
    }

    async fn load_chunk(&self, view: &OnlineView, generation: u32, rows: &[PutRow]) -> Result<()> {
        let names = Keys::new(view);
        let mut pipeline = pipe();
        for r in rows {
            let set = pipeline.cmd("SET").arg(names.row(generation, &r.key)).arg(&r.row);
            if let Some(at) = r.expire_at {
                set.arg("PXAT").arg(at / MILLISECOND);
            }
            set.ignore();
        }
        // Last, so that it holds for all of them.
        pipeline.cmd("SISMEMBER").arg(names.generations()).arg(generation);
        let mut c = self.writes.clone();
        let first: Result<(bool,), _> = pipeline.query_async(&mut c).await;
        let answer = match first {
            Err(e) if is_lost(&e) => pipeline.query_async(&mut c).await,
            answer => answer,
        };
        match answer.map_err(|e| self.error(e))? {
            (true,) => Ok(()),
            (false,) => {
                let written: Vec<_> = rows.iter().map(|r| names.row(generation, &r.key)).collect();
                self.unlink(&written).await?;
                Err(self.dropped(view, generation))
            }
        }
    }
}

fn is_lost(e: &RedisError) -> bool {
    e.is_io_error() && !e.is_timeout()
}

#[async_trait]
impl OnlineStore for RedisStore {
    fn describe(&self) -> String {
        self.url.clone()
    }

    async fn check(&self) -> Result<Vec<String>> {
        self.ask::<()>(&self.reads, &cmd("PING")).await?;
        let info: String = self.ask(&self.reads, &cmd("INFO")).await?;
        let field = |name: &str| info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let mut warnings = vec![];
        let version = field("redis_version").unwrap_or("0");
        let mut parts = version.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
        if (parts.next(), parts.next()) < (Some(6), Some(2)) {
            warnings.push(format!("the online store {} runs Redis {version}; rows that expire need 6.2 or newer", self.url));
        }
        match field("maxmemory_policy") {
            Some(policy) if policy != "noeviction" => warnings.push(format!(
                "the online store {} has maxmemory-policy {policy}: when it is full, features vanish as if they had never been; set noeviction",
                self.url
            )),
            _ => (),
        }
        if let Some(evicted) = field("evicted_keys").filter(|n| *n != "0") {
            warnings.push(format!("the online store {} has evicted {evicted} keys since it started; features may be missing", self.url));
        }
        Ok(warnings)
    }

    async fn claim(&self, _view: &OnlineView) -> Result<WriteClaim> {
        self.ask::<()>(&self.writes, &cmd("PING")).await?;
        Ok(WriteClaim(None))
    }

    async fn pointer(&self, view: &OnlineView) -> Result<Option<Pointer>> {
        let text: Option<Vec<u8>> = self.ask(&self.reads, cmd("GET").arg(Keys::new(view).pointer())).await?;
        self.parse_pointer(view, text.as_deref())
    }

    async fn get_batch(&self, requests: &[KeysOf<'_>]) -> Result<Vec<RowsOf>> {
        self.read_batch(requests).await
    }

    async fn begin_generation(&self, view: &OnlineView) -> Result<u32> {
        let names = Keys::new(view);
        let current = self.pointer(view).await?.map_or(0, |p| p.generation);
        loop {
            let number: u32 = self.ask(&self.writes, cmd("INCR").arg(names.next())).await?;
            if number > current {
                self.ask::<()>(&self.writes, cmd("SADD").arg(names.generations()).arg(number)).await?;
                return Ok(number);
            }
            // The counter was lost (an evicted key), the pointer was not.
            self.ask::<()>(&self.writes, cmd("SET").arg(names.next()).arg(current)).await?;
        }
    }

    async fn load(&self, view: &OnlineView, generation: u32, mut rows: Vec<PutRow>) -> Result<u64> {
        let now = self.clock.now();
        rows.retain(|r| r.expire_at.is_none_or(|at| at > now));
        for chunk in rows.chunks(self.write_chunk) {
            self.load_chunk(view, generation, chunk).await?;
        }
        Ok(rows.len() as u64)
    }

    async fn put(&self, view: &OnlineView, generation: u32, rows: Vec<PutRow>) -> Result<PutStats> {
        let names = Keys::new(view);
        let mut stats = PutStats::default();
        for chunk in rows.chunks(self.write_chunk) {
            let mut call = self.scripts.put.prepare_invoke();
            call.key(names.generations()).arg(generation);
            for r in chunk {
                call.key(names.row(generation, &r.key)).arg(&r.row).arg(match r.kind {
                    PutKind::Offer => "o",
                    PutKind::State => "s",
                });
                match r.expire_at {
                    Some(at) => call.arg(at / MILLISECOND),
                    None => call.arg(""),
                };
            }
            let written: i64 = self.run(&call).await?;
            let written = u64::try_from(written).map_err(|_| self.dropped(view, generation))?;
            stats.written += written;
            stats.skipped += chunk.len() as u64 - written;
        }
        Ok(stats)
    }

    async fn watermark(&self, view: &OnlineView, generation: u32) -> Result<Option<u64>> {
        let text: Option<Vec<u8>> = self.ask(&self.writes, cmd("GET").arg(Keys::new(view).watermark(generation))).await?;
        text.map(|t| self.parse_watermark(&t)).transpose()
    }

    async fn advance_watermark(&self, view: &OnlineView, generation: u32, from: Option<u64>, to: u64) -> Result<bool> {
        if from.is_some_and(|f| to <= f) {
            return Ok(false);
        }
        let names = Keys::new(view);
        let mut call = self.scripts.advance.prepare_invoke();
        call.key(names.generations()).key(names.watermark(generation));
        call.arg(generation).arg(from.map_or(String::new(), |f| f.to_string())).arg(to);
        match self.run_once::<i64>(&call).await? {
            -1 => Err(self.dropped(view, generation)),
            moved => Ok(moved == 1),
        }
    }

    async fn publish(&self, view: &OnlineView, expected: Option<u32>, pointer: &Pointer) -> Result<bool> {
        let names = Keys::new(view);
        let text = serde_json::to_string(pointer).map_err(|e| Error::internal(e.to_string()))?;
        let mut call = self.scripts.publish.prepare_invoke();
        call.key(names.generations()).key(names.pointer());
        call.arg(pointer.generation).arg(expected.map_or(String::new(), |g| g.to_string())).arg(text);
        match self.run_once::<i64>(&call).await? {
            -1 => Err(self.dropped(view, pointer.generation)),
            switched => Ok(switched == 1),
        }
    }

    async fn generations(&self, view: &OnlineView) -> Result<Vec<u32>> {
        let names = Keys::new(view);
        let mut found: Vec<u32> = self.ask(&self.writes, cmd("SUNION").arg(names.generations()).arg(names.dying())).await?;
        found.sort_unstable();
        Ok(found)
    }

    async fn drop_generation(&self, view: &OnlineView, generation: u32) -> Result<u64> {
        let names = Keys::new(view);
        let mut call = self.scripts.condemn.prepare_invoke();
        call.key(names.generations()).key(names.dying()).key(names.pointer()).key(names.watermark(generation)).arg(generation);
        if self.run::<i64>(&call).await? < 0 {
            return Err(Error::invalid(format!("generation {generation} is current")).with_hint("publish another one first"));
        }
        let mut removed = 0;
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let (next, keys) = self.scan(&names.generation(generation), at).await?;
            removed += self.unlink(&keys).await?;
            cursor = next;
        }
        self.ask::<()>(&self.writes, cmd("SREM").arg(names.dying()).arg(generation)).await?;
        Ok(removed)
    }

    async fn drop_view(&self, view: &OnlineView) -> Result<u64> {
        let names = Keys::new(view);
        self.generations.write().remove(view);
        // First what readers and writers need, so that neither sees half a view.
        self.ask::<()>(&self.writes, cmd("UNLINK").arg(names.pointer()).arg(names.generations())).await?;
        let mut removed = 0;
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let (next, keys) = self.scan(names.view(), at).await?;
            let (rows, rest): (Vec<_>, Vec<_>) = keys.into_iter().partition(|k| names.is_row(k));
            removed += self.unlink(&rows).await?;
            self.unlink(&rest).await?;
            cursor = next;
        }
        Ok(removed)
    }

    async fn stats(&self, view: &OnlineView, generation: u32) -> Result<(u64, u64)> {
        let prefix = Keys::new(view).generation(generation);
        let (mut count, mut bytes) = (0, 0);
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let (next, keys) = self.scan(&prefix, at).await?;
            cursor = next;
            if keys.is_empty() {
                continue;
            }
            let mut pipeline = pipe();
            for k in &keys {
                pipeline.cmd("STRLEN").arg(k);
            }
            let lengths: Vec<u64> = pipeline.query_async(&mut self.writes.clone()).await.map_err(|e| self.error(e))?;
            count += keys.len() as u64;
            bytes += lengths.iter().sum::<u64>() + keys.iter().map(|k| k.len() as u64).sum::<u64>();
        }
        Ok((count, bytes))
    }
}
