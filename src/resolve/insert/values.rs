//! Rows of VALUES, each value in the type that it has by itself. The stock planner would cast the values of a column to one
//! type, in which some of them are others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Values};
use datafusion::scalar::ScalarValue;
use sqlparser::ast::{
    BinaryOperator, CastKind, DataType as SqlType, ExactNumberInfo, Expr as SqlExpr, Query, SetExpr, UnaryOperator, Value as SqlValue,
    Values as Rows,
};
use sqlparser::tokenizer::Span as SqlSpan;

use super::exactly::Exactly;
use super::{Target, is_null};
use crate::error::{Error, Result};

/// Of a DECIMAL in a query.
const MOST_DIGITS: usize = 76;

/// Makes numbers with a point, or too great for an integer, what they say: the stock planner reads them as DOUBLE, and
/// another number would go into a BIGINT or DECIMAL. Columns of `types`.
pub fn exact_numbers(rows: &mut Rows, types: &[DataType]) {
    for (j, _) in types.iter().enumerate().filter(|(_, t)| t.is_integer() || t.is_decimal()) {
        let read = |cell: &SqlExpr| number(cell).map(|(digits, _)| digits);
        let numbers: Vec<String> = rows.rows.iter().filter_map(|r| read(r.content.get(j)?)).collect();
        if numbers.iter().all(|n| n.parse::<i64>().is_ok()) {
            continue;
        }
        let parts = |n: &String| {
            let (whole, fraction) = n.trim_start_matches('-').split_once('.').unwrap_or((n.trim_start_matches('-'), ""));
            (whole.len(), fraction.len())
        };
        let whole = numbers.iter().map(|n| parts(n).0).max().unwrap_or_default();
        let scale = numbers.iter().map(|n| parts(n).1).max().unwrap_or_default();
        // one type for all of them; what none can hold stays a float
        if whole + scale > MOST_DIGITS || whole + scale == 0 {
            continue;
        }
        for row in &mut rows.rows {
            if let Some((cell, (digits, span))) = row.content.get_mut(j).and_then(|c| number(c).map(|n| (c, n))) {
                *cell = SqlExpr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(SqlExpr::Value(SqlValue::SingleQuotedString(digits).with_span(span))),
                    data_type: SqlType::Decimal(ExactNumberInfo::PrecisionAndScale((whole + scale) as u64, scale as i64)),
                    array: false,
                    format: None,
                };
            }
        }
    }
}

/// The digits of a number without an exponent, with its sign.
fn number(e: &SqlExpr) -> Option<(String, SqlSpan)> {
    match e {
        SqlExpr::Value(v) => match &v.value {
            SqlValue::Number(n, _) => {
                let digits = n.replace('_', "");
                let digits = digits.strip_suffix('.').unwrap_or(&digits);
                let digits = if digits.starts_with('.') { format!("0{digits}") } else { digits.to_string() };
                digits.bytes().all(|b| b.is_ascii_digit() || b == b'.').then_some((digits, v.span))
            }
            _ => None,
        },
        SqlExpr::Nested(inner) => number(inner),
        SqlExpr::UnaryOp { op: UnaryOperator::Plus, expr } => number(expr),
        SqlExpr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            let (digits, span) = number(expr)?;
            Some((digits.strip_prefix('-').map_or_else(|| format!("-{digits}"), str::to_string), span))
        }
        SqlExpr::BinaryOp { left, op, right } => {
            let ((left, span), (right, _)) = (number(left)?, number(right)?);
            // whole numbers are those of the planner
            let points = left.contains('.') || right.contains('.');
            Some((calculated(&left, op, &right).filter(|_| points)?, span))
        }
        _ => None,
    }
}

