//! The maintenance lease of a feature table: OPTIMIZE and VACUUM of one view run one at a time, whichever
//! process they run in. Their commits are safe without it; whoever pins an old version looks who holds it (`pins`).

#[cfg(test)]
mod tests;

use futures::future::BoxFuture;

use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::services::{Services, lease};

/// Does the work while holding the view's lease. Somebody else holds it: a conflict that names them.
pub fn under_lease<'a, T: Send + 'a>(
    services: &'a Services,
    view: &'a FeatureView,
    work: BoxFuture<'a, Result<T>>,
) -> BoxFuture<'a, Result<T>> {
    Box::pin(async move {
        let name = lease::maintenance_lease(view);
        if let Some(done) = lease::while_held(services, &name, work).await? {
            return Ok(done);
        }
        let holder = services.store.lease_holder(&name).await?.unwrap_or_else(|| "another process".into());
        Err(Error::conflict(format!("feature view {} is being maintained already, by {holder}", view.name))
            .with_hint("OPTIMIZE and VACUUM of one view run one at a time; a machine that went down is waited for half a minute"))
    })
}
