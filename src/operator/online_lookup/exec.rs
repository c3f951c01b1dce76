use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::stream::Instant;
use super::{LookupContext, LookupHandle, LookupInstant, stream as lookup};
use crate::clock::{Clock, Micros};
use crate::error::{Error, Result};
use crate::plan::online_lookup::{LookupItem, describe_at, describe_item};

/// Adds features from the online store to each input row, in order: that of the input's partitions, which it
/// reads one after another, and in them that of the rows.
#[derive(Debug)]
pub struct OnlineLookupExec {
    input: Arc<dyn ExecutionPlan>,
    items: Arc<[LookupItem]>,
    at: Option<Micros>,
    store: Option<String>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// Decoders and names, made by the first execution; plans that are reset share them.
    prepared: Arc<OnceLock<Arc<[lookup::Item]>>>,
    /// What `now` means in the running query. A plan may run again: a new task is a new query.
    instant: Mutex<Option<(Weak<TaskContext>, Micros)>>,
}

impl OnlineLookupExec {
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        items: Vec<LookupItem>,
        at: Option<Micros>,
        schema: SchemaRef,
        store: Option<String>,
    ) -> Self {
        // The input's columns come first, so its orderings hold as they are, but not from one partition to the next.
        let whole = input.output_partitioning().partition_count() == 1;
        let orderings = input.equivalence_properties().oeq_class().iter().filter(|_| whole).cloned().collect::<Vec<_>>();
        let mut equivalences = EquivalenceProperties::new_with_orderings(schema, orderings);
        // An ordering may rest on constants; without them it would not be seen.
        if whole && let Err(e) = equivalences.add_constants(input.equivalence_properties().constants()) {
            tracing::debug!(error = %e, "constants of a lookup's input are not used");
        }
        let one = Partitioning::UnknownPartitioning(1);
        let properties = PlanProperties::new(equivalences, one, input.pipeline_behavior(), input.boundedness());
        OnlineLookupExec {
            input,
            items: items.into(),
            at,
            store,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            prepared: Arc::default(),
            instant: Mutex::default(),
        }
    }

    /// What is looked up.
    pub fn items(&self) -> &[LookupItem] {
        &self.items
    }

    /// The instant at which rows must be live; `None`: that of the task.
    pub fn at(&self) -> Option<Micros> {
        self.at
    }

    /// What the store is called in plans.
    pub fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// The same over another input with the same properties, with metrics of its own.
    pub fn again(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        OnlineLookupExec {
            input,
            items: Arc::clone(&self.items),
            at: self.at,
            store: self.store.clone(),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
            prepared: Arc::clone(&self.prepared),
            instant: Mutex::default(),
        }
    }

    fn prepared(&self, context: &dyn LookupContext) -> Result<Arc<[lookup::Item]>> {
        if let Some(items) = self.prepared.get() {
            return Ok(Arc::clone(items));
        }
        let made = lookup::Item::all(&self.items, context)?;
        Ok(Arc::clone(self.prepared.get_or_init(|| made)))
    }

    /// The answer to one batch of the input's schema, without a task and metrics of the plan, both of which cost more
    /// than a small lookup does. `at`: as [`LookupInstant`].
    pub async fn look_up(
        &self,
        context: &Arc<dyn LookupContext>,
        at: Option<Micros>,
        pool: &Arc<dyn MemoryPool>,
        rows: &RecordBatch,
    ) -> Result<RecordBatch> {
        let at = match self.at {
            Some(at) => Instant::Asked(at),
            None => Instant::Now(at.unwrap_or_else(|| context.clock().now())),
        };
        let items = self.prepared(&**context)?;
        lookup::Lookup::new(context, items, at, self.schema(), pool, None).next(rows).await
    }

    fn instant(&self, task: &Arc<TaskContext>, clock: &Clock) -> Micros {
        let mut held = self.instant.lock();
        match &*held {
            Some((known, at)) if std::ptr::eq(known.as_ptr(), Arc::as_ptr(task)) => *at,
            _ => {
                let at = clock.now();
                *held = Some((Arc::downgrade(task), at));
                at
            }
        }
    }
}

impl DisplayAs for OnlineLookupExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let names: Vec<_> = self.input.schema().fields().iter().map(|f| f.name().clone()).collect();
        let items: Vec<_> = self.items.iter().map(|i| describe_item(i, &names)).collect();
        let store = self.store.as_deref().unwrap_or("unknown");
        write!(f, "OnlineLookupExec: {}, at={}, store={store}", items.join("; "), describe_at(self.at))
    }
}

impl ExecutionPlan for OnlineLookupExec {
    fn name(&self) -> &str {
        "OnlineLookupExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    /// Splitting the requests would cost their order and more round trips.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return Err(Error::internal("an online lookup has exactly one input").into());
        };
        if options.children_properties == ChildrenPropertiesMode::Keep {
            return Ok(Arc::new(self.again(input)));
        }
        Ok(Arc::new(OnlineLookupExec::new(input, self.items.to_vec(), self.at, self.schema(), self.store.clone())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let handle =
            task.session_config().get_extension::<LookupHandle>().ok_or_else(|| Error::internal("the session has no online store"))?;
        let given = || task.session_config().get_extension::<LookupInstant>().map(|i| i.0);
        let at = match self.at {
            Some(at) => Instant::Asked(at),
            None => Instant::Now(given().unwrap_or_else(|| self.instant(&task, &handle.0.clock()))),
        };
        let input = match self.input.output_partitioning().partition_count() {
            1 => self.input.execute(0, Arc::clone(&task))?,
            n => {
                let (parts, task) = (Arc::clone(&self.input), Arc::clone(&task));
                let rows = stream::iter(0..n).map(move |p| parts.execute(p, Arc::clone(&task))).try_flatten();
                Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), rows))
            }
        };
        let items = self.prepared(&*handle.0)?;
        let metrics = Some((&self.metrics, partition));
        Ok(lookup::Lookup::new(&handle.0, items, at, self.schema(), task.memory_pool(), metrics).stream(input))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    /// Below, a limit would hold for each partition.
    fn supports_limit_pushdown(&self) -> bool {
        self.input.output_partitioning().partition_count() == 1
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}
