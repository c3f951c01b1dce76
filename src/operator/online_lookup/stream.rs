use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, RecordOutput};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};

use super::LookupContext;
use super::windows::WindowReader;
use crate::clock::{self, Micros, stopwatch};
use crate::config::OnlineSettings;
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::codec::row::RowKind;
use crate::model::codec::{EncodedKey, Row, RowDecoder, cast_to_key_types, encode_keys, key};
use crate::model::live::{is_live, narrow};
use crate::model::types::quote;
use crate::plan::online_lookup::{LookupItem, NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, OVER_LIMIT, PRESENT};
use crate::store::online::{KeysOf, OnlineStore, OnlineView, RowsOf};
use crate::telemetry;

/// One partition of a running lookup.
pub(super) struct Lookup {
    context: Arc<dyn LookupContext>,
    store: Arc<dyn OnlineStore>,
    settings: OnlineSettings,
    items: Arc<[Item]>,
    at: Instant,
    schema: SchemaRef,
    /// Time spent waiting for the store.
    waited: Duration,
    rows: usize,
    /// Per item the generation that the batches before were read from.
    generations: Vec<Option<Option<u32>>>,
    memory: MemoryReservation,
    /// Of the plan, where one runs.
    metrics: Option<Metrics>,
}

/// The instant at which rows are judged.
#[derive(Debug, Clone, Copy)]
pub(super) enum Instant {
    /// One that was asked for: what came later is not there.
    Asked(Micros),
    /// This reading of the clock. What is stored was known to somebody's clock already, so a row that is later than ours is
    /// judged at its own time: clocks that differ hide nothing.
    Now(Micros),
}

impl Instant {
    fn micros(self) -> Micros {
        match self {
            Instant::Asked(at) | Instant::Now(at) => at,
        }
    }

    /// For what is stored with its newest event at `newest`.
    fn for_event(self, newest: Micros) -> Micros {
        match self {
            Instant::Asked(at) => at,
            Instant::Now(at) => at.max(newest),
        }
    }
}

struct Metrics {
    baseline: BaselineMetrics,
    lookups: Count,
    keys: Count,
    hits: Count,
    round_trips: Count,
}

#[derive(Debug)]
pub(super) struct Item {
    view: Arc<FeatureView>,
    online: OnlineView,
    key_inputs: Vec<usize>,
    reads: Reads,
    schemas: Vec<u32>,
}

/// How an item's stored rows become columns.
#[derive(Debug)]
enum Reads {
    Latest(RowDecoder),
    Windows(WindowReader),
}

/// The distinct keys of a batch, and which of them each row asks for.
struct Requested {
    keys: Vec<EncodedKey>,
    /// Index into `keys`; `keys.len()` for a NULL key.
    slots: Vec<u32>,
}

impl Requested {
    fn new(encoded: Vec<Option<EncodedKey>>) -> Self {
        let mut seen: HashMap<EncodedKey, u32> = HashMap::with_capacity(encoded.len());
        let mut slots = Vec::with_capacity(encoded.len());
        for key in encoded {
            slots.push(match key {
                Some(key) => {
                    let next = seen.len() as u32;
                    *seen.entry(key).or_insert(next)
                }
                None => u32::MAX,
            });
        }
        let count = seen.len() as u32;
        slots.iter_mut().for_each(|s| *s = (*s).min(count));
        let mut keys: Vec<_> = seen.into_iter().collect();
        keys.sort_unstable_by_key(|(_, slot)| *slot);
        Requested { keys: keys.into_iter().map(|(key, _)| key).collect(), slots }
    }

    /// Values per slot as values per row.
    fn expand(&self, values: ArrayRef) -> Result<ArrayRef> {
        if self.slots.iter().enumerate().all(|(row, slot)| row == *slot as usize) {
            return Ok(values.slice(0, self.slots.len()));
        }
        Ok(take(&values, &UInt32Array::from(self.slots.clone()), None)?)
    }
}

