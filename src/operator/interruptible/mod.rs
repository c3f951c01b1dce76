//! Joins that can be stopped. An operator that makes many batches of one, or none of very many pairs of rows, asks its
//! input rarely, and only inputs let other tasks run. `interruptible` puts a [`Guarded`] above such operators, which
//! yields and looks between their batches, and a [`Watched`] around join conditions, which looks within one batch.

mod guarded;
mod watched;

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result};
use datafusion::physical_expr::expressions::{Literal, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::unnest::UnnestExec;

use self::guarded::Guarded;
use self::watched::Watched;
use super::portions::Portions;
use crate::cancel::Cancel;

/// A constant of more bytes is large.
const LARGE: usize = 64 << 10;
/// Bytes of its copies at once.
const PORTION: usize = 16 << 20;

/// The same plan, which ends soon after `cancel`. `step`: bytes that UNNEST may make of one row.
pub fn interruptible(plan: Arc<dyn ExecutionPlan>, cancel: &Cancel, step: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let made = plan.transform_up(|node| {
        let cut = in_portions(node)?;
        let watched = watch(cut.data, cancel, step)?;
        Ok(Transformed::new(watched.data, cut.transformed || watched.transformed, watched.tnr))
    });
    Ok(made?.data)
}

fn watch(node: Arc<dyn ExecutionPlan>, cancel: &Cancel, step: usize) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let node = if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        match join.filter() {
            Some(filter) => Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(Some(watched(filter, cancel))).build()?) as _,
            None => node,
        }
    } else if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        match hash_filter(join, cancel) {
            Some(filter) => Arc::new(join.builder().with_filter(Some(filter)).build()?) as _,
            None => node,
        }
    } else if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
        let lists = unnest.list_column_indices().iter().map(|l| l.index_in_input_schema).collect();
        let input = Arc::new(Portions::new(Arc::clone(unnest.input()), lists, step));
        Arc::clone(&node).replace_children(vec![input], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))?
    } else if multiplies(&node) {
        node
    } else {
        return Ok(Transformed::no(node));
    };
    Ok(Transformed::yes(Arc::new(Guarded::new(node, cancel.clone()))))
}

/// A constant becomes a column, with as many copies as there are rows: where it is large, few rows come at a time.
fn in_portions(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let mut largest = 0;
    node.apply_expressions(&mut |e| {
        e.apply(|e| {
            if let Some(constant) = e.downcast_ref::<Literal>() {
                largest = largest.max(constant.value().size());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if largest <= LARGE || node.children().is_empty() {
        return Ok(Transformed::no(node));
    }
    let portion = |c: &Arc<dyn ExecutionPlan>| Arc::new(Portions::of_rows(Arc::clone(c), PORTION / largest)) as Arc<dyn ExecutionPlan>;
    let children = node.children().into_iter().map(portion).collect();
    Ok(Transformed::yes(node.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))?))
}

/// Nodes that can answer much more than they read.
fn multiplies(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<CrossJoinExec>() || node.is::<SortMergeJoinExec>() || node.is::<RecursiveQueryExec>()
}

fn watched(filter: &JoinFilter, cancel: &Cancel) -> JoinFilter {
    let condition = Arc::new(Watched::new(Arc::clone(filter.expression()), cancel.clone()));
    JoinFilter::new(condition, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// A join that answers rows of one side goes through all pairs of equal keys and answers nothing meanwhile: where it has
/// no condition of its own, it gets one that is always true.
fn hash_filter(join: &HashJoinExec, cancel: &Cancel) -> Option<JoinFilter> {
    use JoinType::{LeftAnti, LeftMark, LeftSemi, RightAnti, RightMark, RightSemi};
    match join.filter() {
        Some(filter) => Some(watched(filter, cancel)),
        None if join.null_aware => None,
        None if matches!(join.join_type(), LeftAnti | LeftMark | LeftSemi | RightAnti | RightMark | RightSemi) => {
            Some(watched(&JoinFilter::new(lit(true), vec![], Arc::new(Schema::empty())), cancel))
        }
        None => None,
    }
}
