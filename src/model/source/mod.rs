//! The kinds of sources outside of the warehouse: what STORED AS names. `resolve::source` reads them.

mod csv;
mod delta;
mod json;
mod parquet;

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

/// Hands the kinds to a macro, in the order in which messages name them. Each has a file here, which says what it is
/// called, and one of the same name in `resolve/source/`, which reads it.
macro_rules! each_source {
    ($then:ident) => {
        $then! {
            parquet,
            csv,
            json,
            delta,
        }
    };
}
pub(crate) use each_source;

macro_rules! kinds {
    ($($kind:ident,)*) => {
        pub const SOURCE_KINDS: &[SourceKind] = &[$($kind::KIND),*];
    };
}
each_source!(kinds);

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
