//! Instants meet at the microsecond, or at the nanosecond where a column has it: the stock planner takes all that meets a
//! text, a date or `now()` for nanoseconds, which end in 2262.

use std::sync::Arc;

use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{Between, BinaryExpr, Case, Cast, Expr, ExprSchemable, Operator, TryCast, Values, lit, not};
use datafusion::scalar::ScalarValue;

use super::super::exact_number::bare;
use super::super::{at_time_zone, whole_micros};
use crate::clock::format_micros;
use crate::model::instant::written;

/// Functions of values of one type, of which one is the answer.
const ONE_OF: [&str; 5] = ["coalesce", "nullif", "greatest", "least", "nvl"];
/// Functions that take a date or a text for an instant.
const OF_INSTANTS: [&str; 3] = ["date_trunc", "datetrunc", "date_bin"];

/// Whether an expression holds anything to look at.
pub fn concerns(e: &Expr, schema: &DFSchema) -> DfResult<bool> {
    let timed = schema.fields().iter().any(|f| is_time(f.data_type()));
    e.exists(|e| {
        Ok(match e {
            Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => is_time(field.data_type()),
            Expr::Literal(v, _) => is_time(&v.data_type()),
            Expr::OuterReferenceColumn(field, _) => is_time(field.data_type()),
            Expr::ScalarFunction(_) => true,
            Expr::BinaryExpr(_) | Expr::Between(_) | Expr::InList(_) | Expr::Case(_) => timed,
            _ => false,
        })
    })
}

fn is_time(t: &DataType) -> bool {
    matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

/// Brings what meets in this expression to one unit; its parts are done.
pub fn meet(e: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    Ok(match met(&e, schema)? {
        Some(new) => Transformed::yes(new),
        None => Transformed::no(e),
    })
}

fn met(e: &Expr, schema: &DFSchema) -> DfResult<Option<Expr>> {
    Ok(match e {
        Expr::Cast(Cast { expr, field }) if matches!(field.data_type(), DataType::Timestamp(..)) && spelled_out(expr).is_some() => {
            spelled_out(expr).map(|text| Expr::Cast(Cast { expr: Box::new(text), field: Arc::clone(field) }))
        }
        Expr::Cast(Cast { expr, field }) => match bare(expr) {
            Some(value) => Some(Expr::Cast(Cast { field: kept(value, field, schema)?, expr: Box::new(value.clone()) })),
            None => None,
        },
        Expr::TryCast(TryCast { expr, field }) => match bare(expr) {
            Some(value) => Some(Expr::TryCast(TryCast { field: kept(value, field, schema)?, expr: Box::new(value.clone()) })),
            None => None,
        },
        Expr::BinaryExpr(b) if compares(b.op) => compared(&b.left, b.op, &b.right, schema)?,
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Minus | Operator::Plus), right }) => {
            let Some(pair) = together(&[left, right], Texts::Stay, schema)? else { return Ok(None) };
            two(pair).map(|(l, r)| Expr::BinaryExpr(BinaryExpr::new(Box::new(l), *op, Box::new(r))))
        }
        Expr::Between(b) => between(b, schema)?,
        Expr::InList(i) => in_list(i, schema)?,
        Expr::Case(c) => case(c, schema)?,
        Expr::ScalarFunction(f) if ONE_OF.contains(&f.func.name()) => {
            let Some(args) = together(&f.args.iter().collect::<Vec<_>>(), Texts::Stay, schema)? else { return Ok(None) };
            let mut f = f.clone();
            f.args = args;
            Some(Expr::ScalarFunction(f))
        }
        Expr::ScalarFunction(f) if OF_INSTANTS.contains(&f.func.name()) => {
            let mut f = f.clone();
            let mut changed = false;
            for arg in f.args.iter_mut().skip(1) {
                if matches!(
                    arg.get_type(schema)?,
                    DataType::Date32 | DataType::Date64 | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
                ) {
                    *arg = cast(arg.clone(), DataType::Timestamp(TimeUnit::Microsecond, None));
                    changed = true;
                }
            }
            changed.then_some(Expr::ScalarFunction(f))
        }
        _ => None,
    })
}

/// The target of a cast to a TIMESTAMP without a precision: a finer value keeps its unit.
fn kept(value: &Expr, field: &Arc<Field>, schema: &DFSchema) -> DfResult<Arc<Field>> {
    Ok(match (value.get_type(schema)?, field.data_type()) {
        (DataType::Timestamp(TimeUnit::Nanosecond, _), DataType::Timestamp(_, zone)) => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())))
        }
        _ => Arc::clone(field),
    })
}

