//! Statements that clients hold handles of: prepared ones, bound ones, and results to be fetched.
//! Least recently used ones go first, and all go after `server.handle_ttl` without use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_flight::FlightData;
use bytes::Bytes;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::encode::wire_schema;
use super::sessions::Caller;
use crate::clock::{self, Clock, Micros};
use crate::error::{Error, Result};
use crate::session::{Prepared, Session, StatementKind};

/// A planned statement, with the rows bound to it.
#[derive(Debug)]
pub(super) struct Statement {
    pub caller: Caller,
    pub session: Session,
    pub prepared: Arc<Prepared>,
    /// As it was before values were bound, which others may follow.
    asked: Arc<Prepared>,
    /// Columns as they cross the wire; empty for an update.
    pub schema: SchemaRef,
    /// One column per placeholder, one row per run.
    pub parameters: Option<RecordBatch>,
    /// Rows of a command that has run.
    pub result: Option<Vec<FlightData>>,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    count: usize,
    stop: CancellationToken,
}

/// Counts as a run until dropped.
#[derive(Debug)]
pub(super) struct RunGuard {
    statement: Arc<Statement>,
    pub stop: CancellationToken,
}

impl Statement {
    pub fn new(caller: Caller, session: Session, prepared: Prepared) -> Self {
        let schema = wire_schema(&prepared.schema);
        let prepared = Arc::new(prepared);
        let asked = Arc::clone(&prepared);
        Statement { caller, session, prepared, asked, schema, parameters: None, result: None, running: Mutex::default() }
    }

    pub fn sql(&self) -> &str {
        &self.prepared.sql
    }

    pub fn kind(&self) -> StatementKind {
        self.prepared.kind
    }

    /// The same statement with other parameters.
    pub fn with_parameters(&self, parameters: Option<RecordBatch>) -> Self {
        Statement {
            caller: self.caller.clone(),
            session: self.session.clone(),
            prepared: Arc::clone(&self.prepared),
            asked: Arc::clone(&self.asked),
            schema: Arc::clone(&self.schema),
            parameters,
            result: None,
            running: Mutex::default(),
        }
    }

    /// Types of the parameters that are to be bound; `None`: any.
    pub fn wanted(&self) -> &[Option<DataType>] {
        &self.asked.parameters
    }

    /// With rows bound whose types decide what it answers.
    pub async fn bind(&self, rows: RecordBatch) -> Result<Self> {
        if self.asked.parameters.iter().all(Option::is_some) {
            return Ok(self.with_parameters(Some(rows)));
        }
        let types = rows.schema().fields().iter().map(|f| f.data_type().clone()).collect();
        let prepared = self.session.bound_to(&self.asked, types).await?;
        let (caller, session) = (self.caller.clone(), self.session.clone());
        Ok(Statement { asked: Arc::clone(&self.asked), parameters: Some(rows), ..Statement::new(caller, session, prepared) })
    }

    pub fn with_result(&self, result: Vec<FlightData>) -> Self {
        Statement { result: Some(result), ..self.with_parameters(None) }
    }

    pub fn check_bound(&self) -> Result<()> {
        let wanted = self.prepared.parameters.len();
        if wanted == 0 || self.parameters.is_some() {
            return Ok(());
        }
        Err(Error::invalid(format!("the statement has {wanted} parameter{} and none is bound", if wanted == 1 { "" } else { "s" }))
            .with_hint("bind a value for every placeholder, for example cursor.execute(sql, [value, …])"))
    }

    pub fn start(self: &Arc<Self>) -> RunGuard {
        let mut running = self.running.lock();
        running.count += 1;
        RunGuard { statement: Arc::clone(self), stop: running.stop.clone() }
    }

    /// Stops all runs; false where nothing ran.
    pub fn cancel(&self) -> bool {
        let mut running = self.running.lock();
        std::mem::take(&mut running.stop).cancel();
        running.count > 0
    }

    fn weight(&self) -> usize {
        let rows = self.parameters.as_ref().map_or(0, RecordBatch::get_array_memory_size);
        let result = self.result.iter().flatten().map(|m| m.data_body.len() + m.data_header.len()).sum::<usize>();
        self.prepared.sql.len() + rows + result
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        self.statement.running.lock().count -= 1;
    }
}

#[derive(Debug)]
pub(super) struct Statements {
    clock: Clock,
    ttl: Micros,
    limit: usize,
    /// Bytes of texts, parameters and results of all handles together.
    byte_limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_handle: HashMap<Bytes, Entry>,
    by_use: BTreeMap<u64, Bytes>,
    tick: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    statement: Arc<Statement>,
    weight: usize,
    tick: u64,
    used: Micros,
}

impl Statements {
    pub fn new(clock: Clock, ttl: Micros, limit: usize, byte_limit: usize) -> Self {
        Statements { clock, ttl, limit: limit.max(1), byte_limit, table: Mutex::default() }
    }

