//! Stock functions that need a word.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result as DfResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

const TO_TIMESTAMP: [&str; 5] =
    ["to_timestamp", "to_timestamp_seconds", "to_timestamp_millis", "to_timestamp_micros", "to_timestamp_nanos"];

/// Puts corrected functions in place of the stock ones.
pub fn correct(state: &mut SessionState) -> DfResult<()> {
    for name in TO_TIMESTAMP {
        let stock = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(AsPromised(stock))))?;
    }
    Ok(())
}

/// In a session with a time zone, `to_timestamp(column of text)` of DataFusion 55 promises that zone and answers
/// a column without one.
#[derive(Debug)]
struct AsPromised(Arc<ScalarUDF>);

impl PartialEq for AsPromised {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for AsPromised {}

impl Hash for AsPromised {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl ScalarUDFImpl for AsPromised {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn signature(&self) -> &Signature {
        self.0.inner().signature()
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.0.inner().return_type(types)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let promised = args.return_field.data_type().clone();
        let value = self.0.inner().invoke_with_args(args)?;
        // the session's zone is UTC: the cast changes the type only
        if value.data_type() == promised { Ok(value) } else { value.cast_to(&promised, None) }
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }
}
