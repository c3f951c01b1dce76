//! Lists and structs: their elements and fields are exact, or refused.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StructArray, new_null_array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::nullif;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};

use super::misfit::{Misfit, Why};
use super::{exact, lenient};

/// The field of a list's elements.
pub(super) fn element(t: &DataType) -> Option<&FieldRef> {
    use DataType::*;
    match t {
        List(f) | LargeList(f) | ListView(f) | LargeListView(f) | FixedSizeList(f, _) => Some(f),
        _ => None,
    }
}

/// Lists of one kind as lists of another.
pub(super) fn lists(values: &ArrayRef, of: &FieldRef, element: &FieldRef, want: &DataType) -> Result<ArrayRef, Misfit> {
    let none = |row| Misfit::new(values, row, want, Why::Range);
    // only the kind of list changes here, not what is in it
    let plain = lenient(values, &DataType::List(Arc::clone(of)));
    let list = plain.as_list::<i32>();
    if list.null_count() != values.null_count() {
        return Err(none(0));
    }
    let offsets = list.offsets();
    let (first, last) = (offsets[0] as usize, offsets[list.len()] as usize);
    let mut inner = list.values().slice(first, last - first);
    if list.null_count() > 0 {
        // what lies under a NULL is no value
        let hidden = (0..list.len()).flat_map(|row| std::iter::repeat_n(Some(list.is_null(row)), list.value_length(row) as usize));
        inner = masked(&inner, hidden.collect());
    }
    let inner = exact(&inner, element.data_type()).map_err(|m| {
        let at = first + m.row;
        let row = offsets.partition_point(|o| *o as usize <= at).saturating_sub(1);
        m.inside(row, want)
    })?;
    let shifted = OffsetBuffer::new(offsets.iter().map(|o| o - offsets[0]).collect());
    let field = Arc::new(Field::new(element.name(), element.data_type().clone(), true));
    let made = ListArray::try_new(field, shifted, inner, list.nulls().cloned()).map_err(|_| none(0))?;
    let made: ArrayRef = Arc::new(made);
    Ok(if made.data_type() == want { made } else { lenient(&made, want) })
}

/// Structs by the names of their fields: what is not there is NULL, what would be lost is refused.
pub(super) fn structs(values: &ArrayRef, fields: &Fields) -> Result<ArrayRef, Misfit> {
    let (have, want) = (values.as_struct(), DataType::Struct(fields.clone()));
    if let Some(row) = (0..have.len()).find(|row| have.is_valid(*row))
        && let Some(lost) = have.fields().iter().find(|f| !fields.iter().any(|w| w.name() == f.name()))
    {
        return Err(Misfit::field(lost.name(), row, values.data_type(), &want));
    }
    let hidden: Option<BooleanArray> = have.nulls().map(|n| n.iter().map(|valid| Some(!valid)).collect());
    let columns = fields
        .iter()
        .map(|field| match have.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), have.len())),
            Some(column) => {
                let column = hidden.as_ref().map_or_else(|| Arc::clone(column), |h| masked(column, h.clone()));
                exact(&column, field.data_type()).map_err(|m| {
                    let row = m.row;
                    m.inside(row, &want)
                })
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    match StructArray::try_new(fields.clone(), columns, have.nulls().cloned()) {
        Ok(made) => Ok(Arc::new(made)),
        Err(_) => Err(Misfit::new(values, 0, &want, Why::Kind)),
    }
}

/// NULL where `hidden`.
fn masked(values: &ArrayRef, hidden: BooleanArray) -> ArrayRef {
    if hidden.true_count() == 0 {
        return Arc::clone(values);
    }
    nullif(values, &hidden).unwrap_or_else(|_| Arc::clone(values))
}
