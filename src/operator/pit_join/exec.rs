//! The physical plan node: properties, statistics, display.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{ColumnStatistics, DataFusionError, Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::equivalence::ProjectionMapping;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, CardinalityEffect, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, apply_expression_roots,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};

use super::{stream, views};
use crate::plan::pit_join::MatchOp;
use crate::plan::pit_types::TimeLines;

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
    /// The key index it uses, shared by all items with the same label keys. Set by `PitJoinExec`.
    pub(super) index: usize,
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
    fn expressions(&self) -> impl Iterator<Item = &Arc<dyn PhysicalExpr>> {
        let keys = self.keys.iter().flat_map(|(l, r)| [l, r]);
        keys.chain([&self.at, &self.time]).chain([&self.created, &self.seq, &self.known_by].into_iter().flatten())
    }

    /// What is asked of a feature row.
    pub(super) fn feature_expressions(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        let keys = self.keys.iter().map(|k| &k.1);
        keys.chain([&self.time]).chain([&self.created, &self.seq].into_iter().flatten()).collect()
    }

    /// The same item with other expressions for the feature side.
    pub(super) fn map_feature_side(&self, f: &impl Fn(&Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>>) -> Result<Self> {
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
    pub(super) fn feature_keys(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.keys.iter().map(|k| evaluate(&k.1, batch)).collect()
    }

    /// Instants of a feature batch.
    pub(super) fn feature_times(&self, batch: &RecordBatch) -> Result<FeatureTimes> {
        Ok(FeatureTimes {
            time: evaluate(&self.time, batch)?,
            created: self.created.as_ref().map(|e| evaluate(e, batch)).transpose()?,
            seq: self.seq.as_ref().map(|e| evaluate(e, batch)).transpose()?,
        })
    }

    pub(super) fn label_keys(&self) -> impl Iterator<Item = &Arc<dyn PhysicalExpr>> {
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

/// Labels (child 0) with the live row of every view (the other children). Output is one partition in
/// label order: the label partitions one after the other, each in its order.
#[derive(Debug, Clone)]
pub struct PitJoinExec {
    pub(super) labels: Arc<dyn ExecutionPlan>,
    pub(super) views: Vec<Arc<dyn ExecutionPlan>>,
    pub(super) items: Vec<PitExecItem>,
    pub(super) label_fetch: Option<usize>,
    /// Columns of the result among those of the labels and then of every view; `None`: all.
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PitJoinExec {
    pub fn try_new(
        labels: Arc<dyn ExecutionPlan>,
        views: Vec<Arc<dyn ExecutionPlan>>,
        mut items: Vec<PitExecItem>,
        label_fetch: Option<usize>,
    ) -> Result<Self> {
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
        Ok(PitJoinExec {
            properties: Arc::new(Self::properties_of(&labels, &views, None)?),
            labels,
            views,
            items,
            label_fetch,
            projection: None,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    fn properties_of(
        labels: &Arc<dyn ExecutionPlan>,
        views: &[Arc<dyn ExecutionPlan>],
        projection: Option<&Vec<usize>>,
    ) -> Result<PlanProperties> {
        let nullable = |f: &Arc<Field>| Arc::new(Field::clone(f).with_nullable(true));
        let label_schema = labels.schema();
        let mut fields = label_schema.fields().to_vec();
        fields.extend(views.iter().flat_map(|v| v.schema().fields().iter().map(nullable).collect::<Vec<_>>()));
        let schema: SchemaRef = Arc::new(Schema::new_with_metadata(fields, label_schema.metadata().clone()));
        let mut equivalences = EquivalenceProperties::new(Arc::clone(&schema));
        if labels.output_partitioning().partition_count() == 1 {
            // Label columns come first: their expressions mean the same above.
            equivalences.add_orderings(labels.equivalence_properties().oeq_class().clone());
        }
        if let Some(columns) = projection {
            let mapping = ProjectionMapping::from_indices(columns, &schema)?;
            equivalences = equivalences.project(&mapping, Arc::new(schema.project(columns)?));
        }
        Ok(PlanProperties::new(equivalences, Partitioning::UnknownPartitioning(1), EmissionType::Incremental, Boundedness::Bounded))
    }

    /// The same join with some of its columns only, in ascending order. Columns left out are not read.
    fn with_projection(&self, columns: Vec<usize>) -> Result<Self> {
        let columns = match &self.projection {
            Some(p) => columns.into_iter().map(|c| p[c]).collect(),
            None => columns,
        };
        let properties = Arc::new(Self::properties_of(&self.labels, &self.views, Some(&columns))?);
        Ok(PitJoinExec { projection: Some(columns), properties, ..self.clone() })
    }

    /// The columns of the result, as columns of the labels (first) and of each view.
    pub(super) fn output_columns(&self) -> Vec<Vec<usize>> {
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
    pub(super) fn first_items(&self) -> impl Iterator<Item = &PitExecItem> {
        let mut next = 0;
        self.items.iter().filter(move |i| {
            let first = i.index == next;
            next += usize::from(first);
            first
        })
    }

    /// Per child: true where the order of its rows means something.
    pub(super) fn needs_input_order(&self) -> Vec<bool> {
        std::iter::once(true).chain(self.items.iter().map(|i| i.seq.is_none())).collect()
    }

    fn width_of_all(&self) -> usize {
        std::iter::once(&self.labels).chain(&self.views).map(|c| c.schema().fields().len()).sum()
    }

    fn keeps_all_labels(&self) -> bool {
        !self.items.iter().any(|i| i.inner)
    }
}

impl DisplayAs for PitJoinExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                f.write_str("PitJoinExec: ")?;
                "; "
            }
            DisplayFormatType::TreeRender => "\n",
        };
        for (i, item) in self.items.iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { separator })?;
        }
        let strategies = self.views.iter().zip(&self.items).map(|(v, i)| views::planned(v, i)).collect::<Vec<_>>();
        write!(f, "{separator}strategy=[{}]", strategies.join(", "))?;
        if let Some(columns) = &self.projection {
            let schema = self.schema();
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            write!(f, "{separator}columns=[{}] of {}", names.join(", "), self.width_of_all().max(columns.len()))?;
        }
        match self.label_fetch {
            Some(n) => write!(f, "{separator}labels fetch={n}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for PitJoinExec {
    fn name(&self) -> &str {
        "PitJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        std::iter::once(&self.labels).chain(&self.views).collect()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        // Partitions set one after the other are not in order as a whole.
        let one = self.labels.output_partitioning().partition_count() == 1;
        std::iter::once(one).chain(self.views.iter().map(|_| false)).collect()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // A round-robin would destroy the order of the labels, and "the last row" of a plain table.
        vec![false; self.views.len() + 1]
    }

    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.items.iter().flat_map(PitExecItem::expressions), f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.len() != self.views.len() + 1 {
            return Err(DataFusionError::Internal(format!("PitJoinExec has {} children, got {}", self.views.len() + 1, children.len())));
        }
        let views = children.split_off(1);
        let labels = children.swap_remove(0);
        let join = PitJoinExec::try_new(labels, views, self.items.clone(), self.label_fetch)?;
        Ok(Arc::new(match &self.projection {
            Some(columns) => join.with_projection(columns.clone())?,
            None => join,
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return Err(DataFusionError::Internal(format!("PitJoinExec has one partition, not {}", partition + 1)));
        }
        Ok(stream::start(self, context, &self.metrics))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, _partition: Option<usize>) -> Vec<ChildStats> {
        std::iter::once(ChildStats::At(None)).chain(self.views.iter().map(|_| ChildStats::Skip)).collect()
    }

    fn statistics_from_inputs(&self, input_stats: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let labels = &input_stats[0];
        let width = self.labels.schema().fields().len();
        let exact = self.keeps_all_labels();
        let mut rows = labels.num_rows;
        let mut columns = labels.column_statistics.clone();
        if let Some(fetch) = self.label_fetch {
            rows = match rows {
                Precision::Exact(n) => Precision::Exact(n.min(fetch)),
                _ => Precision::Inexact(fetch),
            };
        }
        if !exact || self.label_fetch.is_some() {
            columns = columns.into_iter().map(ColumnStatistics::to_inexact).collect();
        }
        columns.resize_with(width, ColumnStatistics::new_unknown);
        columns.resize_with(self.width_of_all(), ColumnStatistics::new_unknown);
        if let Some(p) = &self.projection {
            columns = p.iter().map(|c| columns[*c].clone()).collect();
        }
        let rows = if exact { rows } else { rows.to_inexact() };
        Ok(Arc::new(Statistics { num_rows: rows, total_byte_size: Precision::Absent, column_statistics: columns }))
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let width = self.schema().fields().len();
        let mut wanted: Vec<usize> =
            projection.expr().iter().flat_map(|e| collect_columns(&e.expr).into_iter().map(|c| c.index()).collect::<Vec<_>>()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.len() == width {
            return Ok(None);
        }
        let narrow = Arc::new(self.with_projection(wanted.clone())?);
        let exprs = projection
            .expr()
            .iter()
            .map(|e| {
                let expr = Arc::clone(&e.expr).transform_up(|e| {
                    let Some(column) = e.downcast_ref::<Column>() else { return Ok(Transformed::no(e)) };
                    let index = wanted.partition_point(|w| *w < column.index());
                    Ok(Transformed::yes(Arc::new(Column::new(column.name(), index)) as Arc<dyn PhysicalExpr>))
                })?;
                Ok(ProjectionExpr { expr: expr.data, alias: e.alias.clone() })
            })
            .collect::<Result<Vec<_>>>()?;
        let plain = exprs.len() == wanted.len()
            && exprs.iter().enumerate().all(|(i, e)| {
                let column = e.expr.downcast_ref::<Column>();
                column.is_some_and(|c| c.index() == i && c.name() == e.alias)
            });
        Ok(Some(if plain { narrow } else { Arc::new(ProjectionExec::try_new(exprs, narrow)?) }))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        if self.keeps_all_labels() && self.label_fetch.is_none() { CardinalityEffect::Equal } else { CardinalityEffect::LowerEqual }
    }
}
