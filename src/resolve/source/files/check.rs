//! What is looked at when a table over text files is made: names of CSV columns, kinds of JSON values.

use std::collections::BTreeMap;

use bytes::Bytes;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::DataFusionError;
use datafusion::common::config::CsvOptions;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

use super::Found;
use crate::error::{Error, Result};

/// The first bytes of a file, unpacked: whole lines of about `limit` bytes.
async fn head(store: &dyn ObjectStore, file: &Found, compression: FileCompressionType, limit: usize) -> Result<(Vec<u8>, bool)> {
    let raw = store.get(&file.meta.location).await?.into_stream().map_err(DataFusionError::from).boxed();
    let mut input = compression.convert_stream(raw)?;
    let mut out: Vec<u8> = vec![];
    while let Some(bytes) = input.next().await {
        let bytes: Bytes = bytes?;
        out.extend_from_slice(&bytes);
        if out.len() >= limit {
            return Ok((out, false));
        }
    }
    Ok((out, true))
}

/// Refuses CSV files whose header names a column twice: one of them could not be read.
pub async fn header(store: &dyn ObjectStore, found: &[Found], o: &CsvOptions) -> Result<()> {
    let Some(first) = found.first().filter(|_| o.has_header.unwrap_or(true)) else { return Ok(()) };
    let (text, _) = head(store, first, o.compression.into(), 1 << 20).await?;
    let mut format = datafusion::arrow::csv::reader::Format::default().with_header(true).with_delimiter(o.delimiter).with_quote(o.quote);
    if let Some(e) = o.escape {
        format = format.with_escape(e);
    }
    if let Some(c) = o.comment {
        format = format.with_comment(c);
    }
    let (schema, _) = format.infer_schema(&text[..], Some(0))?;
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    match names.iter().enumerate().find(|(i, n)| names[..*i].contains(n)) {
        None => Ok(()),
        Some((_, twice)) => Err(Error::invalid(format!("the header of {} names column {twice:?} twice", first.meta.location))
            .with_hint("declare the columns, in their order and under names of their own: CREATE EXTERNAL TABLE t (a BIGINT, b VARCHAR, b_1 VARCHAR) STORED AS CSV …")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Scalar,
    Object,
    List,
}

impl Kind {
    fn of(v: &Value) -> Option<Kind> {
        match v {
            Value::Null => None,
            Value::Object(_) => Some(Kind::Object),
            Value::Array(_) => Some(Kind::List),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(Kind::Scalar),
        }
    }

    fn of_type(t: &DataType) -> Kind {
        match t {
            DataType::Struct(_) | DataType::Map(..) => Kind::Object,
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => Kind::List,
            _ => Kind::Scalar,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Scalar => "a single value",
            Kind::Object => "an object",
            Kind::List => "a list",
        }
    }
}

/// Refuses JSON lines in which a field is an object or a list in one line and a single value in another, or not what the
/// declared column says. Looks at the first `records` lines.
pub async fn json_kinds(
    store: &dyn ObjectStore,
    found: &[Found],
    declared: &Schema,
    compression: FileCompressionType,
    records: usize,
) -> Result<()> {
    let mut seen: BTreeMap<String, (Kind, String)> = BTreeMap::new();
    for f in declared.fields() {
        seen.insert(f.name().clone(), (Kind::of_type(f.data_type()), "the declared column".into()));
    }
    let mut left = records;
    for file in found {
        let (text, whole) = head(store, file, compression, 16 << 20).await?;
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<&str> = text.lines().collect();
        if !whole {
            lines.pop();
        }
        for (i, line) in lines.into_iter().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            let here = || format!("line {} of {}", i + 1, file.meta.location);
            let value: Value = serde_json::from_str(line).map_err(|e| {
                Error::invalid(format!("{} is no JSON: {e}", here()))
                    .with_hint("a file holds one object per line; OPTIONS ('newline_delimited' 'false') reads one list of objects")
            })?;
            let Value::Object(fields) = &value else {
                return Err(Error::invalid(format!("{} is no JSON object", here()))
                    .with_hint("a file holds one object per line; OPTIONS ('newline_delimited' 'false') reads one list of objects"));
            };
            for (name, v) in fields {
                looked(name, v, &here, &mut seen)?;
            }
        }
    }
    Ok(())
}

fn looked(path: &str, v: &Value, here: &dyn Fn() -> String, seen: &mut BTreeMap<String, (Kind, String)>) -> Result<()> {
    let Some(kind) = Kind::of(v) else { return Ok(()) };
    match seen.get(path) {
        Some((other, place)) if *other != kind => {
            return Err(Error::invalid(format!("column {path:?}: {} holds {}, and {place} {}", here(), kind.name(), other.name()))
                .with_hint("one column has one kind of value: mend the file, or declare the other columns and leave this one out"));
        }
        Some(_) => {}
        None => {
            seen.insert(path.to_string(), (kind, here()));
        }
    }
    match v {
        Value::Object(fields) => fields.iter().try_for_each(|(n, v)| looked(&format!("{path}.{n}"), v, here, seen)),
        Value::Array(list) => list.iter().try_for_each(|v| looked(&format!("{path}[]"), v, here, seen)),
        _ => Ok(()),
    }
}
