//! The record of REFRESH, MATERIALIZE and other runs: an append-only Delta table of events, folded by
//! run id. A run is written "running" first and finished by a second row, so that a crash leaves an
//! orphan that the next start can settle from the tables' own commit metadata.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::cast::as_boolean_array;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, conjunction_opt, split_conjunction};
use futures::future::BoxFuture;

use crate::clock::{DAY, HOUR, Micros};
use crate::error::{Error, Kind, Result};
use crate::model::types::timestamp_type;
use crate::store::offline::{Commit, OfflineStore, READ_AHEAD, Snapshot, TableOptions};

const LOCATION: &str = "_remige/runs";

/// A run whose process cannot be asked for is given up after so long.
const LOST_AFTER: Micros = DAY;

/// Runs are kept so long, and longer where something rests on them.
const KEPT_FOR: Micros = 90 * DAY;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunStatus {
    #[default]
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl RunStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [RunStatus::Running, RunStatus::Succeeded, RunStatus::Failed, RunStatus::Cancelled].into_iter().find(|s| s.as_str() == text)
    }
}

/// One run. Times are microseconds, UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    pub run_id: String,
    /// `refresh`, `materialize`, …
    pub kind: String,
    /// `schema.name`
    pub object: String,
    /// Version of the feature view.
    pub version: Option<u32>,
    pub started_at: Micros,
    pub finished_at: Option<Micros>,
    pub status: RunStatus,
    pub rows_read: u64,
    pub rows_written: u64,
    pub rows_skipped: u64,
    pub rows_rejected: u64,
    pub bytes_written: u64,
    pub delta_version: Option<u64>,
    pub error: Option<String>,
    /// Not shown: the instant that a refresh brings the view up to; `None` where it replaces a range only.
    pub until: Option<Micros>,
    /// Not shown: the table that the run commits to, where an orphan's fate is found.
    pub location: Option<String>,
    /// Not shown: who runs it, see [`this_process`].
    pub process: Option<String>,
}

/// What became of a run that never said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its commit is there.
    Succeeded { delta_version: Option<u64> },
    /// It is not.
    Failed(String),
    /// It may still be running.
    Leave,
}

/// Runs, and what was read to find them.
#[derive(Debug)]
pub struct Found {
    /// Newest first.
    pub runs: Vec<Run>,
    pub files: usize,
    /// Rows about runs that were looked at one by one.
    pub rows: usize,
}

/// The table of runs.
#[derive(Debug)]
pub struct Runs {
    store: Arc<OfflineStore>,
}

