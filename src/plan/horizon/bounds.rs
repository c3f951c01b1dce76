//! What a predicate says about instants: which columns it keeps from going beyond one.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::scalar::ScalarValue;

use super::Places;
use crate::clock::{DAY, MILLISECOND, Micros, SECOND};

/// How an expression moves with the one column in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Constant,
    /// It never falls while the column grows.
    Rising,
    Falling,
}

/// Judges expressions where `now()` means `at`.
pub struct Bounds {
    pub at: Micros,
    simplifier: ExprSimplifier,
}

impl Bounds {
    pub fn new(at: Micros) -> Self {
        let mut options = ConfigOptions::new();
        options.execution.time_zone = Some("+00:00".into());
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(DFSchema::empty()))
            .with_config_options(Arc::new(options))
            .with_query_execution_start_time(chrono::DateTime::from_timestamp_micros(at))
            .build();
        Bounds { at, simplifier: ExprSimplifier::new(context) }
    }

    /// Columns that no row holds a later value in that meets all predicates. `inside`: columns known to hold none.
    pub fn of<'p>(
        &self,
        predicates: impl IntoIterator<Item = &'p Expr>,
        schema: &DFSchema,
        mut inside: Places,
        outer: &HashSet<Column>,
    ) -> Places {
        let predicates: Vec<&Expr> = predicates.into_iter().collect();
        let mut all = Places::new();
        loop {
            let found: Places = predicates.iter().flat_map(|p| self.one(p, true, schema, &inside, outer)).collect();
            if found.is_subset(&all) {
                return all;
            }
            // a column may be bound by one that another predicate binds
            inside.extend(&found);
            all.extend(found);
        }
    }

    /// `wanted`: what the predicate has to be, true or false.
    fn one(&self, predicate: &Expr, wanted: bool, schema: &DFSchema, inside: &Places, outer: &HashSet<Column>) -> Places {
        let go = |e: &Expr, wanted| self.one(e, wanted, schema, inside, outer);
        match predicate {
            Expr::Alias(a) => go(&a.expr, wanted),
            Expr::Not(e) => go(e, !wanted),
            Expr::IsTrue(e) if wanted => go(e, true),
            Expr::IsFalse(e) if wanted => go(e, false),
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let (a, b) = (go(left, wanted), go(right, wanted));
                if (*op == Operator::And) == wanted { &a | &b } else { &a & &b }
            }
            Expr::Between(b) if b.negated != wanted => {
                let compare = |a: &Expr, b: &Expr| self.ordered(a, Operator::LtEq, b, schema, inside, outer);
                compare(&b.low, &b.expr).into_iter().chain(compare(&b.expr, &b.high)).collect()
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                use Operator::*;
                let ordered = |a: &Expr, op, b: &Expr| self.ordered(a, op, b, schema, inside, outer);
                let negated = match op {
                    Lt => GtEq,
                    LtEq => Gt,
                    Gt => LtEq,
                    GtEq => Lt,
                    NotEq => Eq,
                    _ => return if wanted { self.equal(left, *op, right, schema, inside, outer) } else { Places::new() },
                };
                match if wanted { *op } else { negated } {
                    op @ (Lt | LtEq) => ordered(left, op, right),
                    Gt => ordered(right, Lt, left),
                    GtEq => ordered(right, LtEq, left),
                    Eq => self.equal(left, Eq, right, schema, inside, outer),
                    _ => Places::new(),
                }
            }
            _ => Places::new(),
        }
    }

    fn equal(&self, a: &Expr, op: Operator, b: &Expr, schema: &DFSchema, inside: &Places, outer: &HashSet<Column>) -> Places {
        if op != Operator::Eq {
            return Places::new();
        }
        let one_way = |a: &Expr, b: &Expr| self.ordered(a, Operator::LtEq, b, schema, inside, outer);
        &one_way(a, b) | &one_way(b, a)
    }

    /// The column that `a < b` or `a <= b` keeps from going beyond the instant.
    fn ordered(&self, a: &Expr, op: Operator, b: &Expr, schema: &DFSchema, inside: &Places, outer: &HashSet<Column>) -> Places {
        let limit = match self.is_past(b, schema, inside, outer) {
            true => self.instant(),
            false => b.clone(),
        };
        let mut found = Places::new();
        for (a, b) in [(a.clone(), b.clone()), (a.clone(), limit)] {
            let Some((column, data_type)) = only_column([&a, &b], schema) else { continue };
            let falls_away = matches!(course(&a), Some(Course::Rising | Course::Constant))
                && matches!(course(&b), Some(Course::Falling | Course::Constant));
            let Some(next) = first_after(self.at, &data_type).filter(|_| falls_away) else { continue };
            let compared = Expr::BinaryExpr(BinaryExpr { left: Box::new(a), op, right: Box::new(b) });
            if self.put(compared, next).is_some_and(|v| v.is_null() || v == ScalarValue::Boolean(Some(false))) {
                found.insert(column);
            }
        }
        found
    }

    /// Whether an expression is never later than the instant. `inside`: columns that are not.
    pub fn is_past(&self, e: &Expr, schema: &DFSchema, inside: &Places, outer: &HashSet<Column>) -> bool {
        let (e, last) = match only_column([e], schema) {
            Some((column, data_type)) if inside.contains(&column) => (e.clone(), last_until(self.at, &data_type)),
            Some(_) => return false,
            None => match only_outer(e) {
                Some((column, data_type)) if outer.contains(&column) => {
                    let bare = |e: Expr| match e {
                        Expr::OuterReferenceColumn(_, c) => Ok(Transformed::yes(Expr::Column(c))),
                        other => Ok(Transformed::no(other)),
                    };
                    match e.clone().transform(bare) {
                        Ok(e) => (e.data, last_until(self.at, &data_type)),
                        Err(_) => return false,
                    }
                }
                Some(_) => return false,
                None if is_constant(e) => (e.clone(), Some(ScalarValue::Null)),
                None => return false,
            },
        };
        let Some(last) = last else { return false };
        if !matches!(course(&e), Some(Course::Rising | Course::Constant)) {
            return false;
        }
        let compared = Expr::BinaryExpr(BinaryExpr { left: Box::new(e), op: Operator::LtEq, right: Box::new(self.instant()) });
        self.put(compared, last) == Some(ScalarValue::Boolean(Some(true)))
    }

    /// The column whose values beyond the instant give results beyond the instant, and nothing else.
    pub fn later_stays_later(&self, e: &Expr, schema: &DFSchema) -> Option<usize> {
        let (column, data_type) = only_column([e], schema)?;
        if course(e) != Some(Course::Rising) {
            return None;
        }
        let compared = Expr::BinaryExpr(BinaryExpr { left: Box::new(e.clone()), op: Operator::Gt, right: Box::new(self.instant()) });
        (self.put(compared, first_after(self.at, &data_type)?) == Some(ScalarValue::Boolean(Some(true)))).then_some(column)
    }

    fn instant(&self) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(self.at), Some("+00:00".into())))
    }

    /// The value of an expression where its column has this one.
    fn put(&self, e: Expr, value: ScalarValue) -> Option<ScalarValue> {
        let valued = e.transform(|e| match e {
            Expr::Column(_) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
            other => Ok(Transformed::no(other)),
        });
        let typed = self.simplifier.coerce(valued.ok()?.data, &DFSchema::empty()).ok()?;
        match self.simplifier.simplify(typed).ok()? {
            Expr::Literal(v, _) => Some(v),
            _ => None,
        }
    }
}

