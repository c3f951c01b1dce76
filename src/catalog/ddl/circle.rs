//! Definitions that would read themselves, through whatever lies between.

use super::super::{CatalogSnapshot, Relation};
use crate::error::{Error, Result};
use crate::model::{Dependency, FeatureView, Name, Service, View};

/// What a query names: a relation, and of a feature view perhaps one version.
type Read = (Name, Option<u32>);

/// A definition that is about to be made or replaced.
struct Start<'a> {
    name: &'a Name,
    /// Of a feature view: the new version, which the bare name will come to mean.
    version: Option<u32>,
    kind: &'static str,
}

/// Refuses a version of a feature view whose query reads it.
pub fn feature_view(c: &CatalogSnapshot, view: &FeatureView) -> Result<()> {
    let start = Start { name: &view.name, version: Some(view.version), kind: "feature view" };
    check(c, &start, named(&view.reads)).map_err(|e| {
        e.with_hint(format!(
            "each REFRESH would build on the one before; read the source itself{}",
            match view.version {
                1 => String::new(),
                v => format!(", or an older version by its number ({}@v{})", view.name, v - 1),
            }
        ))
    })
}

/// Refuses a view whose query reads it.
pub fn view(c: &CatalogSnapshot, view: &View) -> Result<()> {
    let start = Start { name: &view.name, version: None, kind: "view" };
    check(c, &start, named(&view.reads)).map_err(|e| e.with_hint("change one of the views in the circle"))
}

/// Refuses a service of which a feature view reads it.
pub fn service(c: &CatalogSnapshot, service: &Service) -> Result<()> {
    let start = Start { name: &service.name, version: None, kind: "feature service" };
    check(c, &start, items(service)).map_err(|e| e.with_hint("change one of the definitions in the circle"))
}

fn named(reads: &[Dependency]) -> Vec<Read> {
    reads.iter().map(|d| (d.object.clone(), d.version)).collect()
}

fn items(service: &Service) -> Vec<Read> {
    service.items.iter().map(|i| (i.view.clone(), i.pin.number())).collect()
}

fn check(c: &CatalogSnapshot, start: &Start<'_>, reads: Vec<Read>) -> Result<()> {
    let mut seen: Vec<Read> = vec![];
    // each with the way that led to it
    let mut open: Vec<(Read, Vec<String>)> = reads.into_iter().map(|r| (r, vec![])).collect();
    while let Some((read, way)) = open.pop() {
        if read.0 == *start.name && (start.version.is_none() || read.1.is_none() || read.1 == start.version) {
            let through = if way.is_empty() { String::new() } else { format!(" through {}", way.join(", then ")) };
            return Err(Error::invalid(format!("{} {} reads itself{through}", start.kind, start.name)));
        }
        if seen.contains(&read) {
            continue;
        }
        let shown = match read.1 {
            Some(v) => format!("{}@v{v}", read.0),
            None => read.0.to_string(),
        };
        let way: Vec<String> = way.into_iter().chain([shown]).collect();
        open.extend(reads_of(c, &read).into_iter().map(|r| (r, way.clone())));
        seen.push(read);
    }
    Ok(())
}

/// What a relation reads: of a bare feature view each version that the name means, or may come to mean.
fn reads_of(c: &CatalogSnapshot, (name, version): &Read) -> Vec<Read> {
    match c.relation(name) {
        Some(Relation::View(v)) => named(&v.reads),
        Some(Relation::Service(s)) => items(s),
        Some(Relation::FeatureView(series)) => {
            let meant = |v: &&FeatureView| version.map_or(v.version >= series.current, |wanted| wanted == v.version);
            let versions = series.versions.values().filter(meant);
            versions.flat_map(|v| named(&v.reads)).collect()
        }
        _ => vec![],
    }
}
