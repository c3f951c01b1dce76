//! ALTER FEATURE VIEW.

use serde::{Deserialize, Serialize};

use super::super::{CatalogChange, CatalogSnapshot, PutMode};
use crate::clock::Micros;
use crate::error::Result;
use crate::model::{FeatureView, Name, Tags, ViewVersionId};

/// What of a feature view is set. Zero and the empty text take a property away.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ViewChange {
    Ttl(Micros),
    Comment(String),
    Owner(String),
    Tags(Tags),
    UnsetTags(Vec<String>),
    Online(bool),
    Lookback(Micros),
    RefreshEvery(Micros),
    Suspended(bool),
}

pub fn feature_view(c: &CatalogSnapshot, name: &Name, version: u32, change: &ViewChange) -> Result<Vec<CatalogChange>> {
    let old = c.feature_view(name, Some(version))?;
    let mut v: FeatureView = old.clone();
    match change {
        ViewChange::Ttl(t) => v.ttl = Some(*t).filter(|t| *t > 0),
        ViewChange::Comment(t) => v.about.comment = Some(t.clone()).filter(|t| !t.is_empty()),
        ViewChange::Owner(t) => v.about.owner = Some(t.clone()).filter(|t| !t.is_empty()),
        ViewChange::Tags(t) => v.about.tags.extend(t.clone()),
        ViewChange::UnsetTags(t) => v.about.tags.retain(|k, _| !t.contains(k)),
        ViewChange::Online(o) => v.online = *o,
        ViewChange::Lookback(t) => v.lookback = *t,
        ViewChange::RefreshEvery(t) => v.refresh_every = Some(*t).filter(|t| *t > 0),
        ViewChange::Suspended(s) => v.suspended = *s,
    }
    Ok(changed(c, old, v))
}

/// The changes that put a view in the place of the same version. What was online before it was set OFFLINE has missed
/// what was stored since: SET ONLINE begins anew, under another online id.
pub fn changed(c: &CatalogSnapshot, old: &FeatureView, mut new: FeatureView) -> Vec<CatalogChange> {
    if new.online && !old.online {
        new.online_id = c.next_online_id;
    }
    let is_marked = c.feature_views.get(&new.name).is_some_and(|s| s.materialized.contains(&new.version));
    let unmark = (new.online != old.online && is_marked).then(|| CatalogChange::ClearMaterialized(ViewVersionId::from(&new)));
    std::iter::once(CatalogChange::PutFeatureView(new, PutMode::Replace)).chain(unmark).collect()
}
