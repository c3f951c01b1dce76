//! What ON and USING of a join say, sorted by the sides that they speak of.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};

use super::keys::by_name;
use super::node::MatchOp;
use super::syntax::Clauses;
use crate::error::{Error, Result, Span, in_sql};
use crate::plan::settle;

/// Where the first column of an expression stands in the user's text.
pub fn place_of(e: &Expr) -> Option<Span> {
    let mut found = None;
    let _ = e.apply(|e| {
        if let Expr::Column(c) = e {
            found = found.or(c.spans.first().map(Span::from));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// The columns of both sides.
pub fn both(left: &LogicalPlan, right: &DFSchema) -> Result<DFSchema> {
    let clash = |e| Error::from(e).with_hint("give one side another alias: JOIN view AS other_name");
    left.schema().join(right).map_err(clash)
}

/// Equalities (left, right) of a join.
pub type Equal = Vec<(Expr, Expr)>;
/// Left side, operator, right side.
pub type Inequality = (Expr, MatchOp, Expr);

/// What ON and USING of a join say.
#[derive(Default)]
pub struct Conditions {
    pub equal: Equal,
    pub unequal: Vec<Inequality>,
    /// Predicates on the right side alone: which rows may be matched.
    pub candidates: Vec<Expr>,
    /// Predicates on the left side alone: which rows may match.
    pub eligible: Vec<Expr>,
}

/// Sorts the conditions of ON and USING by the sides that they speak of.
pub fn on_conditions(c: &Clauses, left: &LogicalPlan, right: &DFSchema, cx: &mut dyn RelationPlannerContext) -> Result<Conditions> {
    let mut all = Conditions::default();
    if let Some(on) = &c.on {
        let both = both(left, right)?;
        let on = settle::expression(cx.sql_to_expr(on.clone(), &both)?, &both)?;
        for part in split_conjunction_owned(on) {
            match condition(part, left.schema(), right)? {
                Condition::Equal(l, r) => all.equal.push((l, r)),
                Condition::Unequal(l, op, r) => all.unequal.push((l, op, r)),
                Condition::Right(e) => all.candidates.push(e),
                Condition::Left(e) => all.eligible.push(e),
            }
        }
    }
    for ident in &c.using {
        let key = cx.normalize_ident(ident.clone());
        let r = right.qualified_field_with_unqualified_name(&key).map_err(Error::from)?;
        all.equal.push((by_name(left, &key, "join column")?, Expr::Column(Column::from(r))));
    }
    Ok(all)
}

/// One part of ON.
pub enum Condition {
    Equal(Expr, Expr),
    Unequal(Expr, MatchOp, Expr),
    /// On one side alone.
    Left(Expr),
    Right(Expr),
}

/// One comparison, brought to left-op-right, or a predicate on one side.
pub fn condition(e: Expr, left: &DFSchema, right: &DFSchema) -> Result<Condition> {
    let side = |e: &Expr, s: &DFSchema| e.column_refs().iter().all(|c| s.has_column(c));
    let named = |e: &Expr, s: &DFSchema| !e.column_refs().is_empty() && side(e, s);
    let shown = in_sql(&e.schema_name().to_string());
    let place = place_of(&e);
    if named(&e, right) && !has_subquery(&e) {
        return Ok(Condition::Right(e));
    }
    if side(&e, left) && !has_subquery(&e) {
        return Ok(Condition::Left(e));
    }
    let refused = |why: String| Error::invalid(why).or_span(place);
    if has_subquery(&e) {
        return Err(refused(format!("ON of an ASOF join cannot hold a subquery ({shown})"))
            .with_hint("choose the rows before the join: ASOF JOIN (SELECT … WHERE … IN (…)) AS alias"));
    }
    let Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) = e else {
        return Err(refused(format!("{shown} speaks of both sides of an ASOF join and is no comparison of one with the other"))
            .with_hint("put it into WHERE, which looks at the matched rows; a condition on one side alone may stand in ON"));
    };
    let (a, b, flipped) = if named(&a, left) && named(&b, right) {
        (*a, *b, false)
    } else if named(&b, left) && named(&a, right) {
        (*b, *a, true)
    } else {
        let hint = match op {
            Operator::Or => {
                "ON of an ASOF join holds conditions joined by AND; put OR over both sides into WHERE, which looks at the matched rows"
            }
            _ => {
                "each side of the comparison must speak of one table: l.ts >= r.ts; for the greatest distance write WITHIN INTERVAL '7 days'"
            }
        };
        return Err(refused(format!("{shown} does not compare a left column with a right column")).with_hint(hint));
    };
    Ok(match (op, flipped) {
        (Operator::Eq, _) => Condition::Equal(a, b),
        (Operator::GtEq, false) | (Operator::LtEq, true) => Condition::Unequal(a, MatchOp::AtOrBefore, b),
        (Operator::Gt, false) | (Operator::Lt, true) => Condition::Unequal(a, MatchOp::Before, b),
        (Operator::LtEq, false) | (Operator::GtEq, true) => Condition::Unequal(a, MatchOp::AtOrAfter, b),
        (Operator::Lt, false) | (Operator::Gt, true) => Condition::Unequal(a, MatchOp::After, b),
        _ => return Err(refused(format!("{op} does not work in an ASOF join ({shown})")).with_hint("use =, >=, >, <= or <")),
    })
}

fn has_subquery(e: &Expr) -> bool {
    e.exists(|e| Ok(matches!(e, Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)))).unwrap_or(true)
}
