//! What the online store holds of each feature view version, without reading rows.

use futures::future::BoxFuture;

use super::Services;
use crate::catalog::CatalogSnapshot;
use crate::error::Result;
use crate::model::FeatureView;
use crate::store::online::KeysOf;

/// What is served of one feature view version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// `schema.name@vN`
    pub view: String,
    pub generation: u32,
    /// Delta version up to which the rows are complete; `None`: a load was begun and nothing was completed.
    pub watermark: Option<u64>,
    /// Versions of the table that are not served yet; `None`: the table cannot be read.
    pub lag: Option<u64>,
}

/// Versions that are online, or have been, in the order of their names.
pub fn versions(catalog: &CatalogSnapshot) -> impl Iterator<Item = &FeatureView> {
    let series = catalog.feature_views.values();
    series.flat_map(|s| s.versions.values().filter(|v| v.online || s.materialized.contains(&v.version)))
}

/// Versions that something is served of, in the order of their names; one batched read of the store.
pub fn all<'a>(services: &'a Services, catalog: &'a CatalogSnapshot) -> BoxFuture<'a, Result<Vec<Served>>> {
    Box::pin(async move {
        let views: Vec<&FeatureView> = versions(catalog).collect();
        if views.is_empty() {
            return Ok(vec![]);
        }
        let ids: Vec<_> = views.iter().map(|v| services.online_view(v)).collect();
        let requests: Vec<KeysOf<'_>> = ids.iter().map(|view| KeysOf { view, keys: vec![] }).collect();
        let answers = services.online().await?.get_batch(&requests).await?;
        let mut list = vec![];
        for (view, answer) in views.into_iter().zip(answers) {
            let Some(pointer) = answer.pointer else { continue };
            let table = services.store.snapshot(&view.location, None).await.ok().map(|s| s.version());
            let lag = table.map(|t| t.saturating_sub(answer.watermark.unwrap_or(0)));
            list.push(Served { view: view.versioned_name(), generation: pointer.generation, watermark: answer.watermark, lag });
        }
        Ok(list)
    })
}
