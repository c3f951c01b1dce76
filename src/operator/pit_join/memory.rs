//! The memory of one join, accounted to the session's pool.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::physical_plan::metrics::Gauge;
use parking_lot::Mutex;

#[derive(Debug)]
pub struct Memory {
    reservation: Mutex<MemoryReservation>,
    /// What the join is called in errors.
    name: String,
    peak: Gauge,
    /// Bytes that it may have at most: the parts of a join share the memory limit, or one that comes first would leave
    /// nothing for the others.
    limit: usize,
    parts: usize,
}

/// Some of it, given back when dropped.
#[derive(Debug)]
pub struct Part {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    /// `parts`: how many share the pool.
    pub fn new(pool: &Arc<dyn MemoryPool>, name: String, peak: Gauge, parts: usize) -> Arc<Self> {
        let limit = match pool.memory_limit() {
            MemoryLimit::Finite(bytes) if parts > 1 => bytes / parts,
            _ => usize::MAX,
        };
        Arc::new(Memory { reservation: Mutex::new(MemoryConsumer::new("PitJoinExec").register(pool)), name, peak, limit, parts })
    }

    pub fn part(self: &Arc<Self>) -> Part {
        Part { memory: Arc::clone(self), bytes: 0 }
    }

    fn grow(&self, bytes: usize) -> Result<()> {
        let reservation = self.reservation.lock();
        if reservation.size().saturating_add(bytes) > self.limit {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "a part of the point-in-time join of {} holds {} bytes and needs {bytes} more, more than its share of the memory limit; SET pit_join_parts to less than {}",
                self.name,
                reservation.size(),
                self.parts
            )));
        }
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
