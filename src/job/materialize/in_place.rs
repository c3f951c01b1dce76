//! `MATERIALIZE … IN PLACE`: every row is written again over the generation that is served, for stores that
//! have no room for a second one.

use datafusion::logical_expr::{ident, lit};
use datafusion::scalar::ScalarValue;
use futures::StreamExt;
use futures::future::BoxFuture;

use super::chooser::Chooser;
use super::pump::{Choice, Chunk, Sent, Target};
use super::{Job, longest};
use crate::error::{Error, Kind, Result};
use crate::model::codec::{EncodedKey, Row, row_schema};
use crate::services::view_locks::ViewLocks;
use crate::store::offline::{Commit, Operation, Snapshot};
use crate::store::online::{Pointer, PutKind};
use crate::table::read::scan;

impl Job<'_> {
    /// Writes the state of all keys over the current generation. In this process INSERTs wait meanwhile.
    pub(super) fn in_place<'s>(&'s mut self, locks: &'s ViewLocks, notice: &'s (dyn Fn(String) + Sync)) -> BoxFuture<'s, Result<()>> {
        Box::pin(async move {
            let _full = locks.full.lock().await;
            let _apply = locks.apply.lock().await;
            let pointer = self.replaceable().await?;
            notice(format!(
                "feature view {}: IN PLACE is not atomic: until it is done lookups read new rows of some keys and old rows of others",
                self.view.name
            ));
            match self.write_over(&pointer).await {
                // what was written over is served no more
                Err(e) if e.kind() == Kind::Conflict && self.current().await? != Some(pointer.generation) => Ok(()),
                done => done,
            }
        })
    }

    async fn current(&self) -> Result<Option<u32>> {
        Ok(self.online.pointer(&self.id).await?.map(|p| p.generation))
    }

    async fn replaceable(&self) -> Result<Pointer> {
        let name = self.view.quoted_name();
        let Some(pointer) = self.online.pointer(&self.id).await? else {
            return Err(Error::invalid(format!(
                "feature view {}: nothing of it is online that could be replaced IN PLACE",
                self.view.name
            ))
            .with_hint(format!("MATERIALIZE FEATURE VIEW {name}")));
        };
        if pointer.view_version != self.view.version || pointer.schema_id != row_schema(self.view).0 {
            return Err(Error::invalid(format!(
                "feature view {}: its online rows have other columns; rows of two kinds cannot be served at once",
                self.view.name
            ))
            .with_hint(format!("MATERIALIZE FEATURE VIEW {name} FULL")));
        }
        Ok(pointer)
    }

    fn write_over<'s>(&'s mut self, pointer: &'s Pointer) -> BoxFuture<'s, Result<()>> {
        Box::pin(async move {
            let generation = pointer.generation;
            let store = &self.services.store;
            let newest_version = store.snapshot(&self.view.location, None).await?;
            let watermark = self.online.watermark(&self.id, generation).await?;
            if watermark.is_some_and(|w| w > newest_version.version()) {
                return Err(Error::invalid(format!(
                    "feature view {}: its online rows are of a version that the table does not have, and would win over what it has",
                    self.view.name
                ))
                .with_hint(format!("MATERIALIZE FEATURE VIEW {} FULL", self.view.quoted_name())));
            }
            // A version of its own: all that is stored is of an earlier one, so that it is written again, right or
            // wrong; only what a writer beside us stores from here on is of this version or a later one, and stays.
            let commit = Commit { operation: Operation::Append, run_id: Some(crate::clock::new_id()), ..Default::default() };
            let snapshot: Snapshot = store.append(&newest_version, commit).await?;
            self.now = self.services.clock.now();
            let version = snapshot.version();
            let held = self.held(&snapshot).await?;
            let to = held.map_or(version, |h| h.min(version));
            if watermark.is_some_and(|w| w > to) {
                return Err(Error::conflict(format!(
                    "feature view {}: rows are served that are not due by the clock of this process; nothing was written",
                    self.view.name
                ))
                .with_hint("try again in a moment; the clocks of the machines should agree"));
            }
            let ttl = longest(pointer.ttl, self.view.ttl);
            let target = Target { generation, asof: version, kind: Some(PutKind::State), ttl, told: false };
            let rows = scan(self.services, self.view, &snapshot, None, None, true, self.cx).await?;
            let mut newest = Chooser::new(self.services, self.view, snapshot.schema(), self.now)?;
            let before = self.written;
            self.pump(rows, &mut newest, Choice::All(None), target).await?;
            let loaded = self.written - before;
            self.bury(&newest, target).await?;
            if watermark != Some(to) {
                // a writer beside us may have come further
                self.online.advance_watermark(&self.id, generation, watermark, to).await?;
            }
            let rewritten = Pointer { delta_version: version, rows: loaded, ttl: self.view.ttl, ..pointer.clone() };
            match self.online.publish(&self.id, Some(generation), &rewritten, None).await? {
                true => Ok(()),
                false => Err(Error::conflict("a full load was switched to meanwhile")),
            }
        })
    }

    /// The version that rows not yet due hold the watermark at.
    async fn held(&self, snapshot: &Snapshot) -> Result<Option<u64>> {
        let mut newest = Chooser::new(self.services, self.view, snapshot.schema(), self.now)?;
        let now = ScalarValue::TimestampMicrosecond(Some(self.now), Some("UTC".into()));
        let later = ident(self.view.event_timestamp.as_str()).gt(lit(now));
        let mut rows = scan(self.services, self.view, snapshot, None, Some(later), false, self.cx).await?;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let keys = newest.layout().keys(&batch)?;
            newest.batch(&batch, keys, None)?;
        }
        Ok(newest.held_below(snapshot.files()))
    }

    /// Leaves tombstones where the pass has not come by: these keys have no row.
    async fn bury(&mut self, newest: &Chooser, target: Target) -> Result<()> {
        let expiry = self.expiry(target);
        let (mut chunk, mut sent) = (Chunk::default(), Sent::new());
        let mut from = None;
        loop {
            let page = self.online.scan_rows(&self.id, target.generation, from.take()).await?;
            for (key, row) in page.rows {
                if Row::parse(&row).is_ok_and(|r| r.tombstone || r.prefix.asof >= target.asof) {
                    continue;
                }
                chunk.push(newest.tombstone(&EncodedKey::from_stored(key), target.asof, &expiry));
                if chunk.is_full() {
                    self.send(&mut chunk, target, &mut sent).await?;
                }
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        self.send(&mut chunk, target, &mut sent).await?;
        self.settle(&mut sent).await.map(|_| ())
    }
}