impl Lookup {
    pub fn new(
        context: &Arc<dyn LookupContext>,
        items: Arc<[Item]>,
        at: Instant,
        schema: SchemaRef,
        pool: &Arc<dyn MemoryPool>,
        metrics: Option<(&ExecutionPlanMetricsSet, usize)>,
    ) -> Self {
        let metrics = metrics.map(|(set, partition)| {
            let counter = |name: &'static str| MetricBuilder::new(set).counter(name, partition);
            Metrics {
                baseline: BaselineMetrics::new(set, partition),
                lookups: counter("lookups"),
                keys: counter("keys"),
                hits: counter("hits"),
                round_trips: counter("store_round_trips"),
            }
        });
        Lookup {
            context: Arc::clone(context),
            store: context.store(),
            settings: context.settings(),
            generations: vec![None; items.len()],
            items,
            at,
            schema,
            waited: Duration::ZERO,
            rows: 0,
            memory: MemoryConsumer::new("OnlineLookup").register(pool),
            metrics,
        }
    }

    pub fn stream(self, input: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let batches = stream::try_unfold((self, input), |(mut lookup, mut input)| async move {
            let Some(batch) = input.next().await.transpose()? else { return Ok(None) };
            Ok::<_, DataFusionError>(Some((lookup.next(&batch).await?, (lookup, input))))
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, batches.into_stream()))
    }

    /// The answer to one batch.
    pub async fn next(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let watch = stopwatch();
        let out = self.batch(batch).await.inspect_err(|_| metrics::counter!(telemetry::LOOKUP_ERRORS).increment(1))?;
        metrics::counter!(telemetry::LOOKUPS).increment(1);
        metrics::histogram!(telemetry::LOOKUP_SECONDS).record(watch.elapsed().as_secs_f64());
        Ok(out)
    }

    async fn batch(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        self.rows += batch.num_rows();
        if self.rows > self.settings.max_keys {
            return Err(Error::exhausted(format!("a lookup may ask for {} keys at most", self.settings.max_keys))
                .with_hint("ask in several lookups, or use an ASOF JOIN for bulk reads"));
        }
        let requested = self.items.iter().map(|i| i.requested(batch)).collect::<Result<Vec<_>>>()?;
        let key_bytes: usize = requested.iter().flat_map(|r| &r.keys).map(|k| k.stored().len() + size_of::<EncodedKey>()).sum();
        self.memory.try_resize(key_bytes)?;
        let found = self.read(&requested).await?;
        self.check_generations(&found)?;
        let row_bytes: usize = found.iter().flat_map(|f| &f.rows).flatten().map(|r| r.len()).sum();
        // Rows as stored, and once more as columns.
        self.memory.try_resize(key_bytes + 2 * row_bytes)?;

        let mut columns = batch.columns().to_vec();
        for ((item, requested), found) in self.items.iter().zip(&requested).zip(&found) {
            if found.pointer.is_none() {
                let empty = self.in_time(self.context.table_is_empty(&item.view)).await??;
                never_online(&item.view, empty, self.context.is_current(&item.view).await?)?;
            }
            let (arrays, hits) =
                item.columns(requested, found, self.at).map_err(|e| e.context(format!("feature view {}", item.view.name)))?;
            if let Some(metrics) = &self.metrics {
                metrics.hits.add(hits);
            }
            columns.extend(arrays);
        }
        let at = TimestampMicrosecondArray::from_value(self.at.micros(), batch.num_rows());
        columns.push(Arc::new(at.with_timezone("UTC")));
        let out = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.memory.free();
        Ok(match &self.metrics {
            Some(metrics) => {
                metrics.lookups.add(batch.num_rows());
                out.record_output(&metrics.baseline)
            }
            None => out,
        })
    }

    /// Rows that are answered already are of the generations of their time: what follows must be of the same.
    fn check_generations(&mut self, found: &[RowsOf]) -> Result<()> {
        for ((item, found), before) in self.items.iter().zip(found).zip(&mut self.generations) {
            let now = found.pointer.as_ref().map(|p| p.generation);
            if *before.get_or_insert(now) != now {
                return Err(Error::conflict(format!("feature view {} was loaded anew while the statement read it", item.view.name))
                    .with_hint("run the statement again"));
            }
        }
        Ok(())
    }

