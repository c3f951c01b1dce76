//! A cast that we add where a table wants another type: a value that it would change is refused, with its row.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::Error;
use crate::model::exact::exact;
use crate::table::conform::{misfit, row_text};

/// `exactly(value, columns of its row …)`; no statement can name it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Exactly {
    /// Of the target.
    what: String,
    column: String,
    want: DataType,
    /// Of the columns that show the row.
    shown: Vec<String>,
    signature: Signature,
}

impl Exactly {
    /// The value as `field` wants it; `shown`: what tells the row.
    pub fn call(what: &str, field: &Field, value: Expr, shown: &[(String, Expr)]) -> Expr {
        let function = Exactly {
            what: what.into(),
            column: field.name().clone(),
            want: field.data_type().clone(),
            shown: shown.iter().map(|(name, _)| name.clone()).collect(),
            signature: Signature::variadic_any(Volatility::Immutable),
        };
        let arguments = std::iter::once(value).chain(shown.iter().map(|(_, e)| e.clone())).collect();
        ScalarUDF::new_from_impl(function).call(arguments)
    }
}

impl ScalarUDFImpl for Exactly {
    fn name(&self) -> &str {
        "exactly"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.want.clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        // a constant stays one
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let arrays: Vec<ArrayRef> = args.args.into_iter().map(|a| a.into_array(if scalar { 1 } else { rows })).collect::<DfResult<_>>()?;
        let [value, columns @ ..] = arrays.as_slice() else { return Err(Error::internal("exactly wants a value").into()) };
        let made = exact(value, &self.want).map_err(|m| {
            let row = row_text(self.shown.iter().map(String::as_str).zip(columns), m.row);
            misfit(&m, &self.column, &row).context(&self.what)
        })?;
        Ok(match scalar {
            true => ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(Arc::clone(&made)),
        })
    }
}