impl Runs {
    /// Opens the table, and makes it on first use.
    pub fn open(store: Arc<OfflineStore>) -> BoxFuture<'static, Result<Arc<Self>>> {
        Box::pin(async move {
            match store.snapshot(LOCATION, None).await {
                Ok(_) => {}
                Err(e) if e.kind() == Kind::NotFound => {
                    let options = TableOptions {
                        stats_columns: vec!["run_id".into(), "started_at".into()],
                        comment: Some("Runs of Remige, one row per change of status".into()),
                        ..Default::default()
                    };
                    match store.create_table(LOCATION, stored_schema(), options).await {
                        Err(e) if e.kind() != Kind::AlreadyExists => return Err(e),
                        _ => {}
                    }
                }
                Err(e) => return Err(e.context("runs")),
            }
            Ok(Arc::new(Runs { store }))
        })
    }

    /// Columns of `system.runs`.
    pub fn schema() -> SchemaRef {
        let all = stored_schema();
        Arc::new(Schema::new(all.fields().iter().take(SHOWN).cloned().collect::<Vec<_>>()))
    }

    /// Records that a run begins.
    pub fn start<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.append(Run { status: RunStatus::Running, finished_at: None, ..run.clone() }).await })
    }

    /// Records how a run ended.
    pub fn finish<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if run.status == RunStatus::Running {
                return Err(Error::internal(format!("run {} is finished, but still running", run.run_id)));
            }
            let finished_at = run.finished_at.or(Some(self.store.clock().now()));
            self.append(Run { finished_at, ..run.clone() }).await
        })
    }

    /// Grows whenever a run begins or ends.
    pub fn version<'a>(&'a self) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move { Ok(self.store.snapshot(LOCATION, None).await.map_err(|e| e.context("runs"))?.version()) })
    }

    /// All runs, newest first.
    pub fn list<'a>(&'a self) -> BoxFuture<'a, Result<Vec<Run>>> {
        Box::pin(async move { Ok(self.matching(None).await?.runs) })
    }

    /// Runs, newest first. `filter`, over the columns of `system.runs`: what it refuses may be left out, and is where the
    /// columns that all rows of a run agree in say so.
    pub fn matching<'a>(&'a self, filter: Option<&'a Arc<dyn PhysicalExpr>>) -> BoxFuture<'a, Result<Found>> {
        Box::pin(async move {
            let table = self.store.snapshot(LOCATION, None).await.map_err(|e| e.context("runs"))?;
            self.read(&table, filter.and_then(of_fixed_columns)).await
        })
    }

    fn read<'a>(&'a self, table: &'a Snapshot, filter: Option<Arc<dyn PhysicalExpr>>) -> BoxFuture<'a, Result<Found>> {
        Box::pin(async move {
            let files = filter.as_ref().map_or_else(|| table.files().to_vec(), |f| table.files_for(f, &Self::schema()));
            let mut folded: HashMap<String, Run> = HashMap::new();
            let mut rows = 0;
            for some in files.chunks(READ_AHEAD) {
                let batches = self.store.read_small_files(table, some).await.map_err(|e| e.context("runs"))?;
                for batch in batches.iter().flatten() {
                    let kept = filter.as_ref().and_then(|f| passing(batch, f).ok());
                    let events = from_batch(kept.as_ref().unwrap_or(batch))?;
                    rows += events.len();
                    events.into_iter().for_each(|event| fold(&mut folded, event));
                }
            }
            let mut runs: Vec<Run> = folded.into_values().collect();
            runs.sort_by(|a, b| (b.started_at, &b.run_id).cmp(&(a.started_at, &a.run_id)));
            Ok(Found { runs, files: files.len(), rows })
        })
    }

    /// Runs as rows of `system.runs`.
    pub fn to_batch(runs: &[Run]) -> Result<RecordBatch> {
        Ok(to_batch(runs)?.project(&(0..SHOWN).collect::<Vec<_>>())?)
    }

    /// Ends runs that are "running" although nobody runs them, as `judge` says. Answers how many. One that cannot be
    /// judged now stays as it is, and holds up no other.
    pub async fn settle<F, Fut>(&self, judge: F) -> Result<usize>
    where
        F: Fn(Run) -> Fut,
        Fut: Future<Output = Result<Verdict>>,
    {
        let mut settled = 0;
        for run in self.list().await?.into_iter().filter(|r| r.status == RunStatus::Running) {
            let verdict = judge(run.clone()).await;
            match self.end_as(&run, verdict).await {
                Ok(ended) => settled += usize::from(ended),
                Err(e) => {
                    let (view, version) = (&run.object, run.version.unwrap_or_default());
                    tracing::warn!(error = %e, run_id = %run.run_id, %view, version, "what became of an unfinished run cannot be told now");
                }
            }
        }
        Ok(settled)
    }

    fn end_as<'a>(&'a self, run: &'a Run, verdict: Result<Verdict>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            // One that was given up for lost may live: what it says itself is dated later, and counts.
            let finished_at = orphan_from(run).filter(|from| *from > Micros::MIN);
            let ended = match verdict? {
                Verdict::Leave => return Ok(false),
                Verdict::Succeeded { delta_version } => Run { status: RunStatus::Succeeded, delta_version, finished_at, ..run.clone() },
                Verdict::Failed(why) => Run { status: RunStatus::Failed, error: Some(why), finished_at, ..run.clone() },
            };
            self.finish(&ended).await?;
            Ok(true)
        })
    }

    /// The version that a run committed to its table: its id is in the commit's metadata.
    pub fn committed<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move {
            let Some(location) = &run.location else { return Ok(None) };
            match self.store.history(location, 0).await {
                Ok(commits) => Ok(commits.iter().rev().find(|c| c.run_id.as_deref() == Some(run.run_id.as_str())).map(|c| c.version)),
                Err(e) if e.kind() == Kind::NotFound => Ok(None),
                Err(e) => Err(e),
            }
        })
    }

    /// The usual judge: a run of a process that is gone, or was not heard of for too long, succeeded if it has committed.
    pub fn judge<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Verdict>> {
        Box::pin(async move {
            let now = self.store.clock().now();
            if orphan_from(run).is_none_or(|from| from > now) {
                return Ok(Verdict::Leave);
            }
            if let Some(version) = self.committed(run).await? {
                return Ok(Verdict::Succeeded { delta_version: Some(version) });
            }
            Ok(Verdict::Failed(match is_lost(run) {
                true => {
                    let process = run.process.as_deref().unwrap_or("unknown");
                    let hours = LOST_AFTER / HOUR;
                    format!("given up for lost: it did not end within {hours} hours, and its process ({process}) cannot be asked from here")
                }
                false => "the process ended before the run did".into(),
            }))
        })
    }

    async fn append(&self, run: Run) -> Result<()> {
        let table = self.store.snapshot(LOCATION, None).await.map_err(|e| e.context("runs"))?;
        let batch = in_columns_of(&table, to_batch(&[run])?)?;
        let adds = self.store.write_small_file(&table, &batch).await?;
        let table = self.store.append(&table, Commit { adds, ..Default::default() }).await.map_err(|e| e.context("runs"))?;
        if let Err(e) = self.compact(&table).await {
            tracing::warn!(error = %e, "the table of runs was not compacted");
        }
        Ok(())
    }

    /// Now and then: one row per run, and only the runs that somebody may still ask for.
    async fn compact(&self, table: &Snapshot) -> Result<()> {
        if !self.store.wants_compaction(table) {
            return Ok(());
        }
        let runs = kept(self.read(table, None).await?.runs, self.store.clock().now().saturating_sub(KEPT_FOR));
        self.store.compact_to(table, &in_columns_of(table, to_batch(&runs)?)?).await.map(|_| ())
    }
}

