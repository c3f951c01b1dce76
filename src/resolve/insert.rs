//! INSERT. The stock planner casts what comes to the types of the target, and a cast may make another value of it; so the
//! query is planned by itself, and put, in its own types, into the plan of an INSERT of as many NULLs. Whoever stores the
//! rows takes each value as what it is, or refuses it; a cast that the user wrote is part of the query.

mod exactly;
mod values;

use std::any::Any;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::common::display::PlanType;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{DmlStatement, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ToStringifiedPlan};
use datafusion::sql::parser::Statement as DfStatement;
use sqlparser::ast::{Ident, Insert, ObjectName, ObjectNamePart, Query, SetExpr, Statement as SqlStatement, TableObject};

use self::exactly::Exactly;
use super::resolver::Resolver;
use crate::error::{Error, Result, Span};
use crate::model::exact::exact;
use crate::model::windowed::EVENTS;
use crate::model::{FeatureView, Name};
use crate::plan::feature_table::FeatureTable;
use crate::sql::tokens::fold_ident;
use crate::table::conform::{misfit, row_text};
use crate::table::managed::ManagedTable;

/// Columns that show which row of a table an error means.
const SHOWN: usize = 3;

/// Takes the query out of an INSERT, which then inserts NULLs. Refuses rows of VALUES that do not fit.
pub async fn take_query(resolver: &Resolver, statement: &mut DfStatement, schema: &str) -> Result<Option<Taken>> {
    let Some(insert) = insert_of(statement) else { return Ok(None) };
    let TableObject::TableName(name) = &mut insert.table else { return Ok(None) };
    let Some(parts) = name.0.iter().map(|p| p.as_ident().map(fold_ident)).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let (of, table) = match parts.as_slice() {
        [t] => (schema, t.clone()),
        [.., s, t] => (s.as_str(), t.clone()),
        [] => return Ok(None),
    };
    let table = &into_events(resolver, of, table, name);
    // what does not exist is reported by the planner
    let Some(target) = resolver.load(of, table).await? else { return Ok(None) };
    let columns: Vec<String> = match insert.columns.is_empty() {
        true => target.schema().fields().iter().map(|f| f.name().clone()).collect(),
        false => insert.columns.iter().filter_map(|c| c.0.last()?.as_ident().map(fold_ident)).collect(),
    };
    let mut taken = Taken { target: format!("{of}.{table}"), columns, query: None, is_values: false };
    let Some(query) = &mut insert.source else { return Ok(None) };
    if let SetExpr::Values(values) = query.body.as_ref()
        && let Some((i, row)) = values.rows.iter().enumerate().find(|(_, r)| r.content.len() != taken.columns.len())
    {
        use sqlparser::ast::Spanned;
        let span = row.content.first().and_then(|e| Span::from_sql(e.span()));
        return Err(taken.misfit(&format!("row {} of VALUES has {}", i + 1, row.content.len())).or_span(span));
    }
    if let SetExpr::Values(rows) = query.body.as_mut() {
        let schema = target.schema();
        let of = |c: &String| schema.field_with_name(c).map_or(DataType::Null, |f| f.data_type().clone());
        values::exact_numbers(rows, &taken.columns.iter().map(of).collect::<Vec<_>>());
    }
    let nulls = format!("VALUES ({})", vec!["NULL"; taken.columns.len()].join(", "));
    let stub = crate::sql::parse::query(&nulls)?;
    taken.is_values = values::as_one_row(query, &stub);
    taken.query = Some(std::mem::replace(query.as_mut(), stub));
    Ok(Some(taken))
}

/// What is inserted into a windowed view are events: their table takes the place of the view.
fn into_events(resolver: &Resolver, schema: &str, table: String, name: &mut ObjectName) -> String {
    let is_windowed = |v: &FeatureView| v.is_push() && v.windowed.is_some();
    let view = resolver.catalog.feature_view(&Name::new(schema, &table), None);
    if !view.is_ok_and(is_windowed) {
        return table;
    }
    let events = format!("{table}{EVENTS}");
    if let Some(last) = name.0.last_mut() {
        *last = ObjectNamePart::Identifier(Ident::with_quote('"', &events));
    }
    events
}

/// The INSERT that a statement is, or explains.
fn insert_of(statement: &mut DfStatement) -> Option<&mut Insert> {
    fn of_sql(s: &mut SqlStatement) -> Option<&mut Insert> {
        match s {
            SqlStatement::Insert(insert) => Some(insert),
            SqlStatement::Explain { statement, .. } => of_sql(statement),
            _ => None,
        }
    }
    match statement {
        DfStatement::Statement(s) => of_sql(s),
        DfStatement::Explain(e) => insert_of(&mut e.statement),
        _ => None,
    }
}

/// The query of an INSERT, and the columns that it should give.
pub struct Taken {
    target: String,
    columns: Vec<String>,
    query: Option<Query>,
    /// The query is VALUES, all rows one behind the other in one.
    is_values: bool,
}

impl Taken {
    pub fn query(&mut self) -> Option<Query> {
        self.query.take()
    }

    fn misfit(&self, got: &str) -> Error {
        Error::invalid(format!("INSERT INTO {} wants {} column(s) ({}); {got}", self.target, self.columns.len(), self.columns.join(", ")))
            .with_hint(format!("name the columns that are given: INSERT INTO {} (column, …) …", self.target))
    }

