use super::Scan;
use super::declare::system_table;
use super::values::{tags, typed};
use crate::error::Result;

system_table! {
    /// Entities: what features are about, and the keys that find it.
    entities {
        /// Schema of the entity.
        schema: Text,
        /// Its name.
        name: Text,
        /// Key columns with their types, in their order.
        keys: Text,
        /// COMMENT of the entity.
        comment: Text,
        /// OWNER of the entity.
        owner: Text,
        /// TAGS of the entity: `tag = value`, with commas between.
        tags: Text,
        /// When it was created.
        created_at: Time,
    }
}

async fn rows(scan: &Scan, _: Wanted) -> Result<Vec<Row>> {
    let one = |e: &std::sync::Arc<crate::model::Entity>| Row {
        schema: Some(e.name.schema.clone()),
        name: Some(e.name.name.clone()),
        keys: typed(&e.keys),
        comment: e.about.comment.clone(),
        owner: e.about.owner.clone(),
        tags: tags(&e.about.tags),
        created_at: Some(e.created_at),
    };
    Ok(scan.catalog.entities.values().map(one).collect())
}