/// Takes in one row about a run. What settles a run may have looked just before its process ended well: success is not
/// overruled.
fn fold(runs: &mut HashMap<String, Run>, event: Run) {
    let ending = |r: &Run| match r.status {
        RunStatus::Running => 0,
        RunStatus::Failed | RunStatus::Cancelled => 1,
        RunStatus::Succeeded => 2,
    };
    let rank = |r: &Run| (ending(r), r.finished_at);
    if runs.get(&event.run_id).is_none_or(|known| rank(known) < rank(&event)) {
        runs.insert(event.run_id.clone(), event);
    }
}

/// Columns of `system.runs` in which all rows of a run are alike.
const FIXED: [&str; 5] = ["run_id", "kind", "object", "version", "started_at"];

/// The terms of a filter that say the same of every row of a run.
fn of_fixed_columns(filter: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
    let fixed = |term: &&Arc<dyn PhysicalExpr>| collect_columns(term).iter().all(|c| FIXED.contains(&c.name()));
    conjunction_opt(split_conjunction(filter).into_iter().filter(fixed).cloned())
}

/// The rows of a file that a filter over the columns of `system.runs` lets pass.
fn passing(batch: &RecordBatch, filter: &Arc<dyn PhysicalExpr>) -> Result<RecordBatch> {
    let schema = Runs::schema();
    let shown = schema.fields().iter().map(|f| batch.schema().index_of(f.name())).collect::<std::result::Result<Vec<_>, _>>()?;
    let passes = filter.evaluate(&batch.project(&shown)?)?.into_array(batch.num_rows())?;
    Ok(filter_record_batch(batch, as_boolean_array(&passes)?)?)
}

