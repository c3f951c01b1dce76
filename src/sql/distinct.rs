//! `a IS [NOT] DISTINCT FROM b`: the stock parser takes all that follows for `b`, AND and OR included. The whole
//! comparison is put in parentheses here.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{at, is_distinct_from, is_word};

/// Puts the comparisons in parentheses.
pub fn enclose(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let (mut opens, mut closes) = (vec![0usize; tokens.len() + 1], vec![0usize; tokens.len() + 1]);
    let mut found = false;
    for i in (0..tokens.len()).filter(|i| is_distinct_from(&tokens, *i)) {
        found = true;
        let not = is_word(i.checked_sub(2).and_then(|p| at(&tokens, p)), "not");
        let is = i - if not { 3 } else { 2 }.min(i);
        opens[operand_begin(&tokens, is)] += 1;
        closes[operand_end(&tokens, i + 1)] += 1;
    }
    if !found {
        return tokens;
    }
    let mut out = Vec::with_capacity(tokens.len() + 8);
    let last = tokens.last().map(|t| t.span);
    for (i, t) in tokens.into_iter().enumerate() {
        let made = |token: Token| TokenWithSpan { token, span: t.span };
        out.extend((0..closes[i]).map(|_| made(Token::RParen)));
        out.extend((0..opens[i]).map(|_| made(Token::LParen)));
        out.push(t);
    }
    if let (Some(span), Some(n)) = (last, closes.last()) {
        out.extend((0..*n).map(|_| TokenWithSpan { token: Token::RParen, span }));
    }
    out
}

/// Words that end an operand on its left: they bind less than IS, or begin a clause.
const STOPS: &[&str] = &[
    "and",
    "or",
    "xor",
    "not",
    "where",
    "on",
    "select",
    "distinct",
    "all",
    "when",
    "then",
    "else",
    "case",
    "by",
    "having",
    "qualify",
    "using",
    "set",
    "returning",
    "values",
    "as",
    "from",
    "in",
    "limit",
    "offset",
    "filter",
    "known",
    "within",
    "for",
    "match_condition",
];

/// Where the left operand begins whose last token stands before `is`.
fn operand_begin(tokens: &[TokenWithSpan], is: usize) -> usize {
    let (mut i, mut depth, mut cases) = (is, 0usize, 0usize);
    while let Some(before) = i.checked_sub(1) {
        let t = &tokens[before];
        let column = before.checked_sub(1).is_some_and(|p| tokens[p].token == Token::Period);
        match &t.token {
            Token::RParen | Token::RBracket | Token::RBrace => depth += 1,
            Token::LParen | Token::LBracket | Token::LBrace if depth == 0 => return i,
            Token::LParen | Token::LBracket | Token::LBrace => depth -= 1,
            _ if depth > 0 => {}
            Token::Comma | Token::SemiColon if cases == 0 => return i,
            Token::Word(_) if !column && is_word(Some(t), "end") => cases += 1,
            Token::Word(_) if cases > 0 && is_word(Some(t), "case") => cases -= 1,
            Token::Word(_) if cases == 0 && !column => {
                let clause = is_word(Some(t), "at") && !is_word(at(tokens, before + 1), "time");
                if clause || STOPS.iter().any(|s| is_word(Some(t), s)) {
                    return i;
                }
            }
            _ => {}
        }
        i = before;
    }
    i
}

