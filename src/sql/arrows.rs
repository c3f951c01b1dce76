//! `->`, which has two meanings: `j -> 'key'` reads a JSON text, `x -> x + 1` is a function for `list_transform` and
//! its kin. The stock parser knows the first only, and lets it bind less than `=`. Here both get parentheses: around a
//! whole reading, `(j -> 'key')`, as in PostgreSQL, and around what a function of a list computes, `x -> (x + 1)`.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use super::tokens::{at, closing, fold, is_word};

/// Functions that take a function of one element.
pub const HIGHER_ORDER: &[&str] = &[
    "array_transform",
    "list_transform",
    "list_apply",
    "transform",
    "array_filter",
    "list_filter",
    "array_any_match",
    "list_any_match",
    "any_match",
    "array_first",
    "list_first",
];

/// Puts the parentheses; DuckDB's `lambda x : …` becomes `x -> (…)`.
pub fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let concerned = |t: &TokenWithSpan| is_arrow(&t.token) || is_word(Some(t), "lambda") || is_word(Some(t), "current_user");
    match tokens.iter().any(concerned) {
        true => pass(&tokens),
        false => tokens,
    }
}

fn is_arrow(t: &Token) -> bool {
    matches!(t, Token::Arrow | Token::LongArrow)
}

fn pass(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 8);
    // whether each open parenthesis is one of a function that takes functions
    let mut open: Vec<bool> = vec![];
    let mut i = 0;
    while i < tokens.len() {
        let t = &tokens[i];
        // the first argument is the list
        let begins = matches!(tokens.get(i.wrapping_sub(1)).map(|t| &t.token), Some(Token::Comma));
        if begins
            && open.last() == Some(&true)
            && let Some(lambda) = lambda(tokens, i)
        {
            i = put_lambda(tokens, lambda, &mut out);
            continue;
        }
        if is_arrow(&t.token)
            && let (Some(from), Some(to)) = (operand_begin(&out), operand_end(tokens, i + 1))
        {
            let place = out[from].span.start;
            out.insert(from, made(Token::LParen, place));
            out.push(t.clone());
            out.extend(pass(&tokens[i + 1..to]));
            out.push(made(Token::RParen, tokens[to - 1].span.end));
            i = to;
            continue;
        }
        match &t.token {
            Token::LParen => open.push(i.checked_sub(1).is_some_and(|p| takes_functions(&tokens[p].token))),
            Token::LBracket | Token::LBrace => open.push(false),
            Token::RParen | Token::RBracket | Token::RBrace => {
                open.pop();
            }
            _ => {}
        }
        out.push(t.clone());
        // the parser takes it without parentheses only
        let call = is_word(Some(t), "current_user") && token(tokens, i + 1) == Some(&Token::LParen);
        i += if call && token(tokens, i + 2) == Some(&Token::RParen) { 3 } else { 1 };
    }
    out
}

fn takes_functions(t: &Token) -> bool {
    matches!(t, Token::Word(w) if HIGHER_ORDER.contains(&fold(w).as_str()))
}

fn token(tokens: &[TokenWithSpan], i: usize) -> Option<&Token> {
    at(tokens, i).map(|t| &t.token)
}

fn made(token: Token, at: Location) -> TokenWithSpan {
    TokenWithSpan { token, span: Span { start: at, end: at } }
}

/// Parameters and the beginning of the body of a function.
struct Lambda {
    parameters: Vec<TokenWithSpan>,
    body: usize,
}

