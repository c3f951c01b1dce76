//! Rows written, counted and removed.

use std::sync::Arc;

use redis::{Cmd, Pipeline, Value, cmd};

use super::keys::{Keys, RowKeys, pattern};
use super::link::{Repeat, Task};
use super::map::{Map, slot};
use super::node::{Lane, Node};
use super::{Fault, RedisStore};
use crate::clock::{self, MILLISECOND, Micros, stopwatch};
use crate::error::Result;
use crate::store::online::{OnlineView, PutKind, PutRow, PutStats};

const SCAN_COUNT: usize = 1000;

// A generation that was dropped takes no rows. One server sees to it in the step that writes: its
// script asks the set of generations first, a pipeline of SETs last.
//
// In a cluster the set is on another server than most rows, so it is asked once all rows are
// acknowledged. Who drops a generation takes it out of the set before it looks for rows. So either
// the set still had it when asked: then the rows were there before anybody looked, and will be
// found. Or it had not: then we remove the rows again ourselves. Whoever dies in between leaves rows
// under a number that is never used again, which nobody reads and which go with the view.

impl RedisStore {
    /// Writes without comparing.
    pub(super) async fn write_blind(&self, view: &OnlineView, generation: u32, rows: &[PutRow]) -> Result<()> {
        let names = self.names(view);
        let mut keys = RowKeys::new(&names.generation(generation));
        let cluster = self.link.is_cluster();
        for chunk in rows.chunks(self.write_chunk) {
            let mut tasks = Vec::with_capacity(chunk.len() + 1);
            for r in chunk {
                let key = keys.of(&r.key);
                let mut set = Cmd::with_capacity(5, key.len() + r.row.len() + 24);
                set.arg("SET").arg(key).arg(&r.row);
                if let Some(at) = r.expire_at {
                    set.arg("PXAT").arg(milliseconds(at));
                }
                tasks.push(Task { slot: self.slot(key), command: set });
            }
            if !cluster {
                tasks.push(Task { slot: 0, command: self.is_alive(&names, generation) });
            }
            let mut answers = self.link.run(Lane::Load, tasks, Repeat::Yes).await.map_err(|f| self.fault(f))?;
            if !cluster && answers.pop() != Some(Value::Int(1)) {
                return self.take_back(view, generation, chunk).await;
            }
        }
        self.alive_after(view, generation, rows).await
    }

    /// Writes the rows that supersede what is stored.
    pub(super) async fn write_newer(&self, view: &OnlineView, generation: u32, rows: &[PutRow], now: Micros) -> Result<PutStats> {
        let names = self.names(view);
        let mut keys = RowKeys::new(&names.generation(generation));
        let mut stats = PutStats::default();
        for chunk in rows.chunks(self.write_chunk) {
            let written = if self.link.is_cluster() {
                let tasks = chunk.iter().map(|r| {
                    let key = keys.of(&r.key);
                    let mut call = self.scripts.put_one.call(1);
                    call.arg(key);
                    offered(&mut call, r, now);
                    Task { slot: slot(key), command: call }
                });
                let answers = self.link.run(Lane::Load, tasks.collect(), Repeat::Yes).await.map_err(|f| self.fault(f))?;
                answers.into_iter().map(|a| self.form::<u64>(a)).sum::<Result<u64>>()?
            } else {
                let mut call = self.scripts.put.call(chunk.len() + 1);
                call.arg(names.generations());
                for r in chunk {
                    call.arg(keys.of(&r.key));
                }
                call.arg(generation);
                for r in chunk {
                    offered(&mut call, r, now);
                }
                let written: i64 = self.ask(&names, &mut call).await?;
                u64::try_from(written).map_err(|_| self.dropped(view, generation))?
            };
            stats.written += written;
            stats.skipped += chunk.len() as u64 - written;
        }
        self.alive_after(view, generation, rows).await?;
        Ok(stats)
    }

    fn is_alive(&self, names: &Keys, generation: u32) -> Cmd {
        let mut command = cmd("SISMEMBER");
        command.arg(names.generations()).arg(generation);
        command
    }

