//! INSERT … SELECT. The stock planner takes every VALUES below it for rows of the target, and says little about what
//! does not fit; so the query is planned by itself, and put into the plan of an INSERT of as many NULLs.

use datafusion::common::Column;
use datafusion::logical_expr::{DmlStatement, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{Query, SetExpr, Statement as SqlStatement, TableObject};

use super::resolve::Resolver;
use crate::error::{Error, Result, Span};

/// Takes the query out of an INSERT … SELECT, which then inserts NULLs. Refuses rows of VALUES that do not fit.
pub async fn take_query(resolver: &Resolver, statement: &mut DfStatement, schema: &str) -> Result<Option<Taken>> {
    let DfStatement::Statement(s) = statement else { return Ok(None) };
    let SqlStatement::Insert(insert) = s.as_mut() else { return Ok(None) };
    let TableObject::TableName(name) = &insert.table else { return Ok(None) };
    let Some(parts) = name.0.iter().map(|p| p.as_ident().map(fold)).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let (of, table) = match parts.as_slice() {
        [t] => (schema, t.as_str()),
        [.., s, t] => (s.as_str(), t.as_str()),
        [] => return Ok(None),
    };
    // what does not exist is reported by the planner
    let Some(target) = resolver.load(of, table).await? else { return Ok(None) };
    let columns: Vec<String> = match insert.columns.is_empty() {
        true => target.schema().fields().iter().map(|f| f.name().clone()).collect(),
        false => insert.columns.iter().filter_map(|c| c.0.last()?.as_ident().map(fold)).collect(),
    };
    let taken = Taken { target: format!("{of}.{table}"), columns, query: None };
    let Some(query) = &mut insert.source else { return Ok(None) };
    if let SetExpr::Values(values) = query.body.as_ref() {
        let wrong = values.rows.iter().enumerate().find(|(_, r)| r.content.len() != taken.columns.len());
        return match wrong {
            Some((i, row)) => {
                use datafusion::sql::sqlparser::ast::Spanned;
                let span = row.content.first().and_then(|e| Span::from_sql(e.span()));
                Err(taken.misfit(&format!("row {} of VALUES has {}", i + 1, row.content.len())).or_span(span))
            }
            None => Ok(None),
        };
    }
    let nulls = format!("VALUES ({})", vec!["NULL"; taken.columns.len()].join(", "));
    let stub = crate::sql::parse::query(&nulls)?;
    Ok(Some(Taken { query: Some(std::mem::replace(query.as_mut(), stub)), ..taken }))
}

fn fold(ident: &datafusion::sql::sqlparser::ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// The query of an INSERT, and the columns that it should give.
pub struct Taken {
    target: String,
    columns: Vec<String>,
    query: Option<Query>,
}

impl Taken {
    pub fn query(&mut self) -> Option<Query> {
        self.query.take()
    }

    fn misfit(&self, got: &str) -> Error {
        Error::invalid(format!("INSERT INTO {} wants {} column(s) ({}); {got}", self.target, self.columns.len(), self.columns.join(", ")))
            .with_hint(format!("name the columns that are given: INSERT INTO {} (column, …) …", self.target))
    }

    /// The plan of the INSERT with the query put back.
    pub fn put_back(&self, insert: LogicalPlan, query: LogicalPlan) -> Result<LogicalPlan> {
        let given = query.schema().fields().len();
        if given != self.columns.len() {
            return Err(self.misfit(&format!("the query gives {given}")));
        }
        let LogicalPlan::Dml(dml) = insert else { return Err(Error::internal("an INSERT was planned as something else")) };
        let LogicalPlan::Projection(nulls) = dml.input.as_ref() else {
            return Err(Error::internal("an INSERT was planned without a projection"));
        };
        let nulls_schema = nulls.input.schema();
        let exprs = nulls
            .expr
            .iter()
            .zip(dml.target.schema().fields())
            .map(|(e, field)| {
                let from = e.column_refs().iter().next().map(|c| nulls_schema.index_of_column(c)).transpose()?;
                Ok(match from {
                    Some(i) => {
                        let column = Expr::Column(Column::from(query.schema().qualified_field(i)));
                        column.cast_to(field.data_type(), query.schema())?.alias(field.name())
                    }
                    None => e.clone(),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let input = LogicalPlanBuilder::from(query).project(exprs)?.build()?;
        Ok(LogicalPlan::Dml(DmlStatement::new(dml.table_name, dml.target, dml.op, input.into())))
    }
}
