//! A service's expressions: one meaning for training sets and lookups.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column as ColumnRef, DFSchema, Result as DfResult, TableReference};
use datafusion::functions::core::expr_fn::nullif;
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, Volatility};
use sqlparser::ast::Expr as SqlExpr;

use super::checked::arithmetic;
use super::names::Names;
use super::target::Target;
use crate::error::{Error, Result};

/// Qualifier of the columns that the caller brings, in a service's schema.
const CALLER: &str = "_remige_caller";

/// Gives bare names that are columns of the caller their qualifier, so that they are not taken for the
/// keys of the views beside them; all other bare names must be unambiguous.
fn callers_first(e: SqlExpr, wanted: &[crate::model::Column]) -> SqlExpr {
    use sqlparser::ast::{Ident, VisitMut, VisitorMut};
    struct Qualify<'a>(&'a [crate::model::Column]);
    impl VisitorMut for Qualify<'_> {
        type Break = ();
        fn post_visit_expr(&mut self, e: &mut SqlExpr) -> std::ops::ControlFlow<()> {
            if let SqlExpr::Identifier(i) = e {
                let name = if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() };
                if self.0.iter().any(|c| c.name == name) {
                    *e = SqlExpr::CompoundIdentifier(vec![Ident::with_quote('"', CALLER), i.clone()]);
                }
            }
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut e = e;
    let _ = e.visit(&mut Qualify(wanted));
    e
}

/// One expression of a service, with the callers' columns unqualified in the result.
pub fn expression(names: &dyn Names, text: &str, target: &Target, schema: &DFSchema) -> Result<Expr> {
    let parsed = callers_first(crate::sql::parse::expression(text)?, &target.wanted()?);
    names.sql_expression(parsed, schema)
}

/// What the expressions of a service may name: per item (qualified by its alias) keys, event timestamp
/// and features; unqualified the callers' key columns and the request columns.
pub fn schema(target: &Target) -> Result<DFSchema> {
    let mut fields: Vec<(Option<TableReference>, Arc<Field>)> = vec![];
    let wanted = target.wanted()?;
    for c in &wanted {
        let caller = Some(TableReference::bare(CALLER));
        fields.push((caller, Arc::new(Field::new(&c.name, c.data_type.arrow().clone(), true))));
    }
    for item in &target.items {
        let qualifier = TableReference::bare(item.alias.clone());
        for c in item.view.visible_columns() {
            fields.push((Some(qualifier.clone()), Arc::new(Field::new(&c.name, c.data_type.arrow().clone(), true))));
        }
    }
    DFSchema::new_with_metadata(fields, Default::default()).map_err(|e| Error::from(e).context(format!("feature service {}", target.name)))
}

/// The expressions of a target over `schema(target)`, with their names; a view's are its features.
pub fn outputs(names: &dyn Names, target: &Target) -> Result<Vec<(Expr, String)>> {
    let Some(outputs) = &target.outputs else {
        let item = &target.items[0];
        let column = |f: &crate::model::Feature| Expr::Column(ColumnRef::new(Some(TableReference::bare(item.alias.as_str())), &f.name));
        return Ok(item.view.features.iter().map(|f| (column(f), f.name.clone())).collect());
    };
    let schema = schema(target)?;
    outputs
        .iter()
        .map(|o| {
            let e = expression(names, &o.expr, target, &schema)
                .map_err(|e| e.context(format!("feature service {}, column {:?}", target.name, o.name)))?;
            Ok((safe(e, &schema)?, o.name.clone()))
        })
        .collect()
}

/// Makes an expression total: integer and decimal division by zero, results that do not fit their type and failed
/// casts give NULL for that row.
/// Refuses what a service cannot hold.
pub fn safe(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let out = expr.transform_up(|e| {
        let refused = match &e {
            Expr::AggregateFunction(f) => Some(format!("aggregate {}()", f.func.name())),
            Expr::WindowFunction(f) => Some(format!("window function {}", f.fun.name())),
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => Some("a subquery".to_string()),
            Expr::ScalarFunction(f) if f.func.signature().volatility == Volatility::Volatile => Some(format!("volatile function {}()", f.func.name())),
            Expr::Placeholder(p) => Some(format!("parameter {}", p.id)),
            _ => None,
        };
        if let Some(what) = refused {
            return Err(Error::invalid(format!("a feature service cannot hold {what}"))
                .with_hint("a service has one row per request: scalar expressions over features, keys and request columns; aggregate in the feature view's query")
                .into());
        }
        Ok(match e {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Divide | Operator::Modulo), right }) if divides(&left, &right, schema)? => {
                let zero = datafusion::logical_expr::lit(0i64).cast_to(&right.get_type(schema)?, schema)?;
                Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right: Box::new(nullif(*right, zero)) }))
            }
            Expr::Cast(Cast { expr, field }) => Transformed::yes(Expr::TryCast(TryCast { expr, field })),
            other => match arithmetic(&other, schema, true) {
                Some(checked) => Transformed::yes(checked),
                None => Transformed::no(other),
            },
        })
    });
    Ok(out?.data)
}

/// True where the division is not one of floats (which has an answer for zero).
fn divides(left: &Expr, right: &Expr, schema: &DFSchema) -> DfResult<bool> {
    let exact = |t: &DataType| {
        t.is_integer()
            || matches!(t, DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Decimal32(..) | DataType::Decimal64(..))
    };
    Ok(exact(&left.get_type(schema)?) && exact(&right.get_type(schema)?))
}

/// Puts the places of use in: columns by `column`, `now()` and its kin by the row's instant where one is given.
pub fn place(expr: Expr, column: &dyn Fn(&ColumnRef) -> Result<Expr>, instant: Option<&Expr>) -> Result<Expr> {
    let out = expr.transform_down(|e| match (&e, instant) {
        (Expr::Column(c), _) => {
            let bare = ColumnRef::new_unqualified(&c.name);
            let c = if c.relation.as_ref().is_some_and(|r| r.table() == CALLER) { &bare } else { c };
            Ok(Transformed::new(column(c)?, true, datafusion::common::tree_node::TreeNodeRecursion::Jump))
        }
        (Expr::ScalarFunction(f), Some(at)) => match instant_type(f) {
            Some(t) => Ok(Transformed::new(
                Expr::Cast(Cast::new(Box::new(at.clone()), t)),
                true,
                datafusion::common::tree_node::TreeNodeRecursion::Jump,
            )),
            None => Ok(Transformed::no(e)),
        },
        _ => Ok(Transformed::no(e)),
    });
    Ok(out?.data)
}

/// The type that a function of the statement's instant answers with; `None` for all other functions.
pub fn instant_type(f: &ScalarFunction) -> Option<DataType> {
    match f.func.name() {
        "now" | "current_timestamp" => Some(crate::model::types::timestamp_type()),
        "current_date" | "today" => Some(DataType::Date32),
        _ => None,
    }
}
