//! `statement_timeout`: how long a statement may take, from its planning to its last row.

use std::time::{Duration, Instant};

use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use crate::clock::{self, MILLISECOND, Micros, stopwatch};
use crate::config::{parse_duration, show_duration};
use crate::error::{Error, Result};

/// The setting, also of a session.
pub const TIMEOUT: &str = "statement_timeout";

/// What SET says: a time with its unit, `0`, or a number of milliseconds as in PostgreSQL.
pub fn timeout(value: &str) -> Result<Micros, String> {
    match value.trim().parse::<u32>() {
        Ok(ms) => Ok(Micros::from(ms) * MILLISECOND),
        Err(_) => parse_duration(value),
    }
}

/// The end of a statement's time, if it has one.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    allowed: Micros,
    until: Option<Instant>,
}

impl TimeLimit {
    pub fn begin(allowed: Micros) -> Self {
        let time = Duration::from_micros(allowed.max(0).unsigned_abs());
        TimeLimit { allowed, until: if time.is_zero() { None } else { stopwatch().checked_add(time) } }
    }

    fn late(&self) -> Error {
        Error::late(format!("the statement took longer than {TIMEOUT} allows ({})", show_duration(self.allowed)))
            .with_hint(format!("read less, or SET {TIMEOUT} = '…' to a longer time; 0 allows any"))
    }

    /// The work, or the error that it takes too long.
    pub async fn over<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.until {
            Some(end) => clock::timeout_at(end, work).await.unwrap_or_else(|_| Err(self.late())),
            None => work.await,
        }
    }

    /// The rows, and the error where they do not all come in time.
    pub fn rows(self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let Some(end) = self.until else { return rows };
        let schema = rows.schema();
        let begun = (Some(rows), Box::pin(clock::sleep_until(end)));
        let limited = futures::stream::unfold(begun, move |(rows, mut end)| async move {
            let mut rows = rows?;
            tokio::select! {
                biased;
                () = &mut end => Some((Err(DataFusionError::from(self.late())), (None, end))),
                next = rows.next() => next.map(|batch| (batch, (Some(rows), end))),
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, limited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_milliseconds() {
        assert_eq!(timeout("1500"), Ok(1_500_000));
        assert_eq!(timeout(" 2s "), Ok(2_000_000));
        assert_eq!(timeout("0"), Ok(0));
        assert!(timeout("soon").is_err() && timeout("-1").is_err());
    }
}
