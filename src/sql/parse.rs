//! Reads a query or any statement that the stock parser knows, after the token pass.

use datafusion::common::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use sqlparser::ast::{Expr, Query, Statement as SqlStatement};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::TokenWithSpan;

use super::balance::{balance, balance_in};
use super::rewrite::rewrite;
use super::text::{DIALECT, tokenize};
use super::{clauses, over, synonyms};
use crate::error::{Error, Result, Span};

const RECURSION_LIMIT: usize = 100;

/// Parses exactly one statement.
pub fn statement(text: &str) -> Result<Statement> {
    let tokens = tokenize(text)?;
    over::refuse(&tokens)?;
    let mut one = parsed(tokens)?;
    clauses::check(&one, text)?;
    synonyms::expand(&mut one)?;
    Ok(one)
}

/// Parses a query from its tokens, whose windows as of the instant asked are names by now. What it calls is not looked
/// at: its parts are, once they stand apart.
pub fn windowed(tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    parsed(tokens)
}

/// Looks at a query that was put together from parts, as at one that was read.
pub fn checked(query: Query, text: &str) -> Result<Statement> {
    let mut one = Statement::Statement(Box::new(SqlStatement::Query(Box::new(query))));
    clauses::check(&one, text)?;
    synonyms::expand(&mut one)?;
    Ok(one)
}

fn parsed(tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let tokens = rewrite(tokens)?;
    let end = end_of(&tokens);
    let mut parser = DFParserBuilder::new(tokens)
        .with_dialect(&DIALECT)
        .with_recursion_limit(RECURSION_LIMIT)
        .build()
        .map_err(|e| from_datafusion(e, end))?;
    let mut all = parser.parse_statements().map_err(|e| from_datafusion(e, end))?;
    match (all.pop_front(), all.is_empty()) {
        (Some(mut one), true) => {
            balance(&mut one);
            clauses::reduce(&mut one);
            Ok(one)
        }
        (None, _) => Err(Error::syntax("there is no statement")),
        (Some(_), false) => Err(Error::syntax("one statement at a time here")),
    }
}

/// Parses a query (SELECT, WITH, VALUES).
pub fn query(text: &str) -> Result<Query> {
    match statement(text)? {
        Statement::Statement(s) => match *s {
            SqlStatement::Query(q) => Ok(*q),
            _ => Err(Error::syntax("expected a query (SELECT …)")),
        },
        _ => Err(Error::syntax("expected a query (SELECT …)")),
    }
}

/// Parses one expression.
pub fn expression(text: &str) -> Result<Expr> {
    let tokens = rewrite(tokenize(text)?)?;
    let end = end_of(&tokens);
    let mut p = Parser::new(&DIALECT).with_tokens_with_locations(tokens).with_recursion_limit(RECURSION_LIMIT);
    let mut e = p.parse_expr().map_err(|e| from_parser(e, end))?;
    balance_in(&mut e);
    match p.peek_token().token {
        sqlparser::tokenizer::Token::EOF => {
            clauses::reduce_part(&mut e);
            clauses::check_expression(&e, text)?;
            synonyms::expand_part(&mut e)?;
            Ok(e)
        }
        other => Err(Error::syntax(format!("unexpected {:?} after the expression", other.to_string()))),
    }
}

fn end_of(tokens: &[TokenWithSpan]) -> Option<Span> {
    tokens.last().map(|t| Span::new(t.span.end.line, t.span.end.column, t.span.end.line, t.span.end.column + 1))
}

fn from_datafusion(e: DataFusionError, end: Option<Span>) -> Error {
    match e {
        DataFusionError::SQL(p, _) => from_parser(*p, end),
        other => Error::from(other),
    }
}

/// The parser writes the place at the end of its message.
fn from_parser(e: ParserError, end: Option<Span>) -> Error {
    let message = match e {
        ParserError::TokenizerError(m) | ParserError::ParserError(m) => m,
        ParserError::RecursionLimitExceeded => return Error::syntax("the statement is nested too deeply"),
    };
    let Some((text, place)) = message.rsplit_once(" at Line: ") else {
        return Error::syntax(message).or_span(end);
    };
    let mut numbers = place.split(", Column: ").map(|n| n.trim().parse::<u64>());
    let error = Error::syntax(text.replace("sql parser error: ", ""));
    match (numbers.next(), numbers.next()) {
        (Some(Ok(line)), Some(Ok(column))) if line > 0 => {
            let width = text.rsplit("found: ").next().filter(|_| text.contains("found: ")).map_or(1, |w| w.chars().count() as u64);
            error.with_span(Span::new(line, column, line, column + width.max(1)))
        }
        _ => error.or_span(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_know_their_place() {
        let e = statement("SELECT 1\nFROM t WHER x").unwrap_err();
        assert_eq!(e.span().map(|s| s.line), Some(2), "{e}");
    }

    #[test]
    fn all_join_forms_parse() {
        for sql in [
            "SELECT * FROM l ASOF JOIN p MATCH_CONDITION (l.t >= p.t) ON l.k = p.k",
            "SELECT * FROM l ASOF LEFT JOIN p ON l.k = p.k AND l.t >= p.t",
            "SELECT l.*, f.x FROM l ASOF JOIN v AS f FOR (k = l.b) AT l.t KNOWN BY l.t WITHIN INTERVAL '1 day' JOIN z ON z.a = l.a",
            "SELECT * FROM l ASOF JOIN a ASOF JOIN b@v2 AT l.t WHERE x > 1 ORDER BY y",
            "SELECT * FROM ONLINE_LOOKUP('s', (SELECT * FROM r), status => true) f",
            "SELECT * FROM ONLINE_LOOKUP('s', (1, 2), (3, 4))",
            "SELECT * FROM t VERSION AS OF 3 x",
        ] {
            statement(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
    }
}
