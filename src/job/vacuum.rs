//! VACUUM FEATURE VIEW: removes files that no version within the retention needs, no training set pins, and the
//! next incremental MATERIALIZE does not read.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use futures::future::BoxFuture;

use super::maintenance::under_lease;
use super::pins;
use crate::catalog::runs::is_gone;
use crate::catalog::{CatalogSnapshot, Run, RunStatus};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::plan::answers;
use crate::plan::names::Names;
use crate::resolve::resolver::Resolver;
use crate::services::Services;
use crate::services::record::recorded;
use crate::store::offline::{Garbage, Keep, STRAY_AGE};

/// Answers one row of [`answers::vacuum`].
pub fn run<'a>(
    resolver: &'a Arc<Resolver>,
    view: &'a Arc<FeatureView>,
    retain: Option<Micros>,
    dry_run: bool,
) -> BoxFuture<'a, Result<RecordBatch>> {
    Box::pin(async move {
        let services = &resolver.services;
        let retain = retain.unwrap_or(services.config.maintenance.retain);
        let what = |e: Error| e.context(format!("VACUUM FEATURE VIEW {}", view.name));
        if dry_run {
            let found = find(resolver, view, retain).await.map_err(what)?;
            return answer(view, None, Removed::from(&found));
        }
        let mut done = Removed::default();
        let work = recorded(services, "vacuum", view, |run| {
            let done = &mut done;
            async move {
                let found = find(resolver, view, retain).await.map_err(what)?;
                // whoever pins a version from here on sees this run, and looks whether its files are left
                *done = Removed::from(&found);
                services.store.remove_garbage(&view.location, found).await.map_err(what)?;
                Ok(run)
            }
        });
        let run = under_lease(services, view, Box::pin(work)).await?;
        tracing::info!(view = %view.name, files = done.files, bytes = done.bytes, "vacuumed");
        answer(view, Some(&run), done)
    })
}

#[derive(Default)]
struct Removed {
    files: usize,
    bytes: u64,
    readable_from: u64,
}

impl From<&Garbage> for Removed {
    fn from(g: &Garbage) -> Self {
        Removed { files: g.len(), bytes: g.bytes, readable_from: g.readable_from }
    }
}

fn answer(view: &FeatureView, run: Option<&Run>, done: Removed) -> Result<RecordBatch> {
    let number = |n: u64| Arc::new(Int64Array::from(vec![i64::try_from(n).unwrap_or(i64::MAX)])) as ArrayRef;
    let columns = vec![
        Arc::new(StringArray::from(vec![view.versioned_name()])) as ArrayRef,
        number(done.files as u64),
        number(done.bytes),
        number(done.readable_from),
        Arc::new(BooleanArray::from(vec![run.is_none()])),
        Arc::new(StringArray::from(vec![run.map(|r| r.run_id.as_str())])),
    ];
    Ok(RecordBatch::try_new(answers::vacuum(), columns)?)
}

fn find<'a>(resolver: &'a Resolver, view: &'a FeatureView, retain: Micros) -> BoxFuture<'a, Result<Garbage>> {
    Box::pin(async move {
        let services = &resolver.services;
        let now = services.clock.now();
        let mut versions = pinned(services, &view.location).await?;
        let (keep, found) = loop {
            let catalog = services.registry.snapshot().await?;
            let keep = Keep {
                since: now.saturating_sub(retain),
                from: online_needs(services, &catalog, &view.location).await?,
                versions,
                strays_since: strays_since(services, view, now.saturating_sub(retain.max(STRAY_AGE))).await?,
            };
            let found = services.store.garbage(&view.location, &keep).await?;
            // to look for files takes long: somebody may have pinned an old version meanwhile
            versions = pinned(services, &view.location).await?;
            if versions.is_subset(&keep.versions) {
                break (keep, found);
            }
        };
        if keep.from == Some(found.readable_from) {
            resolver.notice(format!(
                "feature view {}: files of version {} and later are kept for the next MATERIALIZE, however old they are",
                view.name, found.readable_from
            ));
        }
        if found.log_is_cut {
            resolver.notice(format!(
                "feature view {}: its log does not reach back to its beginning; files that the log does not name are left alone",
                view.name
            ));
        }
        Ok(found)
    })
}

async fn pinned(services: &Services, location: &str) -> Result<BTreeSet<u64>> {
    // as it is now: a training set may have been made since the statement was planned
    let catalog = services.registry.snapshot().await?;
    pins::versions(services, &catalog, location).await
}

/// The version after which an incremental MATERIALIZE goes on; `None`: nothing of the table is online.
async fn online_needs(services: &Services, catalog: &CatalogSnapshot, location: &str) -> Result<Option<u64>> {
    let mut oldest = None;
    let views = catalog.feature_views.values().flat_map(|s| s.versions.values());
    for view in views.filter(|v| v.online && v.location == location) {
        let id = services.online_view(view);
        let watermark = async {
            let online = services.online().await?;
            match online.pointer(&id).await? {
                Some(p) => online.watermark(&id, p.generation).await,
                None => Ok(None),
            }
        };
        let found = watermark.await.map_err(|e: Error| {
            let hint = format!("ALTER FEATURE VIEW {} SET OFFLINE, where it shall not be served any more", view.name);
            Error::new(e.kind(), format!("it is not known what its online rows need: {}", e.message())).with_hint(e.hint().unwrap_or(&hint))
        })?;
        oldest = match (oldest, found) {
            (Some(a), Some(b)) => Some(u64::min(a, b)),
            (a, b) => a.or(b),
        };
    }
    Ok(oldest)
}

/// Runs that are not over may still commit files that they wrote long ago.
async fn strays_since(services: &Services, view: &FeatureView, usual: Micros) -> Result<Micros> {
    let unfinished = services.runs.list().await?.into_iter().filter(|r| {
        r.status == RunStatus::Running
            && r.location.as_deref() == Some(&view.location)
            && r.process.as_deref().and_then(is_gone) != Some(true)
    });
    Ok(unfinished.map(|r| r.started_at).min().map_or(usual, |started| started.min(usual)))
}