/// `x ->`, `(x, i) ->` or `lambda x, i :` at `i`.
fn lambda(tokens: &[TokenWithSpan], i: usize) -> Option<Lambda> {
    let is_name = |i: usize| matches!(token(tokens, i), Some(Token::Word(_)));
    let names = |mut i: usize| {
        let mut found = vec![];
        while is_name(i) {
            found.push(tokens[i].clone());
            i += 1;
            match token(tokens, i) {
                Some(Token::Comma) => i += 1,
                _ => break,
            }
        }
        (found, i)
    };
    let (parameters, end, sign) = if is_word(at(tokens, i), "lambda") && is_name(i + 1) {
        let (found, end) = names(i + 1);
        (found, end, Token::Colon)
    } else if token(tokens, i) == Some(&Token::LParen) {
        let (found, end) = names(i + 1);
        (found, (token(tokens, end) == Some(&Token::RParen)).then_some(end + 1)?, Token::Arrow)
    } else {
        let (found, end) = names(i);
        (found.into_iter().take(1).collect(), end.min(i + 1), Token::Arrow)
    };
    (!parameters.is_empty() && token(tokens, end) == Some(&sign)).then_some(Lambda { parameters, body: end + 1 })
}

/// Writes a function; where the argument ends.
fn put_lambda(tokens: &[TokenWithSpan], lambda: Lambda, out: &mut Vec<TokenWithSpan>) -> usize {
    let (Lambda { parameters, body }, mut end, mut depth) = (&lambda, lambda.body, 0usize);
    while let Some(t) = token(tokens, end) {
        match t {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace if depth == 0 => break,
            Token::RParen | Token::RBracket | Token::RBrace => depth -= 1,
            Token::Comma if depth == 0 => break,
            _ => {}
        }
        end += 1;
    }
    let sign = &tokens[body - 1];
    let many = parameters.len() > 1;
    if many {
        out.push(made(Token::LParen, sign.span.start));
    }
    for (n, p) in parameters.iter().enumerate() {
        if n > 0 {
            out.push(made(Token::Comma, p.span.start));
        }
        out.push(p.clone());
    }
    if many {
        out.push(made(Token::RParen, sign.span.start));
    }
    out.push(TokenWithSpan { token: Token::Arrow, span: sign.span });
    out.push(made(Token::LParen, sign.span.end));
    out.extend(pass(&tokens[*body..end]));
    out.push(made(Token::RParen, sign.span.end));
    end
}

/// Where the operand begins that `out` ends with; `None` where it is no value that stands together.
fn operand_begin(out: &[TokenWithSpan]) -> Option<usize> {
    let mut i = out.len().checked_sub(1)?;
    loop {
        match &out[i].token {
            Token::RBracket => i = opening(out, i)?.checked_sub(1)?,
            Token::RParen => {
                let open = opening(out, i)?;
                let called = open.checked_sub(1).filter(|p| is_call(out, *p));
                i = match called {
                    Some(name) => chain_begin(out, name),
                    None => open,
                };
                match before_cast(out, i) {
                    Some(value) => i = value,
                    None => return Some(i),
                }
            }
            Token::Word(w) if w.quote_style.is_none() && is_reserved(w.keyword) => return None,
            Token::Word(_) => {
                i = chain_begin(out, i);
                match before_cast(out, i) {
                    Some(value) => i = value,
                    None => return Some(i),
                }
            }
            Token::Number(..) | Token::SingleQuotedString(_) | Token::DollarQuotedString(_) | Token::Placeholder(_) => return Some(i),
            _ => return None,
        }
    }
}

/// The end of the value whose type begins at `i` behind `::`.
fn before_cast(out: &[TokenWithSpan], i: usize) -> Option<usize> {
    (token(out, i.checked_sub(1)?)? == &Token::DoubleColon).then_some(i.checked_sub(2)?)
}

