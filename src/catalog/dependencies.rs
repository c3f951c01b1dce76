//! Views that read an object, and the DROPs that work, in their order.

use super::CatalogSnapshot;
use crate::error::{Error, Result};
use crate::model::types::quote;
use crate::model::{Dependency, Name};

/// What reads an object.
pub enum Reader {
    View(Name),
    /// A version; `alone`: it goes with the whole view only.
    FeatureView {
        name: Name,
        version: u32,
        alone: bool,
    },
}

impl Reader {
    pub fn shown(&self) -> String {
        match self {
            Reader::View(name) => format!("view {name}"),
            Reader::FeatureView { name, version, .. } => format!("feature view {name}@v{version}"),
        }
    }
}

/// Views whose query names an object, or one `version` of it.
pub fn readers_of(c: &CatalogSnapshot, name: &Name, version: Option<u32>) -> Vec<Reader> {
    let reads = |reads: &[Dependency]| reads.iter().any(|d| d.names(name, version));
    let views = c.views.values().filter(|v| reads(&v.reads)).map(|v| Reader::View(v.name.clone()));
    let series = c.feature_views.values().filter(|s| s.versions.values().all(|v| v.name != *name));
    let versions = series.flat_map(|s| s.versions.values().map(move |v| (v, v.version == s.current || s.versions.len() == 1)));
    let features =
        versions.filter(|(v, _)| reads(&v.reads)).map(|(v, alone)| Reader::FeatureView { name: v.name.clone(), version: v.version, alone });
    views.chain(features).collect()
}

/// Feature views whose rows come from an object, through views too.
pub fn feature_views_over(c: &CatalogSnapshot, name: &Name) -> Vec<String> {
    let (mut seen, mut next, mut out) = (vec![name.clone()], vec![name.clone()], vec![]);
    while let Some(of) = next.pop() {
        for reader in readers_of(c, &of, None) {
            let name = match reader {
                Reader::View(name) => name,
                Reader::FeatureView { name, version, alone } => {
                    let at = if alone { String::new() } else { format!("@v{version}") };
                    add(&mut out, format!("{}{at}", in_sql(&name)));
                    name
                }
            };
            if !seen.contains(&name) {
                seen.push(name.clone());
                next.push(name);
            }
        }
    }
    out
}

/// The statements that drop all that reads an object, and what reads that, last readers first.
pub fn to_drop(c: &CatalogSnapshot, name: &Name, version: Option<u32>) -> Vec<String> {
    let mut out = vec![];
    drops(c, name, version, &mut out);
    out
}

/// The same of services, and the services.
pub fn to_drop_services(c: &CatalogSnapshot, services: &[Name]) -> Vec<String> {
    let mut out = vec![];
    services.iter().for_each(|s| service(c, s, &mut out));
    out
}

fn add(out: &mut Vec<String>, statement: String) {
    if !out.contains(&statement) {
        out.push(statement);
    }
}

fn in_sql(n: &Name) -> String {
    format!("{}.{}", quote(&n.schema), quote(&n.name))
}

fn drops(c: &CatalogSnapshot, name: &Name, version: Option<u32>, out: &mut Vec<String>) {
    for reader in readers_of(c, name, version) {
        match reader {
            Reader::View(view) => {
                drops(c, &view, None, out);
                add(out, format!("DROP VIEW {}", in_sql(&view)));
            }
            Reader::FeatureView { name, version, alone } => {
                let version = Some(version).filter(|_| !alone);
                drops(c, &name, version, out);
                c.services_using_view(&name, version).iter().for_each(|s| service(c, s, out));
                let at = version.map(|v| format!("@v{v}")).unwrap_or_default();
                add(out, format!("DROP FEATURE VIEW {}{at}", in_sql(&name)));
            }
        }
    }
}

fn service(c: &CatalogSnapshot, name: &Name, out: &mut Vec<String>) {
    drops(c, name, None, out);
    add(out, format!("DROP FEATURE SERVICE {}", in_sql(name)));
}

/// Refuses to drop what views read: they would fail at their next use, or read something else that is
/// called the same later. `version`: of a feature view, where only that one goes.
pub fn unread(c: &CatalogSnapshot, name: &Name, version: Option<u32>) -> Result<()> {
    let readers: Vec<String> = readers_of(c, name, version).iter().map(Reader::shown).collect();
    if readers.is_empty() {
        return Ok(());
    }
    let kind = c.relation(name).map_or("relation", |r| r.kind());
    let first = to_drop(c, name, version).join("; ");
    Err(Error::invalid(format!("{kind} {name} is read by {}", readers.join(", ")))
        .with_hint(format!("drop them first: {first}; or change their queries with CREATE OR REPLACE")))
}
