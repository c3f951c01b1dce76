//! The token pass: turns what the stock parser cannot read into what it can, keeping every token's
//! place in the user's text.
//!
//! - `"X"@v1` becomes one name; `x @v1` is refused (it would read as an alias);
//! - `t VERSION AS OF n`, `t TIMESTAMP AS OF 'ts'` become a name that carries the version;
//! - `FROM v AT instant` becomes a name that carries the instant (see `as_of`);
//! - `ONLINE LOOKUP (…)` becomes `ONLINE_LOOKUP(…)`;
//! - `a IS DISTINCT FROM b` gets parentheses (see `distinct`);
//! - `?` becomes `$n`;
//! - readings of JSON (`j -> 'key'`) and functions of elements (`x -> x + 1`) get parentheses (see `arrows`);
//! - all forms of `ASOF JOIN` and `ONLINE JOIN` become `ASOF JOIN … MATCH_CONDITION (marker)` (see `asof`).

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::asof;
use super::tokens::{at, fold, is_word, place};
use crate::error::{Error, Result};

/// Separates a table's name from the Delta version or instant it is read at.
pub const TIME_TRAVEL: &str = "@@";

/// The token pass over one statement.
pub fn rewrite(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let tokens = names(tokens)?;
    let tokens = super::arrows::rewrite(placeholders(tokens)?);
    let tokens = super::distinct::enclose(super::as_of::rewrite(time_travel(tokens)?)?);
    asof::rewrite(&tokens)
}

fn quoted(value: String, like: &TokenWithSpan) -> TokenWithSpan {
    TokenWithSpan { token: Token::make_word(&value, Some('"')), span: like.span }
}

fn names(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        let t = &tokens[i];
        if let Token::Word(w) = &t.token
            && w.quote_style.is_none()
        {
            if w.value.starts_with('@') {
                return Err(version_apart(t, out.last()));
            }
            if w.value.contains('@') {
                out.push(quoted(w.value.to_lowercase(), t));
                i += 1;
                continue;
            }
            if w.value.eq_ignore_ascii_case("online") && is_word(at(&tokens, i + 1), "lookup") && is_lparen(at(&tokens, i + 2)) {
                out.push(TokenWithSpan { token: Token::make_word("online_lookup", None), span: t.span });
                i += 2;
                continue;
            }
        }
        // "X"@v1: a quoted word and, without a space, a word that begins with @
        if let (Token::Word(w), Some(next)) = (&t.token, at(&tokens, i + 1))
            && w.quote_style.is_some()
            && let Token::Word(v) = &next.token
            && v.quote_style.is_none()
            && v.value.starts_with('@')
            && next.span.start == t.span.end
        {
            out.push(quoted(format!("{}{}", w.value, v.value.to_lowercase()), t));
            i += 2;
            continue;
        }
        // the tokenizer may cut the @ off
        if let (Token::Word(w), Some(sign), Some(next)) = (&t.token, at(&tokens, i + 1), at(&tokens, i + 2))
            && sign.token == Token::AtSign
            && let Token::Word(v) = &next.token
        {
            if sign.span.start != t.span.end || next.span.start != sign.span.end {
                return Err(version_apart(sign, Some(t)));
            }
            out.push(quoted(format!("{}@{}", fold(w), v.value.to_lowercase()), t));
            i += 3;
            continue;
        }
        out.push(t.clone());
        i += 1;
    }
    Ok(out)
}

fn version_apart(t: &TokenWithSpan, name: Option<&TokenWithSpan>) -> Error {
    let name = name.map(|n| n.token.to_string()).unwrap_or_default();
    Error::syntax(format!("{} does not stand alone", t.token))
        .with_span(place(t.span))
        .with_hint(format!("a version is part of the name, without a space: {name}{}", t.token))
}

fn is_lparen(t: Option<&TokenWithSpan>) -> bool {
    t.is_some_and(|t| t.token == Token::LParen)
}

