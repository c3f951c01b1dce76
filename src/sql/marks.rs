//! Marks in a parsed statement what the stock planner would settle too early, by calls of functions that
//! `plan::settle` takes out again:
//!
//! - a number with a point becomes `_remige_exact('0.1')`: its type depends on what it meets;
//! - `t AT TIME ZONE 'z'` becomes `at_time_zone(t, 'z')`: the stock cast knows no switch of the clocks;
//! - the value of `CAST(t AS TIMESTAMP)` becomes `_remige_bare(t)`: a finer value keeps its unit;
//! - a TIMESTAMP literal with more than six digits after the second is a TIMESTAMP(9).

use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, Statement as DfStatement};
use sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, NamedWindowExpr, ObjectName,
    Select, Spanned, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut, WindowFrame, WindowFrameBound, WindowSpec, WindowType,
};
use sqlparser::tokenizer::Span as SqlSpan;

/// Stands for a number that is exact where it meets what is exact.
pub const EXACT: &str = "_remige_exact";
/// Stands for the value of a cast to a TIMESTAMP without a precision.
pub const BARE: &str = "_remige_bare";
/// Does what AT TIME ZONE says.
pub const AT_ZONE: &str = "at_time_zone";

/// Digits after the second that a TIMESTAMP keeps.
const DIGITS: usize = 6;

/// Marks a whole statement.
pub fn mark_statement(statement: &mut DfStatement) {
    match statement {
        DfStatement::Statement(s) => visit(s.as_mut()),
        DfStatement::CopyTo(c) => {
            if let CopyToSource::Query(q) = &mut c.source {
                visit(q);
            }
        }
        DfStatement::Explain(e) => mark_statement(&mut e.statement),
        _ => {}
    }
}

/// Marks one expression.
pub fn mark_expression(e: &mut Expr) {
    visit(e);
}

/// The digits of a marked number, with its sign.
pub fn digits(e: &Expr) -> Option<String> {
    marked(e).map(|(digits, _)| digits)
}

fn visit(node: &mut impl VisitMut) {
    let _ = node.visit(&mut Mark);
}

struct Mark;

impl VisitorMut for Mark {
    type Break = ();

    fn post_visit_expr(&mut self, e: &mut Expr) -> ControlFlow<()> {
        if let Some(new) = replacement(e) {
            *e = new;
        }
        match e {
            Expr::Interval(i) => unmark(&mut i.value),
            Expr::Function(Function { over: Some(WindowType::WindowSpec(spec)), .. }) => unmark_frame(spec),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, s: &mut Select) -> ControlFlow<()> {
        for window in &mut s.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = &mut window.1 {
                unmark_frame(spec);
            }
        }
        ControlFlow::Continue(())
    }
}

fn replacement(e: &mut Expr) -> Option<Expr> {
    match e {
        Expr::Value(ValueWithSpan { value: Value::Number(n, _), span }) => {
            let digits = n.replace('_', "");
            is_exact(&digits).then(|| call(EXACT, vec![text(digits, *span)], *span))
        }
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            // a second sign is an operation, as the stock planner has it
            let (digits, span) = marked(expr).filter(|(digits, _)| !digits.starts_with('-'))?;
            let digits = format!("-{digits}");
            Some(call(EXACT, vec![text(digits, span)], span))
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), .. }) = time_zone.as_ref() else { return None };
            let span = timestamp.span();
            Some(call(AT_ZONE, vec![timestamp.as_ref().clone(), time_zone.as_ref().clone()], span))
        }
        Expr::TypedString(t) => {
            let value = t.value.value.clone().into_string();
            finer(&mut t.data_type, value.as_deref());
            None
        }
        Expr::Cast { expr, data_type, .. } => {
            if let Expr::Value(v) = expr.as_ref() {
                let value = v.value.clone().into_string();
                finer(data_type, value.as_deref());
            } else if matches!(data_type, DataType::Timestamp(None, _)) {
                let span = expr.span();
                let value = std::mem::replace(expr.as_mut(), Expr::Value(Value::Null.into()));
                **expr = call(BARE, vec![value], span);
            }
            None
        }
        _ => None,
    }
}