/// The place and type of the one column that expressions name.
fn only_column<'e>(of: impl IntoIterator<Item = &'e Expr>, schema: &DFSchema) -> Option<(usize, DataType)> {
    let mut named: Vec<&Column> = of.into_iter().flat_map(|e| e.column_refs()).collect();
    named.dedup();
    let [column] = named[..] else { return None };
    let place = schema.index_of_column(column).ok()?;
    Some((place, schema.field(place).data_type().clone()))
}

/// The one column of a query around this one.
fn only_outer(e: &Expr) -> Option<(Column, DataType)> {
    let mut found: Vec<(Column, DataType)> = vec![];
    let _ = e.apply(|e| {
        if let Expr::OuterReferenceColumn(f, c) = e {
            found.push((c.clone(), f.data_type().clone()));
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    match &found[..] {
        [one] => Some(one.clone()),
        _ => None,
    }
}

fn is_constant(e: &Expr) -> bool {
    let mut constant = true;
    let _ = e.apply(|e| {
        constant &= !matches!(
            e,
            Expr::Column(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::Placeholder(_)
                | Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
        );
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    constant
}

fn course(e: &Expr) -> Option<Course> {
    use Course::*;
    if is_constant(e) {
        return Some(Constant);
    }
    let to_time = |t: &DataType| matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    match e {
        Expr::Column(_) => Some(Rising),
        Expr::Alias(a) => course(&a.expr),
        Expr::Cast(c) if to_time(c.field.data_type()) => course(&c.expr),
        Expr::TryCast(c) if to_time(c.field.data_type()) => course(&c.expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (op, course(left)?, course(right)?) {
            (Operator::Plus, moving, Constant) | (Operator::Plus, Constant, moving) | (Operator::Minus, moving, Constant) => Some(moving),
            (Operator::Minus, Constant, Rising) => Some(Falling),
            (Operator::Minus, Constant, Falling) => Some(Rising),
            _ => None,
        },
        Expr::ScalarFunction(ScalarFunction { func, args }) => match (func.name(), &args[..]) {
            ("date_trunc" | "date_bin", [step, of, rest @ ..]) if is_constant(step) && rest.iter().all(is_constant) => course(of),
            ("to_timestamp" | "to_timestamp_micros" | "to_timestamp_nanos" | "length_nanos", [of]) => course(of),
            _ => None,
        },
        _ => None,
    }
}

/// The first value of a type beyond an instant.
fn first_after(at: Micros, t: &DataType) -> Option<ScalarValue> {
    let (unit, zone) = match t {
        DataType::Date32 => return i32::try_from(at.div_euclid(DAY) + 1).ok().map(|d| ScalarValue::Date32(Some(d))),
        DataType::Date64 => return Some(ScalarValue::Date64(Some((at.div_euclid(DAY) + 1) * (DAY / MILLISECOND)))),
        DataType::Timestamp(unit, zone) => (unit, zone.clone()),
        _ => return None,
    };
    Some(match unit {
        TimeUnit::Second => ScalarValue::TimestampSecond(Some(at.div_euclid(SECOND) + 1), zone),
        TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(at.div_euclid(MILLISECOND) + 1), zone),
        TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(at.checked_add(1)?), zone),
        TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(Some(at.checked_mul(1000)?.checked_add(1)?), zone),
    })
}

/// The last value of a type until an instant.
fn last_until(at: Micros, t: &DataType) -> Option<ScalarValue> {
    let (unit, zone) = match t {
        DataType::Date32 => return i32::try_from(at.div_euclid(DAY)).ok().map(|d| ScalarValue::Date32(Some(d))),
        DataType::Date64 => return Some(ScalarValue::Date64(Some(at.div_euclid(DAY) * (DAY / MILLISECOND)))),
        DataType::Timestamp(unit, zone) => (unit, zone.clone()),
        _ => return None,
    };
    Some(match unit {
        TimeUnit::Second => ScalarValue::TimestampSecond(Some(at.div_euclid(SECOND)), zone),
        TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(at.div_euclid(MILLISECOND)), zone),
        TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(at), zone),
        TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(Some(at.checked_mul(1000)?), zone),
    })
}
