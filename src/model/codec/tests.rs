use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, ListArray, StringArray, StructArray, TimestampMicrosecondArray, TimestampNanosecondArray, new_null_array,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;

use super::key::display;
use super::*;
use crate::error::Kind;
use crate::model::Column;

fn column(name: &str, sql: &str) -> Column {
    Column { name: name.into(), data_type: sql.parse().unwrap() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn key(columns: &[ArrayRef]) -> EncodedKey {
    encode_keys(columns).unwrap().remove(0).unwrap()
}

fn int_key(v: i64) -> EncodedKey {
    key(&[Arc::new(Int64Array::from(vec![v]))])
}

fn utc(values: Vec<Option<i64>>) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from(values).with_timezone("UTC")
}

#[test]
fn golden_keys() {
    let cases: Vec<(ArrayRef, &str)> = vec![
        (Arc::new(Int64Array::from(vec![1001])), "0180000000000003e9"),
        (Arc::new(Int8Array::from(vec![-1])), "017fffffffffffffff"),
        (Arc::new(Int16Array::from(vec![1])), "018000000000000001"),
        (Arc::new(Int32Array::from(vec![1])), "018000000000000001"),
        (Arc::new(BooleanArray::from(vec![true])), "0201"),
        (Arc::new(Date32Array::from(vec![-1])), "037fffffebe228a000"),
        (Arc::new(utc(vec![Some(-86_400_000_000)])), "037fffffebe228a000"),
        (Arc::new(Decimal128Array::from(vec![150]).with_precision_and_scale(10, 2).unwrap()), "048000000000000000000000000000000f81"),
        (Arc::new(Decimal128Array::from(vec![0]).with_precision_and_scale(10, 2).unwrap()), "048000000000000000000000000000000080"),
        (Arc::new(StringArray::from(vec!["a\0b"])), "056100ff620000"),
        (Arc::new(BinaryArray::from(vec![&b"\x00"[..]])), "0600ff0000"),
    ];
    for (array, bytes) in cases {
        assert_eq!(hex(key(std::slice::from_ref(&array)).stored()), bytes, "{array:?}");
    }
    let two: [ArrayRef; 2] = [Arc::new(StringArray::from(vec!["JFK"])), Arc::new(Int32Array::from(vec![7]))];
    assert_eq!(hex(key(&two).stored()), "054a464b0000018000000000000007");
    assert_eq!(display(key(&two).stored()), "(\"JFK\", 7)");
}

#[test]
fn long_keys_are_hashed_and_carried_in_full() {
    let of = |n: usize| key(&[Arc::new(StringArray::from(vec!["x".repeat(n)]))]);
    assert_eq!((of(253).stored().len(), of(253).full()), (256, None));
    let long = of(300);
    assert_eq!((long.stored().len(), long.full().map(<[u8]>::len)), (257, Some(303)));
    assert_eq!(hex(&long.stored()[241..]), "0f0535def6d439cf10505bf8695c50d5");
    assert_ne!(long.stored(), of(301).stored());

    let row = RowEncoder::new(1, &[]).tombstone(&long, 5);
    let row = Row::parse(&row).unwrap();
    assert!(row.belongs_to(&long) && !row.belongs_to(&of(301)) && !row.belongs_to(&of(1)));
}

#[test]
fn a_null_in_any_key_column_is_no_key() {
    let keys = encode_keys(&[
        Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
        Arc::new(StringArray::from(vec![None, Some("b"), Some("c")])),
    ])
    .unwrap();
    assert_eq!(keys.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true]);
}