    /// In a cluster: whether what was written may stay.
    async fn alive_after(&self, view: &OnlineView, generation: u32, rows: &[PutRow]) -> Result<()> {
        if !self.link.is_cluster() {
            return Ok(());
        }
        let names = self.names(view);
        match self.ask::<bool>(&names, &mut self.is_alive(&names, generation)).await? {
            true => Ok(()),
            false => self.take_back(view, generation, rows).await,
        }
    }

    /// Removes what was written into a generation that is gone, and says so.
    async fn take_back(&self, view: &OnlineView, generation: u32, rows: &[PutRow]) -> Result<()> {
        let mut keys = RowKeys::new(&self.names(view).generation(generation));
        for chunk in rows.chunks(self.write_chunk) {
            let written: Vec<Vec<u8>> = chunk.iter().map(|r| keys.of(&r.key).to_vec()).collect();
            self.unlink(&written).await?;
        }
        Err(self.dropped(view, generation))
    }

    pub(super) fn slot(&self, key: &[u8]) -> u16 {
        if self.link.is_cluster() { slot(key) } else { 0 }
    }

    /// Answers how many there were.
    async fn unlink(&self, keys: &[Vec<u8>]) -> Result<u64> {
        if keys.is_empty() {
            return Ok(0);
        }
        let unlink = |keys: &[Vec<u8>]| {
            let mut command = cmd("UNLINK");
            command.arg(keys);
            command
        };
        let tasks = match self.link.is_cluster() {
            // Slots cannot be mixed in one command.
            true => keys.iter().map(|k| Task { slot: slot(k), command: unlink(std::slice::from_ref(k)) }).collect(),
            false => vec![Task { slot: 0, command: unlink(keys) }],
        };
        let answers = self.link.run(Lane::Load, tasks, Repeat::Yes).await.map_err(|f| self.fault(f))?;
        answers.into_iter().map(|a| self.form::<u64>(a)).sum()
    }

    /// Removes the keys of the view that begin with `prefix` from every server; answers the rows among them.
    pub(super) async fn remove(&self, names: &Keys, prefix: &str) -> Result<u64> {
        let mut removed = 0;
        loop {
            let map = self.link.map().await.map_err(|f| self.fault(f))?;
            for node in &map.nodes {
                let mut cursor = Some(0);
                while let Some(at) = cursor {
                    let watch = stopwatch();
                    let (next, keys) = self.scan(node, prefix, at).await?;
                    let (rows, rest): (Vec<_>, Vec<_>) = keys.into_iter().partition(|k| names.is_row(k));
                    removed += self.unlink(&rows).await?;
                    self.unlink(&rest).await?;
                    cursor = next;
                    if cursor.is_some() {
                        // Half of the server's time at most: lookups come first.
                        clock::sleep(watch.elapsed()).await;
                    }
                }
            }
            // Keys may have moved from a server not yet looked at to one that was.
            let now = self.link.map().await.map_err(|f| self.fault(f))?;
            if now.epoch == map.epoch {
                return Ok(removed);
            }
        }
    }

    /// Keys and their bytes under a prefix.
    pub(super) async fn measure(&self, prefix: &str) -> Result<(u64, u64)> {
        let map = self.link.map().await.map_err(|f| self.fault(f))?;
        let (mut count, mut bytes) = (0, 0);
        for node in &map.nodes {
            let mut cursor = Some(0);
            while let Some(at) = cursor {
                let (next, keys) = self.scan(node, prefix, at).await?;
                cursor = next;
                let length = |k: &Vec<u8>| Task { slot: self.slot(k), command: cmd("STRLEN").arg(k).take() };
                let answers = self.link.run_each(Lane::Load, keys.iter().map(length).collect(), Repeat::Yes).await;
                for length in answers.map_err(|f| self.fault(f))? {
                    // A key of another type has no bytes that are a row's.
                    bytes += if let Value::ServerError(_) = length { 0 } else { self.form::<u64>(length)? };
                }
                count += keys.len() as u64;
                bytes += keys.iter().map(|k| k.len() as u64).sum::<u64>();
            }
        }
        Ok((count, bytes))
    }

