//! OPTIONS ('key' 'value') of an external table, and the arguments of read_csv('…', key => value).

use std::str::FromStr;

use datafusion::common::parsers::CompressionTypeVariant;

use crate::error::{Error, Result};
use crate::model::{SourceKind, Table};

/// Of every kind of files: whether folders `key=value` give columns.
pub const HIVE: &str = "hive_partitioning";

/// Names that other systems use for the same option.
const ALIASES: [(&str, &str); 4] =
    [("header", "has_header"), ("delim", "delimiter"), ("sep", "delimiter"), ("sample_size", "schema_infer_max_rec")];

fn bare(key: &str) -> &str {
    let bare = key.strip_prefix("format.").unwrap_or(key);
    ALIASES.iter().find(|(a, _)| *a == bare).map_or(bare, |(_, name)| name)
}

/// The options of a table, by the names that its kind has.
pub struct Options<'a>(pub &'a Table);

impl Options<'_> {
    /// Refuses what the kind does not have.
    pub fn check(&self) -> Result<()> {
        let format = &self.0.format;
        let kind = SourceKind::of(format);
        let (known, hive) = (kind.map_or(&[][..], |k| k.options), kind.is_some_and(|k| k.is_files));
        for key in self.0.options.keys() {
            if known.contains(&bare(key)) || (bare(key) == HIVE && hive) {
                continue;
            }
            let e = Error::invalid(format!("{format} has no option {key:?} for reading")).suggest(bare(key), known.iter().copied());
            return Err(match known.is_empty() {
                true => e.or_hint(&format!("{format} takes no options")),
                false => e.or_hint(&format!("options are {}, {HIVE}", known.join(", "))),
            });
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.options.iter().find(|(k, _)| bare(k) == name).map(|(_, v)| v.as_str())
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.get(name)
            .map(|v| match v.to_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(Error::invalid(format!("option {name:?} wants true or false, not {v:?}"))),
            })
            .transpose()
    }

    pub fn byte(&self, name: &str) -> Result<Option<u8>> {
        self.get(name)
            .map(|v| match v {
                "\\t" => Ok(b'\t'),
                "\\n" => Ok(b'\n'),
                "\\r" => Ok(b'\r'),
                _ if v.len() == 1 => Ok(v.as_bytes()[0]),
                _ => Err(Error::invalid(format!("option {name:?} wants one character, not {v:?}"))),
            })
            .transpose()
    }

    pub fn count(&self, name: &str) -> Result<Option<usize>> {
        self.get(name)
            .map(|v| v.replace('_', "").parse().map_err(|_| Error::invalid(format!("option {name:?} wants a whole number, not {v:?}"))))
            .transpose()
    }

    pub fn compression(&self) -> Result<CompressionTypeVariant> {
        match self.get("compression") {
            // the names of the files say it as well
            None => Ok(match self.0.location.to_lowercase().rsplit('.').next() {
                Some("gz") => CompressionTypeVariant::GZIP,
                Some("bz2") => CompressionTypeVariant::BZIP2,
                Some("xz") => CompressionTypeVariant::XZ,
                Some("zst") => CompressionTypeVariant::ZSTD,
                _ => CompressionTypeVariant::UNCOMPRESSED,
            }),
            Some(v) => CompressionTypeVariant::from_str(v)
                .map_err(|_| Error::invalid(format!("option \"compression\" wants gzip, bzip2, xz, zstd or uncompressed, not {v:?}"))),
        }
    }
}
