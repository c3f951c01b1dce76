//! Random histories.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

use super::values::CHOICES;
use crate::clock::{Micros, SECOND};

/// Keys that a history may hold; the last of them never has a row.
pub const KEYS: usize = 6;

/// Kinds of entities: columns with types, and the key columns of each key as SQL.
pub fn entity(kind: usize) -> (&'static str, [Vec<String>; KEYS]) {
    let text = |s: &str| format!("'{s}'");
    let long = |tail: &str| text(&format!("{}{tail}", "long/".repeat(60)));
    match kind {
        0 => ("k BIGINT", ["-9223372036854775808", "-1", "0", "1", "9223372036854775807", "77"].map(|k| vec![k.to_string()])),
        1 => {
            let keys = [text(""), text("a"), text("a\u{1}ü"), long("a"), long("b"), long("c")];
            ("k VARCHAR", keys.map(|k| vec![k]))
        }
        2 => {
            let pair = |a: String, b: i32| vec![a, b.to_string()];
            (
                "a VARCHAR, b INT",
                [pair(text("x"), 1), pair(text("x"), -1), pair(long("x"), 1), pair(long("x"), 2), pair(text(""), 0), pair(text("x"), 0)],
            )
        }
        _ => {
            let both =
                |d: &str, t: &str, b: bool| vec![format!("CAST('{d}' AS DECIMAL(10, 2))"), format!("TIMESTAMP '{t}'"), b.to_string()];
            let keys = [
                both("1.50", "2026-01-01 00:00:00", true),
                both("1.50", "2026-01-01 00:00:00", false),
                both("-0.01", "1969-12-31 23:59:59.999999", true),
                both("0", "1969-12-31 23:59:59.999999", true),
                both("12345678.90", "2200-01-01 00:00:00", false),
                both("7", "2200-01-01 00:00:00", false),
            ];
            ("d DECIMAL(10, 2), t TIMESTAMP, b BOOLEAN", keys)
        }
    }
}

pub const ENTITIES: usize = 4;

/// TTLs that a history chooses from.
pub const TTLS: [Option<Micros>; 5] = [None, Some(1), Some(5 * SECOND), Some(20 * SECOND), Some(60 * SECOND)];

#[derive(Debug, Clone)]
pub struct RawRow {
    pub key: usize,
    /// Event timestamp before now; negative: later.
    pub ago: Micros,
    pub created: Option<i8>,
    pub x: Option<i64>,
    pub y: Option<u8>,
    /// Which values the other features have.
    pub others: Vec<Option<usize>>,
}

#[derive(Debug, Clone, Copy)]
pub enum Load {
    Incremental,
    Full,
    InPlace,
}

#[derive(Debug, Clone)]
pub enum Step {
    /// Into the newest version.
    Insert(Vec<RawRow>),
    DeleteKey(usize),
    /// Where x % 3 is this.
    DeleteX(i64),
    /// Rows older than this.
    DeleteOld(Micros),
    Optimize,
    Advance(Micros),
    /// Which of `TTLS`.
    Ttl(usize),
    /// Of all versions.
    Materialize(Load),
    /// CREATE OR REPLACE with one feature more.
    Replace,
    /// ALTER … SET OFFLINE and back, or the same as older binaries did it: what is written in between is served later.
    Offline(bool),
    Verify,
    /// Of a query view: rows come to its source, or become its source.
    Source(Vec<RawRow>),
    Overwrite(Vec<RawRow>),
    Refresh(Refresh),
}

#[derive(Debug, Clone, Copy)]
pub enum Refresh {
    Incremental,
    Full,
    /// Both before now.
    FromTo(Micros, Micros),
}

#[derive(Debug, Clone)]
pub struct Case {
    pub entity: usize,
    /// Else a push view.
    pub query: bool,
    pub created: bool,
    pub ttl: usize,
    pub lookback: Micros,
    pub steps: Vec<Step>,
    /// Instants to ask for, after the last load.
    pub later: Vec<Micros>,
}

fn row() -> impl Strategy<Value = RawRow> {
    let ago = prop_oneof![
        6 => (0i64..70, -1i64..2).prop_map(|(s, us)| (s * SECOND + us).max(0)),
        // rows at the very same instants
        3 => (0i64..3).prop_map(|s| s * 10 * SECOND),
        // their instant has not come
        1 => (1i64..30).prop_map(|s| -s * SECOND),
    ];
    let others = vec(weighted(0.75, 0usize..60), CHOICES);
    let none = || Just(vec![None::<usize>; CHOICES]);
    let features = prop_oneof![
        7 => (weighted(0.8, 0i64..9), weighted(0.8, 0u8..4), others),
        // rows that are the same twice
        2 => (weighted(0.8, 0i64..9), weighted(0.8, 0u8..4), none()),
        1 => (Just(None::<i64>), Just(None::<u8>), none()),
    ];
    (0..KEYS - 1, ago, weighted(0.7, -2i8..3), features).prop_map(|(key, ago, created, (x, y, others))| RawRow {
        key,
        ago,
        created,
        x,
        y,
        others,
    })
}

fn rows() -> impl Strategy<Value = Vec<RawRow>> {
    vec(row(), 1..7)
}

fn passing() -> impl Strategy<Value = Step> {
    prop_oneof![(1i64..25).prop_map(|s| Step::Advance(s * SECOND)), Just(Step::Advance(1))]
}

fn load() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Materialize(Load::Incremental)),
        1 => Just(Step::Materialize(Load::Full)),
        2 => Just(Step::Materialize(Load::InPlace)),
    ]
}

fn push_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => rows().prop_map(Step::Insert),
        1 => (0..KEYS).prop_map(Step::DeleteKey),
        1 => (0i64..3).prop_map(Step::DeleteX),
        1 => (0i64..60).prop_map(|s| Step::DeleteOld(s * SECOND)),
        1 => Just(Step::Optimize),
        2 => passing(),
        1 => (0..TTLS.len()).prop_map(Step::Ttl),
        3 => load(),
        1 => Just(Step::Replace),
        1 => any::<bool>().prop_map(Step::Offline),
        1 => Just(Step::Verify),
    ]
}

fn query_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => rows().prop_map(Step::Source),
        2 => rows().prop_map(Step::Overwrite),
        3 => Just(Step::Refresh(Refresh::Incremental)),
        2 => Just(Step::Refresh(Refresh::Full)),
        3 => (0i64..40, 0i64..40).prop_map(|(a, b)| Step::Refresh(Refresh::FromTo((a + b) * SECOND, a * SECOND))),
        1 => Just(Step::Optimize),
        2 => passing(),
        1 => (0..TTLS.len()).prop_map(Step::Ttl),
        5 => load(),
        1 => Just(Step::Verify),
    ]
}

pub fn case() -> impl Strategy<Value = Case> {
    let steps = any::<bool>().prop_flat_map(|query| {
        let steps = if query { vec(query_step(), 3..14).boxed() } else { vec(push_step(), 3..14).boxed() };
        (Just(query), steps)
    });
    let later = vec(prop_oneof![0i64..3, (0i64..90).prop_map(|s| s * SECOND)], 2);
    (0..ENTITIES, steps, any::<bool>(), 0..TTLS.len(), prop_oneof![Just(0), Just(10 * SECOND)], later)
        .prop_map(|(entity, (query, steps), created, ttl, lookback, later)| Case { entity, query, created, ttl, lookback, steps, later })
}
