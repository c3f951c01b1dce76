//! Stock functions that need a word.

mod about;
mod counts;
mod extreme;
mod float_sum;
mod json;
mod known;
mod shift;
mod sliding;
mod sum;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, WindowUDF,
};

pub use self::extreme::FloatExtremes;
pub use self::known::{check as check_names, is_volatile, kind_of};
use self::shift::WholePartitions;
use self::sliding::{Mend, Mended};
use self::sum::CheckedSum;
use crate::error::Error;
use crate::model::types::ColumnType;

const TO_TIMESTAMP: [&str; 5] =
    ["to_timestamp", "to_timestamp_seconds", "to_timestamp_millis", "to_timestamp_micros", "to_timestamp_nanos"];

/// Puts corrected functions in place of the stock ones.
pub fn correct(state: &mut SessionState) -> DfResult<()> {
    for name in TO_TIMESTAMP {
        let stock = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(AsPromised(stock))))?;
    }
    for name in ["lead", "lag"] {
        let stock = state.udwf(name)?;
        state.register_udwf(Arc::new(WindowUDF::new_from_impl(WholePartitions(stock))))?;
    }
    for f in counts::functions() {
        state.register_udaf(f)?;
    }
    for f in about::functions().into_iter().chain(json::functions()).chain(constants()) {
        state.register_udf(f)?;
    }
    aggregates(state)
}

/// Functions without arguments that answer the same in every session.
fn constants() -> [Arc<ScalarUDF>; 5] {
    use crate::sql::cursor::CATALOG;
    let version = concat!("Remige ", env!("CARGO_PKG_VERSION"));
    // there are no users yet: whoever is in the session may do all
    let user = "remige";
    [
        Constant::function("current_database", CATALOG),
        Constant::function("current_catalog", CATALOG),
        Constant::function("current_user", user),
        Constant::function("session_user", user),
        Constant::function("version", version),
    ]
}

/// `current_schema()` of a session.
pub fn current_schema(schema: &str) -> Arc<ScalarUDF> {
    Constant::function("current_schema", schema)
}

/// A function of the session that answers the same all through a statement.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    value: String,
    signature: Signature,
}

impl Constant {
    fn function(name: &'static str, value: &str) -> Arc<ScalarUDF> {
        let signature = Signature::nullary(Volatility::Stable);
        Arc::new(ScalarUDF::new_from_impl(Constant { name, value: value.to_string(), signature }))
    }
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }
    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(self.value.clone()))))
    }
}

/// Sums that do not wrap, one order of floats, and moving frames for all.
fn aggregates(state: &mut SessionState) -> DfResult<()> {
    let stock: HashMap<String, Arc<AggregateUDF>> =
        state.aggregate_functions().values().map(|f| (f.name().to_string(), Arc::clone(f))).collect();
    for (name, stock) in stock {
        let mend = match name.as_str() {
            "sum" => {
                state.register_udaf(Arc::new(AggregateUDF::new_from_impl(CheckedSum::new(stock))))?;
                continue;
            }
            // no functions of rows: the planner looks for them
            "count" | "grouping" => continue,
            "avg" => Mend::Averages,
            // in frames the engine reads some from behind: what is put together would come the other way around
            "array_agg" | "string_agg" => Mend::Order,
            // taking back loses digits, and answers 0 or NaN for what is none
            "bit_xor" | "corr" => Mend::Again,
            n if ["var", "stddev", "covar", "regr_"].iter().any(|p| n.starts_with(p)) => Mend::Again,
            "min" => Mend::Least,
            "max" => Mend::Greatest,
            _ => Mend::Frames,
        };
        state.register_udaf(Arc::new(AggregateUDF::new_from_impl(Mended::new(&stock, mend))))?;
    }
    Ok(())
}

/// The error of a function that does not take a type.
fn refused(function: &str, t: &DataType, wants: &str) -> Error {
    let shown = ColumnType::stored(t).map_or_else(|_| t.to_string(), |c| c.to_string());
    let hint = match t {
        DataType::Boolean => "count the true ones: count(*) FILTER (WHERE …), or sum(CAST(… AS INT))".to_string(),
        _ => format!("write {function}(CAST(… AS DOUBLE)), or TRY_CAST, which answers NULL where it is no number"),
    };
    Error::invalid(format!("{function} adds {wants}, not {shown}")).with_hint(hint)
}

/// The call at the beginning of an aggregate's name: a window's name goes on with its frame.
fn call(name: &str) -> &str {
    let mut depth = 0;
    for (i, c) in name.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return &name[..=i],
            ')' => depth -= 1,
            _ => {}
        }
    }
    name
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