#[test]
fn request_values_are_cast_or_refused() {
    let cast = |a: ArrayRef, sql: &str| cast_to_key_types(&[a], &[column("k", sql)]).map(|mut v| v.remove(0));
    let ok: Vec<(ArrayRef, &str, ArrayRef)> = vec![
        (Arc::new(Int64Array::from(vec![Some(7), None])), "INT", Arc::new(Int32Array::from(vec![Some(7), None]))),
        (Arc::new(Float64Array::from(vec![7.0])), "BIGINT", Arc::new(Int64Array::from(vec![7]))),
        (Arc::new(StringArray::from(vec!["7"])), "BIGINT", Arc::new(Int64Array::from(vec![7]))),
        (Arc::new(Int64Array::from(vec![7])), "VARCHAR", Arc::new(StringArray::from(vec!["7"]))),
        (Arc::new(TimestampNanosecondArray::from(vec![7_000])), "TIMESTAMP", Arc::new(utc(vec![Some(7)]))),
        (new_null_array(&DataType::Null, 1), "BIGINT", Arc::new(Int64Array::from(vec![None]))),
    ];
    for (from, sql, to) in ok {
        assert_eq!(&cast(from, sql).unwrap(), &to, "{sql}");
    }
    let refused: Vec<(ArrayRef, &str, &str)> = vec![
        (Arc::new(Int64Array::from(vec![1, 1 << 40])), "INT", "1099511627776"),
        (Arc::new(Float64Array::from(vec![1.5])), "BIGINT", "1.5"),
        (Arc::new(StringArray::from(vec!["x7"])), "BIGINT", "x7"),
        (Arc::new(TimestampNanosecondArray::from(vec![1])), "TIMESTAMP", "1970-01-01T00:00:00.000000001"),
        (Arc::new(Float64Array::from(vec![1.0])), "VARCHAR", "CAST"),
        (Arc::new(BooleanArray::from(vec![true])), "BIGINT", "CAST"),
        (Arc::new(Int64Array::from(vec![1])), "TIMESTAMP", "CAST"),
    ];
    for (from, sql, shown) in refused {
        let e = cast(from, sql).unwrap_err();
        assert!(e.kind() == Kind::Invalid && e.message().contains("\"k\"") && e.to_string().contains(shown), "{e}");
    }
    assert!(cast_to_key_types(&[], &[column("k", "INT")]).is_err());
}

fn samples() -> (Vec<Column>, Vec<ArrayRef>) {
    let floats: ArrayRef = Arc::new(Float32Array::from(vec![Some(1.5), None, Some(-0.0)]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("é"), Some(""), None]));
    let list = |values: ArrayRef, ends: Vec<usize>, valid: Vec<bool>| -> ArrayRef {
        let field = Arc::new(datafusion::arrow::datatypes::Field::new("element", values.data_type().clone(), true));
        Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(ends), values, Some(NullBuffer::from(valid))))
    };
    let columns = vec![
        column("flag", "BOOLEAN"),
        column("tiny", "TINYINT"),
        column("small", "SMALLINT"),
        column("int", "INT"),
        column("big", "BIGINT"),
        column("single", "FLOAT"),
        column("double", "DOUBLE"),
        column("day", "DATE"),
        column("time", "TIMESTAMP"),
        column("price", "DECIMAL(20, 3)"),
        column("text", "VARCHAR"),
        column("bytes", "BYTEA"),
        column("vector", "FLOAT[]"),
        column("words", "VARCHAR[]"),
        column("pair", "STRUCT<a BIGINT, b VARCHAR[]>"),
        column("nested", "VARCHAR[][]"),
    ];
    let words = list(texts.clone(), vec![2, 1, 0], vec![true, true, true]);
    let DataType::Struct(fields) = columns[14].data_type.arrow().clone() else { unreachable!() };
    let pair = StructArray::new(
        fields,
        vec![Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])), words.clone()],
        Some(vec![true, true, false].into()),
    );
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(1)])),
        Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(1)])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(1)])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(1)])),
        floats.clone(),
        Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(f64::INFINITY)])),
        Arc::new(Date32Array::from(vec![Some(-719_162), None, Some(1)])),
        Arc::new(utc(vec![Some(i64::MIN), None, Some(i64::MAX)])),
        Arc::new(Decimal128Array::from(vec![Some(-150), None, Some(1)]).with_precision_and_scale(20, 3).unwrap()),
        texts,
        Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None, Some(&b""[..])])),
        list(floats, vec![3, 0, 0], vec![true, true, false]),
        words.clone(),
        Arc::new(pair),
        list(words, vec![0, 2, 1], vec![false, true, true]),
    ];
    (columns, arrays)
}

