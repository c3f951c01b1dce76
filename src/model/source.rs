//! The kinds of sources outside of the warehouse: what STORED AS names. `resolve::source` reads them.

/// One kind of source.
#[derive(Debug)]
pub struct SourceKind {
    /// After STORED AS, as the registry keeps it.
    pub name: &'static str,
    /// Other words for it.
    pub aliases: &'static [&'static str],
    /// Table functions that read it, the usual one first.
    pub functions: &'static [&'static str],
    /// How names of its files end, where a query names a file only, and the options that such an end means.
    pub endings: &'static [(&'static str, &'static [(&'static str, &'static str)])],
    /// Options for reading. Those of writing belong to COPY … TO.
    pub options: &'static [&'static str],
    /// Files of folders, which may be many, and whose folders may give columns.
    pub is_files: bool,
    /// It keeps its older versions: VERSION AS OF, TIMESTAMP AS OF.
    pub is_versioned: bool,
}

pub const SOURCE_KINDS: &[SourceKind] = &[
    SourceKind {
        name: "PARQUET",
        aliases: &[],
        functions: &["read_parquet", "parquet_scan"],
        endings: &[("parquet", &[]), ("pq", &[])],
        options: &["binary_as_string"],
        is_files: true,
        is_versioned: false,
    },
    SourceKind {
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
    },
    SourceKind {
        name: "JSON",
        aliases: &["NDJSON", "NDJSONFILE"],
        functions: &["read_json", "read_json_auto", "read_ndjson"],
        endings: &[("json", &[]), ("ndjson", &[]), ("jsonl", &[])],
        options: &["compression", "schema_infer_max_rec", "newline_delimited"],
        is_files: true,
        is_versioned: false,
    },
    SourceKind {
        name: "DELTA",
        aliases: &["DELTATABLE"],
        functions: &["read_delta"],
        endings: &[],
        options: &[],
        is_files: false,
        is_versioned: true,
    },
];

impl SourceKind {
    /// The kind of this name or alias, in upper case.
    pub fn of(name: &str) -> Option<&'static SourceKind> {
        SOURCE_KINDS.iter().find(|k| k.name == name || k.aliases.contains(&name))
    }

    /// The kind that a table function reads.
    pub fn of_function(function: &str) -> Option<&'static SourceKind> {
        SOURCE_KINDS.iter().find(|k| k.functions.contains(&function))
    }

    /// The kind whose files end so, and the options that this means.
    pub fn of_ending(ending: &str) -> Option<(&'static SourceKind, &'static [(&'static str, &'static str)])> {
        SOURCE_KINDS.iter().find_map(|k| k.endings.iter().find(|(e, _)| *e == ending).map(|(_, options)| (k, *options)))
    }

    pub fn names() -> Vec<&'static str> {
        SOURCE_KINDS.iter().map(|k| k.name).collect()
    }

    /// The usual table function of each kind.
    pub fn readers() -> Vec<&'static str> {
        SOURCE_KINDS.iter().filter_map(|k| k.functions.first().copied()).collect()
    }
}
