//! `CREATE TRAINING SET name [COMMENT …] [TAGS (…)] AS SELECT …`, `REBUILD TRAINING SET name`

use async_trait::async_trait;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

use super::{Head, Parsed, Planned, Planning, Statement, about};
use crate::catalog::SYSTEM_SCHEMA;
use crate::catalog::ddl::Exists;
use crate::error::{Error, Result, Span};
use crate::model::About;
use crate::model::layout::check_column_name;
use crate::model::types::ColumnType;
use crate::plan::command::{Command, TrainingSetSpec};
use crate::plan::online_lookup::asks_online;
use crate::sql::cursor::NameRef;

#[derive(Debug, Clone)]
pub struct CreateTrainingSet {
    name: NameRef,
    or_replace: bool,
    if_not_exists: bool,
    about: About,
    query: (String, Span),
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let Head { cursor: mut c, or_replace, .. } = head;
    let if_not_exists = c.eat("IF NOT EXISTS");
    about::exclusive(&c, or_replace, if_not_exists)?;
    let name = c.plain_name("training set")?;
    let mut about = About::default();
    while about::clause(&mut c, &mut about)? {}
    if !c.eat("AS") {
        c.end(&["COMMENT '…'", "OWNER '…'", "TAGS (…)", "AS SELECT …"])?;
        return Err(c.expected("AS SELECT …"));
    }
    let at = c.here();
    let query = (c.rest()?.to_string(), at);
    Ok(Box::new(CreateTrainingSet { name, or_replace, if_not_exists, about, query }))
}

/// Moves the place of an error in a query that was cut out of a statement back into the statement.
pub fn moved(e: Error, place: Span) -> Error {
    match e.span() {
        Some(s) => {
            let s = crate::sql::text::shift(s, place.line, place.column);
            e.with_span(s)
        }
        None => e,
    }
}

/// Refuses functions that give another value each time.
pub fn refuse_volatile(plan: &LogicalPlan, what: &str) -> Result<()> {
    match volatile_function(plan)? {
        Some(f) => Err(Error::invalid(format!("{what} cannot use {f}(): it could not be made again"))),
        None => Ok(()),
    }
}

/// A function in a plan, subqueries included, that gives another value each time.
pub fn volatile_function(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|e| {
            e.apply(|e| {
                if let Expr::ScalarFunction(f) = e
                    && f.func.signature().volatility == Volatility::Volatile
                {
                    found = Some(f.func.name().to_string());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// Refuses what has no past to be read again: online rows, system tables, parameters.
fn refuse_passing(plan: &LogicalPlan, what: &str) -> Result<()> {
    let again = "a training set must be possible to make again";
    let mut fault = None;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(t) = node
            && matches!(t.table_name.schema(), Some(SYSTEM_SCHEMA | "information_schema"))
        {
            fault = Some(Error::invalid(format!("{what} cannot read {}: {again}", t.table_name)));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if let Some(words) = asks_online(plan)? {
        fault = Some(
            Error::invalid(format!("{what} cannot use {words}: {again}"))
                .with_hint("join the features: FROM labels ASOF JOIN … AT labels.ts"),
        );
    }
    if let Some(p) = plan.get_parameter_names()?.into_iter().min() {
        fault = Some(Error::invalid(format!("{what} cannot have the parameter {p}: {again}")).with_hint("write the value itself"));
    }
    fault.map_or(Ok(()), Err)
}

/// Every column needs a name of its own and a type that can be stored.
pub fn check_columns(plan: &LogicalPlan, what: &str) -> Result<()> {
    let fields = plan.schema().fields();
    for (i, f) in fields.iter().enumerate() {
        if fields[..i].iter().any(|o| o.name() == f.name()) {
            return Err(Error::invalid(format!("{what} would have two columns called {:?}", f.name()))
                .with_hint("give one of them another name with AS"));
        }
        check_column_name(f.name()).map_err(|e| e.context(what))?;
        ColumnType::stored(f.data_type()).map_err(|e| e.context(format!("column {:?} of {what}", f.name())))?;
    }
    Ok(())
}

#[async_trait]
impl Statement for CreateTrainingSet {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let name = p.names().name(&self.name);
        let catalog = p.names().catalog();
        catalog.schema(&name.schema).map_err(|e| e.or_span(self.name.span))?;
        let (query, place) = self.query;
        match catalog.relation(&name) {
            Some(_) if self.if_not_exists => {
                p.names().notice(format!("training set {name} exists already; nothing was changed"));
                return Planned::command(
                    "CREATE TRAINING SET",
                    Command::Nothing { what: format!("CREATE TRAINING SET {name} (exists)") },
                    vec![],
                );
            }
            Some(r) if !(self.or_replace && r.kind() == "training set") => {
                return Err(Error::already_exists(format!("{} {name} exists already", r.kind()))
                    .or_span(self.name.span)
                    .with_hint("choose another name, or CREATE OR REPLACE TRAINING SET"));
            }
            _ => {}
        }
        let statement = crate::sql::parse::statement(&query).map_err(|e| moved(e, place))?;
        let plan = p.sql(statement, p.names().schema()).await.map_err(|e| moved(e, place))?;
        p.check(&plan, &query).map_err(|e| moved(e, place).or_span(Some(place)))?;
        let what = format!("training set {name}");
        refuse_volatile(&plan, &what)?;
        refuse_passing(&plan, &what).map_err(|e| e.or_span(Some(place)))?;
        check_columns(&plan, &what).map_err(|e| e.or_span(Some(place)))?;
        let spec = TrainingSetSpec {
            name,
            query,
            query_schema: p.names().schema().to_string(),
            exists: Exists::of(self.or_replace, self.if_not_exists),
            about: self.about,
        };
        Planned::command("CREATE TRAINING SET", Command::CreateTrainingSet(spec), vec![plan])
    }
}

#[derive(Debug, Clone)]
pub struct RebuildTrainingSet(NameRef);

pub fn parse_rebuild(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let name = c.plain_name("training set")?;
    c.end(&[])?;
    Ok(Box::new(RebuildTrainingSet(name)))
}

#[async_trait]
impl Statement for RebuildTrainingSet {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let name = p.names().name(&self.0);
        p.names().catalog().training_set(&name).map_err(|e| e.or_span(self.0.span))?;
        Planned::command("REBUILD TRAINING SET", Command::RebuildTrainingSet(name), vec![])
    }
}
