//! The newest row of every key, chosen while the rows stream past in the order of the files.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use datafusion::arrow::compute::{cast, concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Int64Type, Schema, TimestampMicrosecondType};
use datafusion::scalar::ScalarValue;

use crate::clock::{DAY, Micros};
use crate::error::{Error, Result};
use crate::model::codec::{EncodedKey, RowEncoder, encode_keys, row_schema};
use crate::model::{Column as ModelColumn, FeatureView};
use crate::plan::feature_table::SEQ;
use crate::store::offline::DataFile;
use crate::store::online::{PutKind, PutRow};

/// Where the columns of a feature table lie in its batches.
#[derive(Debug)]
pub struct Layout {
    keys: Vec<(usize, ModelColumn)>,
    event: usize,
    created: Option<usize>,
    seq: usize,
    features: Vec<(usize, ModelColumn)>,
}

impl Layout {
    pub fn new(view: &FeatureView, schema: &Schema) -> Result<Self> {
        let at = |c: ModelColumn| Ok((schema.index_of(&c.name)?, c));
        Ok(Layout {
            keys: view.keys.iter().cloned().map(at).collect::<Result<_>>()?,
            event: schema.index_of(&view.event_timestamp)?,
            created: view.created_timestamp.as_deref().map(|c| schema.index_of(c)).transpose()?,
            seq: schema.index_of(SEQ)?,
            features: view.value_columns().into_iter().map(at).collect::<Result<_>>()?,
        })
    }

    /// Keys of a batch; `None` where a key column is NULL, which only foreign writers can bring about.
    pub fn keys(&self, batch: &RecordBatch) -> Result<Vec<Option<EncodedKey>>> {
        encode_keys(&declared(batch, &self.keys)?)
    }

    /// Everything but `_seq`.
    pub fn visible(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        batch.columns().iter().enumerate().filter(|(i, _)| *i != self.seq).map(|(_, c)| Arc::clone(c)).collect()
    }

    pub fn visible_types(&self, schema: &Schema) -> Vec<DataType> {
        schema.fields().iter().enumerate().filter(|(i, _)| *i != self.seq).map(|(_, f)| f.data_type().clone()).collect()
    }

    /// The first key column.
    pub fn first_key<'a>(&self, batch: &'a RecordBatch) -> Option<&'a ArrayRef> {
        self.keys.first().map(|(i, _)| batch.column(*i))
    }

    pub fn event<'a>(&self, batch: &'a RecordBatch) -> Result<&'a TimestampMicrosecondArray> {
        instants(batch, self.event)
    }

    pub fn created<'a>(&self, batch: &'a RecordBatch) -> Result<Option<&'a TimestampMicrosecondArray>> {
        self.created.map(|i| instants(batch, i)).transpose()
    }

    pub fn seq<'a>(&self, batch: &'a RecordBatch) -> Result<&'a Int64Array> {
        batch.column(self.seq).as_primitive_opt::<Int64Type>().ok_or_else(|| Error::internal("column _seq is not BIGINT"))
    }
}

fn instants(batch: &RecordBatch, i: usize) -> Result<&TimestampMicrosecondArray> {
    let column = batch.column(i).as_primitive_opt::<TimestampMicrosecondType>();
    column.ok_or_else(|| Error::internal(format!("column {:?} of a feature table is no TIMESTAMP", batch.schema().field(i).name())))
}

fn declared(batch: &RecordBatch, columns: &[(usize, ModelColumn)]) -> Result<Vec<ArrayRef>> {
    let one = |(i, c): &(usize, ModelColumn)| {
        let (have, want) = (batch.column(*i), c.data_type.arrow());
        Ok(if have.data_type() == want { Arc::clone(have) } else { cast(have, want)? })
    };
    columns.iter().map(one).collect()
}

/// Winning rows of some keys, one row per key.
#[derive(Debug)]
pub struct Picked {
    pub keys: Vec<EncodedKey>,
    rows: RecordBatch,
}