/// A table that an older program made lacks columns.
fn in_columns_of(table: &Snapshot, batch: RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let known = |i: &usize| table.schema().column_with_name(schema.field(*i).name()).is_some();
    Ok(batch.project(&(0..schema.fields().len()).filter(known).collect::<Vec<_>>())?)
}

/// Runs that began at `since` or later, those that run, and of every kind on every object the last one that did all
/// and whatever came after it: schedules, freshness and back-off rest on these. `runs`: newest first.
fn kept(runs: Vec<Run>, since: Micros) -> Vec<Run> {
    let mut done: HashSet<(Option<String>, String, Option<u32>, String)> = HashSet::new();
    let mut keep = |r: &Run| {
        let of = (r.location.clone(), r.object.clone(), r.version, r.kind.clone());
        let counts = !done.contains(&of);
        // a REFRESH of a range does not make the view any fresher
        if r.status == RunStatus::Succeeded && (r.kind != "refresh" || r.until.is_some()) {
            done.insert(of);
        }
        counts || r.status == RunStatus::Running || r.started_at >= since
    };
    runs.into_iter().filter(|r| keep(r)).collect()
}

/// Name of this process: host, process id, where that id means something, and the process's start, so that a
/// reused id is told apart.
pub fn this_process() -> String {
    let pid = std::process::id();
    let here = Here::look();
    format!("{}/{pid}/{}-{}", here.host, here.realm(), started(pid).unwrap_or_default())
}

/// Whether a process named by [`this_process`] has ended; `None` where that cannot be told from here: another
/// machine, or another container of the same host name. Of these only leases tell.
pub fn is_gone(process: &str) -> Option<bool> {
    started(std::process::id())?;
    Here::look().is_gone(process, started)
}

/// From when on a run may be settled; `None`: it is over, or its process lives.
pub fn orphan_from(run: &Run) -> Option<Micros> {
    if run.status != RunStatus::Running {
        return None;
    }
    match run.process.as_deref() {
        // also where processes cannot be looked up
        Some(process) if process == this_process() => None,
        process => match process.and_then(is_gone) {
            Some(true) => Some(Micros::MIN),
            Some(false) => None,
            None => Some(run.started_at.saturating_add(LOST_AFTER)),
        },
    }
}

/// Whether its age alone, and not the end of its process, says that a run is an orphan.
pub fn is_lost(run: &Run) -> bool {
    orphan_from(run).is_some_and(|from| from > Micros::MIN)
}

/// Where process ids mean what they mean to this process.
#[derive(Debug, Clone)]
struct Here {
    host: String,
    machine: String,
    boot: String,
    /// Containers of one host name may have the same ids for different processes.
    namespace: String,
}

/// The PID namespace outside of all containers has the same number on every machine.
const OUTERMOST: &str = "4026531836";

impl Here {
    fn look() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().replace('/', "_");
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Here {
            host: text("/proc/sys/kernel/hostname"),
            machine: text("/etc/machine-id"),
            boot: text("/proc/sys/kernel/random/boot_id").replace('-', ""),
            namespace: namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect(),
        }
    }

    fn realm(&self) -> String {
        format!("{}-{}-{}", self.machine.replace('-', ""), self.namespace, self.boot)
    }

    fn is_gone(&self, process: &str, started: impl Fn(u32) -> Option<String>) -> Option<bool> {
        let mut parts = process.rsplitn(3, '/');
        let (of, pid, host) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let (realm, start) = of.rsplit_once('-')?;
        if host != self.host || start.is_empty() {
            return None;
        }
        if realm == self.realm() {
            return Some(started(pid).as_deref() != Some(start));
        }
        // the machine itself was started anew
        let before =
            realm.strip_suffix(&self.boot).is_none() && realm.starts_with(&format!("{}-{OUTERMOST}-", self.machine.replace('-', "")));
        (before && self.namespace == OUTERMOST && !self.machine.is_empty()).then_some(true)
    }
}

