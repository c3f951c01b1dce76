//! Optimizer rules around the point-in-time join. DataFusion's own rules would push a predicate or a
//! limit into *every* input of an extension node; only the label input may have them.

use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Extension, FetchType, Filter, LogicalPlan, Projection, SkipType};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::node::PitJoinNode;

/// Moves deterministic predicates on label columns, and the row count of a LIMIT, below the join.
/// Predicates on features stay above: below they would change which row is the live one.
#[derive(Debug, Default)]
pub struct PushLabelFilters;

impl OptimizerRule for PushLabelFilters {
    fn name(&self) -> &str {
        "push_label_filters"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Filter(filter) => push_filter(filter),
            LogicalPlan::Limit(mut limit) => {
                let (SkipType::Literal(skip), FetchType::Literal(Some(fetch))) = (limit.get_skip_type()?, limit.get_fetch_type()?) else {
                    return Ok(Transformed::no(LogicalPlan::Limit(limit)));
                };
                match fetch_labels(&limit.input, skip.saturating_add(fetch))? {
                    Some(input) => {
                        limit.input = Arc::new(input);
                        Ok(Transformed::yes(LogicalPlan::Limit(limit)))
                    }
                    None => Ok(Transformed::no(LogicalPlan::Limit(limit))),
                }
            }
            plan => Ok(Transformed::no(plan)),
        }
    }
}

fn pit_join(plan: &LogicalPlan) -> Option<&PitJoinNode> {
    match plan {
        LogicalPlan::Extension(e) => e.node.as_any().downcast_ref(),
        _ => None,
    }
}

fn extension(node: PitJoinNode) -> LogicalPlan {
    LogicalPlan::Extension(Extension { node: Arc::new(node) })
}

/// The projection by which the stock rules leave out columns that nothing above needs, if there is one, and the join.
fn below_columns(plan: &LogicalPlan) -> Option<(Option<&Projection>, &PitJoinNode)> {
    match plan {
        LogicalPlan::Projection(p) if p.expr.iter().all(|e| matches!(e, Expr::Column(_))) => Some((Some(p), pit_join(&p.input)?)),
        plan => Some((None, pit_join(plan)?)),
    }
}

fn push_filter(filter: Filter) -> DfResult<Transformed<LogicalPlan>> {
    let (columns, node) = match below_columns(&filter.input) {
        // Rows that a limit has chosen must be chosen before the filter.
        Some((columns, node)) if node.label_fetch.is_none() => (columns, node),
        _ => return Ok(Transformed::no(LogicalPlan::Filter(filter))),
    };
    let (down, up): (Vec<Expr>, Vec<Expr>) =
        split_conjunction_owned(filter.predicate.clone()).into_iter().partition(|e| reads_labels_only(e, node));
    let Some(down) = conjunction(down) else {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    };
    let labels = LogicalPlan::Filter(Filter::try_new(down, Arc::new(node.labels.clone()))?);
    let mut joined = extension(node.with_labels(labels)?);
    if let Some(columns) = columns {
        joined = LogicalPlan::Projection(Projection::try_new(columns.expr.clone(), Arc::new(joined))?);
    }
    Ok(Transformed::yes(match conjunction(up) {
        Some(up) => LogicalPlan::Filter(Filter::try_new(up, Arc::new(joined))?),
        None => joined,
    }))
}

fn reads_labels_only(e: &Expr, node: &PitJoinNode) -> bool {
    use datafusion::common::tree_node::TreeNode;
    use datafusion::logical_expr::UserDefinedLogicalNodeCore;
    let columns = e.column_refs();
    let has_subquery = e
        .exists(|e| {
            Ok(matches!(
                e,
                Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) | Expr::OuterReferenceColumn(..)
            ))
        })
        .unwrap_or(true);
    !columns.is_empty()
        && !e.is_volatile()
        && !has_subquery
        && columns.iter().all(|c| node.schema().index_of_column(c).is_ok_and(|i| i < node.label_width()))
}

/// The plan with at most `n` label rows read, where each of its rows comes from one label row.
fn fetch_labels(plan: &LogicalPlan, n: usize) -> DfResult<Option<LogicalPlan>> {
    match plan {
        // A child LIMIT would be free to take any rows of a label table with several partitions; the
        // operator takes the first ones.
        LogicalPlan::Extension(_) => match pit_join(plan) {
            Some(node) if node.keeps_all_labels() && node.label_fetch.is_none_or(|f| n < f) => {
                Ok(Some(extension(node.with_label_fetch(n))))
            }
            _ => Ok(None),
        },
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => match fetch_labels(plan.inputs()[0], n)? {
            Some(input) => plan.with_new_exprs(plan.expressions(), vec![input]).map(Some),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}
