//! What SHOW CREATE says makes the object again, also after a restart.

use std::sync::Arc;

use datafusion::arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use remige::clock::Clock;
use remige::config::Config;
use remige::session::{Engine, Outcome, Session};

const NOW: i64 = 1_772_366_400_000_000;

async fn open(dir: &tempfile::TempDir) -> Arc<Engine> {
    let config = Config { warehouse: dir.path().join("warehouse").to_string_lossy().to_string(), ..Config::default() };
    Engine::open(config, Clock::fixed(NOW)).await.unwrap()
}

/// The text in the first column of the first row.
async fn text(session: &Session, sql: &str) -> String {
    match session.execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")) {
        Outcome::Rows(rows) => {
            let batches: Vec<_> = rows.try_collect().await.unwrap();
            batches.first().map(|b| array_value_to_string(b.column(0), 0).unwrap()).unwrap_or_default()
        }
        Outcome::Updated(_) => String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn show_create_makes_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let objects = [
        (
            "FEATURE VIEW n",
            "CREATE FEATURE VIEW n (s STRUCT<a STRUCT<b BIGINT, c STRUCT<d VARCHAR>[]>>, t STRUCT<a STRUCT<b BIGINT> >) ENTITY u EVENT TIMESTAMP ts",
            "STRUCT<a STRUCT<b BIGINT, c STRUCT<d VARCHAR>[]>>",
        ),
        ("VIEW w", "CREATE VIEW w (a, \"B b\") COMMENT 'it''s' AS SELECT 1, 1", "CREATE VIEW public.w (a, \"B b\")"),
        ("VIEW plain", "CREATE VIEW plain AS SELECT 1 AS x", "CREATE VIEW public.plain AS"),
        ("TABLE \"a\\b/%2F..\"", "CREATE TABLE \"a\\b/%2F..\" (s STRUCT<a STRUCT<b BIGINT>>)", "STRUCT<a STRUCT<b BIGINT>>"),
    ];
    let mut shown = vec![];
    {
        let session = open(&dir).await.session();
        text(&session, "CREATE ENTITY u KEY (id BIGINT)").await;
        for (name, sql, part) in objects {
            text(&session, sql).await;
            let first = text(&session, &format!("SHOW CREATE {name}")).await;
            assert!(first.contains(part), "{first}");
            text(&session, &format!("DROP {name}")).await;
            text(&session, &first).await;
            assert_eq!(text(&session, &format!("SHOW CREATE {name}")).await, first);
            shown.push(first);
        }
    }
    let session = open(&dir).await.session();
    for ((name, ..), before) in objects.iter().zip(&shown) {
        assert_eq!(text(&session, &format!("SHOW CREATE {name}")).await, *before);
    }
    assert_eq!(text(&session, "SELECT CAST(a AS VARCHAR) || \"B b\" FROM w").await, "11");
}
