//! How values of definitions are shown in rows.

use crate::clock::Micros;
use crate::model::{Column, Name, Tags};

/// A number as a column holds it.
pub fn int(v: impl TryInto<i64>) -> Option<i64> {
    Some(v.try_into().unwrap_or(i64::MAX))
}

/// `7 days`
pub fn span(v: Micros) -> String {
    crate::sql::cursor::format_interval(v).trim_start_matches("INTERVAL ").trim_matches('\'').to_string()
}

pub fn joined<S: AsRef<str>>(parts: impl IntoIterator<Item = S>) -> Option<String> {
    Some(parts.into_iter().map(|s| s.as_ref().to_string()).collect::<Vec<_>>().join(", "))
}

/// `name TYPE, name TYPE`
pub fn typed(columns: &[Column]) -> Option<String> {
    joined(columns.iter().map(|c| format!("{} {}", c.name, c.data_type)))
}

/// `tag = value, tag = value`; NULL where there is none.
pub fn tags(t: &Tags) -> Option<String> {
    if t.is_empty() { None } else { joined(t.iter().map(|(k, v)| format!("{k} = {v}"))) }
}

/// The name as the reader of the row would write it.
pub fn near(n: &Name, schema: &str) -> String {
    if n.schema == schema { n.name.clone() } else { n.to_string() }
}
