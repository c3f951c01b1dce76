//! Plans `ONLINE_LOOKUP('target', …)` (sql/README.md, "Online lookups"): its rows of keys, the lookup node, and
//! the same service expressions that training sets use.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column as ColumnRef, DFSchema, TableReference};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, Volatility, lit, when};
use datafusion::scalar::ScalarValue;
use sqlparser::ast::{Expr as SqlExpr, FunctionArg, FunctionArgExpr, Spanned, TableAlias, TableFactor, UnaryOperator, Value};

use super::names::Names;
use super::online_lookup::{INSTANT, LookupItem, NULL_VALUE, OnlineLookupNode, PRESENT, STATUS};
use super::pit_join::keys::check_instant;
use super::shallow::shallow_all;
use super::target::{Target, TargetItem};
use super::{service, settle, windows};
use crate::clock::Micros;
use crate::error::{Error, Result, Span};
use crate::model::Column;
pub use crate::model::exact::loses;
use crate::model::exact::{exactly, unlike};
use crate::sql::cursor::NameRef;
use crate::sql::references::{ONLINE_LOOKUP, lookup_name};

/// The feature view or service of this name.
pub fn find(names: &dyn Names, n: &NameRef) -> Result<Target> {
    if let Some(target) = Target::find(names, n)? {
        return Ok(target);
    }
    let catalog = names.catalog();
    let name = names.name(n);
    if let Some(other) = catalog.relation(&name) {
        let kind = other.kind();
        return Err(Error::invalid(format!("{kind} {name} has no online values: only feature views and services have"))
            .or_span(n.span)
            .with_hint("rows of a table are joined with JOIN … ON …"));
    }
    let known = catalog.services.keys().chain(catalog.feature_views.keys()).filter(|k| k.schema == name.schema).map(|k| k.name.as_str());
    Err(super::names::unknown("feature view or service", n).suggest(&n.name, known))
}

/// Refuses a target of which a view has no online values.
pub fn check_online(target: &Target) -> Result<()> {
    for item in &target.items {
        if !item.view.online {
            let view = &item.view.name;
            return Err(Error::invalid(format!("feature view {view} is not ONLINE, so it has no online values"))
                .with_hint(format!("ALTER FEATURE VIEW {view} SET ONLINE; MATERIALIZE FEATURE VIEW {view}")));
        }
    }
    Ok(())
}

/// Refuses the column of an item that the online store does not give back.
pub fn kept_online(target: &Target, item: &TargetItem, column: &str) -> Result<()> {
    match item.view.created_timestamp.as_deref() == Some(column) {
        true => Err(Error::invalid(format!("{}: the created timestamp of {} is not kept online", target.name, item.alias))),
        false => Ok(()),
    }
}

/// Features of an item that a target's expressions name: indices into `view.features`, ascending.
pub fn features_read(item: &TargetItem, outputs: &[(Expr, String)]) -> Vec<usize> {
    let mut features: Vec<usize> = outputs
        .iter()
        .flat_map(|(e, _)| e.column_refs())
        .filter(|c| c.relation.as_ref().is_some_and(|r| r.table() == item.alias))
        .filter_map(|c| item.view.features.iter().position(|f| f.name == c.name))
        .collect();
    features.sort_unstable();
    features.dedup();
    features
}

/// What a lookup reads of an item to answer some features: these, or the aggregates that they are made of.
pub fn columns_read(names: &dyn Names, item: &TargetItem, features: Vec<usize>) -> Result<Vec<usize>> {
    match item.view.windowed {
        Some(_) => windows::slots_of(names, &item.view, &features),
        None => Ok(features),
    }
}

/// What stands for a column that an expression names of an item. `qualifier`: of the item's columns in the lookup's answer.
pub fn item_column(
    names: &dyn Names,
    target: &Target,
    item: &TargetItem,
    qualifier: &TableReference,
    column: &str,
    instant: Option<&Expr>,
) -> Result<Expr> {
    let feature = item.view.windowed.as_ref().and_then(|_| item.view.features.iter().position(|f| f.name == column));
    match feature {
        Some(i) => windows::feature(names, &item.view, qualifier, i, instant),
        None => kept_online(target, item, column).map(|()| Expr::Column(ColumnRef::new(Some(qualifier.clone()), column))),
    }
}

