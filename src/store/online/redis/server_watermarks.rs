//! The watermark in a cluster. A primary that is lost may take its last writes with it, while the watermark, on
//! another server, goes on saying that they are there. So every server has marks of its own, written after the
//! rows: what a server has forgotten, its marks have forgotten too. The watermark is the least of all of them
//! (docs/storage.md, "Cluster"). A server without any mark, which one of so many has with few servers,
//! is as it would be without them.

use redis::{Value, cmd};

use super::RedisStore;
use super::keys::Keys;
use super::link::{Repeat, Task};
use super::map::slot;
use super::node::Lane;
use crate::error::Result;

/// Marks of one generation, spread over the servers by their slots.
pub(super) const MARKS: u32 = 64;

/// What a store says about how far a generation is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Noted {
    pub watermark: Option<u64>,
    /// What all servers have.
    pub held: Option<u64>,
}

impl RedisStore {
    pub(super) async fn noted(&self, names: &Keys, generation: u32) -> Result<Noted> {
        let key = names.watermark(generation);
        let text: Option<Vec<u8>> = self.ask(names, cmd("GET").arg(&key)).await?;
        let watermark = text.map(|t| self.parse_watermark(&key, &t)).transpose()?;
        if !self.link.is_cluster() || watermark.is_none() {
            return Ok(Noted { watermark, held: watermark });
        }
        let mut held = watermark;
        let marks = self.of_marks(names, generation, |key| cmd("GET").arg(key).take()).await?;
        for (n, mark) in (0..).zip(marks) {
            let text = self.form::<Option<Vec<u8>>>(mark)?;
            let mark = text.map(|t| self.parse_watermark(&names.mark(generation, n), &t)).transpose()?;
            // none is less than any
            held = held.min(mark);
        }
        Ok(Noted { watermark, held })
    }

    /// In a cluster: marks every server, once all rows up to this version are acknowledged.
    pub(super) async fn mark(&self, names: &Keys, generation: u32, version: u64) -> Result<()> {
        if self.link.is_cluster() {
            self.of_marks(names, generation, |key| cmd("SET").arg(key).arg(version).take()).await?;
        }
        Ok(())
    }

    /// Removes the marks of a generation that is gone.
    pub(super) async fn unmark(&self, names: &Keys, generation: u32) -> Result<()> {
        if self.link.is_cluster() {
            self.of_marks(names, generation, |key| cmd("UNLINK").arg(key).take()).await?;
        }
        Ok(())
    }

    async fn of_marks(&self, names: &Keys, generation: u32, command: impl Fn(&str) -> redis::Cmd) -> Result<Vec<Value>> {
        let task = |n| {
            let key = names.mark(generation, n);
            Task { slot: slot(key.as_bytes()), command: command(&key) }
        };
        self.link.run(Lane::Load, (0..MARKS).map(task).collect(), Repeat::Yes).await.map_err(|f| self.fault(f))
    }
}
