//! The logical node of ONLINE_LOOKUP and ONLINE JOIN: rows in, the same rows out with features beside them.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::clock::{Micros, format_micros};
use crate::error::{Error, Result};
use crate::model::types::timestamp_type;
use crate::model::windowed::slot_name;
use crate::model::{Column, FeatureView};
use crate::plan::windows;

/// Name of the last column: the instant at which rows had to be live, what `now()` means in a service.
pub const INSTANT: &str = "_remige_instant";
/// Name of the column that says whether an item's row was found.
pub const STATUS: &str = "__status";
pub const PRESENT: &str = "PRESENT";
pub const NULL_VALUE: &str = "NULL_VALUE";
pub const NOT_FOUND: &str = "NOT_FOUND";
pub const OUTSIDE_MAX_AGE: &str = "OUTSIDE_MAX_AGE";
/// A window holds more events, or a count of values more values, than a record keeps.
pub const OVER_LIMIT: &str = "OVER_LIMIT";

/// One feature view to read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupItem {
    /// Qualifies the item's output columns.
    pub alias: String,
    pub view: Arc<FeatureView>,
    /// Per key of the view, the input column that holds it. Values of another type are cast where
    /// that loses nothing, and refused where it does.
    pub key_inputs: Vec<usize>,
    /// Features to read: indices into `view.features`; of a windowed view its aggregates: indices into `Windowed::slots`.
    pub features: Vec<usize>,
}

impl LookupItem {
    pub fn qualifier(&self) -> TableReference {
        TableReference::bare(self.alias.as_str())
    }

    /// What is read, by name and type.
    pub fn columns(&self) -> Vec<Column> {
        let column = |i: &usize| match &self.view.windowed {
            Some(w) => w.slots.get(*i).map(|s| Column { name: slot_name(*i), data_type: s.data_type.clone() }),
            None => self.view.features.get(*i).map(|f| Column { name: f.name.clone(), data_type: f.data_type.clone() }),
        };
        self.features.iter().filter_map(column).collect()
    }

    /// Columns that the item adds: what is read, the view's event timestamp, the status.
    pub fn fields(&self) -> Vec<Field> {
        let mut out: Vec<_> = self.columns().into_iter().map(|c| Field::new(c.name, c.data_type.arrow().clone(), true)).collect();
        out.push(Field::new(&self.view.event_timestamp, timestamp_type(), true));
        out.push(Field::new(STATUS, DataType::Utf8, false));
        out
    }
}

impl Hash for LookupItem {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.alias, &self.view.name, self.view.version, &self.key_inputs, &self.features).hash(state);
    }
}

/// One output row per input row, in order: the input's columns, then each item's, then [`INSTANT`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OnlineLookupNode {
    pub input: LogicalPlan,
    pub items: Vec<LookupItem>,
    /// The instant at which rows must be live; `None`: now, one reading of the clock per query.
    pub at: Option<Micros>,
    /// An ONLINE JOIN rather than an ONLINE_LOOKUP; see `online_join::parts`.
    pub joins: bool,
    pub(crate) schema: DFSchemaRef,
}

impl OnlineLookupNode {
    pub fn try_new(input: LogicalPlan, items: Vec<LookupItem>, at: Option<Micros>) -> Result<Self> {
        let width = input.schema().fields().len();
        for item in &items {
            let view = &item.view;
            if item.key_inputs.len() != view.keys.len() || item.key_inputs.iter().any(|i| *i >= width) {
                return Err(Error::internal(format!("the lookup of {} has wrong key columns", view.name)));
            }
            if item.columns().len() != item.features.len() {
                return Err(Error::internal(format!("the lookup of {} names a feature it does not have", view.name)));
            }
        }
        let mut fields: Vec<_> = input.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        for item in &items {
            let qualifier = item.qualifier();
            fields.extend(item.fields().into_iter().map(|f| (Some(qualifier.clone()), Arc::new(f))));
        }
        fields.push((None, Arc::new(Field::new(INSTANT, timestamp_type(), true))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        Ok(OnlineLookupNode { input, items, at, joins: false, schema })
    }

    /// The same node as an ONLINE JOIN.
    pub fn joined(self) -> Self {
        OnlineLookupNode { joins: true, ..self }
    }
}

impl PartialOrd for OnlineLookupNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let key = |n: &Self| n.items.iter().map(|i| (i.alias.clone(), i.view.versioned_name())).collect::<Vec<_>>();
        (self == other).then_some(Ordering::Equal).or_else(|| key(self).partial_cmp(&key(other)).filter(|o| o.is_ne()))
    }
}

