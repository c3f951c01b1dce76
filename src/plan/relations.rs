//! Which relations of a query are planned by us, and by what.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use sqlparser::ast::{Join, Spanned, TableFactor};

use super::names::Names;
use super::pit_join::join;
use super::pit_join::syntax::{clauses, ends_asof, join_span};
use super::{lookup, online_join};
use crate::error::{Result, Span};

/// Takes the joins and table functions of the dialect out of the SQL planner's hands.
#[derive(Debug)]
pub struct Relations {
    pub names: Arc<dyn Names>,
}

impl RelationPlanner for Relations {
    fn plan_relation(&self, relation: TableFactor, cx: &mut dyn RelationPlannerContext) -> DfResult<RelationPlanning> {
        let names = self.names.as_ref();
        match relation {
            TableFactor::NestedJoin { mut table_with_joins, alias } if ends_asof(&table_with_joins) => {
                let Some(join) = table_with_joins.joins.pop() else {
                    return Ok(RelationPlanning::Original(Box::new(TableFactor::NestedJoin { table_with_joins, alias })));
                };
                let left = match table_with_joins.joins.is_empty() {
                    true => table_with_joins.relation,
                    false => TableFactor::NestedJoin { table_with_joins, alias: None },
                };
                let left = cx.plan(left)?;
                let place = join_span(&join);
                let plan = plan_join(names, left, join, cx).map_err(|e| DataFusionError::from(e.or_span(place)))?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            TableFactor::Table { name, alias, args: Some(args), .. } if crate::sql::references::is_lookup(&name) => {
                let place = Span::from_sql(name.span());
                let plan = lookup::plan(names, args.args, alias.as_ref(), cx).map_err(|e| DataFusionError::from(e.or_span(place)))?;
                let columns = alias.filter(|a| !a.columns.is_empty());
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, columns))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn plan_join(names: &dyn Names, left: LogicalPlan, join: Join, cx: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let c = clauses(&join)?;
    match c.online {
        true => online_join::plan(names, left, join.relation, c, cx),
        false => join::plan(names, left, join.relation, c, cx),
    }
}
