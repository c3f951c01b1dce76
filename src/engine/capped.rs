//! Functions that make much of little (`repeat('x', 1000000000)`): what they would make is reckoned from their arguments
//! first, held against a share of the memory, and reserved while they work.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result as DfResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use datafusion::execution::{FunctionRegistry, session_state::SessionState};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::reckon::{self, Reckon};
use crate::error::Error;
use crate::operator::portions::too_much;

/// What is smaller is not worth a reservation.
const SMALL: u64 = 1 << 20;
/// Pairs of characters that one call of `levenshtein` may compare.
const MOST_PAIRS: u64 = 1 << 30;

const CAPPED: &[(&str, Reckon)] = &[
    ("lpad", reckon::pad),
    ("rpad", reckon::pad),
    ("repeat", reckon::repeat),
    ("replace", reckon::replace),
    ("regexp_replace", reckon::regexp_replace),
    ("concat", reckon::all),
    ("concat_ws", reckon::all),
    ("array_concat", reckon::all),
    ("make_array", reckon::all),
    ("encode", reckon::twice),
    ("string_to_array", reckon::pieces),
    ("array_repeat", reckon::repeat),
    ("array_resize", reckon::resize),
    ("range", reckon::range),
    ("generate_series", reckon::range),
    ("levenshtein", reckon::pairs),
];

/// Puts guarded functions in place of the stock ones. `limit`: bytes that one call may make.
pub fn cap(state: &mut SessionState, limit: usize) -> DfResult<()> {
    let pool = Arc::clone(&state.runtime_env().memory_pool);
    for (name, reckon) in CAPPED {
        let stock = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(Capped { stock, reckon: *reckon, limit, pool: Arc::clone(&pool) })))?;
    }
    Ok(())
}

struct Capped {
    stock: Arc<ScalarUDF>,
    reckon: Reckon,
    limit: usize,
    pool: Arc<dyn MemoryPool>,
}

impl std::fmt::Debug for Capped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stock.fmt(f)
    }
}

impl PartialEq for Capped {
    fn eq(&self, other: &Self) -> bool {
        self.stock == other.stock
    }
}

impl Eq for Capped {}

impl Hash for Capped {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.stock.hash(state);
    }
}

impl ScalarUDFImpl for Capped {
    fn name(&self) -> &str {
        self.stock.name()
    }
    fn aliases(&self) -> &[String] {
        self.stock.aliases()
    }
    fn signature(&self) -> &Signature {
        self.stock.signature()
    }
    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.stock.inner().return_type(types)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        self.stock.inner().return_field_from_args(args)
    }
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.stock.inner().coerce_types(types)
    }
    fn is_strict(&self) -> bool {
        self.stock.inner().is_strict()
    }
    fn output_ordering(&self, inputs: &[ExprProperties]) -> DfResult<SortProperties> {
        self.stock.inner().output_ordering(inputs)
    }
    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> DfResult<bool> {
        self.stock.inner().preserves_lex_ordering(inputs)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let bytes = (self.reckon)(&args.args).unwrap_or(0);
        if bytes <= SMALL {
            return self.stock.invoke_with_args(args);
        }
        if self.name() == "levenshtein" {
            return match bytes <= MOST_PAIRS {
                true => self.stock.invoke_with_args(args),
                false => Err(Error::exhausted(format!("levenshtein would compare {bytes} pairs of characters in one step"))
                    .with_hint("compare shorter texts, for example left(a, 100)")
                    .into()),
            };
        }
        if bytes > self.limit as u64 {
            return Err(too_much(self.name(), bytes, self.limit).into());
        }
        let reserved = MemoryConsumer::new(self.name()).register(&self.pool);
        reserved.try_grow(bytes as usize).map_err(|e| {
            Error::exhausted(format!("{} wants {} MiB, and so much memory is not free", self.name(), bytes.div_ceil(1 << 20)))
                .with_hint(format!("raise memory_limit, or run fewer statements at a time ({})", Error::from(e).message()))
        })?;
        self.stock.invoke_with_args(args)
    }
}

/// The values of an argument, one where it is the same for all rows.
pub(super) fn values(arg: &ColumnarValue) -> DfResult<ArrayRef> {
    arg.to_array(1)
}
