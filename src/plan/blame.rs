//! Which expression of a statement a run-time error is about, and where it stands: the kernels below know
//! neither.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, utils::merge_schema};

use super::checked::is_checked;
use super::pit_join::conditions::place_of;
use crate::error::{Error, Span, in_sql};
use crate::model::types::ColumnType;
use crate::sql::text::inside;

/// The error with the name and place of what it is about, where they can be told. `plan` as it was written;
/// `coerced` is the same with the casts that comparing and computing put in.
pub fn blame(e: Error, plan: &LogicalPlan, coerced: impl FnOnce() -> Option<LogicalPlan>) -> Error {
    if e.span().is_some() {
        return e;
    }
    let found = match e.message() {
        "division by zero" => every(coerced().as_ref().unwrap_or(plan), &divides),
        m if m.starts_with('\'') && m.contains("' is no ") => {
            let wanted = m.rsplit("' is no ").next().unwrap_or_default().to_string();
            every(coerced().as_ref().unwrap_or(plan), &|e, plan| reads_text(e, plan, &wanted))
        }
        m if m.contains(" does not fit ") => {
            let whole = m.split(" does not fit ").next().unwrap_or_default().to_string();
            let place = every(coerced().as_ref().unwrap_or(plan), &|e, _| computed(e, &whole)).into_iter().find_map(|f| f.1);
            return e.or_span(place);
        }
        _ => return e,
    };
    let [(name, place)] = &found[..] else {
        let names: Vec<&str> = found.iter().map(|(n, _)| n.as_str()).take(5).collect();
        return if names.is_empty() { e } else { e.suffixed(&format!(" (in {})", names.join(" or "))) };
    };
    let hint = e.hint().map(|h| h.replace('…', name));
    let e = e.suffixed(&format!(" ({name})")).or_span(*place);
    match hint {
        Some(h) => e.with_hint(h),
        None => e,
    }
}

type Found = (String, Option<Span>);

/// All that `find` finds in the expressions of a plan, each once.
fn every(plan: &LogicalPlan, find: &dyn Fn(&Expr, &LogicalPlan) -> Option<Found>) -> Vec<Found> {
    let mut out: Vec<Found> = vec![];
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|e| {
            e.apply(|e| {
                if let Some(found) = find(e, node)
                    && !out.iter().any(|(n, _)| *n == found.0)
                {
                    out.push(found);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    out
}

fn shown(e: &Expr) -> Found {
    (in_sql(&e.schema_name().to_string()), place_of(e))
}

fn divides(e: &Expr, plan: &LogicalPlan) -> Option<Found> {
    let Expr::BinaryExpr(BinaryExpr { op: Operator::Divide | Operator::Modulo, right, .. }) = e else { return None };
    let schema = merge_schema(&plan.inputs());
    let exact = right.get_type(&schema).is_ok_and(|t| t.is_integer() || t.is_decimal());
    // a number that is not zero divides
    let harmless = matches!(right.as_ref(), Expr::Literal(v, _) if v.to_string() != "0");
    (exact && !harmless).then(|| shown(e))
}

fn reads_text(e: &Expr, plan: &LogicalPlan, wanted: &str) -> Option<Found> {
    let Expr::Cast(Cast { expr, field }) = e else { return None };
    let named = ColumnType::stored(field.data_type()).map_or_else(|_| field.data_type().to_string(), |t| t.to_string());
    let schema = merge_schema(&plan.inputs());
    let text = |t: DataType| t.is_string() || matches!(&t, DataType::Dictionary(_, v) if v.is_string());
    let from_text = expr.get_type(&schema).is_ok_and(text) && !matches!(expr.as_ref(), Expr::Literal(..));
    (from_text && (named == wanted || wanted.starts_with(&named))).then(|| shown(expr))
}

/// An operator or sum whose text stands in the message.
fn computed(e: &Expr, whole: &str) -> Option<Found> {
    let found = shown(e);
    let inner = match e {
        Expr::ScalarFunction(ScalarFunction { func, .. }) => is_checked(func),
        Expr::BinaryExpr(_) | Expr::Negative(_) | Expr::AggregateFunction(_) | Expr::WindowFunction(_) => true,
        _ => false,
    };
    (inner && (whole == found.0 || whole.ends_with(&format!("({})", found.0)) || found.0.starts_with(whole))).then_some(found)
}

/// The error of a subquery with the place of the column that it reads of the row around it, in the text of the
/// statement.
pub fn place_of_outer(e: Error, text: &str) -> Error {
    let outer = e.message().split_once(" reads ").and_then(|(_, rest)| rest.split_once(" of the query around it"));
    match outer.and_then(|(name, _)| inside(text, name)) {
        Some(place) => e.or_span(Some(place)),
        None => e,
    }
}
