//! The physical plan node: properties, statistics, display.

use std::fmt;
use std::sync::Arc;

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

use super::probe::view;
use super::scan::files::ParquetFiles;
use super::spec::{PitExecItem, PitJoinSpec};
use super::stream;

/// Labels (child 0) with the live row of every view (the other children), in label order: the label partitions one
/// after the other, each in its order.
///
/// With several parts, each output partition joins a share of the labels that stand together, and reads of every view
/// the rows that the keys of its labels reach: a view is never split beside the labels. The partitions one after the
/// other are the labels in order ([`super::InLabelOrderExec`]).
#[derive(Debug, Clone)]
pub struct PitJoinExec {
    spec: PitJoinSpec,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PitJoinExec {
    pub fn try_new(spec: PitJoinSpec) -> Result<Self> {
        let properties = Arc::new(Self::properties_of(&spec)?);
        Ok(PitJoinExec { spec, properties, metrics: ExecutionPlanMetricsSet::new() })
    }

    fn properties_of(spec: &PitJoinSpec) -> Result<PlanProperties> {
        let nullable = |f: &Arc<Field>| Arc::new(Field::clone(f).with_nullable(true));
        let label_schema = spec.labels.schema();
        let mut fields = label_schema.fields().to_vec();
        fields.extend(spec.views.iter().flat_map(|v| v.schema().fields().iter().map(nullable).collect::<Vec<_>>()));
        let schema: SchemaRef = Arc::new(Schema::new_with_metadata(fields, label_schema.metadata().clone()));
        let mut equivalences = EquivalenceProperties::new(Arc::clone(&schema));
        if keeps_orderings(spec) {
            // Label columns come first: their expressions mean the same above.
            equivalences.add_orderings(spec.labels.equivalence_properties().oeq_class().clone());
        }
        if let Some(columns) = &spec.projection {
            let mapping = ProjectionMapping::from_indices(columns, &schema)?;
            equivalences = equivalences.project(&mapping, Arc::new(schema.project(columns)?));
        }
        Ok(PlanProperties::new(
            equivalences,
            Partitioning::UnknownPartitioning(spec.parts()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ))
    }

    /// What is joined with what.
    pub fn spec(&self) -> &PitJoinSpec {
        &self.spec
    }

    /// Per child: true where the order of its rows means something.
    pub fn needs_input_order(&self) -> Vec<bool> {
        self.spec.needs_input_order()
    }

    /// The same join with some of its columns only, in ascending order. Columns left out are not read.
    pub(super) fn with_projection(&self, columns: Vec<usize>) -> Result<Self> {
        let columns = match &self.spec.projection {
            Some(p) => columns.into_iter().map(|c| p[c]).collect(),
            None => columns,
        };
        let spec = PitJoinSpec { projection: Some(columns), ..self.spec.clone() };
        let properties = Arc::new(Self::properties_of(&spec)?);
        Ok(PitJoinExec { spec, properties, metrics: self.metrics.clone() })
    }
}

/// Whether an output partition is one partition of the labels, with the order of its rows.
fn keeps_orderings(spec: &PitJoinSpec) -> bool {
    let partitions = spec.labels.output_partitioning().partition_count();
    // Files of labels are shared by their row groups, whatever the partitions of their scan.
    partitions == 1 || (partitions == spec.parts() && ParquetFiles::behind(&spec.labels).is_none())
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
        for (i, item) in self.spec.items.iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { separator })?;
        }
        let strategies = self.spec.views.iter().zip(&self.spec.items).map(|(v, i)| view::planned(v, i)).collect::<Vec<_>>();
        write!(f, "{separator}strategy=[{}]", strategies.join(", "))?;
        if let Some(columns) = &self.spec.projection {
            let schema = self.schema();
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            write!(f, "{separator}columns=[{}] of {}", names.join(", "), self.spec.width_of_all().max(columns.len()))?;
        }
        if self.spec.parts() > 1 {
            write!(f, "{separator}parts={}", self.spec.parts())?;
        }
        match self.spec.label_fetch {
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
        std::iter::once(&self.spec.labels).chain(&self.spec.views).collect()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        // Partitions set one after the other are not in order as a whole.
        std::iter::once(keeps_orderings(&self.spec)).chain(self.spec.views.iter().map(|_| false)).collect()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // A round-robin would destroy the order of the labels, and "the last row" of a plain table.
        vec![false; self.spec.views.len() + 1]
    }

    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.spec.items.iter().flat_map(PitExecItem::expressions), f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.len() != self.spec.views.len() + 1 {
            return Err(DataFusionError::Internal(format!(
                "PitJoinExec has {} children, got {}",
                self.spec.views.len() + 1,
                children.len()
            )));
        }
        let views = children.split_off(1);
        let labels = children.swap_remove(0);
        let spec = PitJoinSpec {
            projection: self.spec.projection.clone(),
            ..PitJoinSpec::new(labels, views, self.spec.items.clone(), self.spec.label_fetch, self.spec.options)
        };
        Ok(Arc::new(PitJoinExec::try_new(spec)?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition >= self.spec.parts() {
            return Err(DataFusionError::Internal(format!("PitJoinExec has {} partitions, not {}", self.spec.parts(), partition + 1)));
        }
        Ok(stream::start(self.spec.clone(), partition, self.schema(), context, &self.metrics))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, _partition: Option<usize>) -> Vec<ChildStats> {
        std::iter::once(ChildStats::At(None)).chain(self.spec.views.iter().map(|_| ChildStats::Skip)).collect()
    }

    fn statistics_from_inputs(&self, input_stats: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        if args.partition().is_some() && self.spec.parts() > 1 {
            return Ok(Arc::new(Statistics::new_unknown(&self.schema())));
        }
        let labels = &input_stats[0];
        let width = self.spec.labels.schema().fields().len();
        let exact = self.spec.keeps_all_labels();
        let mut rows = labels.num_rows;
        let mut columns = labels.column_statistics.clone();
        if let Some(fetch) = self.spec.label_fetch {
            rows = match rows {
                Precision::Exact(n) => Precision::Exact(n.min(fetch)),
                _ => Precision::Inexact(fetch),
            };
        }
        if !exact || self.spec.label_fetch.is_some() {
            columns = columns.into_iter().map(ColumnStatistics::to_inexact).collect();
        }
        columns.resize_with(width, ColumnStatistics::new_unknown);
        columns.resize_with(self.spec.width_of_all(), ColumnStatistics::new_unknown);
        if let Some(p) = &self.spec.projection {
            columns = p.iter().map(|c| columns[*c].clone()).collect();
        }
        let rows = if exact { rows } else { rows.to_inexact() };
        Ok(Arc::new(Statistics { num_rows: rows, total_byte_size: Precision::Absent, column_statistics: columns }))
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let width = self.schema().fields().len();
        let mut required: Vec<usize> =
            projection.expr().iter().flat_map(|e| collect_columns(&e.expr).into_iter().map(|c| c.index()).collect::<Vec<_>>()).collect();
        required.sort_unstable();
        required.dedup();
        if required.len() == width {
            return Ok(None);
        }
        let narrow = Arc::new(self.with_projection(required.clone())?);
        let exprs = projection
            .expr()
            .iter()
            .map(|e| {
                let expr = Arc::clone(&e.expr).transform_up(|e| {
                    let Some(column) = e.downcast_ref::<Column>() else { return Ok(Transformed::no(e)) };
                    let index = required.partition_point(|r| *r < column.index());
                    Ok(Transformed::yes(Arc::new(Column::new(column.name(), index)) as Arc<dyn PhysicalExpr>))
                })?;
                Ok(ProjectionExpr { expr: expr.data, alias: e.alias.clone() })
            })
            .collect::<Result<Vec<_>>>()?;
        let plain = exprs.len() == required.len()
            && exprs.iter().enumerate().all(|(i, e)| {
                let column = e.expr.downcast_ref::<Column>();
                column.is_some_and(|c| c.index() == i && c.name() == e.alias)
            });
        Ok(Some(if plain { narrow } else { Arc::new(ProjectionExec::try_new(exprs, narrow)?) }))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        if self.spec.keeps_all_labels() && self.spec.label_fetch.is_none() {
            CardinalityEffect::Equal
        } else {
            CardinalityEffect::LowerEqual
        }
    }
}
