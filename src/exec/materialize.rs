//! MATERIALIZE: from Delta to the online store.

use std::sync::Arc;

use datafusion::execution::TaskContext;

use super::Services;
use super::resolve::Resolver;
use crate::catalog::Run;
use crate::error::{Error, Result};
use crate::model::FeatureView;

/// Brings each view's online rows up to its newest Delta version; answers one row of `system.runs` each.
pub async fn run(resolver: &Arc<Resolver>, views: &[Arc<FeatureView>], full: bool, cx: &Arc<TaskContext>) -> Result<Vec<Run>> {
    let _ = (resolver, views, full, cx);
    Err(Error::not_built("MATERIALIZE"))
}

/// Applies what is not yet applied, for INSERT into an ONLINE push view.
pub async fn apply(services: &Arc<Services>, view: &Arc<FeatureView>, cx: &Arc<TaskContext>) -> Result<u64> {
    let _ = (services, view, cx);
    Err(Error::not_built("MATERIALIZE"))
}
