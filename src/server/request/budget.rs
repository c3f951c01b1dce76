//! Room for messages under way, for all clients together: who finds none waits for his turn, and is not read meanwhile.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Messages up to this size have room of their own: large ones do not hold up what is asked for.
const SMALL: usize = 1 << 20;
/// What one permit stands for.
const UNIT: usize = 1 << 10;
const LEAST: usize = 4 * SMALL;

#[derive(Debug)]
pub(super) struct Budget {
    small: Room,
    large: Room,
}

#[derive(Debug)]
struct Room {
    free: Arc<Semaphore>,
    all: u32,
}

impl Room {
    fn new(bytes: usize) -> Self {
        let all = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Room { free: Arc::new(Semaphore::new(all as usize)), all }
    }
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.max(LEAST);
        Budget { small: Room::new(bytes / 4), large: Room::new(bytes / 4 * 3) }
    }

    /// Room for a message; one that is larger than all the room there is has it for itself.
    pub fn take(&self, bytes: usize) -> BoxFuture<'static, Option<OwnedSemaphorePermit>> {
        let room = if bytes <= SMALL { &self.small } else { &self.large };
        let permits = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, room.all);
        let free = Arc::clone(&room.free);
        Box::pin(async move { free.acquire_many_owned(permits).await.ok() })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn large_messages_wait_for_each_other_and_small_ones_do_not() {
        let budget = Budget::new(16 << 20);
        let first = budget.take(10 << 20).now_or_never().unwrap();
        assert!(budget.take(10 << 20).now_or_never().is_none());
        assert!(budget.take(100).now_or_never().is_some());
        drop(first);
        assert!(budget.take(usize::MAX).now_or_never().is_some(), "larger than all: alone");
    }
}
