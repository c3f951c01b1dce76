//! The law as nested loops over the history that the test kept: what everything else is tested against.
//! It shares no code with the product.

use super::values::Cell;
use crate::clock::Micros;

/// A row as it was written; later ones stand further behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub key: usize,
    pub event: Micros,
    pub created: Option<Micros>,
    pub x: Option<i64>,
    pub y: Option<String>,
    pub others: Vec<Cell>,
}

/// What is known of a key at an instant.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    NotFound,
    /// The newest row is of this instant, and too old.
    OutsideMaxAge(Micros),
    Live(Row),
}

/// The answer for `key` at `at`, of the rows that `known` had come by.
pub fn answer(rows: &[Row], key: usize, at: Micros, known: Micros, ttl: Option<Micros>) -> Answer {
    let mut best: Option<&Row> = None;
    for row in rows {
        if row.key != key || row.event > at || row.event > known {
            continue;
        }
        // NULL is the lowest created timestamp; of two equal ones the later row wins
        let wins = best.is_none_or(|b| (row.event, row.created) >= (b.event, b.created));
        if wins {
            best = Some(row);
        }
    }
    match best {
        None => Answer::NotFound,
        Some(r) if ttl.is_some_and(|ttl| at - r.event > ttl) => Answer::OutsideMaxAge(r.event),
        Some(r) => Answer::Live(r.clone()),
    }
}
