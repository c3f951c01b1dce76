//! `to_char` of an instant in its own unit: the stock function asks for nanoseconds first.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::is_text;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Format {
    stock: Arc<ScalarUDF>,
    signature: Signature,
}

impl Format {
    pub fn new(stock: Arc<ScalarUDF>) -> Self {
        Format { stock, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Format {
    fn name(&self) -> &str {
        self.stock.name()
    }
    fn aliases(&self) -> &[String] {
        self.stock.aliases()
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        use DataType::*;
        let [value, format] = types else { return plan_err!("to_char wants a value and a format: to_char(t, '%Y-%m-%d')") };
        let value = match value {
            Timestamp(..) | Date32 | Date64 | Time32(_) | Time64(_) | Duration(_) => value.clone(),
            Null => Date32,
            t if is_text(t) => Date32,
            t => return plan_err!("to_char wants an instant, a date, a time or a duration, not {t}"),
        };
        match format {
            Null => Ok(vec![value, Utf8]),
            t if is_text(t) => Ok(vec![value, Utf8]),
            t => plan_err!("to_char wants a text as its format, not {t}"),
        }
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.stock.inner().return_type(types)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        self.stock.invoke_with_args(args)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }
}
