//! Columns of the answers of jobs. They are part of the dialect.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::model::types::timestamp_type;

/// Of a statement that counts rows.
pub fn count() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]))
}

/// Of REBUILD TRAINING SET.
pub fn rebuild() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("training_set", DataType::Utf8, false),
        Field::new("rows", DataType::Int64, false),
        Field::new("content_hash", DataType::Utf8, false),
        Field::new("identical", DataType::Boolean, false),
    ]))
}

/// Of OPTIMIZE.
pub fn optimize() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("feature_view", DataType::Utf8, false),
        Field::new("files_before", DataType::Int64, false),
        Field::new("files_after", DataType::Int64, false),
        Field::new("bytes_before", DataType::Int64, false),
        Field::new("bytes_after", DataType::Int64, false),
        Field::new("files_rewritten", DataType::Int64, false),
        Field::new("rows_rewritten", DataType::Int64, false),
        Field::new("delta_version", DataType::Int64, false),
        Field::new("run_id", DataType::Utf8, false),
    ]))
}

/// Of VACUUM.
pub fn vacuum() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("feature_view", DataType::Utf8, false),
        Field::new("files_removed", DataType::Int64, false),
        Field::new("bytes_removed", DataType::Int64, false),
        Field::new("readable_from", DataType::Int64, false),
        Field::new("dry_run", DataType::Boolean, false),
        Field::new("run_id", DataType::Utf8, true),
    ]))
}

/// Of VERIFY: a row per item.
pub fn verify() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("object", DataType::Utf8, false),
        Field::new("item", DataType::Utf8, true),
        Field::new("feature_view", DataType::Utf8, true),
        Field::new("version", DataType::Int64, true),
        Field::new("generation", DataType::Int64, true),
        Field::new("online_delta_version", DataType::Int64, true),
        Field::new("offline_delta_version", DataType::Int64, true),
        Field::new("lag", DataType::Int64, true),
        Field::new("at", timestamp_type(), false),
        Field::new("keys_checked", DataType::Int64, false),
        Field::new("mismatches", DataType::Int64, false),
        Field::new("missing_online", DataType::Int64, false),
        Field::new("extra_online", DataType::Int64, false),
        Field::new("sample_seed", DataType::Int64, true),
        Field::new("examples", DataType::Utf8, true),
    ]))
}
