//! What a view's query says about it.

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::sql::parser::Statement as DfStatement;

use super::super::Planning;
use super::{CreateFeatureView, Derived};
use crate::error::{Error, Result, Span};
use crate::model::layout::check_column_name;
use crate::model::types::ColumnType;
use crate::model::{Column, Feature, Name};
use crate::plan::online_lookup::asks_online;

/// A query of a view: its text, and where it begins.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    pub text: &'a str,
    pub place: Span,
}

impl Query<'_> {
    /// An error with a place in the statement instead of one in the query.
    pub fn moved(&self, e: Error) -> Error {
        match e.span() {
            Some(s) => {
                let s = crate::sql::text::shift(s, self.place.line, self.place.column);
                e.with_span(s)
            }
            None => e,
        }
    }
}

impl CreateFeatureView {
    pub(super) async fn derive_from_query(
        &self,
        p: &dyn Planning,
        name: &Name,
        keys: &[Column],
        text: &str,
        place: Span,
    ) -> Result<Derived> {
        let query = Query { text, place };
        if let Some(parsed) = crate::sql::over::parse(text).map_err(|e| query.moved(e))? {
            return self.derive_windowed(p, name, keys, query, parsed).await;
        }
        let statement = crate::sql::parse::statement(text).map_err(|e| query.moved(e))?;
        if !matches!(&statement, DfStatement::Statement(s) if matches!(s.as_ref(), sqlparser::ast::Statement::Query(_))) {
            return Err(Error::syntax("AS wants a query (SELECT …)").with_span(place));
        }
        let (mut features, snapshot) = self.columns_of(p, name, keys, query, statement).await?;
        if features.is_empty() {
            return Err(
                Error::invalid(format!("the query of feature view {name} yields no features besides keys and timestamps")).with_span(place)
            );
        }
        self.describe(name, &mut features)?;
        Ok(Derived { features, snapshot, windowed: None })
    }

    /// The columns of a query beside keys and timestamps, and whether its rows are a snapshot; an error where it does not
    /// yield what the view names.
    pub(super) async fn columns_of(
        &self,
        p: &dyn Planning,
        name: &Name,
        keys: &[Column],
        query: Query<'_>,
        statement: DfStatement,
    ) -> Result<(Vec<Feature>, bool)> {
        let plan = p.sql(statement, p.names().schema()).await.map_err(|e| query.moved(e))?;
        p.check(&plan, query.text).map_err(|e| query.moved(e).or_span(Some(query.place)))?;
        check_functions(&plan, name)?;
        if let Some(words) = asks_online(&plan)? {
            return Err(Error::invalid(format!("feature view {name} cannot use {words}: a second run would give other values"))
                .with_span(query.place)
                .with_hint("join the features: FROM events ASOF JOIN … AT events.ts"));
        }
        let schema = plan.schema();
        let listed: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let columns = listed.join(", ");
        for (i, n) in listed.iter().enumerate() {
            if listed[..i].contains(n) {
                return Err(Error::invalid(format!("the query of feature view {name} yields two columns called {n:?}"))
                    .with_span(query.place)
                    .with_hint("give one of them another name with AS"));
            }
            check_column_name(n)?;
        }
        self.distinct(name, keys)?;
        let find = |column: &str| schema.fields().iter().find(|f| f.name() == column);
        for key in keys {
            let Some(f) = find(&key.name) else {
                return Err(Error::invalid(format!("the query of feature view {name} does not yield key column {:?}", key.name))
                    .with_span(query.place)
                    .suggest(&key.name, listed.iter().copied())
                    .or_hint(&format!("it yields {columns}")));
            };
            castable_key(name, key, f.data_type())?;
        }
        let Some(event) = find(&self.event.0) else {
            return Err(Error::invalid(format!("the query of feature view {name} does not yield event timestamp {:?}", self.event.0))
                .with_span(self.event.1)
                .suggest(&self.event.0, listed.iter().copied())
                .or_hint(&format!("it yields {columns}")));
        };
        timestamp(name, "event timestamp", event, self.event.1)?;
        if let Some((c, span)) = &self.created {
            let Some(f) = find(c) else {
                return Err(Error::invalid(format!("the query of feature view {name} does not yield created timestamp {c:?}"))
                    .with_span(*span)
                    .suggest(c, listed.iter().copied())
                    .or_hint(&format!("it yields {columns}")));
            };
            timestamp(name, "created timestamp", f, *span)?;
        }
        let naive = matches!(event.data_type(), DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64);
        match &self.zone {
            Some((zone, span)) => {
                if zone.parse::<chrono_tz::Tz>().is_err() {
                    return Err(Error::invalid(format!("time zone {zone:?} is not known"))
                        .with_span(*span)
                        .with_hint("write a name such as 'Europe/Berlin' or 'UTC'"));
                }
                if !naive && zone != "UTC" {
                    p.names().notice(format!(
                        "event timestamp {:?} of feature view {name} has a zone of its own; AT TIME ZONE '{zone}' has no effect; tables hold instants, so say the zone in the query that makes the table",
                        self.event.0
                    ));
                }
            }
            None if naive => {
                p.names().notice(format!("event timestamp {:?} of feature view {name} has no time zone: it is read as UTC", self.event.0));
            }
            None => {}
        }
        let mut features = vec![];
        for f in schema.fields() {
            let n = f.name();
            if keys.iter().any(|k| k.name == *n) || *n == self.event.0 || Some(n) == self.created.as_ref().map(|c| &c.0) {
                continue;
            }
            let data_type = ColumnType::stored(f.data_type()).map_err(|e| e.context(format!("feature {n:?} of feature view {name}")))?;
            features.push(Feature::new(n.clone(), data_type));
        }
        Ok((features, is_now(&plan, &self.event.0)))
    }

