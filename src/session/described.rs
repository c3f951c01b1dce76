//! Whether a statement still is what whoever prepared it was told. The names that it reads may mean something else
//! by now: old column names over new values would be a wrong answer.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::logical_expr::{LogicalPlan, WriteOp};

use super::parameters::{parameters, typed};
use super::{Prepared, result_schema};
use crate::error::{Error, Result};
use crate::model::types::ColumnType;
use crate::plan::StatementKind;
use crate::statement::Planned;

/// Refuses to run a plan that is not the one that was described. Parameters are not bound in it yet.
pub(super) fn check(prepared: &Prepared, planned: &Planned) -> Result<()> {
    if prepared.kind != planned.kind {
        return Err(changed("the statement does something else than when it was prepared"));
    }
    let now = parameters(&planned.plan)?;
    if prepared.kind != StatementKind::Update {
        // columns may follow from the types of what is bound
        let types = prepared.parameters.iter().cloned().collect::<Option<Vec<DataType>>>();
        let columns = match types.filter(|_| now.iter().any(Option::is_none)) {
            Some(types) => result_schema(&typed(planned.plan.clone(), &types)?),
            None => result_schema(&planned.plan),
        };
        same_columns(&prepared.schema, &columns, "the result")?;
    }
    same_columns(&prepared.fills, &fills(&planned.plan), "the INSERT")?;
    let pairs = prepared.parameters.iter().zip(&now).enumerate();
    match pairs.filter_map(|(i, (then, now))| Some((i, then.as_ref()?, now.as_ref()?))).find(|(_, then, now)| then != now) {
        Some((i, then, now)) => {
            Err(changed(&format!("parameter ${} was {} when the statement was prepared and is {} now", i + 1, named(then), named(now))))
        }
        None => Ok(()),
    }
}

/// Refuses columns of other names, types or order than were described. Whether they may be NULL, and in which form
/// Arrow holds them, is no part of the promise.
pub(super) fn same_columns(then: &Schema, now: &Schema, of: &str) -> Result<()> {
    let (then, now) = (then.fields(), now.fields());
    if then == now {
        return Ok(());
    }
    let count = |n: usize| if n == 1 { "1 column".to_string() } else { format!("{n} columns") };
    if then.len() != now.len() {
        let what = format!("{of} had {} when the statement was prepared and has {} now", count(then.len()), now.len());
        return Err(changed(&what));
    }
    let other = |(_, (a, b)): &(usize, (&Arc<Field>, &Arc<Field>))| a.name() != b.name() || plain(a.data_type()) != plain(b.data_type());
    match then.iter().zip(now).enumerate().find(other) {
        Some((i, (a, b))) => {
            let shown = |f: &Field| format!("{:?} {}", f.name(), named(f.data_type()));
            Err(changed(&format!("column {} of {of} was {} when the statement was prepared and is {} now", i + 1, shown(a), shown(b))))
        }
        None => Ok(()),
    }
}

fn changed(what: &str) -> Error {
    Error::conflict(what).with_hint("prepare the statement again: the names in it mean something else since")
}

/// A type as SQL writes it.
fn named(t: &DataType) -> String {
    ColumnType::stored(t).map_or_else(|_| t.to_string(), |t| t.to_string())
}

/// A type without what Arrow may choose freely.
fn plain(t: &DataType) -> DataType {
    let field = |f: &Arc<Field>| Field::new(f.name(), plain(f.data_type()), true);
    let item = |f: &Arc<Field>| DataType::new_list(plain(f.data_type()), true);
    match t {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, v) => plain(v),
        DataType::List(f) | DataType::LargeList(f) | DataType::ListView(f) | DataType::LargeListView(f) => item(f),
        DataType::FixedSizeList(f, n) => DataType::new_fixed_size_list(plain(f.data_type()), *n, true),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(field(entries)), *sorted),
        other => other.clone(),
    }
}

/// The columns that an INSERT fills, and those of what it reads: values go from one to the other by their place.
/// Empty for other statements.
pub(super) fn fills(plan: &LogicalPlan) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = vec![];
    if let LogicalPlan::Dml(dml) = plan
        && matches!(dml.op, WriteOp::Insert(_))
    {
        let target = dml.target.schema();
        match dml.input.as_ref() {
            LogicalPlan::Projection(p) => {
                // a column that is not named in the INSERT is filled with a constant
                let named = p.expr.iter().zip(target.fields()).filter(|(e, _)| !e.column_refs().is_empty());
                fields.extend(named.map(|(_, f)| Arc::clone(f)));
                fields.extend(p.input.schema().fields().iter().cloned());
            }
            _ => fields.extend(target.fields().iter().cloned()),
        }
    }
    Arc::new(Schema::new(Fields::from(fields)))
}

/// What a plan answers, for the description of a statement.
pub(super) fn described(planned: &Planned) -> SchemaRef {
    match planned.kind {
        StatementKind::Update => Arc::new(Schema::empty()),
        _ => result_schema(&planned.plan),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn schema(fields: &[(&str, DataType, bool)]) -> Schema {
        Schema::new(fields.iter().map(|(n, t, null)| Field::new(*n, t.clone(), *null)).collect::<Vec<_>>())
    }

    #[test]
    fn names_types_order_and_count_are_promised_and_nothing_else() {
        use DataType::*;
        let list = |t: DataType, null| List(Arc::new(Field::new("item", t, null)));
        let base = schema(&[("a", Int64, true), ("b", Utf8, true), ("c", list(Utf8, true), true)]);
        let metadata = [("k".to_string(), "v".to_string())].into();
        let same = [
            schema(&[("a", Int64, false), ("b", Utf8View, true), ("c", list(Utf8View, false), false)]),
            base.clone().with_metadata(metadata),
        ];
        for other in same {
            same_columns(&base, &other, "the result").unwrap();
        }
        let different = [
            schema(&[("b", Utf8, true), ("a", Int64, true), ("c", list(Utf8, true), true)]),
            schema(&[("a", Float64, true), ("b", Utf8, true), ("c", list(Utf8, true), true)]),
            schema(&[("a", Int64, true), ("b", Utf8, true), ("c", list(Int64, true), true)]),
            schema(&[("A", Int64, true), ("b", Utf8, true), ("c", list(Utf8, true), true)]),
            schema(&[("a", Int64, true), ("b", Utf8, true)]),
            schema(&[]),
        ];
        for other in different {
            let e = same_columns(&base, &other, "the result").unwrap_err();
            assert_eq!(e.kind(), Kind::Conflict, "{e}");
            assert!(e.hint().unwrap().contains("prepare the statement again"), "{e}");
            assert!(same_columns(&other, &base, "the result").is_err());
        }
        let structs = |name: &str| Struct(vec![Field::new(name, Int64, true)].into());
        assert!(same_columns(&schema(&[("s", structs("x"), true)]), &schema(&[("s", structs("y"), true)]), "the result").is_err());
    }
}
