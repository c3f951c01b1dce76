//! Plans every form of ASOF JOIN into one point-in-time join node (sql/README.md, "Point-in-time joins").
//!
//! Before planning, `syntax::fold` puts each ASOF join into a nested join of its own, so that the SQL
//! planner hands it to us (`plan/relations.rs`) with name resolution already at our service.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder, TableScan, when};
use sqlparser::ast::{Expr as SqlExpr, Spanned, TableFactor};

use super::conditions::{Condition, Conditions, both, condition, on_conditions, place_of};
use super::keys::{Callers, check_instant, default_instant, interval_micros, view_keys};
use super::node::{MatchOp, PitItem, PitJoinNode};
use super::syntax::{Clauses, Roles, roles};
use crate::error::{Error, Result, Span, in_sql};
use crate::model::live::narrow;
use crate::plan::feature_table::{FeatureTable, SEQ, as_feature_table};
use crate::plan::names::{Names, reference, unknown};
use crate::plan::target::{Target, TargetItem};
use crate::plan::{lookup, service, settle, windows};

/// The right side, with what is known of it.
struct Right {
    plan: LogicalPlan,
    table: Option<(FeatureTable, TableReference)>,
}

/// `c`: the clauses of the join with `relation`.
pub fn plan(
    names: &dyn Names,
    left: LogicalPlan,
    relation: TableFactor,
    c: Clauses,
    cx: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    if let TableFactor::Table { name, alias, args: None, .. } = &relation {
        let r = cx.object_name_to_table_reference(name.clone())?;
        // a Delta version of a feature view is read as the view, at that version
        let travels = r.table().contains(crate::sql::rewrite::TIME_TRAVEL);
        let n = if travels { None } else { Some(reference(&r)?) };
        if let Some(n) = n.filter(|n| names.catalog().services.contains_key(&names.name(n))) {
            let Some(target) = Target::find(names, &n)? else { return Err(unknown("feature service", &n)) };
            let shown = alias.as_ref().map_or(target.name.name.clone(), |a| cx.normalize_ident(a.name.clone()));
            return plan_service(names, left, target, shown, c, cx);
        }
    }
    let mut right = right_side(relation, cx)?;
    let name = match &right.table {
        Some((t, _)) => t.view.name.name.clone(),
        None => "the right side".into(),
    };
    let schema = both(&left, right.plan.schema())?;
    let Conditions { equal, mut unequal, candidates, eligible } = on_conditions(&c, &left, right.plan.schema(), cx)?;
    let filtered = !candidates.is_empty();
    if let Some(candidates) = conjunction(candidates) {
        right.plan = LogicalPlanBuilder::from(right.plan).filter(candidates)?.build()?;
    }
    if let Some(m) = &c.matching {
        if !unequal.is_empty() {
            return Err(Error::syntax("an inequality stands in MATCH_CONDITION or in ON, not in both"));
        }
        let m = strip_nested(m.clone());
        let shown = m.to_string();
        let parts = split_conjunction_owned(settle::expression(cx.sql_to_expr(m, &schema)?, &schema)?);
        match (parts.len(), parts.into_iter().next()) {
            (1, Some(one)) => match condition(one, left.schema(), right.plan.schema())? {
                Condition::Unequal(l, op, r) => unequal.push((l, op, r)),
                _ => return Err(match_hint(&shown)),
            },
            _ => return Err(match_hint(&shown)),
        }
    }
    let inner_by_default = c.matching.is_none() && !unequal.is_empty();
    let inner = c.kind == "inner" || (c.kind == "default" && inner_by_default);
    let within = within(names, &c.within, cx, left.schema())?;
    match (unequal.len(), &right.table) {
        (0, Some((table, qualifier))) => {
            if c.matching.is_some() {
                return Err(match_hint("MATCH_CONDITION"));
            }
            let roles = roles(&c, cx, &left)?;
            let item = feature_item(names, &left, table, qualifier, &roles, equal, &c, within, inner, cx)?;
            let item = eligible_only(item, eligible)?;
            if table.view.windowed.is_some() {
                windows::join::refuse(&table.view, &c, filtered)?;
                return windows::join::view(names, left, table, qualifier, item);
            }
            attach(left, right.plan, item)
        }
        (0, None) => {
            Err(Error::invalid(format!("ASOF JOIN with {name} needs MATCH_CONDITION or an inequality in ON: it is not a feature view"))
                .with_hint("write ASOF JOIN t MATCH_CONDITION (l.ts >= t.ts) ON l.key = t.key"))
        }
        (1, table) => {
            if let Some((t, _)) = table {
                windows::join::refuse_inequality(&t.view)?;
            }
            for (clause, present) in [("AT", c.at.is_some()), ("KNOWN BY", c.known_by.is_some()), ("FOR", !c.roles.is_empty())] {
                if present {
                    return Err(Error::invalid(format!("{clause} cannot stand beside MATCH_CONDITION or an inequality in ON")).with_hint(
                        "join a feature view without an inequality: ASOF JOIN view AT l.ts; the view knows its keys and event timestamp",
                    ));
                }
            }
            let Some((at, op, time)) = unequal.pop() else { return Err(Error::internal("no condition")) };
            let item = plain_item(names, at, op, time, equal, table.as_ref(), within, inner, &name)?;
            attach(left, right.plan, eligible_only(item, eligible)?)
        }
        _ => Err(Error::invalid("an ASOF join has one inequality between its sides, and this one has several")
            .with_hint("write WITHIN INTERVAL '…' for a lower bound; put other conditions on both sides into WHERE, which looks at the matched rows")
            .or_span(unequal.get(1).and_then(|(l, _, _)| place_of(l)))),
    }
}

