//! Numbers with a point are exact where they meet each other, a DECIMAL or a DECIMAL column. What they alone, or with
//! integers, give as a column stays DOUBLE.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::type_coercion::binary::type_union_coercion;
use datafusion::logical_expr::{Between, BinaryExpr, Case, Cast, Expr, ExprSchemable, LogicalPlan, Operator, Projection, TryCast, Union};

use super::super::exact_number::{decimal, digits};

/// What the engine takes a DOUBLE for where it meets a DECIMAL.
const MEETING: (u8, i8) = (30, 15);

/// Functions of values of one type, of which one is the answer.
const ONE_OF: [&str; 5] = ["coalesce", "nullif", "greatest", "least", "nvl"];

/// Makes exact what meets in this expression; its parts are done.
pub fn meet(e: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    Ok(match met(&e, schema)? {
        Some(exact) => Transformed::yes(exact),
        None => Transformed::no(e),
    })
}

fn met(e: &Expr, schema: &DFSchema) -> DfResult<Option<Expr>> {
    Ok(match e {
        Expr::BinaryExpr(b) if compares(b.op) => {
            let Some([left, right]) = all([b.left.as_ref(), b.right.as_ref()], schema)? else { return Ok(None) };
            Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), b.op, Box::new(right))))
        }
        Expr::Between(b) => {
            let Some([x, low, high]) = all([b.expr.as_ref(), b.low.as_ref(), b.high.as_ref()], schema)? else { return Ok(None) };
            Some(Expr::Between(Between::new(Box::new(x), b.negated, Box::new(low), Box::new(high))))
        }
        Expr::InList(i) => {
            let parts: Vec<&Expr> = std::iter::once(i.expr.as_ref()).chain(&i.list).collect();
            let Some(mut parts) = every(&parts, schema)? else { return Ok(None) };
            let list = parts.split_off(1);
            parts.pop().map(|x| Expr::InList(InList::new(Box::new(x), list, i.negated)))
        }
        Expr::Cast(Cast { expr, field }) if field.data_type().is_decimal() || field.data_type().is_integer() => {
            exact(expr, schema)?.map(|x| Expr::Cast(Cast { expr: Box::new(x), field: Arc::clone(field) }))
        }
        Expr::TryCast(TryCast { expr, field }) if field.data_type().is_decimal() || field.data_type().is_integer() => {
            exact(expr, schema)?.map(|x| Expr::TryCast(TryCast { expr: Box::new(x), field: Arc::clone(field) }))
        }
        Expr::Case(c) => with_decimals(e, &branches(c), schema)?,
        Expr::ScalarFunction(f) if ONE_OF.contains(&f.func.name()) => with_decimals(e, &f.args.iter().collect::<Vec<_>>(), schema)?,
        _ => None,
    })
}

fn compares(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn calculates(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Plus | Minus | Multiply | Divide | Modulo)
}

fn branches(c: &Case) -> Vec<&Expr> {
    c.when_then_expr.iter().map(|(_, then)| then.as_ref()).chain(c.else_expr.as_deref()).collect()
}

/// All operands exact; `None` where that changes nothing or one of them is a DOUBLE.
fn all<const N: usize>(parts: [&Expr; N], schema: &DFSchema) -> DfResult<Option<[Expr; N]>> {
    Ok(every(&parts, schema)?.and_then(|v| v.try_into().ok()))
}

fn every(parts: &[&Expr], schema: &DFSchema) -> DfResult<Option<Vec<Expr>>> {
    let mut changed = false;
    let mut out = vec![];
    for part in parts {
        match exact(part, schema)? {
            Some(e) => {
                changed = true;
                out.push(e);
            }
            None if part.get_type(schema).is_ok_and(|t| is_exact(&t)) => out.push((*part).clone()),
            None => return Ok(None),
        }
    }
    Ok(changed.then_some(out))
}

fn is_exact(t: &DataType) -> bool {
    t.is_integer() || t.is_decimal() || t.is_null()
}

/// A DOUBLE that is calculated from DECIMALs and numbers with a point: rounded once, at the end. `None` for all others.
pub fn rounded_once(e: &Expr, schema: &DFSchema) -> DfResult<Option<Expr>> {
    if !matches!(e, Expr::BinaryExpr(b) if calculates(b.op)) || e.get_type(schema).ok() != Some(DataType::Float64) {
        return Ok(None);
    }
    let beside = e.exists(|e| Ok(e.get_type(schema).is_ok_and(|t| t.is_decimal())))?;
    match exact(e, schema)? {
        Some(number) if beside => Ok(Some(number.cast_to(&DataType::Float64, schema)?)),
        _ => Ok(None),
    }
}

