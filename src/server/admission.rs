//! How many statements run at once. The others wait in order, for a bounded time, in a bounded queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock;
use crate::error::{Error, Result};

const LONGEST_WAIT: Duration = Duration::from_secs(30);
const WAITERS_PER_PLACE: usize = 16;

#[derive(Debug)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    count: usize,
    /// What has the places, and the setting that says how many there are.
    what: (&'static str, &'static str),
    waiting: AtomicUsize,
    longest_wait: Duration,
}

impl Admission {
    pub fn new(count: usize, what: (&'static str, &'static str)) -> Self {
        let count = count.max(1);
        Admission { places: Arc::new(Semaphore::new(count)), count, what, waiting: AtomicUsize::new(0), longest_wait: LONGEST_WAIT }
    }

    /// A place to run one statement; free again when dropped.
    pub async fn enter(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Waiting::new(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > self.count * WAITERS_PER_PLACE {
            return Err(self.full("too many others wait already"));
        }
        match clock::timeout(self.longest_wait, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(self.full("none of them ended in time")),
        }
    }

    fn full(&self, why: &str) -> Error {
        let (what, setting) = self.what;
        Error::exhausted(format!("{} {what} are running, and {why}", self.count))
            .with_hint(format!("read results to their end or close them, try again later, or raise {setting}"))
    }
}

/// A place of one statement, which is given back while a client is waited for.
#[derive(Debug, Clone)]
pub(super) struct Place {
    admission: Arc<Admission>,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Place {
    /// None is taken yet.
    pub fn of(admission: &Arc<Admission>) -> Self {
        Place { admission: Arc::clone(admission), held: Arc::default() }
    }

    /// Waits for a place, unless there is one already.
    pub async fn take(&self) -> Result<()> {
        if !self.is_taken() {
            let place = self.admission.enter().await?;
            *self.held.lock() = Some(place);
        }
        Ok(())
    }

    pub fn is_taken(&self) -> bool {
        self.held.lock().is_some()
    }

    pub fn give_back(&self) {
        drop(self.held.lock().take());
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_free_again_when_dropped() {
        let admission = Admission { longest_wait: Duration::from_millis(10), ..Admission::new(1, ("statements", "x")) };
        let first = admission.enter().await.unwrap();
        assert!(admission.enter().await.unwrap_err().message().contains("1 statements are running"));
        drop(first);
        drop(admission.enter().await.unwrap());
        let admission = Arc::new(admission);
        let (one, other) = (Place::of(&admission), Place::of(&admission));
        one.take().await.unwrap();
        one.take().await.unwrap();
        assert!(other.take().await.is_err());
        one.give_back();
        other.take().await.unwrap();
        assert!(!one.is_taken() && other.is_taken());
        assert_eq!(admission.waiting.load(Ordering::Relaxed), 0);
    }
}
