//! Arguments and answers of scalar functions: a constant stays one row.

use datafusion::arrow::array::ArrayRef;
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};
use datafusion::scalar::ScalarValue;

/// All arguments as arrays of one length; the second value: whether that is one row for all.
pub fn arrays(args: &ScalarFunctionArgs) -> DfResult<(Vec<ArrayRef>, bool)> {
    let one = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
    let count = if one { 1 } else { args.number_rows };
    Ok((args.args.iter().map(|a| a.to_array(count)).collect::<DfResult<_>>()?, one))
}

/// The rows made of them.
pub fn answer(array: ArrayRef, one: bool) -> DfResult<ColumnarValue> {
    Ok(match one {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
        false => ColumnarValue::Array(array),
    })
}
