//! System tables and training sets, by SQL.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::util::display::array_value_to_string;
use futures::TryStreamExt;

use super::system;
use crate::clock::{Clock, DAY};
use crate::config::Config;
use crate::error::{Kind, Result};
use crate::session::{Engine, Outcome, Session};

const NOW: i64 = 20_000 * DAY;

struct Warehouse {
    session: Session,
    clock: Clock,
    dir: tempfile::TempDir,
}

async fn open() -> Warehouse {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { warehouse: dir.path().join("w").display().to_string(), threads: 2, ..Default::default() };
    let clock = Clock::fixed(NOW);
    let session = Engine::open(config, clock.clone()).await.unwrap().session();
    Warehouse { session, clock, dir }
}

impl Warehouse {
    async fn sql(&self, text: &str) -> Result<RecordBatch> {
        match self.session.execute(text).await? {
            Outcome::Rows(rows) => {
                let schema = rows.schema();
                let batches: Vec<RecordBatch> = rows.try_collect().await?;
                Ok(concat_batches(&schema, &batches)?)
            }
            Outcome::Updated(_) => Ok(RecordBatch::new_empty(Arc::new(datafusion::arrow::datatypes::Schema::empty()))),
        }
    }

    async fn run(&self, script: &str) {
        for (text, ..) in Session::split(script).unwrap() {
            self.sql(&text).await.unwrap_or_else(|e| panic!("{text}: {e}"));
        }
    }

    /// One cell as text.
    async fn value(&self, text: &str, column: &str) -> String {
        let b = self.sql(text).await.unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(b.num_rows(), 1, "{text}");
        array_value_to_string(b.column_by_name(column).unwrap(), 0).unwrap()
    }

    fn notices(&self) -> String {
        self.session.notices().into_iter().map(|n| n.message).collect::<Vec<_>>().join("\n")
    }

    fn tables_of(&self, folder: &str) -> usize {
        let of = self.dir.path().join("w").join(folder);
        std::fs::read_dir(of).map_or(0, |d| d.count())
    }
}

/// A push view with two users, and labels.
const SETUP: &str = "
    CREATE ENTITY u KEY (user_id BIGINT);
    CREATE FEATURE VIEW f (orders BIGINT) ENTITY u EVENT TIMESTAMP ts;
    INSERT INTO f VALUES (1, '2024-01-01', 10), (2, '2024-01-02', 20);
    CREATE TABLE labels AS SELECT * FROM (VALUES (2, TIMESTAMP '2024-02-01'), (1, TIMESTAMP '2024-02-02')) AS t (user_id, at);
    CREATE TRAINING SET train COMMENT 'first' AS SELECT l.user_id, l.at, f.orders FROM labels l ASOF JOIN f AT l.at";

#[tokio::test]
async fn every_system_table_can_be_read_and_sorted_when_empty() {
    let w = open().await;
    for table in system::TABLES {
        let all = w.sql(&format!("SELECT * FROM system.{table} ORDER BY 1")).await.unwrap_or_else(|e| panic!("{table}: {e}"));
        assert!(all.num_columns() > 2, "{table}");
        let count = w.sql(&format!("SELECT count(*) AS n FROM system.{table}")).await.unwrap();
        assert_eq!(count.column(0).as_primitive::<Int64Type>().value(0), all.num_rows() as i64, "{table}");
    }
    for list in ["ENTITIES", "FEATURE VIEWS", "FEATURES", "FEATURE SERVICES", "TRAINING SETS", "RUNS", "SOURCES"] {
        let b = w.sql(&format!("SHOW {list} LIKE 'a%'")).await.unwrap_or_else(|e| panic!("{list}: {e}"));
        assert_eq!(b.num_rows(), 0, "{list}");
    }
}

