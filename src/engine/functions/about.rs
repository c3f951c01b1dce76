//! Functions that tell of a value: its type, a hash of it, the bucket that it falls into.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use crate::engine::columnar::{answer, arrays};
use crate::error::{Error, Result};
use crate::model::types::{ColumnType, timestamp_type};

/// The functions of this file.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let any = |n| Signature::any(n, Volatility::Immutable);
    vec![
        Arc::new(ScalarUDF::new_from_impl(TypeOf { signature: any(1) })),
        Arc::new(ScalarUDF::new_from_impl(HashOf { signature: Signature::variadic_any(Volatility::Immutable) })),
        Arc::new(ScalarUDF::new_from_impl(WidthBucket { signature: Signature::user_defined(Volatility::Immutable) })),
    ]
}

/// `typeof(x)`: the type in SQL's words.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TypeOf {
    signature: Signature,
}

impl ScalarUDFImpl for TypeOf {
    fn name(&self) -> &str {
        "typeof"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let Some(field) = args.arg_fields.first() else { return plan_err!("typeof wants one argument") };
        let name = match field.data_type() {
            DataType::Null => "NULL".to_string(),
            DataType::Timestamp(_, None) => "TIMESTAMP".to_string(),
            DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE".to_string(),
            t => ColumnType::stored(t).map_or_else(|_| t.to_string().to_uppercase(), |c| c.to_string()),
        };
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))))
    }
}

/// `hash(x, …)`: a BIGINT that is the same on every machine and in every version: the first eight bytes of BLAKE3 over
/// the values, each with a letter of its kind in front. Numbers of one value hash alike, whatever their width.
#[derive(Debug, PartialEq, Eq, Hash)]
struct HashOf {
    signature: Signature,
}

impl ScalarUDFImpl for HashOf {
    fn name(&self) -> &str {
        "hash"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        types.iter().try_for_each(|t| canonical(t).map(|_| ()))?;
        Ok(DataType::Int64)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let (arrays, one) = arrays(&args)?;
        let columns = arrays.iter().map(Bytes::new).collect::<DfResult<Vec<_>>>()?;
        let mut buffer = vec![];
        let hashes: Int64Array = (0..arrays.first().map_or(0, |a| a.len()))
            .map(|row| {
                buffer.clear();
                columns.iter().try_for_each(|c| c.put(row, &mut buffer))?;
                let digest = blake3::hash(&buffer);
                let mut first = [0; 8];
                first.copy_from_slice(&digest.as_bytes()[..8]);
                Ok(Some(i64::from_le_bytes(first)))
            })
            .collect::<Result<_>>()?;
        answer(Arc::new(hashes), one)
    }
}

/// The type that values are hashed in.
fn canonical(t: &DataType) -> Result<DataType> {
    Ok(match t {
        t if t.is_signed_integer() || matches!(t, DataType::UInt8 | DataType::UInt16 | DataType::UInt32) => DataType::Int64,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Boolean | DataType::Date32 | DataType::UInt64 | DataType::Decimal128(..) => t.clone(),
        DataType::Dictionary(_, v) => canonical(v)?,
        other => {
            return Err(Error::invalid(format!("hash does not take {other}")).with_hint("write hash(CAST(x AS VARCHAR)), or its parts"));
        }
    })
}

struct Bytes {
    array: ArrayRef,
}

impl Bytes {
    fn new(array: &ArrayRef) -> DfResult<Self> {
        Ok(Bytes { array: datafusion::arrow::compute::cast(array, &canonical(array.data_type())?)? })
    }

    /// Appends a value: a letter of its kind, then its bytes, with their length where that is not always the same.
    fn put(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        let a = &self.array;
        if a.is_null(row) {
            out.push(b'0');
            return Ok(());
        }
        let mut text = |kind: u8, bytes: &[u8]| {
            out.push(kind);
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        };
        match a.data_type() {
            DataType::Utf8 => text(b't', a.as_string::<i32>().value(row).as_bytes()),
            DataType::Binary => text(b'x', a.as_binary::<i32>().value(row)),
            DataType::Int64 => text(b'n', a.as_primitive::<Int64Type>().value(row).to_string().as_bytes()),
            DataType::Float64 => {
                // 0 and -0 are one value, and so are all NaN
                let v = a.as_primitive::<Float64Type>().value(row);
                let v = if v.is_nan() { f64::NAN } else { v + 0.0 };
                text(b'f', &v.to_bits().to_le_bytes());
            }
            t => {
                let kind = match t {
                    DataType::Boolean => b'b',
                    DataType::Date32 => b'd',
                    DataType::UInt64 => b'n',
                    DataType::Decimal128(..) => b'm',
                    t if *t == timestamp_type() => b's',
                    _ => b'o',
                };
                let shown = ArrayFormatter::try_new(a, &FormatOptions::default()).map(|f| f.value(row).to_string());
                text(kind, shown.map_err(|e| Error::internal(e.to_string()))?.as_bytes());
            }
        }
        Ok(())
    }
}

