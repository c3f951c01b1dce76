//! Old versions of feature tables that somebody names: training sets in their manifests, stored queries by
//! VERSION AS OF and TIMESTAMP AS OF.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::catalog::runs::is_gone;
use crate::catalog::{CatalogSnapshot, RunStatus};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::{Dependency, FeatureView, PinnedTable, Travel};
use crate::services::Services;
use crate::services::lease::maintenance_lease;

/// How often, and how long each time, a VACUUM is waited for that may remove what was just pinned.
const LOOKS: u32 = if cfg!(test) { 2 } else { 100 };
const PAUSE: Duration = Duration::from_millis(100);

/// The versions of a table that VACUUM must leave, however old.
pub fn versions<'a>(services: &'a Services, catalog: &'a CatalogSnapshot, location: &'a str) -> BoxFuture<'a, Result<BTreeSet<u64>>> {
    Box::pin(async move {
        let tables = catalog.training_sets.values().flat_map(|t| &t.manifest.tables);
        let mut out: BTreeSet<u64> = tables.filter(|t| t.location == location).map(|t| t.version).collect();
        for travel in travels(catalog, location) {
            match travel {
                Travel::Version(v) => drop(out.insert(v)),
                Travel::Instant(at) => match services.store.snapshot_at(location, at).await {
                    Ok(s) => drop(out.insert(s.version())),
                    // before its first version: the query cannot be read anyhow
                    Err(e) if e.kind() == Kind::NotFound => {}
                    Err(e) => return Err(e),
                },
            }
        }
        Ok(out)
    })
}

/// Where in time stored queries read a table.
fn travels(catalog: &CatalogSnapshot, location: &str) -> Vec<Travel> {
    let views = catalog.views.values().flat_map(|v| &v.reads);
    let features = catalog.feature_views.values().flat_map(|s| s.versions.values()).flat_map(|v| &v.reads);
    let of_table = |d: &&Dependency| catalog.feature_view(&d.object, d.version).is_ok_and(|v| v.location == location);
    views.chain(features).filter(|d| d.travel.is_some()).filter(of_table).filter_map(|d| d.travel).collect()
}

/// Makes sure that versions which the catalog pins since a moment ago can be read, and stay so: a VACUUM that
/// looked at the catalog before is waited for, and did not remove their files.
pub fn hold<'a>(services: &'a Services, tables: &'a [PinnedTable]) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let catalog = services.registry.snapshot().await?;
        for table in tables {
            let mut views = catalog.feature_views.values().flat_map(|s| s.versions.values());
            let Some(view) = views.find(|v| v.location == table.location) else { continue };
            let now = services.store.snapshot(&table.location, None).await?;
            let then = services.store.snapshot(&table.location, Some(table.version)).await?;
            let current: BTreeSet<&str> = now.files().iter().map(|f| f.path.as_str()).collect();
            let old: Vec<_> = then.files().iter().filter(|f| !current.contains(f.path.as_str())).cloned().collect();
            if old.is_empty() {
                continue;
            }
            wait_for_vacuum(services, view).await?;
            if let Some(missing) = services.store.first_missing(&table.location, &old).await? {
                return Err(Error::conflict(format!(
                    "version {} of {} can no longer be read: VACUUM removed {missing} meanwhile",
                    table.version, table.name
                ))
                .with_hint("read a newer version; VACUUM … RETAIN says how long versions stay"));
            }
        }
        Ok(())
    })
}

async fn wait_for_vacuum(services: &Services, view: &FeatureView) -> Result<()> {
    for look in 0.. {
        let Some(holder) = vacuum_of(services, view).await? else { break };
        if look == LOOKS {
            return Err(Error::conflict(format!(
                "an old version of {} is read, and {holder} is removing old files of it now",
                view.versioned_name()
            ))
            .with_hint("try again when that VACUUM is over; system.runs shows it"));
        }
        clock::sleep(PAUSE).await;
    }
    Ok(())
}

/// Who removes files of the view now. A VACUUM takes the lease, records its run, and only then reads what is pinned.
async fn vacuum_of(services: &Services, view: &FeatureView) -> Result<Option<String>> {
    let Some(holder) = services.store.lease_holder(&maintenance_lease(view)).await? else { return Ok(None) };
    let runs = services.runs.list().await?;
    let at_work = runs.iter().any(|r| {
        r.status == RunStatus::Running
            && r.kind == "vacuum"
            && r.location.as_deref() == Some(&view.location)
            && r.process.as_deref().and_then(is_gone) != Some(true)
    });
    Ok(at_work.then_some(holder))
}
