//! What a windowed query says about its view: what is stored of its events, its aggregates, and its features.

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::super::Planning;
use super::derive::Query;
use super::{CreateFeatureView, Derived};
use crate::error::{Error, Result};
use crate::model::types::ColumnType;
use crate::model::window::{Aggregate, Asked, Call, Function, Window, check_family};
use crate::model::windowed::{Computed, Slot, Windowed, slot_name};
use crate::model::{Column, Feature, FeatureKind, Name};
use crate::plan::names::Names;
use crate::plan::service;
use crate::sql::over::Windowed as Parsed;
use crate::sql::windowed::{AggregateText, Argument, Roles, Split, split};

impl CreateFeatureView {
    pub(super) async fn derive_windowed(
        &self,
        p: &dyn Planning,
        name: &Name,
        keys: &[Column],
        query: Query<'_>,
        parsed: Parsed,
    ) -> Result<Derived> {
        if self.ttl.is_some() {
            return Err(Error::invalid(format!("feature view {name} has windows, so TTL has no meaning: the window is the age"))
                .or_span(self.name.span)
                .with_hint("leave TTL out; last_value(x) OVER LAST '30 days' is a value of at most this age"));
        }
        let key_names: Vec<String> = keys.iter().map(|k| k.name.clone()).collect();
        let push = !self.columns.is_empty() && self.columns.iter().all(|c| c.data_type.is_some()) && reads_pushed(query.text);
        let shown = name.to_string();
        let created = self.created.as_ref().map(|c| c.0.as_str());
        let roles = Roles { view: &shown, keys: &key_names, event: &self.event.0, created, push };
        let parts = split(parsed, &roles, slot_name).map_err(|e| query.moved(e).or_span(Some(query.place)))?;
        let mut windowed = match push {
            true => self.pushed(p, name, keys, &parts)?,
            false => self.queried(p, name, keys, query, &parts).await?,
        };
        let arguments = windowed.argument_columns();
        for text in &parts.aggregates {
            let slot = slot(text, &arguments).map_err(|e| query.moved(e.or_span(text.span)).or_span(Some(query.place)))?;
            windowed.slots.push(slot);
        }
        families(&windowed.slots).map_err(|e| e.or_span(Some(query.place)))?;
        let mut features = vec![];
        for (feature, e, place) in &parts.outputs {
            let text = e.to_string();
            let data_type = typed(p.names().as_ref(), &text, &windowed).map_err(|e| {
                query.moved(e.without_span().or_span(*place)).context(format!("feature {feature:?} of feature view {name}"))
            })?;
            features.push(Feature { kind: FeatureKind::Windowed, ..Feature::new(feature.clone(), data_type) });
            windowed.outputs.push(text);
        }
        if !push {
            self.describe(name, &mut features)?;
        }
        Ok(Derived { features, snapshot: false, windowed: Some(windowed) })
    }

    /// The events of a query.
    async fn queried(&self, p: &dyn Planning, name: &Name, keys: &[Column], query: Query<'_>, parts: &Split) -> Result<Windowed> {
        let statement = crate::sql::parse::checked(parts.events.clone(), query.text).map_err(|e| query.moved(e))?;
        let (columns, snapshot) = self.columns_of(p, name, keys, query, statement).await?;
        if snapshot {
            return Err(Error::invalid(format!("feature view {name} has windows over events: now() is no event timestamp"))
                .with_span(self.event.1)
                .with_hint("name the column with the instant at which each event happened"));
        }
        let columns = columns.into_iter().map(|f| Column { name: f.name, data_type: f.data_type }).collect();
        Ok(Windowed { columns, computed: vec![], condition: None, pushed: false, slots: vec![], outputs: vec![] })
    }

