//! Types of parameters: what a statement wants, what clients are told, and statements whose columns are known only
//! once values are bound.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{Cast, Placeholder, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{DmlStatement, Expr, LogicalPlan, LogicalPlanBuilder, Union, WriteOp};
use futures::future::BoxFuture;

use super::{Notices, Prepared, Session, StatementKind, result_schema};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

const MOST: usize = 1_000;

/// Types of $1, $2, …; a gap in the numbers is a parameter of any type.
pub(super) fn parameters(plan: &LogicalPlan) -> Result<Vec<Option<DataType>>> {
    let mut out: Vec<Option<DataType>> = vec![];
    for (id, t) in plan.get_parameter_types()? {
        let n = number(&id);
        if n > MOST {
            return Err(Error::invalid(format!("parameter {id}: a statement has at most 1,000 parameters")));
        }
        if out.len() < n {
            out.resize(n, None);
        }
        out[n - 1] = t.filter(|t| !t.is_null());
    }
    let mut counts = |e: Option<&Expr>| note(&mut out, e, &DataType::Int64);
    plan.apply_with_subqueries(|p| {
        if let LogicalPlan::Limit(limit) = p {
            counts(limit.skip.as_deref());
            counts(limit.fetch.as_deref());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(out)
}

fn number(id: &str) -> usize {
    id.strip_prefix('$').and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Where `e` is a parameter that nothing is known of.
fn note(types: &mut [Option<DataType>], e: Option<&Expr>, t: &DataType) {
    if let Some(Expr::Placeholder(p)) = e
        && let Some(slot) = number(&p.id).checked_sub(1).and_then(|i| types.get_mut(i))
        && slot.is_none()
    {
        *slot = Some(t.clone());
    }
}

/// What clients are told: for parameters of any type the one that is most likely meant. What they bind keeps its own.
pub(super) fn announced(plan: &LogicalPlan, parameters: &[Option<DataType>]) -> Result<Vec<Option<DataType>>> {
    let mut out = parameters.to_vec();
    plan.apply_with_subqueries(|p| {
        if let LogicalPlan::Dml(dml) = p {
            inserted(dml, &mut out);
        }
        p.apply_expressions(|e| {
            e.apply(|e| {
                if let Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) = e {
                    note(&mut out, Some(expr), field.data_type());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(out)
}

/// Parameters that go into a column as they are.
fn inserted(dml: &DmlStatement, out: &mut [Option<DataType>]) {
    if !matches!(dml.op, WriteOp::Insert(_)) {
        return;
    }
    for (i, column) in dml.target.schema().fields().iter().enumerate() {
        let (mut plan, mut at) = (dml.input.as_ref(), i);
        loop {
            match plan {
                LogicalPlan::Projection(p) => {
                    let Some(e) = p.expr.get(at) else { break };
                    let e = bare(e);
                    note(out, Some(e), column.data_type());
                    let Expr::Column(c) = e else { break };
                    let Some(below) = p.input.schema().maybe_index_of_column(c) else { break };
                    (plan, at) = (p.input.as_ref(), below);
                }
                LogicalPlan::SubqueryAlias(s) => plan = s.input.as_ref(),
                LogicalPlan::Values(v) => {
                    v.values.iter().filter_map(|row| row.get(at)).for_each(|e| note(out, Some(bare(e)), column.data_type()));
                    break;
                }
                _ => break,
            }
        }
    }
}

fn bare(e: &Expr) -> &Expr {
    match e {
        Expr::Alias(a) => bare(&a.expr),
        Expr::Cast(c) => bare(&c.expr),
        other => other,
    }
}

/// The plan with the types of parameters that had none, and with the columns that follow from them.
pub(super) fn typed(plan: LogicalPlan, types: &[DataType]) -> DfResult<LogicalPlan> {
    let known = |e: Expr| match e {
        Expr::Placeholder(Placeholder { id, field }) if field.as_ref().is_none_or(|f| f.data_type().is_null()) => {
            let t = number(&id).checked_sub(1).and_then(|i| types.get(i));
            let field = t.map(|t| Arc::new(Field::new(&id, t.clone(), true)));
            Ok(Transformed::yes(Expr::Placeholder(Placeholder::new_with_field(id, field))))
        }
        other => Ok(Transformed::no(other)),
    };
    let plan = plan.transform_up_with_subqueries(|plan| {
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|e| {
            let name = names.save(&e);
            Ok(e.transform_up(known)?.update_data(|e| name.restore(e)))
        })?;
        plan.map_data(|plan| match plan {
            LogicalPlan::Values(v) => LogicalPlanBuilder::values(v.values)?.build(),
            // it would keep the types that it had
            LogicalPlan::Union(u) => Ok(LogicalPlan::Union(Union::try_new_with_loose_types(u.inputs)?)),
            other => other.recompute_schema(),
        })
    })?;
    Ok(plan.data)
}

impl Session {
    /// The statement for values of these types: parameters of any type have these, and the columns follow from them.
    pub fn bound_to<'a>(&'a self, prepared: &'a Prepared, types: Vec<DataType>) -> BoxFuture<'a, Result<Prepared>> {
        let (session, prepared) = (self.clone(), prepared.clone());
        if prepared.parameters.iter().all(Option::is_some) || types.len() != prepared.parameters.len() {
            return Box::pin(std::future::ready(Ok(prepared)));
        }
        self.workers().plan(&Cancel::default(), Box::pin(async move { session.plan_for(prepared, types).await }))
    }

    pub(super) async fn plan_for(&self, prepared: Prepared, types: Vec<DataType>) -> Result<Prepared> {
        let resolver = self.resolver(vec![], Notices::default()).await?;
        let plan = typed(self.plan(&prepared.sql, &resolver).await?.plan, &types)?;
        let schema = match prepared.kind {
            StatementKind::Update => Arc::new(Schema::empty()),
            _ => result_schema(&plan),
        };
        let parameters = types.into_iter().map(Some).collect();
        Ok(Prepared { schema, parameters, ..prepared })
    }
}