/// By which words a plan asks the online store, if it does.
pub fn asks_online(plan: &LogicalPlan) -> Result<Option<&'static str>> {
    let mut found = None;
    plan.apply_with_subqueries(|p| {
        if let LogicalPlan::Extension(e) = p
            && let Some(node) = e.node.as_any().downcast_ref::<OnlineLookupNode>()
        {
            found = Some(if node.joins { "ONLINE JOIN" } else { "ONLINE_LOOKUP" });
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// `f = public.churn@v1 [a, b] by (user)`: how EXPLAIN shows an item.
pub fn describe_item(item: &LookupItem, input_names: &[String]) -> String {
    let view = &item.view;
    let features = match view.windowed {
        Some(_) => windows::describe(view, &item.features),
        None => format!("[{}]", item.columns().into_iter().map(|c| c.name).collect::<Vec<_>>().join(", ")),
    };
    let keys: Vec<_> = item.key_inputs.iter().filter_map(|i| input_names.get(*i)).map(String::as_str).collect();
    format!("{} = {} {features} by ({})", item.alias, view.versioned_name(), keys.join(", "))
}

/// When rows must be live, as EXPLAIN shows it.
pub fn describe_at(at: Option<Micros>) -> String {
    at.map_or("now".to_string(), format_micros)
}

impl UserDefinedLogicalNodeCore for OnlineLookupNode {
    fn name(&self) -> &str {
        "OnlineLookup"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let schema = self.input.schema();
        self.items.iter().flat_map(|i| &i.key_inputs).map(|k| Expr::Column(schema.qualified_field(*k).into())).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names = self.input.schema().field_names();
        let items: Vec<_> = self.items.iter().map(|i| describe_item(i, &names)).collect();
        write!(f, "OnlineLookup: {}, at={}", items.join("; "), describe_at(self.at))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let (Some(input), true) = (inputs.pop(), inputs.is_empty()) else {
            return Err(Error::internal("an online lookup has exactly one input").into());
        };
        // Columns may have moved when the input was narrowed.
        let mut places = exprs.iter().map(|e| match e {
            Expr::Column(c) => input.schema().index_of_column(c),
            other => Err(Error::internal(format!("a key of an online lookup is no column: {other}")).into()),
        });
        let mut items = self.items.clone();
        for key in items.iter_mut().flat_map(|i| &mut i.key_inputs) {
            *key = places.next().ok_or_else(|| Error::internal("an online lookup lost a key column"))??;
        }
        drop(places);
        Ok(OnlineLookupNode { joins: self.joins, ..OnlineLookupNode::try_new(input, items, self.at)? })
    }

    /// What is known of a row before it is looked up may as well be asked before.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let width = self.input.schema().fields().len();
        self.schema.fields().iter().skip(width).map(|f| f.name().clone()).collect()
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        let keys = self.items.iter().flat_map(|i| i.key_inputs.iter().copied());
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|c| *c < width).chain(keys).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }

    /// Rows stand for themselves, so a LIMIT above may as well be below; but below a join it would be free to
    /// take any left rows, where the operator takes the first ones.
    fn supports_limit_pushdown(&self) -> bool {
        !self.joins
    }
}
