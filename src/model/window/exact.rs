//! Sums without rounding: whatever the order of what is added, the same bits come out. A sum is a whole number times a
//! power of two, in 128 bits where these suffice and in as many as it needs elsewhere; it is rounded once, at the end.

use num_bigint::{BigInt, BigUint, Sign};

use super::numbers::{Bytes, put_signed, put_unsigned};
use crate::error::Result;

/// An exact sum of finite doubles and whole numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExactSum {
    digits: Digits,
    /// The value is digits × 2^exponent.
    exponent: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Digits {
    Small(i128),
    Big(Box<BigInt>),
}

/// A finite double as digits × 2^exponent.
pub fn parts(x: f64) -> (i64, i32) {
    let bits = x.to_bits();
    let raw = ((bits >> 52) & 0x7ff) as i32;
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    let (digits, exponent) = if raw == 0 { (fraction, -1074) } else { (fraction | (1 << 52), raw - 1075) };
    (if x.is_sign_negative() { -digits } else { digits }, exponent)
}

impl Default for ExactSum {
    fn default() -> Self {
        ExactSum { digits: Digits::Small(0), exponent: 0 }
    }
}

fn shifted(digits: i128, by: u32) -> Option<i128> {
    let free = if digits < 0 { digits.leading_ones() } else { digits.leading_zeros() };
    // one bit stays free for the sign
    (by < free.saturating_sub(1)).then(|| digits << by)
}

impl ExactSum {
    pub fn new(digits: i128, exponent: i32) -> Self {
        ExactSum { digits: Digits::Small(digits), exponent }
    }

    pub fn is_zero(&self) -> bool {
        match &self.digits {
            Digits::Small(d) => *d == 0,
            Digits::Big(b) => b.sign() == Sign::NoSign,
        }
    }

    /// Adds digits × 2^exponent.
    pub fn add(&mut self, digits: i128, exponent: i32) {
        if digits == 0 {
            return;
        }
        if self.is_zero() {
            *self = ExactSum::new(digits, exponent);
            return;
        }
        if let Digits::Small(own) = self.digits {
            let (low, high) = (self.exponent.min(exponent), self.exponent.max(exponent));
            let by = high.abs_diff(low);
            let (fixed, moved) = if self.exponent >= exponent { (digits, own) } else { (own, digits) };
            if let Some(sum) = shifted(moved, by).and_then(|m| m.checked_add(fixed)) {
                *self = ExactSum::new(sum, low);
                return;
            }
        }
        self.add_big(BigInt::from(digits), exponent);
    }

    fn add_big(&mut self, mut digits: BigInt, exponent: i32) {
        let mut own = self.big();
        let low = self.exponent.min(exponent);
        own <<= self.exponent.abs_diff(low);
        digits <<= exponent.abs_diff(low);
        *self = ExactSum { digits: Digits::Big(Box::new(own + digits)), exponent: low };
        self.narrow();
    }

    /// Adds a finite double.
    pub fn add_f64(&mut self, x: f64) {
        let (digits, exponent) = parts(x);
        self.add(digits.into(), exponent);
    }

    /// Adds the square of digits × 2^exponent.
    pub fn add_square(&mut self, digits: i128, exponent: i32) {
        match digits.checked_mul(digits) {
            Some(square) => self.add(square, 2 * exponent),
            None => self.add_big(BigInt::from(digits).pow(2), 2 * exponent),
        }
    }

    pub fn merge(&mut self, other: &ExactSum) {
        match &other.digits {
            Digits::Small(d) => self.add(*d, other.exponent),
            Digits::Big(b) => self.add_big(b.as_ref().clone(), other.exponent),
        }
    }

    fn big(&self) -> BigInt {
        match &self.digits {
            Digits::Small(d) => BigInt::from(*d),
            Digits::Big(b) => b.as_ref().clone(),
        }
    }

    /// The same value with no zeros at the end of its digits, in 128 bits where they suffice: equal sums are equal.
    fn narrow(&mut self) {
        match &mut self.digits {
            Digits::Small(0) => self.exponent = 0,
            Digits::Small(d) => {
                let zeros = d.trailing_zeros();
                *d >>= zeros;
                self.exponent += zeros as i32;
            }
            Digits::Big(b) => {
                let zeros = b.trailing_zeros().unwrap_or(0);
                **b >>= zeros;
                self.exponent = if b.sign() == Sign::NoSign { 0 } else { self.exponent + zeros as i32 };
                if let Ok(small) = i128::try_from(b.as_ref()) {
                    self.digits = Digits::Small(small);
                }
            }
        }
    }

    /// The sum as a whole number; `None` where it is none, or needs more than 128 bits.
    pub fn to_i128(&self) -> Option<i128> {
        let mut narrow = self.clone();
        narrow.narrow();
        match narrow.digits {
            Digits::Small(d) if narrow.exponent >= 0 => shifted(d, narrow.exponent as u32),
            _ => None,
        }
    }

    /// The sum, rounded to the nearest double, ties to even.
    pub fn to_f64(&self) -> f64 {
        self.divided(&BigUint::from(1u8))
    }

