//! CSV files, and those with tabs.

use super::SourceKind;

pub const KIND: SourceKind = SourceKind {
    name: "CSV",
    aliases: &[],
    functions: &["read_csv", "read_csv_auto"],
    endings: &[("csv", &[]), ("tsv", &[("delimiter", "\\t")])],
    options: &[
        "has_header",
        "delimiter",
        "quote",
        "escape",
        "comment",
        "terminator",
        "null_regex",
        "newlines_in_values",
        "schema_infer_max_rec",
        "truncated_rows",
        "compression",
    ],
    is_files: true,
    is_versioned: false,
};