fn encode(columns: &[Column], arrays: &[ArrayRef]) -> Vec<Vec<u8>> {
    let n = arrays[0].len();
    let keys: Vec<_> = (0..n as i64).map(int_key).collect();
    let ts = utc((0..n as i64).map(Some).collect());
    RowEncoder::new(1, columns).encode(&keys, &ts, None, &Int64Array::from_iter_values(0..n as i64), 9, arrays).unwrap()
}

fn decode(schemas: &[(u32, Vec<Column>)], wanted: &[Column], rows: &[Vec<u8>]) -> Vec<ArrayRef> {
    let rows: Vec<_> = rows.iter().map(|r| Some(Row::parse(r).unwrap())).collect();
    RowDecoder::new(schemas, wanted).unwrap().decode(&rows, |i| i.to_string()).unwrap()
}

/// Row by row as text: NaN equals NaN, and what lies under a NULL struct does not count.
fn printed(a: &ArrayRef) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let f = ArrayFormatter::try_new(a, &options).unwrap();
    (0..a.len()).map(|i| f.value(i).to_string()).collect()
}

#[test]
fn golden_row() {
    let columns = [column("a", "INT"), column("t", "VARCHAR"), column("v", "FLOAT[]"), column("n", "BIGINT")];
    let list = ListArray::from_iter_primitive::<datafusion::arrow::datatypes::Float32Type, _, _>(vec![Some(vec![Some(1.0), None])]);
    let list = cast(&list, columns[2].data_type.arrow()).unwrap();
    let arrays: [ArrayRef; 4] =
        [Arc::new(Int32Array::from(vec![-2])), Arc::new(StringArray::from(vec!["hi"])), list, Arc::new(Int64Array::from(vec![None]))];
    let rows = RowEncoder::new(7, &columns)
        .encode(&[int_key(1)], &utc(vec![Some(1)]), Some(&utc(vec![Some(-1)])), &Int64Array::from(vec![1 << 32]), 3, &arrays)
        .unwrap();
    let want = [
        "8000000000000001",
        "7fffffffffffffff",
        "8000000100000000",
        "0000000000000003",
        "01",
        "00",
        "00000007",
        "08",
        "fffffffe",
        "0000000000000000",
        "00000002",
        "0000000f",
        "6869",
        "00000002",
        "02",
        "3f800000",
        "00000000",
    ];
    assert_eq!(hex(&rows[0]), want.concat());
    let grave = RowEncoder::new(7, &columns).tombstone(&int_key(1), 4);
    assert_eq!(hex(&grave), ["0000000000000000"; 3].concat() + "0000000000000004" + "01" + "01" + "00000007");
    assert!(Row::parse(&grave).unwrap().tombstone);
}

#[test]
fn all_types_round_trip() {
    let (columns, arrays) = samples();
    let rows = encode(&columns, &arrays);
    let back = decode(&[(1, columns.clone())], &columns, &rows);
    for (c, (a, b)) in columns.iter().zip(arrays.iter().zip(&back)) {
        assert_eq!(printed(a), printed(b), "{}", c.name);
    }
    // Any subset, in any order, other schemas beside it.
    let wanted = [columns[13].clone(), column("new", "BIGINT"), columns[2].clone()];
    let some = decode(&[(2, vec![]), (1, columns.clone())], &wanted, &rows);
    assert_eq!((&some[0], &some[2]), (&arrays[13], &arrays[2]));
    assert_eq!(some[1].null_count(), 3);
}

#[test]
fn absent_and_deleted_rows_are_null() {
    let (columns, arrays) = samples();
    let rows = encode(&columns, &arrays);
    let grave = RowEncoder::new(1, &columns).tombstone(&int_key(9), 1);
    let parsed = [None, Some(Row::parse(&rows[0]).unwrap()), Some(Row::parse(&grave).unwrap())];
    let back = RowDecoder::new(&[(1, columns.clone())], &columns).unwrap().decode(&parsed, |i| i.to_string()).unwrap();
    for (a, b) in arrays.iter().zip(back) {
        assert_eq!((0..3).map(|i| b.is_null(i)).collect::<Vec<_>>(), [true, a.is_null(0), true]);
    }
}

