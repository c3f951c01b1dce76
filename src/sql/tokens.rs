//! What one token is, and where it stands.

use sqlparser::ast::Ident;
use sqlparser::tokenizer::{Span as TokenSpan, Token, TokenWithSpan, Word};

use crate::error::Span;

/// The place of a token.
pub fn place(span: TokenSpan) -> Span {
    Span::new(span.start.line, span.start.column, span.end.line, span.end.column)
}

pub fn is_word(t: Option<&TokenWithSpan>, word: &str) -> bool {
    matches!(t.map(|t| &t.token), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

pub fn at(tokens: &[TokenWithSpan], i: usize) -> Option<&TokenWithSpan> {
    tokens.get(i)
}

/// The token behind the parenthesis that closes the one at `open`.
pub fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (i, t) in tokens.iter().enumerate().skip(open) {
        match t.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth -= 1;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// True where the word at `i` is the FROM of `IS [NOT] DISTINCT FROM`, which begins no clause.
pub fn is_distinct_from(tokens: &[TokenWithSpan], i: usize) -> bool {
    let before = |n: usize| i.checked_sub(n).and_then(|p| tokens.get(p));
    is_word(tokens.get(i), "from") && is_word(before(1), "distinct") && (is_word(before(2), "is") || is_word(before(2), "not"))
}

/// A name as the catalog knows it: folded unless quoted.
pub fn fold(w: &Word) -> String {
    if w.quote_style.is_some() { w.value.clone() } else { w.value.to_lowercase() }
}

/// A name of the stock parser as the catalog knows it.
pub fn fold_ident(i: &Ident) -> String {
    if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() }
}
