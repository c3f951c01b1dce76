//! How deep a text nests, counted on its tokens before anything recurses into it. What reads, plans, shows and drops a
//! statement goes down one call per level; a thread has room for the levels that are allowed here.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::place;
use crate::error::{Error, Result};

/// Brackets, CASEs and type parameters inside one another.
const MAX_NESTED: usize = 128;
/// Operators in a row: each is one level above the one before it.
const MAX_CHAIN: usize = 1_000;
/// Operators in a row of which the reader makes a shallow tree: AND, OR, UNION ALL.
const MAX_FLAT: usize = 20_000;
/// UNION, EXCEPT and INTERSECT in a row.
const MAX_SETS: usize = 500;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opened {
    Statement,
    Bracket,
    Case,
    Type,
}

/// What has been counted since something was opened.
struct Level {
    opened: Opened,
    chain: usize,
    flat: usize,
    sets: usize,
    /// BETWEENs whose AND has not come yet.
    between: usize,
}

impl Level {
    fn new(opened: Opened) -> Self {
        Level { opened, chain: 0, flat: 0, sets: 0, between: 0 }
    }
}

/// Refuses what nests too deeply.
pub fn check(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut levels = vec![Level::new(Opened::Statement)];
    let mut explains = 0;
    for (i, token) in tokens.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| tokens.get(i)).map(|t| &t.token);
        let next = tokens.get(i + 1).map(|t| &t.token);
        step(&mut levels, token, before, next);
        explains += usize::from(matches!(&token.token, Token::Word(w) if w.keyword == Keyword::EXPLAIN));
        if token.token == Token::SemiColon {
            levels = vec![Level::new(Opened::Statement)];
            explains = 0;
        }
        let Some(level) = levels.last() else { continue };
        let what = if levels.len() + explains > MAX_NESTED {
            format!("more than {MAX_NESTED} brackets, CASEs or types inside one another")
        } else if level.chain > MAX_CHAIN {
            format!("more than {MAX_CHAIN} operators in a row")
        } else if level.flat > MAX_FLAT {
            format!("more than {MAX_FLAT} of AND, OR, UNION ALL in a row")
        } else if level.sets > MAX_SETS {
            format!("more than {MAX_SETS} of UNION, EXCEPT, INTERSECT in a row")
        } else {
            continue;
        };
        return Err(Error::syntax(format!("the statement is nested too deeply: {what}"))
            .with_span(place(token.span))
            .with_hint("put the values into a table, or a list for IN (…), and join or aggregate it"));
    }
    Ok(())
}

