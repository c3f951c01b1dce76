//! Rows beside each other: `(a, b) = (c, d)`, `(a, b) < (c, d)`, `(a, b) IN ((1, 2), (3, 4))`. The engine compares them as
//! values of their own, for which NULL equals NULL; column by column, as here, a NULL makes it unknown.

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};

/// Compares two rows column by column.
pub fn by_columns(e: &mut Expr) {
    let new = match e {
        Expr::BinaryOp { left, op, right } => match (bare(left), bare(right)) {
            (Expr::Tuple(l), Expr::Tuple(r)) if l.len() == r.len() => compared(l, op, r),
            _ => None,
        },
        Expr::InList { expr, list, negated } => match bare(expr) {
            Expr::Tuple(row) => among(row, list).map(|found| if *negated { not(found) } else { found }),
            _ => None,
        },
        _ => None,
    };
    if let Some(new) = new {
        *e = Expr::Nested(Box::new(new));
    }
}

fn bare(e: &Expr) -> &Expr {
    match e {
        Expr::Nested(e) => bare(e),
        other => other,
    }
}

fn not(e: Expr) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(e))) }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }))
}

/// Halves, so that long lists nest little.
fn joined(mut parts: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    match parts.len() {
        0 | 1 => parts.pop(),
        n => {
            let right = parts.split_off(n / 2);
            Some(binary(joined(parts, op)?, op.clone(), joined(right, op)?))
        }
    }
}

fn equal(l: &[Expr], r: &[Expr]) -> Option<Expr> {
    joined(l.iter().zip(r).map(|(l, r)| binary(l.clone(), BinaryOperator::Eq, r.clone())).collect(), &BinaryOperator::And)
}

fn compared(l: &[Expr], op: &BinaryOperator, r: &[Expr]) -> Option<Expr> {
    let strict = match op {
        BinaryOperator::Eq => return equal(l, r),
        BinaryOperator::NotEq => return equal(l, r).map(not),
        BinaryOperator::Lt | BinaryOperator::LtEq => BinaryOperator::Lt,
        BinaryOperator::Gt | BinaryOperator::GtEq => BinaryOperator::Gt,
        _ => return None,
    };
    // the first column that differs decides
    let last = l.len().checked_sub(1)?;
    let mut out = binary(l[last].clone(), op.clone(), r[last].clone());
    for (l, r) in l[..last].iter().zip(&r[..last]).rev() {
        let tie = binary(binary(l.clone(), BinaryOperator::Eq, r.clone()), BinaryOperator::And, out);
        out = binary(binary(l.clone(), strict.clone(), r.clone()), BinaryOperator::Or, tie);
    }
    Some(out)
}

fn among(row: &[Expr], list: &[Expr]) -> Option<Expr> {
    let each = list.iter().map(|item| match bare(item) {
        Expr::Tuple(r) if r.len() == row.len() => equal(row, r),
        _ => None,
    });
    joined(each.collect::<Option<Vec<_>>>()?, &BinaryOperator::Or)
}
