//! Instants in SQL: a TIMESTAMP is microseconds, and the functions of time hold from year 1 to 9999. The stock ones work in
//! nanoseconds, which end in 2262.

mod age;
mod bins;
mod format;
mod now;
mod parse;
mod parts;
mod series;
mod truncate;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use datafusion::common::Result as DfResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};
use sqlparser::ast::{DataType as SqlType, TimezoneInfo};

use super::columnar::answer;
use crate::model::types::timestamp_type;
use crate::plan::{at_time_zone, exact_number};

/// Says what SQL's types are.
#[derive(Debug)]
pub struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &SqlType) -> DfResult<Option<FieldRef>> {
        let t = match sql_type {
            SqlType::Timestamp(None, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => timestamp_type(),
            SqlType::Timestamp(None, _) => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", t, true))))
    }
}

/// Puts our functions of time in place of the stock ones.
pub fn correct(state: &mut SessionState) -> DfResult<()> {
    state.register_udf(Arc::new(ScalarUDF::new_from_impl(now::Now::new())))?;
    for (name, unit) in parse::FUNCTIONS {
        let stock = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(parse::ToTimestamp::new(stock, unit))))?;
    }
    let stock = state.udf("date_trunc")?;
    state.register_udf(Arc::new(ScalarUDF::new_from_impl(truncate::Truncate::new(stock))))?;
    let stock = state.udf("date_bin")?;
    state.register_udf(Arc::new(ScalarUDF::new_from_impl(bins::Bins::new(stock))))?;
    let stock = state.udf("to_char")?;
    state.register_udf(Arc::new(ScalarUDF::new_from_impl(format::Format::new(stock))))?;
    series::correct(state)?;
    for f in exact_number::functions().into_iter().chain(parts::functions()).chain([age::function()]) {
        state.register_udf(f)?;
    }
    state.register_udf(at_time_zone::function(None))?;
    Ok(())
}

/// Ticks of a unit in a second.
fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The greatest number of ticks that are still an instant of nanoseconds.
fn farthest(unit: TimeUnit) -> i64 {
    i64::MAX / (1_000_000_000 / per_second(unit))
}

/// The ticks of an array of timestamps.
fn ticks(array: &ArrayRef) -> DfResult<Int64Array> {
    Ok(strict(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn strict(array: &ArrayRef, t: &DataType) -> DfResult<ArrayRef> {
    Ok(cast_with_options(array, t, &CastOptions { safe: false, ..Default::default() })?)
}

/// An array of one or all rows; the second value: whether it is of one.
fn rows(value: &ColumnarValue, number_rows: usize) -> DfResult<(ArrayRef, bool)> {
    let one = matches!(value, ColumnarValue::Scalar(_));
    Ok((value.to_array(if one { 1 } else { number_rows })?, one))
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}
