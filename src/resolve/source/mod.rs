//! Sources outside of the warehouse, a file per kind. A kind is named in `model/source/` and in its list `each_source`.

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

use self::kind::Source;
pub use self::options::HIVE;
use crate::error::{Error, Result};
use crate::model::{PinnedFile, SOURCE_KINDS, SourceKind, Table, Travel, each_source};
use crate::services::Services;
use crate::store::offline::ForeignTable;

macro_rules! readers {
    ($($kind:ident,)*) => {
        /// In the order of `SOURCE_KINDS`.
        const SOURCES: &[&dyn Source] = &[$(self::$kind::SOURCE),*];
    };
}
each_source!(readers);

fn of(t: &Table) -> Result<&'static dyn Source> {
    let found = SOURCE_KINDS.iter().zip(SOURCES).find(|(kind, _)| kind.name == t.format).map(|(_, source)| *source);
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