/// Whether a number has a point and no exponent, or is too great for an integer.
fn is_exact(digits: &str) -> bool {
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain && (digits.contains('.') || digits.parse::<u64>().is_err())
}

fn finer(t: &mut DataType, value: Option<&str>) {
    let DataType::Timestamp(precision @ None, _) = t else { return };
    let Some((_, after)) = value.and_then(|v| v.split_once('.')) else { return };
    let digits = after.bytes().take_while(u8::is_ascii_digit).collect::<Vec<_>>();
    if digits.iter().skip(DIGITS).any(|d| *d != b'0') {
        *precision = Some(9);
    }
}

fn text(value: String, span: SqlSpan) -> Expr {
    Expr::Value(Value::SingleQuotedString(value).with_span(span))
}

fn call(name: &str, args: Vec<Expr>, span: SqlSpan) -> Expr {
    let args = args.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::with_span(span, name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

fn marked(e: &Expr) -> Option<(String, SqlSpan)> {
    let Expr::Function(f) = e else { return None };
    let [name] = f.name.0.as_slice() else { return None };
    let name = name.as_ident().filter(|i| i.value == EXACT)?;
    let FunctionArguments::List(list) = &f.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(digits), .. })))] => {
            Some((digits.clone(), name.span))
        }
        _ => None,
    }
}

/// The stock planner reads the numbers of intervals and window frames by itself.
fn unmark(e: &mut Expr) {
    if let Some((digits, span)) = marked(e) {
        let (negative, digits) = match digits.strip_prefix('-') {
            Some(d) => (true, d.to_string()),
            None => (false, digits),
        };
        let number = Expr::Value(Value::Number(digits, false).with_span(span));
        *e = match negative {
            true => Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(number) },
            false => number,
        };
    }
}

fn unmark_frame(spec: &mut WindowSpec) {
    let Some(WindowFrame { start_bound, end_bound, .. }) = &mut spec.window_frame else { return };
    for bound in std::iter::once(start_bound).chain(end_bound) {
        if let WindowFrameBound::Preceding(Some(e)) | WindowFrameBound::Following(Some(e)) = bound {
            unmark(e);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(sql: &str) -> String {
        let mut s = crate::sql::parse::statement(sql).unwrap();
        mark_statement(&mut s);
        s.to_string()
    }

    #[test]
    fn numbers_with_a_point_are_marked() {
        assert_eq!(pass("SELECT 1, 0.5, -0.5, 1e3, 1.5e3"), "SELECT 1, _remige_exact('0.5'), _remige_exact('-0.5'), 1e3, 1.5e3");
        assert_eq!(
            pass("SELECT 18446744073709551615, 18446744073709551616"),
            "SELECT 18446744073709551615, _remige_exact('18446744073709551616')"
        );
        assert_eq!(pass("SELECT INTERVAL 1.5 DAY"), "SELECT INTERVAL 1.5 DAY");
        let frame = "SELECT sum(x) OVER (ORDER BY y RANGE BETWEEN 0.5 PRECEDING AND 0.5 FOLLOWING) FROM t";
        assert_eq!(pass(frame), frame);
    }

    #[test]
    fn instants_are_marked() {
        assert_eq!(pass("SELECT t AT TIME ZONE 'UTC' FROM l"), "SELECT at_time_zone(t, 'UTC') FROM l");
        assert_eq!(pass("SELECT CAST(t AS TIMESTAMP)"), "SELECT CAST(_remige_bare(t) AS TIMESTAMP)");
        assert_eq!(pass("SELECT TIMESTAMP '2026-01-01 00:00:00.1234560'"), "SELECT TIMESTAMP '2026-01-01 00:00:00.1234560'");
        assert_eq!(pass("SELECT TIMESTAMP '2026-01-01 00:00:00.1234567Z'"), "SELECT TIMESTAMP(9) '2026-01-01 00:00:00.1234567Z'");
    }
}
