use datafusion::arrow::array::{
    AsArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int64Array, LargeStringArray,
    StringArray, StringViewArray, TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array, new_null_array,
};
use datafusion::arrow::datatypes::{Float32Type, Int8Type};

use super::*;
use crate::clock::DAY;
use crate::error::Kind;
use crate::model::types::timestamp_type;

fn decimals(values: Vec<i128>, precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
}

fn instants(micros: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"))
}

fn texts(values: Vec<&str>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

#[test]
fn a_value_that_is_the_same_is_taken() {
    use DataType::*;
    let words: DictionaryArray<Int8Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
    let taken: Vec<(ArrayRef, ArrayRef)> = vec![
        (Arc::new(Int64Array::from(vec![Some(7), None])), Arc::new(datafusion::arrow::array::Int16Array::from(vec![Some(7), None]))),
        (Arc::new(UInt64Array::from(vec![7])), Arc::new(Int64Array::from(vec![7]))),
        (Arc::new(Float64Array::from(vec![7.0])), Arc::new(Int64Array::from(vec![7]))),
        (Arc::new(Float64Array::from(vec![1.26, -0.1])), decimals(vec![126, -10], 10, 2)),
        (Arc::new(Float32Array::from(vec![1.26])), decimals(vec![126], 10, 2)),
        (decimals(vec![100_100], 10, 2), Arc::new(Int64Array::from(vec![1001]))),
        (decimals(vec![1260], 10, 3), decimals(vec![126], 10, 2)),
        (Arc::new(Int64Array::from(vec![3])), decimals(vec![300], 10, 2)),
        (texts(vec!["1.260", "3"]), decimals(vec![126, 300], 10, 2)),
        (texts(vec!["7"]), Arc::new(Int64Array::from(vec![7]))),
        (Arc::new(StringViewArray::from(vec!["1970-01-02"])), Arc::new(Date32Array::from(vec![1]))),
        (texts(vec!["1970-01-02", "1970-01-01T00:00:00.000007"]), instants(vec![DAY, 7])),
        // outside of what nanoseconds can hold
        (texts(vec!["0001-01-01"]), Arc::new(Date32Array::from(vec![-719_162]))),
        (Arc::new(TimestampNanosecondArray::from(vec![7_000])), instants(vec![7])),
        (Arc::new(TimestampSecondArray::from(vec![1])), instants(vec![1_000_000])),
        (Arc::new(Date32Array::from(vec![1])), instants(vec![DAY])),
        (instants(vec![DAY]), Arc::new(Date32Array::from(vec![1]))),
        (Arc::new(LargeStringArray::from(vec!["x"])), texts(vec!["x"])),
        (Arc::new(words), Arc::new(StringArray::from(vec![Some("a"), None, Some("a")]))),
        (new_null_array(&Null, 1), Arc::new(Int64Array::from(vec![None]))),
    ];
    for (from, to) in taken {
        let cast = exactly(&from, to.data_type()).unwrap_or_else(|e| panic!("{} → {}: {e}", from.data_type(), to.data_type()));
        assert_eq!(&cast, &to);
    }
    // a float is never a key, and rounds
    let float = exactly(&(Arc::new(Float64Array::from(vec![0.1])) as ArrayRef), &Float32).unwrap();
    assert_eq!(float.as_primitive::<Float32Type>().values(), &[0.1]);
}

#[test]
fn a_value_that_would_be_another_is_refused_by_name() {
    let decimal = DataType::Decimal128(10, 1);
    let refused: Vec<(ArrayRef, DataType, &str, &str)> = vec![
        (decimals(vec![120, 126], 10, 2), decimal.clone(), "1.26", "DECIMAL(10, 1)"),
        (Arc::new(Float64Array::from(vec![1.26])), decimal.clone(), "1.26", "DECIMAL(10, 1)"),
        (texts(vec!["1.26"]), decimal, "\"1.26\"", "DECIMAL(10, 1)"),
        (decimals(vec![10_017], 5, 1), DataType::Int64, "1001.7", "BIGINT"),
        (Arc::new(Float64Array::from(vec![1.5])), DataType::Int64, "1.5", "BIGINT"),
        (Arc::new(Float64Array::from(vec![f64::NAN])), DataType::Int64, "NaN", "BIGINT"),
        (Arc::new(Int64Array::from(vec![1 << 40])), DataType::Int32, "1099511627776", "INT"),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), DataType::Int64, "18446744073709551615", "BIGINT"),
        (texts(vec!["7", "abc"]), DataType::Int64, "\"abc\"", "BIGINT"),
        (Arc::new(TimestampNanosecondArray::from(vec![7_001])), timestamp_type(), "000007001", "TIMESTAMP"),
        (texts(vec!["1970-01-01 00:00:00.000007001"]), timestamp_type(), "000007001", "TIMESTAMP"),
        (instants(vec![DAY + 1]), DataType::Date32, "00:00:00.000001", "DATE"),
        (texts(vec!["1970-01-02 10:00:00"]), DataType::Date32, "10:00:00", "DATE"),
        (Arc::new(Int64Array::from(vec![2])), DataType::Boolean, "2", "BOOLEAN"),
    ];
    for (from, want, shown, name) in refused {
        let e = exactly(&from, &want).unwrap_err();
        assert!(e.kind() == Kind::Invalid && e.message().contains(shown) && e.message().contains(name), "{e}");
        assert!(e.hint().is_some_and(|h| h.contains(name)), "{e:?}");
    }
    assert!(exactly(&(Arc::new(BooleanArray::from(vec![true])) as ArrayRef), &DataType::Date32).is_err());
}

#[test]
fn types_that_may_lose_are_known_without_values() {
    use DataType::*;
    let naive = |u| Timestamp(u, None);
    for (have, want) in [
        (Float64, Int64),
        (Float64, Decimal128(10, 2)),
        (Decimal128(10, 2), Decimal128(10, 1)),
        (Decimal128(10, 2), Int64),
        (naive(TimeUnit::Nanosecond), timestamp_type()),
        (timestamp_type(), Date32),
        (Utf8, Date32),
        (Utf8View, Decimal128(10, 2)),
        (Int64, Boolean),
        (Boolean, Int64),
        (Int64, timestamp_type()),
        (Date32, Int64),
        (Float64, Utf8),
        (Dictionary(Box::new(Int8), Box::new(Float64)), Int64),
    ] {
        assert!(loses(&have, &want), "{have} → {want}");
    }
    for (have, want) in [
        (Int64, Int16),
        (Int64, Decimal128(10, 2)),
        (Int64, Utf8),
        (Int64, Float64),
        (Decimal128(10, 1), Decimal128(10, 2)),
        (Decimal128(20, 2), Decimal128(10, 2)),
        (Decimal128(10, 0), Int64),
        (naive(TimeUnit::Second), timestamp_type()),
        (naive(TimeUnit::Microsecond), timestamp_type()),
        (Date32, timestamp_type()),
        (Utf8, timestamp_type()),
        (Utf8, Int64),
        (Utf8View, Utf8),
        (Float64, Float32),
        (Null, Date32),
    ] {
        assert!(!loses(&have, &want), "{have} → {want}");
    }
    assert!(!unlike(&Float64, &Int64) && !unlike(&Utf8, &Date32) && unlike(&Int64, &Date32));
}
