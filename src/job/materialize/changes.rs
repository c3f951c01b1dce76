//! Which keys a range of commits touched, and how: keys that lost a row are evaluated again, others offer
//! their newest new row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::scalar::ScalarValue;
use futures::StreamExt;
use futures::future::BoxFuture;

use super::newest::Layout;
use crate::clock::Micros;
use crate::error::Result;
use crate::model::FeatureView;
use crate::model::codec::EncodedKey;
use crate::services::Services;
use crate::store::offline::{Changes, DataFile, Snapshot};
use crate::table::read::scan;

/// Rough memory of one entry of a map, its key aside.
const ENTRY: usize = 64;

/// So many keys are sought one by one.
const MOST_PLACES: usize = 64;

type RowHash = [u8; 16];

/// Hashes of rows, `_seq` aside.
struct Hasher(RowConverter);

impl Hasher {
    fn new(layout: &Layout, snapshot: &Snapshot) -> Result<Self> {
        let fields = layout.visible_types(snapshot.schema()).into_iter().map(SortField::new).collect();
        Ok(Hasher(RowConverter::new(fields)?))
    }

    fn hashes(&self, layout: &Layout, batch: &RecordBatch) -> Result<Vec<RowHash>> {
        let rows = self.0.convert_columns(&layout.visible(batch))?;
        let hash = |row: datafusion::arrow::row::Row<'_>| {
            let mut out = RowHash::default();
            out.copy_from_slice(&blake3::hash(row.as_ref()).as_bytes()[..16]);
            out
        };
        Ok(rows.iter().map(hash).collect())
    }
}

/// Equal rows that were there before a range.
#[derive(Debug, Clone, Copy)]
struct Before {
    count: u32,
    /// The greatest `_seq` of them.
    seq: i64,
}

/// The effect of a range of commits.
pub struct Touched {
    /// Files with the new rows of the range.
    pub new: Vec<Arc<DataFile>>,
    /// Keys to evaluate again.
    pub again: HashSet<EncodedKey>,
    /// First key columns of `again`.
    places: Places,
    /// Rows that were there before the range.
    before: HashMap<RowHash, Before>,
    /// Event timestamps of the files that the range left alone, from and to.
    beside: Vec<(Micros, Micros)>,
    hasher: Option<Hasher>,
    _memory: MemoryReservation,
}

