//! What stands for a windowed feature in a plan: its expression over the aggregates' values.

use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::{Expr, cast};

use super::node::windowed;
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::windowed::slot_name;
use crate::plan::names::Names;
use crate::plan::service;

/// The values of all aggregates as columns.
fn schema(view: &FeatureView) -> Result<DFSchema> {
    let slots = &windowed(view)?.slots;
    let field = |(i, s): (usize, &crate::model::windowed::Slot)| Field::new(slot_name(i), s.data_type.arrow().clone(), true);
    Ok(DFSchema::try_from(Schema::new(slots.iter().enumerate().map(field).collect::<Vec<_>>()))?)
}

/// The expression of a feature (an index into `view.features`) over unqualified slots. It gives NULL where its arithmetic fails, as those of
/// services do.
fn output(names: &dyn Names, view: &FeatureView, feature: usize) -> Result<Expr> {
    let text = windowed(view)?.outputs.get(feature);
    let (Some(text), Some(f)) = (text, view.features.get(feature)) else {
        return Err(Error::internal(format!("feature {feature} of {} has no expression", view.versioned_name())));
    };
    let schema = schema(view)?;
    let parsed = crate::sql::parse::expression(text)?;
    let e = names
        .sql_expression(parsed, &schema)
        .and_then(|e| service::safe(e, &schema))
        .map_err(|e| e.context(format!("feature {:?} of {}", f.name, view.versioned_name())))?;
    typed(e, &schema, f.data_type.arrow())
}

fn typed(e: Expr, schema: &DFSchema, want: &datafusion::arrow::datatypes::DataType) -> Result<Expr> {
    use datafusion::logical_expr::ExprSchemable;
    Ok(if e.get_type(schema)? == *want { e } else { cast(e, want.clone()) })
}

/// The aggregates that some features need: indices into `Windowed::slots`, ascending.
pub fn slots_of(names: &dyn Names, view: &FeatureView, features: &[usize]) -> Result<Vec<usize>> {
    let count = windowed(view)?.slots.len();
    let mut out = vec![];
    for f in features {
        let e = output(names, view, *f)?;
        let read = e.column_refs();
        out.extend((0..count).filter(|i| read.iter().any(|c| c.name == slot_name(*i))));
    }
    out.sort_unstable();
    out.dedup();
    Ok(out)
}

/// A feature's expression over slots with this qualifier. `instant`: what `now()` means; `None`: it stays.
pub fn feature(names: &dyn Names, view: &FeatureView, qualifier: &TableReference, feature: usize, instant: Option<&Expr>) -> Result<Expr> {
    let column = |c: &Column| Ok(Expr::Column(Column::new(Some(qualifier.clone()), &c.name)));
    service::place(output(names, view, feature)?, &column, instant)
}
