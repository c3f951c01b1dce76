use super::Scan;
use super::declare::system_table;
use super::values::{int, tags};
use crate::error::Result;
use crate::model::TrainingSet;

system_table! {
    /// Training sets, with what their manifests say.
    training_sets {
        /// Schema of the training set.
        schema: Text,
        /// Its name.
        name: Text,
        /// Number of rows.
        rows: Int,
        /// Hash of its content, the same for the same rows in any order.
        content_hash: Text,
        /// What `now()` meant when it was made.
        instant: Time,
        /// Where its table lies.
        location: Text,
        /// Version of the catalog that it was made over.
        catalog_version: Int,
        /// Version of Remige that made it.
        engine_version: Text,
        /// The query after AS.
        query: Text,
        /// COMMENT of the training set.
        comment: Text,
        /// OWNER of the training set.
        owner: Text,
        /// TAGS of the training set: `tag = value`, with commas between.
        tags: Text,
        /// When it was created.
        created_at: Time,
    }
}

async fn rows(scan: &Scan, _: Wanted) -> Result<Vec<Row>> {
    let one = |t: &std::sync::Arc<TrainingSet>| Row {
        schema: Some(t.name.schema.clone()),
        name: Some(t.name.name.clone()),
        rows: int(t.manifest.rows),
        content_hash: Some(t.manifest.content_hash.clone()),
        instant: Some(t.manifest.instant),
        location: Some(scan.services.store.display_path(&t.location)),
        catalog_version: int(t.manifest.catalog_version),
        engine_version: Some(t.manifest.engine_version.clone()),
        query: Some(t.query.clone()),
        comment: t.about.comment.clone(),
        owner: t.about.owner.clone(),
        tags: tags(&t.about.tags),
        created_at: Some(t.created_at),
    };
    Ok(scan.catalog.training_sets.values().map(one).collect())
}