/// Left rows that a predicate on them leaves out match nothing: they have no instant.
fn eligible_only(mut item: PitItem, predicates: Vec<Expr>) -> Result<PitItem> {
    if let Some(predicate) = conjunction(predicates) {
        item.at = when(predicate, item.at).end()?;
    }
    Ok(item)
}

fn match_hint(found: &str) -> Error {
    Error::invalid(format!("MATCH_CONDITION wants one comparison of a left with a right column by >=, >, <= or <, not {found}"))
        .with_hint("write MATCH_CONDITION (l.ts >= r.ts); for a lower bound add WITHIN INTERVAL '7 days'")
}

fn strip_nested(e: SqlExpr) -> SqlExpr {
    match e {
        SqlExpr::Nested(inner) => strip_nested(*inner),
        other => other,
    }
}

fn within(names: &dyn Names, e: &Option<SqlExpr>, cx: &mut dyn RelationPlannerContext, schema: &DFSchema) -> Result<Option<i64>> {
    let Some(e) = e else { return Ok(None) };
    let expr = match settle::expression(cx.sql_to_expr(strip_nested(e.clone()), schema)?, schema)? {
        Expr::Placeholder(p) => match names.parameter(&p.id) {
            Some(v) => Expr::Literal(v, None),
            None => return Ok(None),
        },
        other => other,
    };
    if !expr.column_refs().is_empty() {
        return Err(Error::invalid(format!(
            "WITHIN wants a constant interval, and {} differs from row to row",
            in_sql(&expr.schema_name().to_string())
        ))
        .with_hint("write for example WITHIN INTERVAL '7 days', and a bound that differs from row to row into WHERE")
        .or_span(Span::from_sql(e.span())));
    }
    interval_micros(&expr).map(Some).map_err(|err| err.or_span(Span::from_sql(e.span())))
}

fn right_side(factor: TableFactor, cx: &mut dyn RelationPlannerContext) -> Result<Right> {
    let plan = cx.plan(factor)?;
    let scan = |p: &LogicalPlan| match p {
        LogicalPlan::TableScan(TableScan { source, table_name, .. }) => as_feature_table(source).map(|t| (t, table_name.clone())),
        _ => None,
    };
    let found = match &plan {
        LogicalPlan::SubqueryAlias(a) => scan(&a.input).map(|(t, _)| (t, a.alias.clone())),
        other => scan(other),
    };
    Ok(match found {
        None => Right { plan, table: None },
        // of a windowed view ON may only name what users see
        Some((table, qualifier)) if table.view.windowed.is_some() => Right { plan, table: Some((table, qualifier)) },
        Some((table, qualifier)) => Right { plan: table.full_scan(qualifier.clone())?, table: Some((table, qualifier)) },
    })
}

