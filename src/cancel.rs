//! Whether a statement is still wanted. Work that never waits asks between its steps.

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{Error, Result};

tokio::task_local! {
    static CURRENT: Cancel;
}

/// One statement's will to go on; clones are the same will.
#[derive(Debug, Clone, Default)]
pub struct Cancel(CancellationToken);

impl Cancel {
    /// That of the statement which this task works for.
    pub fn current() -> Option<Cancel> {
        CURRENT.try_with(Cancel::clone).ok()
    }

    /// Makes `work` work for this statement.
    pub fn scope<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), work)
    }

    pub fn cancel(&self) {
        self.0.cancel();
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// An error once the statement is not wanted any more.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    /// Cancels when dropped, unless disarmed.
    pub fn guard(&self) -> DropGuard {
        self.0.clone().drop_guard()
    }
}

/// The error of a statement that nobody wants any more.
pub fn cancelled() -> Error {
    Error::cancelled("the statement was cancelled")
}

/// As [`Cancel::check`], for whatever this task works for.
pub fn check_current() -> Result<()> {
    CURRENT.try_with(Cancel::check).unwrap_or(Ok(()))
}
