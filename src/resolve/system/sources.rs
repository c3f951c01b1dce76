use super::Scan;
use super::declare::system_table;
use super::values::tags;
use crate::config::without_credentials;
use crate::error::Result;
use crate::model::Table;

system_table! {
    /// Plain tables: those of the warehouse, and external ones.
    sources {
        /// Schema of the table.
        schema: Text,
        /// Its name.
        name: Text,
        /// `table` or `external table`.
        kind: Text,
        /// PARQUET, CSV, JSON or DELTA.
        format: Text,
        /// Where it lies, without credentials.
        location: Text,
        /// COMMENT of the table.
        comment: Text,
        /// OWNER of the table.
        owner: Text,
        /// TAGS of the table: `tag = value`, with commas between.
        tags: Text,
        /// When it was created.
        created_at: Time,
    }
}

async fn rows(scan: &Scan, _: Wanted) -> Result<Vec<Row>> {
    let one = |t: &std::sync::Arc<Table>| Row {
        schema: Some(t.name.schema.clone()),
        name: Some(t.name.name.clone()),
        kind: Some(if t.managed { "table" } else { "external table" }.to_string()),
        format: Some(t.format.clone()),
        location: Some(if t.managed { scan.services.store.display_path(&t.location) } else { without_credentials(&t.location) }),
        comment: t.about.comment.clone(),
        owner: t.about.owner.clone(),
        tags: tags(&t.about.tags),
        created_at: Some(t.created_at),
    };
    Ok(scan.catalog.tables.values().map(one).collect())
}
