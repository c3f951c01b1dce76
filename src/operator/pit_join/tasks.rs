//! Tasks whose results are awaited in any order; dropping them ends them.

use std::future::Future;

use datafusion::common::{DataFusionError, Result};
use tokio::task::JoinSet;

#[derive(Debug)]
pub struct Tasks<T>(JoinSet<Result<T>>);

impl<T: Send + 'static> Tasks<T> {
    pub fn new() -> Self {
        Tasks(JoinSet::new())
    }

    pub fn spawn(&mut self, task: impl Future<Output = Result<T>> + Send + 'static) {
        self.0.spawn(task);
    }

    /// The next result; `None` when all tasks are done. After an error none is running any more, nor holding memory.
    pub async fn next(&mut self) -> Result<Option<T>> {
        match self.0.join_next().await {
            None => Ok(None),
            Some(Ok(Ok(result))) => Ok(Some(result)),
            Some(Ok(Err(e))) => {
                self.0.shutdown().await;
                Err(e)
            }
            Some(Err(e)) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Some(Err(e)) => Err(DataFusionError::ExecutionJoin(Box::new(e))),
        }
    }
}
