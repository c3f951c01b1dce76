//! The point-in-time join: one node for a label relation and any number of feature relations.
//! Each label row is given, from every view, the one row that was live at the label's instant.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Result as DfResult};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::logical_expr::{cast, try_cast};
use serde::{Deserialize, Serialize};

use super::types::{TimeLines, common_key_type};
use crate::clock::Micros;
use crate::error::{Error, Result};

/// How a label's instant (left) must stand to a feature row's time (right).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Hash, Serialize, Deserialize)]
pub enum MatchOp {
    /// `at >= time`: the latest row at or before the instant.
    AtOrBefore,
    /// `at > time`: the latest row before the instant.
    Before,
    /// `at <= time`: the first row at or after the instant.
    AtOrAfter,
    /// `at < time`: the first row after the instant.
    After,
}

impl MatchOp {
    /// True where the match is later than the label.
    pub fn looks_ahead(self) -> bool {
        matches!(self, MatchOp::AtOrAfter | MatchOp::After)
    }

    /// True where a row at the very instant does not match.
    pub fn is_strict(self) -> bool {
        matches!(self, MatchOp::Before | MatchOp::After)
    }
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MatchOp::AtOrBefore => ">=",
            MatchOp::Before => ">",
            MatchOp::AtOrAfter => "<=",
            MatchOp::After => "<",
        })
    }
}

/// How one feature relation is matched; `PitJoinNode::views` holds the relations in the same order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Hash)]
pub struct PitItem {
    /// Equal keys: (label side, feature side). Empty: every feature row may match every label.
    pub keys: Vec<(Expr, Expr)>,
    /// Label side: the instant.
    pub at: Expr,
    /// Feature side: the event timestamp, or any ordering column of a plain table.
    pub time: Expr,
    /// Feature side: first tie-break; NULL loses.
    pub created: Option<Expr>,
    /// Feature side: second tie-break, "written later". Without it the last row in input order wins.
    pub seq: Option<Expr>,
    /// Label side: rows created later, or with a NULL created timestamp, do not count; NULL: no row counts.
    pub known_by: Option<Expr>,
    /// Greatest age in microseconds, both ends inclusive; `Some(0)`: the same instant only.
    pub ttl: Option<Micros>,
    pub op: MatchOp,
    /// Drops label rows that this item does not match.
    pub inner: bool,
    /// Compare in microseconds, features rounded up and labels down (feature views), instead of
    /// exactly at the finer unit of the two sides (plain tables).
    pub round_to_micros: bool,
    /// `*` shows the features only, not the view's keys and timestamps (form C).
    pub features_only: bool,
    /// What EXPLAIN and errors call it: `name@vN`.
    pub description: String,
}

impl PitItem {
    pub(in crate::plan) fn expressions(&self) -> Vec<Expr> {
        let mut all: Vec<Expr> = self.keys.iter().flat_map(|(l, r)| [l.clone(), r.clone()]).collect();
        all.extend([self.at.clone(), self.time.clone()]);
        all.extend([&self.created, &self.seq, &self.known_by].into_iter().flatten().cloned());
        all
    }

    /// The same item with expressions in the order of `expressions()`; `None` when there are too few.
    pub(in crate::plan) fn with_expressions(&self, exprs: &mut impl Iterator<Item = Expr>) -> Option<Self> {
        // Optimizer rules may wrap a rewritten expression in an alias; names mean nothing here.
        let mut next = || exprs.next().map(Expr::unalias);
        let mut item = self.clone();
        for (l, r) in &mut item.keys {
            (*l, *r) = (next()?, next()?);
        }
        item.at = next()?;
        item.time = next()?;
        for e in [&mut item.created, &mut item.seq, &mut item.known_by].into_iter().flatten() {
            *e = next()?;
        }
        Some(item)
    }

    /// Casts both sides of every key to their common type and checks every type.
    pub(in crate::plan) fn coerced(mut self, labels: &DFSchema, view: &DFSchema) -> Result<Self> {
        for (l, r) in &mut self.keys {
            let (lt, rt) = (l.get_type(labels)?, r.get_type(view)?);
            let common = common_key_type(&l.to_string(), &lt, &r.to_string(), &rt)?;
            for (e, t) in [(l, lt), (r, rt)] {
                if t != common {
                    // A value that does not fit becomes NULL: it equals nothing on the other side.
                    *e = try_cast(e.clone(), common.clone());
                }
            }
        }
        if let Some(seq) = self.seq.take() {
            let t = seq.get_type(view)?;
            if !t.is_integer() {
                return Err(Error::internal(format!("{}: sequence column {seq} is of type {t}", self.description)));
            }
            self.seq = Some(if t == DataType::Int64 { seq } else { cast(seq, DataType::Int64) });
        }
        self.time_lines(labels, view)?;
        Ok(self)
    }

