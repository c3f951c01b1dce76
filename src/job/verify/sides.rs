//! The two sides of the law as our own statements: what training reads, and what serving answers.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};

use crate::catalog::CatalogSnapshot;
use crate::clock::{Clock, DAY, Micros, format_micros};
use crate::config::OnlineSettings;
use crate::error::{Error, Kind, Result};
use crate::model::live::narrow;
use crate::model::windowed::EVENTS;
use crate::model::{Column, FeatureView, Name};
use crate::operator::online_lookup::{LookupContext, LookupHandle, never_online};
use crate::resolve::effects::Effects;
use crate::resolve::planner::{plan_sql, state};
use crate::resolve::resolver::{Resolver, Scope};
use crate::services::{Services, lookups};
use crate::store::online::{OnlineStore, OnlineView, Pointer};

/// The relation that brings the keys asked for.
const KEYS: &str = "_remige_keys";
/// Its column that numbers them.
const ROW: &str = "_remige_row";
/// Keys asked for in one lookup.
const LOOKUP_ROWS: usize = 1_000;
/// Keys whose rows cannot be read, after which the fault is the store's.
const UNREADABLE: usize = 100;
/// Looks at the pointer and at what it points to, while others switch it.
const LOOKS: usize = 5;

/// What is online and what is stored, at one moment.
#[derive(Debug, Clone)]
pub struct Seen {
    /// With the TTLs that the store serves by.
    pub catalog: Arc<CatalogSnapshot>,
    pub at: Micros,
    pub views: Vec<SeenView>,
}

#[derive(Debug, Clone)]
pub struct SeenView {
    pub view: Arc<FeatureView>,
    /// `None`: never published, as of a push view without rows.
    pub pointer: Option<Pointer>,
    /// The Delta version that is online.
    pub online: u64,
    pub offline: u64,
    /// The TTL is longer than the one that is served.
    pub longer_ttl: bool,
}

impl SeenView {
    pub fn lag(&self) -> u64 {
        self.offline.saturating_sub(self.online)
    }

    /// Delta versions to read.
    pub fn pins(&self, version: u64) -> HashMap<String, u64> {
        HashMap::from([(self.view.location.clone(), version)])
    }
}

/// A lookup of VERIFY is bulk work: it may take longer than one that a model waits for.
#[derive(Debug)]
struct Patient(Arc<dyn LookupContext>);

#[async_trait]
impl LookupContext for Patient {
    fn store(&self) -> Arc<dyn OnlineStore> {
        self.0.store()
    }
    fn clock(&self) -> Clock {
        self.0.clock()
    }
    fn settings(&self) -> OnlineSettings {
        OnlineSettings { lookup_deadline: DAY, max_keys: usize::MAX, ..self.0.settings() }
    }
    fn online_view(&self, view: &FeatureView) -> OnlineView {
        self.0.online_view(view)
    }
    async fn table_is_empty(&self, view: &FeatureView) -> Result<bool> {
        self.0.table_is_empty(view).await
    }
    async fn is_current(&self, view: &FeatureView) -> Result<bool> {
        self.0.is_current(view).await
    }
    fn row_schemas(&self, view: &FeatureView) -> Vec<(u32, Vec<Column>)> {
        self.0.row_schemas(view)
    }
}

/// The rows that a lookup answers, by number of the key asked for.
pub struct Answers {
    rows: Option<RecordBatch>,
    at: Vec<std::result::Result<u32, String>>,
}

impl Answers {
    /// Columns of the rows of some keys, NULLs where a row could not be read.
    pub fn columns(&self, of: &[usize]) -> Result<Option<Vec<ArrayRef>>> {
        let Some(rows) = &self.rows else { return Ok(None) };
        let at: UInt32Array = of.iter().map(|i| self.at.get(*i).and_then(|a| a.as_ref().ok().copied())).collect();
        Ok(Some(rows.columns().iter().map(|c| take(c, &at, None)).collect::<std::result::Result<_, _>>()?))
    }

    pub fn unreadable(&self, of: &[usize]) -> Vec<Option<String>> {
        of.iter().map(|i| self.at.get(*i).and_then(|a| a.as_ref().err().cloned())).collect()
    }
}