/// Where the operand that begins at `i` ends: before what binds less than IS.
fn operand_end(tokens: &[TokenWithSpan], mut i: usize) -> usize {
    let mut wanted = true;
    while let Some(t) = at(tokens, i) {
        let next = at(tokens, i + 1);
        match &t.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                i = group_end(tokens, i);
                wanted = false;
                continue;
            }
            Token::Plus | Token::Minus | Token::Tilde if wanted => {}
            Token::Word(_) if wanted && is_word(Some(t), "case") => {
                i = case_end(tokens, i);
                wanted = false;
                continue;
            }
            // DATE '…', INTERVAL '…' DAY
            Token::Word(_) if wanted && matches!(next.map(|n| &n.token), Some(Token::SingleQuotedString(_))) => {
                i += 1;
                let unit = is_word(Some(t), "interval") && UNITS.iter().any(|u| is_word(at(tokens, i + 1), u));
                i += usize::from(unit);
                wanted = false;
            }
            Token::Word(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::HexStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::Placeholder(_)
                if wanted =>
            {
                wanted = false;
            }
            _ if wanted => return i,
            Token::Word(_) if is_word(Some(t), "at") && is_word(next, "time") && is_word(at(tokens, i + 2), "zone") => {
                i += 2;
                wanted = true;
            }
            Token::Word(_) if is_word(Some(t), "precision") && is_word(at(tokens, i - 1), "double") => {}
            token if goes_on(token) => wanted = true,
            _ => return i,
        }
        i += 1;
    }
    i.min(tokens.len())
}

const UNITS: [&str; 8] = ["year", "month", "week", "day", "hour", "minute", "second", "quarter"];

/// Operators that bind more than IS.
fn goes_on(token: &Token) -> bool {
    matches!(
        token,
        Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::Mod
            | Token::StringConcat
            | Token::Caret
            | Token::Ampersand
            | Token::Pipe
            | Token::ShiftLeft
            | Token::ShiftRight
            | Token::Arrow
            | Token::LongArrow
            | Token::DoubleColon
            | Token::Period
    )
}

fn group_end(tokens: &[TokenWithSpan], open: usize) -> usize {
    let mut depth = 0usize;
    for (i, t) in tokens.iter().enumerate().skip(open) {
        match t.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

fn case_end(tokens: &[TokenWithSpan], case: usize) -> usize {
    let mut depth = 0usize;
    for (i, t) in tokens.iter().enumerate().skip(case) {
        if is_word(Some(t), "case") {
            depth += 1;
        } else if is_word(Some(t), "end") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return i + 1;
            }
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::tokenize;

    fn pass(sql: &str) -> String {
        enclose(tokenize(sql).unwrap()).iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comparisons_end_where_they_should() {
        for (sql, enclosed) in [
            ("a IS DISTINCT FROM 5 AND b", "( a IS DISTINCT FROM 5 ) AND b"),
            ("x AND t.a + 1 IS NOT DISTINCT FROM -t.b + 1 OR c", "x AND ( t . a + 1 IS NOT DISTINCT FROM - t . b + 1 ) OR c"),
            ("SELECT f(a, 1) IS DISTINCT FROM f(1, 2)[3] r", "SELECT ( f ( a , 1 ) IS DISTINCT FROM f ( 1 , 2 ) [ 3 ] ) r"),
            ("b, a IS DISTINCT FROM x::double precision = b", "b , ( a IS DISTINCT FROM x :: double precision ) = b"),
            (
                "WHERE CASE WHEN b IS DISTINCT FROM 1 THEN 2 END IS DISTINCT FROM 3",
                "WHERE ( CASE WHEN ( b IS DISTINCT FROM 1 ) THEN 2 END IS DISTINCT FROM 3 )",
            ),
            ("NOT a IS DISTINCT FROM DATE '2026-01-01' FROM t", "NOT ( a IS DISTINCT FROM DATE '2026-01-01' ) FROM t"),
            ("a IS DISTINCT FROM INTERVAL '1' DAY, b", "( a IS DISTINCT FROM INTERVAL '1' DAY ) , b"),
            ("ON t AT TIME ZONE 'UTC' IS DISTINCT FROM u AT l.ts", "ON ( t AT TIME ZONE 'UTC' IS DISTINCT FROM u ) AT l . ts"),
            ("(a IS DISTINCT FROM b)", "( ( a IS DISTINCT FROM b ) )"),
            ("SELECT DISTINCT a FROM t", "SELECT DISTINCT a FROM t"),
            ("IS DISTINCT FROM", "( IS DISTINCT FROM )"),
        ] {
            assert_eq!(pass(sql), enclosed);
        }
    }
}
