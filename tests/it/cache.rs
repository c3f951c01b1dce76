//! The cache of hot rows behind whole statements.

use datafusion::arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use remige::clock::{Clock, SECOND};
use remige::config::Config;
use remige::session::{Engine, Outcome, Session};

async fn sql(session: &Session, text: &str) -> String {
    match session.execute(text).await.unwrap_or_else(|e| panic!("{text}: {e}")) {
        Outcome::Rows(rows) => pretty_format_batches(&rows.try_collect::<Vec<_>>().await.unwrap()).unwrap().to_string(),
        Outcome::Updated(n) => n.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_sees_its_own_writes_and_others_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(1_772_366_400_000_000);
    let open = async |cache_bytes| {
        let mut config = Config { warehouse: dir.path().join("w").to_string_lossy().to_string(), ..Config::default() };
        config.online_settings.cache_bytes = cache_bytes;
        Engine::open(config, clock.clone()).await.unwrap().session()
    };
    let (here, there) = (open(1 << 20).await, open(0).await);
    sql(&here, "CREATE ENTITY user KEY (user_id BIGINT)").await;
    sql(&here, "CREATE FEATURE VIEW f (x BIGINT) ENTITY user EVENT TIMESTAMP ts ONLINE").await;
    let look = "SELECT x FROM ONLINE_LOOKUP('f', 1)";
    let row = |x: i64| format!("INSERT INTO f VALUES (1, now() - INTERVAL '1 day' + INTERVAL '{x} seconds', {x})");
    for x in 10..13 {
        sql(&here, &row(x)).await;
        assert!(sql(&here, look).await.contains(&format!(" {x} ")));
    }
    sql(&here, "DELETE FROM f WHERE x = 12").await;
    assert!(sql(&here, look).await.contains(" 11 "));
    sql(&there, &row(20)).await;
    assert!(sql(&there, look).await.contains(" 20 "));
    assert!(sql(&here, look).await.contains(" 11 "), "read less than a second ago");
    clock.advance(SECOND);
    assert!(sql(&here, look).await.contains(" 20 "));
    // a new generation, and then none
    sql(&here, "ALTER FEATURE VIEW f SET TTL INTERVAL '1 second'").await;
    sql(&here, "MATERIALIZE FEATURE VIEW f FULL").await;
    assert!(
        sql(&here, &format!("{}, status => true)", look.trim_end_matches(')').replace("SELECT x", "SELECT f__status")))
            .await
            .contains("OUTSIDE_MAX_AGE")
    );
    sql(&here, "DROP FEATURE VIEW f").await;
    assert!(here.execute(look).await.is_err());
}
