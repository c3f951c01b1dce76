//! Text and places in it.

use sqlparser::dialect::GenericDialect;
use sqlparser::tokenizer::{Location, Span as TokenSpan, Token, TokenWithSpan, Tokenizer};

use super::tokens::place;
use crate::error::{Error, Result, Span};

/// The one dialect that everything is read with.
pub static DIALECT: GenericDialect = GenericDialect {};

impl Span {
    /// The place of a syntax node; `None` where the parser kept none.
    pub fn from_sql(span: TokenSpan) -> Option<Span> {
        datafusion::common::Span::try_from_sqlparser_span(span).map(Span::from)
    }
}

/// One statement of a script and where it begins there (1-based, characters).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub text: String,
    pub line: u64,
    pub column: u64,
}

/// The tokens of a text without white space and comments; what nests too deeply to be read is refused.
pub fn tokenize(text: &str) -> Result<Vec<TokenWithSpan>> {
    let mut tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location().map_err(|e| {
        let at = e.location;
        Error::syntax(e.message).with_span(Span::new(at.line, at.column, at.line, at.column + 1))
    })?;
    tokens.retain(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF));
    super::depth::check(&tokens)?;
    numbers(text, tokens)
}

/// The first token of a text and its place.
pub fn first_token(text: &str) -> Option<(String, Span)> {
    let first = tokenize(text).ok()?.into_iter().next()?;
    Some((first.token.to_string(), place(first.span)))
}

/// Reads `1_000` as one number, and refuses a number and a word without a space between them (`5DAYS`, `1.5.2`), which
/// the parser would take for a value and its name.
fn numbers(text: &str, tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let touching = |w: &[TokenWithSpan]| is_number(text, &w[0]) && w[0].span.end == w[1].span.start && is_part(&w[1].token);
    if !tokens.windows(2).any(touching) {
        return Ok(tokens);
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        if !tokens[i..].get(..2).is_some_and(touching) {
            out.push(tokens[i].clone());
            i += 1;
            continue;
        }
        let start = tokens[i].span.start;
        let raw = &text[offset(text, start)..];
        let length = number_length(raw);
        let end = Location { line: start.line, column: start.column + length as u64 };
        let mut last = i;
        while tokens.get(last + 1).is_some_and(|t| t.span.start < end) {
            last += 1;
        }
        let stands_alone = tokens[last].span.end == end
            && !tokens.get(last + 1).is_some_and(|t| t.span.start == end && is_part(&t.token))
            && matches!(tokens[i].token, Token::Number(..));
        if !stands_alone {
            while tokens.get(last + 1).is_some_and(|t| t.span.start == tokens[last].span.end && is_part(&t.token)) {
                last += 1;
            }
            let span = TokenSpan { start, end: tokens[last].span.end };
            let found = slice(text, start, span.end);
            return Err(Error::syntax(format!("{found:?} is not a number"))
                .with_span(place(span))
                .with_hint("put a space between a number and a word; digits may have one _ between them: 1_000_000"));
        }
        let number = raw[..length].replace('_', "");
        out.push(TokenWithSpan { token: Token::Number(number, false), span: TokenSpan { start, end } });
        i = last + 1;
    }
    Ok(out)
}

fn is_number(text: &str, t: &TokenWithSpan) -> bool {
    match t.token {
        Token::Number(..) => true,
        // 0x1F, not x'1F'
        Token::HexStringLiteral(_) => text[offset(text, t.span.start)..].starts_with('0'),
        _ => false,
    }
}

/// What cannot follow a number without a space.
fn is_part(t: &Token) -> bool {
    match t {
        Token::Word(w) => w.quote_style.is_none(),
        Token::Number(..) => true,
        _ => false,
    }
}

/// How many bytes a number takes: digits with single `_` between them, a fraction, an exponent.
fn number_length(raw: &str) -> usize {
    let b = raw.as_bytes();
    let digits = |mut at: usize| {
        while b.get(at).is_some_and(u8::is_ascii_digit) {
            let next = at + 1;
            let joined = b.get(next) == Some(&b'_') && b.get(next + 1).is_some_and(u8::is_ascii_digit);
            at = if joined { next + 1 } else { next };
        }
        at
    };
    let mut at = digits(0);
    if b.get(at) == Some(&b'.') {
        at = digits(at + 1);
    }
    if matches!(b.get(at), Some(b'e' | b'E')) {
        let signed = at + 1 + usize::from(matches!(b.get(at + 1), Some(b'+' | b'-')));
        let end = digits(signed);
        at = if end > signed { end } else { at };
    }
    at
}

