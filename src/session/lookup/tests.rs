use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, StringArray};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;

use super::*;
use crate::clock::{Clock, DAY};
use crate::config::Config;
use crate::session::Engine;

const NOW: i64 = 20_000 * DAY;

struct Warehouse {
    session: Session,
    clock: Clock,
    _dir: tempfile::TempDir,
}

async fn open() -> Warehouse {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { warehouse: dir.path().join("w").display().to_string(), threads: 2, ..Default::default() };
    let clock = Clock::fixed(NOW);
    let session = Engine::open(config, clock.clone()).await.unwrap().session();
    let w = Warehouse { session, clock, _dir: dir };
    w.run(
        "CREATE ENTITY u KEY (user_id BIGINT);
         CREATE ENTITY item KEY (item_id VARCHAR);
         CREATE FEATURE VIEW f (orders BIGINT) ENTITY u EVENT TIMESTAMP ts TTL INTERVAL '30 days' ONLINE;
         CREATE FEATURE VIEW p (price DOUBLE) ENTITY item EVENT TIMESTAMP ts ONLINE;
         INSERT INTO f VALUES (1, TIMESTAMP '2024-10-01 00:00:00', 10), (2, TIMESTAMP '2024-09-20 00:00:00', 20);
         INSERT INTO p VALUES ('a', TIMESTAMP '2024-10-01 00:00:00', 1.5), ('b', TIMESTAMP '2024-10-01 00:00:00', 2.5);
         CREATE FEATURE SERVICE s REQUEST (n BIGINT) AS SELECT f.orders, p.price, n * p.price AS total, now() AS asked FROM f, p",
    )
    .await;
    w
}

impl Warehouse {
    async fn run(&self, script: &str) {
        for (text, ..) in Session::split(script).unwrap() {
            self.rows(&text, None).await.unwrap_or_else(|e| panic!("{text}: {e}"));
        }
    }

    async fn rows(&self, sql: &str, parameters: Option<RecordBatch>) -> Result<String> {
        let prepared = self.session.prepare(sql).await?;
        match self.session.run(&prepared, parameters).await? {
            Outcome::Rows(rows) => {
                let schema = rows.schema();
                assert_eq!(schema.fields().len(), prepared.schema.fields().len());
                let batches: Vec<_> = rows.try_collect().await?;
                Ok(pretty_format_batches(&[concat_batches(&schema, &batches)?])?.to_string())
            }
            Outcome::Updated(n) => Ok(n.to_string()),
        }
    }

    /// Plans that are kept, and those of them that run without streams.
    fn kept(&self) -> (usize, usize) {
        let plans: Vec<_> = self.session.engine.lookups.0.iter().map(|(_, plan)| plan).collect();
        (plans.len(), plans.iter().filter(|p| matches!(p, Plan::Ready(c) if c.is_plain())).count())
    }

    fn is_kept(&self, sql: &str) -> Option<bool> {
        let is_it = |key: &Key| matches!(&key.form, Form::Text(text, _) if text == sql);
        self.session.engine.lookups.0.iter().find(|(key, _)| is_it(key)).map(|(_, p)| matches!(p, Plan::Ready(_)))
    }

    async fn lookup(&self, request: &LookupRequest, rows: &RecordBatch) -> Result<String> {
        let (schema, batches) = self.session.lookup(request, rows).await?;
        Ok(pretty_format_batches(&[concat_batches(&schema, &batches)?])?.to_string())
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn three() -> RecordBatch {
    batch(vec![
        ("$1", Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(1)])) as ArrayRef),
        ("$2", Arc::new(StringArray::from(vec!["b", "nix", "a", "b"]))),
        ("$3", Arc::new(Int64Array::from(vec![2, 3, 4, 5]))),
    ])
}

