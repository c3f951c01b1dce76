//! How far in time a query sees: which of its sources it reads only up to an instant.
//!
//! A row is out of sight where it cannot change the result. Walking down from the result, each node says of which
//! columns that holds beyond the instant; walking up, which columns hold no later value.

mod bounds;
mod known;
mod stamp;

use std::any::Any;
use std::collections::HashSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, Result as DfResult};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, FetchType, Join, LogicalPlan, SkipType, TableScan};

use self::bounds::Bounds;
use self::known::known;
pub use self::stamp::is_stamped;
use super::feature_table::as_feature_table;
use super::pit_join::PitJoinNode;
use crate::clock::Micros;
use crate::sql::instant::parse_instant;
use crate::sql::rewrite::TIME_TRAVEL;

/// Places of columns in a plan's output.
type Places = HashSet<usize>;

/// A table that a query reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As the query calls it.
    pub name: String,
    /// Its columns that tell the time of a row.
    pub times: Vec<String>,
    /// Rows later than the instant are not seen.
    pub bounded: bool,
}

/// The tables that a query reads, and whether later rows than `at` are out of its sight, where `now()` means `at`.
pub fn sources(plan: &LogicalPlan, at: Micros) -> Vec<Source> {
    let mut walk = Walk { bounds: Bounds::new(at), found: vec![] };
    walk.down(plan, Places::new(), &HashSet::new(), None);
    walk.found
}

struct Walk {
    bounds: Bounds,
    found: Vec<Source>,
}

fn all(plan: &LogicalPlan) -> Places {
    (0..plan.schema().fields().len()).collect()
}

/// The columns at some places, as expressions name them.
fn columns(schema: &DFSchema, places: &Places) -> HashSet<Column> {
    places.iter().filter(|i| **i < schema.fields().len()).map(|i| Column::from(schema.qualified_field(*i))).collect()
}