/// The status of an item: of a windowed view, whose features are computed of what the store gives, whether they are all
/// NULL is seen here.
fn status_of(names: &dyn Names, item: &TargetItem, status: Expr, features: &[usize], instant: Option<&Expr>) -> Result<Expr> {
    if item.view.windowed.is_none() {
        return Ok(status);
    }
    let qualifier = TableReference::bare(item.alias.as_str());
    let values = features.iter().map(|f| windows::feature(names, &item.view, &qualifier, *f, instant));
    let null = conjunction(values.map(|v| v.map(Expr::is_null)).collect::<Result<Vec<_>>>()?);
    match null {
        Some(null) => Ok(when(status.clone().eq(lit(PRESENT)).and(null), lit(NULL_VALUE)).otherwise(status)?),
        None => Ok(status),
    }
}

struct Args {
    rows: Vec<SqlExpr>,
    status: bool,
    at: Option<SqlExpr>,
}

pub fn plan(
    names: &dyn Names,
    args: Vec<FunctionArg>,
    alias: Option<&TableAlias>,
    cx: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let (target, place, args) = read_args(names, args)?;
    check_online(&target).map_err(|e| e.or_span(place))?;
    let wanted = target.wanted()?;
    let input = input(names, &target, &wanted, args.rows, cx)?;
    let at = match args.at {
        Some(e) => Some(instant(names, e, cx)?),
        None => None,
    };
    let qualifier = match alias {
        Some(a) => TableReference::bare(cx.normalize_ident(a.name.clone())),
        None => TableReference::bare(ONLINE_LOOKUP),
    };
    answer(names, &target, &wanted, Asked { input, status: args.status, at }, &qualifier)
}

/// The lookup of a target for rows that are bound when it runs: a parameter for each column that it wants, in their order.
pub fn over_parameters(names: &dyn Names, target: &Target, wanted: &[Column], status: bool) -> Result<LogicalPlan> {
    check_online(target)?;
    let parameter = |(i, column): (usize, &Column)| {
        let id = format!("${}", i + 1);
        let field = Arc::new(Field::new(&id, column.data_type.arrow().clone(), true));
        Expr::Placeholder(Placeholder::new_with_field(id, Some(field)))
    };
    let input = keys(wanted, vec![wanted.iter().enumerate().map(parameter).collect()])?;
    let plan = answer(names, target, wanted, Asked { input, status, at: None }, &TableReference::bare(ONLINE_LOOKUP))?;
    Ok(shallow_all(settle::plan(plan)?)?)
}

/// What a lookup asks for.
struct Asked {
    /// Rows of the wanted columns.
    input: LogicalPlan,
    status: bool,
    at: Option<Micros>,
}

/// The wanted columns, the outputs of the target, and the status of its items.
fn answer(names: &dyn Names, target: &Target, wanted: &[Column], asked: Asked, qualifier: &TableReference) -> Result<LogicalPlan> {
    let outputs = service::outputs(names, target)?;
    let items = target
        .items
        .iter()
        .map(|item| {
            let features = columns_read(names, item, features_read(item, &outputs))?;
            let key_inputs = item
                .view
                .keys
                .iter()
                .map(|k| {
                    wanted.iter().position(|w| w.name == item.callers_name(&k.name)).ok_or_else(|| Error::internal("a key is not wanted"))
                })
                .collect::<Result<_>>()?;
            Ok(LookupItem { alias: item.alias.clone(), view: Arc::clone(&item.view), key_inputs, features })
        })
        .collect::<Result<Vec<_>>>()?;
    let node = OnlineLookupNode::try_new(asked.input, items, asked.at)?;
    let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });

    let bare = |name: &str| Expr::Column(ColumnRef::new_unqualified(name));
    let mut list: Vec<Expr> = wanted.iter().map(|w| bare(&w.name).alias_qualified(Some(qualifier.clone()), &w.name)).collect();
    let row_instant = match asked.at {
        Some(micros) => lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()))),
        // decided when the lookup runs, so that its plan can be used again
        None => bare(INSTANT),
    };
    let named: Vec<(Expr, String)> = outputs.clone();
    for (expr, output) in outputs {
        let column = |c: &ColumnRef| match &c.relation {
            Some(r) => match target.items.iter().find(|i| i.alias == r.table()) {
                Some(item) if item.view.keys.iter().any(|k| k.name == c.name) => Ok(bare(item.callers_name(&c.name))),
                Some(item) => item_column(names, target, item, r, &c.name, Some(&row_instant)),
                None => Ok(Expr::Column(c.clone())),
            },
            None => Ok(bare(&c.name)),
        };
        list.push(service::place(expr, &column, Some(&row_instant))?.alias_qualified(Some(qualifier.clone()), output));
    }
    if asked.status {
        for item in &target.items {
            let own = |n: &str| Expr::Column(ColumnRef::new(Some(TableReference::bare(item.alias.as_str())), n));
            let status = status_of(names, item, own(STATUS), &features_read(item, &named), Some(&row_instant))?;
            list.push(status.alias_qualified(Some(qualifier.clone()), format!("{}__status", item.alias)));
            list.push(own(&item.view.event_timestamp).alias_qualified(Some(qualifier.clone()), format!("{}__event_timestamp", item.alias)));
        }
    }
    each_once(&list, &target.name.to_string())?;
    LogicalPlanBuilder::from(plan)
        .project(list)
        .and_then(|b| b.build())
        .map_err(|e| Error::from(e).context(format!("ONLINE_LOOKUP('{}')", target.name)))
}

