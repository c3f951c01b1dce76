//! Rows back to Arrow: values go straight from the stored bytes into column builders.

use std::sync::Arc;

use datafusion::arrow::array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use datafusion::arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, ListArray, NullBufferBuilder, PrimitiveBuilder, StringBuilder, StructArray,
};
use datafusion::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit};

use super::row::{Bytes, Row, corrupt, width};
use crate::error::{Error, Result};
use crate::model::Column;

/// Reads rows of several schemas into the columns of one.
#[derive(Debug, Clone)]
pub struct RowDecoder {
    wanted: Vec<Column>,
    schemas: Vec<Schema>,
}

/// One schema of stored rows.
#[derive(Debug, Clone)]
struct Schema {
    id: u32,
    layout: Layout,
    /// Per wanted column the number and place of the stored one.
    places: Vec<Option<(usize, Slot)>>,
}

/// Where the values of one schema's rows lie.
#[derive(Debug, Clone)]
struct Layout {
    /// Per column: its place among fixed-width bytes, or its number among variable-width columns.
    slots: Vec<Slot>,
    fixed: usize,
    variable: usize,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Fixed(usize, usize),
    Variable(usize),
}

impl Layout {
    fn new<'a>(types: impl Iterator<Item = &'a DataType>) -> Self {
        let (mut fixed, mut variable) = (0, 0);
        let slots = types
            .map(|t| match width(t) {
                Some(w) => {
                    fixed += w;
                    Slot::Fixed(fixed - w, w)
                }
                None => {
                    variable += 1;
                    Slot::Variable(variable - 1)
                }
            })
            .collect();
        Layout { slots, fixed, variable }
    }

    fn open<'a>(&self, body: &'a [u8]) -> Result<Body<'a>> {
        let mut rest = Bytes(body);
        let nulls = rest.take(self.slots.len().div_ceil(8))?;
        Ok(Body { nulls, fixed: rest.take(self.fixed)?, variable: Variable { ends: rest.take(4 * self.variable)?, bytes: rest.0 } })
    }
}

struct Body<'a> {
    nulls: &'a [u8],
    fixed: &'a [u8],
    variable: Variable<'a>,
}

impl<'a> Body<'a> {
    /// The value of the column with this number and this place.
    fn get(&self, column: usize, slot: Slot) -> Result<Option<&'a [u8]>> {
        if is_null(self.nulls, column) {
            return Ok(None);
        }
        match slot {
            Slot::Fixed(at, width) => self.fixed.get(at..at + width).map(Some).ok_or_else(|| corrupt("its values end early")),
            Slot::Variable(n) => self.variable.get(n).map(Some),
        }
    }
}

struct Variable<'a> {
    ends: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Variable<'a> {
    fn get(&self, n: usize) -> Result<&'a [u8]> {
        let end = |n: usize| Bytes(self.ends.get(4 * n..).unwrap_or_default()).u32();
        let start = if n == 0 { 0 } else { end(n - 1)? };
        self.bytes.get(start..end(n)?).ok_or_else(|| corrupt("an offset points outside"))
    }
}

fn is_null(nulls: &[u8], n: usize) -> bool {
    nulls.get(n / 8).is_some_and(|bits| bits & (1 << (n % 8)) != 0)
}

impl RowDecoder {
    /// `schemas`: every schema that stored rows may have, by id, columns in stored order. `wanted`: the
    /// columns of the answer; one that a row's schema does not have is NULL for that row.
    pub fn new(schemas: &[(u32, Vec<Column>)], wanted: &[Column]) -> Result<Self> {
        let mut known = Vec::with_capacity(schemas.len());
        for (id, columns) in schemas {
            let layout = Layout::new(columns.iter().map(|c| c.data_type.arrow()));
            let mut places = Vec::with_capacity(wanted.len());
            for want in wanted {
                let mut stored = columns.iter().zip(&layout.slots).enumerate();
                let place = stored.find(|(_, (c, _))| c.name == want.name);
                if let Some((_, (stored, _))) = place.filter(|(_, (c, _))| c.data_type != want.data_type) {
                    return Err(Error::invalid(format!(
                        "feature {:?} is {}, but rows of schema {id} hold it as {}",
                        want.name, want.data_type, stored.data_type
                    )));
                }
                places.push(place.map(|(number, (_, slot))| (number, *slot)));
            }
            known.push(Schema { id: *id, layout, places });
        }
        Ok(RowDecoder { wanted: wanted.to_vec(), schemas: known })
    }

