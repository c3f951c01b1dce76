//! `COPY … TO 'file' [WITH] (FORMAT csv, HEADER, DELIMITER ';')`, as Postgres and DuckDB write it, in the form that the
//! stock parser reads: `STORED AS CSV PARTITIONED BY (…) OPTIONS (…)`. The same names of options hold for COPY … FROM.

use sqlparser::tokenizer::Token;

use super::copy::{FORMATS, by_name, option};
use crate::error::{Error, Result, Span};
use crate::model::types::quote;
use crate::sql::Cursor;
use crate::sql::text::offset;

/// Names of options that other systems have, and ours for writing.
const WRITTEN: [(&str, &str); 9] = [
    ("header", "has_header"),
    ("delim", "delimiter"),
    ("sep", "delimiter"),
    ("null", "null_value"),
    ("nullstr", "null_value"),
    ("dateformat", "date_format"),
    ("timestampformat", "timestamp_format"),
    ("codec", "compression"),
    ("row_group_size", "max_row_group_size"),
];

/// The levels with which files are packed where none is given.
const LEVELS: [(&str, u32); 3] = [("zstd", 3), ("gzip", 6), ("brotli", 1)];

/// Words that other systems take behind the name of a file, without parentheses.
const BARE: [&str; 7] = ["CSV", "HEADER", "DELIMITER", "NULL", "BINARY", "QUOTE", "FORMAT"];

/// The statement with its options in the parser's form, every character in front of them in its place.
pub fn to(text: &str) -> Result<Option<String>> {
    let mut c = Cursor::new(text)?;
    if c.eat("EXPLAIN") {
        while c.eat("ANALYZE") || c.eat("VERBOSE") {}
    }
    if !c.eat("COPY") || c.until(&["TO"], "a table").is_err() || !c.eat("TO") {
        return Ok(None);
    }
    let Ok(path) = c.string("the path of a file") else { return Ok(None) };
    let start = c.here();
    let with = c.eat("WITH");
    refuse_bare(&c, with)?;
    if !c.is_token(&Token::LParen) {
        return Ok(None);
    }
    let at = offset(text, sqlparser::tokenizer::Location { line: start.line, column: start.column });
    let (mut format, mut parts, mut options) = (None, vec![], vec![]);
    c.eat_token(&Token::LParen);
    loop {
        let here = c.here();
        if c.eat("PARTITION_BY") {
            c.eat_token(&Token::Eq);
            parts = match c.is_token(&Token::LParen) {
                true => c.list(|c| c.identifier("a column's name"))?,
                false => vec![c.identifier("a column's name")?],
            };
        } else {
            match whole(&mut c)? {
                (key, value) if key.eq_ignore_ascii_case("format") => format = Some(value),
                (key, value) => options.push((key, value, here)),
            }
        }
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    c.want_token(&Token::RParen)?;
    c.end(&[])?;
    let format = match format.or_else(|| by_name(&path)).map(|f| f.to_uppercase()) {
        Some(f) => f,
        None => {
            return Err(Error::invalid(format!("the format of {path:?} is not known"))
                .with_span(start)
                .with_hint(format!("write (FORMAT {}) behind the name of the file", FORMATS.map(|(f, _)| f.to_lowercase()).join(" | "))));
        }
    };
    let options = written(&format, options)?;
    let text_of = |s: &str| format!("'{}'", s.replace('\'', "''"));
    let mut out = format!("{}STORED AS {}", &text[..at], format_word(&format).map_err(|e| e.with_span(start))?);
    if !parts.is_empty() {
        out = format!("{out} PARTITIONED BY ({})", parts.iter().map(|(p, _)| quote(p)).collect::<Vec<_>>().join(", "));
    }
    if !options.is_empty() {
        let list: Vec<String> = options.iter().map(|(k, v)| format!("'format.{k}' {}", text_of(v))).collect();
        out = format!("{out} OPTIONS ({})", list.join(", "));
    }
    Ok(Some(out))
}

/// An option; one whose value is a star or a list, which none of ours has, as it is written.
fn whole(c: &mut Cursor<'_>) -> Result<(String, String)> {
    let mut ahead = c.clone();
    if let Ok((key, _)) = ahead.identifier("an option")
        && (ahead.is_token(&Token::Mul) || ahead.is_token(&Token::LParen))
    {
        let (value, _) = ahead.until(&[","], "a value")?;
        *c = ahead;
        return Ok((key, value));
    }
    option(c)
}

fn format_word(format: &str) -> Result<String> {
    match format.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        true => Ok(format.to_string()),
        false => Err(Error::invalid(format!("files are not written as {format}"))),
    }
}

