use super::Scan;
use super::declare::system_table;
use super::values::tags;
use crate::error::Result;

system_table! {
    /// Schemas.
    schemas {
        /// Its name.
        name: Text,
        /// COMMENT of the schema.
        comment: Text,
        /// OWNER of the schema.
        owner: Text,
        /// TAGS of the schema: `tag = value`, with commas between.
        tags: Text,
        /// When it was created; NULL for `public` and `system`, which are always there.
        created_at: Time,
    }
}

async fn rows(scan: &Scan, _: Wanted) -> Result<Vec<Row>> {
    let one = |s: &crate::catalog::SchemaDef| Row {
        name: Some(s.name.clone()),
        comment: s.about.comment.clone(),
        owner: s.about.owner.clone(),
        tags: tags(&s.about.tags),
        created_at: Some(s.created_at).filter(|t| *t != 0),
    };
    Ok(scan.catalog.schemas.values().map(one).collect())
}
