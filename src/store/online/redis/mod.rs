//! The Redis store: a STRING key per row, read together with the pointer; scripts that compare.
//!
//! `link` carries commands to the server that has their keys, one server or a cluster; nothing above
//! it knows more than whether one call reaches several servers.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use redis::{Cmd, FromRedisValue, Value, cmd, from_redis_value};

use super::{Health, KeysOf, OnlineStore, OnlineView, Opening, Pointer, PutRow, PutStats, RowPage, RowsOf, WriteClaim};
use crate::clock::Clock;
use crate::config::OnlineSettings;
use crate::error::{Error, Result};
use address::Address;
use fault::Fault;
use keys::Keys;
use link::{Link, Repeat};
use node::{Connector, Lane};
use read::Known;
use scripts::Scripts;

mod address;
mod check;
mod fault;
mod keys;
mod link;
mod map;
mod node;
mod read;
mod scan;
mod scripts;
mod server_watermarks;
#[cfg(test)]
mod tests;
mod write;

pub struct RedisStore {
    link: Arc<Link>,
    read_chunk: usize,
    write_chunk: usize,
    clock: Clock,
    /// What was last seen as current; readers guess that it still is and check the pointer they read along.
    known: RwLock<HashMap<OnlineView, Arc<Known>>>,
    scripts: Scripts,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("url", &self.link.shown()).finish_non_exhaustive()
    }
}

/// As the list of stores opens it.
pub(super) fn open(opening: Opening<'_>) -> Result<Arc<dyn OnlineStore>> {
    Ok(Arc::new(RedisStore::connect(opening.address, opening.settings, opening.clock)?))
}

impl RedisStore {
    /// Prepares connections to the address (see `address.rs`); waits for nothing.
    pub fn connect(url: &str, settings: &OnlineSettings, clock: Clock) -> Result<Self> {
        let address = Address::parse(url)?;
        let connector = Connector::new(&address, settings)?;
        let scripts = Scripts::default();
        let bad = format!("the online store {} cannot be used", address.shown);
        let link = Link::new(address, connector, scripts.all()).map_err(|e| Error::invalid(format!("{bad}: {}", e.category())))?;
        Ok(RedisStore {
            link: Arc::new(link),
            read_chunk: settings.redis.read_chunk.max(1),
            write_chunk: settings.redis.write_chunk.max(1),
            clock,
            known: RwLock::default(),
            scripts,
        })
    }

    fn names(&self, view: &OnlineView) -> Keys {
        Keys::new(view, self.link.is_cluster())
    }

    fn fault(&self, fault: Fault) -> Error {
        fault.into_error(self.link.shown(), self.link.shape(), self.link.user())
    }

    /// An answer that has the right form.
    fn form<T: FromRedisValue>(&self, value: Value) -> Result<T> {
        from_redis_value(value).map_err(|e| Error::internal(format!("the online store {} answers in another form: {e}", self.link.shown())))
    }

    /// Runs a command on the keys beside a view's rows.
    async fn ask<T: FromRedisValue>(&self, names: &Keys, command: &mut Cmd) -> Result<T> {
        let answer = self.link.ask(Lane::Load, names.slot(), command.take(), Repeat::Yes).await;
        self.form(answer.map_err(|f| self.fault(f))?)
    }

    /// Runs a script whose last argument says whether it may have run already, its answer lost.
    async fn step(&self, names: &Keys, call: Cmd) -> Result<i64> {
        let (mut first, mut again) = (call.clone(), call);
        first.arg("0");
        again.arg("1");
        let answer = match self.link.ask(Lane::Load, names.slot(), first, Repeat::No).await {
            Err(fault) if fault.is_lost() => self.link.ask(Lane::Load, names.slot(), again, Repeat::Yes).await,
            answer => answer,
        };
        self.form(answer.map_err(|f| self.fault(f))?)
    }

