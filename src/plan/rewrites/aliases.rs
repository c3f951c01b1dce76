//! Names that a SELECT gives to its columns, used further right in its list and in its WHERE: the expression is put in
//! the place of the name. A column of FROM that has the name is meant first. GROUP BY, HAVING and QUALIFY know such
//! names by themselves.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Function, Ident, OneOrManyWithParens, Query, Select, SelectItem, Value, Visit, VisitMut, Visitor, VisitorMut};

use super::Functions;
use crate::error::{Error, Result, Span};
use crate::sql::clauses::Kind;
use crate::sql::titles::MARK;
use crate::sql::tokens::fold_ident;

/// Parts that the expressions of one SELECT may get by names put in their place.
const LONGEST: usize = 20_000;
const DEEPEST: usize = 500;

/// Functions that make rows.
const ROWS: [&str; 2] = ["unnest", "unnest_outer"];

struct Alias {
    name: String,
    expr: Expr,
    size: usize,
    /// A function whose every call gives another value.
    volatile: Option<String>,
    aggregates: bool,
    windows: bool,
    makes_rows: bool,
    twice: bool,
}

/// Puts expressions in the place of their names.
pub fn resolve(s: &mut Select, is_column: &dyn Fn(&str) -> bool, functions: &Functions<'_>) -> Result<()> {
    let named: Vec<Option<String>> = s.projection.iter().map(name_of).collect();
    if !used(s, &named, functions) {
        return Ok(());
    }
    let mut known: Vec<Alias> = vec![];
    let mut room = LONGEST;
    for i in 0..s.projection.len() {
        let later: Vec<&str> = named[i + 1..].iter().flatten().map(String::as_str).collect();
        let title = match &s.projection[i] {
            SelectItem::UnnamedExpr(Expr::Identifier(i)) => Some(fold_ident(i)),
            SelectItem::UnnamedExpr(e) => Some(e.to_string()),
            _ => None,
        };
        let (SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. }) = &mut s.projection[i] else { continue };
        let mut put =
            Put { known: &known, later: &later, is_column, functions, room: &mut room, place: Place::List, frames: vec![], done: false };
        put.all(e)?;
        let done = put.done;
        if done && let Some(title) = title {
            s.projection[i] = SelectItem::ExprWithAlias { expr: e.clone(), alias: Ident::with_quote('"', title) };
        }
        let (SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. }) = &s.projection[i] else { continue };
        if let Some(name) = &named[i] {
            let alias = alias(name.clone(), e, functions);
            match known.iter_mut().find(|k| k.name == *name) {
                Some(k) => k.twice |= k.expr != alias.expr,
                None => known.push(alias),
            }
        }
    }
    let mut put = |e: &mut Expr, place| {
        Put { known: &known, later: &[], is_column, functions, room: &mut room, place, frames: vec![], done: false }.all(e)
    };
    if let Some(e) = &mut s.selection {
        put(e, Place::Where)?;
    }
    for e in s.having.iter_mut().chain(&mut s.qualify) {
        put(e, Place::Behind)?;
    }
    Ok(())
}

fn name_of(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => {
            let name = fold_ident(alias);
            Some(name.split(MARK).next().unwrap_or_default().to_string())
        }
        _ => None,
    }
}

/// Whether one of the names may be used at all.
fn used(s: &Select, named: &[Option<String>], functions: &Functions<'_>) -> bool {
    if named.iter().all(Option::is_none) {
        return false;
    }
    let any = |e: &Expr, names: &[Option<String>]| found_in(e, functions).names.iter().any(|n| names.iter().flatten().any(|a| a == n));
    let listed = s.projection.iter().any(|item| match item {
        SelectItem::UnnamedExpr(e) => any(e, named),
        SelectItem::ExprWithAlias { expr, .. } => any(expr, named),
        _ => false,
    });
    listed || s.selection.iter().chain(&s.having).chain(&s.qualify).any(|e| any(e, named))
}

