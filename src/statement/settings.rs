//! `USE schema`, `SET variable = value`, `RESET variable`

use super::{Planned, Planning, Statement};
use crate::error::{Error, Kind, Result};
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
        if c.eat("TIME ZONE") || c.eat("TIMEZONE") {
            c.end(&[])?;
            return Ok(Statement::Utc);
        }
        let (name, span) = variable(&mut c)?;
        known(&name, span)?;
        c.end(&[])?;
        return Ok(Statement::Reset(name));
    }
    c.want("SET")?;
    if let Some(statement) = zone(&mut c)? {
        return Ok(statement);
    }
    let (name, span) = variable(&mut c)?;
    known(&name, span)?;
    if !c.eat_token(&Token::Eq) {
        c.want("TO")?;
    }
    let (value, _) = c.until(&[], "a value")?;
    Ok(Statement::Set { variable: name, value: unquote(&value) })
}

/// Spellings of the one zone of all sessions. Clients set it when they connect.
const UTC: [&str; 15] =
    ["utc", "etc/utc", "gmt", "etc/gmt", "z", "zulu", "uct", "etc/uct", "+00:00", "+00", "-00:00", "0", "+0", "utc+0", "default"];

/// `SET TIME ZONE 'UTC'`, `SET timezone = 'UTC'`
fn zone(c: &mut Cursor<'_>) -> Result<Option<Statement>> {
    let mut ahead = c.clone();
    let _ = ahead.eat("SESSION") || ahead.eat("LOCAL");
    if ahead.eat("TIME ZONE") {
        *c = ahead;
    } else if ahead.eat("TIMEZONE") || ahead.eat("TIME_ZONE") {
        *c = ahead;
        if !c.eat_token(&Token::Eq) {
            c.want("TO")?;
        }
    } else {
        return Ok(None);
    }
    let (value, here) = c.until(&[], "a time zone, 'UTC'")?;
    let name = unquote(&value);
    if UTC.contains(&name.to_lowercase().as_str()) {
        return Ok(Some(Statement::Utc));
    }
    let asked = if name.eq_ignore_ascii_case("local") { "Europe/Berlin" } else { &name };
    Err(Error::new(Kind::NotBuilt, format!("sessions are in UTC, not in {name}")).with_span(here).with_hint(format!(
        "write the zone in the query: ts AT TIME ZONE {} shows an instant there, and reads a time of there",
        crate::sql::text::short(&format!("'{}'", asked.replace('\'', "''")), 60)
    )))
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