    /// The plan of the INSERT, or of its EXPLAIN, with the query put back.
    pub fn put_back(&self, plan: LogicalPlan, query: LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Dml(dml) => self.with_query(dml, query),
            LogicalPlan::Analyze(mut analyze) => {
                analyze.input = Arc::new(self.put_back(Arc::unwrap_or_clone(analyze.input), query)?);
                Ok(LogicalPlan::Analyze(analyze))
            }
            LogicalPlan::Explain(mut explain) => {
                explain.plan = Arc::new(self.put_back(Arc::unwrap_or_clone(explain.plan), query)?);
                explain.stringified_plans = vec![explain.plan.to_stringified(PlanType::InitialLogicalPlan)];
                Ok(LogicalPlan::Explain(explain))
            }
            _ => Err(Error::internal("an INSERT was planned as something else")),
        }
    }

    fn with_query(&self, dml: DmlStatement, query: LogicalPlan) -> Result<LogicalPlan> {
        let LogicalPlan::Projection(nulls) = dml.input.as_ref() else {
            return Err(Error::internal("an INSERT was planned without a projection"));
        };
        let schema = dml.target.schema();
        let target = Target::of(&dml, &schema)?;
        let query = match self.is_values {
            true => {
                let fields = self.columns.iter().map(|c| Ok(Arc::new(schema.field_with_name(c)?.clone())));
                values::rows(query, &fields.collect::<Result<Vec<FieldRef>>>()?, &target)?
            }
            false => query,
        };
        let given = query.schema().fields().len();
        if given != self.columns.len() {
            return Err(self.misfit(&format!("the query gives {given}")));
        }
        let column = |i: usize| Expr::Column(Column::from(query.schema().qualified_field(i)));
        let nulls_schema = nulls.input.schema();
        let from = |e: &Expr| e.column_refs().iter().next().map(|c| nulls_schema.index_of_column(c)).transpose();
        let sources = nulls.expr.iter().map(from).collect::<datafusion::common::Result<Vec<_>>>()?;
        let shown: Vec<(String, Expr)> =
            target.shown.iter().filter_map(|i| Some((schema.field(*i).name().clone(), column((*sources.get(*i)?)?)))).collect();
        let exprs = nulls.expr.iter().zip(schema.fields()).zip(&sources).map(|((e, field), source)| {
            let Some(i) = source else { return Ok(e.clone()) };
            let typed = query.schema().field(*i).data_type();
            let value = if typed.is_null() {
                column(*i).cast_to(field.data_type(), query.schema())?
            } else if target.takes_any || typed == field.data_type() {
                column(*i)
            } else {
                Exactly::call(&target.what, field, column(*i), &shown)
            };
            Ok(value.alias(field.name()))
        });
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        let input = LogicalPlanBuilder::from(query).project(exprs)?.build()?;
        Ok(LogicalPlan::Dml(DmlStatement::new(dml.table_name, dml.target, dml.op, input.into())))
    }
}

/// Values bound to the parameters of an INSERT, in the types of these; what does not fit is told as of any other row.
pub fn bound(plan: &LogicalPlan, rows: &RecordBatch, types: &[DataType]) -> Result<Vec<ArrayRef>> {
    let names = values::parameters(plan);
    let column = |i: usize| names.get(&format!("${}", i + 1));
    let typed = |(i, (values, want)): (usize, (&ArrayRef, &DataType))| {
        exact(values, want).map_err(|m| {
            let shown = rows.columns().iter().enumerate().filter_map(|(i, c)| Some((column(i)?.as_str(), c)));
            let row = row_text(shown.take(SHOWN), m.row);
            let error = match (column(i), plan) {
                (Some(name), LogicalPlan::Dml(dml)) => misfit(&m, name, &row).context(what(dml)),
                _ => Error::invalid(format!("{} (row {row})", m.message())).with_hint(m.hint()),
            };
            error.context(format!("parameter ${}", i + 1))
        })
    };
    rows.columns().iter().zip(types).enumerate().map(typed).collect()
}

fn what(dml: &DmlStatement) -> String {
    let provider: Option<Arc<dyn TableProvider>> = source_as_provider(&dml.target).ok();
    let any = provider.as_ref().map(|p| p.as_ref() as &dyn Any);
    if let Some(table) = any.and_then(|a| a.downcast_ref::<FeatureTable>()) {
        return format!("feature view {}", table.view.name);
    }
    match any.and_then(|a| a.downcast_ref::<ManagedTable>()) {
        Some(table) => format!("table {}", table.name()),
        None => format!("table {}", dml.table_name),
    }
}

/// What rows are put into.
struct Target {
    /// `feature view public.v`
    what: String,
    /// Columns that show which row an error means.
    shown: Vec<usize>,
    shown_names: Vec<String>,
    /// It takes columns of other types, and refuses values that do not fit.
    takes_any: bool,
}

impl Target {
    fn new(what: String, schema: &Schema, shown: usize, takes_any: bool) -> Target {
        let shown: Vec<usize> = (0..schema.fields().len().min(shown)).collect();
        let shown_names = shown.iter().map(|i| schema.field(*i).name().clone()).collect();
        Target { what, shown, shown_names, takes_any }
    }

    fn of(dml: &DmlStatement, schema: &Schema) -> Result<Target> {
        let provider: Arc<dyn TableProvider> = source_as_provider(&dml.target)?;
        let any: &dyn Any = provider.as_ref();
        if let Some(table) = any.downcast_ref::<FeatureTable>() {
            return Ok(Target::new(what(dml), schema, table.view.keys.len() + 1, true));
        }
        Ok(Target::new(what(dml), schema, SHOWN, any.is::<ManagedTable>()))
    }
}

/// Whether a cell is NULL without a type.
fn is_null(e: &Expr) -> bool {
    matches!(e, Expr::Literal(v, _) if v.data_type() == DataType::Null)
}