/// Cuts a script at its semicolons. Pieces without a token (blank, comments only) are left out.
pub fn split(script: &str) -> Result<Vec<Piece>> {
    let mut out = vec![];
    let mut first: Option<Location> = None;
    let mut end = None;
    for t in tokenize(script)? {
        if t.token == Token::SemiColon {
            if let (Some(from), Some(to)) = (first.take(), end) {
                out.push(piece(script, from, to));
            }
        } else {
            first.get_or_insert(t.span.start);
            end = Some(t.span.end);
        }
    }
    if let (Some(from), Some(to)) = (first, end) {
        out.push(piece(script, from, to));
    }
    Ok(out)
}

fn piece(script: &str, from: Location, to: Location) -> Piece {
    Piece { text: slice(script, from, to).to_string(), line: from.line, column: from.column }
}

/// Byte offset of a place.
pub fn offset(text: &str, at: Location) -> usize {
    let mut start = 0;
    for _ in 1..at.line {
        start += text[start..].find('\n').map_or(text.len() - start, |i| i + 1);
    }
    let columns = at.column.saturating_sub(1) as usize;
    text[start..].char_indices().nth(columns).map_or(text.len(), |(i, _)| start + i)
}

/// The text between two places (end exclusive).
pub fn slice(text: &str, from: Location, to: Location) -> &str {
    let (a, b) = (offset(text, from), offset(text, to));
    &text[a..b.max(a)]
}

/// Where a dotted name stands inside of parentheses, for errors of subqueries that know it by name only.
pub fn inside(text: &str, name: &str) -> Option<Span> {
    let parts: Vec<&str> = name.split('.').collect();
    let tokens = tokenize(text).ok()?;
    let is = |t: &TokenWithSpan, part: &str| matches!(&t.token, Token::Word(w) if w.value == part || w.value.to_lowercase() == part);
    let mut depth = 0usize;
    for (i, t) in tokens.iter().enumerate() {
        match t.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        // a.b is three tokens
        let all = |(n, part): (usize, &&str)| tokens.get(i + 2 * n).is_some_and(|t| is(t, part));
        let dots = |n: usize| tokens.get(i + 2 * n - 1).is_some_and(|t| t.token == Token::Period);
        if depth > 0 && parts.iter().enumerate().all(all) && (1..parts.len()).all(dots) {
            let (from, to) = (place(t.span), place(tokens[i + 2 * (parts.len() - 1)].span));
            return Some(Span { end_line: to.end_line, end_column: to.end_column, ..from });
        }
    }
    None
}

/// The first characters of a text that may be long.
pub fn short(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

/// Moves a place inside a statement to its place in the script that the statement was cut from.
pub fn shift(span: Span, line: u64, column: u64) -> Span {
    let col = |l: u64, c: u64| if l == 1 { c + column - 1 } else { c };
    Span::new(span.line + line - 1, col(span.line, span.column), span.end_line + line - 1, col(span.end_line, span.end_column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_semicolons_only_outside_of_strings() {
        let script = "-- a\nSELECT ';' ;;\n  /* ; */ SELECT\n 'ä', x; -- end";
        let pieces = split(script).unwrap();
        assert_eq!(
            pieces,
            [Piece { text: "SELECT ';'".into(), line: 2, column: 1 }, Piece { text: "SELECT\n 'ä', x".into(), line: 3, column: 11 },]
        );
    }

    #[test]
    fn numbers_have_single_underscores() {
        let of = |text: &str| tokenize(text).map(|t| t.iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" "));
        for (text, want) in [
            ("1_000_000+2", "1000000 + 2"),
            ("x[1_0:2]", "x [ 10 : 2 ]"),
            ("1_000.5_5e1_0", "1000.55e10"),
            ("1_0e+5)", "10e+5 )"),
            (".5 a", ".5 a"),
            ("1. a", "1. a"),
            ("_1 a1_0", "_1 a1_0"),
        ] {
            assert_eq!(of(text).unwrap(), want, "{text}");
        }
        for wrong in ["1_", "1__0", "5DAYS", "1e", "1e5x", "1.5.2", "1..2", "0b101", "0x1FZ", "1_000L_", "1_000a", "1AND x", "1_a"] {
            let e = of(wrong).unwrap_err();
            assert!(e.message().contains("is not a number"), "{wrong}: {e}");
        }
    }

    #[test]
    fn an_open_string_points_at_its_begin() {
        let e = split("SELECT 1;\nSELECT 'abc").unwrap_err();
        assert_eq!(e.span().unwrap().line, 2);
    }

    #[test]
    fn places_move_into_the_script() {
        let moved = shift(Span::new(1, 3, 1, 5), 4, 10);
        assert_eq!(moved, Span::new(4, 12, 4, 14));
        assert_eq!(shift(Span::new(2, 3, 2, 5), 4, 10), Span::new(5, 3, 5, 5));
    }
}