fn by_name(name: &str) -> LookupRequest {
    LookupRequest { name: name.into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_bound_rows_answer_as_literals_do_and_by_one_plan() {
    let w = open().await;
    let sql = "SELECT * FROM ONLINE_LOOKUP('s', $1, $2, $3, status => true)";
    let literal =
        w.rows("SELECT * FROM ONLINE_LOOKUP('s', (1, 'b', 2), (2, 'nix', 3), (NULL, 'a', 4), (1, 'b', 5), status => true)", None).await;
    let literal = literal.unwrap();
    assert_eq!(w.rows(sql, Some(three())).await.unwrap(), literal);
    assert_eq!((w.is_kept(sql), w.kept()), (Some(true), (1, 1)));
    // again, later: the plan is the same, the instant is not
    w.clock.advance(30 * DAY);
    let later = w.rows(sql, Some(three())).await.unwrap();
    assert!(literal.contains("OUTSIDE_MAX_AGE") != later.contains("PRESENT") || literal != later, "{later}");
    assert!(later.contains("OUTSIDE_MAX_AGE") && later.contains("2024-11-03"), "{later}");
    // expressions above are evaluated per row as well
    let above = "SELECT orders + 1 AS o, upper(item_id) AS i FROM ONLINE_LOOKUP('s', $1, $2, $3) WHERE price IS NOT NULL";
    let answer = w.rows(above, Some(three())).await.unwrap();
    assert_eq!((w.is_kept(above), w.kept()), (Some(true), (2, 1)), "a filter wants a stream");
    assert_eq!(answer.matches("| B |").count(), 2, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_means_something_else_for_many_rows_is_run_for_each() {
    let w = open().await;
    for (sql, rows) in [
        ("SELECT orders FROM ONLINE_LOOKUP('f', $1) LIMIT 1", 2),
        ("SELECT count(*) AS n FROM ONLINE_LOOKUP('f', $1)", 2),
        ("SELECT orders FROM ONLINE_LOOKUP('f', $1) ORDER BY orders", 2),
        ("SELECT orders, now() AS t FROM ONLINE_LOOKUP('f', $1)", 2),
        ("SELECT orders FROM ONLINE_LOOKUP('f', ($1), ($1 + 1))", 4),
        ("SELECT orders + $1 AS x FROM ONLINE_LOOKUP('f', $1)", 2),
    ] {
        let two = batch(vec![("$1", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]);
        let answer = w.rows(sql, Some(two)).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(answer.lines().count() - 4, rows, "{sql}\n{answer}");
        assert_eq!(w.is_kept(sql), Some(false), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_by_name_takes_columns_by_name() {
    let w = open().await;
    let rows = batch(vec![
        ("n", Arc::new(Int32Array::from(vec![2, 3])) as ArrayRef),
        ("other", Arc::new(Int32Array::from(vec![0, 0]))),
        ("item_id", Arc::new(StringArray::from(vec!["b", "a"]))),
        ("user_id", Arc::new(Int32Array::from(vec![1, 2]))),
    ]);
    let literal = w.rows("SELECT * FROM ONLINE_LOOKUP('s', (1, 'b', 2), (2, 'a', 3))", None).await.unwrap();
    assert_eq!(w.lookup(&by_name("s"), &rows).await.unwrap(), literal);
    assert_eq!(w.lookup(&by_name("public.s"), &rows).await.unwrap(), literal);
    assert_eq!(w.kept(), (2, 2));
    // another instant is the same plan
    let at = NOW + 30 * DAY;
    let late = LookupRequest { at: Some(at), status: true, ..by_name("f") };
    let answer = w.lookup(&late, &rows).await.unwrap();
    let same = w.rows("SELECT * FROM ONLINE_LOOKUP('f', 1, 2, at => TIMESTAMP '2024-11-03 00:00:00', status => true)", None).await.unwrap();
    assert_eq!(answer, same);

    let refused = |rows: RecordBatch, name: &'static str| {
        let w = &w;
        async move { w.lookup(&by_name(name), &rows).await.unwrap_err() }
    };
    let missing = refused(batch(vec![("user", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]), "f").await;
    assert_eq!(missing.kind(), Kind::NotFound);
    assert!(missing.message().contains("\"user_id\"") && missing.hint().unwrap().contains("wanted are user_id"), "{missing}");
    let lossy = refused(batch(vec![("user_id", Arc::new(Float64Array::from(vec![1.5])) as ArrayRef)]), "f").await;
    assert!(lossy.message().contains("user_id") && lossy.message().contains("Float64"), "{lossy}");
    let text = refused(batch(vec![("user_id", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]), "f").await;
    assert_eq!(text.kind(), Kind::Invalid);
    let unknown = refused(batch(vec![("user_id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]), "g").await;
    assert_eq!((unknown.kind(), unknown.span()), (Kind::NotFound, None), "its place is in no text of the caller's");
    let quoted = refused(batch(vec![("user_id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]), "f'); DROP FEATURE VIEW f; --").await;
    assert!(matches!(quoted.kind(), Kind::Syntax | Kind::NotFound), "{quoted}");
    assert!(w.rows("SELECT * FROM f", None).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_catalog_is_seen_at_once_here_and_within_its_age_elsewhere() {
    let w = open().await;
    let one = || batch(vec![("$1", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    let sql = "SELECT * FROM ONLINE_LOOKUP('f', $1)";
    let first = w.rows(sql, Some(one())).await.unwrap();
    // another process on the same warehouse
    let config = w.session.engine.config().clone();
    let other = Engine::open(config, w.clock.clone()).await.unwrap().session();
    let prepared = other.prepare(sql).await.unwrap();
    assert!(matches!(other.run(&prepared, Some(one())).await.unwrap(), Outcome::Rows(_)));

    w.run("DROP FEATURE SERVICE s; DROP FEATURE VIEW f").await;
    assert_eq!(w.session.run(&prepared, Some(one())).await.err().unwrap().kind(), Kind::NotFound);
    // there the old catalog still stands; its rows are gone, so it looks again
    assert_eq!(other.run(&prepared, Some(one())).await.err().unwrap().kind(), Kind::NotFound);
    w.run(
        "CREATE FEATURE VIEW f (orders BIGINT) ENTITY u EVENT TIMESTAMP ts ONLINE;
         INSERT INTO f VALUES (1, TIMESTAMP '2024-10-01 00:00:00', 11)",
    )
    .await;
    let again = w.rows(sql, Some(one())).await.unwrap();
    assert_ne!(again, first);
    assert!(again.contains("11"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_of_other_types_spoils_no_plan() {
    let w = open().await;
    let sql = "SELECT * FROM ONLINE_LOOKUP('s', $1, $2, $3)";
    let old = w.session.prepare(sql).await.unwrap();
    w.run(
        "CREATE OR REPLACE FEATURE SERVICE s REQUEST (n DOUBLE) AS
         SELECT f.orders, p.price, p.price * n AS total FROM f, p",
    )
    .await;
    // the old handle comes first, with what it was told to bring
    let e = w.session.run(&old, Some(three())).await.err().unwrap();
    assert!(e.kind() == Kind::Conflict && e.message().contains("$3") && e.hint().unwrap().contains("prepare"), "{e}");
    let row = batch(vec![
        ("$1", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("$2", Arc::new(StringArray::from(vec!["b"]))),
        ("$3", Arc::new(Float64Array::from(vec![9.5]))),
    ]);
    let answer = w.rows(sql, Some(row)).await.unwrap();
    assert!(answer.contains("| 9.5 |") && answer.contains("23.75"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { warehouse: dir.path().join("w").display().to_string(), ..Default::default() };
    config.online_settings.max_keys = 3;
    let session = Engine::open(config, Clock::fixed(NOW)).await.unwrap().session();
    let w = Warehouse { session, clock: Clock::fixed(NOW), _dir: dir };
    w.run("CREATE ENTITY u KEY (user_id BIGINT); CREATE FEATURE VIEW f (orders BIGINT) ENTITY u EVENT TIMESTAMP ts ONLINE").await;
    let four = batch(vec![("user_id", Arc::new(Int64Array::from(vec![1, 1, 1, 1])) as ArrayRef)]);
    assert_eq!(w.lookup(&by_name("f"), &four).await.unwrap_err().kind(), Kind::Exhausted);
    assert!(w.lookup(&by_name("f"), &four.slice(0, 3)).await.is_ok());
}