fn compares(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn two(pair: Vec<Expr>) -> Option<(Expr, Expr)> {
    <[Expr; 2]>::try_from(pair).ok().map(|[l, r]| (l, r))
}

#[derive(Clone, Copy, PartialEq)]
enum Texts {
    /// A text beside an instant is an instant.
    AreInstants,
    Stay,
}

/// Expressions of which one is a timestamp: dates, and texts where they are meant, become timestamps of the finest unit,
/// zone-less ones local times of the zone. `None` where nothing changes.
fn together(parts: &[&Expr], texts: Texts, schema: &DFSchema) -> DfResult<Option<Vec<Expr>>> {
    // what has no type is told by whoever types the plan
    let Ok(types) = parts.iter().map(|p| p.get_type(schema)).collect::<DfResult<Vec<_>>>() else { return Ok(None) };
    let mut unit = TimeUnit::Microsecond;
    let mut zone: Option<&Arc<str>> = None;
    let mut found = false;
    for t in &types {
        if let DataType::Timestamp(u, z) = t {
            found = true;
            unit = unit.max(*u);
            zone = zone.or(z.as_ref());
        }
    }
    if !found {
        return Ok(None);
    }
    let mut changed = false;
    let mut out = vec![];
    for (part, t) in parts.iter().zip(&types) {
        let unit = if unit == TimeUnit::Nanosecond && beyond_nanos(part) { TimeUnit::Microsecond } else { unit };
        let text = matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let naive = matches!(t, DataType::Timestamp(_, None));
        out.push(match (t, zone) {
            (DataType::Date32 | DataType::Date64, _) => {
                changed = true;
                let day = cast((*part).clone(), DataType::Timestamp(unit, zone.map(|_| "UTC".into())));
                match zone {
                    Some(z) if !is_utc(z) => cast(day, DataType::Timestamp(unit, Some(Arc::clone(z)))),
                    _ => day,
                }
            }
            (_, Some(z)) if (naive || (text && texts == Texts::AreInstants)) && !is_utc(z) => {
                changed = true;
                at_time_zone::call((*part).clone(), z)
            }
            _ if text && texts == Texts::AreInstants => {
                changed = true;
                cast((*part).clone(), DataType::Timestamp(unit, zone.cloned()))
            }
            _ => (*part).clone(),
        });
    }
    Ok(changed.then_some(out))
}

/// Whether a constant text or date is an instant that nanoseconds cannot hold.
fn beyond_nanos(e: &Expr) -> bool {
    constant(e).is_some_and(|at| !(i64::MIN / 1_000..=i64::MAX / 1_000).contains(&at))
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "+00:00" | "Z")
}

fn cast(e: Expr, t: DataType) -> Expr {
    let e = spelled_out(&e).unwrap_or(e);
    Expr::Cast(Cast::new(Box::new(e), t))
}

/// A written instant that the engine does not read, such as one without seconds, in a form that it reads.
fn spelled_out(e: &Expr) -> Option<Expr> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)), _) = e else {
        return None;
    };
    if string_to_datetime(&chrono::Utc, text).is_ok() {
        return None;
    }
    let instant = written(text).filter(|w| !w.finer)?;
    let shown = format_micros(instant.micros);
    Some(lit(if instant.zoned { shown } else { shown.trim_end_matches('Z').to_string() }))
}

fn compared(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> DfResult<Option<Expr>> {
    let pair = together(&[left, right], Texts::AreInstants, schema)?.and_then(two);
    let changed = pair.is_some();
    let (left, right) = pair.unwrap_or_else(|| (left.clone(), right.clone()));
    Ok(match finer(&left, op, &right, schema)? {
        Some(exact) => Some(exact),
        None => changed.then(|| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))),
    })
}

fn between(b: &Between, schema: &DFSchema) -> DfResult<Option<Expr>> {
    let parts = together(&[&b.expr, &b.low, &b.high], Texts::AreInstants, schema)?;
    let changed = parts.is_some();
    let parts = parts.unwrap_or_else(|| vec![b.expr.as_ref().clone(), b.low.as_ref().clone(), b.high.as_ref().clone()]);
    let Ok([x, low, high]) = <[Expr; 3]>::try_from(parts) else { return Ok(None) };
    let from = finer(&x, Operator::GtEq, &low, schema)?;
    let to = finer(&x, Operator::LtEq, &high, schema)?;
    if from.is_some() || to.is_some() {
        let from = from.unwrap_or_else(|| x.clone().gt_eq(low));
        let to = to.unwrap_or_else(|| x.lt_eq(high));
        let both = from.and(to);
        return Ok(Some(if b.negated { not(both) } else { both }));
    }
    Ok(changed.then(|| Expr::Between(Between::new(Box::new(x), b.negated, Box::new(low), Box::new(high)))))
}

fn in_list(i: &InList, schema: &DFSchema) -> DfResult<Option<Expr>> {
    let parts: Vec<&Expr> = std::iter::once(i.expr.as_ref()).chain(&i.list).collect();
    let made = together(&parts, Texts::AreInstants, schema)?;
    let changed = made.is_some();
    let mut made = made.unwrap_or_else(|| parts.into_iter().cloned().collect());
    let list = made.split_off(1);
    let Some(x) = made.pop() else { return Ok(None) };
    let mut far = false;
    let mut each = vec![];
    for item in &list {
        let exact = finer(&x, Operator::Eq, item, schema)?;
        far |= exact.is_some();
        each.push(exact.unwrap_or_else(|| x.clone().eq(item.clone())));
    }
    if far {
        let any = disjunction(each).unwrap_or_else(|| lit(false));
        return Ok(Some(if i.negated { not(any) } else { any }));
    }
    Ok(changed.then(|| Expr::InList(InList::new(Box::new(x), list, i.negated))))
}