    /// One page of one server's keys that begin with `prefix`, and the cursor of the next; begin with 0.
    pub(super) async fn scan(&self, node: &Node, prefix: &str, cursor: u64) -> Result<(Option<u64>, Vec<Vec<u8>>)> {
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern(prefix)).arg("COUNT").arg(SCAN_COUNT);
        let (next, mut keys): (u64, Vec<Vec<u8>>) = self.form(self.on(node, &command).await?)?;
        keys.retain(|k| k.starts_with(prefix.as_bytes()));
        Ok(((next != 0).then_some(next), keys))
    }

    /// Runs a command that may be repeated on one server.
    pub(super) async fn on(&self, node: &Node, command: &Cmd) -> Result<Value> {
        let first = node.command(Lane::Load, command).await;
        let answer = match first {
            Err(e) if super::node::is_lost(&e) => node.command(Lane::Load, command).await,
            answer => answer,
        };
        answer.and_then(Value::extract_error).map_err(|e| self.fault(Fault::from(e).at(&node.host)))
    }

    /// In a cluster: waits until a replica of every primary has what was written so far.
    ///
    /// Watermark and pointer speak of rows on other servers. Were one of those lost, and with it rows
    /// that its replica had not yet, they would speak of rows that are not there; on one server the
    /// order of replication sees to that. Replicas that do not follow are not waited for long: then
    /// the cluster is as safe as one without them.
    pub(super) async fn replicated(&self, names: &Keys) -> Result<()> {
        if !self.link.is_cluster() {
            return Ok(());
        }
        let map = self.link.map().await.map_err(|f| self.fault(f))?;
        let patience = (self.link.timeout() / 4).as_millis() as u64;
        let waits = map.nodes.iter().filter(|n| map.has_replica(n)).map(|node| {
            let key = sync_key(names, &map, node);
            async move {
                let mut pipeline = Pipeline::new();
                // WAIT waits for what its own connection wrote, and for all that came before it.
                pipeline.cmd("SET").arg(key).arg("").arg("PX").arg(60_000);
                pipeline.cmd("WAIT").arg(1).arg(patience);
                let answers = node.pipeline(Lane::Load, &pipeline).await;
                let acknowledged =
                    answers.and_then(|answers| answers.into_iter().map(Value::extract_error).last().unwrap_or(Ok(Value::Nil)));
                match acknowledged {
                    Ok(Value::Int(n)) if n > 0 => (),
                    other => tracing::warn!(server = %node.host, answer = ?other, "no replica of a Redis server has taken what was loaded"),
                }
            }
        });
        futures::future::join_all(waits).await;
        Ok(())
    }
}

/// A key of the view that `node` has.
fn sync_key(names: &Keys, map: &Map, node: &Arc<Node>) -> String {
    (0..u32::from(u16::MAX))
        .map(|n| format!("{}sync{{{n}}}", names.view()))
        .find(|key| map.node(slot(key.as_bytes())).is_some_and(|n| Arc::ptr_eq(n, node)))
        .unwrap_or_else(|| format!("{}sync", names.view()))
}

/// `now`: an offer that is past its expiry is not written; it takes the place of an older row for nothing.
fn offered(call: &mut Cmd, row: &PutRow, now: Micros) {
    let past = row.expire_at.is_some_and(|at| at <= now);
    call.arg(&row.row).arg(match row.kind {
        PutKind::Offer if past => "x",
        PutKind::Offer => "o",
        PutKind::State => "s",
    });
    match row.expire_at {
        Some(at) => call.arg(milliseconds(at)),
        None => call.arg(""),
    };
}

/// The instant from which Redis, which counts in milliseconds, may let a row go; it takes positive ones only.
fn milliseconds(at: Micros) -> i64 {
    (at.div_euclid(MILLISECOND) + i64::from(at.rem_euclid(MILLISECOND) > 0)).max(1)
}
