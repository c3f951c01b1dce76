//! Parquet files.

use super::SourceKind;

pub const KIND: SourceKind = SourceKind {
    name: "PARQUET",
    aliases: &[],
    functions: &["read_parquet", "parquet_scan"],
    endings: &[("parquet", &[]), ("pq", &[])],
    options: &["binary_as_string"],
    is_files: true,
    is_versioned: false,
};
