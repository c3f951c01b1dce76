//! What exists: names and their definitions, as an append-only event log in the warehouse.
//!
//! [`Registry`] commits lists of [`CatalogChange`]s, all or nothing, against the newest state;
//! [`CatalogSnapshot`] is that log folded up to a version, immutable; [`Runs`] is the record of what
//! was run.

mod change;
pub mod ddl;
pub mod dependencies;
mod event;
mod registry;
pub mod runs;
mod snapshot;

#[cfg(test)]
mod tests;

pub use change::{CatalogChange, PutMode, SchemaDef};
pub use event::Event;
pub use registry::{Registry, is_undone};
pub use runs::{Run, RunStatus, Runs, Verdict};
pub use snapshot::{CatalogSnapshot, Relation};

/// Schema that bare names mean unless a session says otherwise; always there.
pub const DEFAULT_SCHEMA: &str = "public";
/// Read-only tables about everything else; always there.
pub const SYSTEM_SCHEMA: &str = "system";
