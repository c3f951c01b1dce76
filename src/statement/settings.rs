//! `USE schema`, `SET variable = value`, `RESET variable`

use async_trait::async_trait;

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::error::{Error, Kind, Result};
use crate::plan::command::Command;
use crate::sql::Cursor;
use sqlparser::tokenizer::Token;

/// Settings of a session that a user may change, and what they mean.
pub const VARIABLES: &[(&str, &str)] = &[
    ("schema", "the schema that bare names mean"),
    ("batch_size", "rows per batch inside the engine"),
    ("threads", "partitions that a query works on at once"),
    ("statement_timeout", "a statement that takes longer is ended, for example '30s'; 0: none is"),
    ("pit_join_strategy", "how point-in-time joins go about it: auto, slots, merge or stream; the rows are the same"),
    ("pit_join_parts", "in how many parts the labels of a point-in-time join are joined, each with its share of memory"),
];

#[derive(Debug, Clone)]
pub struct Use(String);

#[derive(Debug, Clone)]
pub enum Set {
    To {
        variable: String,
        value: String,
    },
    Reset(String),
    /// The zone of the session, which is this one.
    Utc,
}

pub fn parse_use(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    c.eat("SCHEMA");
    let (name, _) = c.identifier("a schema's name")?;
    c.end(&[])?;
    Ok(Box::new(Use(name)))
}

pub fn parse_reset(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    if c.eat("TIME ZONE") || c.eat("TIMEZONE") {
        c.end(&[])?;
        return Ok(Box::new(Set::Utc));
    }
    let (name, span) = variable(&mut c)?;
    known(&name, span)?;
    c.end(&[])?;
    Ok(Box::new(Set::Reset(name)))
}

pub fn parse_set(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    if zone(&mut c)? {
        return Ok(Box::new(Set::Utc));
    }
    let (name, span) = variable(&mut c)?;
    known(&name, span)?;
    if !c.eat_token(&Token::Eq) {
        c.want("TO")?;
    }
    let (value, _) = c.until(&[], "a value")?;
    Ok(Box::new(Set::To { variable: name, value: unquote(&value) }))
}

/// Spellings of the one zone of all sessions. Clients set it when they connect.
const UTC: [&str; 15] =
    ["utc", "etc/utc", "gmt", "etc/gmt", "z", "zulu", "uct", "etc/uct", "+00:00", "+00", "-00:00", "0", "+0", "utc+0", "default"];

/// `SET TIME ZONE 'UTC'`, `SET timezone = 'UTC'`; `false`: it sets something else.
fn zone(c: &mut Cursor<'_>) -> Result<bool> {
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
        return Ok(false);
    }
    let (value, here) = c.until(&[], "a time zone, 'UTC'")?;
    let name = unquote(&value);
    if UTC.contains(&name.to_lowercase().as_str()) {
        return Ok(true);
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

#[async_trait]
impl Statement for Use {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        p.names().catalog().schema(&self.0)?;
        Planned::command("USE", Command::Use { schema: self.0 }, vec![])
    }
}

#[async_trait]
impl Statement for Set {
    async fn plan(self: Box<Self>, _p: &dyn Planning) -> Result<Planned> {
        match *self {
            Set::To { variable, value } => Planned::command("SET", Command::Set { variable, value }, vec![]),
            Set::Reset(variable) => Planned::command("RESET", Command::Reset { variable }, vec![]),
            Set::Utc => Planned::command("SET", Command::Nothing { what: "SET timezone = 'UTC' (which it is)".into() }, vec![]),
        }
    }
}
