//! Looks for a table's newest version that statements share: to read what many commits have changed costs much
//! more than to ask whether there are any, and many statements may ask at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::Result;

/// The last look, and when it began.
type Last<T> = tokio::sync::Mutex<Option<(u64, T)>>;

/// Looks under way, by the table's location.
pub(crate) struct Coalescing<T> {
    order: AtomicU64,
    tables: Mutex<HashMap<String, Arc<Last<T>>>>,
}

impl<T> Default for Coalescing<T> {
    fn default() -> Self {
        Coalescing { order: AtomicU64::new(0), tables: Mutex::default() }
    }
}

impl<T: Clone> Coalescing<T> {
    /// Answers a look that began after this call: somebody else's, where one did, else that of `look`. So the
    /// answer holds every commit that was made before the call.
    pub async fn join<F: Future<Output = Result<T>>>(&self, location: &str, look: impl FnOnce() -> F) -> Result<T> {
        let called = self.order.fetch_add(1, Ordering::SeqCst);
        let place = Place { looks: self, location, last: Arc::clone(self.tables.lock().entry(location.to_string()).or_default()) };
        let mut last = place.last.lock().await;
        if let Some((began, found)) = &*last
            && *began > called
        {
            return Ok(found.clone());
        }
        let began = self.order.fetch_add(1, Ordering::SeqCst);
        // a failure is the caller's own: whoever waits looks again
        let found = look().await?;
        *last = Some((began, found.clone()));
        Ok(found)
    }
}

/// One who waits or looks; the last one takes the table off the list.
struct Place<'a, T> {
    looks: &'a Coalescing<T>,
    location: &'a str,
    last: Arc<Last<T>>,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let mut tables = self.looks.tables.lock();
        // the list's and ours
        if Arc::strong_count(&self.last) == 2 {
            tables.remove(self.location);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn who_comes_while_somebody_looks_shares_the_next_look() {
        let (looks, count, gate) = (Coalescing::default(), AtomicUsize::new(0), Semaphore::new(0));
        let look = || async {
            let n = count.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            Ok(n)
        };
        let first = looks.join("t", look);
        let others: Vec<_> = (0..5).map(|_| looks.join("t", look)).collect();
        let elsewhere = looks.join("u", look);
        let others = futures::future::join_all(others);
        // all have asked when the first look ends
        let (first, others, elsewhere, ()) = tokio::join!(first, others, elsewhere, async { gate.add_permits(3) });
        assert_eq!((first.unwrap(), elsewhere.unwrap()), (0, 1), "another table does not wait");
        assert!(others.into_iter().all(|o| o.unwrap() == 2));
        assert!(looks.tables.lock().is_empty());
        // nobody is given an old answer
        gate.add_permits(1);
        assert_eq!(looks.join("t", look).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_failure_and_one_who_gives_up_are_nobody_elses() {
        let looks = Coalescing::<u8>::default();
        let failing = looks.join("t", || async {
            tokio::task::yield_now().await;
            Err(Error::unavailable("gone"))
        });
        let (failed, other) = tokio::join!(failing, looks.join("t", || async { Ok(7) }));
        assert_eq!((failed.unwrap_err().message(), other.unwrap()), ("gone", 7));
        let mut endless = Box::pin(looks.join("t", std::future::pending));
        assert!(futures::poll!(&mut endless).is_pending());
        drop(endless);
        assert_eq!(looks.join("t", || async { Ok(8) }).await.unwrap(), 8);
        assert!(looks.tables.lock().is_empty());
    }
}
