//! Buckets beside the warehouse, from which files are read and to which COPY writes.

use std::sync::Arc;

use deltalake::DeltaTableError;
use deltalake::logstore::store_for;
use object_store::ObjectStore;
use url::Url;

use crate::error::{Error, Result};

/// The store at the root of a URL, with the settings of the environment (`AWS_…`, `GOOGLE_…`, `AZURE_…`); `None` for what
/// this build has no store for.
pub fn bucket(root: &Url) -> Result<Option<Arc<dyn ObjectStore>>> {
    match store_for(root, std::iter::empty::<(&str, &str)>()) {
        Ok(store) => Ok(Some(store)),
        Err(DeltaTableError::InvalidTableLocation(_)) => Ok(None),
        Err(e) => Err(Error::unavailable(format!("{root} cannot be opened: {e}"))
            .with_hint("credentials come from the environment; docs/s3.md lists the variables")),
    }
}
