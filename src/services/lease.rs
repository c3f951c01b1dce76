//! Work that one process at a time should do. The lease only saves work: what is done under it must be safe
//! without it.

use std::time::Duration;

use futures::future::BoxFuture;

use super::Services;
use crate::catalog::runs::{is_gone, this_process};
use crate::clock::{self, Micros, SECOND};
use crate::error::Result;
use crate::model::FeatureView;
use crate::store::offline::Lease;
use crate::store::online::OnlineView;

/// How often the lease is renewed; a machine that went down is waited for three times as long.
const RENEW: Micros = 10 * SECOND;

/// Whoever brings a view up to date on schedule holds this lease.
pub fn schedule_lease(view: &FeatureView) -> String {
    format!("schedule/{}", view.table_id)
}

/// OPTIMIZE and VACUUM of a view hold this lease.
pub fn maintenance_lease(view: &FeatureView) -> String {
    format!("maintenance/{}", view.table_id)
}

/// Whoever loads all of a view holds this lease.
pub fn load_lease(id: &OnlineView) -> String {
    format!("online/{}", id.online_id)
}

/// Gives the lease back when it is dropped: work may be cancelled at any time.
struct Held(Option<Lease>);

impl Held {
    async fn release(mut self, name: &str) {
        if let Some(lease) = self.0.take()
            && let Err(e) = lease.release().await
        {
            tracing::warn!(lease = name, error = %e, "a lease was not given back; it ends by itself");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let (Some(lease), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(lease.release());
        }
    }
}

/// Does the work while holding the lease. `None`: somebody else holds it, and nothing was done.
pub fn while_held<'a, T: Send + 'a>(
    services: &'a Services,
    name: &'a str,
    mut work: BoxFuture<'a, Result<T>>,
) -> BoxFuture<'a, Result<Option<T>>> {
    Box::pin(async move {
        let lease = services.store.acquire_or_inherit_lease(name, &this_process(), RENEW, |h| is_gone(h) == Some(true)).await?;
        let Some(lease) = lease else { return Ok(None) };
        let mut held = Held(Some(lease));
        let pause = Duration::from_micros(RENEW.unsigned_abs());
        loop {
            tokio::select! {
                done = &mut work => {
                    held.release(name).await;
                    return done.map(Some);
                }
                () = clock::sleep(pause) => renew(&mut held, name).await,
            }
        }
    })
}

async fn renew(held: &mut Held, name: &str) {
    let Some(lease) = &mut held.0 else { return };
    match lease.renew().await {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(lease = name, "somebody else has taken the lease");
            held.0 = None;
        }
        Err(e) => tracing::warn!(lease = name, error = %e, "the lease was not renewed"),
    }
}
