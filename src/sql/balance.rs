//! Makes long chains of AND, OR and UNION ALL shallow. The parser puts each operator above the one before it; these
//! mean the same however they are put together, so that thousands of them become a tree of a few levels.

use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, Statement};
use sqlparser::ast::{BinaryOperator, Expr, Query, SetExpr, SetOperator, SetQuantifier, Value, VisitMut, VisitorMut};

/// Shorter chains stay as they are.
const LONG: usize = 32;

/// Makes the chains of a statement shallow.
pub fn balance(statement: &mut Statement) {
    match statement {
        Statement::Statement(s) => balance_in(s.as_mut()),
        Statement::CopyTo(c) => {
            if let CopyToSource::Query(q) = &mut c.source {
                balance_in(q.as_mut());
            }
        }
        Statement::Explain(e) => balance(&mut e.statement),
        Statement::CreateExternalTable(_) | Statement::Reset(_) => {}
    }
}

/// Makes the chains of an expression or query shallow.
pub fn balance_in(ast: &mut impl VisitMut) {
    let _ = ast.visit(&mut Balance);
}

struct Balance;

impl VisitorMut for Balance {
    type Break = ();

    fn pre_visit_expr(&mut self, e: &mut Expr) -> ControlFlow<()> {
        for op in [BinaryOperator::And, BinaryOperator::Or] {
            if length(e, &op) > LONG {
                let whole = std::mem::replace(e, nothing());
                *e = join(operands(whole, &op), |left, right| Expr::BinaryOp {
                    left: Box::new(left),
                    op: op.clone(),
                    right: Box::new(right),
                })
                .unwrap_or_else(nothing);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, q: &mut Query) -> ControlFlow<()> {
        let mut at = q.body.as_mut();
        loop {
            if unions(at) > LONG {
                let whole = std::mem::replace(at, no_set());
                *at = join(parts(whole), |left, right| SetExpr::SetOperation {
                    op: SetOperator::Union,
                    set_quantifier: SetQuantifier::All,
                    left: Box::new(left),
                    right: Box::new(right),
                })
                .unwrap_or_else(no_set);
            }
            match at {
                SetExpr::SetOperation { left, .. } => at = left.as_mut(),
                _ => return ControlFlow::Continue(()),
            }
        }
    }
}

fn nothing() -> Expr {
    Expr::Value(Value::Null.into())
}

fn no_set() -> SetExpr {
    SetExpr::Values(sqlparser::ast::Values { explicit_row: false, value_keyword: false, rows: vec![] })
}

/// Joins neighbours until one is left: the order stays, and the depth is the logarithm.
fn join<T>(mut list: Vec<T>, pair: impl Fn(T, T) -> T) -> Option<T> {
    while list.len() > 1 {
        let mut next = Vec::with_capacity(list.len().div_ceil(2));
        let mut rest = list.into_iter();
        while let Some(left) = rest.next() {
            next.push(match rest.next() {
                Some(right) => pair(left, right),
                None => left,
            });
        }
        list = next;
    }
    list.pop()
}

fn length(mut e: &Expr, wanted: &BinaryOperator) -> usize {
    let mut n = 0;
    while let Expr::BinaryOp { left, op, .. } = e
        && op == wanted
    {
        (n, e) = (n + 1, left);
    }
    n
}

fn operands(mut e: Expr, wanted: &BinaryOperator) -> Vec<Expr> {
    let mut list = vec![];
    loop {
        match e {
            Expr::BinaryOp { left, op, right } if op == *wanted => {
                list.push(*right);
                e = *left;
            }
            first => {
                list.push(first);
                list.reverse();
                return list;
            }
        }
    }
}

fn unions(mut s: &SetExpr) -> usize {
    let mut n = 0;
    while let SetExpr::SetOperation { op: SetOperator::Union, set_quantifier: SetQuantifier::All, left, .. } = s {
        (n, s) = (n + 1, left);
    }
    n
}

fn parts(mut s: SetExpr) -> Vec<SetExpr> {
    let mut list = vec![];
    loop {
        match s {
            SetExpr::SetOperation { op: SetOperator::Union, set_quantifier: SetQuantifier::All, left, right } => {
                list.push(*right);
                s = *left;
            }
            first => {
                list.push(first);
                list.reverse();
                return list;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::parse::{expression, query};

    #[test]
    fn the_text_stays_and_the_depth_is_small() {
        for op in [" OR ", " AND "] {
            let text = (0..5_000).map(|i| format!("a = {i}")).collect::<Vec<_>>().join(op);
            let e = expression(&text).unwrap();
            assert_eq!(e.to_string(), text);
        }
        let mixed = (0..2_000).map(|i| format!("a = {i} AND b > {i}")).collect::<Vec<_>>().join(" OR ");
        assert_eq!(expression(&mixed).unwrap().to_string(), mixed);
        let unions = (0..3_000).map(|i| format!("SELECT {i}")).collect::<Vec<_>>().join(" UNION ALL ");
        assert_eq!(query(&unions).unwrap().to_string(), unions);
    }
}
