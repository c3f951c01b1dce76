//! Whole numbers and decimals that say so where a result does not fit its type. The engine's operators wrap
//! around silently: `9223372036854775807 + 1` would be the smallest number there is.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Datum, new_null_array};
use datafusion::arrow::compute::{concat, kernels::numeric};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, DecimalType, Field, FieldRef};
use datafusion::arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use serde::{Deserialize, Serialize};

use crate::error::{Error, in_sql};
use crate::model::types::ColumnType;

/// Puts checked arithmetic in the place of the operators that may wrap. Runs behind the rule that gives both
/// sides one type.
#[derive(Debug, Default)]
pub struct CheckArithmetic;

impl AnalyzerRule for CheckArithmetic {
    fn name(&self) -> &str {
        "check_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        plan.transform_up_with_subqueries(check_plan).map(|t| t.data)
    }
}

/// True where a node holds an operator that may be checked: most hold none.
fn computes(plan: &LogicalPlan) -> DfResult<bool> {
    let operator = |e: &Expr| match e {
        Expr::BinaryExpr(b) => Arithmetic::of(b.op).is_some(),
        other => matches!(other, Expr::Negative(_)),
    };
    let mut found = false;
    plan.apply_expressions(|e| {
        found = found || e.exists(|e| Ok(operator(e)))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn check_plan(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    if !computes(&plan)? {
        return Ok(Transformed::no(plan));
    }
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let names = NamePreserver::new(&plan);
    let checked = plan.map_expressions(|e| {
        let name = names.save(&e);
        let e = e.transform_up(|e| Ok(check(e, &schema)))?;
        Ok(if e.transformed { e.update_data(|e| name.restore(e)) } else { e })
    })?;
    if checked.transformed { checked.map_data(|p| p.recompute_schema()) } else { Ok(checked) }
}

fn check(e: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match arithmetic(&e, schema, false) {
        Some(checked) => Transformed::yes(checked),
        None => Transformed::no(e),
    }
}

/// The checked form of an operator that may wrap; `None` for all other expressions. A total one answers NULL
/// where the result does not fit.
pub fn arithmetic(e: &Expr, schema: &DFSchema, total: bool) -> Option<Expr> {
    let shown = || in_sql(&e.schema_name().to_string());
    let call = |op: Arithmetic, args: Vec<Expr>| Some(ScalarUDF::new_from_impl(Checked::new(op, shown(), total)).call(args));
    match e {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let kind = Arithmetic::of(*op)?;
            let (l, r) = (left.get_type(schema).ok()?, right.get_type(schema).ok()?);
            let result = BinaryTypeCoercer::new(&l, op, &r).get_result_type().ok()?;
            (is_number(&l) && is_number(&r) && may_wrap(&result)).then(|| call(kind, vec![*left.clone(), *right.clone()]))?
        }
        Expr::Negative(inner) => {
            // a number with its sign in front is one literal, and fits
            let wraps = inner.get_type(schema).ok()?.is_integer() && !matches!(inner.as_ref(), Expr::Literal(..));
            wraps.then(|| call(Arithmetic::Negate, vec![*inner.clone()]))?
        }
        _ => None,
    }
}

fn is_number(t: &DataType) -> bool {
    t.is_numeric() || t.is_null()
}

/// Decimals grow with their operands until there are no more digits.
fn may_wrap(t: &DataType) -> bool {
    match t {
        DataType::Decimal128(p, _) => *p == Decimal128Type::MAX_PRECISION,
        DataType::Decimal256(p, _) => *p == Decimal256Type::MAX_PRECISION,
        DataType::Decimal32(..) | DataType::Decimal64(..) => true,
        t => t.is_integer(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Negate,
}

impl Arithmetic {
    fn of(op: Operator) -> Option<Self> {
        match op {
            Operator::Plus => Some(Arithmetic::Add),
            Operator::Minus => Some(Arithmetic::Subtract),
            Operator::Multiply => Some(Arithmetic::Multiply),
            _ => None,
        }
    }

    fn operator(self) -> Option<Operator> {
        match self {
            Arithmetic::Add => Some(Operator::Plus),
            Arithmetic::Subtract => Some(Operator::Minus),
            Arithmetic::Multiply => Some(Operator::Multiply),
            Arithmetic::Negate => None,
        }
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operator() {
            Some(op) => write!(f, "{op}"),
            None => f.write_str("-"),
        }
    }
}

/// One operator, as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Arithmetic,
    /// What the user wrote, for the error.
    shown: String,
    /// Answers NULL instead of an error.
    total: bool,
    signature: Signature,
}

impl Checked {
    fn new(op: Arithmetic, shown: String, total: bool) -> Self {
        Checked { op, shown, total, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn compute(&self, args: &[ColumnarValue], result: &DataType) -> DfResult<ColumnarValue> {
        let scalar = args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let sides = args.iter().map(Side::of).collect::<DfResult<Vec<_>>>()?;
        let datums: Vec<&dyn Datum> = sides.iter().map(Side::datum).collect();
        let array = match self.apply(&datums) {
            Ok(array) => array,
            Err(_) => self.row_by_row(&sides, result)?,
        };
        match scalar {
            true => ScalarValue::try_from_array(&array, 0).map(ColumnarValue::Scalar),
            false => Ok(ColumnarValue::Array(array)),
        }
    }

    fn apply(&self, sides: &[&dyn Datum]) -> Result<ArrayRef, ArrowError> {
        let array = match (self.op, sides) {
            (Arithmetic::Add, [l, r]) => numeric::add(*l, *r),
            (Arithmetic::Subtract, [l, r]) => numeric::sub(*l, *r),
            (Arithmetic::Multiply, [l, r]) => numeric::mul(*l, *r),
            (Arithmetic::Negate, [one]) => numeric::neg(one.get().0),
            _ => Err(ArrowError::InvalidArgumentError(format!("{} has two sides", self.op))),
        }?;
        digits_fit(&array)?;
        Ok(array)
    }

    /// Finds the row at fault, or puts NULL in its place.
    fn row_by_row(&self, sides: &[Side], result: &DataType) -> DfResult<ArrayRef> {
        let rows = sides.iter().filter(|s| !s.scalar).map(|s| s.array.len()).max().unwrap_or(1);
        let mut out: Vec<ArrayRef> = Vec::with_capacity(rows);
        for row in 0..rows {
            let one: Vec<ArrayRef> = sides.iter().map(|s| s.row(row)).collect();
            let datums: Vec<&dyn Datum> = one.iter().map(|a| a as &dyn Datum).collect();
            out.push(match self.apply(&datums) {
                Ok(value) => value,
                Err(_) if self.total => new_null_array(result, 1),
                Err(_) => return Err(self.overflow(&one, result).into()),
            });
        }
        Ok(concat(&out.iter().map(AsRef::as_ref).collect::<Vec<_>>())?)
    }

    fn overflow(&self, values: &[ArrayRef], result: &DataType) -> Error {
        let value = |a: &ArrayRef| ScalarValue::try_from_array(a, 0).map(|v| v.to_string()).unwrap_or_default();
        let sum = match values {
            [l, r] => format!("{} {} {}", value(l), self.op, value(r)),
            [one, ..] => format!("{}{}", self.op, value(one)),
            [] => String::new(),
        };
        let whole = if self.shown == sum { sum } else { format!("{sum} ({})", self.shown) };
        does_not_fit(&whole, result)
    }
}

/// A function that stands for an operator, written down.
#[derive(Debug, Serialize, Deserialize)]
pub struct CheckedOperator {
    op: Arithmetic,
    shown: String,
    total: bool,
}

/// The operator for which a function stands, if it does.
pub fn operator(f: &ScalarUDF) -> Option<CheckedOperator> {
    let f = f.inner().downcast_ref::<Checked>()?;
    Some(CheckedOperator { op: f.op, shown: f.shown.clone(), total: f.total })
}

/// The function that stands for an operator.
pub fn function(operator: CheckedOperator) -> ScalarUDF {
    ScalarUDF::new_from_impl(Checked::new(operator.op, operator.shown, operator.total))
}

/// True for a function that stands for an operator.
pub fn is_checked(f: &ScalarUDF) -> bool {
    f.name().starts_with("checked_")
}

/// The error of a result that is greater than its type.
pub fn does_not_fit(what: &str, t: &DataType) -> Error {
    let wider = match t {
        DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "CAST to DOUBLE, which has no last digits but any size, or to fewer decimals"
        }
        _ => "CAST to DECIMAL(38, 0) or DOUBLE, which hold greater numbers",
    };
    let shown = ColumnType::stored(t).map_or_else(|_| t.to_string(), |c| c.to_string());
    Error::invalid(format!("{what} does not fit {shown}")).with_hint(wider)
}

/// Decimal operators of arrow look after the bytes, not after the digits.
fn digits_fit(array: &ArrayRef) -> Result<(), ArrowError> {
    use datafusion::arrow::array::AsArray;
    match array.data_type() {
        DataType::Decimal128(p, _) => array.as_primitive::<Decimal128Type>().validate_decimal_precision(*p),
        DataType::Decimal256(p, _) => array.as_primitive::<Decimal256Type>().validate_decimal_precision(*p),
        _ => Ok(()),
    }
}

/// One argument: an array, or an array of one value that stands for all rows.
struct Side {
    array: ArrayRef,
    scalar: bool,
}

impl Side {
    fn of(value: &ColumnarValue) -> DfResult<Self> {
        Ok(match value {
            ColumnarValue::Array(a) => Side { array: Arc::clone(a), scalar: false },
            ColumnarValue::Scalar(s) => Side { array: s.to_array()?, scalar: true },
        })
    }

    fn datum(&self) -> &dyn Datum {
        self
    }

    fn row(&self, row: usize) -> ArrayRef {
        self.array.slice(if self.scalar { 0 } else { row }, 1)
    }
}

impl Datum for Side {
    fn get(&self) -> (&dyn Array, bool) {
        (self.array.as_ref(), self.scalar)
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Arithmetic::Add => "checked_add",
            Arithmetic::Subtract => "checked_subtract",
            Arithmetic::Multiply => "checked_multiply",
            Arithmetic::Negate => "checked_negate",
        }
    }

    /// The operator's own, so that no column changes its name.
    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        Ok(match args {
            [l, r] => format!("{} {} {}", l.schema_name(), self.op, r.schema_name()),
            [one, ..] => format!("(- {})", one.schema_name()),
            [] => self.shown.clone(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match (self.op.operator(), types) {
            (Some(op), [l, r]) => BinaryTypeCoercer::new(l, &op, r).get_input_types().map(|(l, r)| vec![l, r]),
            _ => Ok(types.to_vec()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match (self.op.operator(), types) {
            (Some(op), [l, r]) => BinaryTypeCoercer::new(l, &op, r).get_result_type(),
            _ => Ok(types.first().cloned().unwrap_or(DataType::Null)),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let nullable = self.total || args.arg_fields.iter().any(|f| f.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        self.compute(&args.args, args.return_field.data_type())
    }
}
