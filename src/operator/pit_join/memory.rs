//! The memory of one join, accounted to the session's pool.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_plan::metrics::Gauge;
use parking_lot::Mutex;

#[derive(Debug)]
pub struct Memory {
    reservation: Mutex<MemoryReservation>,
    /// What the join is called in errors.
    name: String,
    peak: Gauge,
}

/// Some of it, given back when dropped.
#[derive(Debug)]
pub struct Part {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub fn new(pool: &Arc<dyn MemoryPool>, name: String, peak: Gauge) -> Arc<Self> {
        Arc::new(Memory { reservation: Mutex::new(MemoryConsumer::new("PitJoinExec").register(pool)), name, peak })
    }

    pub fn part(self: &Arc<Self>) -> Part {
        Part { memory: Arc::clone(self), bytes: 0 }
    }

    fn grow(&self, bytes: usize) -> Result<()> {
        let reservation = self.reservation.lock();
        reservation.try_grow(bytes).map_err(|e| {
            DataFusionError::ResourcesExhausted(format!(
                "the point-in-time join of {} holds {} bytes and needs {bytes} more for its labels and matches, more than the memory limit leaves: {}",
                self.name,
                reservation.size(),
                e.strip_backtrace()
            ))
        })?;
        self.peak.set_max(reservation.size());
        Ok(())
    }
}

impl Part {
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        self.memory.grow(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.memory.reservation.lock().shrink(bytes);
        self.bytes -= bytes;
    }

    /// Holds exactly so much.
    pub fn resize(&mut self, bytes: usize) -> Result<()> {
        if bytes > self.bytes {
            return self.grow(bytes - self.bytes);
        }
        self.shrink(self.bytes - bytes);
        Ok(())
    }

    /// Takes over another part's bytes.
    pub fn take(&mut self, mut other: Part) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}
