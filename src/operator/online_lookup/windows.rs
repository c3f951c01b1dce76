//! Windowed features of one lookup: records are finalised at the instant that is asked, so values age without a write.

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, BooleanArray};
use datafusion::arrow::compute::nullif;
use datafusion::arrow::datatypes::{Field, Schema};

use super::stream::{Answered, key_name};
use crate::clock::Micros;
use crate::error::Result;
use crate::model::codec::row::RowKind;
use crate::model::codec::{EncodedKey, Row};
use crate::model::window::RecordCodec;
use crate::model::windowed::Windowed;
use crate::plan::online_lookup::{NOT_FOUND, OVER_LIMIT, PRESENT};

/// Reads records of one windowed view.
#[derive(Debug)]
pub struct WindowReader {
    codec: RecordCodec,
    /// The aggregates that are wanted.
    slots: Vec<usize>,
}

/// The types of what aggregates read of an event.
pub fn arguments_schema(windowed: &Windowed) -> Schema {
    let field = |c: crate::model::Column| Field::new(c.name, c.data_type.into(), true);
    Schema::new(windowed.argument_columns().into_iter().map(field).collect::<Vec<_>>())
}

impl WindowReader {
    pub fn new(windowed: &Windowed, slots: &[usize], limit: usize) -> Result<Self> {
        let aggregates: Vec<_> = windowed.slots.iter().map(|s| s.aggregate.clone()).collect();
        Ok(WindowReader { codec: RecordCodec::new(&aggregates, &arguments_schema(windowed), limit)?, slots: slots.to_vec() })
    }

    /// The aggregates of each key, and last those of a NULL key, which are NULL. A key without a record has those of no
    /// events. `at`: the instant for a record with its newest event at the argument; `now` that for what has none.
    pub fn read(&self, keys: &[EncodedKey], rows: &[Option<Bytes>], at: &dyn Fn(Micros) -> Micros, now: Micros) -> Result<Answered> {
        let mut records = Vec::with_capacity(keys.len() + 1);
        // of a NULL key, and of a key whose newest event is later than the instant that was asked for
        let mut unknown = vec![false; keys.len() + 1];
        for (slot, (key, bytes)) in keys.iter().zip(rows).enumerate() {
            let parsed = bytes.as_deref().map(|b| Row::parse(b).and_then(|r| r.of_kind(RowKind::Windows)));
            let row = parsed.transpose().map_err(|e| e.context(format!("key {}", key_name(keys, slot))))?;
            let Some(row) = row.filter(|r| !r.tombstone && r.belongs_to(key)) else {
                records.push((None, now));
                continue;
            };
            let t = at(row.prefix.event_ts);
            if row.prefix.event_ts > t {
                unknown[slot] = true;
                records.push((None, now));
                continue;
            }
            let newest = Some(row.prefix.event_ts).filter(|e| *e != Micros::MIN);
            records.push((Some((row.body(), newest)), t));
        }
        records.push((None, now));
        unknown[keys.len()] = true;
        let name = |slot: usize| format!("key {}", key_name(keys, slot));
        let read = self.codec.read(&records, &self.slots, &name)?;
        // A record whose events have left all windows says what no record says, and may be gone.
        let statuses = read.over_limit.iter().zip(&read.newest).map(|(over, newest)| match (over, newest) {
            (true, _) => OVER_LIMIT,
            (_, Some(_)) => PRESENT,
            (_, None) => NOT_FOUND,
        });
        let status = statuses.collect();
        let unknown = BooleanArray::from(unknown);
        let values = read.values.iter().map(|a| Ok(nullif(a, &unknown)?)).collect::<Result<Vec<ArrayRef>>>()?;
        Ok(Answered { values, times: read.newest, status })
    }
}
