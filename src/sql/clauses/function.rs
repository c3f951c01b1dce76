//! Clauses of function calls, of windows and of CAST.

use std::ops::ControlFlow;

use sqlparser::ast::{
    ArrayElemTypeDef, CharLengthUnits, CharacterLength, DataType, DuplicateTreatment, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, NullTreatment, ObjectName, Value, Visit,
    Visitor, WindowFrame, WindowSpec, WindowType,
};

use super::query::order;
use super::{Refusal, Verdict, refuse};
use crate::error::{Result, Span};

/// What a name in front of parentheses stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Scalar,
    Aggregate,
    Window,
    /// No function: the planner says so.
    Unknown,
}

pub(super) fn expression(e: &Expr) -> Verdict {
    match e {
        Expr::Function(f) => function(f),
        Expr::Cast { kind: _, expr: _, data_type, array: _, format } => {
            refuse(
                format.is_some(),
                "FORMAT of CAST",
                &["FORMAT"],
                "to_timestamp(text, '%Y-%m-%d') reads, to_char(value, '%Y-%m-%d') writes in a format",
            )?;
            type_of(data_type)
        }
        Expr::TypedString(t) => type_of(&t.data_type),
        Expr::Convert { .. } => refuse(true, "CONVERT", &["CONVERT"], "write CAST(value AS type)"),
        Expr::Collate { expr: _, collation: _ } => {
            refuse(true, "COLLATE", &["COLLATE"], "leave it out: texts compare by their code points; lower(text) compares without case")
        }
        _ => Ok(()),
    }
}

fn function(f: &Function) -> Verdict {
    let Function { name, uses_odbc_syntax: _, parameters, args, filter: _, null_treatment: _, over, within_group } = f;
    refuse(*parameters != FunctionArguments::None, format!("{name}(…)(…)"), &[], "give all arguments in one pair of parentheses")?;
    match args {
        FunctionArguments::None => {}
        FunctionArguments::Subquery(_) => refuse(
            true,
            format!("a query as the argument of {name}"),
            &["ARRAY"],
            "put it into parentheses: f((SELECT …)); a list of rows: (SELECT array_agg(x) FROM …)",
        )?,
        FunctionArguments::List(FunctionArgumentList { duplicate_treatment: _, args, clauses }) => {
            args.iter().try_for_each(argument)?;
            clauses.iter().try_for_each(|c| clause(&name.to_string(), c))?;
        }
    }
    within_group.iter().try_for_each(order)?;
    match over {
        None | Some(WindowType::NamedWindow(_)) => Ok(()),
        Some(WindowType::WindowSpec(w)) => window(w),
    }
}

fn argument(a: &FunctionArg) -> Verdict {
    let (FunctionArg::Named { name: _, arg, operator: _ }
    | FunctionArg::ExprNamed { name: _, arg, operator: _ }
    | FunctionArg::Unnamed(arg)) = a;
    match arg {
        FunctionArgExpr::Expr(_) | FunctionArgExpr::QualifiedWildcard(_) | FunctionArgExpr::Wildcard => Ok(()),
        FunctionArgExpr::WildcardWithOptions(_) => {
            refuse(true, "EXCLUDE behind the star of a function", &["EXCLUDE", "EXCEPT", "REPLACE", "RENAME", "ILIKE"], "name the columns")
        }
    }
}

fn clause(name: &str, c: &FunctionArgumentClause) -> Verdict {
    match c {
        FunctionArgumentClause::IgnoreOrRespectNulls(_) => Ok(()),
        FunctionArgumentClause::OrderBy(list) => list.iter().try_for_each(order),
        FunctionArgumentClause::Limit(_) => {
            refuse(true, format!("LIMIT inside of {name}"), &["LIMIT"], "take a part of the list: (array_agg(x ORDER BY y))[1:3]")
        }
        FunctionArgumentClause::OnOverflow(_) => {
            refuse(true, "ON OVERFLOW", &["ON OVERFLOW"], "leave it out: texts have no greatest length")
        }
        FunctionArgumentClause::Having(_) => {
            refuse(true, format!("HAVING inside of {name}"), &["HAVING"], "write FILTER (WHERE …), or first_value(x ORDER BY y DESC)")
        }
        FunctionArgumentClause::Separator(_) => refuse(true, "SEPARATOR", &["SEPARATOR"], "write string_agg(x, ',' ORDER BY y)"),
        FunctionArgumentClause::JsonNullClause(_) | FunctionArgumentClause::JsonReturningClause(_) => refuse(
            true,
            format!("NULL ON NULL, ABSENT ON NULL and RETURNING inside of {name}"),
            &["ABSENT", "NULL ON", "RETURNING"],
            "leave it out",
        ),
    }
}

