//! Plans ONLINE JOIN (sql/README.md, "Online lookups"): the ASOF join of features whose instant is now, answered by the
//! online store. Joins that follow one another and need nothing but the same left side's columns share one
//! node, so that each batch of left rows costs one read.

pub mod parts;

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, Filter, LogicalPlan, Projection, cast, try_cast, when};
use sqlparser::ast::{FunctionArg, FunctionArgExpr, Spanned, TableFactor};

use parts::Parts;

use super::names::Names;
use super::online_lookup::{INSTANT, LookupItem, OnlineLookupNode};
use super::pit_join::conditions::{Conditions, on_conditions, place_of};
use super::pit_join::keys::{Callers, view_keys};
use super::pit_join::syntax::{Clauses, roles};
use super::pit_join::types::common_key_type;
use super::target::{Target, TargetItem};
use super::{lookup, service};
use crate::error::{Error, Result, Span};
use crate::model::FeatureView;
use crate::sql::cursor::NameRef;
use crate::sql::references::{is_online_side, online_join_name};

/// A key that is no left column of the key's own type is computed under a name that begins like this.
const KEY: &str = "_remige_key_";

/// A join being put together.
struct Joined {
    left: LogicalPlan,
    inputs: Vec<Expr>,
    items: Vec<LookupItem>,
    live: Vec<Expr>,
    outputs: Vec<Expr>,
}

impl Joined {
    /// Goes on with the node that `left` ends in, where `reads` (columns that new items read of the left side)
    /// are there already; else begins a new one over all of it.
    fn onto(left: LogicalPlan, reads: &[Column]) -> Joined {
        if let Some(p) = Parts::of(&left)
            && reads.iter().all(|c| p.left.schema().has_column(c))
        {
            return Joined {
                left: p.left.clone(),
                inputs: p.inputs.to_vec(),
                items: p.node.items.clone(),
                live: p.live.cloned().into_iter().collect(),
                outputs: p.outputs.to_vec(),
            };
        }
        let columns: Vec<Expr> = left.schema().columns().into_iter().map(Expr::Column).collect();
        Joined { left, inputs: columns.clone(), items: vec![], live: vec![], outputs: columns }
    }

    /// Where the node finds a key, in its declared type.
    fn input(&mut self, e: &Expr, view: &FeatureView, key: &crate::model::Column) -> Result<usize> {
        let (schema, want) = (self.left.schema(), key.data_type.arrow());
        if let Expr::Column(c) = e
            && e.get_type(schema)? == *want
        {
            return Ok(schema.index_of_column(c)?);
        }
        let name = format!("{}.{}", view.name.name, key.name);
        let fitted = fitted(e, &e.get_type(schema)?, &name, want)?;
        let known = |known: &Expr| matches!(known, Expr::Alias(a) if *a.expr == fitted && a.name.starts_with(KEY));
        if let Some(at) = self.inputs.iter().position(known) {
            return Ok(at);
        }
        let at = self.inputs.len();
        self.inputs.push(fitted.alias(format!("{KEY}{at}")));
        Ok(at)
    }

    fn add(&mut self, alias: String, view: &Arc<FeatureView>, keys: &[Expr], features: Vec<usize>, inner: bool) -> Result<()> {
        let key_inputs = keys.iter().zip(&view.keys).map(|(e, key)| self.input(e, view, key)).collect::<Result<_>>()?;
        let item = LookupItem { alias, view: Arc::clone(view), key_inputs, features };
        if inner {
            self.live.push(self.is_there(&item));
        }
        self.items.push(item);
        Ok(())
    }

    /// The input column with this number.
    fn column(&self, at: usize) -> Expr {
        match &self.inputs[at] {
            Expr::Alias(a) => Expr::Column(Column::new_unqualified(&a.name)),
            e => e.clone(),
        }
    }

    /// True where the item has something to say: a live row; of a windowed view, whose windows may be empty, a key.
    fn is_there(&self, item: &LookupItem) -> Expr {
        let keys = item.key_inputs.iter().map(|at| self.column(*at).is_not_null());
        match item.view.windowed.as_ref().and_then(|_| conjunction(keys)) {
            Some(given) => given,
            None => event_time(item).is_not_null(),
        }
    }