impl Touched {
    /// Reads the files of the range; `None`: more changed than memory can hold, do a full pass.
    pub fn read<'a>(
        services: &'a Services,
        view: &'a FeatureView,
        snapshot: &'a Snapshot,
        changes: Changes,
        cx: &'a Arc<TaskContext>,
    ) -> BoxFuture<'a, Result<Option<Touched>>> {
        Box::pin(async move {
            let current: HashSet<&str> = snapshot.files().iter().map(|f| f.path.as_str()).collect();
            let added: HashSet<String> = changes.added.iter().map(|f| f.path.clone()).collect();
            let before: Vec<_> = changes.removed.into_iter().filter(|f| !added.contains(&f.path)).collect();
            let (stayed, left): (Vec<_>, Vec<_>) = changes.added.into_iter().partition(|f| current.contains(f.path.as_str()));
            // The rows of a file that OPTIMIZE has rewritten are new all the same. Where they were removed later,
            // the file that they went on in is one of `before`.
            // Any other file that came and went in the range may have been served by a writer that did not get to
            // the end of it, so its rows are no news, yet their keys have lost something.
            let (moved, passing): (Vec<_>, Vec<_>) = left.into_iter().partition(|f| changes.rewritten.contains(&f.path));
            let new = stayed.iter().cloned().chain(moved).collect();
            let memory = MemoryConsumer::new("MATERIALIZE: changed rows").register(&services.runtime.memory_pool);
            let changed: HashSet<&str> = stayed.iter().map(|f| f.path.as_str()).collect();
            let beside = snapshot.files().iter().filter(|f| !changed.contains(f.path.as_str())).map(|f| times(f, view)).collect();
            let (again, before_range) = Default::default();
            let mut touched =
                Touched { new, again, places: Places::default(), before: before_range, beside, hasher: None, _memory: memory };
            if before.is_empty() && passing.is_empty() {
                return Ok(Some(touched));
            }
            let layout = Layout::new(view, snapshot.schema())?;
            let hasher = Hasher::new(&layout, snapshot)?;
            let mut gone: HashMap<RowHash, u32> = HashMap::new();
            for (files, known) in [(&before, true), (&passing, false)] {
                let mut rows = scan(services, view, snapshot, Some(files.clone()), None, false, cx).await?;
                while let Some(batch) = rows.next().await {
                    let batch = batch?;
                    if touched._memory.try_grow(batch.num_rows() * ENTRY * 2).is_err() {
                        return Ok(None);
                    }
                    let seq = layout.seq(&batch)?;
                    for (i, h) in hasher.hashes(&layout, &batch)?.into_iter().enumerate() {
                        *gone.entry(h).or_default() += 1;
                        if known {
                            let b = touched.before.entry(h).or_insert(Before { count: 0, seq: i64::MIN });
                            *b = Before { count: b.count + 1, seq: b.seq.max(seq.value(i)) };
                        }
                    }
                }
            }
            let mut rows = scan(services, view, snapshot, Some(stayed), None, false, cx).await?;
            while let Some(batch) = rows.next().await {
                for h in hasher.hashes(&layout, &batch?)? {
                    take_one(&mut gone, &h);
                }
            }
            let files = before.into_iter().chain(passing).collect();
            let mut rows = scan(services, view, snapshot, Some(files), None, false, cx).await?;
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                if !touched.lost(&layout, &hasher, &batch, &mut gone)? {
                    return Ok(None);
                }
            }
            touched.hasher = Some(hasher);
            Ok(Some(touched))
        })
    }

    /// Notes the keys of rows that are gone; false where memory does not suffice.
    fn lost(&mut self, layout: &Layout, hasher: &Hasher, batch: &RecordBatch, gone: &mut HashMap<RowHash, u32>) -> Result<bool> {
        if gone.is_empty() {
            return Ok(true);
        }
        let hashes = hasher.hashes(layout, batch)?;
        for (i, (key, h)) in layout.keys(batch)?.into_iter().zip(&hashes).enumerate() {
            let Some(key) = key.filter(|_| take_one(gone, h)) else { continue };
            if !self.evaluate_again(layout, batch, i, key)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Marks the key of a row to be evaluated again; `false`: memory has no room for it.
    fn evaluate_again(&mut self, layout: &Layout, batch: &RecordBatch, row: usize, key: EncodedKey) -> Result<bool> {
        if self.again.contains(&key) {
            return Ok(true);
        }
        let bytes = key.stored().len() + key.full().map_or(0, <[u8]>::len) + ENTRY;
        if self._memory.try_grow(bytes).is_err() {
            return Ok(false);
        }
        if let Some(column) = layout.first_key(batch) {
            self.places.add(ScalarValue::try_from_array(column, row)?);
        }
        self.again.insert(key);
        Ok(true)
    }

    /// Marks the keys of the rows of a batch of the new files that are news; `false`: memory has no room for them.
    pub fn note_news(&mut self, layout: &Layout, batch: &RecordBatch) -> Result<bool> {
        let keys = layout.keys(batch)?;
        let news = self.offers(layout, batch, &keys, &HashSet::new())?;
        for (row, key) in keys.into_iter().enumerate() {
            let Some(key) = key.filter(|_| news.as_ref().is_none_or(|n| n.get(row) == Some(&true))) else { continue };
            if !self.evaluate_again(layout, batch, row, key)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A filter that all keys of `again` pass.
    pub fn near(&self, view: &FeatureView) -> Option<Expr> {
        self.places.filter(&ident(view.keys.first()?.name.as_str()))
    }

    /// Which rows of a batch of the new files, in the order of keys and time, are offers: new rows of keys that lost
    /// none. So is an equal row that got a later `_seq` where it may tie with another: now it may be the one that wins.
    pub fn offers(
        &mut self,
        layout: &Layout,
        batch: &RecordBatch,
        keys: &[Option<EncodedKey>],
        again: &HashSet<EncodedKey>,
    ) -> Result<Option<Vec<bool>>> {
        let Some(hasher) = &self.hasher else { return Ok(None) };
        let hashes = hasher.hashes(layout, batch)?;
        let (event, created, seq) = (layout.event(batch)?, layout.created(batch)?, layout.seq(batch)?);
        let order = |i: usize| (&keys[i], event.value(i), created.filter(|c| c.is_valid(i)).map(|c| c.value(i)));
        // what comes before and after the batch is not at hand
        let last = keys.len().saturating_sub(1);
        let neighbours = |i: usize| i == 0 || i == last || order(i) == order(i - 1) || order(i) == order(i + 1);
        let elsewhere = |i: usize| self.beside.iter().any(|(from, to)| (*from..=*to).contains(&event.value(i)));
        let mut out = Vec::with_capacity(keys.len());
        for (i, (h, key)) in hashes.iter().zip(keys).enumerate() {
            let known = match self.before.get_mut(h) {
                Some(b) if b.count > 0 => {
                    b.count -= 1;
                    seq.value(i) <= b.seq || !(neighbours(i) || elsewhere(i))
                }
                _ => false,
            };
            out.push(!known && key.as_ref().is_some_and(|k| !again.contains(k)));
        }
        Ok(Some(out))
    }
}

/// Where keys lie: their values one by one as long as they are few, by which a scan leaves out all but some pages of a
/// file that is sorted by key; else from and to which value.
#[derive(Default)]
struct Places {
    values: Vec<ScalarValue>,
    bounds: Option<(ScalarValue, ScalarValue)>,
}

impl Places {
    fn add(&mut self, v: ScalarValue) {
        if self.values.len() <= MOST_PLACES && !self.values.contains(&v) {
            self.values.push(v.clone());
        }
        self.bounds = Some(match self.bounds.take() {
            None => (v.clone(), v),
            Some((lo, hi)) if v < lo => (v, hi),
            Some((lo, hi)) if v > hi => (lo, v),
            Some(other) => other,
        });
    }

    fn filter(&self, key: &Expr) -> Option<Expr> {
        let (lo, hi) = self.bounds.clone()?;
        if self.values.len() <= MOST_PLACES {
            return self.values.iter().map(|v| key.clone().eq(lit(v.clone()))).reduce(Expr::or);
        }
        Some(key.clone().gt_eq(lit(lo)).and(key.clone().lt_eq(lit(hi))))
    }
}

/// From and to which instant a file may have rows.
fn times(file: &DataFile, view: &FeatureView) -> (Micros, Micros) {
    let at = |v: Option<&ScalarValue>| match v {
        Some(ScalarValue::TimestampMicrosecond(t, _)) => *t,
        _ => None,
    };
    let event = view.event_timestamp.as_str();
    (at(file.min(event)).unwrap_or(Micros::MIN), at(file.max(event)).unwrap_or(Micros::MAX))
}

fn take_one(counts: &mut HashMap<RowHash, u32>, h: &RowHash) -> bool {
    match counts.get_mut(h) {
        None => false,
        Some(1) => counts.remove(h).is_some(),
        Some(n) => {
            *n -= 1;
            true
        }
    }
}