impl Walk {
    /// `hidden`: output columns of which no value beyond the instant matters. `outer`: columns of the queries around
    /// this one that hold no later value.
    fn down(&mut self, plan: &LogicalPlan, hidden: Places, outer: &HashSet<Column>, alias: Option<&str>) {
        self.subqueries(plan, &hidden, outer);
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan, &hidden, alias),
            LogicalPlan::Values(_) => self.values(plan, &hidden, alias),
            LogicalPlan::SubqueryAlias(a) => self.down(&a.input, hidden, outer, Some(a.alias.table())),
            LogicalPlan::Filter(f) => {
                let mut inside = known(&f.input, &self.bounds, outer);
                inside.extend(&hidden);
                let bound = self.bounds.of([&f.predicate], f.input.schema(), inside, outer);
                self.down(&f.input, &hidden | &bound, outer, None);
            }
            // its columns have names by the alias
            LogicalPlan::Projection(p) if matches!(p.input.as_ref(), LogicalPlan::Values(_)) => self.values(plan, &hidden, alias),
            LogicalPlan::Projection(p) => {
                let below = self.through(&p.expr, &hidden, p.input.schema());
                self.down(&p.input, below, outer, None);
            }
            LogicalPlan::Sort(s) if s.fetch.is_none() => self.down(&s.input, hidden, outer, alias),
            LogicalPlan::Repartition(r) => self.down(&r.input, hidden, outer, alias),
            LogicalPlan::Distinct(Distinct::All(input)) => self.down(input, hidden, outer, alias),
            LogicalPlan::Subquery(s) => self.down(&s.subquery, hidden, outer, alias),
            LogicalPlan::Limit(l) => {
                let whole = matches!((l.get_skip_type(), l.get_fetch_type()), (Ok(SkipType::Literal(0)), Ok(FetchType::Literal(None))));
                self.down(&l.input, if whole { hidden } else { Places::new() }, outer, alias);
            }
            LogicalPlan::Aggregate(a) => {
                let below = self.grouped(a, &hidden);
                self.down(&a.input, below, outer, None);
            }
            LogicalPlan::Union(u) => {
                for input in &u.inputs {
                    self.down(input, hidden.clone(), outer, None);
                }
            }
            LogicalPlan::Join(j) => self.join(j, &hidden, outer),
            LogicalPlan::Extension(e) => match e.node.as_any().downcast_ref::<PitJoinNode>() {
                Some(join) => self.pit_join(join, &hidden, outer),
                None => self.each_input(plan, outer),
            },
            _ => self.each_input(plan, outer),
        }
    }

    fn each_input(&mut self, plan: &LogicalPlan, outer: &HashSet<Column>) {
        for input in plan.inputs() {
            self.down(input, Places::new(), outer, None);
        }
    }

    /// Queries inside of a node's expressions.
    fn subqueries(&mut self, plan: &LogicalPlan, hidden: &Places, outer: &HashSet<Column>) {
        let mut inner: Vec<LogicalPlan> = vec![];
        let mut collect = |e: &Expr| -> DfResult<TreeNodeRecursion> {
            e.apply(|e| {
                match e {
                    Expr::Exists(x) => inner.push(x.subquery.subquery.as_ref().clone()),
                    Expr::InSubquery(x) => inner.push(x.subquery.subquery.as_ref().clone()),
                    Expr::ScalarSubquery(x) => inner.push(x.subquery.as_ref().clone()),
                    Expr::SetComparison(x) => inner.push(x.subquery.subquery.as_ref().clone()),
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        };
        let _ = plan.apply_expressions(&mut collect);
        if inner.is_empty() {
            return;
        }
        let mut around = outer.clone();
        for input in plan.inputs() {
            let inside = match plan {
                LogicalPlan::Filter(f) => {
                    let mut inside = known(input, &self.bounds, outer);
                    inside.extend(hidden);
                    let bound = self.bounds.of([&f.predicate], input.schema(), inside.clone(), outer);
                    &inside | &bound
                }
                _ => known(input, &self.bounds, outer),
            };
            around.extend(columns(input.schema(), &inside));
        }
        for query in inner {
            self.down(&query, Places::new(), &around, None);
        }
    }

    /// Columns below whose later values show only in output columns where they do not matter.
    fn through(&self, exprs: &[Expr], hidden: &Places, below: &DFSchema) -> Places {
        hidden.iter().filter_map(|i| exprs.get(*i)).filter_map(|e| self.bounds.later_stays_later(e, below)).collect()
    }

    fn grouped(&self, a: &Aggregate, hidden: &Places) -> Places {
        match &a.group_expr[..] {
            [Expr::GroupingSet(_)] => Places::new(),
            groups => self.through(groups, hidden, a.input.schema()),
        }
    }

    fn join(&mut self, j: &Join, hidden: &Places, outer: &HashSet<Column>) {
        let width = j.left.schema().fields().len();
        let (mut left, mut right) = match j.join_type {
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                let width = j.right.schema().fields().len();
                (Places::new(), hidden.iter().filter(|i| **i < width).copied().collect())
            }
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                (hidden.iter().filter(|i| **i < width).copied().collect(), Places::new())
            }
            _ => split(hidden, width),
        };
        let below = |side: &LogicalPlan, hidden: &Places| &known(side, &self.bounds, outer) | hidden;
        let (inside_left, inside_right) = (below(&j.left, &left), below(&j.right, &right));
        let on = known::on_bounds(j, &inside_left, &inside_right, &self.bounds, outer);
        let (on_left, on_right) = split(&on, width);
        use JoinType::*;
        if matches!(j.join_type, Inner | Right | LeftSemi | RightSemi | RightAnti | RightMark) {
            left.extend(on_left);
        }
        if matches!(j.join_type, Inner | Left | LeftSemi | RightSemi | LeftAnti | LeftMark) {
            right.extend(on_right);
        }
        let mut around = outer.clone();
        around.extend(columns(j.left.schema(), &inside_left));
        self.down(&j.left, left, outer, None);
        self.down(&j.right, right, &around, None);
    }

    fn pit_join(&mut self, join: &PitJoinNode, hidden: &Places, outer: &HashSet<Column>) {
        let labels: Places = hidden.iter().filter(|i| **i < join.label_width()).copied().collect();
        let inside = &known(&join.labels, &self.bounds, outer) | &labels;
        for (view, item) in join.views.iter().zip(&join.items) {
            let bound = !item.op.looks_ahead() && self.bounds.is_past(&item.at, join.labels.schema(), &inside, outer);
            let below = if bound { self.bounds.later_stays_later(&item.time, view.schema()) } else { None };
            self.down(view, below.into_iter().collect(), outer, None);
        }
        self.down(&join.labels, labels, outer, None);
    }

    fn scan(&mut self, scan: &TableScan, hidden: &Places, alias: Option<&str>) {
        let table = scan.table_name.table();
        // what a recursive query has found so far, or a function like generate_series
        let working = source_as_provider(&scan.source).is_ok_and(|p| {
            let any: &dyn Any = p.as_ref();
            any.is::<CteWorkTable>()
        });
        let made = table.ends_with("()") || working;
        if made || is_past(table, self.bounds.at) {
            return;
        }
        let feature = as_feature_table(&scan.source);
        let tells = |name: &str| {
            feature.as_ref().is_none_or(|t| t.view.event_timestamp == name || t.view.created_timestamp.as_deref() == Some(name))
        };
        let fields = scan.projected_schema.fields().iter().enumerate();
        let times: Vec<(usize, String)> =
            fields.filter(|(_, f)| is_time(f.data_type()) && tells(f.name())).map(|(i, f)| (i, f.name().clone())).collect();
        let shown = table.split(TIME_TRAVEL).next().unwrap_or(table);
        self.add(alias.unwrap_or(shown), times, hidden);
    }

    /// Rows that the query itself brings.
    fn values(&mut self, plan: &LogicalPlan, hidden: &Places, alias: Option<&str>) {
        let fields = plan.schema().fields().iter().enumerate();
        let times: Vec<(usize, String)> = fields.filter(|(_, f)| is_time(f.data_type())).map(|(i, f)| (i, f.name().clone())).collect();
        if !times.is_empty() {
            self.add(alias.unwrap_or("VALUES"), times, hidden);
        }
    }

    fn add(&mut self, name: &str, times: Vec<(usize, String)>, hidden: &Places) {
        let bounded = times.iter().any(|(i, _)| hidden.contains(i));
        let source = Source { name: name.to_string(), times: times.into_iter().map(|(_, n)| n).collect(), bounded };
        if !self.found.contains(&source) {
            self.found.push(source);
        }
    }
}

/// The places of both sides of a join, each counted from its own first column.
fn split(places: &Places, width: usize) -> (Places, Places) {
    let left = places.iter().filter(|i| **i < width).copied().collect();
    (left, places.iter().filter(|i| **i >= width).map(|i| i - width).collect())
}

fn is_time(t: &DataType) -> bool {
    matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

/// Whether a table is read as it was at the instant, or before.
fn is_past(table: &str, at: Micros) -> bool {
    let when = table.split_once(TIME_TRAVEL).and_then(|(_, when)| when.strip_prefix('t'));
    when.is_some_and(|t| parse_instant(t).is_ok_and(|i| i.micros <= at))
}