    /// Adds what the list of features says.
    pub(super) fn describe(&self, name: &Name, features: &mut [Feature]) -> Result<()> {
        let known: Vec<String> = features.iter().map(|f| f.name.clone()).collect();
        for l in &self.columns {
            let Some(feature) = features.iter_mut().find(|f| f.name == l.name) else {
                return Err(Error::not_found(format!("feature {:?} is not a column of the query of feature view {name}", l.name))
                    .with_span(l.span)
                    .suggest(&l.name, known.iter().map(String::as_str))
                    .or_hint(&format!("its features are {}", known.join(", "))));
            };
            if let Some(t) = &l.data_type {
                feature.data_type = t.clone();
            }
            feature.comment = l.comment.clone();
            feature.tags = l.tags.clone();
        }
        Ok(())
    }
}

fn castable_key(view: &Name, key: &Column, have: &DataType) -> Result<()> {
    if have.is_floating() {
        return Err(Error::invalid(format!(
            "key column {:?} of feature view {view} is {} for its entity, but the query yields a float ({have})",
            key.name, key.data_type
        ))
        .with_hint(format!("two floats that print alike may differ; write CAST({} AS {})", key.name, key.data_type)));
    }
    if !datafusion::arrow::compute::can_cast_types(have, key.data_type.arrow()) {
        return Err(Error::invalid(format!(
            "key column {:?} of feature view {view} is {} for its entity, but the query yields {have}",
            key.name, key.data_type
        ))
        .with_hint(format!("write CAST({} AS {})", key.name, key.data_type)));
    }
    Ok(())
}

fn timestamp(view: &Name, what: &str, f: &Field, span: Span) -> Result<()> {
    match f.data_type() {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Ok(()),
        t => Err(Error::invalid(format!("{what} {:?} of feature view {view} is {t}, not a timestamp", f.name()))
            .with_span(span)
            .with_hint(match t {
                DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
                    format!("write CAST({0} AS TIMESTAMP) AS {0}, or to_timestamp({0}, format) AS {0}", f.name())
                }
                _ => format!("write to_timestamp_micros({0}) AS {0} or to_timestamp_seconds({0}) AS {0}, whichever unit it has", f.name()),
            })),
    }
}

/// Refuses what cannot be repeated; tells of windows that are as of the last event.
fn check_functions(plan: &LogicalPlan, view: &Name) -> Result<()> {
    let mut fault = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|e| {
            e.apply(|e| {
                if let Expr::ScalarFunction(f) = e
                    && f.func.signature().volatility == Volatility::Volatile
                {
                    fault = Some(format!("{}()", f.func.name()));
                    return Ok(TreeNodeRecursion::Stop);
                }
                if let Expr::Placeholder(pl) = e {
                    fault = Some(format!("parameter {}", pl.id));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match fault {
        Some(f) => Err(Error::invalid(format!("feature view {view} cannot use {f}: a second run would give other values"))
            .with_hint("now() and CURRENT_DATE are fine: they mean the run's instant")),
        None => Ok(()),
    }
}

/// True where a column of the result is nothing but the run's instant.
fn is_now(plan: &LogicalPlan, column: &str) -> bool {
    let LogicalPlan::Projection(p) = plan else { return false };
    fn strip(e: &Expr) -> &Expr {
        match e {
            Expr::Alias(a) => strip(&a.expr),
            Expr::Cast(c) => strip(&c.expr),
            other => other,
        }
    }
    p.expr.iter().zip(p.schema.fields()).any(|(e, f)| {
        f.name() == column && matches!(strip(e), Expr::ScalarFunction(s) if matches!(s.func.name(), "now" | "current_timestamp"))
    })
}
