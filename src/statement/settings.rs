//! `USE schema`, `SET variable = value`, `RESET variable`

use super::{Planned, Planning, Statement};
use crate::error::{Error, Result};
use crate::plan::command::Command;
use crate::sql::Cursor;
use datafusion::sql::sqlparser::tokenizer::Token;

/// Settings of a session that a user may change, and what they mean.
pub const VARIABLES: &[(&str, &str)] = &[
    ("schema", "the schema that bare names mean"),
    ("batch_size", "rows per batch inside the engine"),
    ("threads", "partitions that a query works on at once"),
    ("statement_timeout", "a statement that takes longer is ended, for example '30s'; 0: none is"),
    ("pit_join_strategy", "how point-in-time joins go about it: auto, slots, merge or stream; the rows are the same"),
];

pub fn parse(mut c: Cursor<'_>) -> Result<Statement> {
    if c.eat("USE") {
        c.eat("SCHEMA");
        let (name, _) = c.identifier("a schema's name")?;
        c.end(&[])?;
        return Ok(Statement::Use(name));
    }
    if c.eat("RESET") {
        let (name, span) = variable(&mut c)?;
        known(&name, span)?;
        c.end(&[])?;
        return Ok(Statement::Reset(name));
    }
    c.want("SET")?;
    if c.is("TIME ZONE") {
        return Err(Error::not_built("SET TIME ZONE")
            .with_span(c.here())
            .with_hint("instants are stored and shown in UTC; write t AT TIME ZONE 'Europe/Berlin' in the query"));
    }
    let (name, span) = variable(&mut c)?;
    known(&name, span)?;
    if !c.eat_token(&Token::Eq) {
        c.want("TO")?;
    }
    let (value, _) = c.until(&[], "a value")?;
    Ok(Statement::Set { variable: name, value: unquote(&value) })
}

fn unquote(v: &str) -> String {
    v.trim().trim_matches('\'').trim_matches('"').to_string()
}

fn variable(c: &mut Cursor<'_>) -> Result<(String, crate::error::Span)> {
    let (mut name, span) = c.identifier("a setting's name")?;
    while c.eat_token(&Token::Period) {
        name = format!("{name}.{}", c.identifier("a setting's name")?.0);
    }
    Ok((name.strip_prefix("remige.").map(str::to_string).unwrap_or(name), span))
}

fn known(name: &str, span: crate::error::Span) -> Result<()> {
    if VARIABLES.iter().any(|(n, _)| *n == name) {
        return Ok(());
    }
    let all: Vec<&str> = VARIABLES.iter().map(|(n, _)| *n).collect();
    Err(Error::invalid(format!("{name:?} is not a setting of a session"))
        .with_span(span)
        .suggest(name, all.iter().copied())
        .or_hint(&format!("settings are {}", all.join(", "))))
}

pub fn plan_use(p: &dyn Planning, schema: String) -> Result<Planned> {
    p.names().catalog().schema(&schema)?;
    Planned::command("USE", Command::Use { schema }, vec![])
}
