//! Frees what the online store holds and nobody reads: rows of feature views that were dropped while it could
//! not be reached, generations that were switched away from, loads that were given up. And brings online what
//! was stored and could not be served then: rows that have come due, pushes that failed in between.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{generations, materialize};
use crate::error::{Error, Kind, Result};
use crate::model::FeatureView;
use crate::services::lease::{load_lease, while_held};
use crate::services::{Services, boxed};
use crate::store::online::{OnlineStore, OnlineView, Pointer};

/// What a pass has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    /// Views of which nothing is left.
    pub views: usize,
    /// Generations of other views.
    pub generations: usize,
    /// Views that rows were brought online of.
    pub applied: usize,
}

/// Frees the rows of views that no version in the catalog names any more, or that are OFFLINE; answers how many views, and
/// those that hold rows and stay.
///
/// Online ids are never used again, after SET OFFLINE neither, and a view is in the catalog before it holds rows: what
/// the catalog, read after the store, does not name was dropped.
pub fn dropped_views<'a>(services: &'a Services) -> BoxFuture<'a, Result<(usize, Vec<Arc<FeatureView>>)>> {
    Box::pin(async move {
        let online = services.online().await?;
        let held = online.views(services.store.warehouse_id()).await?;
        let catalog = services.registry.snapshot().await?;
        let versions = catalog.feature_views.values().flat_map(|s| s.versions.values().filter(|v| v.online));
        let known: HashMap<u32, &FeatureView> = versions.map(|v| (v.online_id, v)).collect();
        let (mut freed, mut kept) = (0, vec![]);
        for online_id in held {
            if let Some(view) = known.get(&online_id) {
                kept.push(Arc::new((*view).clone()));
                continue;
            }
            let id = OnlineView { warehouse_id: services.store.warehouse_id().to_string(), online_id };
            match online.drop_view(&id).await {
                Ok(rows) => {
                    tracing::info!(online_id, rows, "freed the online rows of a feature view that was dropped or set OFFLINE");
                    freed += 1;
                }
                // a process that has not seen the drop writes it
                Err(e) if e.kind() == Kind::Conflict => tracing::debug!(online_id, "{e}"),
                Err(e) if online.check().await.is_ok() => {
                    tracing::warn!(online_id, error = %e, "the online rows of a feature view that was dropped could not be removed");
                }
                Err(e) => return Err(e),
            }
        }
        Ok((freed, kept))
    })
}

/// One pass over the whole warehouse; goes on with the next view where one fails, unless the store cannot be
/// reached at all. `stop` ends it early.
pub fn pass<'a>(services: &'a Arc<Services>, stop: &'a (dyn Fn() -> bool + Sync)) -> BoxFuture<'a, Result<Collected>> {
    Box::pin(async move {
        let online = services.online().await?;
        let (views, kept) = dropped_views(services).await?;
        let mut collected = Collected { views, ..Default::default() };
        for view in &kept {
            if stop() {
                break;
            }
            match boxed(one_view(services, online.as_ref(), view)).await {
                Ok((generations, applied)) => {
                    collected.generations += generations;
                    collected.applied += usize::from(applied);
                }
                // Of this view only, or the store is gone: then the others need not be tried.
                Err(e) if e.kind() == Kind::Unavailable && online.check().await.is_err() => return Err(e),
                // another process writes it, or somebody dropped it
                Err(e) if matches!(e.kind(), Kind::Conflict | Kind::NotFound) => tracing::debug!(view = view.versioned_name(), "{e}"),
                Err(e) => tracing::warn!(view = view.versioned_name(), error = %e, "online rows could not be looked after"),
            }
        }
        Ok(collected)
    })
}

async fn one_view(services: &Arc<Services>, online: &dyn OnlineStore, view: &Arc<FeatureView>) -> Result<(usize, bool)> {
    let id = services.online_view(view);
    let pointer = online.pointer(&id).await?;
    let mut dropped = given_up(services, online, &id, pointer.as_ref().map(|p| p.generation)).await?;
    let Some(pointer) = pointer else { return Ok((dropped, false)) };
    dropped += generations::older(services, online, &id, &pointer).await?;
    Ok((dropped, boxed(bring_online(services, online, view, &pointer)).await?))
}

/// Drops generations that were begun and not switched to, where nobody is loading one.
async fn given_up(services: &Services, online: &dyn OnlineStore, id: &OnlineView, current: Option<u32>) -> Result<usize> {
    let newer = |g: &u32| current.is_none_or(|c| *g > c);
    if !online.generations(id).await?.iter().any(newer) {
        return Ok(0);
    }
    let work = async {
        // one that was begun and switched to meanwhile is no longer newer
        let current = online.pointer(id).await?.map(|p| p.generation);
        let left: Vec<u32> = online.generations(id).await?.into_iter().filter(|g| current.is_none_or(|c| *g > c)).collect();
        for g in &left {
            let rows = online.drop_generation(id, *g).await?;
            tracing::info!(online_id = id.online_id, generation = g, rows, "dropped a load that was given up");
        }
        Ok(left.len())
    };
    Ok(while_held(services, &load_lease(id), boxed(work)).await?.unwrap_or(0))
}

/// Applies what push views have stored and do not serve; whether there was anything. Other views are brought
/// online by MATERIALIZE only.
async fn bring_online(services: &Arc<Services>, online: &dyn OnlineStore, view: &Arc<FeatureView>, current: &Pointer) -> Result<bool> {
    if !view.online || !view.is_push() {
        return Ok(false);
    }
    let Some(applied) = online.watermark(&services.online_view(view), current.generation).await? else { return Ok(false) };
    if services.store.snapshot(&view.location, None).await?.version() <= applied {
        return Ok(false);
    }
    let cx = services.session.task_ctx();
    Ok(materialize::apply(services, view, &cx).await? > 0)
}

/// A pass over dropped views behind a statement, whose own work is done: failures are left to the next one.
pub async fn behind_a_statement(services: &Services) {
    match dropped_views(services).await {
        Ok(_) => {}
        Err(e) => tracing::debug!(error = %e, "rows of dropped feature views are left in the online store for now"),
    }
}

/// What to say where a view's rows stay behind.
pub fn left_behind(view: &FeatureView, e: &Error) -> String {
    format!(
        "feature view {}: its online rows could not be removed ({}); they are not served, and a server, or the next DROP or MATERIALIZE, removes them",
        view.versioned_name(),
        e.message()
    )
}
