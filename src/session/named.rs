//! PREPARE, EXECUTE, DEALLOCATE: statements that a session keeps under names. They run as what a driver prepares does,
//! with the same checks.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;

use super::prepared::Prepared;
use super::{Ready, Session, session_command};
use crate::error::{Error, Result};
use crate::model::exact::exactly;
use crate::model::types::ColumnType;
use crate::plan::command::Command;
use crate::resolve::planner::StatementPlanner;
use crate::resolve::resolver::Resolver;
use crate::statement::Planning;

/// Statements that one session may keep.
const MOST: usize = 1_000;

/// A statement under a name.
#[derive(Debug, Clone)]
pub(super) struct Named {
    prepared: Prepared,
    /// As PREPARE gave them; empty: as the statement wants them.
    types: Vec<DataType>,
}

pub(super) type Names = parking_lot::RwLock<BTreeMap<String, Named>>;

impl Session {
    /// Carries out what is about this session alone.
    pub(super) fn of_session<'a>(&'a self, command: &'a Command, resolver: &'a Arc<Resolver>) -> BoxFuture<'a, Result<Ready>> {
        Box::pin(async move {
            match command {
                Command::Prepare { name, types, statement } => self.keep(name, types, statement).await.map(|_| Ready::Done),
                Command::Execute { name, arguments } => self.run_named(name, arguments, resolver).await,
                Command::Deallocate { name } => self.forget(name.as_deref()).map(|_| Ready::Done),
                other => self.change(other).map(|_| Ready::Done),
            }
        })
    }

    async fn keep(&self, name: &str, types: &[ColumnType], statement: &str) -> Result<()> {
        if self.own.named.read().contains_key(name) {
            return Err(Error::already_exists(format!("a statement {name:?} is prepared already"))
                .with_hint(format!("DEALLOCATE {name} forgets it, or choose another name")));
        }
        let prepared = self.prepare_one(statement.to_string()).await.map_err(Error::without_span)?;
        let types: Vec<DataType> = types.iter().map(|t| t.arrow().clone()).collect();
        let wanted = prepared.parameters.len();
        if !types.is_empty() && types.len() != wanted {
            return Err(Error::invalid(format!(
                "PREPARE {name} gives {} type(s), and the statement has {wanted} parameter(s)",
                types.len()
            ))
            .with_hint("give a type for each of $1, $2, …, or none"));
        }
        let untyped = !types.is_empty() && prepared.parameters.contains(&None);
        let prepared = if untyped { self.plan_for(prepared, types.clone()).await? } else { prepared };
        let mut named = self.own.named.write();
        if named.len() >= MOST {
            return Err(
                Error::exhausted(format!("a session keeps at most {MOST} prepared statements")).with_hint("DEALLOCATE those that are done")
            );
        }
        named.insert(name.to_string(), Named { prepared, types });
        Ok(())
    }

    fn named(&self, name: &str) -> Result<Named> {
        let known = self.own.named.read();
        known.get(name).cloned().ok_or_else(|| unknown(name, known.keys()))
    }

    fn forget(&self, name: Option<&str>) -> Result<()> {
        let mut known = self.own.named.write();
        match name {
            None => known.clear(),
            Some(name) if known.remove(name).is_some() => {}
            Some(name) => return Err(unknown(name, known.keys())),
        }
        Ok(())
    }

    /// The statement that a plan calls by its name; `None`: it is no EXECUTE.
    pub(super) fn called(&self, plan: &LogicalPlan) -> Result<Option<Prepared>> {
        match session_command(plan).as_deref() {
            Some(Command::Execute { name, arguments }) => {
                let named = self.named(name)?;
                check_count(name, &named, arguments)?;
                Ok(Some(named.prepared))
            }
            _ => Ok(None),
        }
    }

    async fn run_named(&self, name: &str, arguments: &[String], resolver: &Arc<Resolver>) -> Result<Ready> {
        let named = self.named(name)?;
        check_count(name, &named, arguments)?;
        let planner = StatementPlanner::new(Arc::clone(resolver), vec![]);
        let mut values = Vec::with_capacity(arguments.len());
        for (i, text) in arguments.iter().enumerate() {
            let value = planner.constant(text).await.and_then(|v| named.taken(i, &v));
            values.push(value.map_err(|e| e.without_span().context(format!("EXECUTE {name}: value {} ({text})", i + 1)))?);
        }
        let mut prepared = named.prepared;
        if prepared.parameters.contains(&None) {
            prepared = self.plan_for(prepared, values.iter().map(ScalarValue::data_type).collect()).await?;
        }
        // places in the statement mean nothing in this one
        self.ready(prepared, values).await.map_err(|e| e.without_span().context(format!("EXECUTE {name}")))
    }
}

impl Named {
    /// A value in the type that PREPARE gave, and in the one that the statement wants; one that would change is refused.
    fn taken(&self, i: usize, value: &ScalarValue) -> Result<ScalarValue> {
        let mut array = value.to_array()?;
        for want in [self.types.get(i), self.prepared.parameters.get(i).and_then(Option::as_ref)].into_iter().flatten() {
            array = exactly(&array, want)?;
        }
        Ok(ScalarValue::try_from_array(&array, 0)?)
    }
}

fn check_count(name: &str, named: &Named, arguments: &[String]) -> Result<()> {
    let wanted = named.prepared.parameters.len();
    match arguments.len() == wanted {
        true => Ok(()),
        false => {
            Err(Error::invalid(format!("EXECUTE {name} has {} value(s), and the statement has {wanted} parameter(s)", arguments.len()))
                .with_hint(format!("the statement is {}", crate::sql::text::short(&named.prepared.sql, 200))))
        }
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Error {
    Error::not_found(format!("no statement {name:?} is prepared in this session"))
        .suggest(name, known.map(String::as_str))
        .or_hint(&format!("write PREPARE {name} AS … first; it lasts for the session"))
}
