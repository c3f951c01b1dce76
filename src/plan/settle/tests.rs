//! What is settled moves no type and no name: all expressions of numbers, drawn at random, against the stock planner.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use proptest::prelude::*;

use crate::plan::{at_time_zone, exact_number};

#[allow(clippy::disallowed_methods)] // a planner without a warehouse
fn context() -> SessionContext {
    let cx = SessionContext::new();
    let utc = |unit| DataType::Timestamp(unit, Some("UTC".into()));
    let columns = [
        ("id", DataType::Int64),
        ("small", DataType::Int16),
        ("d", DataType::Decimal128(20, 3)),
        ("x", DataType::Float64),
        ("us", utc(TimeUnit::Microsecond)),
        ("ns", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("day", DataType::Date32),
    ];
    let schema = Arc::new(Schema::new(columns.map(|(n, t)| Field::new(n, t, true)).to_vec()));
    cx.register_table("t", Arc::new(EmptyTable::new(schema))).unwrap();
    for f in exact_number::functions() {
        cx.register_udf(f.as_ref().clone());
    }
    cx.register_udf(at_time_zone::function(None).as_ref().clone());
    cx
}

fn planned(cx: &SessionContext, sql: &str, settle: bool) -> Result<LogicalPlan, String> {
    let mut statement = crate::sql::parse::statement(sql).map_err(|e| e.to_string())?;
    if settle {
        crate::sql::marks::mark_statement(&mut statement);
    }
    let plan = cx.state().statement_to_plan(statement).now_or_never().unwrap().map_err(|e| e.to_string())?;
    if settle { super::plan(plan).map_err(|e| e.to_string()) } else { Ok(plan) }
}

fn shape(plan: &LogicalPlan) -> Vec<(String, DataType)> {
    plan.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect()
}

fn number() -> impl Strategy<Value = String> {
    let leaf =
        prop::sample::select(vec!["0.5", "1.25", "-0.1", "2", "NULL", "id", "small", "d", "x", "1e1", "12345678901234567.891", "0.10"]);
    leaf.prop_map(str::to_string).prop_recursive(4, 24, 3, |inner| {
        let two = (inner.clone(), prop::sample::select(vec!["+", "-", "*", "/", "%"]), inner.clone());
        prop_oneof![
            two.prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            inner.clone().prop_map(|a| format!("abs({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("CASE WHEN {a} > {b} THEN {a} ELSE {b} END")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("nullif({a}, CASE WHEN {b} IN ({a}, {c}) THEN {b} END)")),
            inner.prop_map(|a| format!("CAST({a} AS DECIMAL(38, 6))")),
        ]
    })
}

fn cases() -> u32 {
    std::env::var("REMIGE_PROPERTY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_time: 120_000, ..ProptestConfig::default() })]

    #[test]
    fn no_type_and_no_name_moves(e in number(), f in number()) {
        let cx = context();
        for sql in [format!("SELECT {e}, {f} AS g FROM t"), format!("SELECT sum({e}) FROM t GROUP BY {f}"), format!("SELECT {e} FROM t WHERE {e} < {f}")] {
            match (planned(&cx, &sql, false), planned(&cx, &sql, true)) {
                (Ok(stock), Ok(ours)) => {
                    prop_assert_eq!(shape(&stock), shape(&ours), "{}", &sql);
                    let (stock, ours) = (cx.state().optimize(&stock), cx.state().optimize(&ours));
                    // what is exact is folded, and does not fit now; the stock plan says so when it runs
                    let too_large = ours.as_ref().is_err_and(|e| e.to_string().contains("too large to store"));
                    prop_assert!(stock.is_err() || ours.is_ok() || too_large, "{}: {:?}", &sql, ours.err());
                }
                (Ok(_), Err(e)) => prop_assert!(false, "{}: {}", &sql, e),
                (Err(_), _) => {}
            }
        }
    }
}

#[test]
fn names_of_instants_stay() {
    let cx = context();
    for e in [
        "us AT TIME ZONE 'Europe/Berlin'",
        "CAST(ns AS TIMESTAMP)",
        "us > '2026-01-01'",
        "ns BETWEEN '2026-01-01' AND us",
        "us IN ('2026-01-01', ns)",
        "coalesce(us, day)",
        "CASE WHEN us > day THEN us END",
        "us - day",
    ] {
        let sql = format!("SELECT {e} FROM t");
        let names = |settle| shape(&planned(&cx, &sql, settle).unwrap()).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(false), names(true), "{sql}");
    }
}

#[test]
fn nothing_is_left_of_the_marks() {
    let cx = context();
    let sql = "SELECT CAST(ns AS TIMESTAMP), 0.5 + d FROM t WHERE x IN (SELECT 0.5 FROM t AS o WHERE o.d = t.d * 0.1) ORDER BY x * 0.25";
    let shown = planned(&cx, sql, true).unwrap().display_indent().to_string();
    assert!(!shown.contains("_remige"), "{shown}");
}
