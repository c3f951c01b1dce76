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
    // -0 is 0, and a float is the decimal that it is written as
    let taken: Vec<(ArrayRef, ArrayRef)> = vec![
        (Arc::new(Float64Array::from(vec![-0.0])), Arc::new(Int64Array::from(vec![0]))),
        (Arc::new(Float64Array::from(vec![12345678901234567.891])), decimals(vec![12_345_678_901_234_568_000], 20, 3)),
        (texts(vec!["2026-01-01 10:00", "2026-01-01T10:00:00+01:00"]), instants(vec![1_767_261_600_000_000, 1_767_258_000_000_000])),
        (texts(vec!["9999-12-31"]), instants(vec![253_402_214_400_000_000])),
        (texts(vec!["1e2"]), decimals(vec![10_000], 10, 2)),
    ];
    for (from, to) in taken {
        assert_eq!(&exactly(&from, to.data_type()).unwrap(), &to);
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
        (Arc::new(BooleanArray::from(vec![true])), DataType::Int64, "true", "BIGINT"),
        (Arc::new(Int64Array::from(vec![1])), timestamp_type(), "1", "TIMESTAMP"),
        (texts(vec!["1970-01-01 00:00:00.0000001"]), DataType::Date32, "0000001", "DATE"),
        (texts(vec!["9999-12-31 00:00:00.0000001"]), timestamp_type(), "0000001", "TIMESTAMP"),
        (texts(vec!["0.00000000000000000000000000000000000000001"]), DataType::Decimal128(38, 10), "0.0", "DECIMAL(38, 10)"),
        (Arc::new(Float64Array::from(vec![1e300])), DataType::Float32, "1e300", "FLOAT"),
        (texts(vec!["1e400"]), DataType::Float64, "1e400", "DOUBLE"),
        (Arc::new(Date32Array::from(vec![i32::MAX])), timestamp_type(), "", "TIMESTAMP"),
    ];
    for (from, want, shown, name) in refused {
        let e = exactly(&from, &want).unwrap_err();
        assert!(e.kind() == Kind::Invalid && e.message().contains(shown) && e.message().contains(name), "{e}");
        assert!(e.hint().is_some_and(|h| h.contains(name)), "{e:?}");
    }
    assert!(exactly(&(Arc::new(BooleanArray::from(vec![true])) as ArrayRef), &DataType::Date32).is_err());
}

#[test]
fn what_is_inside_of_lists_and_structs_is_exact() {
    use datafusion::arrow::array::{FixedSizeListArray, ListArray, StructArray};
    use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
    use datafusion::arrow::datatypes::{Field, Fields};
    let field = |name: &str, t: DataType| Arc::new(Field::new(name, t, true));
    let floats = |v: Vec<f64>| Arc::new(Float64Array::from(v)) as ArrayRef;
    let list = |lengths: Vec<usize>, values: Vec<f64>, nulls: Option<Vec<bool>>| {
        let of = field("item", DataType::Float64);
        Arc::new(ListArray::new(of, OffsetBuffer::from_lengths(lengths), floats(values), nulls.map(NullBuffer::from))) as ArrayRef
    };
    let integers = DataType::List(field("element", DataType::Int64));
    let m = exact(&list(vec![0, 2, 0, 1], vec![1.0, 2.0, 1.5], None), &integers).unwrap_err();
    assert_eq!((m.row, m.message().as_str()), (3, "1.5 is no BIGINT"));
    assert!(m.hint().contains("BIGINT[]"), "{}", m.hint());
    // slices, and what lies under a NULL
    let lists = list(vec![1, 1, 2], vec![9.5, 7.5, 1.0, 2.0], Some(vec![true, false, true]));
    let taken = exact(&lists.slice(1, 2), &integers).unwrap();
    assert!(taken.is_null(0) && taken.as_list::<i32>().value(1).len() == 2);
    assert_eq!(exact(&lists, &integers).unwrap_err().row, 0);
    let fixed = FixedSizeListArray::new(field("item", DataType::Float64), 1, floats(vec![1.5, 2.0]), Some(vec![false, true].into()));
    let taken = exact(&(Arc::new(fixed) as ArrayRef), &integers).unwrap();
    assert!(taken.is_null(0) && taken.is_valid(1));
    // fields by name
    let structs = |columns: Vec<(&str, ArrayRef)>| {
        let of: Vec<_> = columns.iter().map(|(n, c)| (field(n, c.data_type().clone()), Arc::clone(c))).collect();
        Arc::new(StructArray::from(of)) as ArrayRef
    };
    let want = DataType::Struct(Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]));
    let taken = exact(&structs(vec![("b", texts(vec!["x"])), ("a", floats(vec![2.0]))]), &want).unwrap();
    assert_eq!(taken.as_struct().column(0).as_ref(), &Int64Array::from(vec![2]) as &dyn Array);
    assert!(exact(&structs(vec![("a", floats(vec![2.0]))]), &want).unwrap().as_struct().column(1).is_null(0));
    assert_eq!(exact(&structs(vec![("a", floats(vec![2.5]))]), &want).unwrap_err().message(), "2.5 is no BIGINT");
    let lost = exact(&structs(vec![("a", floats(vec![2.0])), ("c", floats(vec![2.0]))]), &want).unwrap_err();
    assert_eq!(lost.message(), "field \"c\" is not in STRUCT<a BIGINT, b VARCHAR>");
    assert!(exact(&(Arc::new(Int64Array::from(vec![1])) as ArrayRef), &integers).is_err());
    assert!(exact_key(&floats(vec![1.5]), &DataType::Utf8).is_err() && exact(&floats(vec![1.5]), &DataType::Utf8).is_ok());
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