#[tokio::test]
async fn shows_what_exists() {
    let w = open().await;
    w.run(SETUP).await;
    assert_eq!(w.value("SHOW ENTITIES", "keys").await, "user_id BIGINT");
    assert_eq!(w.value("SHOW FEATURE VIEWS", "rows").await, "2");
    assert_eq!(w.value("SHOW FEATURE VIEWS", "watermark").await, "2024-01-02T00:00:00Z");
    assert_eq!(w.value("SHOW FEATURE VIEWS", "kind").await, "push");
    assert_eq!(w.value("SHOW VERSIONS OF f", "is_current").await, "true");
    assert_eq!(w.value("SHOW FEATURES", "data_type").await, "BIGINT");
    assert_eq!(w.value("SHOW TRAINING SETS", "comment").await, "first");
    assert_eq!(w.value("SHOW SOURCES", "kind").await, "table");
    assert_eq!(w.sql("SHOW TABLES").await.unwrap().num_rows(), 3);
    w.run("SET batch_size = 99").await;
    assert_eq!(w.value("SHOW batch_size", "value").await, "99");
    assert!(w.sql("SET batch_size = 0").await.is_err());
}

#[tokio::test]
async fn an_unreachable_online_store_is_said_and_its_password_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        Config { warehouse: dir.path().display().to_string(), online: "redis://me:hush@127.0.0.1:1/0".into(), ..Default::default() };
    let session = Engine::open(config, Clock::fixed(NOW)).await.unwrap().session();
    let w = Warehouse { session, clock: Clock::fixed(NOW), dir };
    w.run("CREATE ENTITY u KEY (user_id BIGINT); CREATE FEATURE VIEW f (n BIGINT) ENTITY u EVENT TIMESTAMP ts ONLINE").await;
    assert_eq!(w.value("SELECT * FROM system.online", "offline_version").await, "0");
    assert_eq!(w.value("SELECT * FROM system.online", "keys").await, "");
    let error = w.value("SELECT error FROM system.online", "error").await;
    assert!(error.contains("cannot reach the online store") && error.contains("127.0.0.1:1") && !error.contains("hush"), "{error}");
    let shown = w.value("SELECT value FROM system.settings WHERE name = 'online'", "value").await;
    assert!(!shown.contains("hush") && shown.contains("127.0.0.1"), "{shown}");
}

#[tokio::test]
async fn a_training_set_is_made_again_at_its_versions() {
    let w = open().await;
    w.run(SETUP).await;
    w.clock.advance(DAY);
    // later rows, other definitions: none of it reaches the rebuilt set
    w.run(
        "INSERT INTO f VALUES (1, '2024-01-15', 11); INSERT INTO labels VALUES (1, TIMESTAMP '2024-03-01');
        ALTER FEATURE VIEW f SET TTL INTERVAL '1 day'",
    )
    .await;
    let b = w.sql("REBUILD TRAINING SET train").await.unwrap();
    assert!(b.column_by_name("identical").unwrap().as_boolean().value(0));
    assert_eq!(b.column_by_name("rows").unwrap().as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(w.value("SELECT sum(orders) AS n FROM train", "n").await, "30");
    w.run("CREATE OR REPLACE TRAINING SET train AS SELECT l.user_id, l.at, f.orders FROM labels l ASOF JOIN f AT l.at").await;
    assert_eq!(w.value("SHOW TRAINING SETS", "rows").await, "3");
    assert_eq!(w.tables_of("training_sets/public/train"), 1, "the replaced rows are gone");
    let e = w.sql("CREATE TRAINING SET train AS SELECT 1 AS a").await.unwrap_err();
    assert_eq!(e.kind(), Kind::AlreadyExists);
}

#[tokio::test]
async fn the_content_hash_knows_every_value_but_no_order() {
    let w = open().await;
    let hash = async |name: &str, query: &str| {
        w.run(&format!("CREATE TRAINING SET {name} AS {query}")).await;
        w.value(&format!("SHOW TRAINING SETS LIKE '{name}'"), "content_hash").await
    };
    let a = hash("a", "SELECT * FROM (VALUES (1, 'x'), (2, 'y'), (3, NULL)) AS t (n, s) ORDER BY n").await;
    assert_eq!(a, hash("b", "SELECT * FROM (VALUES (3, NULL), (2, 'y'), (1, 'x')) AS t (n, s) ORDER BY n DESC").await);
    assert_ne!(a, hash("c", "SELECT * FROM (VALUES (1, 'x'), (2, 'y'), (3, '')) AS t (n, s)").await);
    assert_ne!(a, hash("d", "SELECT * FROM (VALUES (1, 'x'), (2, 'y'), (3, NULL)) AS t (n, z)").await);
    assert_ne!(a, hash("e", "SELECT * FROM (VALUES (1, 'x'), (2, 'y'), (3, NULL), (3, NULL), (3, NULL)) AS t (n, s)").await);
    let down = w.sql("SELECT n FROM b").await.unwrap();
    assert_eq!(down.column(0).as_primitive::<Int64Type>().values(), &[3, 2, 1], "stored as ordered");
}

#[tokio::test]
async fn changed_source_files_are_named() {
    let w = open().await;
    let files = w.dir.path().join("in");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("a.csv"), "n\n1\n").unwrap();
    std::fs::write(files.join("b.csv"), "n\n2\n").unwrap();
    w.run(&format!("CREATE EXTERNAL TABLE src STORED AS CSV LOCATION '{}/'; CREATE TRAINING SET t AS SELECT n FROM src", files.display()))
        .await;
    assert_eq!(w.value("REBUILD TRAINING SET t", "identical").await, "true");
    std::fs::write(files.join("b.csv"), "n\n2\n3\n").unwrap();
    std::fs::write(files.join("c.csv"), "n\n4\n").unwrap();
    let e = w.sql("REBUILD TRAINING SET t").await.unwrap_err();
    assert!(e.message().contains("b.csv (changed)") && e.message().contains("c.csv (new)"), "{e}");
    assert!(!e.message().contains("a.csv"), "{e}");
}