    fn dropped(&self, view: &OnlineView, generation: u32) -> Error {
        Error::conflict(format!(
            "generation {generation} of view {} is gone from the online store {}: it was dropped, or the store was emptied",
            view.online_id,
            self.link.shown()
        ))
        .with_hint("run MATERIALIZE again")
    }

    fn parse_pointer(&self, view: &OnlineView, text: Option<&[u8]>) -> Result<Option<Pointer>> {
        text.map(serde_json::from_slice).transpose().map_err(|e| {
            let key = self.names(view).pointer();
            Error::internal(format!("the online pointer of view {} in {} is damaged: {e}", view.online_id, self.link.shown()))
                .with_hint(format!("remove it (DEL {key}), then MATERIALIZE FEATURE VIEW … FULL"))
        })
    }

    fn parse_watermark(&self, key: &str, text: &[u8]) -> Result<u64> {
        std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or_else(|| {
            Error::internal(format!("the watermark in the online store {} is no number (key {key})", self.link.shown()))
                .with_hint("MATERIALIZE FEATURE VIEW … FULL writes a new generation with a watermark of its own")
        })
    }
}

#[async_trait]
impl OnlineStore for RedisStore {
    fn describe(&self) -> String {
        self.link.shown().to_string()
    }

    async fn check(&self) -> Result<Vec<String>> {
        self.look_over().await
    }

    fn forgets(&self) -> bool {
        true
    }

    async fn health(&self) -> Result<Option<Health>> {
        self.figures().await.map(Some)
    }

    async fn claim(&self, view: &OnlineView) -> Result<WriteClaim> {
        // Any command will do that the server of the pointer answers.
        self.ask::<i64>(&self.names(view), cmd("EXISTS").arg(self.names(view).pointer())).await?;
        Ok(WriteClaim(None))
    }

    async fn pointer(&self, view: &OnlineView) -> Result<Option<Pointer>> {
        let names = self.names(view);
        let text: Option<Vec<u8>> = self.ask(&names, cmd("GET").arg(names.pointer())).await?;
        self.parse_pointer(view, text.as_deref())
    }

