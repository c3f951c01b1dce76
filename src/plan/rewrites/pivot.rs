//! `t PIVOT (sum(x) FOR kind IN ('a', 'b'))` and `t UNPIVOT (x FOR kind IN (a, b))`, as the queries that they stand for.
//!
//! Names of columns are those of DuckDB: the value, or its alias; where the aggregate has an alias, `value_alias`. Rows are
//! grouped by the columns that the PIVOT does not name.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, ExprWithAlias, FunctionArguments, GroupByExpr, Ident, NullInclusion, PivotValueSource, Query, Select, SelectItem,
    SetExpr, Spanned, TableAlias, TableFactor, TableWithJoins, Value, Visit, Visitor,
};

use crate::error::{Error, Result, Span};
use crate::sql::tokens::fold_ident;

/// The subquery for a PIVOT or UNPIVOT. `columns`: those of its table.
pub fn query_of(factor: &TableFactor, columns: &[String], blank: &Query) -> Result<TableFactor> {
    let (mut query, alias) = (blank.clone(), alias_of(factor));
    if let SetExpr::Select(select) = query.body.as_mut() {
        match factor {
            TableFactor::Pivot { table, aggregate_functions, value_column, value_source, default_on_null, .. } => {
                let PivotValueSource::List(values) = value_source else { return Err(dynamic(factor)) };
                let [key] = &value_column[..] else { return Err(several_keys(factor)) };
                let pivot = Pivot { aggregates: aggregate_functions, key, values, default: default_on_null.as_ref() };
                select.from = vec![TableWithJoins { relation: (**table).clone(), joins: vec![] }];
                pivot.fill(select, columns)?;
            }
            TableFactor::Unpivot { table, value, name, columns: taken, null_inclusion, .. } => {
                select.from = vec![TableWithJoins { relation: (**table).clone(), joins: vec![] }];
                let Expr::Identifier(value) = value else {
                    return Err(at(value, "UNPIVOT gives one column of values").with_hint("write: UNPIVOT (value FOR name IN (a, b))"));
                };
                unpivot(select, taken, name, value, columns)?;
                if *null_inclusion != Some(NullInclusion::IncludeNulls) {
                    query = kept(query, value, blank);
                }
            }
            _ => {}
        }
    }
    Ok(TableFactor::Derived { lateral: false, subquery: Box::new(query), alias, sample: None })
}

fn alias_of(factor: &TableFactor) -> Option<TableAlias> {
    match factor {
        TableFactor::Pivot { alias, .. } | TableFactor::Unpivot { alias, .. } => alias.clone(),
        _ => None,
    }
}

struct Pivot<'a> {
    aggregates: &'a [ExprWithAlias],
    key: &'a Expr,
    values: &'a [ExprWithAlias],
    default: Option<&'a Expr>,
}

impl Pivot<'_> {
    fn fill(&self, select: &mut Select, columns: &[String]) -> Result<()> {
        let mut used = names_in(self.key);
        used.extend(self.aggregates.iter().flat_map(|a| names_in(&a.expr)));
        let groups: Vec<Expr> = columns.iter().filter(|c| !used.contains(*c)).map(|c| Expr::Identifier(quoted(c))).collect();
        select.projection = groups.iter().cloned().map(SelectItem::UnnamedExpr).collect();
        select.group_by = GroupByExpr::Expressions(groups, vec![]);
        let mut taken: HashSet<String> = columns.iter().filter(|c| !used.contains(*c)).cloned().collect();
        for value in self.values {
            for aggregate in self.aggregates {
                let name = self.name(value, aggregate)?;
                if !taken.insert(name.clone()) {
                    return Err(at(&value.expr, format!("PIVOT would give two columns {name:?}"))
                        .with_hint("give the values or the aggregates names of their own: IN ('a' AS kind_a)"));
                }
                select.projection.push(SelectItem::ExprWithAlias { expr: self.cell(value, aggregate)?, alias: quoted(&name) });
            }
        }
        Ok(())
    }

    fn name(&self, value: &ExprWithAlias, aggregate: &ExprWithAlias) -> Result<String> {
        let first = match &value.alias {
            Some(alias) => fold_ident(alias),
            None => shown(&value.expr)?,
        };
        match (&aggregate.alias, self.aggregates.len()) {
            (Some(alias), _) => Ok(format!("{first}_{}", fold_ident(alias))),
            (None, 1) => Ok(first),
            (None, _) => Err(at(&aggregate.expr, "several aggregates in a PIVOT want a name each")
                .with_hint(format!("write: {} AS name", aggregate.expr))),
        }
    }

    /// The aggregate of the rows with this value.
    fn cell(&self, value: &ExprWithAlias, aggregate: &ExprWithAlias) -> Result<Expr> {
        let Expr::Function(call) = &aggregate.expr else {
            return Err(at(&aggregate.expr, "PIVOT wants an aggregate").with_hint("write: PIVOT (sum(x) FOR kind IN ('a', 'b'))"));
        };
        if call.over.is_some() {
            return Err(at(&aggregate.expr, "PIVOT wants an aggregate, not a window function").with_hint("leave OVER out"));
        }
        let mut call = call.clone();
        let is_value = match &value.expr {
            Expr::Value(v) if v.value == Value::Null => Expr::IsNull(Box::new(self.key.clone())),
            e => Expr::BinaryOp { left: Box::new(self.key.clone()), op: BinaryOperator::Eq, right: Box::new(e.clone()) },
        };
        call.filter = Some(Box::new(match call.filter.take() {
            Some(f) => Expr::BinaryOp { left: Box::new(Expr::Nested(f)), op: BinaryOperator::And, right: Box::new(is_value) },
            None => is_value,
        }));
        let cell = Expr::Function(call);
        let Some(default) = self.default else { return Ok(cell) };
        let mut coalesce = crate::sql::parse::expression("coalesce(NULL, NULL)")?;
        if let Expr::Function(f) = &mut coalesce
            && let FunctionArguments::List(list) = &mut f.args
        {
            list.args = [cell, default.clone()].into_iter().map(|e| sqlparser::ast::FunctionArg::Unnamed(e.into())).collect();
        }
        Ok(coalesce)
    }
}

