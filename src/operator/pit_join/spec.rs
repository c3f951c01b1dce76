//! What a point-in-time join is asked: its inputs, what is matched with what, and which columns are wanted of it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;

use super::options::PitJoinOptions;
use crate::plan::pit_join::MatchOp;
use crate::plan::pit_join::types::TimeLines;

/// One view's part of the join; see `plan::pit_join::PitItem`.
#[derive(Debug, Clone)]
pub struct PitExecItem {
    /// Label side and feature side, of one type each.
    pub keys: Vec<(Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)>,
    pub at: Arc<dyn PhysicalExpr>,
    pub time: Arc<dyn PhysicalExpr>,
    pub created: Option<Arc<dyn PhysicalExpr>>,
    /// Int64.
    pub seq: Option<Arc<dyn PhysicalExpr>>,
    pub known_by: Option<Arc<dyn PhysicalExpr>>,
    pub op: MatchOp,
    pub lines: TimeLines,
    pub inner: bool,
    pub description: String,
    /// The key index it uses, shared by all items with the same label keys. Set by `PitJoinSpec`.
    pub(in crate::operator) index: usize,
}

/// What decides between feature rows of one key, per row.
#[derive(Debug)]
pub struct FeatureTimes {
    pub time: ArrayRef,
    pub created: Option<ArrayRef>,
    /// Int64.
    pub seq: Option<ArrayRef>,
}

/// A value per row.
pub fn evaluate(e: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    e.evaluate(batch)?.into_array(batch.num_rows())
}

impl PitExecItem {
    pub(in crate::operator) fn expressions(&self) -> impl Iterator<Item = &Arc<dyn PhysicalExpr>> {
        let keys = self.keys.iter().flat_map(|(l, r)| [l, r]);
        keys.chain([&self.at, &self.time]).chain([&self.created, &self.seq, &self.known_by].into_iter().flatten())
    }

    /// What is asked of a feature row.
    pub(in crate::operator) fn feature_expressions(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        let keys = self.keys.iter().map(|k| &k.1);
        keys.chain([&self.time]).chain([&self.created, &self.seq].into_iter().flatten()).collect()
    }

    /// The same item with other expressions for the feature side.
    pub(in crate::operator) fn map_feature_side(
        &self,
        f: &impl Fn(&Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>>,
    ) -> Result<Self> {
        let mut item = self.clone();
        for (_, key) in &mut item.keys {
            *key = f(key)?;
        }
        item.time = f(&item.time)?;
        for e in [&mut item.created, &mut item.seq].into_iter().flatten() {
            *e = f(e)?;
        }
        Ok(item)
    }

    /// Key columns of a feature batch.
    pub(in crate::operator) fn feature_keys(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.keys.iter().map(|k| evaluate(&k.1, batch)).collect()
    }

    /// Instants of a feature batch.
    pub(in crate::operator) fn feature_times(&self, batch: &RecordBatch) -> Result<FeatureTimes> {
        Ok(FeatureTimes {
            time: evaluate(&self.time, batch)?,
            created: self.created.as_ref().map(|e| evaluate(e, batch)).transpose()?,
            seq: self.seq.as_ref().map(|e| evaluate(e, batch)).transpose()?,
        })
    }

    pub(in crate::operator) fn label_keys(&self) -> impl Iterator<Item = &Arc<dyn PhysicalExpr>> {
        self.keys.iter().map(|k| &k.0)
    }
}

impl fmt::Display for PitExecItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} on (", if self.inner { "inner" } else { "left" }, self.description)?;
        for (l, r) in &self.keys {
            write!(f, "{l} = {r}, ")?;
        }
        write!(f, "{} {} {})", self.at, self.op, self.time)
    }
}

/// A join of labels with the live row of every view.
#[derive(Debug, Clone)]
pub struct PitJoinSpec {
    pub labels: Arc<dyn ExecutionPlan>,
    pub views: Vec<Arc<dyn ExecutionPlan>>,
    pub items: Vec<PitExecItem>,
    /// Only so many label rows are read.
    pub label_fetch: Option<usize>,
    /// Columns of the result among those of the labels and then of every view; `None`: all.
    pub projection: Option<Vec<usize>>,
    pub options: PitJoinOptions,
}

impl PitJoinSpec {
    /// Items with the same label keys get the same key index.
    pub fn new(
        labels: Arc<dyn ExecutionPlan>,
        views: Vec<Arc<dyn ExecutionPlan>>,
        mut items: Vec<PitExecItem>,
        label_fetch: Option<usize>,
        options: PitJoinOptions,
    ) -> Self {
        let mut count = 0;
        for i in 0..items.len() {
            let (before, rest) = items.split_at_mut(i);
            match before.iter().find(|b| b.label_keys().eq(rest[0].label_keys())) {
                Some(same) => rest[0].index = same.index,
                None => {
                    rest[0].index = count;
                    count += 1;
                }
            }
        }
        PitJoinSpec { labels, views, items, label_fetch, projection: None, options }
    }

    /// Output partitions. The first labels are those of the first part, so labels that are counted are in one part.
    pub fn parts(&self) -> usize {
        if self.label_fetch.is_some() { 1 } else { self.options.parts.max(1) }
    }

    /// Which of so many things in label order (partitions of the labels, row groups of their files) are a part's.
    pub fn share(&self, part: usize) -> impl Fn(usize) -> Range<usize> + use<> {
        let parts = self.parts() as u128;
        move |count| {
            let at = |part: usize| (part as u128 * count as u128 / parts) as usize;
            at(part)..at(part + 1)
        }
    }

    /// The columns of the result, as columns of the labels (first) and of each view.
    pub fn output_columns(&self) -> Vec<Vec<usize>> {
        let mut start = 0;
        let children = std::iter::once(&self.labels).chain(&self.views);
        children
            .map(|child| {
                let range = start..start + child.schema().fields().len();
                start = range.end;
                match &self.projection {
                    Some(p) => p.iter().filter(|c| range.contains(c)).map(|c| c - range.start).collect(),
                    None => (0..range.len()).collect(),
                }
            })
            .collect()
    }

    /// The first item of every key index, in the order of the indexes.
    pub fn first_items(&self) -> impl Iterator<Item = &PitExecItem> {
        let mut next = 0;
        self.items.iter().filter(move |i| {
            let first = i.index == next;
            next += usize::from(first);
            first
        })
    }

    /// Per child: true where the order of its rows means something.
    pub fn needs_input_order(&self) -> Vec<bool> {
        std::iter::once(true).chain(self.items.iter().map(|i| i.seq.is_none())).collect()
    }

    pub fn width_of_all(&self) -> usize {
        std::iter::once(&self.labels).chain(&self.views).map(|c| c.schema().fields().len()).sum()
    }

    pub fn keeps_all_labels(&self) -> bool {
        !self.items.iter().any(|i| i.inner)
    }
}