/// The columns that `status => true` adds may have the name of a feature.
fn each_once(columns: &[Expr], target: &str) -> Result<()> {
    let names: Vec<String> = columns.iter().map(|e| e.qualified_name().1).collect();
    match names.iter().enumerate().find(|(i, n)| names[..*i].contains(n)) {
        Some((_, twice)) => Err(Error::invalid(format!("ONLINE_LOOKUP('{target}') would have two columns called {twice:?}"))
            .with_hint("leave status => true out, or look it up through a feature service whose FROM gives the view another alias")),
        None => Ok(()),
    }
}

fn read_args(names: &dyn Names, args: Vec<FunctionArg>) -> Result<(Target, Option<Span>, Args)> {
    let usage = "write ONLINE_LOOKUP('service or view', key, …), ONLINE_LOOKUP('service', (key, …, request column), …) or ONLINE_LOOKUP('service', (SELECT …))";
    let mut args = args.into_iter();
    let first = match args.next() {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(e))) => e,
        _ => return Err(Error::syntax("ONLINE_LOOKUP wants the name of a feature view or service first").with_hint(usage)),
    };
    let place = Span::from_sql(first.span());
    let text = match &first {
        SqlExpr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) => s.clone(),
            other => {
                return Err(Error::syntax(format!("ONLINE_LOOKUP wants a name in quotes first, not {other}"))
                    .with_hint(usage)
                    .or_span(place));
            }
        },
        other => {
            return Err(Error::syntax(format!("ONLINE_LOOKUP wants a name in quotes first, not {other}")).with_hint(usage).or_span(place));
        }
    };
    let mut n = lookup_name(&text).map_err(|e| e.without_span().or_span(place))?;
    n.span = place;
    let target = find(names, &n)?;
    let mut out = Args { rows: vec![], status: false, at: None };
    for arg in args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => out.rows.push(e),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(e), .. } => named(&mut out, &name.value, e)?,
            FunctionArg::ExprNamed { name, arg: FunctionArgExpr::Expr(e), .. } => named(&mut out, &name.to_string(), e)?,
            other => return Err(Error::syntax(format!("ONLINE_LOOKUP does not take {other}")).with_hint(usage)),
        }
    }
    Ok((target, place, out))
}

fn named(out: &mut Args, name: &str, value: SqlExpr) -> Result<()> {
    let place = Span::from_sql(value.span());
    match (name.to_lowercase().as_str(), value) {
        ("status", SqlExpr::Value(v)) if matches!(v.value, Value::Boolean(_)) => {
            out.status = v.value == Value::Boolean(true);
            Ok(())
        }
        ("status", other) => Err(Error::syntax(format!("status => wants true or false, not {other}")).or_span(place)),
        ("at", e) => {
            out.at = Some(e);
            Ok(())
        }
        (other, _) => Err(Error::syntax(format!("ONLINE_LOOKUP has no option {other:?}")).suggest(other, ["status", "at"]).or_span(place)),
    }
}

