//! Keeps long conditions shallow. The stock rules take conditions apart and put them together again as chains of AND and
//! OR, one level per term; what comes later goes through them by recursion, and asks for types at every level.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};

/// Shorter chains stay as they are.
const LONG: usize = 32;

/// The whole plan with shallow conditions.
pub fn shallow_all(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(|p| shallow(Transformed::no(p)))?.data)
}

/// The plan's node with shallow conditions; nodes below it stay as they are.
pub fn shallow(plan: Transformed<LogicalPlan>) -> Result<Transformed<LogicalPlan>> {
    let wanted = match &plan.data {
        LogicalPlan::Filter(f) => is_long(&f.predicate)?,
        LogicalPlan::Join(j) => j.filter.as_ref().map_or(Ok(false), is_long)?,
        _ => false,
    };
    if !wanted {
        return Ok(plan);
    }
    let Transformed { data, tnr, .. } = plan;
    let data = match data {
        LogicalPlan::Filter(mut f) => {
            f.predicate = balanced(f.predicate)?;
            LogicalPlan::Filter(f)
        }
        LogicalPlan::Join(mut j) => {
            j.filter = j.filter.map(balanced).transpose()?;
            LogicalPlan::Join(j)
        }
        other => other,
    };
    Ok(Transformed::new(data, true, tnr))
}

fn is_long(e: &Expr) -> Result<bool> {
    e.exists(|e| Ok([Operator::And, Operator::Or].iter().any(|op| length(e, *op) > LONG)))
}

fn balanced(e: Expr) -> Result<Expr> {
    let made = e.transform_down(|e| {
        let Some(op) = [Operator::And, Operator::Or].into_iter().find(|op| length(&e, *op) > LONG) else {
            return Ok(Transformed::no(e));
        };
        Ok(Transformed::yes(joined(operands(e, op), op)))
    })?;
    Ok(made.data)
}

fn length(mut e: &Expr, wanted: Operator) -> usize {
    let mut n = 0;
    while let Expr::BinaryExpr(BinaryExpr { left, op, .. }) = e
        && *op == wanted
    {
        (n, e) = (n + 1, left);
    }
    n
}

fn operands(mut e: Expr, wanted: Operator) -> Vec<Expr> {
    let mut list = vec![];
    loop {
        match e {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if op == wanted => {
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

/// Joins neighbours until one is left: the order stays, and the depth is the logarithm.
fn joined(mut list: Vec<Expr>, op: Operator) -> Expr {
    while list.len() > 1 {
        let mut next = Vec::with_capacity(list.len().div_ceil(2));
        let mut rest = list.into_iter();
        while let Some(left) = rest.next() {
            next.push(match rest.next() {
                Some(right) => Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))),
                None => left,
            });
        }
        list = next;
    }
    list.pop().unwrap_or_else(|| datafusion::logical_expr::lit(op == Operator::And))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn long_chains_become_shallow_in_their_order() {
        let terms: Vec<Expr> = (0..1_000).map(|i| col("a").not_eq(lit(i))).collect();
        let chain = terms.iter().cloned().reduce(Expr::and).unwrap();
        let inner = col("b").or(chain.clone());
        for e in [chain, inner] {
            assert!(is_long(&e).unwrap());
            let made = balanced(e).unwrap();
            assert!(!is_long(&made).unwrap());
            let conjuncts = made.to_string().matches("a != ").count();
            assert_eq!(conjuncts, 1_000);
        }
        let made = joined(terms.clone(), Operator::And);
        assert_eq!(datafusion::logical_expr::utils::split_conjunction(&made), terms.iter().collect::<Vec<_>>());
    }
}
