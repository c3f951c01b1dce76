//! Plans of lookups that are kept.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;

use super::compiled::Compiled;

/// Which lookup: how it is named, and what changes its plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// For names without one.
    pub schema: String,
    pub form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// A statement, and the types that whoever prepared it was told of: another catalog may have others.
    Text(String, Vec<DataType>),
    Target {
        name: String,
        status: bool,
    },
}

/// A lookup, planned; or known to be one that must be planned for each row.
#[derive(Debug, Clone)]
pub(super) enum Plan {
    Ready(Arc<Compiled>),
    PerRow { catalog_version: u64 },
}

impl Plan {
    pub fn catalog_version(&self) -> u64 {
        match self {
            Plan::Ready(plan) => plan.catalog_version,
            Plan::PerRow { catalog_version } => *catalog_version,
        }
    }
}

/// Plans of lookups, the most used ones.
pub(super) struct Plans(pub quick_cache::sync::Cache<Key, Plan>);

impl std::fmt::Debug for Plans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plans({})", self.0.len())
    }
}

impl Plans {
    pub fn new(kept: usize) -> Self {
        Plans(quick_cache::sync::Cache::new(kept.max(1)))
    }
}