    fn build(self) -> Result<LogicalPlan> {
        let input = LogicalPlan::Projection(Projection::try_new(self.inputs, Arc::new(self.left))?);
        let node = OnlineLookupNode::try_new(input, self.items, None)?.joined();
        let mut plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        if let Some(live) = conjunction(self.live) {
            plan = LogicalPlan::Filter(Filter::try_new(live, Arc::new(plan))?);
        }
        Ok(LogicalPlan::Projection(Projection::try_new(self.outputs, Arc::new(plan))?))
    }
}

/// NULL exactly where the item has no live row.
fn event_time(item: &LookupItem) -> Expr {
    Expr::Column(Column::new(Some(item.qualifier()), &item.view.event_timestamp))
}

/// A key in its declared type; NULL where it has no such value, for then it equals no stored key. The same
/// types can be compared as in an ASOF JOIN.
fn fitted(e: &Expr, have: &DataType, key: &str, want: &DataType) -> Result<Expr> {
    let common = common_key_type(&e.to_string(), have, key, want)?;
    if have.is_null() || common.is_string() || common.is_binary() {
        return Ok(cast(e.clone(), want.clone()));
    }
    let fitted = try_cast(e.clone(), want.clone());
    if common == *want {
        return Ok(fitted);
    }
    // a cast that rounds must not find the row of another key
    let same = try_cast(fitted.clone(), common.clone()).eq(try_cast(e.clone(), common));
    Ok(when(same, fitted).end()?)
}

/// Plans `left ONLINE JOIN right`.
pub fn plan(
    names: &dyn Names,
    left: LogicalPlan,
    right: TableFactor,
    c: Clauses,
    cx: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let (n, alias) = right_side(right, cx)?;
    let place = n.span;
    let mut planned = || {
        let target = lookup::find(names, &n)?;
        lookup::check_online(&target)?;
        refuse_instants(&target, &c)?;
        let alias = alias.clone().unwrap_or(target.name.name.clone());
        if left.schema().iter().any(|(q, _)| q.is_some_and(|q| q.schema().is_none() && q.table() == alias)) {
            return Err(Error::invalid(format!("{alias:?} is on both sides of the ONLINE JOIN"))
                .with_hint(format!("give one side another alias: ONLINE JOIN {} AS other_name", target.name.name)));
        }
        match target.outputs {
            None => plan_view(names, left.clone(), &target, alias, &c, cx),
            Some(_) => plan_service(names, left.clone(), &target, alias, &c, cx),
        }
    };
    planned().map_err(|e| e.or_span(place))
}

fn right_side(right: TableFactor, cx: &dyn RelationPlannerContext) -> Result<(NameRef, Option<String>)> {
    match right {
        TableFactor::Table { name, alias, args: Some(args), .. } if is_online_side(&name) => match args.args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(e))) => Ok((online_join_name(e)?, alias.map(|a| cx.normalize_ident(a.name)))),
            _ => Err(Error::internal("an ONLINE JOIN lost its right side")),
        },
        _ => Err(Error::internal("an ONLINE JOIN lost its right side")),
    }
}

/// An ONLINE JOIN has one instant for all rows: now.
fn refuse_instants(target: &Target, c: &Clauses) -> Result<()> {
    let clauses = [("AT", &c.at), ("KNOWN BY", &c.known_by), ("WITHIN", &c.within), ("MATCH_CONDITION", &c.matching)];
    for (clause, written) in clauses {
        let Some(e) = written else { continue };
        let name = &target.name.name;
        return Err(Error::invalid(format!("{clause} cannot stand in an ONLINE JOIN: it answers what is live now"))
            .with_hint(format!("ASOF JOIN {name} AT left_column answers for another instant of each row"))
            .or_span(Span::from_sql(e.span())));
    }
    Ok(())
}