fn instant(names: &dyn Names, e: SqlExpr, cx: &mut dyn RelationPlannerContext) -> Result<Micros> {
    let place = Span::from_sql(e.span());
    let bad = || Error::invalid("at => wants a constant instant").with_hint("write at => TIMESTAMP '2026-02-01 10:00:00'").or_span(place);
    let empty = DFSchema::empty();
    let expr = match settle::expression(cx.sql_to_expr(e, &empty)?, &empty)? {
        Expr::Placeholder(p) => Expr::Literal(names.parameter(&p.id).ok_or_else(bad)?, None),
        other => other,
    };
    let expr = check_instant(expr, &empty, "at =>").map_err(|e| e.or_span(place))?;
    let value = constant(expr)?.ok_or_else(bad)?;
    let at = value.cast_to(&crate::model::types::timestamp_type())?;
    match at {
        ScalarValue::TimestampMicrosecond(Some(v), _) => Ok(v),
        _ => Err(bad()),
    }
}

/// The value of an expression that needs no row.
fn constant(e: Expr) -> Result<Option<ScalarValue>> {
    use datafusion::logical_expr::simplify::SimplifyContext;
    let cx = SimplifyContext::default();
    let simple = datafusion::optimizer::simplify_expressions::ExprSimplifier::new(cx).simplify(e)?;
    Ok(match simple {
        Expr::Literal(v, _) => Some(v),
        _ => None,
    })
}

/// The rows asked for, as a plan with the wanted columns in their declared types.
fn input(
    names: &dyn Names,
    target: &Target,
    wanted: &[Column],
    mut rows: Vec<SqlExpr>,
    cx: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let shape = || {
        let columns: Vec<&str> = wanted.iter().map(|c| c.name.as_str()).collect();
        let n = &target.name.name;
        match wanted.len() {
            1 => format!("{n} wants {}: write ONLINE_LOOKUP('{n}', key1, key2, …)", columns[0]),
            _ => format!("{n} wants {}: write one tuple per row, ONLINE_LOOKUP('{n}', ({}), …)", columns.join(", "), columns.join(", ")),
        }
    };
    if rows.is_empty() {
        return Err(Error::invalid(format!("ONLINE_LOOKUP('{}') asks for no rows", target.name.name)).with_hint(shape()));
    }
    if let [SqlExpr::Subquery(q)] = &mut rows[..] {
        let query = std::mem::replace(q, Box::new(crate::sql::parse::query("SELECT 1")?));
        let factor = TableFactor::Derived { lateral: false, subquery: query, alias: None, sample: None };
        return from_query(target, wanted, cx.plan(factor)?);
    }
    let empty = DFSchema::empty();
    let parameters = rows.iter().all(|r| matches!(r, SqlExpr::Value(v) if matches!(v.value, Value::Placeholder(_))));
    let mut table: Vec<Vec<(SqlExpr, Option<Span>)>> = vec![];
    if parameters && wanted.len() > 1 {
        table.push(
            rows.into_iter()
                .map(|e| {
                    let s = Span::from_sql(e.span());
                    (e, s)
                })
                .collect(),
        );
    } else {
        for row in rows {
            let place = Span::from_sql(row.span());
            match row {
                SqlExpr::Tuple(list) => table.push(list.into_iter().map(|e| (e, place)).collect()),
                SqlExpr::Nested(e) => table.push(vec![(*e, place)]),
                e => table.push(vec![(e, place)]),
            }
        }
    }
    let mut values: Vec<Vec<Expr>> = vec![];
    for row in table {
        let place = row.first().and_then(|(_, s)| *s);
        if row.len() != wanted.len() {
            return Err(Error::invalid(format!(
                "ONLINE_LOOKUP('{}'): a row has {} value(s), {} wanted",
                target.name.name,
                row.len(),
                wanted.len()
            ))
            .or_span(place)
            .with_hint(shape()));
        }
        let mut out = vec![];
        for ((e, place), column) in row.into_iter().zip(wanted) {
            let place = Span::from_sql(e.span()).or(place);
            let decimal = written(&e).filter(|_| column.data_type.arrow().is_decimal());
            let expr = match (settle::expression(cx.sql_to_expr(e, &empty)?, &empty)?, decimal) {
                (Expr::Literal(..), Some(digits)) => lit(digits),
                (Expr::Placeholder(p), _) => match names.parameter(&p.id) {
                    Some(v) => Expr::Literal(v, None),
                    None => {
                        let field = Arc::new(Field::new(&p.id, column.data_type.arrow().clone(), true));
                        Expr::Placeholder(Placeholder::new_with_field(p.id, Some(field)))
                    }
                },
                (other, _) => other,
            };
            out.push(to_declared(expr, &empty, column, &target.name.name).map_err(|e| e.or_span(place))?);
        }
        values.push(out);
    }
    keys(wanted, values)
}

