//! The tables of schema `system`.

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use super::resolve::Resolver;
use crate::error::Result;

pub const TABLES: &[&str] = &["runs"];

/// A system table as of the statement; `None`: there is none of this name.
pub async fn table(resolver: &Resolver, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let _ = (resolver, name);
    Ok(None)
}
