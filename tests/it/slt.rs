//! Every `.slt` file under tests/slt is a test of its own, on a fresh warehouse with a clock that stands at
//! 2026-03-01T12:00:00Z. `connection name` goes on in another session of the same server; the statement
//! `CLOCK ADVANCE INTERVAL '…'`, which only these files have, moves the clock.

use std::path::Path;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use remige::clock::Clock;
use remige::config::Config;
use remige::session::{Engine, Outcome, Session};
use sqllogictest::{DBOutput, DefaultColumnType};

const NOW: i64 = 1_772_366_400_000_000;

struct Db {
    session: Session,
    clock: Clock,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(String);

#[async_trait::async_trait]
impl sqllogictest::AsyncDB for Db {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        if let Some(by) = sql.strip_prefix("CLOCK ADVANCE ") {
            let by = self.micros(by).await?;
            self.clock.advance(by);
            return Ok(DBOutput::StatementComplete(0));
        }
        let shown = |e: remige::error::Error| Failed(e.render(sql, None).replace('\n', " "));
        let outcome = match self.session.execute(sql).await {
            Ok(o) => o,
            Err(e) => return Err(shown(e)),
        };
        let stream = match outcome {
            Outcome::Updated(n) => return Ok(DBOutput::StatementComplete(n)),
            Outcome::Rows(s) => s,
        };
        let types = vec![DefaultColumnType::Any; stream.schema().fields().len()];
        let batches: Vec<_> = stream.try_collect().await.map_err(|e| shown(e.into()))?;
        let options = FormatOptions::default().with_null("NULL");
        let mut rows = vec![];
        for b in &batches {
            let columns: Vec<_> = b
                .columns()
                .iter()
                .map(|c| ArrayFormatter::try_new(c, &options))
                .collect::<Result<_, _>>()
                .map_err(|e| Failed(e.to_string()))?;
            for row in 0..b.num_rows() {
                let cell = |f: &ArrayFormatter<'_>| {
                    let v = f.value(row).to_string();
                    if v.is_empty() { "(empty)".to_string() } else { v }
                };
                rows.push(columns.iter().map(cell).collect());
            }
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}
}

impl Db {
    /// The length of an interval, as the dialect reads it.
    async fn micros(&self, interval: &str) -> Result<i64, Failed> {
        let sql = format!("SELECT CAST(date_part('epoch', {interval}) * 1000000 AS BIGINT)");
        let failed = |e: &dyn std::fmt::Display| Failed(format!("{interval}: {e}"));
        let Outcome::Rows(rows) = self.session.execute(&sql).await.map_err(|e| failed(&e))? else { return Err(failed(&"no rows")) };
        let batches: Vec<_> = rows.try_collect().await.map_err(|e| failed(&e))?;
        Ok(batches[0].column(0).as_primitive::<Int64Type>().value(0))
    }
}

async fn run(file: &str) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { warehouse: dir.path().join("warehouse").to_string_lossy().to_string(), ..Config::default() };
    let clock = Clock::fixed(NOW);
    let engine = Engine::open(config, clock.clone()).await.unwrap();
    let mut runner = sqllogictest::Runner::new(|| async { Ok(Db { session: engine.session(), clock: clock.clone() }) });
    if let Err(e) = runner.run_file_async(Path::new("tests/slt").join(file)).await {
        panic!("tests/slt/{file}\n{e}");
    }
}

macro_rules! slt_files {
    ($($name:ident $path:literal)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                run($path).await;
            }
        )*

        const FILES: &[&str] = &[$($path),*];
    };
}

slt_files! {
    asof_forms "asof/forms.slt"
    asof_known_by "asof/known_by.slt"
    asof_matrix_files "asof/matrix_files.slt"
    asof_matrix_keys "asof/matrix_keys.slt"
    asof_matrix_roles "asof/matrix_roles.slt"
    asof_matrix_ties "asof/matrix_ties.slt"
    asof_matrix_time "asof/matrix_time.slt"
    asof_matrix_zones "asof/matrix_zones.slt"
    asof_service "asof/service.slt"
    catalog_dependencies "catalog/dependencies.slt"
    error_bad_input "error/bad_input.slt"
    error_create_feature_view "error/create_feature_view.slt"
    field_asof_on "field/asof_on.slt"
    field_back_fill "field/back_fill.slt"
    field_circles "field/circles.slt"
    field_clauses "field/clauses.slt"
    field_decimals "field/decimals.slt"
    field_delete "field/delete.slt"
    field_exact_values "field/exact_values.slt"
    field_explain "field/explain.slt"
    field_files "field/files.slt"
    field_functions "field/functions.slt"
    field_instants "field/instants.slt"
    field_lengths "field/lengths.slt"
    field_moving_frames "field/moving_frames.slt"
    field_names "field/names.slt"
    field_nan "field/nan.slt"
    field_never_stuck "field/never_stuck.slt"
    field_pages "field/pages.slt"
    field_pivot "field/pivot.slt"
    field_rejected_rows "field/rejected_rows.slt"
    field_rewrites "field/rewrites.slt"
    field_subqueries "field/subqueries.slt"
    field_sums "field/sums.slt"
    field_waiting_versions "field/waiting_versions.slt"
    online_join "online/join.slt"
    online_lookup "online/lookup.slt"
    online_offline_online "online/offline_online.slt"
    refresh_freshness "refresh/freshness.slt"
    refresh_rules "refresh/rules.slt"
    refresh_take_over "refresh/take_over.slt"
    session_two_sessions "session/two_sessions.slt"
    statement_alter_table "statement/alter_table.slt"
    statement_as_of "statement/as_of.slt"
    statement_as_others_write "statement/as_others_write.slt"
    statement_delete_table "statement/delete_table.slt"
    statement_drop "statement/drop.slt"
    statement_if_not_exists "statement/if_not_exists.slt"
    statement_maintenance "statement/maintenance.slt"
    statement_objects "statement/objects.slt"
    statement_prepare "statement/prepare.slt"
    statement_training_set "statement/training_set.slt"
    statement_truncate "statement/truncate.slt"
    statement_verify "statement/verify.slt"
    statement_versions "statement/versions.slt"
    windows_features "windows/features.slt"
    windows_push_reads_nothing "windows/push_reads_nothing.slt"
    windows_refused "windows/refused.slt"
    windows_workers "windows/workers.slt"
}

fn files(dir: &Path, out: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "slt") {
            out.push(path.strip_prefix("tests/slt").unwrap().to_string_lossy().to_string());
        }
    }
}

#[test]
fn every_file_is_a_test() {
    let mut found = vec![];
    files(Path::new("tests/slt"), &mut found);
    found.sort();
    assert_eq!(FILES, found, "the list in tests/it/slt.rs");
}
