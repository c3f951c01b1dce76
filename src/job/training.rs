//! Training sets: a stored result and the manifest that can make it again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::pins;
use crate::catalog::ddl::{Ddl, Released, released};
use crate::catalog::is_undone;
use crate::catalog::{CatalogChange, CatalogSnapshot, PutMode};
use crate::clock::new_id;
use crate::error::{Error, Result};
use crate::model::codec::RowEncoder;
use crate::model::types::ColumnType;
use crate::model::{Column, Manifest, Name, PinnedFile, PinnedTable, TrainingSet};
use crate::plan::answers;
use crate::plan::command::TrainingSetSpec;
use crate::plan::names::Names;
use crate::resolve::planner;
use crate::resolve::resolver::{Resolver, Scope};
use crate::resolve::source;
use crate::table::managed;
use crate::table::write::stream_of;

const ENGINE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A hash of a table's content, whatever the order of its rows: the columns' names and types, the number
/// of rows, and the sum and the exclusive or of the rows' own hashes.
struct ContentHash {
    columns: String,
    encoder: RowEncoder,
    rows: u64,
    sum: u128,
    xor: u128,
}

impl ContentHash {
    /// For batches of stored types.
    fn new(schema: &Schema) -> Result<Self> {
        let columns = schema
            .fields()
            .iter()
            .map(|f| Ok(Column { name: f.name().clone(), data_type: ColumnType::stored(f.data_type())? }))
            .collect::<Result<Vec<_>>>()?;
        // lengths in front, so that no two lists of columns read alike
        let text = columns.iter().map(|c| format!("{}:{}{};", c.name.len(), c.name, c.data_type)).collect();
        Ok(ContentHash { columns: text, encoder: RowEncoder::new(0, &columns), rows: 0, sum: 0, xor: 0 })
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        for body in self.encoder.bodies(batch.columns())? {
            let mut half = [0; 16];
            half.copy_from_slice(&blake3::hash(&body).as_bytes()[..16]);
            let h = u128::from_be_bytes(half);
            self.sum = self.sum.wrapping_add(h);
            self.xor ^= h;
            self.rows += 1;
        }
        Ok(())
    }

    fn hex(&self) -> String {
        let mut all = blake3::Hasher::new();
        all.update(self.columns.as_bytes());
        all.update(&self.rows.to_be_bytes());
        all.update(&self.sum.to_be_bytes());
        all.update(&self.xor.to_be_bytes());
        all.finalize().to_hex().to_string()
    }
}

/// Casts a result to its stored types and hashes what passes.
fn hashed(mut rows: SendableRecordBatchStream, schema: &SchemaRef, hash: &Arc<Mutex<ContentHash>>) -> SendableRecordBatchStream {
    let (out, schema, hash) = (Arc::clone(schema), Arc::clone(schema), Arc::clone(hash));
    let next = futures::stream::poll_fn(move |cx| rows.poll_next_unpin(cx)).map(move |batch| {
        let batch = managed::stored(&batch?, &schema)?;
        hash.lock().add(&batch)?;
        Ok(batch)
    });
    stream_of(out, next)
}

/// Stores the rows and commits the training set; answers their number.
pub fn create<'a>(resolver: &'a Arc<Resolver>, spec: &'a TrainingSetSpec, rows: SendableRecordBatchStream) -> BoxFuture<'a, Result<u64>> {
    Box::pin(async move {
        let services = &resolver.services;
        let what = || format!("training set {}", spec.name);
        let schema = managed::stored_schema_of(&rows.schema())?;
        let hash = Arc::new(Mutex::new(ContentHash::new(&schema)?));
        let files = resolver.pinned_files().await?;
        let location = spec.name.folder("training_sets", &new_id());
        let rows = hashed(rows, &schema, &hash);
        let (rows, _) = managed::create_filled(services, &location, schema, rows, new_id()).await.map_err(|e| e.context(what()))?;
        let committed = async {
            let changed = differences(&files, &resolver.pinned_files().await?);
            if !changed.is_empty() {
                return Err(Error::conflict(format!("{}: source files changed while it was made: {}", what(), changed.join(", "))));
            }
            let content_hash = hash.lock().hex();
            let made = TrainingSet {
                name: spec.name.clone(),
                location: location.clone(),
                query: spec.query.clone(),
                query_schema: spec.query_schema.clone(),
                manifest: Manifest {
                    catalog_version: resolver.catalog.version,
                    instant: resolver.instant,
                    engine_version: ENGINE_VERSION.into(),
                    tables: resolver.pinned_tables(),
                    files,
                    settings: settings(resolver),
                    rows,
                    content_hash,
                },
                about: spec.about.clone(),
                created_at: services.clock.now(),
            };
            let put = put(resolver, spec, &made).await?;
            if let Put::Made(old) = &put
                && let Err(e) = pins::hold(services, &made.manifest.tables).await
            {
                take_back(resolver, &made, old.as_deref()).await.map_err(|second| {
                    Error::unavailable(format!(
                        "{}: {}; it could not be taken out of the catalog: {}",
                        what(),
                        e.message(),
                        second.message()
                    ))
                    .with_hint("DROP TRAINING SET, and create it again")
                })?;
                return Err(e.context(what()));
            }
            Ok(put)
        };
        match committed.await {
            Ok(Put::Made(old)) => {
                if let Some(old) = old {
                    release(resolver, &old).await;
                }
                Ok(rows)
            }
            Ok(Put::Exists) => {
                remove(resolver, &location).await;
                resolver.notice(format!("{} exists already; nothing was changed", what()));
                Ok(0)
            }
            Err(e) => {
                if is_undone(&e) {
                    remove(resolver, &location).await;
                }
                Err(e)
            }
        }
    })
}

