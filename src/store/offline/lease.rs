//! Leases: who does a piece of work. Files `_leases/<name>/<fencing number>.json`, claimed by
//! putting the next number where there is none, which every store can do. A lease only saves work:
//! correctness never hangs on it (clocks of machines differ).

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};

use super::warehouse::{OfflineStore, table_path};
use crate::clock::{HOUR, Micros};
use crate::error::{Error, Result};

/// A lease that was not renewed for so many intervals is over.
const INTERVALS: i64 = 3;
/// No lease lasts longer than this without being renewed, whatever it says.
const LONGEST: Micros = HOUR;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claim {
    holder: String,
    acquired_at: Micros,
    renewed_at: Micros,
    interval: Micros,
    #[serde(default)]
    released: bool,
}

impl Claim {
    /// Whether it holds at `now`; `written`: when the store says that its file was. A time far in the future comes
    /// from a clock that is wrong, and would be honoured until then: the store's clock is asked instead.
    fn is_live(&self, written: Micros, now: Micros) -> bool {
        let length = self.interval.saturating_mul(INTERVALS).clamp(0, LONGEST);
        let latest = now.saturating_add(length);
        if self.renewed_at > latest {
            tracing::warn!(
                holder = self.holder,
                renewed_at = crate::clock::format_micros(self.renewed_at),
                "a lease is dated in the future: the clock of its holder, or of this machine, is wrong"
            );
        }
        let renewed = if self.renewed_at > latest { written } else { self.renewed_at };
        !self.released && renewed <= latest && now < renewed.saturating_add(length)
    }
}

/// A lease held by this process. It is not renewed by itself.
#[derive(Debug)]
pub struct Lease {
    store: Arc<OfflineStore>,
    name: String,
    number: u64,
    claim: Claim,
}

impl OfflineStore {
    /// Takes the lease, or answers `None` where somebody else holds it. The holder renews it once per
    /// `interval` (microseconds).
    pub async fn acquire_lease(self: &Arc<Self>, name: &str, holder: &str, interval: Micros) -> Result<Option<Lease>> {
        self.acquire_or_inherit_lease(name, holder, interval, |_| false).await
    }

    /// As `acquire_lease`; the lease of a holder that `is_dead` is over at once.
    pub async fn acquire_or_inherit_lease(
        self: &Arc<Self>,
        name: &str,
        holder: &str,
        interval: Micros,
        is_dead: impl Fn(&str) -> bool,
    ) -> Result<Option<Lease>> {
        let last = self.last_claim(name).await?;
        let now = self.clock().now();
        if let Some((_, claim, written)) = &last
            && claim.is_live(*written, now)
            && !is_dead(&claim.holder)
        {
            return Ok(None);
        }
        let number = last.map_or(1, |(n, ..)| n + 1);
        let claim = Claim { holder: holder.to_string(), acquired_at: now, renewed_at: now, interval: interval.max(1), released: false };
        match self.files().put_opts(&claim_path(name, number)?, payload(&claim)?, PutMode::Create.into()).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => return Ok(None),
            Err(e) => return Err(Error::from(e).context(format!("lease {name:?}"))),
        }
        // The newest number alone decides; older ones are only litter.
        for old in (1..number).rev().take(8) {
            let _ = self.files().delete(&claim_path(name, old)?).await;
        }
        Ok(Some(Lease { store: Arc::clone(self), name: name.to_string(), number, claim }))
    }

    /// Who holds the lease now, if anybody.
    pub async fn lease_holder(&self, name: &str) -> Result<Option<String>> {
        let now = self.clock().now();
        Ok(self.last_claim(name).await?.and_then(|(_, c, written)| c.is_live(written, now).then_some(c.holder)))
    }

    /// The newest claim, its number, and when its file was written.
    async fn last_claim(&self, name: &str) -> Result<Option<(u64, Claim, Micros)>> {
        let what = format!("lease {name:?}");
        let Some(number) = self.last_number(name).await? else { return Ok(None) };
        let path = claim_path(name, number)?;
        let (bytes, written) = match self.files().get(&path).await {
            Ok(got) => {
                let written = got.meta.last_modified.timestamp_micros();
                (got.bytes().await.map_err(|e| Error::from(e).context(&what))?, written)
            }
            // Cleaned up by the holder of a newer one: held.
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::conflict(format!("{what} is changing hands")).with_hint("try again"));
            }
            Err(e) => return Err(Error::from(e).context(&what)),
        };
        let claim = serde_json::from_slice(&bytes).map_err(|e| {
            Error::invalid(format!("{what}: {} is damaged: {e}", self.display_path(path.as_ref()))).with_hint("remove this file")
        })?;
        Ok(Some((number, claim, written)))
    }

    async fn last_number(&self, name: &str) -> Result<Option<u64>> {
        let dir = table_path(&format!("_leases/{name}"))?;
        let listed: Vec<_> =
            self.files().list(Some(&dir)).try_collect().await.map_err(|e| Error::from(e).context(format!("lease {name:?}")))?;
        Ok(listed.iter().filter_map(|m| m.location.filename()?.strip_suffix(".json")?.parse().ok()).max())
    }
}

impl Lease {
    /// Grows with every holder: a store that remembers it can refuse an older one.
    pub fn fencing(&self) -> u64 {
        self.number
    }

    /// Says that the holder lives. `false`: somebody else has the lease now.
    pub async fn renew(&mut self) -> Result<bool> {
        self.write(false).await
    }

    /// Gives the lease back.
    pub async fn release(mut self) -> Result<()> {
        self.write(true).await.map(|_| ())
    }

    async fn write(&mut self, released: bool) -> Result<bool> {
        if self.store.last_number(&self.name).await? != Some(self.number) {
            return Ok(false);
        }
        self.claim.renewed_at = self.store.clock().now();
        self.claim.released = released;
        let path = claim_path(&self.name, self.number)?;
        self.store.files().put(&path, payload(&self.claim)?).await.map_err(|e| Error::from(e).context(format!("lease {:?}", self.name)))?;
        Ok(true)
    }
}

fn payload(claim: &Claim) -> Result<PutPayload> {
    Ok(serde_json::to_vec(claim).map_err(|e| Error::internal(e.to_string()))?.into())
}

fn claim_path(name: &str, number: u64) -> Result<Path> {
    table_path(&format!("_leases/{name}/{number:020}.json"))
}