#[allow(clippy::too_many_arguments)]
fn feature_item(
    names: &dyn Names,
    left: &LogicalPlan,
    table: &FeatureTable,
    qualifier: &TableReference,
    roles: &Roles,
    equal: Vec<(Expr, Expr)>,
    c: &Clauses,
    within: Option<i64>,
    inner: bool,
    cx: &mut dyn RelationPlannerContext,
) -> Result<PitItem> {
    let view = &table.view;
    let shown = &view.name.name;
    let keys = view_keys(left, view, roles, equal)?
        .into_iter()
        .zip(&view.keys)
        .map(|(l, key)| (l, Expr::Column(Column::new(Some(qualifier.clone()), &key.name))))
        .collect();
    let at = match &c.at {
        Some(e) => {
            let e2 = settle::expression(cx.sql_to_expr(e.clone(), left.schema())?, left.schema())?;
            check_instant(bind(names, e2), left.schema(), "AT").map_err(|err| err.or_span(Span::from_sql(e.span())))?
        }
        None => default_instant(left, &view.event_timestamp, shown)?,
    };
    let known_by = known_by(names, c, cx, left, view)?;
    Ok(item_of(table, qualifier, keys, at, known_by, within, inner))
}

fn known_by(
    names: &dyn Names,
    c: &Clauses,
    cx: &mut dyn RelationPlannerContext,
    left: &LogicalPlan,
    view: &crate::model::FeatureView,
) -> Result<Option<Expr>> {
    let Some(e) = &c.known_by else { return Ok(None) };
    let place = Span::from_sql(e.span());
    if view.created_timestamp.is_none() {
        return Err(Error::invalid(format!("KNOWN BY needs a created timestamp, and feature view {} has none", view.name))
            .with_hint("declare it with CREATED TIMESTAMP column")
            .or_span(place));
    }
    let e = settle::expression(cx.sql_to_expr(e.clone(), left.schema())?, left.schema())?;
    check_instant(bind(names, e), left.schema(), "KNOWN BY").map(Some).map_err(|err| err.or_span(place))
}

/// A bound parameter in place of its placeholder.
fn bind(names: &dyn Names, e: Expr) -> Expr {
    match &e {
        Expr::Placeholder(p) => match names.parameter(&p.id) {
            Some(v) => Expr::Literal(v, None),
            None => Expr::Cast(datafusion::logical_expr::Cast::new(Box::new(e), crate::model::types::timestamp_type())),
        },
        _ => e,
    }
}

pub(in crate::plan) fn item_of(
    table: &FeatureTable,
    qualifier: &TableReference,
    keys: Vec<(Expr, Expr)>,
    at: Expr,
    known_by: Option<Expr>,
    within: Option<i64>,
    inner: bool,
) -> PitItem {
    let view = &table.view;
    let column = |name: &str| Expr::Column(Column::new(Some(qualifier.clone()), name));
    PitItem {
        keys,
        at,
        time: column(&view.event_timestamp),
        created: view.created_timestamp.as_deref().map(column),
        seq: Some(column(SEQ)),
        known_by,
        ttl: narrow(view.ttl, within),
        op: MatchOp::AtOrBefore,
        inner,
        round_to_micros: true,
        features_only: true,
        description: view.versioned_name(),
    }
}

#[allow(clippy::too_many_arguments)]
fn plain_item(
    names: &dyn Names,
    at: Expr,
    op: MatchOp,
    time: Expr,
    keys: Vec<(Expr, Expr)>,
    table: Option<&(FeatureTable, TableReference)>,
    within: Option<i64>,
    inner: bool,
    name: &str,
) -> Result<PitItem> {
    let plain = PitItem {
        keys,
        at,
        time,
        created: None,
        seq: None,
        known_by: None,
        ttl: within,
        op,
        inner,
        round_to_micros: false,
        features_only: false,
        description: name.to_string(),
    };
    let Some((table, qualifier)) = table else { return Ok(plain) };
    let view = &table.view;
    let on_event = matches!(&plain.time, Expr::Column(c) if c.name == view.event_timestamp);
    if on_event && matches!(op, MatchOp::AtOrBefore | MatchOp::Before) {
        let mut item = item_of(table, qualifier, plain.keys, plain.at, None, within, inner);
        item.op = op;
        item.features_only = false;
        return Ok(item);
    }
    if view.ttl.is_some() {
        names.notice(format!(
            "the TTL of feature view {} does not apply: the join is not by >= or > on its event timestamp {:?}",
            view.name, view.event_timestamp
        ));
    }
    Ok(plain)
}