#[test]
fn damage_is_an_error_that_names_the_key() {
    let (columns, arrays) = samples();
    let row = encode(&columns, &arrays).remove(0);
    let decoder = RowDecoder::new(&[(1, columns.clone())], &columns).unwrap();
    for cut in 0..row.len() {
        if let Ok(parsed) = Row::parse(&row[..cut]) {
            let e = decoder.decode(&[Some(parsed)], |_| "(17)".into()).unwrap_err();
            assert!(e.message().starts_with("key (17): "), "{e}");
        } else {
            assert!(cut < 38);
        }
    }
    let mut newer = row.clone();
    newer[32] = 9;
    let e = Row::parse(&newer).unwrap_err();
    assert!(e.message().contains("kind 9") && e.hint().unwrap().contains("newer version"), "{e}");
    let mut other = row;
    other[37] = 8;
    let e = decoder.decode(&[Some(Row::parse(&other).unwrap())], |_| "(17)".into()).unwrap_err();
    assert!(e.message().contains("schema 8"), "{e}");
    assert!(RowDecoder::new(&[(1, columns)], &[column("int", "BIGINT")]).is_err());
}

proptest! {
    #[test]
    fn keys_are_injective_and_ordered(a in any::<(i64, String, Vec<u8>)>(), b in any::<(i64, String, Vec<u8>)>()) {
        let encode = |k: &(i64, String, Vec<u8>)| key(&[
            Arc::new(Int64Array::from(vec![k.0])),
            Arc::new(StringArray::from(vec![k.1.as_str()])),
            Arc::new(BinaryArray::from(vec![k.2.as_slice()])),
        ]);
        let (x, y) = (encode(&a), encode(&b));
        prop_assert_eq!(a == b, x == y);
        if x.full().is_none() && y.full().is_none() {
            prop_assert_eq!(a.cmp(&b), x.stored().cmp(y.stored()));
        }
    }

    #[test]
    fn prefixes_order_like_rows(a in any::<(i64, Option<i64>, i64)>(), b in any::<(i64, Option<i64>, i64)>()) {
        let row = |k: (i64, Option<i64>, i64)| {
            let created = utc(vec![k.1]);
            RowEncoder::new(1, &[]).encode(&[int_key(1)], &utc(vec![Some(k.0)]), Some(&created), &Int64Array::from(vec![k.2]), 1, &[]).unwrap().remove(0)
        };
        let (x, y) = (row(a), row(b));
        let (p, q) = (Prefix::read(&x).unwrap(), Prefix::read(&y).unwrap());
        prop_assert_eq!((p.event_ts, p.created_ts, p.seq), a);
        prop_assert_eq!(x[..row::ORDER_LEN].cmp(&y[..row::ORDER_LEN]), p.order().cmp(&q.order()));
    }

    #[test]
    fn values_round_trip(
        ints in prop::collection::vec(any::<Option<i64>>(), 5),
        texts in prop::collection::vec(any::<Option<String>>(), 5),
        lists in prop::collection::vec(prop::option::of(prop::collection::vec(any::<Option<i64>>(), 0..20)), 5),
    ) {
        let columns = [column("i", "BIGINT"), column("t", "VARCHAR"), column("l", "BIGINT[]")];
        let list = ListArray::from_iter_primitive::<datafusion::arrow::datatypes::Int64Type, _, _>(lists);
        let arrays: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(ints)),
            Arc::new(StringArray::from(texts)),
            cast(&list, columns[2].data_type.arrow()).unwrap(),
        ];
        let rows = encode(&columns, &arrays);
        prop_assert_eq!(decode(&[(1, columns.to_vec())], &columns, &rows), arrays.to_vec());
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (columns, _) = samples();
        if bytes.len() > 38 {
            bytes[32..38].copy_from_slice(&[1, 0, 0, 0, 0, 1]);
        }
        if let Ok(row) = Row::parse(&bytes) {
            let _ = RowDecoder::new(&[(1, columns.clone())], &columns).unwrap().decode(&[Some(row)], |_| String::new());
        }
    }
}
