//! Values of events: a row of a column as one plain value, with the order in which aggregates compare.

use std::cmp::Ordering;
use std::sync::Arc;

use datafusion::arrow::array::types::*;
use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryBuilder, BooleanArray, PrimitiveArray, StringBuilder, new_null_array,
};
use datafusion::arrow::datatypes::{DataType, TimeUnit};

use crate::error::{Error, Result};

/// A value of any type that an aggregate keeps.
#[derive(Debug, Clone)]
pub enum Value {
    /// Integers, BOOLEAN, DATE, TIMESTAMP.
    Integer(i64),
    /// FLOAT and DOUBLE. Ordered as Arrow orders them: −0 before 0, NaN last.
    Float(f64),
    /// Unscaled.
    Decimal(i128),
    /// VARCHAR and BYTEA.
    Bytes(Box<[u8]>),
}

impl Value {
    fn rank(&self) -> u8 {
        match self {
            Value::Integer(_) => 0,
            Value::Float(_) => 1,
            Value::Decimal(_) => 2,
            Value::Bytes(_) => 3,
        }
    }

    /// Bytes beside the value itself.
    pub fn size(&self) -> usize {
        match self {
            Value::Bytes(b) => b.len(),
            _ => 0,
        }
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
            (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

/// Whether values of a type can be kept.
pub fn is_plain(t: &DataType) -> bool {
    t.is_signed_integer()
        || matches!(
            t,
            DataType::Boolean
                | DataType::Date32
                | DataType::Timestamp(TimeUnit::Microsecond, _)
                | DataType::Float32
                | DataType::Float64
                | DataType::Decimal128(..)
                | DataType::Utf8
                | DataType::Binary
        )
}

/// A column, downcast once.
#[derive(Debug)]
pub enum Column<'a> {
    Boolean(&'a BooleanArray),
    I8(&'a PrimitiveArray<Int8Type>),
    I16(&'a PrimitiveArray<Int16Type>),
    I32(&'a PrimitiveArray<Int32Type>),
    I64(&'a PrimitiveArray<Int64Type>),
    Date(&'a PrimitiveArray<Date32Type>),
    Time(&'a PrimitiveArray<TimestampMicrosecondType>),
    F32(&'a PrimitiveArray<Float32Type>),
    F64(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a PrimitiveArray<Decimal128Type>),
    Text(&'a datafusion::arrow::array::StringArray),
    Binary(&'a datafusion::arrow::array::BinaryArray),
}

impl<'a> Column<'a> {
    pub fn new(a: &'a ArrayRef) -> Result<Self> {
        Ok(match a.data_type() {
            DataType::Boolean => Column::Boolean(a.as_boolean()),
            DataType::Int8 => Column::I8(a.as_primitive()),
            DataType::Int16 => Column::I16(a.as_primitive()),
            DataType::Int32 => Column::I32(a.as_primitive()),
            DataType::Int64 => Column::I64(a.as_primitive()),
            DataType::Date32 => Column::Date(a.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Column::Time(a.as_primitive()),
            DataType::Float32 => Column::F32(a.as_primitive()),
            DataType::Float64 => Column::F64(a.as_primitive()),
            DataType::Decimal128(..) => Column::Decimal(a.as_primitive()),
            DataType::Utf8 => Column::Text(a.as_string()),
            DataType::Binary => Column::Binary(a.as_binary()),
            other => return Err(Error::internal(format!("an aggregate cannot keep values of type {other}"))),
        })
    }

    fn array(&self) -> &dyn Array {
        match self {
            Column::Boolean(a) => *a,
            Column::I8(a) => *a,
            Column::I16(a) => *a,
            Column::I32(a) => *a,
            Column::I64(a) => *a,
            Column::Date(a) => *a,
            Column::Time(a) => *a,
            Column::F32(a) => *a,
            Column::F64(a) => *a,
            Column::Decimal(a) => *a,
            Column::Text(a) => *a,
            Column::Binary(a) => *a,
        }
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.array().is_null(row)
    }

    /// The value of a row; `None`: NULL.
    pub fn get(&self, row: usize) -> Option<Value> {
        if self.is_null(row) {
            return None;
        }
        Some(match self {
            Column::Boolean(a) => Value::Integer(a.value(row).into()),
            Column::I8(a) => Value::Integer(a.value(row).into()),
            Column::I16(a) => Value::Integer(a.value(row).into()),
            Column::I32(a) => Value::Integer(a.value(row).into()),
            Column::I64(a) => Value::Integer(a.value(row)),
            Column::Date(a) => Value::Integer(a.value(row).into()),
            Column::Time(a) => Value::Integer(a.value(row)),
            Column::F32(a) => Value::Float(a.value(row).into()),
            Column::F64(a) => Value::Float(a.value(row)),
            Column::Decimal(a) => Value::Decimal(a.value(row)),
            Column::Text(a) => Value::Bytes(a.value(row).as_bytes().into()),
            Column::Binary(a) => Value::Bytes(a.value(row).into()),
        })
    }

    /// The order of two rows with values, without taking them out.
    pub fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            Column::Text(c) => c.value(a).cmp(c.value(b)),
            Column::Binary(c) => c.value(a).cmp(c.value(b)),
            _ => self.get(a).cmp(&self.get(b)),
        }
    }
}

/// Values as a column of a type.
pub fn array(values: impl ExactSizeIterator<Item = Option<Value>> + Clone, t: &DataType) -> Result<ArrayRef> {
    fn primitive<T: ArrowPrimitiveType>(
        values: impl Iterator<Item = Option<Value>>,
        t: &DataType,
        f: impl Fn(&Value) -> Option<T::Native>,
    ) -> ArrayRef {
        let array: PrimitiveArray<T> = values.map(|v| v.as_ref().and_then(&f)).collect();
        Arc::new(array.with_data_type(t.clone()))
    }
    let integer = |v: &Value| match v {
        Value::Integer(i) => Some(*i),
        _ => None,
    };
    Ok(match t {
        DataType::Boolean => Arc::new(values.map(|v| v.as_ref().and_then(integer).map(|i| i != 0)).collect::<BooleanArray>()),
        DataType::Int8 => primitive::<Int8Type>(values, t, |v| integer(v).and_then(|i| i.try_into().ok())),
        DataType::Int16 => primitive::<Int16Type>(values, t, |v| integer(v).and_then(|i| i.try_into().ok())),
        DataType::Int32 => primitive::<Int32Type>(values, t, |v| integer(v).and_then(|i| i.try_into().ok())),
        DataType::Int64 => primitive::<Int64Type>(values, t, integer),
        DataType::Date32 => primitive::<Date32Type>(values, t, |v| integer(v).and_then(|i| i.try_into().ok())),
        DataType::Timestamp(TimeUnit::Microsecond, _) => primitive::<TimestampMicrosecondType>(values, t, integer),
        DataType::Float32 => primitive::<Float32Type>(values, t, |v| if let Value::Float(f) = v { Some(*f as f32) } else { None }),
        DataType::Float64 => primitive::<Float64Type>(values, t, |v| if let Value::Float(f) = v { Some(*f) } else { None }),
        DataType::Decimal128(..) => primitive::<Decimal128Type>(values, t, |v| if let Value::Decimal(d) = v { Some(*d) } else { None }),
        DataType::Utf8 => {
            let mut b = StringBuilder::new();
            for v in values {
                match v {
                    Some(Value::Bytes(bytes)) => {
                        b.append_value(std::str::from_utf8(&bytes).map_err(|_| Error::internal("a text is not UTF-8"))?)
                    }
                    _ => b.append_null(),
                }
            }
            Arc::new(b.finish())
        }
        DataType::Binary => {
            let mut b = BinaryBuilder::new();
            for v in values {
                match v {
                    Some(Value::Bytes(bytes)) => b.append_value(&bytes),
                    _ => b.append_null(),
                }
            }
            Arc::new(b.finish())
        }
        DataType::Null => new_null_array(t, values.len()),
        other => return Err(Error::internal(format!("an aggregate cannot give values of type {other}"))),
    })
}
