//! DROP.

use super::super::dependencies::{readers_of, to_drop_services, unread};
use super::super::{CatalogChange, CatalogSnapshot};
use crate::error::{Error, Result};
use crate::model::{Name, ViewVersionId};

pub fn entity(c: &CatalogSnapshot, name: &Name) -> Result<Vec<CatalogChange>> {
    let users = c.views_using_entity(name);
    if !users.is_empty() {
        return Err(Error::invalid(format!("entity {name} is used by {}", users.join(", "))).with_hint("drop these feature views first"));
    }
    Ok(vec![CatalogChange::DropEntity(name.clone())])
}

pub fn table(c: &CatalogSnapshot, name: &Name) -> Result<Vec<CatalogChange>> {
    c.table(name)?;
    unread(c, name, None)?;
    Ok(vec![CatalogChange::DropTable(name.clone())])
}

pub fn view(c: &CatalogSnapshot, name: &Name) -> Result<Vec<CatalogChange>> {
    unread(c, name, None)?;
    Ok(vec![CatalogChange::DropView(name.clone())])
}

pub fn service(c: &CatalogSnapshot, name: &Name) -> Result<Vec<CatalogChange>> {
    unread(c, name, None)?;
    Ok(vec![CatalogChange::DropService(name.clone())])
}

pub fn training_set(c: &CatalogSnapshot, name: &Name) -> Result<Vec<CatalogChange>> {
    c.training_set(name)?;
    unread(c, name, None)?;
    Ok(vec![CatalogChange::DropTrainingSet(name.clone())])
}

/// A version, or all versions, of a feature view.
pub fn feature_view(c: &CatalogSnapshot, name: &Name, version: Option<u32>, cascade: bool) -> Result<Vec<CatalogChange>> {
    let series = c.feature_view_series(name)?;
    unread(c, name, version)?;
    let services = c.services_using_view(name, version);
    let list: Vec<String> = services.iter().map(|s| s.to_string()).collect();
    // a view may look a service up
    let read =
        services.iter().filter(|s| !readers_of(c, s, None).is_empty()).map(|s| unread(c, s, None).map_err(|e| e.message().to_string()));
    let read: Vec<String> = read.filter_map(std::result::Result::err).collect();
    if !services.is_empty() && (!cascade || !read.is_empty()) {
        let why = if read.is_empty() { String::new() } else { format!(", and {}", read.join(", and ")) };
        let hint = match read.is_empty() {
            true => "drop the service first, or write CASCADE to drop it too".to_string(),
            false => format!("drop them first: {}", to_drop_services(c, &services).join("; ")),
        };
        return Err(Error::invalid(format!("feature view {name} is used by feature service {}{why}", list.join(", "))).with_hint(hint));
    }
    let mut changes: Vec<CatalogChange> = services.into_iter().map(CatalogChange::DropService).collect();
    match version {
        Some(v) if series.versions.len() > 1 => {
            if v == series.current {
                return Err(Error::invalid(format!(
                    "{name}@v{v} is what {name} means now; it cannot be dropped while other versions stay"
                ))
                .with_hint("fill the newer version first (REFRESH, MATERIALIZE), or drop the whole feature view"));
            }
            changes.push(CatalogChange::DropFeatureViewVersion(ViewVersionId::from(c.feature_view(name, Some(v))?)));
        }
        _ => changes.push(CatalogChange::DropFeatureView(name.clone())),
    }
    Ok(changes)
}
