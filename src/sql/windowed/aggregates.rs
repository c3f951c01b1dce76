//! Aggregates over windows, found in expressions and put aside.

use std::ops::ControlFlow;

use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, NullTreatment, Spanned, Value, VisitMut,
    VisitorMut, WindowType,
};

use super::refused;
use crate::error::{Error, Result, Span};
use crate::sql::over::{WindowClause, is_inline};
use crate::sql::tokens::fold_ident;

/// A column of the events, as an expression over the view's FROM.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    pub name: String,
    pub expr: Expr,
    pub filter: bool,
}

/// An aggregate as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregateText {
    /// In lower case.
    pub function: String,
    pub distinct: bool,
    pub ignore_nulls: bool,
    pub star: bool,
    /// Names of arguments.
    pub args: Vec<String>,
    /// Numbers behind them.
    pub constants: Vec<String>,
    pub filter: Option<String>,
    pub window: WindowClause,
    pub span: Option<Span>,
}

impl AggregateText {
    fn same(&self, other: &AggregateText) -> bool {
        let window = WindowClause { span: self.window.span, ..other.window.clone() };
        *self == AggregateText { window, span: self.span, ..other.clone() }
    }
}

pub struct Collector {
    windows: Vec<(String, WindowClause)>,
    used: Vec<bool>,
    /// Names that no argument may have.
    reserved: Vec<String>,
    slot: fn(usize) -> String,
    arguments: Vec<Argument>,
    aggregates: Vec<AggregateText>,
}

impl Collector {
    pub fn new(windows: Vec<(String, WindowClause)>, reserved: Vec<String>, slot: fn(usize) -> String) -> Self {
        let used = vec![false; windows.len()];
        Collector { windows, used, reserved, slot, arguments: vec![], aggregates: vec![] }
    }

    /// Puts the columns of aggregates in the place of these; true where there was one.
    pub fn take(&mut self, e: &mut Expr) -> Result<bool> {
        let before = self.used.clone();
        let mut taking = Taking { collector: self, found: false };
        match e.visit(&mut taking) {
            ControlFlow::Break(e) => Err(e),
            ControlFlow::Continue(()) => {
                let found = taking.found;
                debug_assert!(found || before == self.used);
                Ok(found)
            }
        }
    }

    /// What was found; an error where a window was not.
    pub fn finish(self) -> Result<(Vec<Argument>, Vec<AggregateText>)> {
        match self.used.iter().position(|used| !used) {
            None => Ok((self.arguments, self.aggregates)),
            Some(i) => {
                let (name, window) = &self.windows[i];
                let e = match is_inline(name) {
                    true => refused::below(),
                    false => Error::invalid(format!("no aggregate uses window {name}"))
                        .with_hint(format!("write OVER {name} behind one, or leave it out")),
                };
                Err(e.with_span(window.span))
            }
        }
    }

    fn window(&mut self, over: &Option<WindowType>) -> Option<WindowClause> {
        let Some(WindowType::NamedWindow(name)) = over else { return None };
        let at = self.windows.iter().position(|(n, _)| *n == fold_ident(name))?;
        self.used[at] = true;
        Some(self.windows[at].1.clone())
    }

    /// The number of an aggregate's column.
    fn add(&mut self, f: &Function, window: WindowClause) -> Result<usize> {
        let name = f.name.to_string().to_lowercase();
        let place = Span::from_sql(f.name.span());
        refused::call(f, &name).map_err(|e| e.or_span(place))?;
        let FunctionArguments::List(list) = &f.args else {
            return Err(Error::invalid(format!("{name}() over a window wants arguments in parentheses")).or_span(place));
        };
        let mut text = AggregateText {
            function: name.trim_matches('"').to_string(),
            distinct: list.duplicate_treatment == Some(DuplicateTreatment::Distinct),
            ignore_nulls: f.null_treatment == Some(NullTreatment::IgnoreNulls),
            star: false,
            args: vec![],
            constants: vec![],
            filter: None,
            window,
            span: place,
        };
        for (i, arg) in list.args.iter().enumerate() {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => text.star = true,
                // count(1) counts events
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) if text.function == "count" && !text.distinct && number(e).is_some() => {
                    text.star = true
                }
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => match (i, number(e)) {
                    (1.., Some(n)) => text.constants.push(n),
                    _ => text.args.push(self.argument(e, false)?),
                },
                other => return Err(Error::invalid(format!("{name}() over a window does not take {other}")).or_span(place)),
            }
        }
        if let Some(filter) = &f.filter {
            text.filter = Some(self.argument(filter, true)?);
        }
        Ok(match self.aggregates.iter().position(|a| a.same(&text)) {
            Some(at) => at,
            None => {
                self.aggregates.push(text);
                self.aggregates.len() - 1
            }
        })
    }

    /// The name of the column with an argument.
    fn argument(&mut self, e: &Expr, filter: bool) -> Result<String> {
        refused::argument(e, filter, self.slot)?;
        if let Some(known) = self.arguments.iter().find(|a| a.expr == *e && a.filter == filter) {
            return Ok(known.name.clone());
        }
        let plain = match e {
            Expr::Identifier(i) => Some(fold_ident(i)),
            Expr::CompoundIdentifier(parts) => parts.last().map(fold_ident),
            _ => None,
        };
        let base = plain.unwrap_or_else(|| {
            let n = self.arguments.iter().filter(|a| a.filter == filter).count() + 1;
            format!("{}{n}", if filter { "filter" } else { "arg" })
        });
        let taken = |name: &String| self.reserved.contains(name) || self.arguments.iter().any(|a| a.name == *name);
        let free = |name: &String| !taken(name) && crate::model::layout::check_column_name(name).is_ok();
        let numbered = (2..).map(|n| format!("{base}_{n}"));
        let name = std::iter::once(base.clone()).chain(numbered).find(free).unwrap_or(base);
        self.arguments.push(Argument { name: name.clone(), expr: e.clone(), filter });
        Ok(name)
    }
}

/// A number as it is written.
fn number(e: &Expr) -> Option<String> {
    match e {
        Expr::Value(v) => match &v.value {
            Value::Number(n, _) => Some(n.to_string()),
            _ => None,
        },
        _ => None,
    }
}

struct Taking<'a> {
    collector: &'a mut Collector,
    found: bool,
}

impl VisitorMut for Taking<'_> {
    type Break = Error;

    fn post_visit_expr(&mut self, e: &mut Expr) -> ControlFlow<Error> {
        let Expr::Function(f) = e else { return ControlFlow::Continue(()) };
        let Some(window) = self.collector.window(&f.over) else { return ControlFlow::Continue(()) };
        self.found = true;
        match self.collector.add(f, window) {
            Ok(slot) => {
                *e = Expr::Identifier(Ident::with_quote('"', (self.collector.slot)(slot)));
                ControlFlow::Continue(())
            }
            Err(e) => ControlFlow::Break(e),
        }
    }
}
