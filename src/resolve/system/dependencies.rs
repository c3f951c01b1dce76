use std::collections::BTreeSet;

use super::Scan;
use super::declare::system_table;
use super::values::int;
use crate::catalog::CatalogSnapshot;
use crate::config::without_credentials;
use crate::error::Result;
use crate::model::{Dependency, FeatureView, Name, ObjectKind, PinnedTable, Service, TrainingSet, Travel};

system_table! {
    /// What each object reads, by the names that its definition gives: one row per reader and object.
    ///
    /// A feature view reads its entities too. Of a training set these are the tables that its rows came from, at their
    /// versions, those behind views included.
    dependencies {
        /// `view`, `feature view`, `feature service` or `training set`.
        reader_kind: Text,
        /// Schema of the reader.
        reader_schema: Text,
        /// Name of the reader.
        reader_name: Text,
        /// Version of a feature view that reads.
        reader_version: Int,
        /// Kind of what is read, as in `reader_kind`, or `entity`, `table`, `system table`, `files`; NULL: there is nothing of this name.
        kind: Text,
        /// Schema of what is read; NULL for files that the query names by itself.
        schema: Text,
        /// Name of what is read; of files their place, without credentials.
        name: Text,
        /// Version of a feature view that is named: the N of `view@vN`; NULL: none is.
        version: Int,
        /// Whether the version is whichever the bare name means: no version of a feature view is named, or `@latest`.
        floating: Bool,
        /// Version of the Delta table: of VERSION AS OF, or of what a training set was made from.
        delta_version: Int,
        /// The instant of TIMESTAMP AS OF.
        as_of: Time,
        /// Whether it is read by ONLINE_LOOKUP or ONLINE JOIN.
        online: Bool,
    }
}

async fn rows(scan: &Scan, _: Wanted) -> Result<Vec<Row>> {
    let c = &scan.catalog;
    let mut out = vec![];
    for v in c.views.values() {
        let reader = Reader { kind: ObjectKind::View, name: &v.name, version: None };
        out.extend(v.reads.iter().map(|d| reader.reads(d)));
    }
    c.feature_views.values().flat_map(|s| s.versions.values()).for_each(|v| feature_view(v, &mut out));
    c.services.values().for_each(|s| service(s, &mut out));
    c.training_sets.values().for_each(|t| training_set(c, t, &mut out));
    Ok(out)
}

/// What reads.
#[derive(Clone, Copy)]
struct Reader<'a> {
    kind: ObjectKind,
    name: &'a Name,
    version: Option<u32>,
}

impl Reader<'_> {
    fn reads(&self, d: &Dependency) -> Row {
        let files = d.kind == Some(ObjectKind::Files);
        Row {
            reader_kind: Some(self.kind.words().into()),
            reader_schema: Some(self.name.schema.clone()),
            reader_name: Some(self.name.name.clone()),
            reader_version: self.version.and_then(int),
            kind: d.kind.map(|k| k.words().into()),
            schema: Some(d.object.schema.clone()).filter(|_| !files),
            name: Some(if files { without_credentials(&d.object.name) } else { d.object.name.clone() }),
            version: d.version.and_then(int),
            floating: Some(d.version.is_none() && d.kind == Some(ObjectKind::FeatureView)),
            delta_version: if let Some(Travel::Version(v)) = d.travel { int(v) } else { None },
            as_of: if let Some(Travel::Instant(t)) = d.travel { Some(t) } else { None },
            online: Some(d.online),
        }
    }
}

fn feature_view(v: &FeatureView, out: &mut Vec<Row>) {
    let reader = Reader { kind: ObjectKind::FeatureView, name: &v.name, version: Some(v.version) };
    let entity = |e: &Name| Dependency { kind: Some(ObjectKind::Entity), ..Dependency::of(e.clone(), None) };
    out.extend(v.entities.iter().map(|e| reader.reads(&entity(e))));
    out.extend(v.reads.iter().map(|d| reader.reads(d)));
}

fn service(s: &Service, out: &mut Vec<Row>) {
    let reader = Reader { kind: ObjectKind::FeatureService, name: &s.name, version: None };
    // one view may stand there under several aliases
    let mut seen = BTreeSet::new();
    for item in &s.items {
        let d = Dependency { kind: Some(ObjectKind::FeatureView), ..Dependency::of(item.view.clone(), Some(item.pin)) };
        if seen.insert(d.clone()) {
            out.push(reader.reads(&d));
        }
    }
}

fn training_set(c: &CatalogSnapshot, t: &TrainingSet, out: &mut Vec<Row>) {
    let reader = Reader { kind: ObjectKind::TrainingSet, name: &t.name, version: None };
    out.extend(t.manifest.tables.iter().map(|p| reader.reads(&pinned(c, p))));
    // one row per table, however many files it has
    let of_files: BTreeSet<&str> = t.manifest.files.iter().map(|f| f.table.as_str()).collect();
    out.extend(of_files.into_iter().map(|table| reader.reads(&named(c, table))));
}

/// A table of a manifest: `schema.name`, or `schema.name@vN` for a feature view.
fn pinned(c: &CatalogSnapshot, p: &PinnedTable) -> Dependency {
    let d = named(c, &p.name);
    Dependency { travel: Some(Travel::Version(p.version)), ..d }
}

/// Manifests hold names as texts, in which a point may be part of a name: what is there now is asked first.
fn named(c: &CatalogSnapshot, text: &str) -> Dependency {
    if let Some(name) = c.relation_names().find(|n| n.to_string() == text) {
        return Dependency { kind: c.kind_of(name), ..Dependency::of(name.clone(), None) };
    }
    let (base, version) = match text.rsplit_once("@v").map(|(base, v)| (base, v.parse::<u32>())) {
        Some((base, Ok(version))) => (base, Some(version)),
        _ => (text, None),
    };
    let known = c.feature_views.keys().find(|n| n.to_string() == base).cloned();
    let kind = known.as_ref().map(|_| ObjectKind::FeatureView);
    let (schema, name) = base.split_once('.').unwrap_or(("", base));
    Dependency { kind, version, ..Dependency::of(known.unwrap_or_else(|| Name::new(schema, name)), None) }
}
