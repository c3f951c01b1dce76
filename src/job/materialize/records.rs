//! The record of every key of a windowed view, made of its events while they stream past in the order of the files.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::{concat, filter_record_batch};
use datafusion::arrow::datatypes::Schema;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::PhysicalExpr;

use super::newest::{Expiry, Layout};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::codec::row::windows_row;
use crate::model::codec::{EncodedKey, RowEncoder};
use crate::model::window::{RecordCodec, Run, columns};
use crate::model::windowed::Windowed;
use crate::operator::online_lookup::arguments_schema;
use crate::services::Services;
use crate::services::expressions::stored_expression;
use crate::store::online::{PutKind, PutRow};

/// Records of some keys.
#[derive(Debug)]
pub struct Picked {
    pub keys: Vec<EncodedKey>,
    records: Vec<Record>,
}

#[derive(Debug)]
struct Record {
    /// The newest event that is due, and the newest of all.
    newest: Option<Micros>,
    last: Micros,
    body: Vec<u8>,
}

/// Events of one key in one batch.
#[derive(Debug)]
struct Piece {
    times: Vec<Micros>,
    columns: Vec<ArrayRef>,
}

/// Makes records from a sorted stream; keeps the events of the last key back until the next one begins.
#[derive(Debug)]
pub struct Records {
    layout: Layout,
    codec: RecordCodec,
    /// What the aggregates read of an event.
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    condition: Option<Arc<dyn PhysicalExpr>>,
    schema_id: u32,
    now: Micros,
    name: String,
    open: Option<(EncodedKey, Vec<Piece>)>,
    memory: MemoryReservation,
}

impl Records {
    pub fn new(services: &Services, view: &FeatureView, windowed: &Windowed, schema: &Schema, now: Micros) -> Result<Self> {
        let aggregates: Vec<_> = windowed.slots.iter().map(|s| s.aggregate.clone()).collect();
        let limit = services.config.online_settings.max_window_events;
        let stored = |name: &str| -> Result<Arc<dyn PhysicalExpr>> {
            Ok(Arc::new(datafusion::physical_expr::expressions::Column::new_with_schema(name, schema)?))
        };
        let arguments = match windowed.pushed {
            false => windowed.columns.iter().map(|c| stored(&c.name)).collect::<Result<_>>()?,
            true => windowed.computed.iter().map(|c| stored_expression(services, &c.expr, schema)).collect::<Result<_>>()?,
        };
        Ok(Records {
            layout: Layout::new(view, schema)?,
            codec: RecordCodec::new(&aggregates, &arguments_schema(windowed), limit)?,
            arguments,
            condition: windowed.condition.as_ref().map(|c| stored_expression(services, c, schema)).transpose()?,
            schema_id: view.version,
            now,
            name: view.versioned_name(),
            open: None,
            memory: MemoryConsumer::new("MATERIALIZE: events of one key").register(&services.runtime.memory_pool),
        })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn events(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let Some(condition) = &self.condition else { return Ok(batch) };
        let holds = condition.evaluate(&batch)?.into_array(batch.num_rows())?;
        let holds = holds.as_boolean_opt().ok_or_else(|| Error::internal(format!("WHERE of {} is no condition", self.name)))?;
        Ok(filter_record_batch(&batch, holds)?)
    }

    pub fn batch(&mut self, batch: &RecordBatch, keys: Vec<Option<EncodedKey>>, wanted: Option<&[bool]>) -> Result<Option<Picked>> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(None);
        }
        let columns = self.arguments.iter().map(|e| Ok(e.evaluate(batch)?.into_array(rows)?)).collect::<Result<Vec<_>>>()?;
        let event = self.layout.event(batch)?;
        let counts = |i: usize| event.is_valid(i) && wanted.is_none_or(|w| w.get(i) == Some(&true));
        let mut done = Picked { keys: vec![], records: vec![] };
        let mut from = 0;
        while from < rows {
            let (key, count) = (&keys[from], counts(from));
            let to = from + (from..rows).take_while(|i| keys[*i] == *key && counts(*i) == count).count();
            if let Some(key) = key.as_ref().filter(|_| count) {
                if self.open.as_ref().is_some_and(|(open, _)| open != key) {
                    self.close(&mut done)?;
                }
                let piece =
                    Piece { times: event.values()[from..to].to_vec(), columns: columns.iter().map(|c| c.slice(from, to - from)).collect() };
                match &mut self.open {
                    // only the last key of a batch stays open over its end
                    Some((_, pieces)) => pieces.push(piece),
                    None => self.open = Some((key.clone(), vec![piece])),
                }
            }
            from = to;
        }
        self.hold()?;
        Ok((!done.keys.is_empty()).then_some(done))
    }

    /// The last key.
    pub fn finish(&mut self) -> Result<Option<Picked>> {
        let mut done = Picked { keys: vec![], records: vec![] };
        self.close(&mut done)?;
        Ok((!done.keys.is_empty()).then_some(done))
    }

    /// Accounts for what is kept back.
    fn hold(&mut self) -> Result<()> {
        let of_piece =
            |p: &Piece| p.times.len() * 8 + p.columns.iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum::<usize>();
        let bytes = self.open.iter().flat_map(|(_, pieces)| pieces).map(of_piece).sum();
        self.memory.try_resize(bytes)?;
        Ok(())
    }

    fn close(&mut self, done: &mut Picked) -> Result<()> {
        let Some((key, pieces)) = self.open.take() else { return Ok(()) };
        let whole;
        let piece = match &pieces[..] {
            [one] => one,
            pieces => {
                let width = self.arguments.len();
                let column = |i: usize| concat(&pieces.iter().map(|p| p.columns[i].as_ref()).collect::<Vec<_>>());
                let columns = (0..width).map(column).collect::<std::result::Result<_, _>>()?;
                whole = Piece { times: pieces.iter().flat_map(|p| p.times.iter().copied()).collect(), columns };
                &whole
            }
        };
        let Some(last) = piece.times.last().copied() else { return Ok(()) };
        let mut body = vec![];
        let run = Run { times: &piece.times, columns: &columns(&piece.columns)?, first: 0 };
        let newest = self.codec.write(&run, self.now, &mut body)?;
        done.keys.push(key);
        done.records.push(Record { newest, last, body });
        Ok(())
    }

    pub fn encode(&self, picked: Picked, asof: u64, kind: PutKind, expiry: &Expiry) -> Vec<PutRow> {
        let put = |(key, record): (EncodedKey, Record)| {
            let expire_at = expiry.of(&key, record.last);
            if kind == PutKind::State && expiry.is_past(expire_at) {
                return self.tombstone(&key, asof, expiry);
            }
            let row = windows_row(self.schema_id, &key, record.newest, asof, &record.body);
            PutRow { key: key.into_stored(), row, kind, expire_at }
        };
        picked.keys.into_iter().zip(picked.records).map(put).collect()
    }

    pub fn tombstone(&self, key: &EncodedKey, asof: u64, expiry: &Expiry) -> PutRow {
        let expire_at = Some(expiry.now.saturating_add(expiry.tombstones));
        let row = RowEncoder::new(self.schema_id, &[]).tombstone(key, asof);
        PutRow { key: key.stored().to_vec(), row, kind: PutKind::State, expire_at }
    }
}