    /// What is left of the deadline is the work's.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let deadline = Duration::from_micros(self.settings.lookup_deadline.max(0) as u64);
        clock::timeout(deadline.saturating_sub(self.waited), work).await.map_err(|_| {
            let views: Vec<String> = self.items.iter().map(|i| i.view.name.to_string()).collect();
            Error::unavailable(format!(
                "{}: the online store {} did not answer within {} ms",
                views.join(", "),
                self.store.describe(),
                deadline.as_millis()
            ))
            .with_hint("try again; online_settings.lookup_deadline says how long a lookup may take")
        })
    }

    async fn read(&mut self, requested: &[Requested]) -> Result<Vec<RowsOf>> {
        let requests: Vec<_> = self
            .items
            .iter()
            .zip(requested)
            .map(|(item, r)| KeysOf { view: &item.online, keys: r.keys.iter().map(EncodedKey::stored).collect() })
            .collect();
        let watch = stopwatch();
        let answer = self.in_time(self.store.get_batch(&requests)).await;
        let took = watch.elapsed();
        self.waited += took;
        let keys = requests.iter().map(|r| r.keys.len()).sum();
        if let Some(metrics) = &self.metrics {
            metrics.round_trips.add(1);
            metrics.keys.add(keys);
        }
        metrics::counter!(telemetry::STORE_ROUND_TRIPS).increment(1);
        metrics::histogram!(telemetry::STORE_SECONDS).record(took.as_secs_f64());
        metrics::counter!(telemetry::LOOKUP_KEYS).increment(keys as u64);
        let found = answer??;
        let whole = found.len() == requests.len() && found.iter().zip(&requests).all(|(f, r)| f.rows.len() == r.keys.len());
        if whole { Ok(found) } else { Err(Error::internal(format!("the online store {} left keys out", self.store.describe()))) }
    }
}

impl Item {
    pub fn all(items: &[LookupItem], context: &dyn LookupContext) -> Result<Arc<[Item]>> {
        items.iter().map(|i| Item::new(i, context)).collect()
    }

    fn new(item: &LookupItem, context: &dyn LookupContext) -> Result<Self> {
        let schemas = context.row_schemas(&item.view);
        let reads = match &item.view.windowed {
            Some(windowed) => Reads::Windows(WindowReader::new(windowed, &item.features, context.settings().max_window_events)?),
            None => Reads::Latest(RowDecoder::new(&schemas, &item.columns())?),
        };
        Ok(Item {
            view: Arc::clone(&item.view),
            online: context.online_view(&item.view),
            key_inputs: item.key_inputs.clone(),
            reads,
            schemas: schemas.into_iter().map(|(id, _)| id).collect(),
        })
    }

    fn requested(&self, batch: &RecordBatch) -> Result<Requested> {
        let columns: Vec<_> = self.key_inputs.iter().map(|i| Arc::clone(batch.column(*i))).collect();
        let columns = cast_to_key_types(&columns, &self.view.keys)?;
        Ok(Requested::new(encode_keys(&columns)?))
    }

    /// Features, event timestamp and status per input row, and how many rows were live.
    fn columns(&self, requested: &Requested, found: &RowsOf, at: Instant) -> Result<(Vec<ArrayRef>, usize)> {
        let mut ttl = self.view.ttl;
        if let Some(pointer) = &found.pointer {
            if !self.schemas.contains(&pointer.schema_id) {
                return Err(Error::conflict(format!("its rows have schema {}, which this catalog does not know", pointer.schema_id))
                    .with_hint("try again; if it persists, MATERIALIZE it"));
            }
            // A TTL made longer reaches further back only when the rows are loaded anew.
            ttl = narrow(ttl, pointer.ttl);
        }
        let answered = match &self.reads {
            Reads::Latest(decoder) => latest(decoder, requested, found, at, ttl)?,
            Reads::Windows(reader) => reader.read(&requested.keys, &found.rows, &|newest| at.for_event(newest), at.micros())?,
        };
        count(&requested.slots, &answered.status);
        let hits = requested.slots.iter().filter(|s| answered.times[**s as usize].is_some()).count();
        let mut arrays = answered.values;
        arrays.push(Arc::new(TimestampMicrosecondArray::from(answered.times).with_timezone("UTC")));
        arrays.push(Arc::new(StringArray::from(answered.status)));
        Ok((arrays.into_iter().map(|a| requested.expand(a)).collect::<Result<_>>()?, hits))
    }
}