/// The exact sum, difference or product of two numbers; `None` where it has too many digits.
fn calculated(left: &str, op: &BinaryOperator, right: &str) -> Option<String> {
    let parse = |n: &str| {
        let (whole, fraction) = n.split_once('.').unwrap_or((n, ""));
        Some((format!("{whole}{fraction}").parse::<i128>().ok()?, fraction.len()))
    };
    let ((a, a_scale), (b, b_scale)) = (parse(left)?, parse(right)?);
    let scale = a_scale.max(b_scale);
    let wide = |n: i128, of: usize| n.checked_mul(10i128.checked_pow(u32::try_from(scale - of).ok()?)?);
    let (digits, scale) = match op {
        BinaryOperator::Plus => (wide(a, a_scale)?.checked_add(wide(b, b_scale)?)?, scale),
        BinaryOperator::Minus => (wide(a, a_scale)?.checked_sub(wide(b, b_scale)?)?, scale),
        BinaryOperator::Multiply => (a.checked_mul(b)?, a_scale + b_scale),
        _ => return None,
    };
    let text = format!("{:0width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = text.split_at(text.len() - scale);
    let sign = if digits < 0 { "-" } else { "" };
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// Puts all rows of VALUES into one, one behind the other; false: the query is something else, and stays.
pub fn as_one_row(query: &mut Query, plain: &Query) -> bool {
    let nothing = || Box::new(SetExpr::Values(Rows { explicit_row: false, value_keyword: false, rows: vec![] }));
    let mut frame = plain.clone();
    frame.body = nothing();
    let body = std::mem::replace(&mut query.body, nothing());
    let is_plain = *query == frame;
    query.body = body;
    let SetExpr::Values(values) = query.body.as_mut() else { return false };
    if !is_plain {
        return false;
    }
    let mut rows = std::mem::take(&mut values.rows).into_iter();
    if let Some(mut first) = rows.next() {
        first.content.extend(rows.flat_map(|r| r.content));
        values.rows.push(first);
    }
    true
}

/// The rows again, of `fields` each; parameters get the types of their columns.
pub fn rows(plan: LogicalPlan, fields: &[FieldRef], target: &Target) -> Result<LogicalPlan> {
    let LogicalPlan::Values(values) = plan else { return Err(Error::internal("VALUES were planned as something else")) };
    let cells = values.values.into_iter().flatten().collect();
    let cells = with_types(cells, fields)?;
    let schema = DFSchema::empty();
    let types = cells.iter().map(|c| Ok(c.get_type(&schema)?)).collect::<Result<Vec<DataType>>>()?;
    let width = fields.len();
    let columns: Vec<DataType> = (0..width)
        .map(|j| {
            let column = || (j..cells.len()).step_by(width);
            let known: HashSet<&DataType> = column().filter(|i| !is_null(&cells[*i])).map(|i| &types[i]).collect();
            // an expression around a parameter may turn out to be of another type when that is bound
            let open = column().any(|i| !matches!(cells[i], Expr::Placeholder(_)) && has_parameter(&cells[i]));
            match known.into_iter().collect::<Vec<_>>().as_slice() {
                [one] if !open && !one.is_null() => (*one).clone(),
                _ => fields[j].data_type().clone(),
            }
        })
        .collect();
    let mut made = Vec::with_capacity(cells.len() / width.max(1));
    for (row, kinds) in cells.chunks(width.max(1)).zip(types.chunks(width.max(1))) {
        let cell = |j: usize| -> Result<Expr> {
            let (cell, field, to) = (&row[j], &fields[j], &columns[j]);
            if is_null(cell) {
                return Ok(Expr::Literal(ScalarValue::try_from(to)?, None));
            }
            let same = kinds[j] == *to && (matches!(cell, Expr::Placeholder(_)) || !has_parameter(cell));
            Ok(if same { cell.clone() } else { Exactly::call(&target.what, field, cell.clone(), &shown(row, fields, target)) })
        };
        made.push((0..width).map(cell).collect::<Result<Vec<_>>>()?);
    }
    let columns = columns.into_iter().enumerate().map(|(j, t)| Field::new(format!("column{}", j + 1), t, true)).collect();
    let schema = Arc::new(DFSchema::from_unqualified_fields(columns, HashMap::new())?);
    Ok(LogicalPlan::Values(Values { schema, values: made }))
}

/// The cells that show a row, by name.
fn shown(row: &[Expr], fields: &[FieldRef], target: &Target) -> Vec<(String, Expr)> {
    let cells = fields.iter().zip(row).filter(|(f, _)| target.shown_names.contains(f.name()));
    cells.filter(|(_, e)| !has_subquery(e)).map(|(f, e)| (f.name().clone(), e.clone())).collect()
}

/// A parameter that is the value of a column has its type, wherever else it stands.
fn with_types(cells: Vec<Expr>, fields: &[FieldRef]) -> Result<Vec<Expr>> {
    let mut types: HashMap<String, FieldRef> = HashMap::new();
    for (i, cell) in cells.iter().enumerate() {
        if let Expr::Placeholder(p) = cell {
            types.insert(p.id.clone(), Arc::clone(&fields[i % fields.len()]));
        }
    }
    if types.is_empty() {
        return Ok(cells);
    }
    let typed = |e: Expr| -> DfResult<Transformed<Expr>> {
        match e {
            Expr::Placeholder(mut p) => {
                p.field = types.get(&p.id).cloned().or(p.field);
                Ok(Transformed::yes(Expr::Placeholder(p)))
            }
            other => Ok(Transformed::no(other)),
        }
    };
    cells.into_iter().map(|c| Ok(c.transform_up(typed)?.data)).collect()
}

/// The columns whose values are parameters, by the names of these.
pub fn parameters(plan: &LogicalPlan) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let looked = plan.apply(|p| {
        if let LogicalPlan::Values(values) = p {
            for cell in values.values.iter().flatten() {
                if let Expr::Placeholder(Placeholder { id, field: Some(field) }) = cell {
                    found.insert(id.clone(), field.name().clone());
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if looked.is_ok() { found } else { HashMap::new() }
}

fn has_parameter(e: &Expr) -> bool {
    e.exists(|e| Ok(matches!(e, Expr::Placeholder(_)))).unwrap_or(true)
}

fn has_subquery(e: &Expr) -> bool {
    e.exists(|e| Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_)))).unwrap_or(true)
}
