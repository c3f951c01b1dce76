//! The maintenance lease of a feature table: OPTIMIZE and VACUUM of one view run one at a time, whichever
//! process they run in. Their commits are safe without it; whoever pins an old version looks who holds it (`pins`).

#[cfg(test)]
mod tests;

use std::time::Duration;

use futures::future::BoxFuture;

use super::Services;
use crate::catalog::runs::{is_gone, this_process};
use crate::clock::{Micros, SECOND};
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::store::offline::Lease;

/// How often the lease is renewed; a machine that went down is waited for three times as long.
const RENEW: Micros = 10 * SECOND;

/// Gives the lease back when it is dropped: work may be cancelled at any time.
struct Held(Option<Lease>);

impl Held {
    async fn release(mut self) {
        if let Some(lease) = self.0.take()
            && let Err(e) = lease.release().await
        {
            tracing::warn!(error = %e, "a maintenance lease was not given back; it ends by itself");
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

pub(super) fn lease_name(view: &FeatureView) -> String {
    format!("maintenance/{}", view.table_id)
}

/// Does the work while holding the view's lease. Somebody else holds it: a conflict that names them.
pub fn under_lease<'a, T: Send + 'a>(
    services: &'a Services,
    view: &'a FeatureView,
    mut work: BoxFuture<'a, Result<T>>,
) -> BoxFuture<'a, Result<T>> {
    Box::pin(async move {
        let name = lease_name(view);
        let Some(lease) = services.store.acquire_or_inherit_lease(&name, &this_process(), RENEW, |h| is_gone(h) == Some(true)).await?
        else {
            let holder = services.store.lease_holder(&name).await?.unwrap_or_else(|| "another process".into());
            return Err(Error::conflict(format!("feature view {} is being maintained already, by {holder}", view.name))
                .with_hint("OPTIMIZE and VACUUM of one view run one at a time; a machine that went down is waited for half a minute"));
        };
        let mut held = Held(Some(lease));
        let pause = Duration::from_micros(RENEW.unsigned_abs());
        loop {
            tokio::select! {
                done = &mut work => {
                    held.release().await;
                    return done;
                }
                () = tokio::time::sleep(pause) => renew(&mut held, view).await,
            }
        }
    })
}

async fn renew(held: &mut Held, view: &FeatureView) {
    let Some(lease) = &mut held.0 else { return };
    match lease.renew().await {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(view = %view.name, "somebody else has taken the maintenance lease");
            held.0 = None;
        }
        Err(e) => tracing::warn!(view = %view.name, error = %e, "the maintenance lease was not renewed"),
    }
}