fn plan_view(
    names: &dyn Names,
    left: LogicalPlan,
    target: &Target,
    alias: String,
    c: &Clauses,
    cx: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let of_target = &target.items[0];
    let view = &of_target.view;
    let instant = Expr::Column(Column::new_unqualified(INSTANT));
    let qualifier = TableReference::bare(alias.as_str());
    let fields: Vec<Field> = view.visible_columns().iter().map(|c| Field::new(&c.name, c.data_type.arrow().clone(), true)).collect();
    let right = DFSchema::try_from_qualified_schema(qualifier.clone(), &Schema::new(fields))?;
    let Conditions { equal, unequal, candidates, eligible } = on_conditions(c, &left, &right, cx)?;
    if let Some(e) = candidates.iter().chain(&eligible).next() {
        return Err(Error::invalid(format!("ON of an ONLINE JOIN maps keys, and {} does not", e.human_display()))
            .with_hint("filter in WHERE")
            .or_span(place_of(e)));
    }
    if !unequal.is_empty() {
        return Err(Error::invalid("an inequality cannot stand in the ON of an ONLINE JOIN: it answers what is live now")
            .with_hint("map keys with ON left_column = key, and filter in WHERE"));
    }
    let keys = view_keys(&left, view, &roles(c, cx, &left)?, equal)?;
    let reads: Vec<Column> = keys.iter().flat_map(Expr::column_refs).cloned().collect();
    let mut joined = Joined::onto(left, &reads);
    let read = lookup::columns_read(names, of_target, (0..view.features.len()).collect())?;
    joined.add(alias, view, &keys, read, c.kind == "inner")?;
    let Some(item) = joined.items.last() else { return Err(Error::internal("an ONLINE JOIN without items")) };
    let own = |name: &str| lookup::item_column(names, target, of_target, &qualifier, name, Some(&instant));
    let mut outputs = vec![];
    // like the columns of an ASOF JOIN: NULL where there is no live row
    for (at, key) in item.key_inputs.iter().zip(&view.keys) {
        outputs.push(when(joined.is_there(item), joined.column(*at)).end()?.alias_qualified(Some(qualifier.clone()), &key.name));
    }
    outputs.push(event_time(item));
    for f in &view.features {
        let e = own(&f.name)?;
        outputs.push(if view.windowed.is_some() { e.alias_qualified(Some(qualifier.clone()), &f.name) } else { e });
    }
    joined.outputs.extend(outputs);
    joined.build()
}

fn plan_service(
    names: &dyn Names,
    left: LogicalPlan,
    target: &Target,
    alias: String,
    c: &Clauses,
    cx: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let name = &target.name;
    if c.on.is_some() || !c.using.is_empty() {
        return Err(Error::invalid(format!("feature service {name} knows its keys: ON and USING cannot stand here"))
            .with_hint("map keys with FOR (key = column)"));
    }
    let roles = roles(c, cx, &left)?;
    let callers = Callers::new(&left, &roles, target)?;
    // no alias of the left side is called so
    let item_alias = |item: &TargetItem| format!("{alias}.{}", item.alias);
    let mut reads: Vec<Column> = vec![];
    let mut keys: Vec<Vec<Expr>> = vec![];
    for item in &target.items {
        let of_item = item.view.keys.iter().map(|k| callers.key(item, &k.name)).collect::<Result<Vec<_>>>()?;
        reads.extend(of_item.iter().flat_map(Expr::column_refs).cloned());
        keys.push(of_item);
    }
    let outputs = service::outputs(names, target)?;
    let instant = Expr::Column(Column::new_unqualified(INSTANT));
    let mut exprs = vec![];
    for (expr, output) in &outputs {
        let column = |c: &Column| {
            callers.column(c, &|item| {
                lookup::item_column(names, target, item, &TableReference::bare(item_alias(item)), &c.name, Some(&instant))
            })
        };
        let placed = service::place(expr.clone(), &column, None)?;
        let of_items =
            |c: &Column| c.name == INSTANT || c.relation.as_ref().is_some_and(|r| target.items.iter().any(|i| r.table() == item_alias(i)));
        reads.extend(placed.column_refs().into_iter().filter(|c| !of_items(c)).cloned());
        exprs.push(placed.alias_qualified(Some(TableReference::bare(alias.as_str())), output));
    }
    let mut joined = Joined::onto(left.clone(), &reads);
    for (item, keys) in target.items.iter().zip(&keys) {
        let read = lookup::columns_read(names, item, lookup::features_read(item, &outputs))?;
        joined.add(item_alias(item), &item.view, keys, read, c.kind == "inner")?;
    }
    joined.outputs.extend(exprs);
    joined.build().map_err(|e| e.context(format!("feature service {name}")))
}
