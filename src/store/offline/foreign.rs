//! Delta tables that others own: read through the Delta library, which knows every feature of the
//! format; ours are read by plain file scans (`scan.rs`).

use std::sync::Arc;

use chrono::DateTime;
use datafusion::catalog::TableProvider;
use deltalake::{DeltaTableBuilder, ensure_table_uri};

use super::delta_error;
use crate::clock::Micros;
use crate::error::{Error, Result};

/// A Delta table of others at one version.
pub struct ForeignTable {
    pub provider: Arc<dyn TableProvider>,
    pub table_id: String,
    pub version: u64,
}

/// Opens an external Delta table at a version, at an instant, or as it is now.
pub fn open_foreign_delta<'a>(
    url: &'a str,
    version: Option<u64>,
    at: Option<Micros>,
) -> futures::future::BoxFuture<'a, Result<ForeignTable>> {
    Box::pin(async move {
        let what = format!("Delta table at {url:?}");
        if !url.contains("://") && !std::path::Path::new(url).is_dir() {
            return Err(Error::not_found(format!("{what} does not exist")));
        }
        let mut builder = ensure_table_uri(url).and_then(DeltaTableBuilder::from_url).map_err(|e| delta_error(e, &what))?;
        builder = match (version, at) {
            (Some(v), _) => builder.with_version(v),
            (None, Some(at)) => {
                let at =
                    DateTime::from_timestamp_micros(at).ok_or_else(|| Error::invalid(format!("{what}: the instant is out of range")))?;
                builder.with_timestamp(at)
            }
            (None, None) => builder,
        };
        let table = builder.load().await.map_err(|e| delta_error(e, &what))?;
        let state = table.snapshot().map_err(|e| delta_error(e, &what))?;
        let (table_id, version) = (state.metadata().id().to_string(), state.version());
        let provider = table.table_provider().await.map_err(|e| Error::from(e).context(&what))?;
        Ok(ForeignTable { provider, table_id, version })
    })
}
