//! A plain table that one process replaces while another puts rows into it, in every order that matters.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::*;
use crate::model::Table;
use crate::table::swap::Replacement;

/// Two processes at one warehouse.
struct Two {
    a: Arc<Engine>,
    b: Arc<Engine>,
    _dir: tempfile::TempDir,
}

async fn run(engine: &Arc<Engine>, sql: &str) -> Result<RecordBatch> {
    match engine.session().execute(sql).await? {
        Outcome::Rows(rows) => {
            let schema = rows.schema();
            let batches: Vec<RecordBatch> = rows.try_collect().await?;
            Ok(concat_batches(&schema, &batches)?)
        }
        Outcome::Updated(_) => Ok(RecordBatch::new_empty(Arc::new(datafusion::arrow::datatypes::Schema::empty()))),
    }
}

impl Two {
    async fn open() -> Two {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { warehouse: dir.path().join("w").display().to_string(), threads: 2, ..Default::default() };
        let a = Engine::open(config.clone(), Clock::fixed(NOW)).await.unwrap();
        run(&a, "CREATE TABLE t AS SELECT * FROM (VALUES (1), (2)) AS v (id)").await.unwrap();
        let b = Engine::open(config, Clock::fixed(NOW)).await.unwrap();
        Two { a, b, _dir: dir }
    }

    /// Between the last look at a table and its commit, A lets B run statements.
    fn meanwhile(&self, sql: &'static [&'static str]) {
        let b = Arc::clone(&self.b);
        let step: BoxFuture<'static, ()> = Box::pin(async move {
            for s in sql {
                run(&b, s).await.unwrap_or_else(|e| panic!("{s}: {e}"));
            }
        });
        *self.a.services().store.meanwhile.lock() = Some(step);
    }

    async fn ids(&self) -> Vec<i64> {
        let rows = run(&self.b, "SELECT id FROM t ORDER BY id").await.unwrap();
        rows.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    fn hook_ran(&self) {
        assert!(self.a.services().store.meanwhile.lock().is_none());
    }

    async fn table(&self) -> Table {
        let catalog = self.b.services().registry.snapshot().await.unwrap();
        catalog.table(&Name::new("public", "t")).unwrap().as_ref().clone()
    }

    fn tables(&self) -> usize {
        let of = self._dir.path().join("w/tables/public/t");
        std::fs::read_dir(of).map_or(0, |d| d.count())
    }
}

#[tokio::test]
async fn rows_that_come_after_a_table_was_read_are_not_lost_by_its_replacement() {
    for query in [
        "CREATE OR REPLACE TABLE t AS SELECT id + 10 AS id FROM t",
        "CREATE OR REPLACE TABLE t AS SELECT id FROM over_t WHERE id IN (SELECT max(id) FROM over_t)",
        "INSERT OVERWRITE t SELECT id + 10 FROM t",
        "INSERT OVERWRITE t SELECT id FROM over_t",
    ] {
        let w = Two::open().await;
        run(&w.a, "CREATE VIEW over_t AS SELECT id FROM t").await.unwrap();
        w.meanwhile(&["INSERT INTO t VALUES (-1)"]);
        let e = run(&w.a, query).await.unwrap_err();
        w.hook_ran();
        assert_eq!(e.kind(), Kind::Conflict, "{query}: {e}");
        assert!(e.to_string().starts_with("table public.t: somebody else changed it meanwhile"), "{e}");
        assert_eq!(w.ids().await, [-1, 1, 2], "{query}");
        assert_eq!(w.table().await.replacing, None, "{query}");
        assert_eq!(w.tables(), 1, "{query}: the half-made table is removed");
        run(&w.a, query).await.unwrap_or_else(|e| panic!("{query} again: {e}"));
        assert_eq!(w.tables(), 1, "{query}");
    }
}

#[tokio::test]
async fn a_replacement_that_reads_no_newest_rows_wins() {
    for query in [
        "CREATE OR REPLACE TABLE t AS SELECT CAST(7 AS BIGINT) AS id",
        "CREATE OR REPLACE TABLE t AS SELECT 7 AS id FROM t VERSION AS OF 1 LIMIT 1",
    ] {
        let w = Two::open().await;
        w.meanwhile(&["INSERT INTO t VALUES (-1)"]);
        run(&w.a, query).await.unwrap();
        w.hook_ran();
        assert_eq!(w.ids().await, [7], "{query}");
    }
}

#[tokio::test]
async fn rows_for_a_table_that_was_replaced_or_dropped_are_refused() {
    let cases: [(&'static [&'static str], &str); 4] = [
        (&["CREATE OR REPLACE TABLE t AS SELECT CAST(7 AS BIGINT) AS id"], "it was replaced"),
        (&["CREATE OR REPLACE TABLE t AS SELECT id FROM t"], "it was replaced"),
        (&["DROP TABLE t", "CREATE TABLE t AS SELECT CAST(7 AS BIGINT) AS id"], "it was replaced"),
        (&["DROP TABLE t"], "it was dropped"),
    ];
    for (others, why) in cases {
        for insert in ["INSERT INTO t VALUES (-1)", "INSERT OVERWRITE t VALUES (-1)"] {
            let w = Two::open().await;
            w.meanwhile(others);
            let e = run(&w.a, insert).await.unwrap_err();
            w.hook_ran();
            assert_eq!(e.kind(), Kind::Conflict, "{others:?}, {insert}: {e}");
            assert!(e.to_string().contains(why), "{others:?}: {e}");
            let left = usize::from(others != ["DROP TABLE t"]);
            assert_eq!(w.tables(), left, "{others:?}, {insert}: nothing is left of the old table");
        }
    }
}

#[tokio::test]
async fn whoever_comes_after_the_announcement_waits_for_what_becomes_of_it() {
    let w = Two::open().await;
    let (name, services) = (Name::new("public", "t"), w.b.services());
    let read = services.store.snapshot(&w.table().await.location, None).await.unwrap();
    // its process has died: the rows go in, and it cannot come back
    let dead = Replacement::announce(services, &name, &read).await.unwrap();
    assert!(dead.stands(&w.table().await));
    run(&w.a, "INSERT INTO t VALUES (-1)").await.unwrap();
    assert!(!dead.stands(&w.table().await));
    assert_eq!(w.ids().await, [-1, 1, 2]);
    // rows have come that it has not read
    let late = Replacement::announce(services, &name, &read).await.unwrap_err();
    assert_eq!(late.kind(), Kind::Conflict);
    assert_eq!(w.table().await.replacing, None);
    // a later one takes the place of an earlier one
    let read = services.store.snapshot(read.location(), None).await.unwrap();
    let first = Replacement::announce(services, &name, &read).await.unwrap();
    let second = Replacement::announce(services, &name, &read).await.unwrap();
    assert!(!first.stands(&w.table().await) && second.stands(&w.table().await));
    first.withdraw(services).await;
    assert!(second.stands(&w.table().await), "who is overtaken takes nothing back");
    // it is switched to while the rows are being committed
    let (b, new) = (Arc::clone(&w.b), Table { location: "tables/public/new".into(), replacing: None, ..w.table().await });
    *w.a.services().store.meanwhile.lock() = Some(Box::pin(async move {
        b.services().registry.commit(None, |_| Ok((vec![CatalogChange::PutTable(new.clone(), PutMode::Replace)], ()))).await.unwrap();
    }));
    let e = run(&w.a, "INSERT INTO t VALUES (-2)").await.unwrap_err();
    assert_eq!(e.kind(), Kind::Conflict, "{e}");
    assert!(e.to_string().contains("it was replaced"), "{e}");
}
