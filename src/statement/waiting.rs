//! Versions that wait to take over the name of their feature view.

use crate::catalog::CatalogSnapshot;
use crate::error::Error;
use crate::model::Dependency;

/// Tells of a column that is missing where a version has it that waits to take over a feature view's name.
pub fn with_waiting(e: Error, catalog: &CatalogSnapshot, named: &[Dependency]) -> Error {
    let missing = e.message().strip_prefix("column \"").and_then(|m| m.strip_suffix("\" does not exist"));
    let Some(column) = missing.map(|m| m.rsplit('.').next().unwrap_or(m).to_string()) else { return e };
    let waiting = named.iter().filter(|d| d.version.is_none()).find_map(|d| {
        let waiting = catalog.feature_views.get(&d.object)?.waiting()?;
        waiting.features.iter().any(|f| f.name == column).then_some(waiting)
    });
    match waiting {
        Some(v) => e.with_hint(format!(
            "{column:?} comes with version v{} of {}, which waits to take the name over: REFRESH FEATURE VIEW {2}{3} first, or name {2}@v{0}",
            v.version,
            v.name,
            v.name.name,
            if v.online { format!(" and MATERIALIZE FEATURE VIEW {}", v.name.name) } else { String::new() }
        )),
        None => e,
    }
}