/// Chooses from a sorted stream; keeps one row back.
#[derive(Debug)]
pub struct Newest {
    layout: Layout,
    encoder: RowEncoder,
    now: Micros,
    /// Name of the event timestamp.
    event: String,
    /// Rows that are not due yet came after this Delta version, going by their numbers.
    held: Option<u64>,
    last: Option<(EncodedKey, RecordBatch)>,
}

#[derive(Clone, Copy)]
enum Place {
    Kept,
    At(usize),
}

impl Newest {
    pub fn new(view: &FeatureView, schema: &Schema, now: Micros) -> Result<Self> {
        let (id, features) = row_schema(view);
        Ok(Newest {
            layout: Layout::new(view, schema)?,
            encoder: RowEncoder::new(id, &features),
            now,
            event: view.event_timestamp.clone(),
            held: None,
            last: None,
        })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Takes the next batch, of which only the rows marked in `wanted` count; answers the keys that are done.
    pub fn batch(&mut self, batch: &RecordBatch, keys: Vec<Option<EncodedKey>>, wanted: Option<&[bool]>) -> Result<Option<Picked>> {
        let (event, seq) = (self.layout.event(batch)?, self.layout.seq(batch)?);
        let mut open = self.last.as_ref().map(|(k, _)| (k.clone(), Place::Kept));
        let mut done: Vec<(EncodedKey, Place)> = vec![];
        for (i, key) in keys.into_iter().enumerate() {
            let Some(key) = key.filter(|_| event.is_valid(i) && wanted.is_none_or(|w| w.get(i) == Some(&true))) else { continue };
            if event.value(i) > self.now {
                // it was committed after the version that its statement had loaded
                let below = u64::try_from((seq.value(i) >> 32) - 1).unwrap_or(0);
                self.held = Some(self.held.map_or(below, |h| h.min(below)));
                continue;
            }
            match open.take() {
                Some((k, place)) if k == key => {
                    let place = if self.stays(batch, place, i)? { place } else { Place::At(i) };
                    open = Some((k, place));
                }
                before => {
                    done.extend(before);
                    open = Some((key, Place::At(i)));
                }
            }
        }
        let picked = self.gather(batch, done)?;
        if let Some((key, Place::At(i))) = open {
            self.last = Some((key, batch.slice(i, 1)));
        }
        Ok(picked)
    }

    /// The Delta version that the watermark may not pass, because rows of later ones are not due yet: numbers
    /// may run ahead of the versions that their rows came with, by how much their files tell.
    pub fn held_below(&self, files: &[Arc<DataFile>]) -> Option<u64> {
        let held = self.held?;
        let later = |f: &&Arc<DataFile>| match f.max(&self.event) {
            Some(ScalarValue::TimestampMicrosecond(Some(newest), _)) => *newest > self.now,
            _ => true,
        };
        let later: Vec<_> = files.iter().filter(later).collect();
        let ahead = later.iter().map(|f| f.ahead).max().unwrap_or(0);
        let before = later.iter().map(|f| f.added.0.saturating_sub(1)).min();
        let held = held.saturating_sub(ahead);
        Some(before.map_or(held, |b| held.min(b)))
    }

    /// The last key.
    pub fn finish(&mut self) -> Option<Picked> {
        self.last.take().map(|(key, rows)| Picked { keys: vec![key], rows })
    }

    /// Whether the row at `place` beats row `i`, which sorts at or after it: only in a full tie.
    fn stays(&self, batch: &RecordBatch, place: Place, i: usize) -> Result<bool> {
        let (other, at) = match (place, &self.last) {
            (Place::Kept, Some((_, row))) => (row, 0),
            (Place::At(at), _) => (batch, at),
            (Place::Kept, None) => return Ok(false),
        };
        let order = |b: &RecordBatch, i: usize| -> Result<(i64, Option<i64>, i64)> {
            let created = self.layout.created(b)?.filter(|c| c.is_valid(i)).map(|c| c.value(i));
            Ok((self.layout.event(b)?.value(i), created, self.layout.seq(b)?.value(i)))
        };
        if order(other, at)? != order(batch, i)? {
            return Ok(false);
        }
        let body = |b: &RecordBatch, i: usize| self.encoder.bodies(&declared(&b.slice(i, 1), &self.layout.features)?);
        Ok(body(other, at)? > body(batch, i)?)
    }

    fn gather(&mut self, batch: &RecordBatch, done: Vec<(EncodedKey, Place)>) -> Result<Option<Picked>> {
        if done.is_empty() {
            return Ok(None);
        }
        let at = done.iter().filter_map(|(_, p)| if let Place::At(i) = p { Some(*i as u64) } else { None });
        let mut rows = take_record_batch(batch, &UInt64Array::from_iter_values(at))?;
        // the row kept back is of the first key
        let kept = matches!(done.first(), Some((_, Place::Kept))).then(|| self.last.take()).flatten();
        if let Some((_, kept)) = kept {
            rows = concat_batches(&batch.schema(), [&kept, &rows])?;
        }
        Ok(Some(Picked { keys: done.into_iter().map(|(k, _)| k).collect(), rows }))
    }

    /// Encodes rows for the store. Rows that are too old to be live are given to it, too: until it lets them go they
    /// answer OUTSIDE_MAX_AGE, and a lookup `at` an earlier instant finds them.
    pub fn encode(&self, picked: Picked, asof: u64, kind: PutKind, expiry: &Expiry) -> Result<Vec<PutRow>> {
        let rows = &picked.rows;
        let event = self.layout.event(rows)?;
        let features = declared(rows, &self.layout.features)?;
        let encoded = self.encoder.encode(&picked.keys, event, self.layout.created(rows)?, self.layout.seq(rows)?, asof, &features)?;
        let put = |(i, (row, key)): (usize, (Vec<u8>, EncodedKey))| {
            let expire_at = expiry.of(&key, event.value(i));
            // a state says also that an older row is none any more
            let buried = kind == PutKind::State && expiry.is_past(expire_at);
            match buried {
                true => self.tombstone(&key, asof, expiry),
                false => PutRow { key: key.into_stored(), row, kind, expire_at },
            }
        };
        Ok(encoded.into_iter().zip(picked.keys).enumerate().map(put).collect())
    }

    pub fn tombstone(&self, key: &EncodedKey, asof: u64, expiry: &Expiry) -> PutRow {
        let expire_at = Some(expiry.now.saturating_add(expiry.tombstones));
        PutRow { key: key.stored().to_vec(), row: self.encoder.tombstone(key, asof), kind: PutKind::State, expire_at }
    }
}

/// When the store may forget rows: later than the TTL hides them, counted from their events, and not all at once.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    pub now: Micros,
    pub ttl: Option<Micros>,
    pub tombstones: Micros,
    /// The store removes rows by itself.
    pub forgets: bool,
}

impl Expiry {
    /// Whether the store would let a row go at once.
    pub fn is_past(&self, expire_at: Option<Micros>) -> bool {
        self.forgets && expire_at.is_some_and(|at| at <= self.now)
    }

    pub fn of(&self, key: &EncodedKey, event: Micros) -> Option<Micros> {
        let ttl = self.ttl.filter(|t| *t > 0)?;
        // up to 5 % more, spread by key: rows of one bulk load do not expire in one moment
        let spread = key.stored().iter().fold(0i64, |h, b| (h * 31 + i64::from(*b)) % 50);
        let kept = ttl.saturating_add(ttl / 10).saturating_add(ttl / 1000 * spread).max(ttl.saturating_add(spread));
        Some(event.saturating_add(kept)).filter(|at| *at < i64::MAX - DAY)
    }
}