    /// Events that are pushed as the list of columns says.
    fn pushed(&self, p: &dyn Planning, name: &Name, keys: &[Column], parts: &Split) -> Result<Windowed> {
        let listed = self.derive_from_list(name, keys)?.features;
        let columns: Vec<Column> = listed.into_iter().map(|f| Column { name: f.name, data_type: f.data_type }).collect();
        let ts = ColumnType::timestamp();
        let mut fields: Vec<Column> = keys.to_vec();
        fields.extend(
            [Some(&self.event.0), self.created.as_ref().map(|c| &c.0)]
                .into_iter()
                .flatten()
                .map(|n| Column { name: n.clone(), data_type: ts.clone() }),
        );
        fields.extend(columns.iter().cloned());
        let schema = schema(&fields)?;
        let expression = |text: &str| p.names().sql_expression(crate::sql::parse::expression(text)?, &schema);
        let computed = |a: &Argument| {
            let expr = a.expr.to_string();
            let data_type = ColumnType::stored(&expression(&expr)?.get_type(&schema)?)?;
            Ok(Computed { name: a.name.clone(), expr, data_type })
        };
        let condition = parts.condition.as_ref().map(|c| c.to_string());
        if let Some(c) = &condition
            && expression(c)?.get_type(&schema)? != DataType::Boolean
        {
            return Err(Error::invalid(format!("WHERE of feature view {name} is no condition")));
        }
        let computed = parts.arguments.iter().map(computed).collect::<Result<_>>()?;
        Ok(Windowed { columns, computed, condition, pushed: true, slots: vec![], outputs: vec![] })
    }
}

fn reads_pushed(text: &str) -> bool {
    crate::sql::text::tokenize(text).is_ok_and(|t| {
        t.windows(2).any(|w| crate::sql::tokens::is_word(w.first(), "from") && crate::sql::tokens::is_word(w.get(1), "pushed"))
    })
}

fn schema(columns: &[Column]) -> Result<DFSchema> {
    let field = |c: &Column| Field::new(&c.name, c.data_type.arrow().clone(), true);
    Ok(DFSchema::try_from(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))?)
}

/// An aggregate with its window and type.
fn slot(text: &AggregateText, arguments: &[Column]) -> Result<Slot> {
    let call = Call {
        name: &text.function,
        distinct: text.distinct,
        ignore_nulls: text.ignore_nulls,
        star: text.star,
        columns: text.args.len(),
        constants: &text.constants,
    };
    let function = Function::find(&call)?;
    let of = |name: &String| arguments.iter().find(|c| c.name == *name).map(|c| c.data_type.arrow().clone());
    let types: Vec<DataType> = text.args.iter().filter_map(of).collect();
    if text.filter.as_ref().and_then(of).is_some_and(|t| t != DataType::Boolean) {
        return Err(Error::invalid("FILTER (WHERE …) wants a condition"));
    }
    let asked = Asked {
        length: text.window.length,
        every: text.window.every,
        exact: text.window.exact,
        delay: text.window.delay,
        exclude_current: text.window.exclude_current,
    };
    let window = Window::new(&asked, false).map_err(|e| e.or_span(Some(text.window.span)))?;
    let data_type = ColumnType::stored(&function.result_type(&types)?)?;
    Ok(Slot { aggregate: Aggregate { function, args: text.args.clone(), filter: text.filter.clone(), window }, data_type })
}

/// Windows of one aggregate share their buckets.
fn families(slots: &[Slot]) -> Result<()> {
    for s in slots {
        let a = &s.aggregate;
        let same = |b: &&Slot| {
            let b = &b.aggregate;
            a.function == b.function && a.args == b.args && a.filter == b.filter && a.window.is_exact() == b.window.is_exact()
        };
        let windows: Vec<&Window> = slots.iter().filter(same).map(|s| &s.aggregate.window).collect();
        check_family(&windows).map_err(|e| e.context(a.describe()))?;
    }
    Ok(())
}

/// The type of a feature's values.
fn typed(names: &dyn Names, text: &str, windowed: &Windowed) -> Result<ColumnType> {
    let columns: Vec<Column> =
        windowed.slots.iter().enumerate().map(|(i, s)| Column { name: slot_name(i), data_type: s.data_type.clone() }).collect();
    let schema = schema(&columns)?;
    let e: Expr = service::safe(names.sql_expression(crate::sql::parse::expression(text)?, &schema)?, &schema)?;
    ColumnType::stored(&e.get_type(&schema)?)
}
