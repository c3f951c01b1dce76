//! What the store holds, told without reading all of the servers: rows of a generation page by page, and which
//! views hold keys, from a set of online ids kept beside them.
//!
//! A view enters the set after its generation was noted and before it takes rows, and leaves it when its keys
//! are gone, unless a generation was begun meanwhile. So whatever holds rows is in the set.

use bytes::Bytes;
use redis::{FromRedisValue, cmd};

use super::RedisStore;
use super::keys::{RowKeys, views_key};
use super::link::{Repeat, Task};
use super::node::Lane;
use super::read::get;
use crate::error::{Error, Result};
use crate::store::online::{OnlineView, RowPage};

impl RedisStore {
    pub(super) async fn note_view(&self, view: &OnlineView) -> Result<()> {
        self.of_views::<i64>("SADD", &view.warehouse_id, Some(view.online_id)).await.map(|_| ())
    }

    pub(super) async fn forget_view(&self, view: &OnlineView) -> Result<()> {
        self.of_views::<i64>("SREM", &view.warehouse_id, Some(view.online_id)).await?;
        let names = self.names(view);
        match self.ask::<bool>(&names, cmd("EXISTS").arg(names.generations())).await? {
            true => self.note_view(view).await,
            false => Ok(()),
        }
    }

    pub(super) async fn noted_views(&self, warehouse_id: &str) -> Result<Vec<u32>> {
        let mut found: Vec<u32> = self.of_views("SMEMBERS", warehouse_id, None).await?;
        found.sort_unstable();
        Ok(found)
    }

    /// A command on the set of views, which may be repeated.
    async fn of_views<T: FromRedisValue>(&self, what: &str, warehouse_id: &str, member: Option<u32>) -> Result<T> {
        let key = views_key(warehouse_id);
        let mut command = cmd(what);
        command.arg(&key).arg(member);
        let answer = self.link.ask(Lane::Load, self.slot(key.as_bytes()), command, Repeat::Yes).await;
        self.form(answer.map_err(|f| self.fault(f))?)
    }

    pub(super) async fn rows_at(&self, view: &OnlineView, generation: u32, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let mut names = RowKeys::new(&self.names(view).generation(generation));
        let mut out = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(self.read_chunk) {
            let mut task = |key: &&[u8]| {
                let name = names.of(key);
                Task { slot: self.slot(name), command: get(name) }
            };
            let tasks = chunk.iter().map(&mut task).collect();
            for row in self.link.run_each(Lane::Load, tasks, Repeat::Yes).await.map_err(|f| self.fault(f))? {
                out.push(self.bytes(row)?);
            }
        }
        Ok(out)
    }

    /// A page begins at `epoch:server:cursor`: the map of the servers, the place of one in it, its SCAN's cursor.
    pub(super) async fn row_page(&self, view: &OnlineView, generation: u32, from: Option<Vec<u8>>) -> Result<RowPage> {
        let map = self.link.map().await.map_err(|f| self.fault(f))?;
        let (epoch, at, cursor) = match from {
            Some(text) => place(&text).ok_or_else(|| Error::internal("a page of the online store begins nowhere"))?,
            None => (map.epoch, 0, 0),
        };
        if epoch != map.epoch {
            // keys may have moved from a server not yet looked at to one that was
            return Err(Error::conflict(format!("the servers of the online store {} changed while it was read", self.link.shown()))
                .with_hint("try again"));
        }
        let Some(node) = map.nodes.get(at) else { return Ok(RowPage::default()) };
        let prefix = self.names(view).generation(generation);
        let (next, mut names) = self.scan(node, &prefix, cursor).await?;
        let keys: Vec<Vec<u8>> = names.iter_mut().map(|n| n.split_off(prefix.len())).collect();
        let rows = self.rows_at(view, generation, &keys.iter().map(Vec::as_slice).collect::<Vec<_>>()).await?;
        let rows = keys.into_iter().zip(rows).filter_map(|(k, r)| Some((k, r?))).collect();
        let next = match next {
            Some(cursor) => Some((at, cursor)),
            None => (at + 1 < map.nodes.len()).then_some((at + 1, 0)),
        };
        Ok(RowPage { rows, next: next.map(|(at, cursor)| format!("{epoch}:{at}:{cursor}").into_bytes()) })
    }
}

fn place(text: &[u8]) -> Option<(u64, usize, u64)> {
    let mut parts = std::str::from_utf8(text).ok()?.split(':');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
