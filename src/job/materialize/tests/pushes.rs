//! INSERTs that share commits.

use super::*;
use crate::services::commit_queue::CommitQueue;
use tokio::task::JoinHandle;

type Answer = JoinHandle<crate::error::Result<Outcome>>;

impl World {
    fn spawn(&self, sql: String) -> Answer {
        let session = self.engine.session();
        tokio::spawn(async move { session.execute(&sql).await })
    }

    async fn location(&self) -> String {
        let catalog = self.engine.services().registry.snapshot().await.unwrap();
        let name = crate::model::Name { schema: self.session.current_schema(), name: "v".into() };
        catalog.feature_view(&name, None).unwrap().location.clone()
    }

    async fn version(&self) -> u64 {
        self.engine.services().store.snapshot(&self.location().await, None).await.unwrap().version()
    }

    /// Statements that wait, each for the ones before it; the first one's commit is under way.
    async fn queue(&self, statements: &[String]) -> Vec<Answer> {
        let location = self.location().await;
        let groups: &CommitQueue = &self.engine.services().commit_queue;
        let mut answers: Vec<Answer> = vec![];
        for (n, sql) in statements.iter().enumerate() {
            answers.push(self.spawn(sql.clone()));
            loop {
                match groups.waiting(&location) {
                    Some(0) if n == 0 => break,
                    Some(waiting) if n > 0 && waiting == n => break,
                    _ => crate::clock::sleep(std::time::Duration::from_millis(2)).await,
                }
            }
        }
        answers
    }
}

fn insert(k: i64, x: i64) -> String {
    format!("INSERT INTO v (k, ts, x) VALUES ({k}, '2099-12-31', {x})")
}

fn count(answer: Outcome) -> u64 {
    match answer {
        Outcome::Updated(n) => n,
        Outcome::Rows(_) => panic!("an INSERT answers a count"),
    }
}

async fn inserts_that_meet_share_a_commit(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    w.run(&insert(9, 9)).await;
    let (before, location) = (w.version().await, w.location().await);
    let turn = w.engine.services().store.append_turn(&location);
    let turn = turn.lock().await;
    let mut statements: Vec<String> = (0..10).map(|n| insert(1, n)).collect();
    statements[3] = "INSERT INTO v (k, ts, x) VALUES (3, '2099-12-31', 1), (NULL, '2099-12-31', 2), (4, '2099-12-31', 3)".into();
    let answers = w.queue(&statements).await;
    // bad rows fail their own statement before it gets that far
    assert_eq!(
        w.error("INSERT INTO v (k, ts, x) SELECT 1 AS k, TIMESTAMP '2099-12-31' AS ts, CAST('x' || '1' AS BIGINT) AS x").await.kind(),
        Kind::Invalid
    );
    assert_eq!(w.run("INSERT INTO v (k, ts, x) SELECT 1 AS k, TIMESTAMP '2099-12-31' AS ts, 1 AS x WHERE false").await, ["0"]);
    drop(turn);
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(count(answer.await.unwrap().unwrap()), if n == 3 { 2 } else { 1 }, "statement {n}");
    }
    assert_eq!(w.version().await, before + 2, "the first one, and the nine that came meanwhile");
    // whoever commits sees, after its last answer, that nobody waits
    while w.engine.services().commit_queue.waiting(&location).is_some() {
        crate::clock::sleep(std::time::Duration::from_millis(2)).await;
    }
    // at one instant the later arrival wins, on both sides
    assert_eq!(w.look("1, 3, 4").await, ["9|PRESENT", "1|PRESENT", "3|PRESENT"]);
    let offline = "SELECT v.x FROM (SELECT 1 AS k, TIMESTAMP '2100-01-01' AS at) l ASOF JOIN v AT l.at";
    assert_eq!(w.run(offline).await, ["9"]);
    assert_eq!(w.run("SELECT count(*) FROM v").await, ["12"]);
}

async fn a_cancelled_insert_is_left_out_and_takes_nobody_with_it(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    let location = w.location().await;
    let turn = w.engine.services().store.append_turn(&location);
    let turn = turn.lock().await;
    let answers = w.queue(&[insert(1, 1), insert(2, 2), insert(3, 3)]).await;
    // the statement whose commit is under way, and one that waits
    for n in [0, 1] {
        answers[n].abort();
    }
    while !answers[..2].iter().all(JoinHandle::is_finished) {
        crate::clock::sleep(std::time::Duration::from_millis(2)).await;
    }
    drop(turn);
    let mut answers = answers.into_iter().skip(2);
    assert_eq!(count(answers.next().unwrap().await.unwrap().unwrap()), 1);
    assert_eq!(w.look("1, 2, 3").await, ["1|PRESENT", "NULL|NOT_FOUND", "3|PRESENT"]);
}

async fn many_rows_go_alone(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    let many = "INSERT INTO v (k, ts, x) SELECT value AS k, TIMESTAMP '2099-12-31' AS ts, value AS x FROM generate_series(1, 20000)";
    let all: Vec<Answer> = (0..4).map(|n| w.spawn(if n == 0 { many.into() } else { insert(20_000 + n, n) })).collect();
    for (n, answer) in all.into_iter().enumerate() {
        assert_eq!(count(answer.await.unwrap().unwrap()), if n == 0 { 20_000 } else { 1 });
    }
    assert_eq!(w.run("SELECT count(*) FROM v").await, ["20003"]);
    assert_eq!(w.look("1, 20000, 20003").await, ["1|PRESENT", "20000|PRESENT", "3|PRESENT"]);
}

