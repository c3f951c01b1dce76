//! Views that read an object, and the DROPs that work, in their order.

use super::drop::tables_of;
use crate::catalog::CatalogSnapshot;
use crate::model::Name;
use crate::model::types::quote;

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
pub fn of(c: &CatalogSnapshot, name: &Name, version: Option<u32>) -> Vec<Reader> {
    let reads = |query: &str, schema: &str| tables_of(query, schema).iter().any(|(n, v)| n == name && (version.is_none() || *v == version));
    let views = c.views.values().filter(|v| reads(&v.query, &v.query_schema)).map(|v| Reader::View(v.name.clone()));
    let series = c.feature_views.values().filter(|s| s.versions.values().all(|v| v.name != *name));
    let versions = series.flat_map(|s| s.versions.values().map(move |v| (v, v.version == s.current || s.versions.len() == 1)));
    let features = versions
        .filter(|(v, _)| v.query.as_ref().is_some_and(|q| reads(q, &v.query_schema)))
        .map(|(v, alone)| Reader::FeatureView { name: v.name.clone(), version: v.version, alone });
    views.chain(features).collect()
}

/// The statements that drop all that reads an object, and what reads that, last readers first.
pub fn to_drop(c: &CatalogSnapshot, name: &Name, version: Option<u32>) -> Vec<String> {
    let mut out = vec![];
    readers(c, name, version, &mut out);
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

fn readers(c: &CatalogSnapshot, name: &Name, version: Option<u32>, out: &mut Vec<String>) {
    for reader in of(c, name, version) {
        match reader {
            Reader::View(view) => {
                readers(c, &view, None, out);
                add(out, format!("DROP VIEW {}", in_sql(&view)));
            }
            Reader::FeatureView { name, version, alone } => {
                let version = Some(version).filter(|_| !alone);
                readers(c, &name, version, out);
                c.services_using_view(&name, version).iter().for_each(|s| service(c, s, out));
                let at = version.map(|v| format!("@v{v}")).unwrap_or_default();
                add(out, format!("DROP FEATURE VIEW {}{at}", in_sql(&name)));
            }
        }
    }
}

fn service(c: &CatalogSnapshot, name: &Name, out: &mut Vec<String>) {
    readers(c, name, None, out);
    add(out, format!("DROP FEATURE SERVICE {}", in_sql(name)));
}
