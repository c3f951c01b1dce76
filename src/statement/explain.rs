//! EXPLAIN of our own statements, and which statements EXPLAIN ANALYZE, which runs them, may stand before.

use async_trait::async_trait;
use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::format::ExplainFormat;
use datafusion::logical_expr::{Explain as ExplainNode, LogicalPlan, PlanType, ToStringifiedPlan};
use datafusion::sql::parser::{ExplainStatement, Statement as DfStatement};
use sqlparser::ast::{SetExpr, Statement as SqlStatement};

use super::table_of_statements::{is_ours, ours_at};
use super::{Head, Parsed, Planned, Planning, Statement, copy, delete, sql};
use crate::error::{Error, Result, Span};
use crate::plan::StatementKind;

/// EXPLAIN of a statement that has an effect: shows it and does nothing.
#[derive(Debug)]
pub struct Explain {
    verbose: bool,
    format: ExplainFormat,
    statistics: Option<bool>,
    inner: Parsed,
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let analyze = c.eat("ANALYZE");
    let verbose = c.eat("VERBOSE");
    let analyze = analyze || c.eat("ANALYZE");
    let text = c.text();
    if c.is("EXPLAIN") {
        return Err(twice().with_span(c.here()));
    }
    let Some(first) = ours_at(&c) else {
        return match copy::from(c.clone().rest()?)? {
            Some(insert) => sql::read(&format!("EXPLAIN {}{insert}", if verbose { "VERBOSE " } else { "" })),
            None => sql::read(text),
        };
    };
    if analyze {
        return Err(runs_it(first).with_span(c.here()));
    }
    let at = c.here();
    let inner = super::parse(c.rest()?).map_err(|e| match e.span() {
        Some(s) => {
            let moved = crate::sql::text::shift(s, at.line, at.column);
            e.with_span(moved)
        }
        None => e,
    })?;
    Ok(Box::new(Explain { verbose, format: ExplainFormat::Indent, statistics: None, inner }))
}

fn twice() -> Error {
    Error::invalid("EXPLAIN cannot explain another EXPLAIN").with_hint("write EXPLAIN once")
}

fn runs_it(what: &str) -> Error {
    Error::invalid(format!("EXPLAIN ANALYZE runs the statement, and {what} is no query: nothing was done"))
        .with_hint(format!("EXPLAIN {what} … shows the plan and does nothing; EXPLAIN ANALYZE is for SELECT"))
}

/// Refuses EXPLAIN of EXPLAIN, and EXPLAIN ANALYZE of whatever is no query.
pub fn check(e: &ExplainStatement) -> Result<()> {
    let at = match e.statement.as_ref() {
        DfStatement::Statement(s) => {
            use sqlparser::ast::Spanned;
            Span::from_sql(s.span())
        }
        _ => None,
    };
    let word = match e.statement.as_ref() {
        DfStatement::Explain(_) => return Err(twice()),
        DfStatement::Statement(s) => match s.as_ref() {
            SqlStatement::Explain { .. } => return Err(twice().or_span(at)),
            SqlStatement::Query(q) => match changing(&q.body) {
                Some(word) => word.to_string(),
                None => return Ok(()),
            },
            SqlStatement::ExplainTable { .. } => return Ok(()),
            other => first_word(&other.to_string()),
        },
        DfStatement::CopyTo(_) => "COPY".into(),
        other => first_word(&other.to_string()),
    };
    if e.options.analyze {
        return Err(runs_it(&word).or_span(at));
    }
    if is_ours(&word) {
        return Err(Error::invalid(format!("EXPLAIN takes no options before {word}"))
            .or_span(at)
            .with_hint(format!("write EXPLAIN {word} …, or EXPLAIN VERBOSE {word} …")));
    }
    Ok(())
}

/// The statement that changes rows inside of a query's body.
pub fn changing(body: &SetExpr) -> Option<&'static str> {
    match body {
        SetExpr::Insert(_) => Some("INSERT"),
        SetExpr::Update(_) => Some("UPDATE"),
        SetExpr::Delete(_) => Some("DELETE"),
        SetExpr::Merge(_) => Some("MERGE"),
        SetExpr::SetOperation { left, right, .. } => changing(left).or_else(|| changing(right)),
        SetExpr::Query(q) => changing(&q.body),
        SetExpr::Select(_) | SetExpr::Values(_) | SetExpr::Table(_) => None,
    }
}

fn first_word(statement: &str) -> String {
    statement.split_whitespace().next().unwrap_or("this").to_uppercase()
}

/// EXPLAIN of a DELETE, whose plan is ours; others go on to the stock planner.
pub fn of_delete(text: &str, e: ExplainStatement) -> Result<Result<Explain, DfStatement>> {
    let ExplainStatement { options, statement } = e;
    let inner = match *statement {
        DfStatement::Statement(s) => match delete::find(text, *s)? {
            Ok(delete) => delete,
            Err(other) => {
                let statement = Box::new(DfStatement::Statement(Box::new(other)));
                return Ok(Err(DfStatement::Explain(ExplainStatement { options, statement })));
            }
        },
        other => return Ok(Err(DfStatement::Explain(ExplainStatement { options, statement: Box::new(other) }))),
    };
    if options.analyze_level.is_some() || options.analyze_categories.is_some() {
        return Err(Error::invalid("these options of EXPLAIN want ANALYZE, which is for SELECT").with_hint("leave them out"));
    }
    if options.verbose && options.format.is_some() {
        return Err(Error::invalid("EXPLAIN has either VERBOSE or FORMAT").with_hint("leave one of them out"));
    }
    let format = options.format.unwrap_or(ExplainFormat::Indent);
    Ok(Ok(Explain { verbose: options.verbose, format, statistics: options.show_statistics, inner: Box::new(inner) }))
}

#[async_trait]
impl Statement for Explain {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let inner = Box::pin(self.inner.plan(p)).await?;
        let stringified = vec![inner.plan.to_stringified(PlanType::InitialLogicalPlan)];
        let schema = LogicalPlan::explain_schema();
        let plan = LogicalPlan::Explain(ExplainNode {
            verbose: self.verbose,
            plan: Arc::new(inner.plan),
            explain_format: self.format,
            stringified_plans: stringified,
            schema: Arc::new(DFSchema::try_from(schema.as_ref().clone())?),
            logical_optimization_succeeded: false,
            show_statistics: self.statistics,
        });
        Ok(Planned { plan, kind: StatementKind::Query, tag: "EXPLAIN", changes_session: false })
    }
}