async fn other_definitions_have_commits_of_their_own(place: fn() -> Place) {
    let w = world(place(), "").await;
    let (before, location) = (w.version().await, w.location().await);
    let turn = w.engine.services().store.append_turn(&location);
    let turn = turn.lock().await;
    let mut answers = w.queue(&[insert(1, 1), insert(2, 2)]).await;
    w.run("ALTER FEATURE VIEW v SET ONLINE").await;
    answers.push(w.spawn(insert(3, 3)));
    while w.engine.services().commit_queue.waiting(&location) != Some(2) {
        crate::clock::sleep(std::time::Duration::from_millis(2)).await;
    }
    drop(turn);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(w.version().await, before + 3);
    assert_eq!(w.look("1, 2, 3").await, ["1|PRESENT", "2|PRESENT", "3|PRESENT"]);
}

on_every_store!(
    inserts_that_meet_share_a_commit,
    a_cancelled_insert_is_left_out_and_takes_nobody_with_it,
    many_rows_go_alone,
    other_definitions_have_commits_of_their_own,
);

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_told_to_all_who_share_it() {
    let mut w = world(Place::redis(), "ONLINE").await;
    w.run(&insert(9, 9)).await;
    let (before, location) = (w.version().await, w.location().await);
    let turn = w.engine.services().store.append_turn(&location);
    let turn = turn.lock().await;
    let answers = w.queue(&[insert(1, 1), insert(2, 2), insert(3, 3)]).await;
    w.place.stop();
    drop(turn);
    let mut errors = vec![];
    for answer in answers {
        errors.push(answer.await.unwrap().err().unwrap());
    }
    assert!(errors.iter().all(|e| e.kind() == Kind::Unavailable && e.message().contains(&w.place.url)), "{errors:?}");
    assert!(errors[0].message().contains("stored in version") && errors[0].hint().unwrap().contains("do not insert"), "{}", errors[0]);
    assert_eq!(errors[1].message(), errors[2].message());
    assert!(!errors[1].message().contains("stored in version"), "{}", errors[1]);
    assert_eq!(w.version().await, before + 1, "nothing of the two that could not be served");
    w.place.start();
    w.run(&insert(4, 4)).await;
    assert_eq!(w.look("1, 2, 4").await, ["1|PRESENT", "NULL|NOT_FOUND", "4|PRESENT"]);
}

#[tokio::test]
async fn many_bound_rows_are_one_commit() {
    use datafusion::arrow::array::{Int64Array, RecordBatch, StringArray};
    let w = world(Place::embedded(), "ONLINE").await;
    let rows = |keys: &[i64], times: &[&str], xs: &[i64]| {
        RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(keys.to_vec())) as _),
            ("b", Arc::new(StringArray::from(times.to_vec())) as _),
            ("c", Arc::new(Int64Array::from(xs.to_vec())) as _),
        ])
        .unwrap()
    };
    let run = async |sql: &str, rows: RecordBatch| {
        let prepared = w.session.prepare(sql).await.unwrap();
        w.session.run(&prepared, Some(rows)).await
    };
    let sql = "INSERT INTO v (k, ts, x) VALUES ($1, $2, $3 + 1)";
    let before = w.version().await;
    // the later row of one key and instant wins, as in any statement
    let done = run(sql, rows(&[1, 2, 1], &["2099-12-31", "2099-12-30", "2099-12-31"], &[10, 20, 11])).await;
    assert_eq!((count(done.unwrap()), w.version().await), (3, before + 1));
    assert_eq!(w.look("1, 2").await, ["12|PRESENT", "21|PRESENT"]);
    // all or nothing
    let failed = run(sql, rows(&[3, 4], &["2099-12-31", "not a time"], &[1, 2])).await.err().unwrap();
    assert!(failed.kind() == Kind::Invalid && failed.to_string().contains("$2"), "{failed}");
    assert_eq!(w.look("3, 4").await, ["NULL|NOT_FOUND", "NULL|NOT_FOUND"]);
    // one statement has one instant, and one sequence of rows; what is left out is said once
    let sql = "INSERT INTO v (k, ts, x) VALUES ($1, now(), $2)";
    let pair = |keys: Vec<Option<i64>>, xs: Vec<i64>| {
        RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(keys)) as _), ("b", Arc::new(Int64Array::from(xs)) as _)]).unwrap()
    };
    assert_eq!(count(run(sql, pair(vec![Some(5), None, Some(6)], vec![5, 0, 6])).await.unwrap()), 2);
    assert!(w.session.notices()[0].message.contains("1 row(s) rejected"), "{:?}", w.session.notices());
    assert_eq!(w.look("5, 6").await, ["5|PRESENT", "6|PRESENT"]);
    assert_eq!(w.run("SELECT count(DISTINCT ts) FROM v WHERE k IN (5, 6)").await, ["1"]);
    // plain tables take them so, too
    w.run("CREATE TABLE t (k BIGINT, x BIGINT)").await;
    assert_eq!(count(run("INSERT INTO t VALUES ($1, $2)", pair(vec![Some(1), None], vec![1, 2])).await.unwrap()), 2);
    assert_eq!(w.run("SELECT k, x FROM t ORDER BY x").await, ["1|1", "NULL|2"]);
}
