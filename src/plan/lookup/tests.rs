use datafusion::arrow::datatypes::{Schema, TimeUnit};
use datafusion::logical_expr::cast;

use super::*;
use crate::model::types::timestamp_type;

fn declared(e: Expr, have: Option<DataType>, want: &str) -> Result<Expr> {
    let fields: Vec<Field> = have.into_iter().map(|t| Field::new("x", t, true)).collect();
    let column = Column { name: "k".into(), data_type: want.parse()? };
    to_declared(e, &DFSchema::try_from(Schema::new(fields))?, &column, "s")
}

fn nanos(text: &str) -> Expr {
    cast(lit(text), DataType::Timestamp(TimeUnit::Nanosecond, None))
}

#[test]
fn known_values_are_judged_by_themselves() {
    let at = ScalarValue::TimestampMicrosecond(Some(1_000_007), Some("UTC".into()));
    for (e, want, value) in [
        (lit(7_i64), "INT", ScalarValue::Int32(Some(7))),
        (lit(7_i64), "SMALLINT", ScalarValue::Int16(Some(7))),
        (lit(7_i64), "VARCHAR", ScalarValue::Utf8(Some("7".into()))),
        (lit("7"), "BIGINT", ScalarValue::Int64(Some(7))),
        (lit(2.0), "BIGINT", ScalarValue::Int64(Some(2))),
        (lit(1.26), "DECIMAL(10, 2)", ScalarValue::Decimal128(Some(126), 10, 2)),
        (lit("1.26"), "DECIMAL(10, 2)", ScalarValue::Decimal128(Some(126), 10, 2)),
        (lit(0.1), "FLOAT", ScalarValue::Float32(Some(0.1))),
        (lit("1970-01-03"), "DATE", ScalarValue::Date32(Some(2))),
        (lit("1970-01-01 00:00:01.000007"), "TIMESTAMP", at.clone()),
        (nanos("1970-01-01 00:00:01.000007"), "TIMESTAMP", at),
        (nanos("1970-01-03"), "DATE", ScalarValue::Date32(Some(2))),
        (lit(ScalarValue::Null), "BIGINT", ScalarValue::Int64(None)),
    ] {
        let shown = format!("{e} as {want}");
        assert_eq!(declared(e, None, want).unwrap(), Expr::Literal(value, None), "{shown}");
    }
    for (e, want, part) in [
        (lit("abc"), "BIGINT", "\"abc\""),
        (lit(1_i64 << 40), "INT", "1099511627776"),
        (lit(1.5), "BIGINT", "1.5"),
        (lit(1.26), "DECIMAL(10, 1)", "1.26"),
        (lit("1.26"), "DECIMAL(10, 1)", "1.26"),
        (lit("1970-01-03 10:00:00"), "DATE", "10:00:00"),
        (nanos("1970-01-03 10:00:00"), "DATE", "10:00:00"),
        (nanos("1970-01-03 00:00:00.000000001"), "TIMESTAMP", "000000001"),
        (lit(7_i64), "TIMESTAMP", "Int64"),
        (lit(7_i64), "BOOLEAN", "Int64"),
    ] {
        let e = declared(e, None, want).unwrap_err();
        assert!(e.message().contains(&format!("ONLINE_LOOKUP('s'): \"k\" is {want}, but ")) && e.message().contains(part), "{e}");
        assert!(e.hint().is_some_and(|h| h.contains(want)), "{e:?}");
    }
}

#[test]
fn other_values_are_judged_by_their_type() {
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let x = || Expr::Column(ColumnRef::new_unqualified("x"));
    for (have, want, hint) in [
        (DataType::Float64, "BIGINT", "AS BIGINT)"),
        (DataType::Float64, "DECIMAL(10, 2)", "AS DECIMAL(10, 2))"),
        (DataType::Decimal128(10, 2), "DECIMAL(10, 1)", "AS DECIMAL(10, 1))"),
        (nanos, "TIMESTAMP", "AS TIMESTAMP(6))"),
        (timestamp_type(), "DATE", "AS DATE)"),
        (DataType::Int64, "DATE", "type DATE"),
    ] {
        let e = declared(x(), Some(have), want).unwrap_err();
        assert!(e.message().contains("\"k\" is") && e.hint().is_some_and(|h| h.contains(hint)), "{e:?}");
    }
    for (have, want) in [(DataType::Int64, "INT"), (DataType::Utf8View, "VARCHAR"), (DataType::Date32, "TIMESTAMP")] {
        assert!(matches!(declared(x(), Some(have), want).unwrap(), Expr::Cast(_)));
    }
    assert_eq!(declared(x(), Some(DataType::Int64), "BIGINT").unwrap(), x());
}

#[test]
fn a_decimal_is_what_is_written() {
    let of = |text: &str| written(&crate::sql::parse::expression(text).unwrap());
    assert_eq!(of("12345678901234567.89").as_deref(), Some("12345678901234567.89"));
    assert_eq!(of("-1.5").as_deref(), Some("-1.5"));
    assert_eq!((of("'1.5'"), of("1.5 + 1"), of("- -1"), of("1e3")), (None, None, None, None));
    // a float would have made it 12345678901234568
    let key = declared(lit("12345678901234567.89"), None, "DECIMAL(20, 2)").unwrap();
    assert_eq!(key, Expr::Literal(ScalarValue::Decimal128(Some(1_234_567_890_123_456_789), 20, 2), None));
}
