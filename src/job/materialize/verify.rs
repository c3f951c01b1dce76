//! A look at a new generation before it is switched to: rows here and there are read back and compared.

use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::codec::key;
use crate::store::online::{OnlineStore, OnlineView, PutRow};

/// Rows that are read back, at least, where there are so many.
const ROWS: usize = 1_000;

/// Every n-th of the rows that were loaded, n growing with their number: evenly over all keys, and the same
/// rows whenever the load is repeated.
pub(super) struct Sample {
    rows: Vec<PutRow>,
    every: usize,
    wait: usize,
}

impl Sample {
    pub fn new() -> Self {
        Sample { rows: vec![], every: 1, wait: 0 }
    }

    pub fn see(&mut self, row: &PutRow) {
        if self.wait > 0 {
            self.wait -= 1;
            return;
        }
        self.wait = self.every - 1;
        self.rows.push(row.clone());
        if self.rows.len() == 2 * ROWS {
            let mut keep = false;
            self.rows.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2;
            // the row just taken was the last of a pair, and is let go
            self.wait = self.every / 2 - 1;
        }
    }

    /// An error where the store does not hold what it acknowledged. `now`: rows may have expired by then,
    /// going by the clock that is furthest ahead.
    pub async fn compare(&self, online: &dyn OnlineStore, id: &OnlineView, generation: u32, now: impl Fn() -> Micros) -> Result<()> {
        let keys: Vec<&[u8]> = self.rows.iter().map(|r| r.key.as_slice()).collect();
        let found = online.peek(id, generation, &keys).await?;
        if found.len() != keys.len() {
            return Err(Error::internal(format!("the online store {} answers {} of {} rows", online.describe(), found.len(), keys.len())));
        }
        let now = now();
        for (row, found) in self.rows.iter().zip(found) {
            let how = match found {
                Some(f) if f == row.row => continue,
                None if row.expire_at.is_some_and(|at| at <= now) => continue,
                Some(_) => "holds other bytes than",
                None => "has lost the row",
            };
            let key = key::display(&row.key);
            return Err(Error::unavailable(format!(
                "the online store {} {how} it was given for key {key}; the new generation is not switched to",
                online.describe()
            ))
            .with_hint("see whether the store is full and evicts keys (maxmemory-policy must be noeviction), then run MATERIALIZE again"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::online::PutKind;

    #[test]
    fn the_sample_is_even_and_large_enough() {
        for total in [0, 1, ROWS, 2 * ROWS - 1, 2 * ROWS, 2 * ROWS + 1, 37 * ROWS + 5] {
            let mut sample = Sample::new();
            for n in 0..total {
                sample.see(&PutRow { key: n.to_be_bytes().to_vec(), row: vec![], kind: PutKind::Offer, expire_at: None });
            }
            let at: Vec<usize> = sample.rows.iter().map(|r| usize::from_be_bytes(r.key.as_slice().try_into().unwrap())).collect();
            assert!(at.len() >= total.min(ROWS) && at.len() < 2 * ROWS, "{total}: {}", at.len());
            assert!(at.iter().enumerate().all(|(i, n)| *n == i * sample.every), "{total}: {at:?}");
        }
    }
}