/// The answer per distinct key, and last that to a NULL key.
pub(super) struct Answered {
    pub values: Vec<ArrayRef>,
    pub times: Vec<Option<Micros>>,
    pub status: Vec<&'static str>,
}

/// What a key is called in an error.
pub(super) fn key_name(keys: &[EncodedKey], slot: usize) -> String {
    keys.get(slot).map_or(String::new(), |k| key::display(k.stored()))
}

/// The features of live rows.
fn latest(decoder: &RowDecoder, requested: &Requested, found: &RowsOf, at: Instant, ttl: Option<Micros>) -> Result<Answered> {
    let name = |slot: usize| key_name(&requested.keys, slot);
    // The last slot stands for NULL keys.
    let mut rows = vec![None; requested.keys.len() + 1];
    let mut status = vec![NOT_FOUND; rows.len()];
    for (slot, (key, bytes)) in requested.keys.iter().zip(&found.rows).enumerate() {
        let Some(bytes) = bytes else { continue };
        let row = Row::parse(bytes).and_then(|r| r.of_kind(RowKind::Latest)).map_err(|e| e.context(format!("key {}", name(slot))))?;
        let at = at.for_event(row.prefix.event_ts);
        if row.tombstone || !row.belongs_to(key) || row.prefix.event_ts > at {
            continue;
        }
        if is_live(row.prefix.event_ts, at, ttl) {
            status[slot] = PRESENT;
            rows[slot] = Some(row);
        } else {
            status[slot] = OUTSIDE_MAX_AGE;
        }
    }
    let values = decoder.decode(&rows, name)?;
    for (slot, s) in status.iter_mut().enumerate() {
        if *s == PRESENT && !values.is_empty() && values.iter().all(|a| a.is_null(slot)) {
            *s = NULL_VALUE;
        }
    }
    let times = rows.iter().map(|r| r.map(|r| r.prefix.event_ts)).collect();
    Ok(Answered { values, times, status })
}

/// Refuses a view of which nothing was ever brought online. Only of a push view without rows is there nothing to bring.
/// `current`: the bare name means this version.
pub fn never_online(view: &FeatureView, empty: bool, current: bool) -> Result<()> {
    if view.is_push() && empty {
        return Ok(());
    }
    let (shown, name) = match current {
        true => (view.name.to_string(), format!("{}.{}", quote(&view.name.schema), quote(&view.name.name))),
        false => (view.versioned_name(), view.quoted_name()),
    };
    let first = if view.is_push() || !empty { String::new() } else { format!("REFRESH FEATURE VIEW {name}; ") };
    Err(Error::invalid(format!("feature view {shown} was never materialized")).with_hint(format!("{first}MATERIALIZE FEATURE VIEW {name}")))
}

fn count(slots: &[u32], status: &[&'static str]) {
    let all = [
        (PRESENT, "present"),
        (NULL_VALUE, "null_value"),
        (NOT_FOUND, "not_found"),
        (OUTSIDE_MAX_AGE, "outside_max_age"),
        (OVER_LIMIT, "over_limit"),
    ];
    for (name, label) in all {
        let n = slots.iter().filter(|s| status[**s as usize] == name).count();
        if n > 0 {
            metrics::counter!(telemetry::LOOKUP_STATUS, "status" => label).increment(n as u64);
        }
    }
}
