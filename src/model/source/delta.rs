//! Delta tables that others write.

use super::SourceKind;

pub const KIND: SourceKind = SourceKind {
    name: "DELTA",
    aliases: &["DELTATABLE"],
    functions: &["read_delta"],
    endings: &[],
    options: &[],
    is_files: false,
    is_versioned: true,
};
