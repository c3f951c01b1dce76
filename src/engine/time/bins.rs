//! `date_bin` beyond the reach of nanoseconds, where the stock function answers NULL.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array};
use datafusion::arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::{answer, farthest, is_text, per_second, rows, strict, ticks};
use crate::error::{Error, Result};

/// Nanoseconds of a day.
const DAY: i128 = 86_400_000_000_000;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Bins {
    stock: Arc<ScalarUDF>,
    signature: Signature,
}

impl Bins {
    pub fn new(stock: Arc<ScalarUDF>) -> Self {
        Bins { stock, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Bins {
    fn name(&self) -> &str {
        self.stock.name()
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        if !(2..=3).contains(&types.len()) {
            return plan_err!("date_bin wants a width, an instant and perhaps an origin: date_bin(INTERVAL '1 hour', t)");
        }
        let mut out = vec![DataType::Interval(IntervalUnit::MonthDayNano)];
        if !matches!(types[0], DataType::Interval(_) | DataType::Null) {
            return plan_err!("date_bin wants an INTERVAL as its width, not {}", types[0]);
        }
        for t in &types[1..] {
            out.push(match t {
                DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) => t.clone(),
                DataType::Date32 | DataType::Date64 | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
                t if is_text(t) => DataType::Timestamp(TimeUnit::Microsecond, None),
                t => return plan_err!("date_bin wants an instant or a time, not {t}"),
            });
        }
        Ok(out)
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.stock.inner().return_type(types)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let source = args.args[1].data_type();
        let DataType::Timestamp(unit, _) = &source else { return self.stock.invoke_with_args(args) };
        let width = match &args.args[0] {
            ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(width))) => *width,
            _ => return self.stock(args, *unit),
        };
        let nanos = i128::from(width.days) * DAY + i128::from(width.nanoseconds);
        let origin = match args.args.get(2) {
            None => Some(0),
            Some(ColumnarValue::Scalar(v)) => in_nanos(v)?,
            Some(ColumnarValue::Array(_)) => return self.stock(args, *unit),
        };
        let (0, 1.., Some(origin)) = (width.months, nanos, origin) else { return self.stock(args, *unit) };
        let (array, one) = rows(&args.args[1], args.number_rows)?;
        let tick = i128::from(1_000_000_000 / per_second(*unit));
        let bin = |v: i64| {
            let at = i128::from(v) * tick;
            let start = origin + (at - origin).div_euclid(nanos) * nanos;
            i64::try_from(start.div_euclid(tick)).map_err(|_| Error::invalid("date_bin: an instant is out of range"))
        };
        let binned: Int64Array = ticks(&array)?.try_unary(bin)?;
        answer(strict(&(Arc::new(binned) as ArrayRef), &source)?, one)
    }
    fn output_ordering(&self, inputs: &[ExprProperties]) -> DfResult<SortProperties> {
        self.stock.output_ordering(inputs)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }
}

/// The nanoseconds of an instant; `None` for NULL and for a time of day.
fn in_nanos(v: &ScalarValue) -> Result<Option<i128>> {
    let DataType::Timestamp(unit, _) = v.data_type() else { return Ok(None) };
    let ticks = v.cast_to(&DataType::Int64)?;
    Ok(match ticks {
        ScalarValue::Int64(Some(t)) => Some(i128::from(t) * i128::from(1_000_000_000 / per_second(unit))),
        _ => None,
    })
}

impl Bins {
    /// The stock function, which knows months, and origins in nanoseconds.
    fn stock(&self, mut args: ScalarFunctionArgs, unit: TimeUnit) -> DfResult<ColumnarValue> {
        if let Some(ColumnarValue::Scalar(origin)) = args.args.get_mut(2)
            && let DataType::Timestamp(_, zone) = origin.data_type()
        {
            *origin = origin.cast_to(&DataType::Timestamp(TimeUnit::Nanosecond, zone))?;
        }
        let (array, _) = rows(&args.args[1], args.number_rows)?;
        let reach = farthest(unit);
        if ticks(&array)?.iter().flatten().any(|t| t.checked_abs().is_none_or(|t| t > reach)) {
            return Err(Error::invalid("date_bin by months reaches from 1677 to 2262")
                .with_hint("date_trunc('month', t) and date_trunc('year', t) hold from year 1 to 9999")
                .into());
        }
        self.stock.invoke_with_args(args)
    }
}
