//! Carries out changes of definitions: what must be there before the catalog names it, the commit, and what becomes of
//! that which it no longer names.

use std::sync::Arc;

use super::{garbage_collection, training};
use crate::catalog::ddl::{Ddl, Released, made, released};
use crate::catalog::is_undone;
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::layout::{stats_columns, stored_schema};
use crate::plan::names::Names;
use crate::resolve::resolver::Resolver;
use crate::services::boxed;
use crate::store::offline::TableOptions;

/// Commits what a statement asks for, and frees what nothing names any more. `true`: the catalog was changed.
pub async fn run(resolver: &Arc<Resolver>, ddl: &Ddl) -> Result<bool> {
    let services = &resolver.services;
    // a catalog entry never names a table that is not there; a table that none names does no harm
    let planned = match ddl {
        Ddl::CreateFeatureView { .. } => ddl.changes(&resolver.catalog)?,
        _ => vec![],
    };
    let prepared = made(&planned);
    if let Some(view) = prepared {
        let options = TableOptions { stats_columns: stats_columns(view), watermark: true, ..Default::default() };
        services.store.create_table(&view.location, stored_schema(view), options).await?;
    }
    let done = services
        .registry
        .commit(None, |c| {
            let changes = ddl.changes(c)?;
            if let (Some(view), None) = (made(&changes), prepared) {
                // its table is not there: what IF NOT EXISTS had found was dropped meanwhile
                return Err(Error::conflict(format!("feature view {}: it was dropped meanwhile; nothing was made", view.name))
                    .with_hint("run it again"));
            }
            let (used, left) = (made(&changes).is_some(), released(c, &changes));
            let changed = !changes.is_empty();
            Ok((changes, (used, changed, left)))
        })
        .await;
    // no change: another process made the object first, and IF NOT EXISTS is content with it
    let unused = done.as_ref().map_or_else(is_undone, |(used, ..)| !used);
    if let Some(view) = prepared.filter(|_| unused) {
        discard(resolver, view).await;
    }
    let (_, changed, left) = done?;
    free(resolver, left).await;
    Ok(changed)
}

async fn discard(resolver: &Resolver, view: &FeatureView) {
    if let Err(second) = resolver.services.store.delete_table(&view.location).await {
        tracing::warn!(location = view.location, error = %second, "a table that was not needed could not be removed");
    }
}

/// Frees what definitions held. What cannot be freed now is told of, and garbage collection takes it later.
pub async fn free(resolver: &Arc<Resolver>, released: Vec<Released>) {
    let (mut views, mut left) = (false, false);
    for one in released {
        match one {
            Released::Table(location) => training::reclaim(resolver, &location).await,
            Released::TrainingSet(set) => training::release(resolver, &set).await,
            Released::Online(view) => drop(boxed(clear_online(resolver, &view)).await),
            Released::FeatureView(view) => {
                views = true;
                left |= !boxed(clear_online(resolver, &view)).await;
                training::reclaim(resolver, &view.location).await;
            }
        }
    }
    if views && !left {
        boxed(garbage_collection::behind_a_statement(&resolver.services)).await;
    }
}

/// Removes the online rows of a view; `false`: the online store could not be cleared.
async fn clear_online(resolver: &Arc<Resolver>, view: &FeatureView) -> bool {
    if !view.online {
        return true;
    }
    let freed = async { resolver.services.online().await?.drop_view(&resolver.services.online_view(view)).await };
    let failed = freed.await.err();
    if let Some(e) = &failed {
        resolver.notice(garbage_collection::left_behind(view, e));
    }
    failed.is_none()
}
