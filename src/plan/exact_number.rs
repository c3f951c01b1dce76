//! A number with a point, while it is not settled whether it is exact: a DOUBLE that remembers its digits.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType};
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit};
use datafusion::scalar::ScalarValue;

use crate::sql::marks::{BARE, EXACT};

/// The functions that `sql::marks` writes and `plan::settle` takes out.
pub fn functions() -> [Arc<ScalarUDF>; 2] {
    let one = |name| Mark { name, signature: Signature::any(1, Volatility::Immutable) };
    [EXACT, BARE].map(|name| Arc::new(ScalarUDF::new_from_impl(one(name))))
}

/// The digits that a marked number was written with.
pub fn digits(e: &Expr) -> Option<&str> {
    match e {
        Expr::ScalarFunction(f) if f.func.name() == EXACT => match f.args.as_slice() {
            [Expr::Literal(ScalarValue::Utf8(Some(digits)), _)] => Some(digits),
            _ => None,
        },
        _ => None,
    }
}

/// The value of a marked cast.
pub fn bare(e: &Expr) -> Option<&Expr> {
    match e {
        Expr::ScalarFunction(f) if f.func.name() == BARE => f.args.first(),
        _ => None,
    }
}

/// The DOUBLE that is nearest to the digits.
pub fn double(digits: &str) -> DfResult<Expr> {
    match digits.parse::<f64>() {
        Ok(v) => Ok(lit(v)),
        Err(_) => plan_err!("{digits} is not a number"),
    }
}

/// The digits as a DECIMAL that holds them all; `None` where there are too many.
pub fn decimal(digits: &str) -> Option<Expr> {
    let (whole, after) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('-').trim_start_matches('0').len();
    let precision = u8::try_from(whole + after.len()).ok()?.max(1);
    let scale = i8::try_from(after.len()).ok()?;
    let t = match precision {
        p if p <= DECIMAL128_MAX_PRECISION => DataType::Decimal128(p, scale),
        p if p <= DECIMAL256_MAX_PRECISION => DataType::Decimal256(p, scale),
        _ => return None,
    };
    let value = ScalarValue::Utf8(Some(digits.to_string())).cast_to(&t).ok()?;
    (!value.is_null()).then_some(Expr::Literal(value, None))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Mark {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Mark {
    fn name(&self) -> &str {
        self.name
    }
    /// The name that the column has without the mark.
    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        match args {
            [Expr::Literal(ScalarValue::Utf8(Some(digits)), _)] if self.name == EXACT => Ok(double(digits)?.schema_name().to_string()),
            [value] => Ok(value.schema_name().to_string()),
            _ => plan_err!("{} wants one value", self.name),
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match types {
            [t] if self.name == BARE => Ok(t.clone()),
            _ => Ok(DataType::Float64),
        }
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match args.args.first() {
            Some(value) if self.name == BARE => Ok(value.clone()),
            Some(digits) => digits.cast_to(&DataType::Float64, None),
            None => plan_err!("{} wants one value", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_hold_all_digits() {
        let show = |d: &str| match decimal(d) {
            Some(Expr::Literal(v, _)) => format!("{v} {}", v.data_type()),
            _ => "none".into(),
        };
        assert_eq!(show("0.5"), "0.5 Decimal128(1, 1)");
        assert_eq!(show("-12345678901234567.891"), "-12345678901234567.891 Decimal128(20, 3)");
        assert_eq!(show("1."), "1 Decimal128(1, 0)");
        assert_eq!(show("0.00"), "0.00 Decimal128(2, 2)");
        assert_eq!(show(&"9".repeat(39)), format!("{} Decimal256(39, 0)", "9".repeat(39)));
        assert_eq!(show(&"9".repeat(77)), "none");
    }
}
