//! ASOF JOIN of a windowed view, form C.

use std::sync::Arc;

use datafusion::common::{Column, TableReference};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder, cast};
use sqlparser::ast::Spanned;

use super::node::{WindowItem, WindowJoinNode, windowed};
use super::outputs::{feature, slots_of};
use crate::error::{Error, Result, Span};
use crate::model::FeatureView;
use crate::plan::feature_table::FeatureTable;
use crate::plan::names::Names;
use crate::plan::pit_join::PitItem;
use crate::plan::pit_join::syntax::Clauses;

/// Refuses what has no meaning where the features are windows. `filtered`: ON chooses among the right rows.
pub fn refuse(view: &FeatureView, c: &Clauses, filtered: bool) -> Result<()> {
    let name = &view.name.name;
    if let Some(e) = &c.within {
        return Err(Error::invalid(format!(
            "WITHIN has no meaning for feature view {}: its features are windows of fixed lengths",
            view.name
        ))
        .with_hint("leave WITHIN out, or declare a feature with a shorter OVER LAST '…'")
        .or_span(Span::from_sql(e.span())));
    }
    if filtered {
        return Err(Error::invalid(format!("ON cannot choose among the events of feature view {}", view.name)).with_hint(format!(
            "declare the feature with FILTER (WHERE …), or read the events: FROM {name}$events; WHERE looks at the joined rows"
        )));
    }
    Ok(())
}

/// Refuses forms A and B.
pub fn refuse_inequality(view: &FeatureView) -> Result<()> {
    match view.windowed {
        None => Ok(()),
        Some(_) => {
            Err(Error::invalid(format!("feature view {} has windows: it is joined as of an instant, without an inequality", view.name))
                .with_hint(format!("write ASOF JOIN {} AT l.ts; the view knows its keys", view.name.name)))
        }
    }
}

/// The left side with all features of a view, its keys and its event timestamp.
pub fn view(names: &dyn Names, left: LogicalPlan, table: &FeatureTable, qualifier: &TableReference, pit: PitItem) -> Result<LogicalPlan> {
    let view = &table.view;
    let all: Vec<usize> = (0..view.features.len()).collect();
    let mut list: Vec<Expr> = left.schema().columns().into_iter().map(Expr::Column).collect();
    for ((label, _), key) in pit.keys.iter().zip(&view.keys) {
        list.push(cast(label.clone(), key.data_type.arrow().clone()).alias_qualified(Some(qualifier.clone()), &key.name));
    }
    list.push(Expr::Column(Column::new(Some(qualifier.clone()), &view.event_timestamp)));
    for i in &all {
        let e = feature(names, view, qualifier, *i, Some(&pit.at))?;
        list.push(e.alias_qualified(Some(qualifier.clone()), &view.features[*i].name));
    }
    let joined = item(names, left, table, qualifier, pit, &all)?;
    Ok(LogicalPlanBuilder::from(joined).project(list)?.build()?)
}

/// The left side with the aggregates that some features need.
pub fn item(
    names: &dyn Names,
    left: LogicalPlan,
    table: &FeatureTable,
    qualifier: &TableReference,
    pit: PitItem,
    features: &[usize],
) -> Result<LogicalPlan> {
    let view = &table.view;
    let slots = slots_of(names, view, features)?;
    let argument = |c: crate::model::Column| Expr::Column(Column::new(Some(qualifier.clone()), c.name));
    let arguments = windowed(view)?.arguments_of(&slots).into_iter().map(argument).collect();
    let events = super::events(names, table, qualifier)?;
    let item = WindowItem { pit, qualifier: qualifier.clone(), arguments, slots };
    let node = WindowJoinNode::try_new(left, events, Arc::clone(view), item)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// One row per event, with the windows as of its instant.
pub fn rows(names: &dyn Names, table: &FeatureTable) -> Result<LogicalPlan> {
    let events = &table.view;
    let label = TableReference::bare(LABELS);
    let own = |name: &str| Expr::Column(Column::new(Some(label.clone()), name));
    let keys = events.keys.iter().map(|k| k.name.as_str());
    let columns: Vec<Expr> = keys.chain([events.event_timestamp.as_str()]).chain(events.created_timestamp.as_deref()).map(own).collect();
    let labels = LogicalPlanBuilder::from(super::events(names, table, &label)?).project(columns.clone())?.build()?;
    let qualifier = TableReference::bare(events.name.name.as_str());
    let pit = crate::plan::pit_join::join::item_of(
        table,
        &qualifier,
        keys_of(events, &label, &qualifier),
        own(&events.event_timestamp),
        None,
        None,
        false,
    );
    let joined = item(names, labels, table, &qualifier, pit, &(0..events.features.len()).collect::<Vec<_>>())?;
    let at = own(&events.event_timestamp);
    let mut list = columns.into_iter().map(|c| c.unalias()).collect::<Vec<_>>();
    for (i, f) in events.features.iter().enumerate() {
        list.push(feature(names, events, &qualifier, i, Some(&at))?.alias(&f.name));
    }
    let named = list.into_iter().map(|e| match e {
        Expr::Column(c) => Expr::Column(c.clone()).alias(c.name),
        e => e,
    });
    Ok(LogicalPlanBuilder::from(joined).project(named)?.build()?)
}

/// Qualifies the events that stand for labels.
const LABELS: &str = "_remige_labels";

fn keys_of(view: &FeatureView, left: &TableReference, right: &TableReference) -> Vec<(Expr, Expr)> {
    let of = |q: &TableReference, name: &str| Expr::Column(Column::new(Some(q.clone()), name));
    view.keys.iter().map(|k| (of(left, &k.name), of(right, &k.name))).collect()
}

/// What a service's expression names of a windowed item: a feature, or the event timestamp.
pub fn column(names: &dyn Names, view: &FeatureView, qualifier: &TableReference, c: &Column, at: &Expr) -> Result<Expr> {
    if let Some(i) = view.features.iter().position(|f| f.name == c.name) {
        return feature(names, view, qualifier, i, Some(at));
    }
    if view.created_timestamp.as_deref() == Some(c.name.as_str()) {
        return Err(Error::invalid(format!("{}: a window has no created timestamp", view.name))
            .with_hint(format!("read {}$events", view.name.name)));
    }
    Ok(Expr::Column(Column::new(Some(qualifier.clone()), &c.name)))
}
