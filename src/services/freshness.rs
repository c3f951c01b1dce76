//! How fresh each feature view version is.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;

use super::Services;
use super::due::{History, Standing};
use crate::catalog::CatalogSnapshot;
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::FeatureView;

/// Tables whose logs are looked at together.
const AT_ONCE: usize = 8;

#[derive(Debug)]
pub struct Freshness {
    pub view: FeatureView,
    /// What its bare name means.
    pub is_current: bool,
    /// Newest event timestamp stored; `None`: no rows, or the table cannot be read.
    pub watermark: Option<Micros>,
    pub standing: Standing,
}

/// All versions of all feature views, in the order of their names.
pub fn all<'a>(services: &'a Arc<Services>, catalog: &'a CatalogSnapshot) -> BoxFuture<'a, Result<Vec<Freshness>>> {
    Box::pin(async move {
        let runs = services.runs.list().await?;
        let history = History::new(&runs);
        let mut list: Vec<Freshness> = vec![];
        for series in catalog.feature_views.values() {
            list.extend(series.versions.values().map(|v| Freshness {
                is_current: v.version == series.current,
                watermark: None,
                standing: history.standing(v, &services.config.schedule),
                view: v.clone(),
            }));
        }
        let watermarks: Vec<_> = list.iter().map(|f| watermark(services, &f.view)).collect();
        let watermarks: Vec<Option<Micros>> = futures::stream::iter(watermarks).buffered(AT_ONCE).collect().await;
        for (f, watermark) in list.iter_mut().zip(watermarks) {
            f.watermark = watermark;
        }
        Ok(list)
    })
}

/// One table that cannot be read hides no other.
fn watermark<'a>(services: &'a Services, view: &FeatureView) -> BoxFuture<'a, Option<Micros>> {
    let (name, location) = (view.versioned_name(), view.location.clone());
    Box::pin(async move {
        let read = services.store.snapshot(&location, None).await;
        let unread = |e: Error| tracing::warn!(view = name, error = %e, "the table of a feature view cannot be read");
        read.map_err(unread).ok().and_then(|s| s.watermark())
    })
}
