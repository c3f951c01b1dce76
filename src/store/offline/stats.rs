//! What is known about a file's columns without reading it: Delta's statistics JSON, and the same
//! facts as DataFusion wants them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, Utc};
use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue, Statistics};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value, json};

use super::snapshot::DataFile;
use crate::error::Result;

/// Bounds of one column in one file. `min` is no greater, `max` no less than any value; they need
/// not be values of the column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnRange {
    pub min: Option<ScalarValue>,
    pub max: Option<ScalarValue>,
    pub nulls: Option<u64>,
}

/// Marks a file of a scan: no value lies outside its statistics' least and greatest, though these are not exact.
/// (Statistics of other scans may leave values out of account.)
#[derive(Debug, Clone, Copy)]
pub struct SureBounds;

pub(crate) type Ranges = BTreeMap<String, ColumnRange>;

/// Types whose bounds Delta's JSON can hold without loss.
pub(crate) fn has_bounds(t: &DataType) -> bool {
    use DataType::*;
    matches!(t, Int8 | Int16 | Int32 | Int64 | Utf8 | Date32 | Timestamp(TimeUnit::Microsecond, Some(_)))
}

/// Bounds of `columns` from the footer of a file just written.
pub(crate) fn from_footer(meta: &ParquetMetaData, schema: &Schema, columns: &[String]) -> Result<Ranges> {
    let mut out = Ranges::new();
    let parquet_schema = meta.file_metadata().schema_descr();
    for name in columns {
        let Ok(field) = schema.field_with_name(name) else { continue };
        if field.data_type().is_nested() {
            continue;
        }
        let Ok(converter) = StatisticsConverter::try_new(name, schema, parquet_schema) else { continue };
        let nulls = converter.row_group_null_counts(meta.row_groups()).ok().map(|n| n.iter().flatten().sum());
        let mut range = ColumnRange { min: None, max: None, nulls };
        if has_bounds(field.data_type()) {
            range.min = converter.row_group_mins(meta.row_groups()).ok().and_then(|a| extreme(&a, Ordering::Less));
            range.max = converter.row_group_maxes(meta.row_groups()).ok().and_then(|a| extreme(&a, Ordering::Greater));
        }
        out.insert(name.clone(), range);
    }
    Ok(out)
}

fn extreme(values: &ArrayRef, wanted: Ordering) -> Option<ScalarValue> {
    (0..values.len())
        .filter(|i| values.is_valid(*i))
        .filter_map(|i| ScalarValue::try_from_array(values, i).ok())
        .reduce(|best, v| if v.partial_cmp(&best) == Some(wanted) { v } else { best })
}

pub(crate) fn to_json(rows: u64, ranges: &Ranges) -> String {
    let (mut min, mut max, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (name, r) in ranges {
        if let Some(v) = r.min.as_ref().and_then(scalar_to_json) {
            min.insert(name.clone(), v);
        }
        if let Some(v) = r.max.as_ref().and_then(scalar_to_json) {
            max.insert(name.clone(), v);
        }
        if let Some(n) = r.nulls {
            nulls.insert(name.clone(), n.into());
        }
    }
    json!({ "numRecords": rows, "minValues": min, "maxValues": max, "nullCount": nulls }).to_string()
}

/// Reads the statistics of a file. `ours`: written by us, to the microsecond; others may have cut
/// timestamps to milliseconds, so their upper bounds are widened.
pub(crate) fn from_json(text: &str, schema: &Schema, ours: bool) -> (Option<u64>, Ranges) {
    let Ok(v) = serde_json::from_str::<Value>(text) else { return (None, Ranges::new()) };
    let mut out = Ranges::new();
    for field in schema.fields() {
        let name = field.name();
        let bound = |part: &str| v.get(part)?.get(name).and_then(|b| json_to_scalar(b, field.data_type()));
        let nulls = v.get("nullCount").and_then(|n| n.get(name)?.as_u64());
        let (min, mut max) = (bound("minValues"), bound("maxValues"));
        if let Some(ScalarValue::TimestampMicrosecond(Some(t), _)) = &mut max
            && !ours
            && *t % 1_000 == 0
        {
            *t = t.saturating_add(999);
        }
        if min.is_some() || max.is_some() || nulls.is_some() {
            out.insert(name.clone(), ColumnRange { min, max, nulls });
        }
    }
    (v.get("numRecords").and_then(Value::as_u64), out)
}

fn scalar_to_json(s: &ScalarValue) -> Option<Value> {
    Some(match s {
        ScalarValue::Int8(Some(v)) => (*v).into(),
        ScalarValue::Int16(Some(v)) => (*v).into(),
        ScalarValue::Int32(Some(v)) => (*v).into(),
        ScalarValue::Int64(Some(v)) => (*v).into(),
        ScalarValue::Utf8(Some(v)) => v.as_str().into(),
        ScalarValue::Date32(Some(d)) => date(*d)?.format("%Y-%m-%d").to_string().into(),
        ScalarValue::TimestampMicrosecond(Some(t), _) => {
            let t = DateTime::<Utc>::from_timestamp_micros(*t).filter(|t| (1..=9999).contains(&t.year()))?;
            t.to_rfc3339_opts(SecondsFormat::Micros, true).into()
        }
        _ => return None,
    })
}

fn date(days: i32) -> Option<NaiveDate> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    epoch.checked_add_signed(chrono::Duration::try_days(i64::from(days))?).filter(|d| (1..=9999).contains(&d.year()))
}