    /// The sum divided by a whole number, rounded once.
    pub fn divided(&self, by: &BigUint) -> f64 {
        match (&self.digits, u64::try_from(by)) {
            (Digits::Small(d), Ok(by)) => quotient(*d, self.exponent, by),
            _ => ratio(&self.big(), by, self.exponent),
        }
    }

    /// n × Σx² − (Σx)², as digits and exponent: what variances are made of. `self` is Σx.
    pub fn spread(&self, squares: &ExactSum, n: u64) -> (BigInt, i32) {
        let (of_squares, of_sum) = (squares.big() * BigInt::from(n), self.big().pow(2));
        let low = squares.exponent.min(2 * self.exponent);
        let spread = (of_squares << squares.exponent.abs_diff(low)) - (of_sum << (2 * self.exponent).abs_diff(low));
        (spread, low)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut narrow = self.clone();
        narrow.narrow();
        put_signed(narrow.exponent.into(), out);
        let digits = narrow.big().to_signed_bytes_le();
        put_unsigned(digits.len() as u64, out);
        out.extend_from_slice(&digits);
    }

    pub fn decode(bytes: &mut Bytes<'_>) -> Result<Self> {
        let exponent = i32::try_from(bytes.signed()?).ok().filter(|e| e.abs() <= 1 << 13).ok_or_else(|| bytes.damaged("an exponent"))?;
        let digits = bytes.sized()?;
        if digits.len() > 1 << 10 {
            return Err(bytes.damaged("the digits of a sum"));
        }
        let digits = match small(digits) {
            Some(small) => Digits::Small(small),
            None => Digits::Big(Box::new(BigInt::from_signed_bytes_le(digits))),
        };
        let mut out = ExactSum { digits, exponent };
        out.narrow();
        Ok(out)
    }
}

/// Signed digits, the lowest first, where 128 bits hold them.
fn small(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [sign; 16];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i128::from_le_bytes(all))
}

/// digits × 2^exponent / by, rounded once.
pub fn quotient(digits: i128, exponent: i32, by: u64) -> f64 {
    let magnitude = digits.unsigned_abs();
    let rounded = if by <= 1 {
        round(magnitude, false, exponent)
    } else {
        let room = magnitude.leading_zeros();
        let wide = magnitude << room.min(127);
        let (q, r) = (wide / u128::from(by), wide % u128::from(by));
        round(q, r != 0, exponent - room.min(127) as i32)
    };
    if digits < 0 { -rounded } else { rounded }
}

/// a / b × 2^exponent, rounded once. b is not zero.
pub fn ratio(a: &BigInt, b: &BigUint, exponent: i32) -> f64 {
    if a.sign() == Sign::NoSign {
        return 0.0;
    }
    // as many digits of the quotient as 128 bits hold
    let up = (120 + b.bits() as i64 - a.bits() as i64).max(0) as u32;
    let wide = a.magnitude() << up;
    let (mut q, r) = (&wide / b, &wide % b);
    let mut sticky = r != BigUint::ZERO;
    let over = (q.bits() as i64 - 120).max(0) as u32;
    sticky |= q.trailing_zeros().is_some_and(|z| z < u64::from(over));
    q >>= over;
    let rounded = round(u128::try_from(&q).unwrap_or(u128::MAX), sticky, exponent - up as i32 + over as i32);
    if a.sign() == Sign::Minus { -rounded } else { rounded }
}

/// magnitude × 2^exponent, to the nearest double, ties to even. `sticky`: a little more than that, of at least 55 bits.
fn round(magnitude: u128, sticky: bool, exponent: i32) -> f64 {
    if magnitude == 0 {
        return 0.0;
    }
    let bits = 128 - magnitude.leading_zeros() as i32;
    if exponent + bits - 1 > 1023 {
        return f64::INFINITY;
    }
    let lowest = (exponent + bits - 53).max(-1074);
    let cut = lowest - exponent;
    let kept = match cut {
        c if c <= 0 => magnitude << -c,
        c if c > 128 => 0,
        c => {
            let whole = if c == 128 { 0 } else { magnitude >> c };
            let rest = if c == 128 { magnitude } else { magnitude & ((1u128 << c) - 1) };
            let half = 1u128 << (c - 1);
            whole + u128::from(rest > half || (rest == half && (sticky || whole & 1 == 1)))
        }
    };
    scaled(kept as u64, lowest)
}

/// digits × 2^exponent for at most 53 bits of digits; −1074 ≤ exponent ≤ 971.
fn scaled(digits: u64, exponent: i32) -> f64 {
    if exponent == -1074 {
        // subnormal numbers are the digits themselves, and the next ones go on from there
        return f64::from_bits(digits);
    }
    if exponent >= -1022 {
        return digits as f64 * f64::from_bits(((exponent + 1023) as u64) << 52);
    }
    digits as f64 * f64::from_bits(1 << 52) * f64::from_bits(((exponent + 1022 + 1023) as u64) << 52)
}
