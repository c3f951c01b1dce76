//! Everything that the stock parser reads: queries, EXPLAIN, INSERT, DELETE, COPY. What would go past our
//! catalog and limits is refused by name.

use async_trait::async_trait;
use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, WriteOp};
use datafusion::sql::parser::{CopyToSource, Statement as DfStatement};
use sqlparser::ast::{Query, Spanned, Statement as SqlStatement, Visit, Visitor};

use super::{Head, Parsed, Planned, Planning, Statement, delete, explain};
use crate::error::{Error, Result, Span};
use crate::plan::StatementKind;
use crate::plan::command::CommandNode;
use crate::sql::titles;

#[derive(Debug, Clone)]
pub struct Sql {
    statement: DfStatement,
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    read(head.cursor.text())
}

/// `COPY … TO`, and `COPY … FROM`, which is an INSERT.
pub fn parse_copy(head: Head<'_>) -> Result<Parsed> {
    let text = head.cursor.text();
    match super::copy::from(text)? {
        Some(insert) => read(&insert),
        None => read(text),
    }
}

/// A statement of the stock parser.
pub fn read(text: &str) -> Result<Parsed> {
    let copy = super::copy_options::to(text)?;
    let text = copy.as_deref().unwrap_or(text);
    let statement = crate::sql::parse::statement(text)?;
    check(&statement)?;
    let statement = match statement {
        DfStatement::Statement(s) => match delete::find(text, *s)? {
            Ok(delete) => return Ok(Box::new(delete)),
            Err(other) => DfStatement::Statement(Box::new(other)),
        },
        DfStatement::Explain(e) => match explain::of_delete(text, e)? {
            Ok(explain) => return Ok(Box::new(explain)),
            Err(other) => other,
        },
        other => other,
    };
    Ok(Box::new(Sql { statement }))
}

fn check(s: &DfStatement) -> Result<()> {
    match s {
        DfStatement::CopyTo(c) => super::copy::check(c),
        DfStatement::Explain(e) => {
            explain::check(e)?;
            check(&e.statement)
        }
        DfStatement::Statement(s) => match s.as_ref() {
            SqlStatement::Query(_) | SqlStatement::Insert(_) | SqlStatement::Delete(_) | SqlStatement::ExplainTable { .. } => Ok(()),
            SqlStatement::Update(_) => Err(Error::not_built("UPDATE")
                .with_hint("a feature row with a later created timestamp corrects an older one: INSERT it; a table is written anew: \
                     CREATE OR REPLACE TABLE t AS SELECT * REPLACE (CASE WHEN condition THEN value ELSE a END AS a) FROM t")),
            SqlStatement::Merge(_) => Err(Error::not_built("MERGE")
                .with_hint("INSERT rows; a feature row with a later created timestamp corrects an older one, and DELETE removes rows")),
            SqlStatement::Truncate(_) => Err(Error::not_built("TRUNCATE").with_hint(
                "DELETE FROM view removes all rows of a push view; CREATE OR REPLACE TABLE t AS SELECT * FROM t WHERE false those of a table",
            )),
            other => {
                let words: Vec<String> = other.to_string().split_whitespace().take(2).map(str::to_string).collect();
                Err(Error::not_built(words.join(" ")))
            }
        },
        DfStatement::CreateExternalTable(_) | DfStatement::Reset(_) => {
            Err(Error::invalid("EXPLAIN has no options before this statement")
                .with_hint("write EXPLAIN and the statement, without options"))
        }
    }
}

/// A statement that changes rows may stand nowhere inside of another one.
fn refuse_changes_inside(part: &impl Visit) -> Result<()> {
    struct Find;
    impl Visitor for Find {
        type Break = (&'static str, Option<Span>);
        fn pre_visit_query(&mut self, q: &Query) -> ControlFlow<Self::Break> {
            match explain::changing(&q.body) {
                Some(word) => ControlFlow::Break((word, Span::from_sql(q.body.span()))),
                None => ControlFlow::Continue(()),
            }
        }
    }
    match part.visit(&mut Find) {
        ControlFlow::Break((word, at)) => {
            Err(Error::invalid(format!("{word} cannot stand inside of another statement")).or_span(at).with_hint(match word {
                "INSERT" => "write INSERT INTO … WITH … SELECT …, or run it as a statement of its own",
                _ => "run it as a statement of its own",
            }))
        }
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The same in a whole statement.
pub fn refuse_changes(statement: &DfStatement) -> Result<()> {
    match statement {
        DfStatement::Statement(s) => refuse_changes_inside(s.as_ref()),
        DfStatement::CopyTo(c) => match &c.source {
            CopyToSource::Query(q) => refuse_changes_inside(q.as_ref()),
            CopyToSource::Relation(_) => Ok(()),
        },
        DfStatement::Explain(e) => refuse_changes(&e.statement),
        _ => Ok(()),
    }
}

/// Takes the marks off columns that share a name.
fn shared_names(plan: LogicalPlan) -> Result<LogicalPlan> {
    let marked = |name: &str| name.contains(titles::MARK);
    if !plan.schema().fields().iter().any(|f| marked(f.name())) {
        return Ok(plan);
    }
    let columns = plan.schema().columns();
    // a name of one marked column, and of one without a table, would be ambiguous
    let named = columns.into_iter().enumerate().map(|(i, c)| match c.name.split(titles::MARK).next() {
        Some(title) if c.relation.is_none() => Expr::Column(c.clone()).alias_qualified(Some(format!("_remige_{i}")), title),
        _ => Expr::Column(c),
    });
    Ok(LogicalPlanBuilder::from(plan).project(named)?.build()?)
}

#[async_trait]
impl Statement for Sql {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let mut statement = self.statement;
        if let DfStatement::Statement(s) = &mut statement
            && let SqlStatement::Query(q) = s.as_mut()
        {
            titles::entitle(q);
        }
        let plan = match p.sql(statement, p.names().schema()).await? {
            LogicalPlan::Copy(c) => LogicalPlan::Copy(super::copy::in_plain_types(c)?),
            other => shared_names(other)?,
        };
        let (kind, tag) = match &plan {
            LogicalPlan::Dml(d) if matches!(d.op, WriteOp::Insert(_)) => (StatementKind::Update, "INSERT"),
            LogicalPlan::Copy(_) => (StatementKind::Update, "COPY"),
            LogicalPlan::Explain(_) => (StatementKind::Query, "EXPLAIN"),
            LogicalPlan::Analyze(a) => {
                refuse_effects(&a.input)?;
                (StatementKind::Query, "EXPLAIN")
            }
            other => {
                refuse_effects(other)?;
                (StatementKind::Query, "SELECT")
            }
        };
        Ok(Planned { plan, kind, tag, changes_session: false })
    }
}

/// Running a query changes nothing; whatever the parser let through.
fn refuse_effects(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        found = match node {
            LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) => {
                Some(node.display().to_string())
            }
            LogicalPlan::Extension(e) if e.node.as_any().is::<CommandNode>() => Some(node.display().to_string()),
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match found {
        Some(what) => Err(Error::internal(format!("a query would change something ({what}); nothing was done"))),
        None => Ok(()),
    }
}