pub struct Both {
    services: Arc<Services>,
    effects: Arc<dyn Effects>,
    handle: Arc<LookupHandle>,
}

impl Both {
    pub fn new<'a>(resolver: &'a Resolver) -> BoxFuture<'a, Result<Self>> {
        Box::pin(async move {
            let services = &resolver.services;
            let handle = lookups(services).await?;
            let handle = Arc::new(LookupHandle(Arc::new(Patient(Arc::clone(&handle.0)))));
            Ok(Both { services: Arc::clone(services), effects: resolver.effects(), handle })
        })
    }

    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Looks at both sides now.
    pub fn look<'a>(&'a self, views: &'a [Arc<FeatureView>]) -> BoxFuture<'a, Result<Seen>> {
        Box::pin(async move {
            let catalog = self.services.registry.snapshot().await?;
            let at = self.services.clock.now();
            self.look_at(catalog, at, views).await
        })
    }

    /// Looks at both sides with a catalog, for an instant.
    pub fn look_at<'a>(&'a self, catalog: Arc<CatalogSnapshot>, at: Micros, views: &'a [Arc<FeatureView>]) -> BoxFuture<'a, Result<Seen>> {
        Box::pin(async move {
            let mut catalog = catalog;
            let mut seen = vec![];
            for view in views {
                let view = match catalog.feature_view(&view.name, Some(view.version)) {
                    Ok(now) if now.online_id == view.online_id => Arc::new(now.clone()),
                    _ => return Err(Error::not_found(format!("feature view {} was dropped meanwhile", view.versioned_name()))),
                };
                let one = self.look_one(view).await?;
                let served = one.pointer.as_ref().map_or(one.view.ttl, |p| narrow(one.view.ttl, p.ttl));
                if served != one.view.ttl {
                    let catalog = Arc::make_mut(&mut catalog);
                    if let Some(v) =
                        catalog.feature_views.get_mut(&one.view.name).and_then(|s| Arc::make_mut(s).versions.get_mut(&one.view.version))
                    {
                        v.ttl = served;
                    }
                }
                let longer_ttl = served != one.view.ttl;
                seen.push(SeenView { view: Arc::new(FeatureView { ttl: served, ..one.view.as_ref().clone() }), longer_ttl, ..one });
            }
            Ok(Seen { catalog, at, views: seen })
        })
    }

    fn look_one(&self, view: Arc<FeatureView>) -> BoxFuture<'_, Result<SeenView>> {
        Box::pin(async move {
            let (store, id) = (self.services.online().await?, self.services.online_view(&view));
            let name = &view.name;
            let again = |what: &str, full: &str| {
                Err(Error::invalid(format!("feature view {}: {what}", view.versioned_name()))
                    .with_hint(format!("MATERIALIZE FEATURE VIEW {name}{full}")))
            };
            for _ in 0..LOOKS {
                let pointer = store.pointer(&id).await?;
                let online = match &pointer {
                    Some(p) => store.watermark(&id, p.generation).await?,
                    None => None,
                };
                if store.pointer(&id).await?.map(|p| p.generation) != pointer.as_ref().map(|p| p.generation) {
                    continue;
                }
                let table = self.services.store.snapshot(&view.location, None).await?;
                let offline = table.version();
                let online = match (&pointer, online) {
                    (None, _) => {
                        never_online(&view, table.files().is_empty(), self.handle.0.is_current(&view).await?)?;
                        offline
                    }
                    (Some(_), None) => return again("the online store has lost its watermark", ""),
                    (Some(_), Some(v)) if v > offline => {
                        return again("the online rows are of a version that the table does not have", " FULL");
                    }
                    (Some(_), Some(v)) => v,
                };
                return Ok(SeenView { view, pointer, online, offline, longer_ttl: false });
            }
            Err(Error::conflict(format!("feature view {}: its generation was switched {LOOKS} times meanwhile", view.versioned_name()))
                .with_hint("try again"))
        })
    }

    fn resolver(&self, seen: &Seen, schema: &str, pins: HashMap<String, u64>) -> Arc<Resolver> {
        // notices of these statements are none of the user's
        let scope = Scope {
            schema: schema.to_string(),
            instant: seen.at,
            parameters: vec![],
            notices: Default::default(),
            pins,
            effects: Arc::clone(&self.effects),
        };
        Resolver::new(Arc::clone(&self.services), Arc::clone(&seen.catalog), scope)
    }

    /// Plans and runs a statement of ours as a user's.
    fn rows<'a>(&'a self, resolver: &'a Arc<Resolver>, sql: &'a str) -> BoxFuture<'a, Result<SendableRecordBatchStream>> {
        Box::pin(async move {
            let plan = plan_sql(resolver, crate::sql::parse::statement(sql)?, &resolver.schema).await?;
            let mut state = state(resolver, &resolver.schema)?;
            state.config_mut().set_extension(Arc::clone(&self.handle));
            let physical = state.create_physical_plan(&plan).await?;
            crate::services::stall::execute(&self.services, physical, Arc::new(TaskContext::from(&state)))
        })
    }

    /// Rows of training: keys, number of the key asked for, newest and live event timestamp, features.
    /// `keys`: only these; `None`: all that the table holds at `version`.
    pub fn offline<'a>(
        &'a self,
        seen: &'a Seen,
        one: &'a SeenView,
        version: u64,
        keys: Option<&'a RecordBatch>,
    ) -> BoxFuture<'a, Result<SendableRecordBatchStream>> {
        Box::pin(async move {
            let resolver = self.resolver(seen, &one.view.name.schema, one.pins(version));
            if let Some(keys) = keys {
                provide(&resolver, keys)?;
            }
            self.rows(&resolver, &training(&one.view, keys.is_some(), seen.at)).await.map_err(too_old(&one.view, version))
        })
    }

    /// All keys at a version.
    pub fn keys<'a>(&'a self, seen: &'a Seen, one: &'a SeenView, version: u64) -> BoxFuture<'a, Result<SendableRecordBatchStream>> {
        Box::pin(async move {
            let resolver = self.resolver(seen, &one.view.name.schema, one.pins(version));
            self.rows(&resolver, &distinct(&one.view, "")).await.map_err(too_old(&one.view, version))
        })
    }

    /// Keys that an older version holds and the one that is online does not.
    pub fn gone<'a>(&'a self, seen: &'a Seen, one: &'a SeenView, older: u64) -> BoxFuture<'a, Result<SendableRecordBatchStream>> {
        Box::pin(async move {
            let resolver = self.resolver(seen, &one.view.name.schema, one.pins(one.online));
            let (then, now) = (distinct(&one.view, &format!(" VERSION AS OF {older}")), distinct(&one.view, ""));
            self.rows(&resolver, &format!("{then} EXCEPT {now}")).await
        })
    }

    /// Rows of serving: features, status, event timestamp; a service: outputs, then these two per item.
    /// `target` as a statement names it.
    pub fn online<'a>(
        &'a self,
        seen: &'a Seen,
        target: &'a Name,
        version: Option<u32>,
        keys: &'a RecordBatch,
    ) -> BoxFuture<'a, Result<Answers>> {
        Box::pin(async move {
            let mut answers = Answers { rows: None, at: Vec::with_capacity(keys.num_rows()) };
            let mut parts = vec![];
            let mut found = 0;
            let mut failed = 0;
            // parts to ask for, the next one last
            let mut open: Vec<(usize, usize)> =
                (0..keys.num_rows()).step_by(LOOKUP_ROWS).map(|at| (at, LOOKUP_ROWS.min(keys.num_rows() - at))).collect();
            open.reverse();
            while let Some((at, len)) = open.pop() {
                match self.lookup(seen, target, version, &keys.slice(at, len)).await {
                    Ok(rows) => {
                        answers.at.extend((0..len).map(|i| Ok((found + i) as u32)));
                        found += len;
                        parts.push(rows);
                    }
                    // damaged bytes under one key: look for it
                    Err(e) if e.kind() == Kind::Internal && failed < UNREADABLE => match len {
                        1 => {
                            failed += 1;
                            answers.at.push(Err(e.message().to_string()));
                        }
                        _ => open.extend([(at + len / 2, len - len / 2), (at, len / 2)]),
                    },
                    Err(e) => return Err(e),
                }
            }
            if let Some(first) = parts.first() {
                answers.rows = Some(concat_batches(&first.schema(), &parts)?);
            }
            Ok(answers)
        })
    }

    fn lookup<'a>(
        &'a self,
        seen: &'a Seen,
        target: &'a Name,
        version: Option<u32>,
        keys: &'a RecordBatch,
    ) -> BoxFuture<'a, Result<RecordBatch>> {
        Box::pin(async move {
            let resolver = self.resolver(seen, &target.schema, HashMap::new());
            provide(&resolver, keys)?;
            let name = named(target, version).replace('\'', "''");
            let at = format_micros(seen.at);
            let sql = format!("SELECT * FROM ONLINE_LOOKUP('{name}', (SELECT * FROM {KEYS}), status => true, at => TIMESTAMP '{at}')");
            let rows = self.rows(&resolver, &sql).await?;
            let schema = rows.schema();
            let rows: Vec<_> = rows.try_collect().await?;
            let all = concat_batches(&schema, &rows)?;
            if all.num_rows() != keys.num_rows() {
                return Err(Error::invalid(format!("a lookup of {} keys answered {} rows", keys.num_rows(), all.num_rows())));
            }
            // the keys come back first
            let asked = keys.num_columns();
            Ok(all.project(&(asked..all.num_columns()).collect::<Vec<_>>())?)
        })
    }

    /// A service's outputs in training, in the order of `keys`.
    pub fn service<'a>(
        &'a self,
        seen: &'a Seen,
        service: &'a Name,
        pins: HashMap<String, u64>,
        keys: &'a RecordBatch,
    ) -> BoxFuture<'a, Result<RecordBatch>> {
        Box::pin(async move {
            let resolver = self.resolver(seen, &service.schema, pins);
            provide(&resolver, keys)?;
            let at = format_micros(seen.at);
            let sql = format!(
                "SELECT l.{ROW} AS _remige_number, s.* FROM (SELECT *, TIMESTAMP '{at}' AS _remige_at FROM {KEYS}) l \
                 ASOF JOIN {} s AT l._remige_at",
                named(service, None)
            );
            let rows = self.rows(&resolver, &sql).await?;
            let schema = rows.schema();
            let rows: Vec<_> = rows.try_collect().await?;
            in_order(&concat_batches(&schema, &rows)?)
        })
    }
}