fn json_to_scalar(v: &Value, t: &DataType) -> Option<ScalarValue> {
    Some(match t {
        DataType::Int8 => ScalarValue::Int8(Some(v.as_i64()?.try_into().ok()?)),
        DataType::Int16 => ScalarValue::Int16(Some(v.as_i64()?.try_into().ok()?)),
        DataType::Int32 => ScalarValue::Int32(Some(v.as_i64()?.try_into().ok()?)),
        DataType::Int64 => ScalarValue::Int64(Some(v.as_i64()?)),
        DataType::Utf8 => ScalarValue::Utf8(Some(v.as_str()?.to_string())),
        DataType::Date32 => {
            let d = NaiveDate::parse_from_str(v.as_str()?, "%Y-%m-%d").ok()?;
            let days = d.signed_duration_since(NaiveDate::from_ymd_opt(1970, 1, 1)?).num_days();
            ScalarValue::Date32(Some(days.try_into().ok()?))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone @ Some(_)) => {
            let t = DateTime::parse_from_rfc3339(v.as_str()?).ok()?;
            ScalarValue::TimestampMicrosecond(Some(t.timestamp_micros()), zone.clone())
        }
        _ => return None,
    })
}

/// A file's facts for DataFusion. Bounds are never exact: they must not answer MIN and MAX.
pub(crate) fn file_statistics(file: &DataFile, schema: &Schema) -> Statistics {
    let column_statistics = schema
        .fields()
        .iter()
        .map(|f| {
            let inexact = |v: &Option<ScalarValue>| v.clone().map_or(Precision::Absent, Precision::Inexact);
            match file.range(f.name()) {
                None => ColumnStatistics::new_unknown(),
                Some(r) => ColumnStatistics {
                    null_count: r.nulls.and_then(|n| usize::try_from(n).ok()).map_or(Precision::Absent, Precision::Exact),
                    min_value: inexact(&r.min),
                    max_value: inexact(&r.max),
                    ..ColumnStatistics::new_unknown()
                },
            }
        })
        .collect();
    Statistics {
        num_rows: file.rows.and_then(|n| usize::try_from(n).ok()).map_or(Precision::Absent, Precision::Exact),
        total_byte_size: Precision::Absent,
        column_statistics,
    }
}

/// Whole files as the containers that a predicate may rule out.
pub(crate) struct FilePruning<'a> {
    pub files: &'a [Arc<DataFile>],
    pub schema: SchemaRef,
}

impl FilePruning<'_> {
    fn bounds(&self, column: &Column, pick: impl Fn(&ColumnRange) -> &Option<ScalarValue>) -> Option<ArrayRef> {
        let field = self.schema.field_with_name(column.name()).ok()?;
        let null = ScalarValue::try_from(field.data_type()).ok()?;
        let values = self.files.iter().map(|f| f.range(column.name()).and_then(|r| pick(r).clone()).unwrap_or_else(|| null.clone()));
        ScalarValue::iter_to_array(values).ok()
    }
}

impl PruningStatistics for FilePruning<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |r| &r.min)
    }
    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |r| &r.max)
    }
    fn num_containers(&self) -> usize {
        self.files.len()
    }
    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let counts: UInt64Array = self.files.iter().map(|f| f.range(column.name()).and_then(|r| r.nulls)).collect();
        Some(Arc::new(counts))
    }
    fn row_counts(&self) -> Option<ArrayRef> {
        let counts: UInt64Array = self.files.iter().map(|f| f.rows).collect();
        Some(Arc::new(counts))
    }
    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// `tags` of an Add action as plain text pairs.
pub(crate) fn tag<'a>(tags: &'a Option<HashMap<String, Option<String>>>, key: &str) -> Option<&'a str> {
    tags.as_ref()?.get(key)?.as_deref()
}