/// Start of a process in clock ticks since boot.
fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(19).map(str::to_string)
}

/// Columns that users see; the rest is ours.
const SHOWN: usize = 14;

/// Tables of runs made before there were schedules lack it.
const UNTIL: &str = "until";

fn stored_schema() -> SchemaRef {
    use DataType::{Int32, Int64, Utf8};
    let fields = [
        ("run_id", Utf8, false),
        ("kind", Utf8, false),
        ("object", Utf8, false),
        ("version", Int32, true),
        ("started_at", timestamp_type(), false),
        ("finished_at", timestamp_type(), true),
        ("status", Utf8, false),
        ("rows_read", Int64, false),
        ("rows_written", Int64, false),
        ("rows_skipped", Int64, false),
        ("rows_rejected", Int64, false),
        ("bytes_written", Int64, false),
        ("delta_version", Int64, true),
        ("error", Utf8, true),
        ("location", Utf8, true),
        ("process", Utf8, true),
        (UNTIL, timestamp_type(), true),
    ];
    Arc::new(Schema::new(fields.map(|(n, t, nullable)| Field::new(n, t, nullable)).to_vec()))
}

fn to_batch(runs: &[Run]) -> Result<RecordBatch> {
    let text = |f: fn(&Run) -> Option<&str>| Arc::new(runs.iter().map(f).collect::<StringArray>()) as ArrayRef;
    let number = |f: fn(&Run) -> Option<u64>| {
        let cut = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Arc::new(runs.iter().map(|r| f(r).map(cut)).collect::<Int64Array>()) as ArrayRef
    };
    let time = |f: fn(&Run) -> Option<Micros>| {
        Arc::new(runs.iter().map(f).collect::<TimestampMicrosecondArray>().with_timezone("UTC")) as ArrayRef
    };
    let version = runs.iter().map(|r| r.version.and_then(|v| i32::try_from(v).ok())).collect::<Int32Array>();
    Ok(RecordBatch::try_new(
        stored_schema(),
        vec![
            text(|r| Some(&r.run_id)),
            text(|r| Some(&r.kind)),
            text(|r| Some(&r.object)),
            Arc::new(version),
            time(|r| Some(r.started_at)),
            time(|r| r.finished_at),
            text(|r| Some(r.status.as_str())),
            number(|r| Some(r.rows_read)),
            number(|r| Some(r.rows_written)),
            number(|r| Some(r.rows_skipped)),
            number(|r| Some(r.rows_rejected)),
            number(|r| Some(r.bytes_written)),
            number(|r| r.delta_version),
            text(|r| r.error.as_deref()),
            text(|r| r.location.as_deref()),
            text(|r| r.process.as_deref()),
            time(|r| r.until),
        ],
    )?)
}