pub(super) fn window(w: &WindowSpec) -> Verdict {
    let WindowSpec { window_name, partition_by: _, order_by, window_frame } = w;
    refuse(
        window_name.is_some(),
        "a window that is built on another one",
        &["OVER", "WINDOW"],
        "write the window out in full: OVER (PARTITION BY … ORDER BY …)",
    )?;
    order_by.iter().try_for_each(order)?;
    match window_frame {
        None | Some(WindowFrame { units: _, start_bound: _, end_bound: _ }) => Ok(()),
    }
}

/// A number in ORDER BY inside of an aggregate is a number; the stock planner takes it for the place of a column.
pub fn order_by_constant(e: &mut Expr) {
    let Expr::Function(f) = e else { return };
    if let FunctionArguments::List(list) = &mut f.args {
        for clause in &mut list.clauses {
            if let FunctionArgumentClause::OrderBy(order) = clause {
                order.iter_mut().for_each(|o| enclose_number(&mut o.expr));
            }
        }
    }
    f.within_group.iter_mut().for_each(|o| enclose_number(&mut o.expr));
}

fn enclose_number(e: &mut Expr) {
    if matches!(e, Expr::Value(v) if matches!(v.value, Value::Number(..))) {
        let number = std::mem::replace(e, Expr::value(Value::Null));
        *e = Expr::Nested(Box::new(number));
    }
}

/// `CAST(x AS VARCHAR(n))` keeps the first n characters.
pub(super) fn cut_to_length(e: &mut Expr) {
    let Expr::Cast { kind: _, expr: _, data_type, array: false, format: None } = e else { return };
    let Some(length) = text_length(data_type) else { return };
    *data_type = DataType::Varchar(None);
    let argument = |e: Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(e));
    let number = Expr::value(Value::Number(length.to_string(), false));
    let text = std::mem::replace(e, Expr::value(Value::Null));
    *e = Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("left")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![argument(text), argument(number)],
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    });
}

/// The length of a text that a type says.
fn text_length(t: &DataType) -> Option<u64> {
    match t {
        DataType::Varchar(Some(CharacterLength::IntegerLength { length, unit: None | Some(CharLengthUnits::Characters) })) => Some(*length),
        _ => None,
    }
}

/// Refuses widths and lengths that the type would not keep.
fn type_of(t: &DataType) -> Verdict {
    let no = |hint: &str| refuse(true, format!("a length in the type {t}"), &["AS"], hint);
    match t {
        DataType::Varchar(Some(CharacterLength::IntegerLength { length: _, unit: _ }))
        | DataType::Char(Some(_))
        | DataType::String(Some(_)) => no("write VARCHAR, and left(text, n) for its first characters"),
        DataType::TinyInt(Some(_))
        | DataType::SmallInt(Some(_))
        | DataType::Int2(Some(_))
        | DataType::Int(Some(_))
        | DataType::Integer(Some(_))
        | DataType::Int4(Some(_))
        | DataType::BigInt(Some(_))
        | DataType::Int8(Some(_))
        | DataType::TinyIntUnsigned(Some(_))
        | DataType::SmallIntUnsigned(Some(_))
        | DataType::Int2Unsigned(Some(_))
        | DataType::IntUnsigned(Some(_))
        | DataType::IntegerUnsigned(Some(_))
        | DataType::Int4Unsigned(Some(_))
        | DataType::BigIntUnsigned(Some(_))
        | DataType::Int8Unsigned(Some(_)) => no("write the type alone: INT, BIGINT; DECIMAL(n, 0) has n digits"),
        DataType::Float(ExactNumberInfo::Precision(_) | ExactNumberInfo::PrecisionAndScale(_, _)) => {
            no("write FLOAT, DOUBLE or DECIMAL(p, s)")
        }
        DataType::Array(
            ArrayElemTypeDef::AngleBracket(inner) | ArrayElemTypeDef::SquareBracket(inner, None) | ArrayElemTypeDef::Parenthesis(inner),
        ) => type_of(inner),
        DataType::Struct(fields, _) => fields.iter().try_for_each(|f| type_of(&f.field_type)),
        _ => Ok(()),
    }
}