fn placeholders(mut tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let (mut marks, mut numbered) = (0, None);
    for t in &mut tokens {
        let span = t.span;
        if let Token::Placeholder(p) = &mut t.token {
            if p == "?" {
                marks += 1;
                *p = format!("${marks}");
                if numbered.is_some() {
                    return Err(mixed().with_span(place(span)));
                }
            } else {
                if marks > 0 {
                    return Err(mixed().with_span(place(span)));
                }
                let number = p.strip_prefix('$').and_then(|n| n.parse::<u32>().ok());
                if number.is_none_or(|n| n == 0) {
                    return Err(Error::syntax(format!("{p} is not a parameter")).with_span(place(span)).with_hint("write $1, $2, … or ?"));
                }
                numbered = number;
            }
        }
    }
    Ok(tokens)
}

fn mixed() -> Error {
    Error::syntax("a statement has either ? or $1, $2, … as parameters, not both")
}

fn time_travel(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        let t = &tokens[i];
        let version = is_word(Some(t), "version");
        let travels = (version || is_word(Some(t), "timestamp")) && is_word(at(&tokens, i + 1), "as") && is_word(at(&tokens, i + 2), "of");
        if !travels {
            out.push(t.clone());
            i += 1;
            continue;
        }
        let bad = |what: &str| {
            Error::syntax(what.to_string())
                .with_span(place(t.span))
                .with_hint("write: table VERSION AS OF 12, or: table TIMESTAMP AS OF '2026-02-01 10:00' (before the alias)")
        };
        let Some(Token::Word(name)) = out.last().map(|t| t.token.clone()) else {
            return Err(bad("VERSION AS OF and TIMESTAMP AS OF follow a table's name"));
        };
        let value = match (version, at(&tokens, i + 3).map(|t| &t.token)) {
            (true, Some(Token::Number(n, _))) => format!("v{n}"),
            (false, Some(Token::SingleQuotedString(s))) => format!("t{s}"),
            (true, _) => return Err(bad("VERSION AS OF wants a whole number")),
            (false, _) => return Err(bad("TIMESTAMP AS OF wants a text with an instant")),
        };
        let token = out.len() - 1;
        let bare = fold(&name);
        out[token] = quoted(format!("{bare}{TIME_TRAVEL}{value}"), &out[token].clone());
        i += 4;
        if !asof::has_alias(&tokens, i) {
            out.push(TokenWithSpan { token: Token::make_keyword("AS"), span: t.span });
            out.push(quoted(bare, t));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::tokenize;

    fn pass(sql: &str) -> Result<String> {
        let out = rewrite(tokenize(sql)?)?;
        Ok(out.iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn versions_are_part_of_names() {
        assert_eq!(pass("FROM f@V2 x").unwrap(), "FROM \"f@v2\" x");
        assert_eq!(pass("FROM \"F f\"@v2").unwrap(), "FROM \"F f@v2\"");
        for apart in ["FROM f @v2", "FROM \"F\" @v2"] {
            assert!(pass(apart).unwrap_err().hint().unwrap().contains("without a space"), "{apart}");
        }
    }

    #[test]
    fn question_marks_are_numbered() {
        assert_eq!(pass("SELECT ?, '?', ?").unwrap(), "SELECT $1 , '?' , $2");
        assert!(pass("SELECT ?, $1").is_err());
        assert!(pass("SELECT $0").is_err());
    }

    #[test]
    fn time_travel_keeps_the_name_as_qualifier() {
        assert_eq!(pass("FROM t VERSION AS OF 3 WHERE x").unwrap(), "FROM \"t@@v3\" AS \"t\" WHERE x");
        assert_eq!(pass("FROM s.t TIMESTAMP AS OF '2026-01-01' a").unwrap(), "FROM s . \"t@@t2026-01-01\" a");
        assert!(pass("FROM t VERSION AS OF x").is_err());
    }

    #[test]
    fn two_words_are_one_function() {
        assert_eq!(pass("FROM ONLINE LOOKUP ('s', 1)").unwrap(), "FROM online_lookup ( 's' , 1 )");
    }
}
