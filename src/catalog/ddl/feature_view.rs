//! CREATE [OR REPLACE] FEATURE VIEW.

use super::super::{CatalogChange, CatalogSnapshot, PutMode};
use super::{Exists, alter, circle, left_behind};
use crate::error::{Error, Result};
use crate::model::{FeatureView, ViewVersionId};

/// What a CREATE [OR REPLACE] FEATURE VIEW comes to on a catalog.
#[derive(Debug)]
pub struct Outcome {
    pub changes: Vec<CatalogChange>,
    pub notices: Vec<String>,
    /// `new`, `new version`, `changed in place`, `unchanged`, `exists`.
    pub what: &'static str,
}

/// What CREATE [OR REPLACE] FEATURE VIEW does to a catalog (sql/README.md, "Versions"): every changed query, key, timestamp
/// or schema is a new version with a table of its own.
pub fn create(catalog: &CatalogSnapshot, view: &FeatureView, exists: Exists) -> Result<Outcome> {
    let name = &view.name;
    let outcome = |changes, notices, what| Ok(Outcome { changes, notices, what });
    let Some(series) = catalog.feature_views.get(name) else {
        if let Some(kind) = catalog.relation(name).map(|r| r.kind()) {
            return Err(Error::already_exists(format!("{kind} {name} has this name already")));
        }
        circle::feature_view(catalog, view)?;
        let first = FeatureView { online_id: catalog.next_online_id, ..view.clone() };
        let mut changes = vec![CatalogChange::PutFeatureView(first, PutMode::Create)];
        if view.is_push() {
            changes.push(CatalogChange::MarkFilled(ViewVersionId::from(view)));
        }
        return outcome(changes, vec![], "new");
    };
    if exists == Exists::Keep {
        return outcome(vec![], vec![format!("feature view {name} exists already; nothing was changed")], "exists");
    }
    if exists == Exists::Refuse {
        return Err(Error::already_exists(format!("feature view {name} exists already"))
            .with_hint("CREATE OR REPLACE FEATURE VIEW changes it (a new version, where values change), IF NOT EXISTS keeps it"));
    }
    let Some(latest) = series.latest() else { return Err(Error::internal(format!("feature view {name} has no versions"))) };
    if same_values(latest, view) {
        let kept = FeatureView {
            version: latest.version,
            table_id: latest.table_id.clone(),
            location: latest.location.clone(),
            online_id: latest.online_id,
            created_at: latest.created_at,
            query: latest.query.clone(),
            reads: latest.reads.clone(),
            suspended: latest.suspended,
            ..view.clone()
        };
        if kept == *latest {
            return outcome(vec![], vec![format!("feature view {name} is unchanged")], "unchanged");
        }
        let mut notices = vec![];
        let cleared = cleared(latest, &kept);
        if !cleared.is_empty() {
            notices.push(format!("feature view {name}: the statement leaves out, and so clears, {}", cleared.join(", ")));
        }
        return outcome(alter::changed(catalog, latest, kept), notices, "changed in place");
    }
    let next = FeatureView { version: series.last_version + 1, online_id: catalog.next_online_id, ..view.clone() };
    circle::feature_view(catalog, &next)?;
    let mut notices = vec![];
    let version = next.version;
    let pushed = ViewVersionId::from(&next);
    let (bare, kept) = (series.current, series.versions.get(&series.current).is_some_and(|v| v.online));
    let broken = series.current().and_then(|old| left_behind::left_behind(catalog, old, &next));
    let mut changes = vec![CatalogChange::PutFeatureView(next, PutMode::Create)];
    if view.is_push() {
        changes.push(CatalogChange::MarkFilled(pushed.clone()));
        changes.push(CatalogChange::SetCurrentVersion(pushed));
        notices.push(format!("feature view {name}: version v{version} is new and empty, and {name} means it from now on"));
    } else {
        let online = if kept && view.online { format!(" and MATERIALIZE FEATURE VIEW {name}") } else { String::new() };
        notices.push(format!("feature view {name}: version v{version} is new and empty; {name} goes on meaning v{bare} until REFRESH FEATURE VIEW {name}{online} is done, which fills both"));
    }
    notices.extend(broken);
    outcome(changes, notices, "new version")
}

/// True where both definitions give the same rows in the same table.
fn same_values(a: &FeatureView, b: &FeatureView) -> bool {
    let words = |v: &FeatureView| {
        v.query
            .as_deref()
            .map(|q| crate::sql::text::tokenize(q).map(|t| t.into_iter().map(|t| t.token).collect::<Vec<_>>()).unwrap_or_default())
    };
    words(a) == words(b)
        && a.query_schema == b.query_schema
        && a.entities == b.entities
        && a.event_zone == b.event_zone
        && a.event_timestamp == b.event_timestamp
        && a.created_timestamp == b.created_timestamp
        && a.visible_columns() == b.visible_columns()
}

fn cleared(old: &FeatureView, new: &FeatureView) -> Vec<&'static str> {
    let mut out = vec![];
    let mut gone = |had: bool, has: bool, what| {
        if had && !has {
            out.push(what);
        }
    };
    gone(old.ttl.is_some(), new.ttl.is_some(), "TTL");
    gone(old.lookback > 0, new.lookback > 0, "LOOKBACK");
    gone(old.refresh_every.is_some(), new.refresh_every.is_some(), "REFRESH EVERY");
    gone(old.online, new.online, "ONLINE");
    gone(old.about.comment.is_some(), new.about.comment.is_some(), "COMMENT");
    gone(old.about.owner.is_some(), new.about.owner.is_some(), "OWNER");
    gone(!old.about.tags.is_empty(), !new.about.tags.is_empty(), "TAGS");
    out
}
