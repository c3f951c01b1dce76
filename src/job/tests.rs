//! System tables and training sets, by SQL.

mod law;
mod swap;

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;

use crate::catalog::{CatalogChange, CatalogSnapshot, PutMode};
use crate::clock::{Clock, DAY};
use crate::config::Config;
use crate::error::{Kind, Result};
use crate::model::{FeatureView, Name};
use crate::resolve::system;
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

/// Switches a view as older binaries did: its online rows stay where they are, and miss what is stored meanwhile.
pub(super) async fn put_online(services: &crate::services::Services, view: &str, version: Option<u32>, online: bool) {
    let put = |c: &CatalogSnapshot| {
        let view = FeatureView { online, ..c.feature_view(&Name::new("public", view), version)?.clone() };
        Ok((vec![CatalogChange::PutFeatureView(view, PutMode::Replace)], ()))
    };
    services.registry.commit(None, put).await.unwrap();
}

#[tokio::test]
async fn every_system_table_can_be_read_and_sorted_when_empty() {
    let w = open().await;
    for table in system::names() {
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

/// Two folders `day=…` of Parquet files with columns (k, x), and (k, day, x) where `inside`.
async fn partitioned(w: &Warehouse, inside: bool) -> String {
    let root = w.dir.path().join(if inside { "inside" } else { "outside" });
    for day in ["2026-01-01", "2026-01-02"] {
        let folder = root.join(format!("day={day}"));
        std::fs::create_dir_all(&folder).unwrap();
        let column = if inside { format!("'{day}' AS day,") } else { String::new() };
        let file = folder.join("a.parquet");
        w.run(&format!("COPY (SELECT CAST(1 AS BIGINT) AS k, {column} CAST(3 AS BIGINT) AS x) TO '{}' STORED AS PARQUET", file.display()))
            .await;
    }
    format!("{}/", root.display())
}

#[tokio::test]
async fn partition_columns_may_be_declared_or_stand_in_the_files_too() {
    let w = open().await;
    let (outside, inside) = (partitioned(&w, false).await, partitioned(&w, true).await);
    let tables = [
        format!("(k BIGINT, x BIGINT) STORED AS PARQUET PARTITIONED BY (day) LOCATION '{outside}'"),
        format!("(k BIGINT, x BIGINT, day VARCHAR) STORED AS PARQUET PARTITIONED BY (day) LOCATION '{outside}'"),
        format!("(k BIGINT, day DATE, x BIGINT) STORED AS PARQUET PARTITIONED BY (\"day\") LOCATION '{outside}'"),
        format!("(k BIGINT, x BIGINT) STORED AS PARQUET PARTITIONED BY (day VARCHAR) LOCATION '{outside}'"),
        format!("STORED AS PARQUET PARTITIONED BY (day) LOCATION '{inside}'"),
        format!("(k BIGINT, x BIGINT, day VARCHAR) STORED AS PARQUET PARTITIONED BY (Day) LOCATION '{inside}'"),
    ];
    for (i, table) in tables.iter().enumerate() {
        w.run(&format!("CREATE EXTERNAL TABLE t{i} {table}")).await;
        let rows =
            w.sql(&format!("SELECT k, x, CAST(day AS VARCHAR) AS d FROM t{i} ORDER BY d")).await.unwrap_or_else(|e| panic!("{table}: {e}"));
        let texts: Vec<_> = (0..rows.num_rows())
            .map(|r| (0..3).map(|c| array_value_to_string(rows.column(c), r).unwrap()).collect::<Vec<_>>().join("|"))
            .collect();
        assert_eq!(texts, ["1|3|2026-01-01", "1|3|2026-01-02"], "{table}");
        assert_eq!(w.value(&format!("SELECT count(*) AS n FROM t{i} WHERE day = '2026-01-02'"), "n").await, "1");
        // what SHOW CREATE says makes it again
        let shown = w.value(&format!("SHOW CREATE TABLE t{i}"), "statement").await;
        w.run(&shown.replace("CREATE EXTERNAL", "CREATE OR REPLACE EXTERNAL")).await;
        assert_eq!(w.value(&format!("SELECT count(*) AS n FROM t{i}"), "n").await, "2");
    }
}

#[tokio::test]
async fn external_tables_that_could_not_be_read_are_refused() {
    let w = open().await;
    let outside = partitioned(&w, false).await;
    let csv = w.dir.path().join("csv/day=1");
    std::fs::create_dir_all(&csv).unwrap();
    std::fs::write(csv.join("a.csv"), "k,day\n1,1\n").unwrap();
    let csv = csv.parent().unwrap().display().to_string();
    let wrong = [
        (format!("STORED AS PARQUET PARTITIONED BY (month) LOCATION '{outside}'"), "is called month=…"),
        (format!("STORED AS PARQUET PARTITIONED BY (day, day) LOCATION '{outside}'"), "twice"),
        (format!("(day VARCHAR) STORED AS PARQUET PARTITIONED BY (day) LOCATION '{outside}'"), "all columns are in PARTITIONED BY"),
        (format!("STORED AS CSV PARTITIONED BY (day) LOCATION '{csv}/'"), "the CSV files hold a column \"day\""),
    ];
    for (table, why) in wrong {
        let e = w.sql(&format!("CREATE EXTERNAL TABLE t {table}")).await.unwrap_err();
        assert!(e.message().contains("external table public.t") && e.message().contains(why), "{table}: {e}");
        assert!(w.sql("SELECT * FROM t").await.is_err());
    }
}

#[tokio::test]
async fn an_insert_says_how_many_columns_it_wants() {
    let w = open().await;
    w.run("CREATE TABLE t (a BIGINT, b VARCHAR); CREATE ENTITY u KEY (k BIGINT); CREATE FEATURE VIEW f (x BIGINT) ENTITY u EVENT TIMESTAMP ts")
        .await;
    let wrong = [
        ("INSERT INTO t SELECT * FROM (VALUES (1, 'x', 3)) AS v", "INSERT INTO public.t wants 2 column(s) (a, b); the query gives 3"),
        ("INSERT INTO t SELECT 1", "INSERT INTO public.t wants 2 column(s) (a, b); the query gives 1"),
        ("INSERT INTO t VALUES (1, 'x'), (2)", "INSERT INTO public.t wants 2 column(s) (a, b); row 2 of VALUES has 1"),
        ("INSERT INTO public.t (b) SELECT 'x', 2", "INSERT INTO public.t wants 1 column(s) (b); the query gives 2"),
        ("INSERT INTO f SELECT * FROM (VALUES (1, now())) AS v", "INSERT INTO public.f wants 3 column(s) (k, ts, x); the query gives 2"),
    ];
    for (sql, message) in wrong {
        let e = w.sql(sql).await.unwrap_err();
        assert_eq!((e.kind(), e.message()), (Kind::Invalid, message), "{sql}");
        assert!(e.hint().unwrap().contains("INSERT INTO public."), "{sql}");
    }
    // VALUES below the query are not rows of the target
    w.run(
        "INSERT INTO t SELECT c, d FROM (VALUES (1, 7, 'y')) AS v (x, c, d);
        INSERT INTO t (b, a) SELECT d, c FROM (VALUES ('z', 5)) AS v (d, c);
        INSERT INTO t (b) SELECT 'only';
        INSERT INTO t WITH v AS (SELECT * FROM (VALUES (1), (2)) AS v (n)) SELECT n, 'w' FROM v WHERE n > 1;
        INSERT INTO f SELECT k, '2024-01-01', x FROM (VALUES (1, 2)) AS v (k, x)",
    )
    .await;
    let all = "SELECT string_agg(coalesce(CAST(a AS VARCHAR), '-') || b, ',' ORDER BY b) AS s FROM t";
    assert_eq!(w.value(all, "s").await, "-only,2w,7y,5z");
    assert_eq!(w.value("SELECT x FROM f WHERE ts = '2024-01-01' AND k = 1", "x").await, "2");
}

#[tokio::test]
async fn dictionaries_of_small_keys_are_joined_over_all_files() {
    let w = open().await;
    let folder = w.dir.path().join("dictionaries");
    std::fs::create_dir_all(&folder).unwrap();
    for from in [0, 100, 200] {
        let file = folder.join(format!("{from}.parquet"));
        let query = format!(
            "SELECT v + {from} AS k, TIMESTAMP '2024-01-01' AS ts, arrow_cast('text ' || (v + {from}), 'Dictionary(Int8, Utf8)') AS s
                FROM generate_series(1, 100) AS t (v)"
        );
        // COPY writes plain texts; other writers do not
        let rows = w.sql(&query).await.unwrap();
        let mut writer = ArrowWriter::try_new(std::fs::File::create(file).unwrap(), rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }
    w.run(&format!("CREATE EXTERNAL TABLE d STORED AS PARQUET LOCATION '{}/'", folder.display())).await;
    assert!(w.value("SELECT arrow_typeof(s) AS t FROM d LIMIT 1", "t").await.starts_with("Dictionary(Int32, "));
    w.run("CREATE TABLE labels AS SELECT v AS k, TIMESTAMP '2024-02-01' AS at FROM generate_series(1, 300) AS t (v)").await;
    let joined = "SELECT l.k, d.s FROM labels l ASOF JOIN d MATCH_CONDITION (l.at >= d.ts) ON l.k = d.k";
    let counted = format!("SELECT count(*) AS n FROM ({joined}) AS j WHERE s = 'text ' || k");
    assert_eq!(w.value(&counted, "n").await, "300");
    assert_eq!(w.sql(&format!("{joined} ORDER BY l.k")).await.unwrap().num_rows(), 300);
}

#[tokio::test]
async fn a_point_in_time_join_reads_an_old_version() {
    let w = open().await;
    w.run(SETUP).await;
    w.run("DELETE FROM f WHERE user_id = 2").await;
    let joined = |version: &str| format!("SELECT count(f.orders) AS n FROM labels l ASOF JOIN f {version} AT l.at");
    assert_eq!(w.value(&joined(""), "n").await, "1");
    assert_eq!(w.value(&joined("VERSION AS OF 1"), "n").await, "2");
    assert_eq!(w.value(&joined("VERSION AS OF 1 AS f"), "n").await, "2");
}
