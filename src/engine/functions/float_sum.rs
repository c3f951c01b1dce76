//! Sums and averages of floats over a moving frame. The stock ones subtract what leaves the frame, so that a
//! NaN or an infinity stays in every sum behind it, and a great number takes the digits of small ones with it.

use std::mem::size_of;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::Float64Type;
use datafusion::common::{Result as DfResult, ScalarValue, not_impl_err};
use datafusion::logical_expr::Accumulator;

/// A sum that forgets what leaves it.
#[derive(Debug, Default)]
pub struct RollingSum {
    /// The finite values, and the digits that their sum has lost (Neumaier).
    sum: f64,
    lost: f64,
    count: i64,
    nans: i64,
    /// Infinities above and below.
    above: i64,
    below: i64,
}

impl RollingSum {
    fn add(&mut self, v: f64, sign: i64) {
        self.count += sign;
        match v {
            v if v.is_nan() => self.nans += sign,
            f64::INFINITY => self.above += sign,
            f64::NEG_INFINITY => self.below += sign,
            v => self.add_finite(if sign > 0 { v } else { -v }),
        }
        if self.count == 0 {
            *self = RollingSum::default();
        }
    }

    fn add_finite(&mut self, v: f64) {
        let sum = self.sum + v;
        self.lost += if self.sum.abs() >= v.abs() { (self.sum - sum) + v } else { (v - sum) + self.sum };
        self.sum = sum;
    }

    fn each(&mut self, values: &ArrayRef, sign: i64) {
        for v in values.as_primitive::<Float64Type>().iter().flatten() {
            self.add(v, sign);
        }
    }

    fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| match (self.nans, self.above, self.below) {
            (0, 0, 0) if self.lost.is_finite() => self.sum + self.lost,
            (0, 0, 0) => self.sum,
            (0, _, 0) => f64::INFINITY,
            (0, 0, _) => f64::NEG_INFINITY,
            _ => f64::NAN,
        })
    }
}

impl Accumulator for RollingSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.each(&values[0], 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.each(&values[0], -1);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        Ok(ScalarValue::Float64(self.value()))
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        not_impl_err!("a sum over a moving frame has no parts")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> DfResult<()> {
        not_impl_err!("a sum over a moving frame has no parts")
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

/// An average that forgets what leaves it.
#[derive(Debug, Default)]
pub struct RollingAverage(RollingSum);

impl Accumulator for RollingAverage {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.0.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.0.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        Ok(ScalarValue::Float64(self.0.value().map(|sum| sum / self.0.count as f64)))
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        self.0.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.0.merge_batch(states)
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}
