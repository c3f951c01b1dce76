//! Files of JSON, an object a line or one array.

use super::SourceKind;

pub const KIND: SourceKind = SourceKind {
    name: "JSON",
    aliases: &["NDJSON", "NDJSONFILE"],
    functions: &["read_json", "read_json_auto", "read_ndjson"],
    endings: &[("json", &[]), ("ndjson", &[]), ("jsonl", &[])],
    options: &["compression", "schema_infer_max_rec", "newline_delimited"],
    is_files: true,
    is_versioned: false,
};