/// Rows by their number, which is the first column and is left out.
fn in_order(rows: &RecordBatch) -> Result<RecordBatch> {
    use datafusion::arrow::compute::{sort_to_indices, take_record_batch};
    let order = sort_to_indices(rows.column(0), None, None)?;
    let sorted = take_record_batch(rows, &order)?;
    Ok(sorted.project(&(1..sorted.num_columns()).collect::<Vec<_>>())?)
}

/// Numbers of the keys that rows are of.
pub fn numbers(column: &ArrayRef) -> Result<Vec<usize>> {
    let numbers = column.as_any().downcast_ref::<Int64Array>().ok_or_else(|| Error::internal("VERIFY: a row has no number"))?;
    Ok(numbers.values().iter().map(|n| usize::try_from(*n).unwrap_or(usize::MAX)).collect())
}

/// Keys as a relation.
pub fn keys_of(columns: &[Column], arrays: Vec<ArrayRef>) -> Result<RecordBatch> {
    let fields: Vec<_> = columns.iter().map(|c| Field::new(&c.name, c.data_type.arrow().clone(), true)).collect();
    let arrays = columns
        .iter()
        .zip(arrays)
        .map(|(c, a)| Ok(if a.data_type() == c.data_type.arrow() { a } else { datafusion::arrow::compute::cast(&a, c.data_type.arrow())? }))
        .collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

fn provide(resolver: &Resolver, keys: &RecordBatch) -> Result<()> {
    let mut fields: Vec<_> = keys.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ROW, DataType::Int64, false)));
    let mut columns = keys.columns().to_vec();
    columns.push(Arc::new(Int64Array::from_iter_values(0..keys.num_rows() as i64)));
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    resolver.provide(&resolver.schema, KEYS, Arc::new(MemTable::try_new(schema, vec![vec![batch]])?));
    Ok(())
}