fn case(c: &Case, schema: &DFSchema) -> DfResult<Option<Expr>> {
    let branches: Vec<&Expr> = c.when_then_expr.iter().map(|(_, then)| then.as_ref()).chain(c.else_expr.as_deref()).collect();
    let Some(made) = together(&branches, Texts::Stay, schema)? else { return Ok(None) };
    let mut made = made.into_iter();
    let mut c = c.clone();
    for (_, then) in &mut c.when_then_expr {
        if let Some(e) = made.next() {
            **then = e;
        }
    }
    c.else_expr = made.next().map(Box::new);
    Ok(Some(Expr::Case(c)))
}

/// A comparison of nanoseconds with a coarser instant that nanoseconds cannot hold, or may not: nothing is rounded.
fn finer(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> DfResult<Option<Expr>> {
    let fine = |t: &DataType| matches!(t, DataType::Timestamp(TimeUnit::Nanosecond, _));
    let (Ok(l), Ok(r)) = (left.get_type(schema), right.get_type(schema)) else { return Ok(None) };
    match (&l, &r) {
        (DataType::Timestamp(..), DataType::Timestamp(..)) if fine(&l) && !fine(&r) => against(left, op, right),
        (DataType::Timestamp(..), DataType::Timestamp(..)) if fine(&r) && !fine(&l) => match op.swap() {
            Some(op) => against(right, op, left),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

fn against(nanos: &Expr, op: Operator, coarse: &Expr) -> DfResult<Option<Expr>> {
    use Operator::*;
    if let Some(at) = constant(coarse) {
        let later = match at {
            at if at > i64::MAX / 1_000 => true,
            at if at < i64::MIN / 1_000 => false,
            _ => return Ok(None),
        };
        let answer = match op {
            Lt | LtEq => later,
            Gt | GtEq => !later,
            Eq => false,
            NotEq => true,
            IsDistinctFrom => return Ok(Some(lit(true))),
            IsNotDistinctFrom => return Ok(Some(lit(false))),
            _ => return Ok(None),
        };
        // NULL stays NULL
        let unknown = Expr::Literal(ScalarValue::Boolean(None), None);
        return Ok(Some(match answer {
            true => nanos.clone().is_not_null().or(unknown),
            false => nanos.clone().is_null().and(unknown),
        }));
    }
    if coarse.column_refs().is_empty() {
        return Ok(None);
    }
    let up = match op {
        Lt | GtEq => false,
        Gt | LtEq => true,
        _ => return Ok(None),
    };
    let whole = whole_micros::call(nanos.clone(), up);
    Ok(conjunction([Expr::BinaryExpr(BinaryExpr::new(Box::new(whole), op, Box::new(coarse.clone())))]))
}

/// The microseconds of a literal, or of a cast of one.
fn constant(e: &Expr) -> Option<i64> {
    fn value(e: &Expr) -> Option<ScalarValue> {
        match e {
            Expr::Literal(v, _) => Some(v.clone()),
            Expr::Cast(Cast { expr, field }) => value(expr)?.cast_to(field.data_type()).ok(),
            Expr::Alias(a) => value(&a.expr),
            _ => None,
        }
    }
    match value(e)?.cast_to(&DataType::Timestamp(TimeUnit::Microsecond, None)).ok()? {
        ScalarValue::TimestampMicrosecond(at, _) => at,
        _ => None,
    }
}

/// Rows of literals that the planner took for nanoseconds only because a date stands beside an instant.
pub fn values(mut v: Values) -> DfResult<Values> {
    let mut fields: Vec<_> = v.schema.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
    let empty = DFSchema::empty();
    let mut changed = false;
    for (i, (_, field)) in fields.iter_mut().enumerate() {
        let nanos = field.data_type().clone();
        let DataType::Timestamp(TimeUnit::Nanosecond, zone) = &nanos else { continue };
        let mut own = false;
        for row in &v.values {
            own |= !match row.get(i) {
                Some(Expr::Cast(c)) if *c.field.data_type() == nanos => match c.expr.get_type(&empty)? {
                    DataType::Timestamp(unit, _) => unit != TimeUnit::Nanosecond,
                    // a text is a literal of nanoseconds by itself
                    other => other.is_null() || matches!(other, DataType::Date32 | DataType::Date64),
                },
                Some(Expr::Literal(v, _)) => v.is_null(),
                _ => false,
            };
        }
        if own {
            continue;
        }
        let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
        for row in &mut v.values {
            if let Some(Expr::Cast(c)) = row.get_mut(i) {
                c.field = Arc::new(c.field.as_ref().clone().with_data_type(micros.clone()));
            }
        }
        *field = Arc::new(field.as_ref().clone().with_data_type(micros));
        changed = true;
    }
    if changed {
        v.schema = Arc::new(DFSchema::new_with_metadata(fields, v.schema.metadata().clone())?);
    }
    Ok(v)
}
