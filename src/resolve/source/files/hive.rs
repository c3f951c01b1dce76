//! Folders `key=value` of a hive layout.

use datafusion::arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;

use super::Found;
use crate::error::{Error, Result};

/// How a hive layout writes NULL.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

fn pair(folder: &str) -> Option<(&str, String)> {
    folder.split_once('=').map(|(k, v)| (k, decoded(v)))
}

/// The text that a part of a path writes with %XX.
fn decoded(text: &str) -> String {
    let mut out = vec![];
    let b = text.as_bytes();
    let mut i = 0;
    while i < b.len() {
        let hex = (b[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten().and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(hex.unwrap_or(b[i]));
        i += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_string())
}

/// The keys that the folders of all files give, in their order. Refuses files that do not agree.
pub fn keys(found: &[Found]) -> Result<Vec<String>> {
    let of = |f: &Found| f.folders.iter().filter_map(|d| pair(d).map(|(k, _)| k.to_string())).collect::<Vec<_>>();
    let Some(first) = found.first() else { return Ok(vec![]) };
    let keys = of(first);
    match found.iter().find(|f| of(f) != keys) {
        None => Ok(keys),
        Some(other) => Err(Error::invalid(format!(
            "the folders of {} and {} do not give the same columns ({} and {})",
            first.meta.location,
            other.meta.location,
            shown(&keys),
            shown(&of(other))
        ))
        .with_hint("put the files into folders key=value alike, or write OPTIONS ('hive_partitioning' 'false') to read the files alone")),
    }
}

fn shown(keys: &[String]) -> String {
    if keys.is_empty() { "none".into() } else { keys.join(", ") }
}

/// Columns of a hive layout with the types that all their values have: whole numbers, days, or texts.
pub fn infer(found: &[Found]) -> Result<Vec<(String, DataType)>> {
    let keys = keys(found)?;
    let typed = |key: &String| {
        let values: Vec<String> = found
            .iter()
            .flat_map(|f| f.folders.iter().filter_map(|d| pair(d)))
            .filter(|(k, v)| k == key && v != NULL)
            .map(|(_, v)| v)
            .collect();
        let whole = |v: &String| v.parse::<i64>().is_ok_and(|n| n.to_string() == *v || v.len() <= 2);
        let day = |v: &String| v.len() == 10 && ScalarValue::try_from_string(v.clone(), &DataType::Date32).is_ok();
        let data_type = match () {
            () if values.is_empty() => DataType::Utf8,
            () if values.iter().all(whole) => DataType::Int64,
            () if values.iter().all(day) => DataType::Date32,
            () => DataType::Utf8,
        };
        (key.clone(), data_type)
    };
    Ok(keys.iter().map(typed).collect())
}

/// What the folders of a file say for a column.
pub fn value(found: &Found, column: &str, data_type: &DataType) -> Result<ScalarValue> {
    let text = found.folders.iter().find_map(|d| pair(d).filter(|(k, _)| *k == column).map(|(_, v)| v));
    let Some(text) = text else {
        return Err(Error::invalid(format!(
            "no folder of {} is called {column}=…, as PARTITIONED BY ({column}) says",
            found.meta.location
        ))
        .with_hint("put the file into such a folder, or out of the table's location"));
    };
    if text == NULL {
        return Ok(ScalarValue::try_new_null(data_type)?);
    }
    ScalarValue::try_from_string(text.clone(), data_type).map_err(|_| {
        Error::invalid(format!("the folder {column}={text} of {} is no {data_type}", found.meta.location))
            .with_hint(format!("declare the column {column} as VARCHAR"))
    })
}
