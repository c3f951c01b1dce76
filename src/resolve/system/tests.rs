//! System tables by SQL: what a scan reads, and that declarations say what is there.

mod page;

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, LikeExpr, Literal};
use futures::TryStreamExt;

use super::{TABLES, Table, names};
use crate::catalog::{Run, RunStatus, Runs};
use crate::clock::{Clock, DAY, HOUR};
use crate::config::Config;
use crate::session::{Engine, Outcome, Session};

const NOW: i64 = 20_000 * DAY;

struct Warehouse {
    engine: Arc<Engine>,
    session: Session,
    _dir: tempfile::TempDir,
}

async fn open() -> Warehouse {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { warehouse: dir.path().join("w").display().to_string(), threads: 2, ..Default::default() };
    let engine = Engine::open(config, Clock::fixed(NOW)).await.unwrap();
    let session = engine.session();
    Warehouse { engine, session, _dir: dir }
}

impl Warehouse {
    async fn sql(&self, text: &str) -> RecordBatch {
        let Outcome::Rows(rows) = self.session.execute(text).await.unwrap_or_else(|e| panic!("{text}: {e}")) else {
            panic!("{text} answered no rows");
        };
        let schema = rows.schema();
        let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap_or_else(|e| panic!("{text}: {e}"));
        concat_batches(&schema, &batches).unwrap()
    }

    fn runs(&self) -> &Runs {
        &self.engine.services().runs
    }
}

fn shown(batch: &RecordBatch) -> String {
    pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string()
}

#[test]
fn names_are_sorted_and_each_stands_once() {
    let all: Vec<&str> = names().collect();
    assert!(all.windows(2).all(|w| w[0] < w[1]), "{all:?}");
}

/// Any choice of columns, in any order, and none at all.
#[tokio::test]
async fn every_column_can_be_read_alone() {
    let w = open().await;
    for table in &TABLES {
        let Table::Declared(table) = table else { continue };
        let all = w.sql(&format!("SELECT * FROM system.{}", table.name)).await;
        for column in table.columns {
            let one = w.sql(&format!("SELECT \"{}\" FROM system.{}", column.name, table.name)).await;
            assert_eq!(one.column(0).data_type(), &(column.data_type)(), "{}.{}", table.name, column.name);
            assert_eq!(Some(one.column(0)), all.column_by_name(column.name), "{}.{}", table.name, column.name);
        }
        let [first, .., last] = table.columns else { panic!("{} has one column", table.name) };
        let turned = w.sql(&format!("SELECT \"{}\", \"{}\" FROM system.{}", last.name, first.name, table.name)).await;
        assert_eq!(turned.schema().field(0).name(), last.name);
    }
}

/// Thirty runs, of which each has begun and ended in a file of its own.
async fn many_runs(w: &Warehouse) {
    for n in 0..30i64 {
        let run = Run {
            run_id: format!("run-{n:02}"),
            kind: if n % 2 == 0 { "refresh" } else { "materialize" }.into(),
            object: format!("public.v{}", n % 3),
            version: Some(1 + (n % 2) as u32),
            started_at: NOW - (30 - n) * HOUR,
            ..Run::default()
        };
        w.runs().start(&run).await.unwrap();
        let status = if n % 5 == 0 { RunStatus::Failed } else { RunStatus::Succeeded };
        w.runs().finish(&Run { status, rows_written: n as u64, ..run }).await.unwrap();
    }
}

fn term(column: &str, op: Operator, value: ScalarValue) -> Arc<dyn PhysicalExpr> {
    let at = Runs::schema().index_of(column).unwrap();
    Arc::new(BinaryExpr::new(Arc::new(Column::new(column, at)), op, Arc::new(Literal::new(value))))
}