/// A choice of which one branch is a DECIMAL: numbers beside it are exact. The type stays.
fn with_decimals(whole: &Expr, parts: &[&Expr], schema: &DFSchema) -> DfResult<Option<Expr>> {
    let mut beside = false;
    let mut numbers = vec![];
    for part in parts {
        match exact(part, schema)? {
            Some(e) => numbers.push(((*part).clone(), meeting(e, schema)?)),
            None => beside |= part.get_type(schema).is_ok_and(|t| t.is_decimal()),
        }
    }
    if numbers.is_empty() || !beside {
        return Ok(None);
    }
    let new = whole.clone().map_children(|part| {
        Ok(match numbers.iter().find(|(number, _)| *number == part) {
            Some((_, exact)) => Transformed::yes(exact.clone()),
            None => Transformed::no(part),
        })
    })?;
    let (was, is) = (whole.get_type(schema)?, new.data.get_type(schema)?);
    Ok(match (was == is, was.is_decimal() || was.is_floating()) {
        (true, _) => Some(new.data),
        (false, true) => Some(new.data.cast_to(&was, schema)?),
        (false, false) => None,
    })
}

/// The exact number in the type that a DOUBLE would have here, where it fits.
fn meeting(e: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let (precision, scale) = MEETING;
    match e.get_type(schema)? {
        DataType::Decimal128(p, s)
            if (0..=scale).contains(&s) && i16::from(p) - i16::from(s) <= i16::from(precision) - i16::from(scale) =>
        {
            e.cast_to(&DataType::Decimal128(precision, scale), schema)
        }
        _ => Ok(e),
    }
}

/// An expression that is a DOUBLE only for its numbers with a point, with these as DECIMALs.
fn exact(e: &Expr, schema: &DFSchema) -> DfResult<Option<Expr>> {
    if let Some(d) = digits(e) {
        return Ok(decimal(d));
    }
    match e {
        Expr::BinaryExpr(b) if calculates(b.op) && b.op != Operator::Divide => {
            let Some([left, right]) = all([b.left.as_ref(), b.right.as_ref()], schema)? else { return Ok(None) };
            let new = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), b.op, Box::new(right)));
            Ok(holds(&new, schema).then_some(new))
        }
        Expr::Negative(x) => Ok(exact(x, schema)?.map(|x| Expr::Negative(Box::new(x)))),
        Expr::Case(c) => {
            let parts = branches(c);
            let Some(new) = every(&parts, schema)? else { return Ok(None) };
            let mut new = new.into_iter();
            let mut case = c.clone();
            for (_, then) in &mut case.when_then_expr {
                if let Some(x) = new.next() {
                    **then = x;
                }
            }
            case.else_expr = new.next().map(Box::new);
            Ok(Some(Expr::Case(case)))
        }
        Expr::ScalarFunction(f) if ONE_OF.contains(&f.func.name()) => {
            let parts: Vec<&Expr> = f.args.iter().collect();
            Ok(every(&parts, schema)?.map(|args| Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&f.func), args))))
        }
        _ => Ok(None),
    }
}

/// Whether the type of a calculation has room for every result.
fn holds(e: &Expr, schema: &DFSchema) -> bool {
    matches!(e.get_type(schema), Ok(DataType::Decimal128(p, s)) if p < 38 && s <= 30)
}

/// Numbers of the SELECT lists of a union of which the first column is a DECIMAL.
pub fn union(u: Union) -> DfResult<LogicalPlan> {
    let types: Vec<DataType> = u.schema.fields().iter().map(|f| f.data_type().clone()).collect();
    let mut inputs = vec![];
    for input in &u.inputs {
        let LogicalPlan::Projection(p) = input.as_ref() else {
            inputs.push(Arc::clone(input));
            continue;
        };
        let mut exprs = vec![];
        for (i, e) in p.expr.iter().enumerate() {
            let wanted = types.get(i).filter(|t| t.is_decimal());
            let number = match wanted {
                Some(_) => exact(unaliased(e), p.input.schema())?,
                None => None,
            };
            exprs.push(match (number, wanted) {
                (Some(number), Some(wanted)) => {
                    let have = p.schema.field(i);
                    let common = type_union_coercion(wanted, have.data_type());
                    let number = match (number.get_type(p.input.schema())?, common) {
                        (t, Some(common)) if room(&t, &common) => number.cast_to(&common, p.input.schema())?,
                        _ => number,
                    };
                    number.alias(have.name())
                }
                _ => e.clone(),
            });
        }
        inputs.push(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&p.input))?)));
    }
    Ok(LogicalPlan::Union(Union { inputs, schema: u.schema }))
}

fn unaliased(e: &Expr) -> &Expr {
    match e {
        Expr::Alias(a) => unaliased(&a.expr),
        other => other,
    }
}

fn room(have: &DataType, want: &DataType) -> bool {
    match (have, want) {
        (DataType::Decimal128(p, s), DataType::Decimal128(wp, ws)) => {
            s <= ws && i16::from(*p) - i16::from(*s) <= i16::from(*wp) - i16::from(*ws)
        }
        _ => false,
    }
}