/// `SELECT others, unnest(names), unnest(values)`: the rows are read once, however many columns are taken.
fn unpivot(select: &mut Select, taken: &[ExprWithAlias], name: &Ident, value: &Ident, columns: &[String]) -> Result<()> {
    let mut used = HashSet::new();
    for column in taken {
        used.extend(names_in(&column.expr));
    }
    let others = columns.iter().filter(|c| !used.contains(*c));
    select.projection = others.clone().map(|c| SelectItem::UnnamedExpr(Expr::Identifier(quoted(c)))).collect();
    let names = taken.iter().map(|c| {
        let name = c.alias.as_ref().map_or_else(|| shown(&c.expr), |a| Ok(a.value.clone()))?;
        Ok(Expr::value(Value::SingleQuotedString(name)))
    });
    let names = names.collect::<Result<Vec<Expr>>>()?;
    for (elements, alias) in [(names, name), (taken.iter().map(|c| c.expr.clone()).collect(), value)] {
        if others.clone().any(|c| *c == fold_ident(alias)) {
            return Err(Error::invalid(format!("UNPIVOT would give two columns {:?}", alias.value))
                .or_span(Span::from_sql(alias.span))
                .with_hint("give it another name"));
        }
        select.projection.push(SelectItem::ExprWithAlias { expr: unnest(elements)?, alias: alias.clone() });
    }
    Ok(())
}

fn unnest(elements: Vec<Expr>) -> Result<Expr> {
    let mut call = crate::sql::parse::expression("unnest(make_array(1))")?;
    if let Some(array) = first_argument(&mut call)
        && let Expr::Function(make) = array
        && let FunctionArguments::List(list) = &mut make.args
    {
        list.args = elements.into_iter().map(|e| sqlparser::ast::FunctionArg::Unnamed(e.into())).collect();
    }
    Ok(call)
}

fn first_argument(call: &mut Expr) -> Option<&mut Expr> {
    use sqlparser::ast::{FunctionArg, FunctionArgExpr};
    let Expr::Function(f) = call else { return None };
    let FunctionArguments::List(list) = &mut f.args else { return None };
    match list.args.first_mut() {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(e))) => Some(e),
        _ => None,
    }
}

/// The rows of an UNPIVOT that have a value.
fn kept(inner: Query, value: &Ident, blank: &Query) -> Query {
    let mut outer = blank.clone();
    if let SetExpr::Select(select) = outer.body.as_mut() {
        select.projection = vec![SelectItem::Wildcard(Default::default())];
        let relation = TableFactor::Derived { lateral: false, subquery: Box::new(inner), alias: None, sample: None };
        select.from = vec![TableWithJoins { relation, joins: vec![] }];
        select.selection = Some(Expr::IsNotNull(Box::new(Expr::Identifier(value.clone()))));
    }
    outer
}

/// How a value is shown as the name of a column.
fn shown(e: &Expr) -> Result<String> {
    match e {
        Expr::Value(v) => Ok(match &v.value {
            Value::SingleQuotedString(s) => s.clone(),
            other => other.to_string(),
        }),
        Expr::Identifier(i) => Ok(fold_ident(i)),
        Expr::CompoundIdentifier(parts) => Ok(parts.last().map(fold_ident).unwrap_or_default()),
        Expr::UnaryOp { .. } | Expr::TypedString(_) => Ok(e.to_string()),
        other => Err(at(other, "what gives a column of its own wants a name").with_hint(format!("write: {other} AS name"))),
    }
}

/// Names of columns in an expression.
fn names_in(e: &Expr) -> HashSet<String> {
    struct Names(HashSet<String>);
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_expr(&mut self, e: &Expr) -> ControlFlow<()> {
            match e {
                Expr::Identifier(i) => drop(self.0.insert(fold_ident(i))),
                Expr::CompoundIdentifier(parts) => self.0.extend(parts.last().map(fold_ident)),
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(HashSet::new());
    let _ = e.visit(&mut names);
    names.0
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

fn at(e: &Expr, message: impl Into<String>) -> Error {
    Error::invalid(message).or_span(Span::from_sql(e.span()))
}

fn dynamic(factor: &TableFactor) -> Error {
    Error::invalid("PIVOT wants the values that become columns: what a query reads must not change its columns")
        .or_span(Span::from_sql(factor.span()))
        .with_hint("write: PIVOT (sum(x) FOR kind IN ('a', 'b'))")
}

fn several_keys(factor: &TableFactor) -> Error {
    Error::invalid("PIVOT takes its columns from one expression")
        .or_span(Span::from_sql(factor.span()))
        .with_hint("put the columns together: FOR concat(a, '_', b) IN ('x_1', 'y_2')")
}
