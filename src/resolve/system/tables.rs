use super::declare::system_table;
use super::{Scan, names};
use crate::catalog::{Relation, SYSTEM_SCHEMA};
use crate::error::Result;
use crate::model::{Name, ObjectKind};

system_table! {
    /// All that can stand in FROM: tables, views, feature views, feature services, training sets, system tables.
    tables {
        /// Schema of the object.
        schema: Text,
        /// Its name.
        name: Text,
        /// `table`, `view`, `feature view`, `feature service`, `training set` or `system table`.
        kind: Text,
        /// COMMENT of the object.
        comment: Text,
    }
}

async fn rows(scan: &Scan, _: Wanted) -> Result<Vec<Row>> {
    let row = |n: &Name, kind: &str, comment| Row {
        schema: Some(n.schema.clone()),
        name: Some(n.name.clone()),
        kind: Some(kind.to_string()),
        comment,
    };
    let known = scan.catalog.relation_names().filter_map(|n| scan.catalog.relation(n).map(|r| row(n, r.kind(), comment(r))));
    let system = names().map(|name| row(&Name::new(SYSTEM_SCHEMA, name), ObjectKind::SystemTable.words(), None));
    Ok(known.chain(system).collect())
}

fn comment(relation: Relation<'_>) -> Option<String> {
    let about = match relation {
        Relation::Table(t) => &t.about,
        Relation::View(v) => &v.about,
        Relation::FeatureView(s) => &s.current()?.about,
        Relation::Service(s) => &s.about,
        Relation::TrainingSet(t) => &t.about,
    };
    about.comment.clone()
}
