//! Formats and options of `COPY … TO`: what the writer obeys, and nothing else.

use datafusion::sql::parser::CopyToStatement;

use crate::error::{Error, Result};

/// Formats, and the options that their writers obey.
const FORMATS: [(&str, &[&str]); 4] = [
    (
        "PARQUET",
        &[
            "compression",
            "max_row_group_size",
            "max_row_group_bytes",
            "data_pagesize_limit",
            "data_page_row_count_limit",
            "write_batch_size",
            "writer_version",
            "skip_arrow_metadata",
            "dictionary_enabled",
            "dictionary_page_size_limit",
            "statistics_enabled",
            "statistics_truncate_length",
            "column_index_truncate_length",
            "created_by",
            "encoding",
            "bloom_filter_on_write",
            "bloom_filter_fpp",
            "bloom_filter_ndv",
            "bloom_filter_enabled",
            "allow_single_file_parallelism",
            "maximum_parallel_row_group_writers",
            "maximum_buffered_record_batches_per_stream",
            "metadata",
        ],
    ),
    (
        "CSV",
        &[
            "has_header",
            "delimiter",
            "quote",
            "escape",
            "double_quote",
            "quote_style",
            "null_value",
            "date_format",
            "datetime_format",
            "timestamp_format",
            "timestamp_tz_format",
            "time_format",
            "ignore_leading_whitespace",
            "ignore_trailing_whitespace",
            "compression",
            "compression_level",
        ],
    ),
    ("JSON", &["compression", "compression_level"]),
    ("ARROW", &[]),
];

/// An option of the statement itself, whatever the format is.
const KEEP: &str = "keep_partition_by_columns";

/// Refuses a format that is not written, and options that its writer does not know or does not obey.
pub fn check(c: &CopyToStatement) -> Result<()> {
    let by_name = std::path::Path::new(&c.target).extension().map(|e| e.to_string_lossy().to_string());
    let named = c.stored_as.clone().or(by_name).unwrap_or_default().to_uppercase();
    let names: Vec<&str> = FORMATS.iter().map(|(f, _)| *f).collect();
    let Some((format, known)) = FORMATS.iter().find(|(f, _)| *f == named) else {
        let e = match c.stored_as.is_some() || !named.is_empty() {
            true => Error::invalid(format!("files are not written as {named}")),
            false => Error::invalid(format!("the format of {:?} is not known", c.target)),
        };
        return Err(e
            .suggest(&named, names.iter().copied())
            .or_hint(&format!("write STORED AS {} behind the name of the file", names.join(" | "))));
    };
    for (key, _) in &c.options {
        let lower = key.to_lowercase();
        let key_of = lower.split("::").next().unwrap_or(&lower);
        let bare = key_of.strip_prefix("format.").or_else(|| key_of.strip_prefix("execution.")).unwrap_or(key_of);
        if !known.contains(&bare) && bare != KEEP {
            let e = Error::invalid(format!("{format} has no option {key:?} for writing")).suggest(bare, known.iter().copied());
            return Err(match known.is_empty() {
                true => e.or_hint(&format!("{format} takes no options")),
                false => e.or_hint(&format!("options are {}", known.join(", "))),
            });
        }
    }
    Ok(())
}
