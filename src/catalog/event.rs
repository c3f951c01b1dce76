//! Rows of the registry's event log.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};

use super::change::{CatalogChange, PutMode};
use super::snapshot::CatalogSnapshot;
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::types::timestamp_type;

/// The newest form of the log that this version reads. A change that older readers would take for something else says
/// so: its operation is followed by `:` and the form that a reader needs (1, which says nothing, is that of 0.1).
///
/// - 2: a feature view that is put in the place of another may have an online id of its own.
/// - 3: a feature view may have windows: its table holds events, and its features are no columns of it.
pub(super) const FORM: u32 = 3;

/// The form of the log that a reader of a change needs.
pub(super) fn form_of(before: &CatalogSnapshot, change: &CatalogChange) -> u32 {
    match change {
        CatalogChange::PutFeatureView(new, _) if new.windowed.is_some() => 3,
        CatalogChange::PutFeatureView(new, PutMode::Replace) => {
            let old = before.feature_view(&new.name, Some(new.version));
            if old.is_ok_and(|old| old.online_id != new.online_id) { 2 } else { 1 }
        }
        _ => 1,
    }
}

/// One change as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The commit; all its changes share it.
    pub catalog_version: u64,
    /// Place in the commit, from 0.
    pub ordinal: u32,
    pub at: Micros,
    pub object_kind: String,
    pub name: String,
    pub op: String,
    /// The form of the log that a reader needs.
    pub form: u32,
    /// JSON.
    pub payload: String,
    pub run_id: Option<String>,
    /// Version of the program that made it.
    pub engine: String,
}

pub(super) fn schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        Field::new("catalog_version", DataType::Int64, false),
        Field::new("ordinal", DataType::Int32, false),
        Field::new("at", timestamp_type(), false),
        text("object_kind", false),
        text("name", false),
        text("op", false),
        text("payload", false),
        text("run_id", true),
        text("engine", false),
    ]))
}

impl Event {
    /// The events of one commit.
    pub(super) fn of(
        before: &CatalogSnapshot,
        version: u64,
        at: Micros,
        run_id: Option<&str>,
        changes: &[CatalogChange],
    ) -> Result<Vec<Event>> {
        changes
            .iter()
            .zip(0u32..)
            .map(|(change, ordinal)| {
                let e = change.encode()?;
                Ok(Event {
                    catalog_version: version,
                    ordinal,
                    at,
                    object_kind: e.kind.into(),
                    name: e.name,
                    op: e.op.into(),
                    form: form_of(before, change),
                    payload: e.payload,
                    run_id: run_id.map(str::to_string),
                    engine: env!("CARGO_PKG_VERSION").into(),
                })
            })
            .collect()
    }

    pub(super) fn change(&self) -> Result<CatalogChange> {
        if self.form > FORM {
            return Err(Error::invalid(format!(
                "the registry has a change of form {} (made by remige {}): {} {} of {}; this program reads forms up to {FORM}",
                self.form, self.engine, self.op, self.object_kind, self.name
            ))
            .with_hint("use the newer remige; nothing was changed"));
        }
        match CatalogChange::decode(&self.object_kind, &self.op, &self.payload) {
            Some(Ok(change)) => Ok(change),
            Some(Err(e)) => {
                Err(Error::invalid(format!("change {} of {} {}: {}", self.catalog_version, self.object_kind, self.name, e.message())))
            }
            None => Err(Error::invalid(format!(
                "the registry has a change that this version of remige does not know: {} {:?} of {} (made by remige {})",
                self.op, self.object_kind, self.name, self.engine
            ))
            .with_hint("use the newer remige; nothing was changed")),
        }
    }
}

pub(super) fn to_batch(events: &[Event]) -> Result<RecordBatch> {
    let text = |f: fn(&Event) -> &str| Arc::new(StringArray::from_iter_values(events.iter().map(f))) as ArrayRef;
    let versions = events.iter().map(|e| i64::try_from(e.catalog_version)).collect::<Result<Vec<_>, _>>();
    let ordinals = events.iter().map(|e| i32::try_from(e.ordinal)).collect::<Result<Vec<_>, _>>();
    let overflow = |e: std::num::TryFromIntError| Error::internal(e.to_string());
    Ok(RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from(versions.map_err(overflow)?)),
            Arc::new(Int32Array::from(ordinals.map_err(overflow)?)),
            Arc::new(TimestampMicrosecondArray::from_iter_values(events.iter().map(|e| e.at)).with_timezone("UTC")),
            text(|e| &e.object_kind),
            text(|e| &e.name),
            Arc::new(StringArray::from_iter_values(events.iter().map(written_op))) as ArrayRef,
            text(|e| &e.payload),
            Arc::new(events.iter().map(|e| e.run_id.as_deref()).collect::<StringArray>()),
            text(|e| &e.engine),
        ],
    )?)
}

fn written_op(e: &Event) -> String {
    if e.form > 1 { format!("{}:{}", e.op, e.form) } else { e.op.clone() }
}

/// The operation and the form that its reader needs.
fn read_op(written: &str) -> Result<(String, u32), String> {
    match written.split_once(':') {
        None => Ok((written.to_string(), 1)),
        Some((op, form)) => Ok((op.to_string(), form.parse().map_err(|_| format!("has an operation {written:?}"))?)),
    }
}

/// Reads events; columns by name, so that a newer version may add some. `Err` says what is wrong.
pub(super) fn from_batch(batch: &RecordBatch, out: &mut Vec<Event>) -> Result<(), String> {
    let column = |name: &str, t: &DataType| -> Result<ArrayRef, String> {
        let c = batch.column_by_name(name).ok_or_else(|| format!("has no column {name:?}"))?;
        if c.data_type() != t {
            return Err(format!("has a column {name:?} of type {}", c.data_type()));
        }
        Ok(Arc::clone(c))
    };
    let text = |name: &str| column(name, &DataType::Utf8);
    let (version, ordinal, at) =
        (column("catalog_version", &DataType::Int64)?, column("ordinal", &DataType::Int32)?, column("at", &timestamp_type())?);
    let (kind, name, op, payload) = (text("object_kind")?, text("name")?, text("op")?, text("payload")?);
    let (run_id, engine) = (text("run_id")?, text("engine")?);
    let string = |a: &ArrayRef, i: usize| a.as_string::<i32>().value(i).to_string();
    for i in 0..batch.num_rows() {
        let negative = |_| format!("has a negative number in row {i}");
        let (op, form) = read_op(&string(&op, i))?;
        out.push(Event {
            catalog_version: version.as_primitive::<Int64Type>().value(i).try_into().map_err(negative)?,
            ordinal: ordinal.as_primitive::<Int32Type>().value(i).try_into().map_err(negative)?,
            at: at.as_primitive::<TimestampMicrosecondType>().value(i),
            object_kind: string(&kind, i),
            name: string(&name, i),
            op,
            form,
            payload: string(&payload, i),
            run_id: run_id.is_valid(i).then(|| string(&run_id, i)),
            engine: string(&engine, i),
        });
    }
    Ok(())
}
