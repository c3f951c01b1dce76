//! Delta tables: everything of the warehouse that lasts lies in them.
//!
//! One primitive, [`OfflineStore`], is used by the registry, the run log, feature tables, training
//! sets and managed tables alike. A table is written in two steps: data files ([`FileWriter`]),
//! which nobody sees, then one commit ([`OfflineStore::commit`]) of exactly the next version.

mod bucket;
mod changes;
mod commit;
mod compaction_selection;
mod foreign;
mod late_commits;
pub mod lease;
mod log_table;
mod numbered;
mod scan;
mod snapshot;
mod snapshot_coalescing;
mod sorted_runs;
mod stats;
mod vacuum;
mod warehouse;
mod watermark;
mod writer;

#[cfg(test)]
mod tests;

pub use bucket::bucket;
pub use changes::{Changed, Changes, CommitRecord};
pub use commit::{Commit, Operation};
pub use compaction_selection::files_to_compact;
pub use foreign::{ForeignTable, open_foreign_delta};
pub use lease::Lease;
pub use numbered::{ROW, numbers_of_file};
pub use scan::{Ordering, PRUNING_TERMS, ScanOptions};
pub use snapshot::{DataFile, Snapshot, TableOptions};
pub use stats::{ColumnRange, SureBounds};
pub use vacuum::{Garbage, Keep, STRAY_AGE};
pub use warehouse::OfflineStore;
pub use watermark::NO_WATERMARK;
pub use writer::{FileWriter, NewFile, WriteSpec};

use deltalake::DeltaTableError;
use deltalake::kernel::transaction::TransactionError;

use crate::error::Error;

/// Hidden columns: kept in the files, left out of `SELECT *`.
pub fn is_hidden(column: &str) -> bool {
    column == SEQ || column.starts_with("_remige")
}

pub use crate::model::layout::SEQ;

/// Key of a data file's order, in its Parquet footer and in its tags in the Delta log.
pub(crate) const ORDER_KEY: &str = "remige.order";

/// Tag of a data file: `<version that added it>.<place in the commit>`, or that of the file of which it is what is left.
pub(crate) const ADDED_KEY: &str = "remige.added";

/// Tag of a data file: by how much the high words of its `_seq` may exceed the versions that brought its rows. Left out
/// where it is 0.
pub(crate) const AHEAD_KEY: &str = "remige.ahead";

/// Small files and commits read at once.
pub(crate) const READ_AHEAD: usize = 16;

/// Who wrote a commit or a file.
pub(crate) const ENGINE: &str = concat!("remige/", env!("CARGO_PKG_VERSION"));

/// Turns an error of the Delta library into ours; `what` names the table.
pub(crate) fn delta_error(e: DeltaTableError, what: &str) -> Error {
    let err = match e {
        DeltaTableError::NotATable(_) => Error::not_found("there is no Delta table here"),
        DeltaTableError::InvalidVersion(v) => Error::not_found(format!("version {v} does not exist")),
        DeltaTableError::VersionAlreadyExists(v) => Error::conflict(format!("version {v} was written by somebody else")),
        DeltaTableError::ObjectStore { source } => Error::from(source),
        DeltaTableError::InvalidTableLocation(l) => Error::invalid(format!("{l:?} is not a place this build can read or write"))
            .with_hint("use a local path, or build with the cargo feature s3, gcs or azure"),
        DeltaTableError::Transaction {
            source: TransactionError::MaxCommitAttempts(_) | TransactionError::CommitConflict(_) | TransactionError::VersionAlreadyExists(_),
        } => Error::conflict("somebody else changed the table first"),
        DeltaTableError::Transaction { source: TransactionError::UnsupportedTableFeatures(f) } => {
            Error::invalid(format!("the table needs Delta features that are not supported: {f:?}"))
        }
        other => Error::internal(other.to_string()),
    };
    err.context(what)
}
