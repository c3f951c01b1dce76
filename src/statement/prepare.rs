//! `PREPARE name [(type, …)] AS statement`, `EXECUTE name [(value, …)]`, `DEALLOCATE [PREPARE] name | ALL`: statements
//! with a name, for as long as the session.

use async_trait::async_trait;
use sqlparser::tokenizer::Token;

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::error::{Error, Result, Span};
use crate::model::types::ColumnType;
use crate::plan::command::Command;

#[derive(Debug)]
struct Prepare {
    name: String,
    types: Vec<ColumnType>,
    text: String,
    inner: Parsed,
    /// Where the inner statement begins.
    at: Span,
}

#[derive(Debug)]
struct Execute {
    name: String,
    arguments: Vec<String>,
}

#[derive(Debug)]
struct Deallocate(Option<String>);

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let (name, _) = c.identifier("a name for the statement")?;
    let types = if c.is_token(&Token::LParen) { c.list(|c| c.data_type())? } else { vec![] };
    if !c.eat("AS") {
        return Err(c.expected("AS and a statement").with_hint("write PREPARE name AS SELECT … WHERE column = $1"));
    }
    let at = c.here();
    let text = c.rest()?.to_string();
    let inner = super::parse(&text).map_err(|e| moved(e, at))?;
    Ok(Box::new(Prepare { name, types, text, inner, at }))
}

pub fn parse_execute(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let (name, _) = c.identifier("the name of a prepared statement")?;
    let mut arguments = vec![];
    if c.is_token(&Token::LParen) {
        let mut ahead = c.clone();
        ahead.want_token(&Token::LParen)?;
        if ahead.eat_token(&Token::RParen) {
            c = ahead;
        } else {
            arguments = c.list(|c| Ok(c.until(&[","], "a value")?.0))?;
        }
    }
    c.end(&[])?;
    Ok(Box::new(Execute { name, arguments }))
}

pub fn parse_deallocate(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    c.eat("PREPARE");
    let name = if c.eat("ALL") { None } else { Some(c.identifier("the name of a prepared statement, or ALL")?.0) };
    c.end(&[])?;
    Ok(Box::new(Deallocate(name)))
}

/// The place in the whole statement of what is wrong in the inner one.
fn moved(e: Error, at: Span) -> Error {
    match e.span() {
        Some(s) => e.with_span(crate::sql::text::shift(s, at.line, at.column)),
        None => e,
    }
}

#[async_trait]
impl Statement for Prepare {
    /// The inner statement is planned for its mistakes; the session plans it again for what clients are told of it.
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let inner = Box::pin(self.inner.plan(p)).await.map_err(|e| moved(e, self.at))?;
        if inner.changes_session {
            return Err(Error::invalid(format!("{} cannot be prepared: it changes the session alone", inner.tag))
                .with_span(self.at)
                .with_hint("run it by itself"));
        }
        Planned::command("PREPARE", Command::Prepare { name: self.name, types: self.types, statement: self.text }, vec![])
    }
}

#[async_trait]
impl Statement for Execute {
    async fn plan(self: Box<Self>, _p: &dyn Planning) -> Result<Planned> {
        Planned::command("EXECUTE", Command::Execute { name: self.name, arguments: self.arguments }, vec![])
    }
}

#[async_trait]
impl Statement for Deallocate {
    async fn plan(self: Box<Self>, _p: &dyn Planning) -> Result<Planned> {
        Planned::command("DEALLOCATE", Command::Deallocate { name: self.0 }, vec![])
    }
}
