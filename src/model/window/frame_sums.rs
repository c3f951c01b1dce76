//! Sums and means over frames of one run in one pass: as whole numbers on a common power of two their running totals are
//! exact, and the total of a frame is a difference of two.

use datafusion::arrow::datatypes::DataType;
use num_bigint::BigUint;

use super::aggregate::Function;
use super::exact::{ExactSum, parts, quotient};
use super::kernel::Compiled;
use super::output::Output;
use super::state::Finished;
use super::value::{Column, Value};

/// Running totals of one run.
#[derive(Debug, Default)]
pub struct FrameSums {
    /// Before each row, and at the end.
    totals: Vec<i128>,
    counts: Vec<u32>,
    /// The totals are multiples of 2^exponent.
    exponent: i32,
}

impl FrameSums {
    /// Reads a run; `false`: its numbers are too far apart for 128 bits, or some are no numbers.
    pub fn prepare(&mut self, column: &Column<'_>, passes: &impl Fn(usize) -> bool, first: usize, rows: usize) -> bool {
        let range = first..first + rows;
        let counts = |row: &usize| passes(*row) && !column.is_null(*row);
        self.totals.clear();
        self.counts.clear();
        self.exponent = 0;
        match column {
            Column::F64(a) => self.floats(range, counts, |row| a.value(row)),
            Column::F32(a) => self.floats(range, counts, |row| a.value(row).into()),
            Column::I64(a) => self.run(range, counts, |row| Some(a.value(row).into())),
            Column::Decimal(a) if rows < 1 << 20 => {
                // a twentieth of the room is left for the sum of so many
                let room = i128::MAX >> 21;
                self.run(range, counts, |row| Some(a.value(row)).filter(|v| v.abs() < room))
            }
            Column::Decimal(_) => false,
            other => self.run(range, counts, |row| match other.get(row) {
                Some(Value::Integer(i)) => Some(i.into()),
                _ => Some(0),
            }),
        }
    }

    fn floats(&mut self, range: std::ops::Range<usize>, counts: impl Fn(&usize) -> bool, value: impl Fn(usize) -> f64) -> bool {
        let (mut least, mut greatest) = (i32::MAX, i32::MIN);
        for row in range.clone().filter(&counts) {
            let x = value(row);
            if !x.is_finite() {
                return false;
            }
            let (digits, exponent) = parts(x);
            if digits != 0 {
                least = least.min(exponent);
                greatest = greatest.max(exponent);
            }
        }
        if least > greatest {
            // zeros alone
            (least, greatest) = (0, 0);
        }
        let bits_of_rows = usize::BITS - range.len().leading_zeros();
        if greatest - least + 53 + bits_of_rows as i32 > 126 {
            return false;
        }
        self.exponent = least;
        self.run(range, counts, |row| {
            let (digits, exponent) = parts(value(row));
            Some(if digits == 0 { 0 } else { i128::from(digits) << (exponent - least) })
        })
    }

    fn run(&mut self, range: std::ops::Range<usize>, counts: impl Fn(&usize) -> bool, value: impl Fn(usize) -> Option<i128>) -> bool {
        let (mut total, mut count) = (0i128, 0u32);
        self.totals.reserve(range.len() + 1);
        self.counts.reserve(range.len() + 1);
        self.totals.push(0);
        self.counts.push(0);
        for row in range {
            if counts(&row) {
                let Some(v) = value(row) else { return false };
                total += v;
                count += 1;
            }
            self.totals.push(total);
            self.counts.push(count);
        }
        true
    }

    pub fn fill(&self, compiled: &Compiled, frames: &[(u32, u32)], first: u32, out: &mut Output) {
        for ((from, to), label) in frames.iter().zip(first..) {
            let count = self.counts[*to as usize] - self.counts[*from as usize];
            if count > 0 {
                self.one(compiled, self.totals[*to as usize] - self.totals[*from as usize], count, label, out);
            }
        }
    }

    fn one(&self, compiled: &Compiled, total: i128, count: u32, label: u32, out: &mut Output) {
        if compiled.function == Function::Avg {
            return out.set_float(
                label,
                match compiled.scale {
                    0 => quotient(total, self.exponent, count.into()),
                    s => ExactSum::new(total, self.exponent).divided(&(BigUint::from(count) * BigUint::from(10u8).pow(s))),
                },
            );
        }
        match &compiled.result {
            DataType::Float64 => out.set_float(label, quotient(total, self.exponent, 1)),
            DataType::Int64 => out.set(label, Finished::One(i64::try_from(total).ok().map(Value::Integer))),
            t => {
                let sum = super::state::Sum { count: count.into(), total: ExactSum::new(total, 0), ..Default::default() };
                out.set(label, Finished::One(sum.sum(t)));
            }
        }
    }
}
