//! Reads of feature tables below SQL, `_seq` included.

use std::sync::Arc;

use datafusion::arrow::compute::SortOptions;
use datafusion::catalog::TableProvider;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::future::BoxFuture;

use super::write::order;
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::services::Services;
use crate::store::offline::{DataFile, Ordering, ScanOptions, Snapshot};

/// Rows of a table with `_seq`: of `files` instead of the snapshot's where given; `sorted`: in the order of
/// keys and time, on one partition. `filter` may only prune.
pub fn scan<'a>(
    services: &'a Services,
    view: &'a FeatureView,
    snapshot: &'a Snapshot,
    files: Option<Vec<Arc<DataFile>>>,
    filter: Option<Expr>,
    sorted: bool,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<SendableRecordBatchStream>> {
    Box::pin(async move {
        let ordering = if sorted { Ordering::Auto } else { Ordering::Never };
        let provider: Arc<dyn TableProvider> = services.store.scan_provider(snapshot, ScanOptions { hidden: true, files, ordering })?;
        let filters: Vec<Expr> = filter.into_iter().collect();
        let plan = provider.scan(services.session.as_ref(), None, &filters, None).await?;
        let plan = if sorted { in_order(plan, view)? } else { plan };
        crate::services::stall::execute(services, plan, Arc::clone(cx))
    })
}

/// Merges sorted partitions; sorts, and spills, only where the files do not carry the order.
fn in_order(plan: Arc<dyn ExecutionPlan>, view: &FeatureView) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = plan.schema();
    let options = SortOptions { descending: false, nulls_first: true };
    let by = order(view)
        .iter()
        .map(|c| Ok(PhysicalSortExpr { expr: Arc::new(Column::new_with_schema(c, &schema)?), options }))
        .collect::<Result<Vec<_>>>()?;
    let by = LexOrdering::new(by).ok_or_else(|| Error::internal("a feature table has no sort columns"))?;
    let partitions = plan.output_partitioning().partition_count();
    let plan = match plan.equivalence_properties().ordering_satisfy(by.clone())? {
        true => plan,
        false => Arc::new(SortExec::new(by.clone(), plan).with_preserve_partitioning(true)),
    };
    Ok(match partitions {
        0 | 1 => plan,
        _ => Arc::new(SortPreservingMergeExec::new(by, plan)),
    })
}