/// What stands in an expression outside of its subqueries; functions inside of them too.
#[derive(Default)]
struct Found {
    names: Vec<String>,
    functions: Vec<(String, Kind)>,
    size: usize,
    depth: usize,
}

fn kind_of(f: &Function, functions: &Functions<'_>) -> (String, Kind) {
    let name = f.name.to_string().to_lowercase();
    let kind = if f.over.is_some() { Kind::Window } else { (functions.kind)(&name) };
    (name, kind)
}

fn found_in(part: &impl Visit, functions: &Functions<'_>) -> Found {
    struct Find<'a> {
        functions: &'a Functions<'a>,
        found: Found,
        queries: usize,
        depth: usize,
    }
    impl Visitor for Find<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.queries += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.queries -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, e: &Expr) -> ControlFlow<()> {
            self.depth += 1;
            self.found.size += 1;
            self.found.depth = self.found.depth.max(self.depth);
            match e {
                Expr::Identifier(i) if self.queries == 0 => self.found.names.push(fold_ident(i)),
                Expr::Function(f) => {
                    let (name, kind) = kind_of(f, self.functions);
                    // what a subquery counts is its own
                    let kind = if self.queries > 0 { Kind::Scalar } else { kind };
                    self.found.functions.push((name, kind));
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
        fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
    }
    let mut find = Find { functions, found: Found::default(), queries: 0, depth: 0 };
    let _ = part.visit(&mut find);
    find.found
}

/// A function in a part of a statement whose every call gives another value.
pub fn volatile_in(part: &impl Visit, functions: &Functions<'_>) -> Option<String> {
    found_in(part, functions).functions.into_iter().map(|(n, _)| n).find(|n| (functions.is_volatile)(n))
}

fn alias(name: String, e: &Expr, functions: &Functions<'_>) -> Alias {
    let found = found_in(e, functions);
    let of = |kind| found.functions.iter().any(|(_, k)| *k == kind);
    Alias {
        name,
        expr: e.clone(),
        size: found.size,
        volatile: found.functions.iter().map(|(n, _)| n).find(|n| (functions.is_volatile)(n)).cloned(),
        aggregates: of(Kind::Aggregate),
        windows: of(Kind::Window),
        makes_rows: found.functions.iter().any(|(n, _)| ROWS.contains(&n.as_str())),
        twice: false,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    List,
    Where,
    /// HAVING and QUALIFY, whose names the planner knows.
    Behind,
}

struct Put<'a> {
    known: &'a [Alias],
    /// Names that are given further right, this item's own left out.
    later: &'a [&'a str],
    is_column: &'a dyn Fn(&str) -> bool,
    functions: &'a Functions<'a>,
    room: &'a mut usize,
    place: Place,
    /// What is around: subqueries, parameters of lambdas, aggregates and windows.
    frames: Vec<Frame>,
    done: bool,
}

enum Frame {
    Query,
    Lambda(Vec<String>),
    Call(Kind, String),
}