    /// Keeps a statement and names it.
    pub fn insert(&self, statement: Statement) -> (Bytes, Arc<Statement>) {
        let handle = Bytes::from(clock::new_id());
        let statement = Arc::new(statement);
        let (weight, now) = (statement.weight(), self.clock.now());
        let mut table = self.table.lock();
        table.bytes += weight;
        let tick = table.next_tick(&handle);
        table.by_handle.insert(handle.clone(), Entry { statement: Arc::clone(&statement), weight, tick, used: now });
        while let Some((_, oldest)) = table.by_use.first_key_value() {
            let expired = table.by_handle.get(oldest).is_some_and(|e| e.used.saturating_add(self.ttl) < now);
            let full = table.by_handle.len() > self.limit || table.bytes > self.byte_limit;
            if *oldest == handle || !(expired || full) {
                break;
            }
            let oldest = oldest.clone();
            table.remove(&oldest);
        }
        (handle, statement)
    }

    pub fn get(&self, handle: &[u8]) -> Result<Arc<Statement>> {
        let now = self.clock.now();
        let mut table = self.table.lock();
        let Some((key, entry)) = table.by_handle.get_key_value(handle) else { return Err(unknown()) };
        if entry.used.saturating_add(self.ttl) < now {
            table.remove(handle);
            return Err(unknown());
        }
        let (key, old) = (key.clone(), entry.tick);
        table.by_use.remove(&old);
        let tick = table.next_tick(&key);
        match table.by_handle.get_mut(handle) {
            Some(entry) => {
                (entry.tick, entry.used) = (tick, now);
                Ok(Arc::clone(&entry.statement))
            }
            None => Err(unknown()),
        }
    }

    /// Forgets a handle; forgetting it twice is fine.
    pub fn remove(&self, handle: &[u8]) {
        self.table.lock().remove(handle);
    }
}

impl Table {
    fn next_tick(&mut self, handle: &Bytes) -> u64 {
        self.tick += 1;
        self.by_use.insert(self.tick, handle.clone());
        self.tick
    }

    fn remove(&mut self, handle: &[u8]) {
        if let Some(e) = self.by_handle.remove(handle) {
            self.bytes -= e.weight;
            self.by_use.remove(&e.tick);
        }
    }
}

fn unknown() -> Error {
    Error::not_found(
        "the server does not know this statement handle: it was closed, not used for long, or belongs to an earlier run of the server",
    )
    .with_hint("prepare the statement again")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::Int64Array;
    use datafusion::arrow::datatypes::Schema;

    use super::*;
    use crate::config::Config;
    use crate::session::Engine;

    async fn statement(dir: &tempfile::TempDir) -> Statement {
        let config = Config { warehouse: dir.path().join("w").display().to_string(), ..Default::default() };
        let session = Engine::open(config, Clock::system()).await.unwrap().session();
        let prepared = Prepared {
            sql: "SELECT $1".into(),
            kind: StatementKind::Query,
            schema: Arc::new(Schema::empty()),
            parameters: vec![None],
            announced: vec![None],
            changes_session: false,
            looks_up: false,
            tag: "SELECT",
        };
        Statement::new(Caller::default(), session, prepared)
    }

    fn rows(n: usize) -> RecordBatch {
        RecordBatch::try_from_iter([("0", Arc::new(Int64Array::from(vec![0; n])) as _)]).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_least_recently_used_goes_first_and_all_go_after_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let base = statement(&dir).await;
        let clock = Clock::fixed(0);
        let table = Statements::new(clock.clone(), 100, 2, usize::MAX);
        let (a, _) = table.insert(base.with_parameters(None));
        let (b, _) = table.insert(base.with_parameters(None));
        table.get(&a).unwrap();
        let (c, _) = table.insert(base.with_parameters(None));
        assert!(table.get(&b).is_err());
        assert!(table.get(&a).is_ok() && table.get(&c).is_ok());
        clock.advance(99);
        table.get(&a).unwrap();
        clock.advance(2);
        assert!(table.get(&c).is_err() && table.get(&a).is_ok());
        table.remove(&a);
        table.remove(&a);
        let inner = table.table.lock();
        assert_eq!((inner.by_handle.len(), inner.by_use.len(), inner.bytes), (0, 0, 0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_are_bounded_and_the_newest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let base = statement(&dir).await;
        let table = Statements::new(Clock::fixed(0), 100, 100, 10_000);
        let (a, _) = table.insert(base.with_parameters(Some(rows(1000))));
        let (b, _) = table.insert(base.with_parameters(Some(rows(1000))));
        assert!(table.get(&a).is_err() && table.get(&b).is_ok());
        let (c, _) = table.insert(base.with_parameters(Some(rows(100_000))));
        assert!(table.get(&c).is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn cancel_reaches_what_runs_now_only() {
        let dir = tempfile::tempdir().unwrap();
        let s = Arc::new(statement(&dir).await);
        assert!(!s.cancel());
        let run = s.start();
        assert!(s.cancel() && run.stop.is_cancelled());
        drop(run);
        assert!(!s.cancel() && !s.start().stop.is_cancelled());
        assert!(s.check_bound().is_err());
    }
}