    /// One array per wanted column, one value per row. A row that is `None` or a tombstone is NULL in
    /// every column. `name` names the key of a row in an error.
    pub fn decode(&self, rows: &[Option<Row<'_>>], name: impl Fn(usize) -> String) -> Result<Vec<ArrayRef>> {
        let mut builders = self.wanted.iter().map(|c| Builder::new(c.data_type.arrow(), rows.len())).collect::<Result<Vec<_>>>()?;
        for (i, row) in rows.iter().enumerate() {
            match row.filter(|r| !r.tombstone) {
                Some(row) => self.append(&row, &mut builders).map_err(|e| e.context(format!("key {}", name(i))))?,
                None => builders.iter_mut().try_for_each(|b| b.append(None))?,
            }
        }
        builders.into_iter().map(Builder::finish).collect()
    }

    fn append(&self, row: &Row<'_>, builders: &mut [Builder]) -> Result<()> {
        let Some(schema) = self.schemas.iter().find(|s| s.id == row.schema_id) else {
            return Err(corrupt(&format!("its schema {} is not known", row.schema_id)));
        };
        let body = schema.layout.open(row.body)?;
        for (place, builder) in schema.places.iter().zip(builders) {
            builder.append(match place {
                Some((column, slot)) => body.get(*column, *slot)?,
                None => None,
            })?;
        }
        Ok(())
    }
}

enum Builder {
    Boolean(BooleanBuilder),
    I8(PrimitiveBuilder<Int8Type>),
    I16(PrimitiveBuilder<Int16Type>),
    I32(PrimitiveBuilder<Int32Type>),
    I64(PrimitiveBuilder<Int64Type>),
    F32(PrimitiveBuilder<Float32Type>),
    F64(PrimitiveBuilder<Float64Type>),
    Date(PrimitiveBuilder<Date32Type>),
    Time(PrimitiveBuilder<TimestampMicrosecondType>),
    Decimal(PrimitiveBuilder<Decimal128Type>),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    List { element: FieldRef, width: Option<usize>, ends: Vec<i32>, count: i32, nulls: NullBufferBuilder, values: Box<Builder> },
    Struct { fields: Fields, layout: Layout, nulls: NullBufferBuilder, columns: Vec<Builder>, len: usize },
}

impl Builder {
    fn new(t: &DataType, rows: usize) -> Result<Self> {
        Ok(match t {
            DataType::Boolean => Builder::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Int8 => Builder::I8(PrimitiveBuilder::with_capacity(rows)),
            DataType::Int16 => Builder::I16(PrimitiveBuilder::with_capacity(rows)),
            DataType::Int32 => Builder::I32(PrimitiveBuilder::with_capacity(rows)),
            DataType::Int64 => Builder::I64(PrimitiveBuilder::with_capacity(rows)),
            DataType::Float32 => Builder::F32(PrimitiveBuilder::with_capacity(rows)),
            DataType::Float64 => Builder::F64(PrimitiveBuilder::with_capacity(rows)),
            DataType::Date32 => Builder::Date(PrimitiveBuilder::with_capacity(rows)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Builder::Time(PrimitiveBuilder::with_capacity(rows).with_data_type(t.clone())),
            DataType::Decimal128(_, _) => Builder::Decimal(PrimitiveBuilder::with_capacity(rows).with_data_type(t.clone())),
            DataType::Utf8 => Builder::Text(StringBuilder::with_capacity(rows, rows * 16)),
            DataType::Binary => Builder::Binary(BinaryBuilder::with_capacity(rows, rows * 16)),
            DataType::List(element) => Builder::List {
                element: Arc::clone(element),
                width: width(element.data_type()),
                ends: vec![0],
                count: 0,
                nulls: NullBufferBuilder::new(rows),
                values: Box::new(Builder::new(element.data_type(), rows)?),
            },
            DataType::Struct(fields) => Builder::Struct {
                fields: fields.clone(),
                layout: Layout::new(fields.iter().map(|f| f.data_type())),
                nulls: NullBufferBuilder::new(rows),
                columns: fields.iter().map(|f| Builder::new(f.data_type(), rows)).collect::<Result<_>>()?,
                len: 0,
            },
            other => return Err(Error::internal(format!("an online row cannot hold {other}"))),
        })
    }

    fn append(&mut self, value: Option<&[u8]>) -> Result<()> {
        fn number<const N: usize>(value: Option<&[u8]>) -> Result<Option<[u8; N]>> {
            value.map(|v| v.try_into().map_err(|_| corrupt("a value has the wrong width"))).transpose()
        }
        match self {
            Builder::Boolean(b) => b.append_option(number::<1>(value)?.map(|v| v[0] != 0)),
            Builder::I8(b) => b.append_option(number(value)?.map(i8::from_be_bytes)),
            Builder::I16(b) => b.append_option(number(value)?.map(i16::from_be_bytes)),
            Builder::I32(b) => b.append_option(number(value)?.map(i32::from_be_bytes)),
            Builder::I64(b) => b.append_option(number(value)?.map(i64::from_be_bytes)),
            Builder::F32(b) => b.append_option(number(value)?.map(f32::from_be_bytes)),
            Builder::F64(b) => b.append_option(number(value)?.map(f64::from_be_bytes)),
            Builder::Date(b) => b.append_option(number(value)?.map(i32::from_be_bytes)),
            Builder::Time(b) => b.append_option(number(value)?.map(i64::from_be_bytes)),
            Builder::Decimal(b) => b.append_option(number(value)?.map(i128::from_be_bytes)),
            Builder::Text(b) => {
                let text = value.map(|v| std::str::from_utf8(v).map_err(|_| corrupt("a text is not UTF-8"))).transpose()?;
                fits(b.values_slice().len(), value)?;
                b.append_option(text);
            }
            Builder::Binary(b) => {
                fits(b.values_slice().len(), value)?;
                b.append_option(value);
            }
            Builder::List { width, ends, count, nulls, values, .. } => {
                if let Some(bytes) = value {
                    let n = append_list(bytes, *width, values)?;
                    *count = i32::try_from(n).ok().and_then(|n| count.checked_add(n)).ok_or_else(|| {
                        Error::exhausted("the lists of one batch have more than 2³¹ elements").with_hint("look up fewer keys at a time")
                    })?;
                }
                nulls.append(value.is_some());
                ends.push(*count);
            }
            Builder::Struct { layout, nulls, columns, len, .. } => {
                let body = value.map(|v| layout.open(v)).transpose()?;
                for (i, (column, slot)) in columns.iter_mut().zip(&layout.slots).enumerate() {
                    column.append(body.as_ref().map(|b| b.get(i, *slot)).transpose()?.flatten())?;
                }
                nulls.append(value.is_some());
                *len += 1;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<ArrayRef> {
        Ok(match self {
            Builder::Boolean(mut b) => Arc::new(b.finish()),
            Builder::I8(mut b) => Arc::new(b.finish()),
            Builder::I16(mut b) => Arc::new(b.finish()),
            Builder::I32(mut b) => Arc::new(b.finish()),
            Builder::I64(mut b) => Arc::new(b.finish()),
            Builder::F32(mut b) => Arc::new(b.finish()),
            Builder::F64(mut b) => Arc::new(b.finish()),
            Builder::Date(mut b) => Arc::new(b.finish()),
            Builder::Time(mut b) => Arc::new(b.finish()),
            Builder::Decimal(mut b) => Arc::new(b.finish()),
            Builder::Text(mut b) => Arc::new(b.finish()),
            Builder::Binary(mut b) => Arc::new(b.finish()),
            Builder::List { element, ends, mut nulls, values, .. } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
                Arc::new(ListArray::try_new(element, offsets, values.finish()?, nulls.finish())?)
            }
            Builder::Struct { fields, mut nulls, columns, len, .. } => {
                let columns = columns.into_iter().map(Builder::finish).collect::<Result<Vec<_>>>()?;
                Arc::new(StructArray::try_new_with_length(fields, columns, nulls.finish(), len)?)
            }
        })
    }
}

/// Arrow's 32-bit offsets end at 2 GiB per batch.
fn fits(held: usize, value: Option<&[u8]>) -> Result<()> {
    match value {
        Some(v) if held + v.len() > i32::MAX as usize => {
            Err(Error::exhausted("the texts of one batch exceed 2 GiB").with_hint("look up fewer keys at a time"))
        }
        _ => Ok(()),
    }
}

fn append_list(bytes: &[u8], width: Option<usize>, values: &mut Builder) -> Result<usize> {
    let mut rest = Bytes(bytes);
    let count = rest.u32()?;
    let nulls = rest.take(count.div_ceil(8))?;
    match width {
        Some(w) => {
            let fixed = rest.take(count.checked_mul(w).ok_or_else(|| corrupt("a list is too long"))?)?;
            for (i, v) in fixed.chunks_exact(w).enumerate() {
                values.append((!is_null(nulls, i)).then_some(v))?;
            }
        }
        None => {
            let ends = rest.take(count.checked_mul(4).ok_or_else(|| corrupt("a list is too long"))?)?;
            let variable = Variable { ends, bytes: rest.0 };
            for i in 0..count {
                values.append(if is_null(nulls, i) { None } else { Some(variable.get(i)?) })?;
            }
        }
    }
    Ok(count)
}