/// Refuses what stands behind a function that is not of a kind to obey it. `kind` knows the functions by their folded names.
pub fn check_functions(part: &impl Visit, kind: &dyn Fn(&str) -> Kind) -> Result<()> {
    struct Find<'a>(&'a dyn Fn(&str) -> Kind);
    impl Visitor for Find<'_> {
        type Break = (Refusal, Option<Span>);
        fn pre_visit_expr(&mut self, e: &Expr) -> ControlFlow<Self::Break> {
            use sqlparser::ast::Spanned;
            let Expr::Function(f) = e else { return ControlFlow::Continue(()) };
            match suits(f, self.0) {
                Ok(()) => ControlFlow::Continue(()),
                Err(r) => ControlFlow::Break((r, Span::from_sql(f.name.span()))),
            }
        }
    }
    match part.visit(&mut Find(kind)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break((r, span)) => Err(r.located("").or_span(span)),
    }
}

/// Aggregates that would count every row, DISTINCT or not, or whose counts would all be 1.
const ALL_ROWS: [&str; 8] = ["approx_percentile_cont", "approx_median", "corr", "covar", "regr_", "nth_value", "mode", "histogram"];

/// Functions over windows that can leave out NULLs.
const PASSES_NULLS: [&str; 5] = ["lead", "lag", "first_value", "last_value", "nth_value"];

fn suits(f: &Function, kind: &dyn Fn(&str) -> Kind) -> Verdict {
    let Some(ident) = f.name.0.first().and_then(|p| p.as_ident()).filter(|_| f.name.0.len() == 1) else { return Ok(()) };
    let name = if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() };
    let (mut distinct, mut ordered, mut nulls) = (false, false, f.null_treatment);
    if let FunctionArguments::List(list) = &f.args {
        distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        for c in &list.clauses {
            match c {
                FunctionArgumentClause::OrderBy(_) => ordered = true,
                FunctionArgumentClause::IgnoreOrRespectNulls(n) => nulls = Some(*n),
                _ => {}
            }
        }
    }
    let of = |what: &str| format!("{what} of {name}");
    match kind(&name) {
        Kind::Scalar => {
            let hint = format!("{name} works on one row: it takes arguments and nothing else");
            refuse(f.over.is_some(), of("OVER"), &[], &hint)?;
            refuse(f.filter.is_some(), of("FILTER"), &[], format!("{hint}; write CASE WHEN … THEN {name}(…) END"))?;
            refuse(distinct, of("DISTINCT"), &[], format!("{hint}; write SELECT DISTINCT"))?;
            refuse(ordered, of("ORDER BY"), &[], &hint)?;
            refuse(!f.within_group.is_empty(), of("WITHIN GROUP"), &[], &hint)?;
            refuse(nulls.is_some(), of("IGNORE NULLS and RESPECT NULLS"), &[], hint)
        }
        Kind::Window => {
            refuse(distinct, of("DISTINCT"), &[], "take the distinct rows in a subquery first")?;
            skips(&name, nulls)
        }
        Kind::Aggregate => {
            let all_rows = ALL_ROWS.iter().any(|start| name.starts_with(start));
            refuse(
                distinct && all_rows,
                of("DISTINCT"),
                &[],
                "take the distinct rows in a subquery first: FROM (SELECT DISTINCT … FROM …)",
            )?;
            // without OVER, the planner refuses what an aggregate does not know
            if f.over.is_some() { skips(&name, nulls) } else { Ok(()) }
        }
        Kind::Unknown => Ok(()),
    }
}

fn skips(name: &str, nulls: Option<NullTreatment>) -> Verdict {
    refuse(
        nulls.is_some() && !PASSES_NULLS.contains(&name),
        format!("IGNORE NULLS and RESPECT NULLS of {name}"),
        &[],
        format!("over a window, {} take it; write FILTER (WHERE x IS NOT NULL) for an aggregate", PASSES_NULLS.join(", ")),
    )
}