    /// The lines of time that this item's instants are compared on.
    pub fn time_lines(&self, labels: &DFSchema, view: &DFSchema) -> Result<TimeLines> {
        let typed = |e: &Expr, schema: &DFSchema| Ok::<_, Error>((e.to_string(), e.get_type(schema)?));
        let at = typed(&self.at, labels)?;
        let time = typed(&self.time, view)?;
        let known_by = self.known_by.as_ref().map(|e| typed(e, labels)).transpose()?;
        let created = self.created.as_ref().map(|e| typed(e, view)).transpose()?;
        TimeLines::find(
            (&at.0, &at.1),
            (&time.0, &time.1),
            known_by.as_ref().map(|t| (t.0.as_str(), &t.1)),
            created.as_ref().map(|t| (t.0.as_str(), &t.1)),
            self.ttl,
            self.round_to_micros,
        )
    }
}

impl fmt::Display for PitItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.inner { "inner" } else { "left" };
        write!(f, "{kind} {} on (", self.description)?;
        for (l, r) in &self.keys {
            write!(f, "{l} = {r}, ")?;
        }
        write!(f, "{} {} {})", self.at, self.op, self.time)?;
        if let Some(ttl) = self.ttl {
            write!(f, " within {ttl} µs")?;
        }
        if let Some(known_by) = &self.known_by {
            write!(f, " known by {known_by}")?;
        }
        Ok(())
    }
}

/// Label rows, each with its live row of every view. Output: the fields of `labels`, then the fields
/// of every view in order, nullable. The rows are exactly the label rows in their order, less those
/// that an inner item does not match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PitJoinNode {
    pub labels: LogicalPlan,
    pub views: Vec<LogicalPlan>,
    pub items: Vec<PitItem>,
    /// Only the first so many label rows are wanted; set by the optimizer under a LIMIT.
    pub label_fetch: Option<usize>,
    schema: DFSchemaRef,
}

impl PitJoinNode {
    /// Checks types and casts keys to common types. Errors name the columns at fault.
    pub fn try_new(labels: LogicalPlan, views: Vec<LogicalPlan>, items: Vec<PitItem>) -> Result<Self> {
        if views.len() != items.len() {
            return Err(Error::internal(format!("point-in-time join of {} views with {} items", views.len(), items.len())));
        }
        let items = items
            .into_iter()
            .zip(&views)
            .map(|(item, view)| {
                let name = item.description.clone();
                item.coerced(labels.schema(), view.schema()).map_err(|e| e.context(name))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self::assemble(labels, views, items, None)?)
    }

    fn assemble(labels: LogicalPlan, views: Vec<LogicalPlan>, items: Vec<PitItem>, label_fetch: Option<usize>) -> DfResult<Self> {
        let mut fields: Vec<_> = labels.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        for view in &views {
            fields.extend(view.schema().iter().map(|(q, f)| (q.cloned(), Arc::new(Field::clone(f).with_nullable(true)))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, labels.schema().metadata().clone())?);
        Ok(PitJoinNode { labels, views, items, label_fetch, schema })
    }

    /// True where every label row gives exactly one output row.
    pub fn keeps_all_labels(&self) -> bool {
        !self.items.iter().any(|i| i.inner)
    }

    /// Number of leading output columns that come from the labels.
    pub fn label_width(&self) -> usize {
        self.labels.schema().fields().len()
    }

    pub(super) fn with_label_fetch(&self, rows: usize) -> Self {
        PitJoinNode { label_fetch: Some(rows), ..self.clone() }
    }

    pub(super) fn with_labels(&self, labels: LogicalPlan) -> DfResult<Self> {
        Self::assemble(labels, self.views.clone(), self.items.clone(), self.label_fetch)
    }
}

impl PartialOrd for PitJoinNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let order = (&self.labels, &self.views, &self.items, self.label_fetch).partial_cmp(&(
            &other.labels,
            &other.views,
            &other.items,
            other.label_fetch,
        ));
        // `Equal` must mean `==`, and plans that compare equal may differ in their schemas.
        order.filter(|o| *o != Ordering::Equal || self == other)
    }
}

impl UserDefinedLogicalNodeCore for PitJoinNode {
    fn name(&self) -> &str {
        "PitJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        std::iter::once(&self.labels).chain(&self.views).collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.items.iter().flat_map(PitItem::expressions).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PitJoin: ")?;
        for (i, item) in self.items.iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { "; " })?;
        }
        match self.label_fetch {
            Some(n) => write!(f, ", labels fetch={n}"),
            None => Ok(()),
        }
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        if inputs.len() != self.views.len() + 1 {
            return Err(DataFusionError::Internal(format!("PitJoin needs {} inputs, got {}", self.views.len() + 1, inputs.len())));
        }
        let views = inputs.split_off(1);
        let labels = inputs.swap_remove(0);
        let mut exprs = exprs.into_iter();
        let items: Option<Vec<_>> = self.items.iter().map(|i| i.with_expressions(&mut exprs)).collect();
        match items {
            Some(items) if exprs.next().is_none() => Self::assemble(labels, views, items, self.label_fetch),
            _ => Err(DataFusionError::Internal("PitJoin got the wrong number of expressions".into())),
        }
    }

    // Columns of `expressions()` are added by the caller.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut start = 0;
        let children = self.inputs().into_iter().map(|child| {
            let range = start..start + child.schema().fields().len();
            start = range.end;
            output_columns.iter().filter(|c| range.contains(c)).map(|c| c - range.start).collect()
        });
        Some(children.collect())
    }
}
