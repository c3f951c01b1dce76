//! Readers of JSON texts, of the crate `datafusion-functions-json`. Those that answer a union of types stay out: no client
//! reads one. The steps of a path are texts or BIGINTs there; here they may be of any width, and parameters without a type.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result as DfResult, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_functions_json::udfs::*;

/// The functions.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let all = [
        json_as_text_udf(),
        json_contains_udf(),
        json_get_array_udf(),
        json_get_bool_udf(),
        json_get_float_udf(),
        json_get_int_udf(),
        json_get_json_udf(),
        json_get_str_udf(),
        json_length_udf(),
        json_object_keys_udf(),
    ];
    all.map(|inner| Arc::new(ScalarUDF::new_from_impl(Reader { inner, signature: Signature::user_defined(Volatility::Immutable) }))).into()
}

#[derive(Debug)]
struct Reader {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl PartialEq for Reader {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Reader {}

impl Hash for Reader {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Reader {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [json, path @ ..] = types else { return plan_err!("{} wants a JSON text", self.name()) };
        let json = match json {
            DataType::Null => DataType::Utf8,
            t if t.is_string() || matches!(t, DataType::Dictionary(..)) => t.clone(),
            t => return plan_err!("{} reads a JSON text, not {t}", self.name()),
        };
        let step = |t: &DataType| match t {
            DataType::Null => Ok(DataType::Utf8),
            t if t.is_integer() => Ok(DataType::Int64),
            t if t.is_string() || t.is_list() || matches!(t, DataType::Dictionary(..)) => Ok(t.clone()),
            t => plan_err!("the steps of {} are keys (texts) and places (whole numbers), not {t}", self.name()),
        };
        std::iter::once(Ok(json)).chain(path.iter().map(step)).collect()
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(types)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        self.inner.return_field_from_args(args)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