#[tokio::test]
async fn pinned_data_outlive_their_objects_and_go_with_the_set() {
    let w = open().await;
    w.run(SETUP).await;
    w.run("DROP FEATURE VIEW f").await;
    assert!(w.notices().contains("training set public.train"), "{}", w.notices());
    w.run("DROP TABLE labels").await;
    assert_eq!((w.tables_of("features/public/f"), w.tables_of("tables/public/labels")), (1, 1));
    assert_eq!(w.value("REBUILD TRAINING SET train", "identical").await, "true");
    w.run("DROP TRAINING SET train").await;
    assert_eq!(
        (w.tables_of("features/public/f"), w.tables_of("tables/public/labels"), w.tables_of("training_sets/public/train")),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn what_cannot_be_made_again_is_refused() {
    let w = open().await;
    w.run(SETUP).await;
    for (query, word) in [
        ("SELECT name FROM system.entities", "system.entities"),
        ("SELECT random() AS r", "random"),
        ("SELECT user_id FROM labels WHERE user_id = $1", "$1"),
        ("SELECT 1 AS a, 2 AS \"A\", 3 AS a", "a"),
    ] {
        let e = w.sql(&format!("CREATE TRAINING SET no AS {query}")).await.err().unwrap_or_else(|| panic!("{query}"));
        assert!(e.message().contains(word), "{query}: {e}");
    }
    assert_eq!(w.tables_of("training_sets/public/no"), 0);
}

#[tokio::test]
async fn empty_feature_tables_can_be_sorted() {
    let w = open().await;
    w.run("CREATE ENTITY u KEY (user_id BIGINT); CREATE FEATURE VIEW f (n BIGINT) ENTITY u EVENT TIMESTAMP ts").await;
    assert_eq!(w.sql("SELECT * FROM f ORDER BY n").await.unwrap().num_rows(), 0);
    assert_eq!(w.value("SELECT count(*) AS c FROM f", "c").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_loses_the_race_to_create_leaves_nothing_behind() {
    let w = open().await;
    w.run("CREATE ENTITY u KEY (user_id BIGINT)").await;
    for statement in [
        "CREATE TABLE IF NOT EXISTS t AS SELECT value FROM generate_series(0, 1000)",
        "CREATE TABLE IF NOT EXISTS e (a BIGINT)",
        "CREATE FEATURE VIEW IF NOT EXISTS f (x BIGINT) ENTITY u EVENT TIMESTAMP ts",
    ] {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let session = w.session.engine().session();
            tasks.spawn(async move { session.execute(statement).await.map(|_| ()) });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap().unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
    }
    for folder in ["tables/public/t", "tables/public/e", "features/public/f"] {
        assert_eq!(w.tables_of(folder), 1, "{folder}");
    }
    assert_eq!(w.value("SELECT count(*) AS n FROM t", "n").await, "1001");
}