    async fn get_batch(&self, requests: &[KeysOf<'_>]) -> Result<Vec<RowsOf>> {
        self.read_batch(requests).await
    }

    async fn begin_generation(&self, view: &OnlineView) -> Result<u32> {
        let names = self.names(view);
        let current = self.pointer(view).await?.map_or(0, |p| p.generation);
        loop {
            let number: u32 = self.ask(&names, cmd("INCR").arg(names.next())).await?;
            if number <= current {
                // The counter was lost (an evicted key), the pointer was not.
                self.ask::<()>(&names, cmd("SET").arg(names.next()).arg(current)).await?;
                continue;
            }
            // So may be numbers above the current one, of a load that was given up or is being removed.
            let dying: bool = self.ask(&names, cmd("SISMEMBER").arg(names.dying()).arg(number)).await?;
            // An answer that got lost may have said that it is ours: then the number is nobody's.
            let fresh = !dying && self.ask::<i64>(&names, cmd("SADD").arg(names.generations()).arg(number)).await? == 1;
            if fresh {
                self.note_view(view).await?;
                return Ok(number);
            }
        }
    }

    async fn load(&self, view: &OnlineView, generation: u32, mut rows: Vec<PutRow>) -> Result<u64> {
        let now = self.clock.now();
        rows.retain(|r| r.expire_at.is_none_or(|at| at > now));
        self.write_blind(view, generation, &rows).await?;
        Ok(rows.len() as u64)
    }

    async fn put(&self, view: &OnlineView, generation: u32, rows: Vec<PutRow>) -> Result<PutStats> {
        self.write_newer(view, generation, &rows, self.clock.now()).await
    }

    async fn watermark(&self, view: &OnlineView, generation: u32) -> Result<Option<u64>> {
        Ok(self.noted(&self.names(view), generation).await?.held)
    }

    async fn advance_watermark(&self, view: &OnlineView, generation: u32, from: Option<u64>, to: u64) -> Result<bool> {
        if from.is_some_and(|f| to <= f) {
            return Ok(false);
        }
        let names = self.names(view);
        let mut expected = from;
        if self.link.is_cluster() {
            let noted = self.noted(&names, generation).await?;
            if noted.held != from || noted.watermark.is_some_and(|w| w > to) {
                return Ok(false);
            }
            // some server has forgotten what it had, and has it again
            expected = noted.watermark;
            self.mark(&names, generation, to).await?;
        }
        self.replicated(&names).await?;
        let mut call = self.scripts.advance.call(2);
        call.arg(names.generations()).arg(names.watermark(generation));
        call.arg(generation).arg(expected.map_or(String::new(), |f| f.to_string())).arg(to);
        match self.step(&names, call).await? {
            -1 => {
                self.unmark(&names, generation).await?;
                Err(self.dropped(view, generation))
            }
            moved => Ok(moved == 1),
        }
    }

    async fn publish(&self, view: &OnlineView, expected: Option<u32>, pointer: &Pointer, limit: Option<u64>) -> Result<bool> {
        let names = self.names(view);
        let text = serde_json::to_string(pointer).map_err(|e| Error::internal(e.to_string()))?;
        self.replicated(&names).await?;
        let mut call = self.scripts.publish.call(3);
        call.arg(names.generations()).arg(names.pointer()).arg(names.watermark(expected.unwrap_or(0)));
        call.arg(pointer.generation).arg(expected.map_or(String::new(), |g| g.to_string())).arg(text);
        call.arg(limit.map_or(String::new(), |l| l.to_string()));
        match self.step(&names, call).await? {
            -1 => Err(self.dropped(view, pointer.generation)),
            switched => Ok(switched == 1),
        }
    }

    async fn peek(&self, view: &OnlineView, generation: u32, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.rows_at(view, generation, keys).await
    }

    async fn scan_rows(&self, view: &OnlineView, generation: u32, from: Option<Vec<u8>>) -> Result<RowPage> {
        self.row_page(view, generation, from).await
    }

    async fn views(&self, warehouse_id: &str) -> Result<Vec<u32>> {
        self.noted_views(warehouse_id).await
    }

    async fn generations(&self, view: &OnlineView) -> Result<Vec<u32>> {
        let names = self.names(view);
        let mut found: Vec<u32> = self.ask(&names, cmd("SUNION").arg(names.generations()).arg(names.dying())).await?;
        found.sort_unstable();
        Ok(found)
    }

    async fn drop_generation(&self, view: &OnlineView, generation: u32) -> Result<u64> {
        let names = self.names(view);
        let mut call = self.scripts.condemn.call(4);
        call.arg(names.generations()).arg(names.dying()).arg(names.pointer()).arg(names.watermark(generation)).arg(generation);
        if self.ask::<i64>(&names, &mut call).await? < 0 {
            return Err(Error::invalid(format!("generation {generation} is current")).with_hint("publish another one first"));
        }
        let removed = self.remove(&names, &names.generation(generation)).await?;
        self.unmark(&names, generation).await?;
        self.ask::<()>(&names, cmd("SREM").arg(names.dying()).arg(generation)).await?;
        Ok(removed)
    }

    async fn drop_view(&self, view: &OnlineView) -> Result<u64> {
        let names = self.names(view);
        self.known.write().remove(view);
        // First what readers and writers need, so that neither sees half a view.
        self.ask::<()>(&names, cmd("UNLINK").arg(names.pointer()).arg(names.generations())).await?;
        let removed = self.remove(&names, names.view()).await?;
        self.forget_view(view).await?;
        Ok(removed)
    }

    async fn stats(&self, view: &OnlineView, generation: u32) -> Result<(u64, u64)> {
        self.measure(&self.names(view).generation(generation)).await
    }
}
