//! What a key's rows become online: its newest row, or the record of a windowed view's events.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;

use super::newest::{self, Expiry, Layout, Newest};
use super::records::{self, Records};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::codec::EncodedKey;
use crate::services::Services;
use crate::store::offline::DataFile;
use crate::store::online::{PutKind, PutRow};

/// Takes rows that stream past in the order of keys and time.
#[derive(Debug)]
pub enum Chooser {
    Newest(Box<Newest>),
    Records(Box<Records>),
}

/// Keys that are done, with what they become.
#[derive(Debug)]
pub enum Picked {
    Newest(newest::Picked),
    Records(records::Picked),
}

impl Picked {
    pub fn keys(&self) -> &[EncodedKey] {
        match self {
            Picked::Newest(p) => &p.keys,
            Picked::Records(p) => &p.keys,
        }
    }
}

impl Chooser {
    pub fn new(services: &Services, view: &FeatureView, schema: &Schema, now: Micros) -> Result<Self> {
        Ok(match &view.windowed {
            Some(windowed) => Chooser::Records(Box::new(Records::new(services, view, windowed, schema, now)?)),
            None => Chooser::Newest(Box::new(Newest::new(view, schema, now)?)),
        })
    }

    pub fn layout(&self) -> &Layout {
        match self {
            Chooser::Newest(n) => n.layout(),
            Chooser::Records(r) => r.layout(),
        }
    }

    /// The rows of a batch that count at all: of a push view with windows those that its WHERE lets through.
    pub fn events(&self, batch: RecordBatch) -> Result<RecordBatch> {
        match self {
            Chooser::Newest(_) => Ok(batch),
            Chooser::Records(r) => r.events(batch),
        }
    }

    /// Takes the next batch, of which only the rows marked in `wanted` count; answers the keys that are done.
    pub fn batch(&mut self, batch: &RecordBatch, keys: Vec<Option<EncodedKey>>, wanted: Option<&[bool]>) -> Result<Option<Picked>> {
        Ok(match self {
            Chooser::Newest(n) => n.batch(batch, keys, wanted)?.map(Picked::Newest),
            Chooser::Records(r) => r.batch(batch, keys, wanted)?.map(Picked::Records),
        })
    }

    /// The last key.
    pub fn finish(&mut self) -> Result<Option<Picked>> {
        Ok(match self {
            Chooser::Newest(n) => n.finish().map(Picked::Newest),
            Chooser::Records(r) => r.finish()?.map(Picked::Records),
        })
    }

    /// The Delta version that the watermark may not pass, because rows of later ones are not due yet. Records hold
    /// events that are not due and count them from their instant on: no watermark waits for these.
    pub fn held_below(&self, files: &[Arc<DataFile>]) -> Option<u64> {
        match self {
            Chooser::Newest(n) => n.held_below(files),
            Chooser::Records(_) => None,
        }
    }

    /// Encodes rows for the store.
    pub fn encode(&self, picked: Picked, asof: u64, kind: PutKind, expiry: &Expiry) -> Result<Vec<PutRow>> {
        match (self, picked) {
            (Chooser::Newest(n), Picked::Newest(p)) => n.encode(p, asof, kind, expiry),
            (Chooser::Records(r), Picked::Records(p)) => Ok(r.encode(p, asof, kind, expiry)),
            _ => Err(Error::internal("rows of another kind were chosen")),
        }
    }

    pub fn tombstone(&self, key: &EncodedKey, asof: u64, expiry: &Expiry) -> PutRow {
        match self {
            Chooser::Newest(n) => n.tombstone(key, asof, expiry),
            Chooser::Records(r) => r.tombstone(key, asof, expiry),
        }
    }
}