fn from_batch(batch: &RecordBatch) -> Result<Vec<Run>> {
    let expected = stored_schema();
    let column = |name: &str| -> Result<&ArrayRef> {
        let wanted = expected.field_with_name(name)?.data_type();
        batch.column_by_name(name).filter(|c| c.data_type() == wanted).ok_or_else(|| {
            Error::invalid(format!("the table of runs has no column {name:?} of type {wanted}"))
                .with_hint("was it written by a newer remige?")
        })
    };
    let texts = |name: &str| -> Result<Vec<Option<String>>> {
        Ok(column(name)?.as_string::<i32>().iter().map(|v| v.map(str::to_string)).collect())
    };
    let numbers = |name: &str| -> Result<Vec<Option<u64>>> {
        Ok(column(name)?.as_primitive::<Int64Type>().iter().map(|v| v.and_then(|n| u64::try_from(n).ok())).collect())
    };
    let times =
        |name: &str| -> Result<Vec<Option<Micros>>> { Ok(column(name)?.as_primitive::<TimestampMicrosecondType>().iter().collect()) };
    let versions = column("version")?.as_primitive::<Int32Type>();
    let (run_id, kind, object, status) = (texts("run_id")?, texts("kind")?, texts("object")?, texts("status")?);
    let (started, finished) = (times("started_at")?, times("finished_at")?);
    let (read, written, skipped) = (numbers("rows_read")?, numbers("rows_written")?, numbers("rows_skipped")?);
    let (rejected, bytes, delta) = (numbers("rows_rejected")?, numbers("bytes_written")?, numbers("delta_version")?);
    let (error, location, process) = (texts("error")?, texts("location")?, texts("process")?);
    let until = match batch.column_by_name(UNTIL) {
        Some(_) => times(UNTIL)?,
        None => started.clone(),
    };
    (0..batch.num_rows())
        .map(|i| {
            let status = status[i].clone().unwrap_or_default();
            Ok(Run {
                run_id: run_id[i].clone().unwrap_or_default(),
                kind: kind[i].clone().unwrap_or_default(),
                object: object[i].clone().unwrap_or_default(),
                version: if versions.is_valid(i) { u32::try_from(versions.value(i)).ok() } else { None },
                started_at: started[i].unwrap_or_default(),
                finished_at: finished[i],
                status: RunStatus::parse(&status).ok_or_else(|| {
                    Error::invalid(format!("the table of runs has an unknown status {status:?}")).with_hint("use the newer remige")
                })?,
                rows_read: read[i].unwrap_or_default(),
                rows_written: written[i].unwrap_or_default(),
                rows_skipped: skipped[i].unwrap_or_default(),
                rows_rejected: rejected[i].unwrap_or_default(),
                bytes_written: bytes[i].unwrap_or_default(),
                delta_version: delta[i],
                error: error[i].clone(),
                location: location[i].clone(),
                process: process[i].clone(),
                until: until[i],
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(machine: &str, namespace: &str, boot: &str) -> Here {
        Here { host: "h/1".into(), machine: machine.into(), boot: boot.into(), namespace: namespace.into() }
    }

    #[test]
    fn processes_are_judged_only_where_their_ids_mean_something() {
        let name = |of: &Here, start: &str| format!("{}/7/{}-{start}", of.host, of.realm());
        let seven = |pid: u32| (pid == 7).then(|| "100".to_string());
        let container = here("m", "4026532000", "b1");
        assert_eq!(container.is_gone(&name(&container, "100"), seven), Some(false));
        assert_eq!(container.is_gone(&name(&container, "99"), seven), Some(true), "the id was reused");
        assert_eq!(container.is_gone(&name(&container, "100").replace("/7/", "/8/"), seven), Some(true));
        // one host name, another container: process 7 here says nothing about process 7 there
        let neighbour = here("m", "4026532999", "b1");
        assert_eq!(container.is_gone(&name(&neighbour, "55"), seven), None);
        assert_eq!(container.is_gone(&name(&here("m", "4026532000", "b0"), "55"), seven), None);
        assert_eq!(container.is_gone(&name(&here("m", OUTERMOST, "b1"), "55"), seven), None);
        // a machine that was started anew, and another machine of the same name
        let machine = here("m", OUTERMOST, "b2");
        assert_eq!(machine.is_gone(&name(&here("m", OUTERMOST, "b1"), "55"), seven), Some(true));
        assert_eq!(machine.is_gone(&name(&here("n", OUTERMOST, "b1"), "55"), seven), None);
        assert_eq!(machine.is_gone(&name(&container, "55"), seven), None);
        assert_eq!(here("", OUTERMOST, "b2").is_gone(&name(&here("", OUTERMOST, "b1"), "55"), seven), None);
        // names of earlier versions
        assert_eq!(machine.is_gone("h/1/7/b2-100", seven), None);
    }
}
