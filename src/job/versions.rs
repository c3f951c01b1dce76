//! Several versions of one feature view: in which order they are worked on, and which of them the bare name means.

use std::sync::Arc;

use crate::catalog::{CatalogChange, Run};
use crate::error::{Error, Kind, Result};
use crate::model::{FeatureView, ViewVersionId};

/// Runs a step for each view in turn and stops at the first failure; but a version that fails does not hold up the
/// newer one of the same view, which may be there to mend it.
pub fn each_version<'a, W>(views: &'a [Arc<FeatureView>], mut work: W) -> futures::future::BoxFuture<'a, Result<Vec<Run>>>
where
    W: FnMut(&'a Arc<FeatureView>) -> futures::future::BoxFuture<'a, Result<Run>> + Send + 'a,
{
    Box::pin(async move {
        let mut out = vec![];
        let mut failed: Option<(&FeatureView, Error)> = None;
        for view in views {
            if failed.as_ref().is_some_and(|(f, _)| f.name != view.name || f.version > view.version) {
                continue;
            }
            match work(view).await {
                Ok(run) => out.push(run),
                Err(e) if e.kind() == Kind::Cancelled => return Err(e),
                Err(e) => failed = failed.or(Some((view.as_ref(), e))),
            }
        }
        match failed {
            Some((_, e)) => Err(e),
            None => Ok(out),
        }
    })
}

/// The change that makes the bare name mean a newer version, once that is complete, and online where the
/// old one is (sql/README.md, "Versions").
pub fn takes_over(series: &crate::model::FeatureViewSeries, view: &FeatureView, filled: bool, materialized: bool) -> Option<CatalogChange> {
    let old_online = series.materialized.contains(&series.current) && series.current().is_some_and(|v| v.online);
    let ready = filled && (!old_online || materialized || !view.online);
    (ready && view.version > series.current).then(|| CatalogChange::SetCurrentVersion(ViewVersionId::from(view)))
}
