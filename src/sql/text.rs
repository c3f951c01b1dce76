//! Text and places in it.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Span as TokenSpan, Token, TokenWithSpan, Tokenizer};

use crate::error::{Error, Result, Span};

/// The one dialect that everything is read with.
pub static DIALECT: GenericDialect = GenericDialect {};

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
    Ok(tokens)
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

/// The place of a token.
pub fn place(span: TokenSpan) -> Span {
    Span::new(span.start.line, span.start.column, span.end.line, span.end.column)
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