/// Refuses options without parentheses.
pub fn refuse_bare(c: &Cursor<'_>, with: bool) -> Result<()> {
    match BARE.iter().find(|w| c.is(w)) {
        Some(word) => Err(Error::syntax(format!("{}{word} behind a file is not supported", if with { "WITH " } else { "" }))
            .with_span(c.here())
            .with_hint("write the options in parentheses: (FORMAT csv, HEADER true, DELIMITER ';')")),
        None => Ok(()),
    }
}

/// Options under our names.
fn written(format: &str, options: Vec<(String, String, Span)>) -> Result<Vec<(String, String)>> {
    let mut out: Vec<(String, String)> = vec![];
    let (mut level, mut has_level) = (None, false);
    for (key, value, here) in options {
        let lower = key.to_lowercase();
        let lower = lower.strip_prefix("format.").unwrap_or(&lower).to_string();
        let name = WRITTEN.iter().find(|(theirs, _)| *theirs == lower).map_or(lower.as_str(), |(_, ours)| ours).to_string();
        let known = FORMATS.iter().find(|(f, _)| *f == format).map(|(_, known)| *known);
        has_level |= name == "compression_level";
        if name == "encoding" && format != "PARQUET" {
            utf8(&value).map_err(|e| e.with_span(here))?;
            continue;
        }
        if name == "compression_level" && format == "PARQUET" {
            level = Some(value);
            continue;
        }
        if let Some(known) = known
            && !known.contains(&name.as_str())
        {
            let theirs = WRITTEN.iter().filter(|(_, ours)| known.contains(ours)).map(|(t, _)| *t);
            let all: Vec<&str> = known.iter().copied().chain(theirs).chain(["partition_by"]).collect();
            return Err(Error::invalid(format!("{format} has no option {key:?} for writing"))
                .with_span(here)
                .suggest(&lower, all.iter().copied())
                .or_hint(&format!("options are {}", all.join(", "))));
        }
        let value = match name.as_str() {
            "has_header" => match value.to_lowercase().as_str() {
                "true" | "on" | "1" | "yes" => "true".to_string(),
                "false" | "off" | "0" | "no" => "false".to_string(),
                _ => return Err(Error::invalid(format!("HEADER wants true or false, not {value:?}")).with_span(here)),
            },
            "delimiter" | "quote" | "escape" => match value.as_str() {
                "\\t" => "\t".to_string(),
                v if v.len() == 1 => value,
                _ => {
                    return Err(Error::invalid(format!("{} wants one character, not {value:?}", key.to_uppercase())).with_span(here));
                }
            },
            _ => value,
        };
        if out.iter().any(|(n, _)| *n == name) {
            return Err(Error::syntax(format!("option {key:?} is written twice")).with_span(here));
        }
        out.push((name.clone(), value.clone()));
        if name == "timestamp_format" {
            out.push(("timestamp_tz_format".into(), value));
        }
    }
    if has_level && !out.iter().any(|(n, _)| n == "compression") {
        return Err(Error::invalid("COMPRESSION_LEVEL is the level of a COMPRESSION").with_hint("write COMPRESSION gzip or zstd too"));
    }
    if format == "PARQUET" {
        packed(&mut out, level)?;
    }
    Ok(out)
}

/// Parquet wants the level behind the name: `zstd(3)`.
fn packed(options: &mut [(String, String)], level: Option<String>) -> Result<()> {
    let compression = options.iter_mut().find(|(n, _)| n == "compression").map(|(_, v)| v);
    let Some(name) = compression else { return Ok(()) };
    let lower = name.to_lowercase();
    let default = LEVELS.iter().find(|(n, _)| *n == lower).map(|(_, l)| l.to_string());
    match (default, level) {
        (Some(default), level) => *name = format!("{lower}({})", level.unwrap_or(default)),
        (None, Some(level)) => {
            return Err(Error::invalid(format!("compression {name} takes no level, here {level}"))
                .with_hint("zstd, gzip and brotli have levels; leave COMPRESSION_LEVEL out"));
        }
        (None, None) if lower == "none" => *name = "uncompressed".into(),
        (None, None) => {}
    }
    Ok(())
}

fn utf8(value: &str) -> Result<()> {
    match ["utf8", "utf-8"].contains(&value.to_lowercase().as_str()) {
        true => Ok(()),
        false => Err(Error::invalid(format!("files are UTF-8, not {value}")).with_hint("leave ENCODING out")),
    }
}

/// What COPY … FROM calls an option, as `read_csv` and its like know it; `None`: there is nothing to do.
pub fn read(key: String, value: String) -> Result<Option<(String, String)>> {
    Ok(match key.to_lowercase().as_str() {
        "encoding" => {
            utf8(&value)?;
            None
        }
        "null" | "nullstr" => Some(("null_regex".into(), format!("^{}$", escaped(&value)))),
        "codec" => Some(("compression".into(), value)),
        _ => Some((key, value)),
    })
}

/// A text as a regular expression that only it matches.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_alphanumeric() && c.is_ascii()).then_some('\\').into_iter().chain([c])).collect()
}