/// Rows of values as the wanted columns.
fn keys(wanted: &[Column], values: Vec<Vec<Expr>>) -> Result<LogicalPlan> {
    let names: Vec<String> = wanted.iter().map(|w| w.name.clone()).collect();
    let plan = LogicalPlanBuilder::values(values)?.build()?;
    let list: Vec<Expr> = plan
        .schema()
        .columns()
        .into_iter()
        .zip(wanted.iter().zip(names))
        .map(|(c, (w, n))| Expr::Cast(Cast::new(Box::new(Expr::Column(c)), w.data_type.arrow().clone())).alias(n))
        .collect();
    Ok(LogicalPlanBuilder::from(plan).project(list)?.build()?)
}

fn from_query(target: &Target, wanted: &[Column], plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let mut list = vec![];
    for w in wanted {
        let found: Vec<_> = schema.iter().filter(|(_, f)| f.name() == &w.name).collect();
        let [(q, f)] = found[..] else {
            let all: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            let e = match found.len() {
                0 => Error::not_found(format!("ONLINE_LOOKUP('{}'): the query has no column {:?}", target.name.name, w.name)),
                _ => Error::invalid(format!("ONLINE_LOOKUP('{}'): the query has column {:?} twice", target.name.name, w.name)),
            };
            return Err(e.with_hint(format!(
                "its columns are {}; wanted are {}",
                all.join(", "),
                wanted.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
            )));
        };
        let e = to_declared(Expr::Column(ColumnRef::new(q.cloned(), f.name())), &schema, w, &target.name.name)?;
        list.push(e.alias(&w.name));
    }
    Ok(LogicalPlanBuilder::from(plan).project(list)?.build()?)
}

/// Casts a value to the declared type of its column, or refuses it: a key must not be changed by a cast. A value that
/// is known already is judged by itself, any other by its type.
fn to_declared(e: Expr, schema: &DFSchema, column: &Column, target: &str) -> Result<Expr> {
    let (have, want) = (e.get_type(schema)?, column.data_type.arrow());
    if have == *want {
        return Ok(e);
    }
    let refused = |what: &str| Error::invalid(format!("ONLINE_LOOKUP('{target}'): {:?} is {}, but {what}", column.name, column.data_type));
    if unlike(&have, want) {
        return Err(refused(&format!("{e} is {have}")).with_hint(format!("bring a value of type {}", column.data_type)));
    }
    if let Some(value) = fixed(&e)? {
        let value = exactly(&value.to_array()?, want).map_err(|why| {
            let refused = refused(why.message());
            match why.hint() {
                Some(hint) => refused.with_hint(hint),
                None => refused,
            }
        })?;
        return Ok(Expr::Literal(ScalarValue::try_from_array(&value, 0)?, None));
    }
    if loses(&have, want) {
        let cast = match want {
            // without its digits it is of nanoseconds
            DataType::Timestamp(..) => "TIMESTAMP(6)".to_string(),
            _ => column.data_type.to_string(),
        };
        return Err(refused(&format!("{e} is {have}")).with_hint(format!("where no value changes by it, write CAST({e} AS {cast})")));
    }
    Ok(Expr::Cast(Cast::new(Box::new(e), want.clone())))
}

/// The value of an expression that is the same in every run.
fn fixed(e: &Expr) -> Result<Option<ScalarValue>> {
    if let Expr::Literal(v, _) = e {
        return Ok(Some(v.clone()));
    }
    let mut fixed = true;
    e.apply(|e| {
        fixed = match e {
            Expr::Literal(..) | Expr::Cast(_) | Expr::TryCast(_) | Expr::Negative(_) | Expr::BinaryExpr(_) => true,
            Expr::ScalarFunction(f) => f.func.signature().volatility == Volatility::Immutable,
            _ => false,
        };
        Ok(if fixed { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    if fixed { constant(e.clone()) } else { Ok(None) }
}

/// A number as it is written: on its way through a float it could become another decimal.
fn written(e: &SqlExpr) -> Option<String> {
    match e {
        SqlExpr::Value(v) => match &v.value {
            Value::Number(digits, _) => Some(digits.to_string()).filter(|d| !d.contains(['e', 'E'])),
            _ => None,
        },
        SqlExpr::UnaryOp { op: UnaryOperator::Minus, expr } => written(expr).filter(|n| !n.starts_with('-')).map(|n| format!("-{n}")),
        marked => crate::sql::marks::digits(marked),
    }
}

#[cfg(test)]
mod tests;
