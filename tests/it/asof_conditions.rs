//! Random conditions in ON of an ASOF join, against nested loops: predicates on the right side choose the
//! candidates before the match, those on the left side the rows that may match.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use remige::clock::Clock;
use remige::config::Config;
use remige::session::{Engine, Outcome, Session};

const NOW: i64 = 1_772_366_400_000_000;

/// A row: its key, time and value.
type Row = (Option<i64>, i64, Option<i64>);
type Predicate = (&'static str, fn(&Row) -> bool);

const PREDICATES: &[Predicate] = &[
    ("{s}.v IS NOT NULL", |r| r.2.is_some()),
    ("{s}.v IS NULL", |r| r.2.is_none()),
    ("{s}.v > 1", |r| r.2.is_some_and(|v| v > 1)),
    ("({s}.v = 0 OR {s}.t < 4)", |r| r.2 == Some(0) || r.1 < 4),
    ("{s}.v IS DISTINCT FROM 2", |r| r.2 != Some(2)),
    ("{s}.v IN (0, 3)", |r| matches!(r.2, Some(0 | 3))),
    ("{s}.t BETWEEN 2 AND 5", |r| (2..=5).contains(&r.1)),
];

#[derive(Debug, Clone)]
struct Case {
    left: Vec<Row>,
    /// Times are unique: the row's number takes part in them.
    right: Vec<Row>,
    op: &'static str,
    inner: bool,
    match_condition: bool,
    on_left: Vec<usize>,
    on_right: Vec<usize>,
}

fn row() -> impl Strategy<Value = Row> {
    (prop::option::weighted(0.9, 0..2i64), 0..8i64, prop::option::weighted(0.7, 0..4i64))
}

fn case() -> impl Strategy<Value = Case> {
    let picks = || vec(0..PREDICATES.len(), 0..3);
    let op = prop_oneof![Just(">="), Just(">"), Just("<="), Just("<")];
    (vec(row(), 1..8), vec(row(), 1..10), op, any::<bool>(), any::<bool>(), picks(), picks()).prop_map(
        |(left, mut right, op, inner, match_condition, on_left, on_right)| {
            right.sort_by_key(|r| r.1);
            right.dedup_by_key(|r| r.1);
            Case { left, right, op, inner, match_condition, on_left, on_right }
        },
    )
}

impl Case {
    fn sql(&self) -> String {
        let number = |v: &Option<i64>| v.map_or("CAST(NULL AS BIGINT)".to_string(), |v| v.to_string());
        let values = |rows: &[Row]| {
            let one = |(i, (k, t, v)): (usize, &Row)| format!("({i}, {}, {t}, {})", number(k), number(v));
            rows.iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
        };
        let said = |side: &str, picks: &[usize]| {
            picks.iter().map(|p| format!(" AND {}", PREDICATES[*p].0.replace("{s}", side))).collect::<String>()
        };
        let others = said("l", &self.on_left) + &said("r", &self.on_right);
        let kind = if self.inner { "INNER" } else { "LEFT" };
        let on = match self.match_condition {
            true => format!("MATCH_CONDITION (l.t {} r.t) ON l.k = r.k{others}", self.op),
            false => format!("ON l.k = r.k AND l.t {} r.t{others}", self.op),
        };
        format!(
            "SELECT l.i, r.i AS j FROM (VALUES {}) l (i, k, t, v) ASOF {kind} JOIN (VALUES {}) r (i, k, t, v) {on} ORDER BY l.i",
            values(&self.left),
            values(&self.right)
        )
    }

    fn expected(&self) -> Vec<(i64, Option<i64>)> {
        let all = |picks: &[usize], r: &Row| picks.iter().all(|p| PREDICATES[*p].1(r));
        let stands = |l: i64, r: i64| match self.op {
            ">=" => l >= r,
            ">" => l > r,
            "<=" => l <= r,
            _ => l < r,
        };
        let looks_ahead = self.op.starts_with('<');
        let best = |l: &Row| {
            let candidates = self
                .right
                .iter()
                .enumerate()
                .filter(|(_, r)| all(&self.on_left, l) && all(&self.on_right, r) && l.0.is_some() && l.0 == r.0 && stands(l.1, r.1));
            let found = match looks_ahead {
                true => candidates.min_by_key(|(_, r)| r.1),
                false => candidates.max_by_key(|(_, r)| r.1),
            };
            found.map(|(i, _)| i as i64)
        };
        let rows = self.left.iter().enumerate().map(|(i, l)| (i as i64, best(l)));
        rows.filter(|(_, m)| !self.inner || m.is_some()).collect()
    }
}

async fn answer(session: &Session, sql: &str) -> Result<Vec<(i64, Option<i64>)>, String> {
    let batches: Vec<_> = match session.execute(sql).await.map_err(|e| e.to_string())? {
        Outcome::Rows(rows) => rows.try_collect().await.map_err(|e| e.to_string())?,
        Outcome::Updated(_) => return Err("no rows".into()),
    };
    let mut out = vec![];
    for b in &batches {
        let (l, r) = (b.column(0).as_primitive::<Int64Type>(), b.column(1).as_primitive::<Int64Type>());
        out.extend(l.iter().flatten().zip(r.iter()));
    }
    Ok(out)
}

/// `REMIGE_ASOF_CASES` sets how many are drawn.
#[test]
fn conditions_of_one_side_match_nested_loops() {
    let cases = std::env::var("REMIGE_ASOF_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = Config { warehouse: dir.path().join("warehouse").to_string_lossy().to_string(), ..Config::default() };
    let session = runtime.block_on(Engine::open(config, Clock::fixed(NOW))).unwrap().session();
    let runs = Runs { cases, failure_persistence: None, ..Runs::default() };
    TestRunner::new(runs)
        .run(&case(), |case| {
            let sql = case.sql();
            prop_assert_eq!(runtime.block_on(answer(&session, &sql)), Ok(case.expected()), "{}", sql);
            Ok(())
        })
        .unwrap();
}
