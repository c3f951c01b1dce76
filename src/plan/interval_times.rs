//! `n * INTERVAL '1 minute'` and `INTERVAL '1 day' / 4`, which the engine below has no operator for.
//!
//! The fields keep their meaning, as in PostgreSQL: months are multiplied as months. What is left of a month goes into days, 30
//! of them, and what is left of a day into its 24 hours.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::{DFSchema, Result as DfResult, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::BinaryOperator;

const DAY_NANOS: i64 = 86_400_000_000_000;
const MONTH_DAYS: i64 = 30;
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// Plans the two operators.
#[derive(Debug)]
pub struct IntervalTimes;

impl ExprPlanner for IntervalTimes {
    fn plan_binary_op(&self, e: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let divides = match e.op {
            BinaryOperator::Multiply => false,
            BinaryOperator::Divide => true,
            _ => return Ok(PlannerResult::Original(e)),
        };
        let is_interval = |e: &Expr| Ok::<_, datafusion::common::DataFusionError>(matches!(e.get_type(schema)?, DataType::Interval(_)));
        let is_number = |e: &Expr| Ok::<_, datafusion::common::DataFusionError>(e.get_type(schema)?.is_numeric());
        let args = if is_interval(&e.left)? && is_number(&e.right)? {
            vec![e.left, e.right]
        } else if !divides && is_number(&e.left)? && is_interval(&e.right)? {
            vec![e.right, e.left]
        } else {
            return Ok(PlannerResult::Original(e));
        };
        let function = Arc::new(ScalarUDF::new_from_impl(Scaled::new(divides)));
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(function, args))))
    }
}

/// Both functions: no session has them registered.
pub fn functions() -> [Arc<ScalarUDF>; 2] {
    [false, true].map(|divides| Arc::new(ScalarUDF::new_from_impl(Scaled::new(divides))))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Scaled {
    divides: bool,
    signature: Signature,
}

impl Scaled {
    fn new(divides: bool) -> Self {
        Scaled { divides, signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Scaled {
    fn name(&self) -> &str {
        if self.divides { "interval_divided" } else { "interval_times" }
    }
    /// As the user wrote it.
    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        let [interval, by] = args else { return plan_err!("{} wants an interval and a number", self.name()) };
        let (interval, by) = (interval.schema_name(), by.schema_name());
        Ok(if self.divides { format!("{interval} / {by}") } else { format!("{by} * {interval}") })
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match types {
            [DataType::Interval(_), by] if by.is_numeric() => Ok(INTERVAL),
            other => plan_err!("{} wants an interval and a number, not {other:?}", self.name()),
        }
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [interval, by] = &args.args[..] else { return plan_err!("{} wants an interval and a number", self.name()) };
        let one = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if one { 1 } else { args.number_rows };
        let (intervals, by) = (cast(&interval.to_array(rows)?, &INTERVAL)?, by.to_array(rows)?);
        let scaled: ArrayRef = Arc::new(scaled(&intervals, &by, self.divides)?);
        Ok(match one {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&scaled, 0)?),
            false => ColumnarValue::Array(scaled),
        })
    }
}

fn scaled(intervals: &ArrayRef, by: &ArrayRef, divides: bool) -> DfResult<IntervalMonthDayNanoArray> {
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let whole = by.data_type().is_integer();
    let by = cast(by, if whole { &DataType::Int64 } else { &DataType::Float64 })?;
    let one = |row: usize| {
        if intervals.is_null(row) || by.is_null(row) {
            return Ok(None);
        }
        let v = intervals.value(row);
        let (found, shown) = match whole {
            true => {
                let n = by.as_primitive::<Int64Type>().value(row);
                if divides && n == 0 {
                    return exec_err!("division of an interval by zero");
                }
                (if divides { quotient(v, n) } else { product(v, n) }, n.to_string())
            }
            false => {
                let x = by.as_primitive::<Float64Type>().value(row);
                if divides && x == 0.0 {
                    return exec_err!("division of an interval by zero");
                }
                (rounded(v, &|field| if divides { field / x } else { field * x }), x.to_string())
            }
        };
        match found {
            Some(v) => Ok(Some(v)),
            None => exec_err!("an interval {} {shown} is longer than an interval can be", if divides { "divided by" } else { "times" }),
        }
    };
    (0..intervals.len()).map(one).collect()
}

fn interval(months: i128, days: i128, nanos: i128) -> Option<IntervalMonthDayNano> {
    Some(IntervalMonthDayNano::new(months.try_into().ok()?, days.try_into().ok()?, nanos.try_into().ok()?))
}

fn product(v: IntervalMonthDayNano, n: i64) -> Option<IntervalMonthDayNano> {
    let n = i128::from(n);
    interval(i128::from(v.months) * n, i128::from(v.days) * n, i128::from(v.nanoseconds) * n)
}

fn quotient(v: IntervalMonthDayNano, n: i64) -> Option<IntervalMonthDayNano> {
    let n = i128::from(n);
    let months = i128::from(v.months);
    let days = i128::from(v.days) + months % n * i128::from(MONTH_DAYS);
    let nanos = i128::from(v.nanoseconds) + days % n * i128::from(DAY_NANOS);
    interval(months / n, days / n, nanos / n)
}

fn rounded(v: IntervalMonthDayNano, scale: &dyn Fn(f64) -> f64) -> Option<IntervalMonthDayNano> {
    let months = scale(v.months.into());
    let days = scale(v.days.into()) + months.fract() * MONTH_DAYS as f64;
    let nanos = (scale(v.nanoseconds as f64) + days.fract() * DAY_NANOS as f64).round();
    let fits = |x: f64| x.is_finite() && x.abs() < i64::MAX as f64;
    if !(fits(months) && fits(days) && fits(nanos)) {
        return None;
    }
    interval(months.trunc() as i128, days.trunc() as i128, nanos as i128)
}
