//! What a kind of source can do.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use futures::future::{BoxFuture, FutureExt};

use crate::error::{Error, Result};
use crate::model::{PinnedFile, Table, Travel};
use crate::services::Services;
use crate::store::offline::ForeignTable;

/// What can be done with a table of one kind.
pub trait Source: Send + Sync {
    /// The table as it is now.
    fn open<'a>(&'a self, services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<Arc<dyn TableProvider>>>;

    /// The table at a version or an instant, else at a pinned version; of kinds that keep their versions.
    fn open_at<'a>(&'a self, t: &'a Table, _travel: Option<Travel>, _pin: Option<u64>) -> BoxFuture<'a, Result<ForeignTable>> {
        let e = Error::invalid(format!("table {} is stored as {}: only Delta tables can be read in time", t.name, t.format));
        async move { Err(e) }.boxed()
    }

    /// Refuses columns that could be declared, but not be read.
    fn check_columns(&self, _t: &Table, _columns: &SchemaRef) -> Result<()> {
        Ok(())
    }

    /// Reads the beginning of the data, and looks for what no query could read.
    fn look_through<'a>(&'a self, _services: &'a Services, _t: &'a Table) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }

    /// The files of the table and what tells one version of a file from the next.
    fn files<'a>(&'a self, _services: &'a Services, _t: &'a Table) -> BoxFuture<'a, Result<Vec<PinnedFile>>> {
        async { Ok(vec![]) }.boxed()
    }

    /// Whether folders give columns that nobody named.
    fn finds_hive<'a>(&'a self, _services: &'a Services, _t: &'a Table) -> BoxFuture<'a, Result<bool>> {
        async { Ok(false) }.boxed()
    }
}
