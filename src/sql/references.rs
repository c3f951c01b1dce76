//! The relations that a statement names, as they are written.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::resolve::resolve_table_references;
use sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, Spanned, TableFactor, Value, Visit, Visitor,
};

use super::Cursor;
use super::asof::ONLINE;
use super::cursor::NameRef;
use super::rewrite::TIME_TRAVEL;
use crate::error::{Error, Result, Span};
use crate::model::instant::parse_instant;
use crate::model::{Dependency, Name, Travel};

/// The function that reads the online store.
pub const ONLINE_LOOKUP: &str = "online_lookup";

pub fn is_lookup(name: &ObjectName) -> bool {
    name.0.len() == 1 && name.to_string().eq_ignore_ascii_case(ONLINE_LOOKUP)
}

/// The function that stands for the right side of an ONLINE JOIN.
pub fn is_online_side(function: &ObjectName) -> bool {
    function.0.len() == 1 && function.to_string() == ONLINE
}

/// The relations that a statement names, what it asks online included, each once. Bare names are of `schema`.
pub fn of(statement: &DfStatement, schema: &str) -> Vec<Dependency> {
    let (tables, _) = resolve_table_references(statement, true).unwrap_or_default();
    // a name that cannot be read is none: planning tells of it
    let functions = functions(statement);
    let relations = tables.iter().filter(|t| t.schema().is_some() || !functions.contains(t.table()));
    let read = relations.filter_map(|t| table(t.schema().unwrap_or(schema), t.table()).ok());
    let asked = online(statement).into_iter().map(|n| Dependency {
        online: true,
        ..Dependency::of(Name::new(n.schema.as_deref().unwrap_or(schema), n.name.clone()), n.version)
    });
    let mut out = vec![];
    read.chain(asked).for_each(|d| {
        if !out.contains(&d) {
            out.push(d)
        }
    });
    out
}

/// The same of a stored query; of one that can no longer be parsed nothing is known.
pub fn of_query(query: &str, schema: &str) -> Vec<Dependency> {
    super::parse::statement(query).map_or_else(|_| vec![], |s| of(&s, schema))
}

/// A table by the name that the token pass has made: `name[@vN][@@when]`.
pub fn table(schema: &str, table: &str) -> Result<Dependency> {
    let (base, travel) = split_travel(table)?;
    let n = NameRef::from_parts(vec![schema.to_string(), base.to_string()], None)?;
    Ok(Dependency { travel, ..Dependency::of(Name::new(schema, n.name), n.version) })
}

/// Takes the point in time off a table's name.
pub fn split_travel(table: &str) -> Result<(&str, Option<Travel>)> {
    if let Some((name, _)) = super::as_of::split(table) {
        return Ok((name, None));
    }
    let Some((name, when)) = table.split_once(TIME_TRAVEL) else { return Ok((table, None)) };
    let travel = match when.split_at_checked(1) {
        Some(("v", n)) => Travel::Version(n.parse().map_err(|_| Error::invalid(format!("{n:?} is not a version")))?),
        Some(("t", t)) => Travel::Instant(parse_instant(t)?.micros),
        _ => return Err(Error::internal("a time travel mark is broken")),
    };
    Ok((name, Some(travel)))
}

/// Names in FROM that only functions have.
pub fn functions(statement: &DfStatement) -> HashSet<String> {
    #[derive(Default)]
    struct Find {
        called: HashSet<String>,
        read: HashSet<String>,
    }
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_table_factor(&mut self, t: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, args, .. } = t
                && let [ObjectNamePart::Identifier(one)] = name.0.as_slice()
            {
                let names = if args.is_some() { &mut self.called } else { &mut self.read };
                names.insert(folded(one));
            }
            ControlFlow::Continue(())
        }
    }
    let mut find = Find::default();
    if let DfStatement::Statement(s) = statement {
        let _ = s.visit(&mut find);
    }
    find.called.difference(&find.read).cloned().collect()
}

fn folded(i: &Ident) -> String {
    if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() }
}

/// What a statement's ONLINE_LOOKUPs and ONLINE JOINs name.
fn online(statement: &DfStatement) -> Vec<NameRef> {
    struct Find(Vec<NameRef>);
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_table_factor(&mut self, t: &TableFactor) -> ControlFlow<()> {
            let TableFactor::Table { name, args: Some(args), .. } = t else { return ControlFlow::Continue(()) };
            let found = match args.args.first() {
                Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Value(v)))) if is_lookup(name) => match &v.value {
                    Value::SingleQuotedString(s) => lookup_name(s).ok(),
                    _ => None,
                },
                Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(e))) if is_online_side(name) => online_join_name(e).ok(),
                _ => None,
            };
            self.0.extend(found);
            ControlFlow::Continue(())
        }
    }
    let mut find = Find(vec![]);
    if let DfStatement::Statement(s) = statement {
        let _ = s.visit(&mut find);
    }
    find.0
}

/// The name of a feature view or service, as ONLINE_LOOKUP reads it.
pub fn lookup_name(text: &str) -> Result<NameRef> {
    let mut c = Cursor::new(text)?;
    let name = c.name("the name of a feature view or service")?;
    if !c.is_end() {
        return Err(Error::syntax(format!("{text:?} is not the name of a feature view or service")).with_hint(format!(
            "give the name alone, {:?}, and choose columns in the SELECT list: SELECT feature FROM ONLINE_LOOKUP(…)",
            name.name
        )));
    }
    Ok(name)
}

/// The name behind ONLINE JOIN.
pub fn online_join_name(e: &SqlExpr) -> Result<NameRef> {
    let parts = match e {
        SqlExpr::Identifier(one) => std::slice::from_ref(one),
        SqlExpr::CompoundIdentifier(parts) => parts,
        other => return Err(Error::syntax(format!("ONLINE JOIN wants the name of a feature view or service, not {other}"))),
    };
    let place = Span::from_sql(e.span());
    let parts: Vec<String> = parts.iter().map(folded).collect();
    if let Some((name, _)) = parts.last().and_then(|p| p.split_once(TIME_TRAVEL)) {
        return Err(Error::invalid(format!("{name}: the online store knows the newest rows only, no older versions of them"))
            .with_hint(format!("join them from the table: ASOF JOIN {name} VERSION AS OF … AT left_column"))
            .or_span(place));
    }
    NameRef::from_parts(parts, place)
}
