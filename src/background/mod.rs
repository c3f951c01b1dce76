//! What a server does unasked: REFRESH and MATERIALIZE on schedule, OPTIMIZE and VACUUM, the online store kept clean,
//! gauges. It carries out the commands that a user could write, in sessions of its own, and knows nothing of clients.

mod freshness;
mod garbage;
mod maintenance;
mod online_gauges;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::session::Engine;

/// All of it; ended when dropped.
pub struct Background {
    maintenance: maintenance::Upkeep,
    schedule: schedule::Schedule,
    garbage: garbage::Sweep,
    _gauges: JoinSet<()>,
}

impl Background {
    pub fn start(engine: &Arc<Engine>) -> Self {
        Background {
            maintenance: maintenance::Upkeep::start(Arc::clone(engine)),
            schedule: schedule::Schedule::start(Arc::clone(engine)),
            garbage: garbage::Sweep::start(Arc::clone(engine)),
            _gauges: freshness::start(Arc::clone(engine)),
        }
    }

    /// Begins nothing new, and gives what runs `grace` to end.
    pub async fn end(self, grace: Duration) {
        tokio::join!(self.maintenance.end(grace), self.schedule.end(grace), self.garbage.end(grace));
    }
}