/// `width_bucket(x, low, high, n)`: the number of the bucket of equal width that x is in, 0 below and n + 1 from high on.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WidthBucket {
    signature: Signature,
}

impl ScalarUDFImpl for WidthBucket {
    fn name(&self) -> &str {
        "width_bucket"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [x, low, high, n] = types else {
            return plan_err!("width_bucket wants a value, a range and a number of buckets: width_bucket(x, 0, 100, 10)");
        };
        for t in [x, low, high, n] {
            if !(t.is_numeric() || t.is_null()) {
                return plan_err!("width_bucket wants numbers, not {t}");
            }
        }
        Ok(vec![DataType::Float64, DataType::Float64, DataType::Float64, DataType::Int64])
    }
    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Int64)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let (arrays, one) = arrays(&args)?;
        let [x, low, high, n] = arrays.as_slice() else { return plan_err!("width_bucket wants four arguments") };
        let number = |a: &ArrayRef, i: usize| a.is_valid(i).then(|| a.as_primitive::<Float64Type>().value(i));
        let row = |i: usize| {
            let n = n.is_valid(i).then(|| n.as_primitive::<Int64Type>().value(i));
            match (number(x, i), number(low, i), number(high, i), n) {
                (Some(x), Some(low), Some(high), Some(n)) => bucket(x, low, high, n).map(Some),
                _ => Ok(None),
            }
        };
        let made: Int64Array = (0..x.len()).map(row).collect::<Result<_>>()?;
        answer(Arc::new(made), one)
    }
}

fn bucket(x: f64, low: f64, high: f64, n: i64) -> Result<i64> {
    if n <= 0 || n == i64::MAX {
        return Err(Error::invalid(format!("width_bucket: {n} buckets")).with_hint("the number of buckets is at least 1"));
    }
    if !(low.is_finite() && high.is_finite()) || low == high {
        return Err(
            Error::invalid(format!("width_bucket: {low} to {high} is not a range")).with_hint("the bounds are two numbers that differ")
        );
    }
    // a range from high to low counts its buckets from above
    let (x, low, high) = if low < high { (x, low, high) } else { (-x, -low, -high) };
    Ok(match x {
        x if x < low => 0,
        // NaN is greater than all others
        x if x >= high || x.is_nan() => n + 1,
        x => (((x - low) / (high - low) * n as f64) as i64).min(n - 1) + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets() {
        for (x, low, high, n, want) in [
            (5.35, 0.024, 10.06, 5, 3),
            (-1.0, 0.0, 10.0, 5, 0),
            (10.0, 0.0, 10.0, 5, 6),
            (0.0, 0.0, 10.0, 5, 1),
            (9.999_999_999_999_999, 0.0, 10.0, 5, 5),
            (2.0, 10.0, 0.0, 5, 5),
            (f64::NAN, 0.0, 10.0, 5, 6),
        ] {
            assert_eq!(bucket(x, low, high, n).unwrap(), want, "{x}");
        }
        assert!(bucket(1.0, 0.0, 1.0, 0).is_err() && bucket(1.0, 1.0, 1.0, 3).is_err());
    }

    /// The bytes are a promise: a bucket of users stays what it is.
    #[test]
    fn hashes_stay() {
        let hash = |values: &[ScalarValue]| {
            let mut out = vec![];
            for v in values {
                Bytes::new(&v.to_array().unwrap()).unwrap().put(0, &mut out).unwrap();
            }
            out
        };
        let text = |t: &str| ScalarValue::Utf8(Some(t.into()));
        assert_eq!(hash(&[text("a"), ScalarValue::Int32(Some(7))]), b"t\x01\0\0\0\0\0\0\0an\x01\0\0\0\0\0\0\x007");
        assert_eq!(hash(&[ScalarValue::Int8(Some(7))]), hash(&[ScalarValue::UInt64(Some(7))]));
        assert_eq!(hash(&[ScalarValue::Float64(Some(-0.0))]), hash(&[ScalarValue::Float32(Some(0.0))]));
        assert_ne!(hash(&[text("a"), text("bc")]), hash(&[text("ab"), text("c")]));
        assert_eq!(hash(&[ScalarValue::Null]), b"0");
    }
}
