//! Sources outside of the warehouse, a file per kind. A kind is a line of `model::SOURCE_KINDS` and one of `SOURCES`.

mod bounds;
mod csv;
mod delta;
mod file_source;
mod files;
mod json;
mod kind;
mod options;
mod parquet;

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use futures::future::{BoxFuture, FutureExt};

use self::csv::Csv;
use self::delta::Delta;
use self::file_source::FileSource;
use self::json::Json;
use self::kind::Source;
pub use self::options::HIVE;
use self::parquet::Parquet;
use crate::error::{Error, Result};
use crate::model::{PinnedFile, SourceKind, Table, Travel};
use crate::services::Services;
use crate::store::offline::ForeignTable;

const SOURCES: &[(&str, &dyn Source)] =
    &[("PARQUET", &FileSource(&Parquet)), ("CSV", &FileSource(&Csv)), ("JSON", &FileSource(&Json)), ("DELTA", &Delta)];

fn of(t: &Table) -> Result<&'static dyn Source> {
    let found = SOURCES.iter().find(|(name, _)| *name == t.format).map(|(_, source)| *source);
    found.ok_or_else(|| {
        Error::invalid(format!("table {} is stored as {}, which this version of Remige does not read", t.name, t.format))
            .with_hint("a newer version declared it: use that one here, too")
    })
}

/// Whether older versions of the table can be read.
pub fn is_versioned(t: &Table) -> bool {
    SourceKind::of(&t.format).is_some_and(|k| k.is_versioned)
}

/// Opens an external table as it is now.
pub fn open<'a>(services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<Arc<dyn TableProvider>>> {
    async move { of(t)?.open(services, t).await }.boxed()
}

/// Opens a table that keeps its versions: where the statement says, else at a pinned version, else as it is now.
pub async fn open_at(t: &Table, travel: Option<Travel>, pin: Option<u64>) -> Result<ForeignTable> {
    of(t)?.open_at(t, travel, pin).await
}

/// Columns of a new external table. Refuses what could be made, but not be read.
pub fn infer<'a>(services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<SchemaRef>> {
    async move {
        let source = of(t)?;
        source.look_through(services, t).await?;
        let columns = source.open(services, t).await?.schema();
        source.check_columns(t, &columns)?;
        Ok(columns)
    }
    .boxed()
}

/// Reads the beginning of text files, and looks for what no query could read.
pub fn look_through<'a>(services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<()>> {
    async move { of(t)?.look_through(services, t).await }.boxed()
}

/// The files of a table and what tells one version of a file from the next.
pub fn files<'a>(services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<Vec<PinnedFile>>> {
    async move { of(t)?.files(services, t).await }.boxed()
}

/// Whether the folders of a new table give columns that nobody named: its options then say so.
pub fn finds_hive<'a>(services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<bool>> {
    async move { of(t)?.finds_hive(services, t).await }.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SOURCE_KINDS;

    #[test]
    fn every_kind_is_read() {
        let read: Vec<&str> = SOURCES.iter().map(|s| s.0).collect();
        assert_eq!(read, SOURCE_KINDS.iter().map(|k| k.name).collect::<Vec<_>>());
    }
}
