//! A memory pool in which consumers of one name count as one. A fair pool gives each consumer the same share, so an
//! operator in several parts would leave less to all others.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use parking_lot::Mutex;

/// In front of another pool, which holds one reservation for each name.
#[derive(Debug)]
pub struct SharedPool {
    inner: Arc<dyn MemoryPool>,
    shares: Mutex<HashMap<String, Share>>,
}

#[derive(Debug)]
struct Share {
    of_all: Arc<MemoryReservation>,
    consumers: usize,
}

impl SharedPool {
    pub fn new(inner: Arc<dyn MemoryPool>) -> Self {
        SharedPool { inner, shares: Mutex::default() }
    }

    /// The reservation of all consumers that have the name of this one's.
    fn share(&self, of: &MemoryReservation) -> Option<Arc<MemoryReservation>> {
        self.shares.lock().get(of.consumer().name()).map(|s| Arc::clone(&s.of_all))
    }
}

impl fmt::Display for SharedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shared({})", self.inner)
    }
}

impl MemoryPool for SharedPool {
    fn name(&self) -> &str {
        "shared"
    }
    fn register(&self, consumer: &MemoryConsumer) {
        let mut shares = self.shares.lock();
        let share = shares.entry(consumer.name().to_string()).or_insert_with(|| {
            let one = MemoryConsumer::new(consumer.name()).with_can_spill(consumer.can_spill());
            Share { of_all: Arc::new(one.register(&self.inner)), consumers: 0 }
        });
        share.consumers += 1;
    }
    fn unregister(&self, consumer: &MemoryConsumer) {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get_mut(consumer.name()) {
            share.consumers = share.consumers.saturating_sub(1);
            if share.consumers == 0 {
                shares.remove(consumer.name());
            }
        }
    }
    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        if let Some(share) = self.share(reservation) {
            share.grow(additional);
        }
    }
    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        if let Some(share) = self.share(reservation) {
            share.shrink(shrink);
        }
    }
    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        match self.share(reservation) {
            Some(share) => share.try_grow(additional),
            None => self.inner.try_grow(reservation, additional),
        }
    }
    fn reserved(&self) -> usize {
        self.inner.reserved()
    }
    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::FairSpillPool;

    #[test]
    fn parts_have_one_share() {
        let fair: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(300));
        let shared: Arc<dyn MemoryPool> = Arc::new(SharedPool::new(Arc::clone(&fair)));
        let consumer = |name: &str| MemoryConsumer::new(name).with_can_spill(true);
        let (a, b) = (consumer("part").register(&shared), consumer("part").register(&shared));
        let (c, d) = (consumer("other").register(&shared), consumer("more").register(&fair));
        a.try_grow(60).unwrap();
        b.try_grow(40).unwrap();
        assert!(a.try_grow(1).is_err() && b.try_grow(1).is_err(), "a third of the pool is for both parts");
        c.try_grow(100).unwrap();
        d.try_grow(100).unwrap();
        assert_eq!(fair.reserved(), 300);
        drop(a);
        b.try_grow(60).unwrap();
        drop((b, c, d));
        assert_eq!(fair.reserved(), 0);
        // those who have gone have no share any more
        consumer("last").register(&fair).try_grow(300).unwrap();
    }
}
