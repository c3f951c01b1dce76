//! The columns of a feature view's Delta table: a promise to every reader of the table.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::FeatureView;
use crate::error::{Error, Result};

/// "Written later", unique in its table: the table's next sequence number << 32 | row number in the statement.
pub const SEQ: &str = "_seq";

/// The Delta table's columns: visible ones, then `_seq`.
pub fn stored_schema(view: &FeatureView) -> SchemaRef {
    let required = view.keys.len() + 1;
    let mut fields: Vec<Field> =
        view.stored_columns().iter().enumerate().map(|(i, c)| Field::new(&c.name, c.data_type.arrow().clone(), i >= required)).collect();
    fields.push(Field::new(SEQ, DataType::Int64, false));
    Arc::new(Schema::new(fields))
}

/// The columns of which the log keeps bounds.
pub fn stats_columns(view: &FeatureView) -> Vec<String> {
    let mut out: Vec<String> = view.keys.iter().map(|k| k.name.clone()).collect();
    out.push(view.event_timestamp.clone());
    out.extend(view.created_timestamp.clone());
    out.push(SEQ.to_string());
    out
}

/// Refuses the names of columns that tables of ours hide.
pub fn check_column_name(name: &str) -> Result<()> {
    if name == SEQ || name.starts_with("_remige") {
        return Err(Error::invalid(format!("column name {name:?} is reserved")).with_hint("give it another name with AS"));
    }
    Ok(())
}