#[tokio::test]
async fn a_filter_on_runs_leaves_out_files_and_rows() {
    let w = open().await;
    many_runs(&w).await;
    let all = w.runs().matching(None).await.unwrap();
    assert_eq!((all.runs.len(), all.files, all.rows), (30, 60, 60));

    let one = term("run_id", Operator::Eq, ScalarValue::from("run-07"));
    let found = w.runs().matching(Some(&one)).await.unwrap();
    assert_eq!((found.runs.len(), found.files, found.rows), (1, 2, 2));
    assert_eq!(found.runs[0].status, RunStatus::Succeeded, "its end was read too");

    let since = ScalarValue::TimestampMicrosecond(Some(NOW - 3 * HOUR), Some("UTC".into()));
    let recent = term("started_at", Operator::GtEq, since);
    let found = w.runs().matching(Some(&recent)).await.unwrap();
    assert_eq!((found.runs.len(), found.files), (3, 6));

    let kind = term("kind", Operator::Eq, ScalarValue::from("refresh"));
    let found = w.runs().matching(Some(&kind)).await.unwrap();
    assert_eq!((found.runs.len(), found.files), (15, 30));

    // bounds say nothing of the end of a text: every file is read, and the rows of other runs are left out
    let [object, pattern]: [Arc<dyn PhysicalExpr>; 2] =
        [Arc::new(Column::new("object", 2)), Arc::new(Literal::new(ScalarValue::from("%v1")))];
    let ending: Arc<dyn PhysicalExpr> = Arc::new(LikeExpr::new(false, false, object, pattern));
    let found = w.runs().matching(Some(&ending)).await.unwrap();
    assert_eq!((found.runs.len(), found.files, found.rows), (10, 60, 20));

    // a run has rows of several statuses: which one counts is known when all of them are read
    let running = term("status", Operator::Eq, ScalarValue::from("running"));
    let both: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(running, Operator::And, one));
    let found = w.runs().matching(Some(&both)).await.unwrap();
    assert_eq!((found.runs.len(), found.files, found.runs[0].status), (1, 2, RunStatus::Succeeded));
}

#[tokio::test]
async fn a_filter_on_runs_changes_no_answer() {
    let w = open().await;
    many_runs(&w).await;
    // the same over rows that no filter has reached: it stands above a LIMIT
    let plain = "(SELECT * FROM system.runs LIMIT 1000)";
    for filter in [
        "run_id = 'run-07'",
        "run_id IN ('run-07', 'run-11') AND status = 'succeeded'",
        "run_id >= 'run-25' OR status = 'failed'",
        "kind = 'refresh' AND version = 1 AND object LIKE '%v1'",
        "started_at > now() - INTERVAL '5 hours'",
        "started_at BETWEEN '2024-10-03T00:00:00Z' AND '2024-10-03T06:00:00Z'",
        "status = 'running'",
        "status <> 'failed' AND rows_written > 20",
        "finished_at IS NULL",
        "version + 1 = 2 AND kind <> 'vacuum'",
        "error IS NULL AND NOT (object = 'public.v2')",
    ] {
        let [pushed, above] = ["system.runs", plain].map(|from| format!("SELECT * FROM {from} WHERE {filter} ORDER BY run_id"));
        assert_eq!(shown(&w.sql(&pushed).await), shown(&w.sql(&above).await), "{filter}");
    }
    let counted = w.sql("SELECT count(*) AS n FROM system.runs WHERE started_at > now() - INTERVAL '5 hours'").await;
    assert!(shown(&counted).contains("| 4 "), "{}", shown(&counted));
}

/// A filter on a flag spares the table the rows without it, so that a view over versions opens no table of another one.
#[tokio::test]
async fn feature_views_reads_the_tables_of_current_versions_alone() {
    let w = open().await;
    for text in [
        "CREATE ENTITY u KEY (user_id BIGINT)",
        "CREATE TABLE t AS SELECT 1 AS user_id, TIMESTAMP '2024-01-01' AS ts, 2 AS v",
        "CREATE FEATURE VIEW f ENTITY u EVENT TIMESTAMP ts AS SELECT user_id, ts, v FROM t",
        "REFRESH FEATURE VIEW f",
        "CREATE OR REPLACE FEATURE VIEW f ENTITY u EVENT TIMESTAMP ts AS SELECT user_id, ts, v * 2 AS v FROM t",
        "REFRESH FEATURE VIEW f@v2",
    ] {
        w.session.execute(text).await.unwrap();
    }
    let plan = shown(&w.sql("EXPLAIN ANALYZE SELECT name, rows FROM system.feature_views").await);
    assert!(plan.contains("selectivity=100% (1/1)"), "{plan}");
    let rows = shown(&w.sql("SELECT version, rows FROM system.feature_views").await);
    assert!(rows.contains("| 2       | 1    |"), "{rows}");
}
