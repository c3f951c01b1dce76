//! `COPY … TO`: formats and options that the writer obeys, types that every reader can use; `COPY … FROM`, which is an INSERT.

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::dml::CopyTo;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast};
use datafusion::sql::parser::CopyToStatement;
use sqlparser::tokenizer::Token;
use std::sync::Arc;

use super::copy_options;
use crate::error::{Error, Result};
use crate::model::SourceKind;
use crate::model::types::quote;
use crate::sql::Cursor;

/// Formats, and the options that their writers obey.
pub const FORMATS: [(&str, &[&str]); 4] = [
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

/// The type that every reader of a file can use: no views, no dictionaries.
fn plain(t: &DataType) -> DataType {
    let field = |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_data_type(plain(f.data_type())));
    match t {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        DataType::List(f) | DataType::ListView(f) => DataType::List(field(f)),
        DataType::LargeList(f) | DataType::LargeListView(f) => DataType::LargeList(field(f)),
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(field(f), *n),
        DataType::Map(f, sorted) => DataType::Map(field(f), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

/// Writes the columns in types that every reader can use.
pub fn in_plain_types(copy: CopyTo) -> Result<CopyTo> {
    let schema = Arc::clone(copy.input.schema());
    if schema.fields().iter().all(|f| plain(f.data_type()) == *f.data_type()) {
        return Ok(copy);
    }
    let columns = schema.iter().map(|(q, f)| {
        let column = Expr::Column((q, f).into());
        match plain(f.data_type()) {
            same if same == *f.data_type() => column,
            other => cast(column, other).alias_qualified(q.cloned(), f.name()),
        }
    });
    let input = LogicalPlanBuilder::from(copy.input).project(columns)?.build()?;
    Ok(CopyTo::new(Arc::new(input), copy.output_url, copy.partition_by, copy.file_type, copy.options))
}

/// The INSERT that a `COPY table [(columns)] FROM 'file' [(FORMAT x, option value, …)]` stands for.
pub fn from(text: &str) -> Result<Option<String>> {
    let mut c = Cursor::new(text)?;
    if !c.eat("COPY") || c.is_token(&Token::LParen) {
        return Ok(None);
    }
    let Ok(name) = c.name("a table's name") else { return Ok(None) };
    let columns = match c.is_token(&Token::LParen) {
        true => c.list(|c| c.identifier("a column's name"))?.into_iter().map(|(n, _)| quote(&n)).collect(),
        false => vec![],
    };
    if !c.eat("FROM") {
        return Ok(None);
    }
    let path = c.string("the path of a file in quotes")?;
    let mut format = None;
    let mut options = vec![];
    loop {
        if c.eat("STORED AS") {
            format = Some(c.identifier("a format")?.0);
        } else if c.eat("WITH") || c.eat("OPTIONS") || c.is_token(&Token::LParen) {
            copy_options::refuse_bare(&c, true)?;
            for (key, value) in c.list(option)? {
                match key.eq_ignore_ascii_case("format") {
                    true => format = Some(value),
                    false => options.extend(copy_options::read(key, value)?),
                }
            }
        } else {
            copy_options::refuse_bare(&c, false)?;
            break;
        }
    }
    c.end(&["STORED AS", "(FORMAT …)"])?;
    let literal = |s: &str| format!("'{}'", s.replace('\'', "''"));
    let source = match (format.map(|f| f.to_lowercase()), options.is_empty()) {
        (None, true) => literal(&path),
        (format, _) => {
            let format = format.or_else(|| by_name(&path)).ok_or_else(|| {
                Error::invalid(format!("the format of {path:?} is not known"))
                    .with_hint("write (FORMAT csv) behind the path, or parquet, json, delta")
            })?;
            let reader = SourceKind::of(&format.to_uppercase()).and_then(|k| k.functions.first()).ok_or_else(|| {
                Error::invalid(format!("files are not read as {format}")).with_hint("write (FORMAT csv), or parquet, json, delta")
            })?;
            let options: Vec<String> = options.iter().map(|(k, v)| format!(", {} => {}", quote(k), literal(v))).collect();
            format!("{reader}({}{})", literal(&path), options.concat())
        }
    };
    let schema = name.schema.as_ref().map(|s| format!("{}.", quote(s))).unwrap_or_default();
    let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
    Ok(Some(format!("INSERT INTO {schema}{}{columns} SELECT * FROM {source}", quote(&name.name))))
}

pub fn by_name(path: &str) -> Option<String> {
    let lower = path.to_lowercase();
    ["csv", "parquet", "json"].into_iter().find(|f| lower.contains(&format!(".{f}"))).map(str::to_string)
}

/// `key value`, `key = value`, `'key' 'value'`; a key alone is true.
pub fn option(c: &mut Cursor<'_>) -> Result<(String, String)> {
    let key = match c.identifier("an option") {
        Ok((key, _)) => key,
        Err(e) => c.string("an option").map_err(|_| e)?,
    };
    let _ = c.eat_token(&Token::Eq);
    if c.is_token(&Token::Comma) || c.is_token(&Token::RParen) {
        return Ok((key, "true".into()));
    }
    // Postgres' `E'\t'`
    let escaped = match c.peek(0).map(|t| t.token.clone()) {
        Some(Token::EscapedStringLiteral(s)) => {
            c.skip();
            Some(s)
        }
        _ => None,
    };
    let value = match escaped.map_or_else(|| c.string("a value"), Ok) {
        Ok(v) => v,
        Err(_) => match c.identifier("a value") {
            Ok((v, _)) => v,
            Err(e) => c.number("a value").map(|n| n.to_string()).map_err(|_| e)?,
        },
    };
    Ok((key, value))
}