fn step(levels: &mut Vec<Level>, token: &TokenWithSpan, before: Option<&Token>, next: Option<&Token>) {
    match &token.token {
        Token::LParen | Token::LBrace => levels.push(Level::new(Opened::Bracket)),
        Token::LBracket => {
            count(levels);
            levels.push(Level::new(Opened::Bracket));
        }
        Token::RParen | Token::RBrace | Token::RBracket => close(levels, Opened::Bracket),
        Token::Lt if is_type(before) => levels.push(Level::new(Opened::Type)),
        Token::Gt if is_open(levels, Opened::Type) => close(levels, Opened::Type),
        Token::ShiftRight if is_open(levels, Opened::Type) => {
            close(levels, Opened::Type);
            if is_open(levels, Opened::Type) {
                close(levels, Opened::Type);
            }
        }
        Token::Comma => begin_anew(levels),
        Token::Word(w) if w.quote_style.is_none() => word(levels, w.keyword, before, next),
        Token::Word(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::Placeholder(_)
        | Token::Period => {}
        _ => count(levels),
    }
}

fn word(levels: &mut Vec<Level>, keyword: Keyword, before: Option<&Token>, next: Option<&Token>) {
    use Keyword::*;
    let Some(level) = levels.last_mut() else { return };
    match keyword {
        CASE => levels.push(Level::new(Opened::Case)),
        END if level.opened == Opened::Case => close(levels, Opened::Case),
        BETWEEN => {
            level.between += 1;
            level.chain += 1;
        }
        AND if level.between > 0 => level.between -= 1,
        AND | OR => {
            level.flat += 1;
            (level.chain, level.between) = (0, 0);
        }
        UNION if is_word(next, ALL) => {
            level.flat += 1;
            level.chain = 0;
        }
        UNION | EXCEPT | INTERSECT | MINUS => {
            level.sets += 1;
            (level.chain, level.flat) = (0, 0);
        }
        FROM if is_word(before, DISTINCT) => {}
        SELECT | FROM | WHERE | GROUP | HAVING | QUALIFY | ORDER | LIMIT | VALUES | WHEN | THEN | ELSE => level.chain = 0,
        IS | IN | LIKE | ILIKE | RLIKE | REGEXP | SIMILAR | NOT | XOR | AT | COLLATE | JOIN | INTERVAL | PRIOR | CONNECT_BY_ROOT
        | OVERLAPS | NOTNULL | OPERATOR | DIV | MEMBER | MATCH | LATERAL => level.chain += 1,
        _ => {}
    }
}

fn count(levels: &mut [Level]) {
    if let Some(level) = levels.last_mut() {
        level.chain += 1;
    }
}

fn begin_anew(levels: &mut [Level]) {
    if let Some(level) = levels.last_mut() {
        (level.chain, level.flat, level.between) = (0, 0, 0);
    }
}

fn is_open(levels: &[Level], what: Opened) -> bool {
    levels.last().is_some_and(|l| l.opened == what)
}

/// Closes the innermost of a kind, and what was left open inside of it.
fn close(levels: &mut Vec<Level>, what: Opened) {
    if let Some(n) = levels.iter().rposition(|l| l.opened == what) {
        levels.truncate(n.max(1));
    }
}

fn is_word(token: Option<&Token>, keyword: Keyword) -> bool {
    matches!(token, Some(Token::Word(w)) if w.keyword == keyword)
}

/// Words after which `<` opens the types of a type.
fn is_type(token: Option<&Token>) -> bool {
    matches!(token, Some(Token::Word(w)) if ["ARRAY", "STRUCT", "MAP", "LIST"].iter().any(|t| w.value.eq_ignore_ascii_case(t)))
}

#[cfg(test)]
mod tests {
    use crate::sql::text::tokenize;

    #[test]
    fn what_is_flat_is_long_and_what_is_deep_is_refused() {
        let long = |first: &str, more: &str, n: usize| format!("{first}{}", more.repeat(n));
        let fits = [
            long("SELECT a FROM t WHERE a = 0", " OR a = 1", 5_000),
            long("SELECT a FROM t WHERE a BETWEEN 0 AND 1", " OR a BETWEEN 1 AND 2", 5_000),
            long("VALUES (1 + 1)", ", (2 * 3)", 10_000),
            long("SELECT 1 + 1", ", 1 + 1", 10_000),
            long("SELECT 1", " UNION ALL SELECT 1", 5_000),
            long("SELECT CASE", " WHEN a = 1 THEN 2", 5_000) + " END",
            long("SELECT 1", " + 1", 900),
            long("SELECT ", "(", 90) + "1" + &")".repeat(90),
        ];
        for sql in fits {
            tokenize(&sql).unwrap_or_else(|e| panic!("{}…: {e}", &sql[..40]));
        }
        let deep = [
            long("SELECT 1", " + 1", 5_000),
            long("SELECT 1", " BETWEEN 1 AND 1", 5_000),
            long("SELECT 1", " IS DISTINCT FROM 1", 5_000),
            long("SELECT 1", " + CASE WHEN a THEN 1 ELSE 2 END", 5_000),
            long("SELECT 1", "::INT", 5_000),
            long("SELECT x", "[1]", 5_000),
            long("SELECT ", "NOT ", 5_000) + "a",
            long("SELECT ", "INTERVAL ", 5_000) + "'1 day'",
            long("SELECT ", "(", 500) + "1",
            long("SELECT ", "CASE WHEN ", 500) + "1",
            long("CREATE TABLE t (a ", "ARRAY<", 500) + "INT",
            long("", "EXPLAIN ", 500) + "SELECT 1",
            long("SELECT 1", " UNION SELECT 1", 5_000),
        ];
        for sql in deep {
            let e = tokenize(&sql).unwrap_err();
            assert!(e.message().contains("nested too deeply") && e.span().is_some(), "{}…: {e}", &sql[..20]);
        }
    }
}
