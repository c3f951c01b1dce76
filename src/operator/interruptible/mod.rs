//! Joins that can be stopped. An operator that makes many batches of one, or none of very many pairs of rows, asks its
//! input rarely, and only inputs let other tasks run. `interruptible` puts a [`Guarded`] above such operators, which
//! yields and looks between their batches, and a [`Watched`] around join conditions, which looks within one batch.

mod guarded;
mod watched;

pub use guarded::Guarded;
pub use watched::Watched;

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result};
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::expressions::{Literal, lit};
use datafusion::physical_expr::{Partitioning, conjunction, split_conjunction};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};

use super::portions::Portions;
use crate::cancel::Cancel;
use crate::store::offline::PRUNING_TERMS;

/// A constant of more bytes is large.
const LARGE: usize = 64 << 10;
/// Bytes of its copies at once.
const PORTION: usize = 16 << 20;

/// The same plan, which ends soon after `cancel`. `step`: bytes that UNNEST may make of one row.
pub fn interruptible(plan: Arc<dyn ExecutionPlan>, cancel: &Cancel, step: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let made = plan.transform_up(|node| {
        let short = with_short_pruning(&node);
        let shortened = short.is_some();
        let cut = in_portions(short.unwrap_or(node))?;
        let watched = watch(cut.data, cancel, step)?;
        Ok(Transformed::new(watched.data, shortened || cut.transformed || watched.transformed, watched.tnr))
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
    if largest <= LARGE {
        return match spread_below(&node)? {
            Some(spread) => Ok(Transformed::yes(spread)),
            None => Ok(Transformed::no(node)),
        };
    }
    if node.children().is_empty() {
        return Ok(match in_small_batches(&node, (PORTION / largest).max(1)) {
            Some(scan) => Transformed::yes(scan),
            None => Transformed::no(node),
        });
    }
    let portion = |c: &Arc<dyn ExecutionPlan>| Arc::new(Portions::of_rows(Arc::clone(c), PORTION / largest)) as Arc<dyn ExecutionPlan>;
    let children = node.children().into_iter().map(portion).collect();
    Ok(Transformed::yes(node.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))?))
}

/// A scan that leaves out row groups by the first terms of a long filter. It filters no rows itself (`pushdown_filters` is
/// off, `engine::session_state`), so that nothing depends on the others.
fn with_short_pruning(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let (config, source) = node.downcast_ref::<DataSourceExec>()?.downcast_to_file_source::<ParquetSource>()?;
    let predicate = source.filter()?;
    let terms = split_conjunction(&predicate);
    if terms.len() <= PRUNING_TERMS || source.table_parquet_options().global.pushdown_filters {
        return None;
    }
    let first = conjunction(terms.into_iter().take(PRUNING_TERMS).cloned());
    let source = Arc::new(source.with_predicate(first));
    Some(DataSourceExec::from_data_source(FileScanConfigBuilder::from(config.clone()).with_source(source).build()))
}

/// A scan of files that makes the copies by itself: it reads as few rows at a time.
fn in_small_batches(node: &Arc<dyn ExecutionPlan>, rows: usize) -> Option<Arc<dyn ExecutionPlan>> {
    let config = node.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()?;
    Some(DataSourceExec::from_data_source(FileScanConfigBuilder::from(config.clone()).with_batch_size(Some(rows)).build()))
}

/// A round-robin puts small batches together again: it goes below what makes the copies.
fn spread_below(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(round_robin) = node.downcast_ref::<RepartitionExec>() else { return Ok(None) };
    let copies = round_robin.input();
    let [below] = copies.children()[..] else { return Ok(None) };
    let Some((input, rows)) = below.downcast_ref::<Portions>().and_then(Portions::by_rows) else { return Ok(None) };
    if !matches!(round_robin.partitioning(), Partitioning::RoundRobinBatch(_)) {
        return Ok(None);
    }
    let spread = RepartitionExec::try_new(Arc::clone(input), round_robin.partitioning().clone())?;
    let portions = Arc::new(Portions::of_rows(Arc::new(spread), rows));
    replace_children_if_necessary(Arc::clone(copies), vec![portions]).map(Some)
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