fn too_old(view: &FeatureView, version: u64) -> impl Fn(Error) -> Error {
    let name = view.name.to_string();
    move |e| match e.kind() {
        Kind::NotFound => {
            e.context(format!("version {version}, which is online, cannot be read")).or_hint(&format!("MATERIALIZE FEATURE VIEW {name}"))
        }
        _ => e,
    }
}

/// Always in quotes: a name may be a word of SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn named(name: &Name, version: Option<u32>) -> String {
    let version = version.map_or(String::new(), |v| format!("@v{v}"));
    format!("{}.{}", quoted(&name.schema), quoted(&format!("{}{version}", name.name)))
}

fn list(columns: impl Iterator<Item = String>) -> String {
    columns.collect::<Vec<_>>().join(", ")
}

/// The keys of a view, which foreign writers may have made NULL.
fn distinct(view: &FeatureView, travel: &str) -> String {
    let keys: Vec<_> = view.keys.iter().map(|k| quoted(&k.name)).collect();
    let given = keys.iter().map(|k| format!("{k} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
    // of windows the keys are those of the events
    let events = if view.windowed.is_some() { EVENTS } else { "" };
    let table = Name::new(&view.name.schema, format!("{}{events}", view.name.name));
    format!("SELECT DISTINCT {} FROM {}{travel} WHERE {given}", keys.join(", "), named(&table, Some(view.version)))
}

fn training(view: &FeatureView, given: bool, at: Micros) -> String {
    let keys: Vec<_> = view.keys.iter().map(|k| quoted(&k.name)).collect();
    let (table, event, at) = (named(&view.name, Some(view.version)), quoted(&view.event_timestamp), format_micros(at));
    let of = |alias: &str| list(keys.iter().map(|k| format!("{alias}.{k}")));
    let labels = match given {
        true => format!("SELECT k.*, TIMESTAMP '{at}' AS _remige_at FROM {KEYS} k"),
        false => format!("SELECT k.*, CAST(0 AS BIGINT) AS {ROW}, TIMESTAMP '{at}' AS _remige_at FROM ({}) k", distinct(view, "")),
    };
    // as a plain table the view has no TTL
    let (labels, newest) = match view.ttl {
        None => (labels, format!("f.{event}")),
        Some(_) => {
            let equal = keys.iter().map(|k| format!("x.{k} = p.{k}")).collect::<Vec<_>>().join(" AND ");
            let labels = format!(
                "SELECT {}, x.{ROW}, x._remige_at, p.{event} AS _remige_newest FROM ({labels}) x \
                 ASOF JOIN (SELECT {}, {event} FROM {table}) p MATCH_CONDITION (x._remige_at >= p.{event}) ON {equal}",
                of("x"),
                keys.join(", "),
            );
            (labels, "l._remige_newest".to_string())
        }
    };
    let named_keys = list(keys.iter().enumerate().map(|(i, k)| format!("l.{k} AS _remige_k{i}")));
    let features = list(view.features.iter().enumerate().map(|(i, f)| format!("f.{} AS _remige_f{i}", quoted(&f.name))));
    format!(
        "SELECT {named_keys}, l.{ROW} AS _remige_number, {newest} AS _remige_last, f.{event} AS _remige_live, {features} \
         FROM ({labels}) l ASOF JOIN {table} f AT l._remige_at"
    )
}

/// Collects a stream of keys into what draws from it.
pub fn each<'a>(
    mut rows: SendableRecordBatchStream,
    mut take: impl FnMut(&[ArrayRef]) -> Result<()> + Send + 'a,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        while let Some(batch) = rows.next().await {
            take(batch?.columns())?;
            tokio::task::consume_budget().await;
        }
        Ok(())
    })
}
