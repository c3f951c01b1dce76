//! Sources outside of the warehouse: external tables, and the files that they stand for.

pub mod external;
pub mod files;