/// What can change a result besides the data.
fn settings(resolver: &Resolver) -> BTreeMap<String, String> {
    let config = resolver.services.session.config().options();
    let zone = config.execution.time_zone.clone().unwrap_or_default();
    [("time_zone", zone), ("dialect", config.sql_parser.dialect.to_string())].map(|(k, v)| (k.to_string(), v)).into()
}

enum Put {
    /// With the set that it replaces.
    Made(Option<Box<TrainingSet>>),
    Exists,
}

async fn put(resolver: &Resolver, spec: &TrainingSetSpec, made: &TrainingSet) -> Result<Put> {
    let ddl = Ddl::CreateTrainingSet { set: made.clone(), exists: spec.exists };
    let build = |c: &CatalogSnapshot| {
        let changes = ddl.changes(c)?;
        if changes.is_empty() {
            return Ok((changes, Put::Exists));
        }
        let old = released(c, &changes).into_iter().find_map(|r| match r {
            Released::TrainingSet(set) => Some(set),
            _ => None,
        });
        Ok((changes, Put::Made(old)))
    };
    resolver.services.registry.commit(None, build).await
}

/// Undoes [`put`], unless somebody has changed the set since.
async fn take_back(resolver: &Resolver, made: &TrainingSet, old: Option<&TrainingSet>) -> Result<()> {
    let build = |c: &CatalogSnapshot| {
        let changes = match (c.training_sets.get(&made.name).filter(|t| t.location == made.location), old) {
            (None, _) => vec![],
            (Some(_), Some(old)) => vec![CatalogChange::PutTrainingSet(old.clone(), PutMode::Replace)],
            (Some(_), None) => vec![CatalogChange::DropTrainingSet(made.name.clone())],
        };
        Ok((changes, ()))
    };
    resolver.services.registry.commit(None, build).await
}

/// Makes a training set again from what its manifest names, without storing it, and compares.
pub fn rebuild<'a>(resolver: &'a Arc<Resolver>, name: &'a Name, cx: &'a Arc<TaskContext>) -> BoxFuture<'a, Result<RecordBatch>> {
    Box::pin(async move {
        let set = Arc::clone(resolver.catalog.training_set(name)?);
        let hash = again(resolver, &set, cx).await.map_err(|e| e.context(format!("REBUILD TRAINING SET {name}")).without_span())?;
        let m = &set.manifest;
        let identical = hash.rows == m.rows && hash.hex() == m.content_hash;
        if !identical && m.engine_version != ENGINE_VERSION {
            resolver.notice(format!("training set {name} was made by version {} of Remige, this is {ENGINE_VERSION}", m.engine_version));
        }
        let rows = i64::try_from(hash.rows).unwrap_or(i64::MAX);
        Ok(RecordBatch::try_new(
            answers::rebuild(),
            vec![
                Arc::new(StringArray::from(vec![name.to_string()])),
                Arc::new(Int64Array::from(vec![rows])),
                Arc::new(StringArray::from(vec![hash.hex()])),
                Arc::new(BooleanArray::from(vec![identical])),
            ],
        )?)
    })
}

