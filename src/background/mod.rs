//! What a server does unasked: REFRESH and MATERIALIZE on schedule, OPTIMIZE and VACUUM, the online store kept clean,
//! gauges. It carries out the commands that a user could write, in sessions of its own, and knows nothing of clients.

mod freshness;
mod garbage_collection;
mod maintenance;
mod online_gauges;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::session::Engine;

/// All of it; ended when dropped.
pub struct Background {
    maintenance: maintenance::Maintenance,
    schedule: schedule::Schedule,
    garbage_collection: garbage_collection::GarbageCollection,
    _gauges: JoinSet<()>,
}

impl Background {
    pub fn start(engine: &Arc<Engine>) -> Self {
        Background {
            maintenance: maintenance::Maintenance::start(Arc::clone(engine)),
            schedule: schedule::Schedule::start(Arc::clone(engine)),
            garbage_collection: garbage_collection::GarbageCollection::start(Arc::clone(engine)),
            _gauges: freshness::start(Arc::clone(engine)),
        }
    }

    /// Begins nothing new, and gives what runs `grace` to end.
    pub async fn end(self, grace: Duration) {
        tokio::join!(self.maintenance.end(grace), self.schedule.end(grace), self.garbage_collection.end(grace));
    }
}