/// Adds an item: to the left side's own node where it needs nothing but that node's labels, else as a new one.
fn attach(left: LogicalPlan, view: LogicalPlan, item: PitItem) -> Result<LogicalPlan> {
    if let LogicalPlan::Extension(e) = &left
        && let Some(node) = e.node.as_any().downcast_ref::<PitJoinNode>()
    {
        let labels = node.labels.schema();
        let left_side = item.keys.iter().map(|(l, _)| l).chain([&item.at]).chain(&item.known_by);
        if left_side.flat_map(Expr::column_refs).all(|c| labels.has_column(c)) {
            let mut views = node.views.clone();
            let mut items = node.items.clone();
            views.push(view);
            items.push(item);
            return node_of(node.labels.clone(), views, items);
        }
    }
    node_of(left, vec![view], vec![item])
}

fn node_of(labels: LogicalPlan, views: Vec<LogicalPlan>, items: Vec<PitItem>) -> Result<LogicalPlan> {
    let node = PitJoinNode::try_new(labels, views, items)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// A service: one item per view of it, then its expressions.
fn plan_service(
    names: &dyn Names,
    left: LogicalPlan,
    target: Target,
    alias: String,
    c: Clauses,
    cx: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    if c.matching.is_some() || c.on.is_some() || !c.using.is_empty() {
        return Err(Error::invalid(format!(
            "feature service {} knows its keys: ON, USING and MATCH_CONDITION cannot stand here",
            target.name
        ))
        .with_hint("map keys with FOR (key = column) and give the instant with AT"));
    }
    let roles = roles(&c, cx, &left)?;
    let callers = Callers::new(&left, &roles, &target)?;
    let within = within(names, &c.within, cx, left.schema())?;
    let at = service_instant(names, &target, &left, &c, cx)?;
    let qualify = |item: &TargetItem| TableReference::partial(alias.clone(), item.alias.clone());
    let outputs = service::outputs(names, &target)?;
    let mut exprs: Vec<Expr> = left.schema().iter().map(|(q, f)| Expr::Column(Column::new(q.cloned(), f.name()))).collect();
    let (mut views, mut items, mut windowed) = (vec![], vec![], vec![]);
    for item in &target.items {
        let table = names.feature_table(&item.view)?;
        let qualifier = qualify(item);
        let mut keys = vec![];
        for key in &item.view.keys {
            keys.push((callers.key(item, &key.name)?, Expr::Column(Column::new(Some(qualifier.clone()), &key.name))));
        }
        let known_by = known_by(names, &c, cx, &left, &item.view)?;
        let pit = item_of(&table, &qualifier, keys, at.clone(), known_by, within, c.kind == "inner");
        if item.view.windowed.is_some() {
            windows::join::refuse(&item.view, &c, false)?;
            windowed.push((item, table, qualifier, pit));
            continue;
        }
        views.push(table.full_scan(qualifier.clone())?);
        items.push(pit);
    }
    for (expr, name) in &outputs {
        let column = |c: &Column| {
            callers.column(c, &|item| match item.view.windowed {
                Some(_) => windows::join::column(names, &item.view, &qualify(item), c, &at),
                None => Ok(Expr::Column(Column::new(Some(qualify(item)), &c.name))),
            })
        };
        exprs.push(service::place(expr.clone(), &column, Some(&at))?.alias_qualified(Some(alias.clone()), name));
    }
    let mut joined = if items.is_empty() { left } else { node_of(left, views, items)? };
    for (item, table, qualifier, pit) in windowed {
        joined = windows::join::item(names, joined, &table, &qualifier, pit, &lookup::features_read(item, &outputs))?;
    }
    LogicalPlanBuilder::from(joined)
        .project(exprs)
        .and_then(|b| b.build())
        .map_err(|e| Error::from(e).context(format!("feature service {}", target.name)))
}

fn service_instant(
    names: &dyn Names,
    target: &Target,
    left: &LogicalPlan,
    c: &Clauses,
    cx: &mut dyn RelationPlannerContext,
) -> Result<Expr> {
    if let Some(e) = &c.at {
        let at = settle::expression(cx.sql_to_expr(e.clone(), left.schema())?, left.schema())?;
        return check_instant(bind(names, at), left.schema(), "AT").map_err(|err| err.or_span(Span::from_sql(e.span())));
    }
    let mut found: Vec<Expr> = vec![];
    for item in &target.items {
        let at = default_instant(left, &item.view.event_timestamp, &target.name.name)?;
        if !found.contains(&at) {
            found.push(at);
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        _ => {
            let shown: Vec<String> = found.iter().map(|e| e.to_string()).collect();
            Err(Error::invalid(format!("ASOF JOIN {}: the instant is ambiguous, it could be {}", target.name.name, shown.join(" or ")))
                .with_hint(format!("say which one: AT {}", shown[0])))
        }
    }
}