impl Put<'_> {
    fn all(&mut self, e: &mut Expr) -> Result<()> {
        if let ControlFlow::Break(e) = e.visit(self) {
            return Err(e);
        }
        if self.done && found_in(e, self.functions).depth > DEEPEST {
            return Err(too_long("it"));
        }
        Ok(())
    }

    fn expression(&mut self, i: &Ident) -> Result<Option<Expr>> {
        let name = fold_ident(i);
        let at = Span::from_sql(i.span);
        let hidden = |f: &Frame| matches!(f, Frame::Query) || matches!(f, Frame::Lambda(p) if p.contains(&name));
        if self.frames.iter().any(hidden) {
            return Ok(None);
        }
        let Some(alias) = self.known.iter().find(|a| a.name == name) else {
            if self.later.contains(&name.as_str()) && !(self.is_column)(&name) {
                return Err(Error::not_found(format!("column {name:?} is named further right in the SELECT list"))
                    .or_span(at)
                    .with_hint("put the item that gives the name to the left of those that use it"));
            }
            return Ok(None);
        };
        if (self.is_column)(&name) {
            return Ok(None);
        }
        self.check(alias).map_err(|e| e.or_span(at))?;
        if self.place == Place::Behind {
            return Ok(None);
        }
        *self.room = self.room.checked_sub(alias.size).ok_or_else(|| too_long(&name).or_span(at))?;
        Ok(Some(alias.expr.clone()))
    }

    fn check(&self, a: &Alias) -> Result<()> {
        let name = &a.name;
        let nested = format!("name it in a query inside of FROM: SELECT … FROM (SELECT {} AS {name}, … FROM …) AS q", short(&a.expr));
        if a.twice {
            return Err(Error::invalid(format!("{name:?} is the name of two columns of this SELECT"))
                .with_hint("give each of them a name of its own"));
        }
        if let Some(function) = &a.volatile {
            return Err(
                Error::invalid(format!("{name:?} is {function}(), which would be computed again here, to another value")).with_hint(nested)
            );
        }
        if a.makes_rows {
            return Err(
                Error::invalid(format!("{name:?} makes rows; what is computed from them stands in a query around it")).with_hint(nested)
            );
        }
        if self.place == Place::Where && (a.aggregates || a.windows) {
            let (what, hint) = match a.aggregates {
                true => ("groups", format!("write HAVING {name} … behind GROUP BY")),
                false => ("windows", format!("write QUALIFY {name} …")),
            };
            return Err(
                Error::invalid(format!("{name:?} is computed over {what}, which are made from the rows that WHERE keeps")).with_hint(hint)
            );
        }
        for frame in &self.frames {
            let Frame::Call(kind, call) = frame else { continue };
            if a.windows || (a.aggregates && *kind == Kind::Aggregate) {
                return Err(Error::invalid(format!("{name:?} is computed over many rows, and {call}() would take it in once more"))
                    .with_hint(nested));
            }
        }
        Ok(())
    }
}

fn short(e: &Expr) -> String {
    crate::sql::text::short(&e.to_string(), 60)
}

fn too_long(name: &str) -> Error {
    Error::exhausted(format!("an expression gets too long with what {name:?} stands for"))
        .with_hint("name it in a query inside of FROM, which is computed once")
}

impl VisitorMut for Put<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.frames.push(Frame::Query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.frames.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, e: &mut Expr) -> ControlFlow<Error> {
        match e {
            Expr::Lambda(l) => {
                let names = match &l.params {
                    OneOrManyWithParens::One(p) => vec![fold_ident(&p.name)],
                    OneOrManyWithParens::Many(all) => all.iter().map(|p| fold_ident(&p.name)).collect(),
                };
                self.frames.push(Frame::Lambda(names));
            }
            Expr::Function(f) => {
                if let (name, kind @ (Kind::Aggregate | Kind::Window)) = kind_of(f, self.functions) {
                    self.frames.push(Frame::Call(kind, name));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, e: &mut Expr) -> ControlFlow<Error> {
        match e {
            Expr::Lambda(_) => {
                self.frames.pop();
            }
            Expr::Function(f) => {
                if matches!(kind_of(f, self.functions).1, Kind::Aggregate | Kind::Window) {
                    self.frames.pop();
                }
            }
            Expr::Identifier(i) => match self.expression(&i.clone()) {
                Ok(Some(new)) => {
                    *e = enclosed(new);
                    self.done = true;
                }
                Ok(None) => {}
                Err(e) => return ControlFlow::Break(e),
            },
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn enclosed(e: Expr) -> Expr {
    match e {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Nested(_) | Expr::Function(_) => e,
        Expr::Value(v) if !matches!(v.value, Value::Placeholder(_)) => Expr::Value(v),
        other => Expr::Nested(Box::new(other)),
    }
}
