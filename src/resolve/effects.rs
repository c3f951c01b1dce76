//! What the effects of a statement need of those who carry them out.

use std::sync::Arc;

use parking_lot::Mutex;

use super::resolver::Resolver;
use crate::engine::physical::NodePlanner;
use crate::model::FeatureView;
use crate::plan::feature_table::RowSink;
use crate::services::Services;

/// What carries out the effects of a statement. The jobs do; they stand above names and plans.
pub trait Effects: Send + Sync {
    /// Plans the commands of a statement.
    fn planner(&self, resolver: &Arc<Resolver>) -> NodePlanner;

    /// Stores the rows that a statement brings to a push view.
    fn row_sink(&self, services: &Arc<Services>, view: &Arc<FeatureView>, notices: Arc<Mutex<Vec<String>>>) -> Arc<dyn RowSink>;
}
