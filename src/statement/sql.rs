//! Everything that the stock parser reads: queries, EXPLAIN, INSERT, DELETE, COPY. What would go past our
//! catalog and limits is refused by name.

use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, WriteOp};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;

use super::{Planned, Planning, Statement};
use crate::error::{Error, Result};
use crate::plan::StatementKind;
use crate::plan::feature_table::as_feature_table;
use crate::sql::titles;

#[derive(Debug, Clone)]
pub struct Sql {
    statement: DfStatement,
}

pub fn parse(text: &str) -> Result<Statement> {
    let statement = crate::sql::parse::statement(text)?;
    check(&statement)?;
    Ok(Statement::Sql(Sql { statement }))
}

fn check(s: &DfStatement) -> Result<()> {
    match s {
        DfStatement::CopyTo(c) => super::copy::check(c),
        DfStatement::Explain(e) => check(&e.statement),
        DfStatement::Statement(s) => match s.as_ref() {
            SqlStatement::Query(_)
            | SqlStatement::Insert(_)
            | SqlStatement::Delete(_)
            | SqlStatement::Explain { .. }
            | SqlStatement::ExplainTable { .. } => Ok(()),
            SqlStatement::Update(_) => Err(Error::not_built("UPDATE")
                .with_hint("DELETE the rows and INSERT new ones; a feature row with a later created timestamp corrects an older one")),
            other => {
                let words: Vec<String> = other.to_string().split_whitespace().take(2).map(str::to_string).collect();
                Err(Error::not_built(words.join(" ")))
            }
        },
        DfStatement::CreateExternalTable(_) | DfStatement::Reset(_) => Err(Error::internal("this statement has a plan of its own")),
    }
}

/// Takes the marks off columns that share a name.
fn shared_names(plan: LogicalPlan) -> Result<LogicalPlan> {
    let marked = |name: &str| name.contains(titles::MARK);
    if !plan.schema().fields().iter().any(|f| marked(f.name())) {
        return Ok(plan);
    }
    let columns = plan.schema().columns();
    let named = columns.into_iter().enumerate().map(|(i, c)| match c.name.split_once(titles::MARK) {
        Some((title, _)) => Expr::Column(c.clone()).alias_qualified(Some(format!("_remige_{i}")), title),
        None => Expr::Column(c),
    });
    Ok(LogicalPlanBuilder::from(plan).project(named)?.build()?)
}

impl Sql {
    pub async fn plan(self, p: &dyn Planning) -> Result<Planned> {
        let mut statement = self.statement;
        if let DfStatement::Statement(s) = &mut statement
            && let SqlStatement::Query(q) = s.as_mut()
        {
            titles::entitle(q);
        }
        let plan = shared_names(p.sql(statement, p.names().schema()).await?)?;
        Ok(match &plan {
            LogicalPlan::Dml(d) => {
                if d.op == WriteOp::Delete && as_feature_table(&d.target).is_none() {
                    let name = d.table_name.table();
                    return Err(Error::not_built(format!("DELETE FROM {name}: it is no feature view, and removing rows of other tables"))
                        .with_hint(format!("keep the other rows: CREATE OR REPLACE TABLE {name} AS SELECT * FROM {name} WHERE NOT (…)")));
                }
                let tag = if matches!(d.op, WriteOp::Insert(_)) { "INSERT" } else { "DELETE" };
                Planned { plan, kind: StatementKind::Update, tag, changes_session: false }
            }
            LogicalPlan::Copy(_) => Planned { plan, kind: StatementKind::Update, tag: "COPY", changes_session: false },
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => {
                Planned { plan, kind: StatementKind::Query, tag: "EXPLAIN", changes_session: false }
            }
            _ => Planned::query(plan),
        })
    }
}