/// The parenthesis or bracket that the one at `close` closes.
fn opening(out: &[TokenWithSpan], close: usize) -> Option<usize> {
    let mut depth = 0usize;
    for i in (0..=close).rev() {
        match &out[i].token {
            Token::RParen | Token::RBracket => depth += 1,
            Token::LParen | Token::LBracket => {
                depth -= 1;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

/// A word in front of a parenthesis that calls a function.
fn is_call(out: &[TokenWithSpan], name: usize) -> bool {
    let touches = out[name].span.end == out[name + 1].span.start;
    matches!(&out[name].token, Token::Word(w) if w.quote_style.is_some() || w.keyword == Keyword::NoKeyword || (touches && !is_reserved(w.keyword)))
}

/// Words that no value ends or begins with.
fn is_reserved(k: Keyword) -> bool {
    use Keyword::*;
    matches!(
        k,
        SELECT
            | WHERE
            | AND
            | OR
            | NOT
            | ON
            | WHEN
            | THEN
            | ELSE
            | CASE
            | END
            | BY
            | HAVING
            | IN
            | FROM
            | AS
            | BETWEEN
            | LIKE
            | IS
            | LIMIT
            | VALUES
    )
}

/// The first word of `a.b.c`.
fn chain_begin(out: &[TokenWithSpan], mut i: usize) -> usize {
    while i >= 2 && out[i - 1].token == Token::Period && matches!(out[i - 2].token, Token::Word(_)) {
        i -= 2;
    }
    i
}

/// The token behind the operand that begins at `i`.
fn operand_end(tokens: &[TokenWithSpan], i: usize) -> Option<usize> {
    let mut i = i;
    if token(tokens, i) == Some(&Token::Minus) {
        i += 1;
    }
    let mut end = match token(tokens, i)? {
        Token::LParen => closing(tokens, i)?,
        Token::Word(w) if w.quote_style.is_none() && is_reserved(w.keyword) => return None,
        Token::Word(_) => {
            let mut last = i;
            while token(tokens, last + 1) == Some(&Token::Period) && matches!(token(tokens, last + 2), Some(Token::Word(_))) {
                last += 2;
            }
            match token(tokens, last + 1) {
                Some(Token::LParen) => closing(tokens, last + 1)?,
                _ => last + 1,
            }
        }
        Token::Number(..) | Token::SingleQuotedString(_) | Token::DollarQuotedString(_) | Token::Placeholder(_) => i + 1,
        _ => return None,
    };
    // a cast binds more than the arrow
    while token(tokens, end) == Some(&Token::DoubleColon) && matches!(token(tokens, end + 1), Some(Token::Word(_))) {
        end = match token(tokens, end + 2) {
            Some(Token::LParen) => closing(tokens, end + 2)?,
            _ => end + 2,
        };
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::tokenize;

    fn pass(sql: &str) -> String {
        rewrite(tokenize(sql).unwrap()).iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_reading_binds_more_than_what_is_around_it() {
        for (sql, out) in [
            ("j -> 'a' = 'x'", "( j -> 'a' ) = 'x'"),
            ("1 + t.j -> 'a' ->> 0", "1 + ( ( t . j -> 'a' ) ->> 0 )"),
            ("f(x, 2) -> -1", "( f ( x , 2 ) -> - 1 )"),
            ("WHERE (j) -> 'a'", "WHERE ( ( j ) -> 'a' )"),
            ("x::text -> g(1)::text", "( x :: text -> g ( 1 ) :: text )"),
            ("a[1] -> $1", "( a [ 1 ] -> $1 )"),
            ("f(j -> 'a')", "f ( ( j -> 'a' ) )"),
            ("NOT j -> 'a'", "NOT ( j -> 'a' )"),
        ] {
            assert_eq!(pass(sql), out, "{sql}");
        }
    }

    #[test]
    fn functions_of_elements() {
        for (sql, out) in [
            ("list_transform(l, x -> x + 1)", "list_transform ( l , x -> ( x + 1 ) )"),
            ("list_transform(l, x -> x -> 'a')", "list_transform ( l , x -> ( ( x -> 'a' ) ) )"),
            ("list_filter(l, (x, i) -> i > 1 AND x, 3)", "list_filter ( l , ( x , i ) -> ( i > 1 AND x ) , 3 )"),
            ("list_filter(l, lambda x : x > 1)", "list_filter ( l , x -> ( x > 1 ) )"),
            ("list_filter(list_transform(l, x -> x), y -> y)", "list_filter ( list_transform ( l , x -> ( x ) ) , y -> ( y ) )"),
            ("list_transform(j -> 'a', x -> 1)", "list_transform ( ( j -> 'a' ) , x -> ( 1 ) )"),
        ] {
            assert_eq!(pass(sql), out, "{sql}");
        }
    }
}
