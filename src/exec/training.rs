//! Training sets: a stored result and the manifest that can make it again.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};

use super::resolve::Resolver;
use crate::error::{Error, Result};
use crate::model::Name;
use crate::plan::command::TrainingSetSpec;

pub async fn create(resolver: &Arc<Resolver>, spec: &TrainingSetSpec, rows: SendableRecordBatchStream) -> Result<u64> {
    let _ = (resolver, spec, rows);
    Err(Error::not_built("CREATE TRAINING SET"))
}

pub async fn rebuild(resolver: &Arc<Resolver>, name: &Name, cx: &Arc<TaskContext>) -> Result<RecordBatch> {
    let _ = (resolver, name, cx);
    Err(Error::not_built("REBUILD TRAINING SET"))
}

/// Removes a table that nothing names any more, unless a training set pins it.
pub async fn reclaim(resolver: &Arc<Resolver>, location: &str) {
    let _ = (resolver, location);
}
