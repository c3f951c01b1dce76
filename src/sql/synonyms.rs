//! Functions by the names that other systems give them: a call is written as the expression that it stands for. The
//! names are those of DuckDB and Snowflake, with their meanings; docs/functions.md lists them.

mod json_path;
mod table;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::parser::{CopyToSource, Statement as DfStatement};
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident,
    LambdaFunction, LambdaFunctionParameter, LambdaSyntax, ObjectName, OneOrManyWithParens, Select, SelectItem, Spanned, Value, Visit,
    VisitMut, Visitor, VisitorMut,
};
use sqlparser::parser::Parser;

use self::table::{AGGREGATES, JSON_PATHS, MISSING, OF_UNITS, RENAMED, UNITS, WRITTEN};
use super::arrows::HIGHER_ORDER;
use super::clauses::order_by_constant;
use super::text::DIALECT;
use super::tokens::fold_ident;
use crate::error::{Error, Result, Span};

/// Functions that answer something else each time.
const VOLATILE: [&str; 4] = ["random", "rand", "uuid", "gen_random_uuid"];

/// Writes the calls of a statement out.
pub fn expand(statement: &mut DfStatement) -> Result<()> {
    match statement {
        DfStatement::Statement(s) => expand_part(s.as_mut()),
        DfStatement::Explain(e) => expand(&mut e.statement),
        DfStatement::CopyTo(c) => match &mut c.source {
            CopyToSource::Query(q) => expand_part(q.as_mut()),
            CopyToSource::Relation(_) => Ok(()),
        },
        DfStatement::CreateExternalTable(_) | DfStatement::Reset(_) => Ok(()),
    }
}

/// The same for a part of a statement.
pub fn expand_part(part: &mut impl VisitMut) -> Result<()> {
    match part.visit(&mut Expand) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

/// What to write for a function that other systems have and that is not here.
pub fn instead_of(name: &str) -> Option<&'static str> {
    MISSING.iter().find(|(n, _)| *n == name).map(|(_, hint)| *hint)
}

/// The names that are written out, for suggestions and lists.
pub fn names() -> impl Iterator<Item = &'static str> {
    let calls = WRITTEN.iter().chain(AGGREGATES).map(|(call, _)| call.split('(').next().unwrap_or(call));
    calls.filter(|n| !n.contains(' ')).chain(RENAMED.iter().map(|(n, _)| *n)).chain(JSON_PATHS.iter().map(|(n, _)| *n))
}

struct Expand;

impl VisitorMut for Expand {
    type Break = Error;