fn again<'a>(resolver: &'a Arc<Resolver>, set: &'a TrainingSet, cx: &'a Arc<TaskContext>) -> BoxFuture<'a, Result<ContentHash>> {
    Box::pin(async move {
        let services = &resolver.services;
        let m = &set.manifest;
        let catalog = services.registry.at_version(m.catalog_version).await?;
        check_files(resolver, &catalog, m).await?;
        // a table read both at an old version and as it was then: the latter is the newer one
        let mut pins: HashMap<String, u64> = HashMap::new();
        for t in &m.tables {
            let pin = pins.entry(t.location.clone()).or_default();
            *pin = t.version.max(*pin);
        }
        let scope = Scope {
            schema: set.query_schema.clone(),
            instant: m.instant,
            parameters: vec![],
            notices: resolver.notice_list(),
            pins,
            effects: resolver.effects(),
        };
        let inner = Resolver::new(Arc::clone(services), catalog, scope);
        let plan = planner::plan_sql(&inner, crate::sql::parse::statement(&set.query)?, &set.query_schema).await?;
        check_tables(&m.tables, &inner.pinned_tables())?;
        let physical = planner::state(&inner, &set.query_schema)?.create_physical_plan(&plan).await?;
        drop(plan);
        let rows = crate::services::stall::execute(services, physical, Arc::clone(cx))?;
        let schema = managed::stored_schema_of(&rows.schema())?;
        let hash = Arc::new(Mutex::new(ContentHash::new(&schema)?));
        let mut rows = hashed(rows, &schema, &hash);
        while let Some(batch) = rows.next().await {
            batch?;
            tokio::task::consume_budget().await;
        }
        drop(rows);
        Arc::into_inner(hash).map(Mutex::into_inner).ok_or_else(|| Error::internal("the hash is still in use"))
    })
}

fn check_tables(then: &[PinnedTable], now: &[PinnedTable]) -> Result<()> {
    let replaced = then.iter().find(|t| now.iter().any(|n| n.location == t.location && n.table_id != t.table_id));
    match replaced {
        Some(t) => {
            Err(Error::invalid(format!("table {} at {:?} is not the table that it was: somebody has made it anew", t.name, t.location)))
        }
        None => Ok(()),
    }
}

async fn check_files(resolver: &Resolver, catalog: &CatalogSnapshot, m: &Manifest) -> Result<()> {
    let mut names: Vec<&str> = m.files.iter().map(|f| f.table.as_str()).collect();
    names.dedup();
    let mut now = vec![];
    for name in names {
        let table = catalog.tables.values().find(|t| t.name.to_string() == name);
        let table = table.ok_or_else(|| Error::internal(format!("table {name} is not in catalog version {}", catalog.version)))?;
        now.extend(source::files(&resolver.services, table).await?);
    }
    let changed = differences(&m.files, &now);
    if changed.is_empty() {
        return Ok(());
    }
    const SHOWN: usize = 10;
    let more = if changed.len() > SHOWN { format!(" and {} more", changed.len() - SHOWN) } else { String::new() };
    let list = changed.into_iter().take(SHOWN).collect::<Vec<_>>().join(", ");
    Err(Error::invalid(format!("source files are not what they were: {list}{more}"))
        .with_hint("plain files keep no history; copy sources into a table (CREATE TABLE … AS SELECT) to keep them"))
}

/// Files that are changed, gone or new.
fn differences(then: &[PinnedFile], now: &[PinnedFile]) -> Vec<String> {
    let key = |f: &PinnedFile| (f.table.clone(), f.path.clone());
    let mut left: BTreeMap<_, &PinnedFile> = now.iter().map(|f| (key(f), f)).collect();
    let mut out = vec![];
    for f in then {
        match left.remove(&key(f)) {
            None => out.push(format!("{} (gone)", f.path)),
            Some(n) if n != f => out.push(format!("{} (changed)", f.path)),
            Some(_) => {}
        }
    }
    out.extend(left.into_values().map(|f| format!("{} (new)", f.path)));
    out
}

/// Removes a table that nothing names any more, unless a training set pins it.
pub fn reclaim<'a>(resolver: &'a Arc<Resolver>, location: &'a str) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let catalog = match resolver.services.registry.snapshot().await {
            Ok(c) => c,
            Err(e) => return resolver.notice(format!("the data at {location:?} were not removed: {}", e.message())),
        };
        if let Some(set) = catalog.pinned_by(location) {
            return resolver.notice(format!("the data at {location:?} are kept: training set {set} was made from them"));
        }
        if !catalog.uses(location) {
            remove(resolver, location).await;
        }
    })
}

/// Removes what a training set that is dropped or replaced held: its rows, and tables that only it kept.
pub fn release<'a>(resolver: &'a Arc<Resolver>, set: &'a TrainingSet) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        reclaim(resolver, &set.location).await;
        let catalog = match resolver.services.registry.snapshot().await {
            Ok(c) => c,
            Err(e) => return resolver.notice(format!("data that only training set {} kept were not removed: {}", set.name, e.message())),
        };
        let orphaned = set.manifest.tables.iter().filter(|t| t.is_ours() && !catalog.uses(&t.location));
        let mut orphans: Vec<&str> = orphaned.map(|t| t.location.as_str()).collect();
        orphans.sort_unstable();
        orphans.dedup();
        for location in orphans {
            remove(resolver, location).await;
        }
    })
}

async fn remove(resolver: &Resolver, location: &str) {
    if let Err(e) = resolver.services.store.delete_table(location).await {
        tracing::warn!(location, error = %e, "a table that nobody needs could not be removed");
        resolver.notice(format!("the data at {location:?} could not be removed: {}", e.message()));
    }
}
