//! `range` and `generate_series` of instants: the stock ones hold nanoseconds alone, and beyond their reach they answer NULL
//! or other instants. Here that is an error.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef, TimeUnit};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::{answer, rows, strict};
use crate::error::Error;

const NAMES: [&str; 2] = ["range", "generate_series"];

pub fn correct(state: &mut SessionState) -> DfResult<()> {
    for name in NAMES {
        let stock = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(Series { stock })))?;
        if let Some(stock) = state.table_functions().get(name).map(|f| Arc::clone(f.function())) {
            state.register_udtf(name, Arc::new(Rows { stock }));
        }
    }
    Ok(())
}

fn too_far(e: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("a series of instants reaches from 1677 to 2262: {e}"))
        .with_hint("make a series of numbers, and add them as days")
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Series {
    stock: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Series {
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
    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        for value in &mut args.args {
            if let DataType::Timestamp(_, zone) = value.data_type() {
                let (array, one) = rows(value, args.number_rows)?;
                let nanos = strict(&array, &DataType::Timestamp(TimeUnit::Nanosecond, zone)).map_err(|e| too_far(&e))?;
                *value = answer(nanos, one)?;
            }
        }
        self.stock.invoke_with_args(args)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }
}

#[derive(Debug)]
struct Rows {
    stock: Arc<dyn TableFunctionImpl>,
}

impl TableFunctionImpl for Rows {
    fn call_with_args(&self, args: TableFunctionArgs) -> DfResult<Arc<dyn TableProvider>> {
        let exprs = args.exprs().iter().map(nanos).collect::<Result<Vec<_>, Error>>()?;
        self.stock.call_with_args(TableFunctionArgs::new(&exprs, args.session()))
    }
}

fn nanos(e: &Expr) -> Result<Expr, Error> {
    let Expr::Literal(v, metadata) = e else { return Ok(e.clone()) };
    let zone = match v.data_type() {
        DataType::Timestamp(_, zone) => zone,
        DataType::Date32 => None,
        _ => return Ok(e.clone()),
    };
    let cast: ScalarValue = v.cast_to(&DataType::Timestamp(TimeUnit::Nanosecond, zone)).map_err(|e| too_far(&e))?;
    Ok(Expr::Literal(cast, metadata.clone()))
}