    /// A column without a name is called as the user wrote it.
    fn pre_visit_select(&mut self, s: &mut Select) -> ControlFlow<Error> {
        for item in &mut s.projection {
            let SelectItem::UnnamedExpr(written) = item else { continue };
            let mut expr = written.clone();
            if let Err(e) = expand_part(&mut expr) {
                return ControlFlow::Break(e);
            }
            if expr != *written {
                *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', title(written)) };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, e: &mut Expr) -> ControlFlow<Error> {
        let done = match e {
            Expr::BinaryOp { op: BinaryOperator::Arrow | BinaryOperator::LongArrow, .. } => {
                read_json(e);
                Ok(())
            }
            Expr::Function(f) => match call(f) {
                Ok(Some(written)) => {
                    *e = written;
                    Ok(())
                }
                Ok(None) => Ok(()),
                Err(e) => Err(e),
            },
            _ => Ok(()),
        };
        match done {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }

    /// Functions of elements, before their bodies could be taken for readings of JSON.
    fn pre_visit_expr(&mut self, e: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Function(f) = e
            && HIGHER_ORDER.contains(&name_of(f).unwrap_or_default().as_str())
            && let FunctionArguments::List(list) = &mut f.args
        {
            for a in &mut list.args {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) = a {
                    function_of_elements(arg);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// What a column of an expression is called.
fn title(e: &Expr) -> String {
    match e {
        Expr::Nested(inner) if matches!(&**inner, Expr::BinaryOp { op: BinaryOperator::Arrow | BinaryOperator::LongArrow, .. }) => {
            inner.to_string()
        }
        other => other.to_string(),
    }
}

/// The folded name of a function without a schema.
fn name_of(f: &Function) -> Option<String> {
    match f.name.0.as_slice() {
        [one] => one.as_ident().map(fold_ident),
        _ => None,
    }
}

fn function_of_elements(arg: &mut Expr) {
    let Expr::BinaryOp { left, op: BinaryOperator::Arrow, right } = arg else { return };
    let name = |e: &Expr| match e {
        Expr::Identifier(i) => Some(LambdaFunctionParameter { name: i.clone(), data_type: None }),
        _ => None,
    };
    let params = match &**left {
        Expr::Tuple(all) => all.iter().map(name).collect::<Option<Vec<_>>>().map(OneOrManyWithParens::Many),
        one => name(one).map(OneOrManyWithParens::One),
    };
    if let Some(params) = params {
        let mut body = std::mem::replace(right, Box::new(Expr::value(Value::Null)));
        calls_of_lists(&mut body);
        *arg = Expr::Lambda(LambdaFunction { params, body, syntax: LambdaSyntax::Arrow });
    }
}

/// `[x, 1]` as a call: the stock planner looks for parameters in calls, not in lists that are written out.
fn calls_of_lists(body: &mut Expr) {
    struct Lists;
    impl VisitorMut for Lists {
        type Break = ();
        fn post_visit_expr(&mut self, e: &mut Expr) -> ControlFlow<()> {
            if let Expr::Array(list) = e {
                *e = made("make_array", std::mem::take(&mut list.elem));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(body, &mut Lists);
}

/// `j -> 'key'` is the JSON text of the value, `j ->> 'key'` the value as a text, as in PostgreSQL.
fn read_json(e: &mut Expr) {
    let Expr::BinaryOp { left, op, right } = std::mem::replace(e, Expr::value(Value::Null)) else { return };
    let name = if op == BinaryOperator::Arrow { "json_get_json" } else { "json_as_text" };
    *e = made(name, vec![*left, *right]);
}

fn made(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// What a call stands for, where it is one of another system.
fn call(f: &mut Function) -> Result<Option<Expr>> {
    let Some(name) = name_of(f) else { return Ok(None) };
    let span = Span::from_sql(f.name.span());
    if let Some((_, count)) = OF_UNITS.iter().find(|(n, _)| *n == name) {
        quote_unit(f, *count);
    }
    if let Some((_, to)) = RENAMED.iter().find(|(from, _)| *from == name) {
        f.name = ObjectName::from(vec![Ident::with_span(f.name.span(), *to)]);
        return Ok(None);
    }
    if let Some((_, to)) = JSON_PATHS.iter().find(|(from, _)| *from == name) {
        return json_path::call(&name, to, f).map(Some).map_err(|e| e.or_span(span));
    }
    let args = arguments(f);
    let months = name == "time_bucket" && matches!(args.as_deref(), Some([width, _]) if of_months(width));
    let Some(forms) = FORMS.get(if months { "time_bucket of months" } else { name.as_str() }) else { return Ok(None) };
    let Some(form) = args.as_ref().and_then(|a| forms.iter().find(|form| form.params.len() == a.len())) else {
        // date_diff(part, a, b) itself is a function
        if OWN.contains(&name.as_str()) {
            return Ok(None);
        }
        let known: Vec<&str> = forms.iter().map(|form| form.call).collect();
        return Err(Error::invalid(format!("{name} does not take these arguments"))
            .with_hint(format!("write {}", known.join(" or ")))
            .or_span(span));
    };
    form.write(&name, args.unwrap_or_default(), f).map(Some).map_err(|e| e.or_span(span))
}

/// A width that is counted in months begins with the first of January, others with a Monday.
fn of_months(width: &Expr) -> bool {
    let Expr::Interval(_) = width else { return false };
    let text = width.to_string().to_lowercase();
    ["mon", "year", "quarter", "decade", "century", "millen"].iter().any(|unit| text.contains(unit))
}

/// Functions that are written out with another number of arguments only.
const OWN: [&str; 2] = ["date_add", "age"];

/// `datediff(day, …)`: the name of a unit is a text.
fn quote_unit(f: &mut Function, count: usize) {
    if let FunctionArguments::List(list) = &mut f.args
        && list.args.len() == count
        && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = list.args.first_mut()
        && let Expr::Identifier(i) = first
        && i.quote_style.is_none()
        && UNITS.contains(&i.value.to_lowercase().as_str())
    {
        *first = Expr::value(Value::SingleQuotedString(i.value.to_lowercase()));
    }
}

/// The arguments of a call; `None` where they are no list of expressions.
fn arguments(f: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &f.args else {
        return matches!(f.args, FunctionArguments::None).then(Vec::new);
    };
    let one = |a: &FunctionArg| match a {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
        _ => None,
    };
    list.args.iter().map(one).collect()
}

/// A call and what it stands for.
struct Form {
    call: &'static str,
    params: Vec<&'static str>,
    body: Expr,
    aggregate: bool,
}

static FORMS: LazyLock<HashMap<&'static str, Vec<Form>>> = LazyLock::new(|| {
    let mut all: HashMap<&'static str, Vec<Form>> = HashMap::new();
    let written = WRITTEN.iter().map(|f| (f, false)).chain(AGGREGATES.iter().map(|f| (f, true)));
    for ((call, body), aggregate) in written {
        let (name, params) = call.split_once('(').unwrap_or((call, ")"));
        let params = params.trim_end_matches(')').split(", ").filter(|p| !p.is_empty()).collect();
        let parsed = Parser::new(&DIALECT).try_with_sql(body).and_then(|mut p| p.parse_expr());
        // a test reads all of them
        let Ok(body) = parsed else { continue };
        all.entry(name).or_default().push(Form { call, params, body, aggregate });
    }
    all
});

impl Form {
    fn write(&self, name: &str, args: Vec<Expr>, f: &Function) -> Result<Expr> {
        for (param, arg) in self.params.iter().zip(&args) {
            if self.uses(param) > 1
                && let Some(v) = volatile(arg)
            {
                return Err(Error::invalid(format!("{name} would compute {v}() more than once, each time with another answer"))
                    .with_hint(format!("compute it in a subquery first: SELECT {name}(x, …) FROM (SELECT {v}() AS x, … FROM …)")));
            }
        }
        let mut body = self.body.clone();
        let mut put = Put { params: &self.params, args: &args };
        let _ = VisitMut::visit(&mut body, &mut put);
        order_by_constant(&mut body);
        match self.aggregate {
            true => with_clauses(name, body, f),
            false => {
                alone(name, f)?;
                Ok(match body {
                    Expr::Function(_) => body,
                    other => Expr::Nested(Box::new(other)),
                })
            }
        }
    }

    fn uses(&self, param: &str) -> usize {
        struct Count<'a>(&'a str, usize);
        impl Visitor for Count<'_> {
            type Break = ();
            fn pre_visit_expr(&mut self, e: &Expr) -> ControlFlow<()> {
                self.1 += usize::from(matches!(e, Expr::Identifier(i) if i.value == self.0));
                ControlFlow::Continue(())
            }
        }
        let mut count = Count(param, 0);
        let _ = self.body.visit(&mut count);
        count.1
    }
}

/// Puts arguments in the places of parameters. It visits from below: what it puts in is not visited again.
struct Put<'a> {
    params: &'a [&'static str],
    args: &'a [Expr],
}

impl VisitorMut for Put<'_> {
    type Break = ();
    fn post_visit_expr(&mut self, e: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(i) = e
            && let Some(n) = self.params.iter().position(|p| *p == i.value)
        {
            let arg = self.args[n].clone();
            *e = match arg {
                Expr::Value(_)
                | Expr::Identifier(_)
                | Expr::CompoundIdentifier(_)
                | Expr::Function(_)
                | Expr::Interval(_)
                | Expr::Nested(_) => arg,
                other => Expr::Nested(Box::new(other)),
            };
        }
        ControlFlow::Continue(())
    }
}

fn volatile(e: &Expr) -> Option<String> {
    struct Find;
    impl Visitor for Find {
        type Break = String;
        fn pre_visit_expr(&mut self, e: &Expr) -> ControlFlow<String> {
            match e {
                Expr::Function(f) if name_of(f).is_some_and(|n| VOLATILE.contains(&n.as_str())) => {
                    ControlFlow::Break(name_of(f).unwrap_or_default())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match e.visit(&mut Find) {
        ControlFlow::Break(name) => Some(name),
        ControlFlow::Continue(()) => None,
    }
}

/// Refuses what stands behind a function of one row.
fn alone(name: &str, f: &Function) -> Result<()> {
    let clauses = matches!(&f.args, FunctionArguments::List(l) if l.duplicate_treatment.is_some() || !l.clauses.is_empty());
    let more = f.over.is_some() || f.filter.is_some() || f.null_treatment.is_some() || !f.within_group.is_empty();
    match clauses || more {
        true => Err(Error::invalid(format!("DISTINCT, ORDER BY, FILTER, OVER or IGNORE NULLS of {name} is not supported"))
            .with_hint(format!("{name} works on one row: it takes arguments and nothing else"))),
        false => Ok(()),
    }
}

/// Takes FILTER, DISTINCT, ORDER BY and OVER of the call over to the aggregate that it stands for.
fn with_clauses(name: &str, body: Expr, f: &Function) -> Result<Expr> {
    let Expr::Function(mut made) = body else { return Ok(body) };
    let no = |what: &str, hint: String| Err(Error::invalid(format!("{what} of {name} is not supported")).with_hint(hint));
    let FunctionArguments::List(own) = &mut made.args else { return Ok(Expr::Function(made)) };
    let ordered = !own.clauses.is_empty();
    if let FunctionArguments::List(list) = &f.args {
        if list.duplicate_treatment.is_some() && made.name.to_string() != "string_agg" {
            return no("DISTINCT", "take the distinct rows in a subquery first".into());
        }
        own.duplicate_treatment = list.duplicate_treatment;
        if ordered && !(list.clauses.is_empty() && f.within_group.is_empty()) {
            return no("ORDER BY", "its second argument says the order".into());
        }
        own.clauses.extend(list.clauses.iter().cloned());
    }
    if !f.within_group.is_empty() {
        own.clauses.push(FunctionArgumentClause::OrderBy(f.within_group.clone()));
    }
    if f.over.is_some() && ordered {
        return no("OVER", "write first_value(x) OVER (PARTITION BY … ORDER BY y DESC), or aggregate in a subquery".into());
    }
    made.over.clone_from(&f.over);
    made.null_treatment = f.null_treatment;
    made.filter = match (made.filter.take(), f.filter.clone()) {
        (Some(a), Some(b)) => {
            Some(Box::new(Expr::BinaryOp { left: Box::new(Expr::Nested(a)), op: BinaryOperator::And, right: Box::new(Expr::Nested(b)) }))
        }
        (a, b) => a.or(b),
    };
    Ok(Expr::Function(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read_and_use_all_their_parameters() {
        assert_eq!(FORMS.values().map(Vec::len).sum::<usize>(), WRITTEN.len() + AGGREGATES.len());
        for form in FORMS.values().flatten() {
            for p in &form.params {
                assert!(form.uses(p) > 0, "{}: {p}", form.call);
            }
        }
    }

    #[test]
    fn no_name_is_both_here_and_missing() {
        for (name, _) in MISSING {
            assert!(!names().any(|n| n == *name), "{name}");
        }
    }

    fn written(text: &str) -> Result<String> {
        super::super::parse::expression(text).map(|e| e.to_string())
    }

    #[test]
    fn calls_are_written_out() {
        for (call, out) in [
            ("year(a + 1)", "date_part('year', (a + 1))"),
            ("datediff(day, a, b)", "date_diff('day', a, b)"),
            ("count_if(a > $1) FILTER (WHERE b) OVER w", "count(CASE WHEN (a > $1) THEN 1 END) FILTER (WHERE b) OVER w"),
            ("listagg(a, ',') WITHIN GROUP (ORDER BY b)", "string_agg(CAST(a AS VARCHAR), ',' ORDER BY b)"),
            ("j -> 'a' ->> 0", "(json_as_text((json_get_json(j, 'a')), 0))"),
            ("json_extract(j, '$.a[0].\"b c\"')", "json_get_json(j, 'a', 0, 'b c')"),
            ("list_transform(l, x -> x + 1)", "list_transform(l, x -> (x + 1))"),
            ("len(x)", "length(x)"),
            ("\"year\"(x)", "date_part('year', x)"),
            ("if(a, b, c)", "(CASE WHEN a THEN b ELSE c END)"),
            ("time_bucket(INTERVAL '1 month', x)", "date_bin(INTERVAL '1 month', x, TIMESTAMP '2000-01-01')"),
            ("s.year(x)", "s.year(x)"),
        ] {
            assert_eq!(written(call).unwrap(), out, "{call}");
        }
    }

    #[test]
    fn wrong_calls_say_how_to_write_them() {
        for (call, hint) in [
            ("year()", "write year(x)"),
            ("iff(a, b)", "write iff(c, a, b)"),
            ("regexp_extract(uuid(), 'a')", "subquery"),
            ("year(a) OVER ()", "one row"),
            ("max_by(a, b) OVER (ORDER BY c)", "first_value"),
            ("json_extract(j, p)", "json_get_json"),
        ] {
            let e = written(call).unwrap_err();
            assert!(e.hint().is_some_and(|h| h.contains(hint)), "{call}: {e:?}");
        }
    }
}
