//! Results that nobody reads: a client that takes no rows keeps its statement from nobody's place, and in the end it
//! loses the statement.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result as DfResult;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use parking_lot::Mutex;

use super::admission::Place;
use crate::clock::{self, stopwatch};
use crate::error::{Error, Result};

type Rows = BoxStream<'static, DfResult<RecordBatch>>;

/// How often readers are looked at, and how long one may pause before others have its place.
const PAUSE: Duration = Duration::from_secs(1);

struct Reading {
    /// `None`: the reader has lost them.
    rows: Option<Rows>,
    /// Since when rows wait for their reader.
    idle: Option<Instant>,
}

/// Rows of a statement for a client, who must take the next ones within `patience`.
pub(super) struct Watched {
    /// Made before anybody asked.
    ahead: VecDeque<DfResult<RecordBatch>>,
    reading: Arc<Mutex<Reading>>,
    place: Place,
    taking: Option<BoxFuture<'static, Result<()>>>,
    patience: Duration,
    over: bool,
}

impl Watched {
    pub fn new(mut rows: Rows, place: Place, patience: Duration) -> Self {
        let (ahead, ended) = made_already(&mut rows);
        // what is all there, as the answer of a lookup is, keeps nobody's place and needs no watch
        let rows = (!ended).then_some(rows);
        if ended {
            place.give_back();
        }
        let reading = Arc::new(Mutex::new(Reading { rows, idle: Some(stopwatch()) }));
        if !ended {
            tokio::spawn(watch(Arc::downgrade(&reading), place.clone(), patience));
        }
        Watched { ahead, reading, place, taking: None, patience, over: ended }
    }

    fn end(&mut self, e: Error) -> Poll<Option<DfResult<RecordBatch>>> {
        self.over = true;
        self.ahead.clear();
        self.reading.lock().rows = None;
        self.place.give_back();
        Poll::Ready(Some(Err(e.into())))
    }
}

/// The first batch or none, where that is all and is there; otherwise what was seen of the rows. The second value:
/// whether they have ended.
fn made_already(rows: &mut Rows) -> (VecDeque<DfResult<RecordBatch>>, bool) {
    let mut ahead = VecDeque::new();
    while ahead.len() < 2 {
        match rows.next().now_or_never() {
            Some(Some(batch)) => ahead.push_back(batch),
            Some(None) => return (ahead, true),
            None => break,
        }
    }
    (ahead, false)
}

async fn watch(reading: Weak<Mutex<Reading>>, place: Place, patience: Duration) {
    loop {
        clock::sleep(PAUSE.min(patience)).await;
        let Some(reading) = reading.upgrade() else { return };
        // whoever holds it reads
        let Some(mut now) = reading.try_lock() else { continue };
        let Some(idle) = now.idle.map(|since| since.elapsed()) else { continue };
        if idle >= PAUSE {
            place.give_back();
        }
        if idle >= patience {
            let rows = now.rows.take();
            drop(now);
            drop(rows);
            return;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.place.give_back();
    }
}

impl Stream for Watched {
    type Item = DfResult<RecordBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(this.ahead.pop_front());
        }
        this.reading.lock().idle = None;
        if this.taking.is_none() && !this.place.is_taken() {
            let place = this.place.clone();
            this.taking = Some(async move { place.take().await }.boxed());
        }
        if let Some(taking) = &mut this.taking {
            let taken = ready!(taking.poll_unpin(cx));
            this.taking = None;
            if let Err(e) = taken {
                return this.end(e);
            }
        }
        let mut reading = this.reading.lock();
        let Some(rows) = &mut reading.rows else {
            drop(reading);
            let seconds = this.patience.as_secs_f64();
            return this.end(
                Error::cancelled(format!("the client read nothing for {seconds} s"))
                    .with_hint("read faster or fetch less; server.reader_timeout says how long a result waits for its reader"),
            );
        };
        let next = match this.ahead.pop_front() {
            Some(batch) => Some(batch),
            None => ready!(rows.poll_next_unpin(cx)),
        };
        match &next {
            Some(_) => reading.idle = Some(stopwatch()),
            None => this.over = true,
        }
        Poll::Ready(next)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::super::admission::Admission;
    use super::*;

    fn rows() -> Rows {
        let batch = RecordBatch::new_empty(Arc::new(datafusion::arrow::datatypes::Schema::empty()));
        stream::repeat_with(move || Ok(batch.clone())).boxed()
    }

    #[tokio::test]
    async fn what_is_all_there_keeps_no_place() {
        let gate = Arc::new(Admission::new(1, ("statements", "x")));
        for (batches, kept) in [(0, false), (1, false), (3, true)] {
            let place = Place::of(&gate);
            place.take().await.unwrap();
            let read = Watched::new(rows().take(batches).boxed(), place.clone(), Duration::from_secs(60));
            assert_eq!(place.is_taken(), kept, "{batches} batches");
            assert_eq!(read.count().await, batches);
            assert!(!place.is_taken());
        }
    }

    #[tokio::test]
    async fn a_reader_that_pauses_gives_way_and_one_that_stops_loses_its_rows() {
        let gate = Arc::new(Admission::new(1, ("statements", "x")));
        let place = Place::of(&gate);
        place.take().await.unwrap();
        let mut read = Watched::new(rows(), place.clone(), Duration::from_secs(3));
        assert!(read.next().await.unwrap().is_ok());
        clock::sleep(Duration::from_millis(2200)).await;
        assert!(!place.is_taken(), "others may run");
        assert!(read.next().await.unwrap().is_ok() && place.is_taken());
        clock::sleep(Duration::from_millis(5500)).await;
        assert!(read.reading.lock().rows.is_none());
        assert!(read.next().await.unwrap().unwrap_err().to_string().contains("read nothing"));
        assert!(read.next().await.is_none());
    }
}
