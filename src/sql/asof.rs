//! All forms of the ASOF join and the ONLINE JOIN, brought to one that the stock parser reads:
//! `ASOF JOIN factor alias MATCH_CONDITION (__remige_asof('left', match, on, using, at, known by, within, role, …))`.
//! Absent parts are NULL. An ONLINE JOIN says `'online left'`, and its factor is `__remige_online(name)`: its
//! table is not read, so nothing may load it. Every token keeps its place.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::place;
use super::tokens::{at, closing, fold, is_distinct_from, is_word};
use crate::error::{Error, Result};

/// Name of the marker function.
pub const MARKER: &str = "__remige_asof";

/// Name of the function that stands for the right side of an ONLINE JOIN.
pub const ONLINE: &str = "__remige_online";

/// Words that end a table factor or one of its clauses.
const ENDS: &[&str] = &[
    "where",
    "group",
    "having",
    "qualify",
    "order",
    "limit",
    "offset",
    "fetch",
    "union",
    "except",
    "intersect",
    "window",
    "join",
    "left",
    "right",
    "full",
    "inner",
    "cross",
    "natural",
    "asof",
    "online",
    "select",
    "from",
    "set",
    "returning",
    "lateral",
    "tablesample",
    "sort",
    "cluster",
    "distribute",
    "into",
    "values",
    "with",
    "anti",
    "semi",
];

/// Clauses of an ASOF join, in the order of the marker's arguments after the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clause {
    Match,
    On,
    Using,
    At,
    KnownBy,
    Within,
    For,
}

impl Clause {
    fn name(self) -> &'static str {
        match self {
            Clause::Match => "MATCH_CONDITION",
            Clause::On => "ON",
            Clause::Using => "USING",
            Clause::At => "AT",
            Clause::KnownBy => "KNOWN BY",
            Clause::Within => "WITHIN",
            Clause::For => "FOR",
        }
    }
}

/// True where the token is a word that ends a factor.
fn ends(t: &TokenWithSpan) -> bool {
    match &t.token {
        Token::Word(w) if w.quote_style.is_none() => ENDS.contains(&w.value.to_lowercase().as_str()),
        Token::Comma | Token::RParen | Token::SemiColon => true,
        _ => false,
    }
}

/// The clause that begins at `i`, and how many tokens its words take.
fn clause_at(tokens: &[TokenWithSpan], i: usize) -> Option<(Clause, usize)> {
    // behind a point stands a column, whatever it is called
    let column = i >= 2 && at(tokens, i - 2).is_some_and(|t| t.token == Token::Period);
    clause_behind(tokens, i, i == 0 || column || at(tokens, i - 1).is_some_and(is_operand_end))
}

/// The same, where it is known whether an operand or a table has just ended.
fn clause_behind(tokens: &[TokenWithSpan], i: usize, after_operand: bool) -> Option<(Clause, usize)> {
    let t = at(tokens, i);
    let next = at(tokens, i + 1);
    let word = |w| is_word(t, w);
    let lparen = next.is_some_and(|n| n.token == Token::LParen);
    if word("match_condition") && lparen {
        return Some((Clause::Match, 1));
    }
    if word("on") {
        return Some((Clause::On, 1));
    }
    if word("using") && lparen {
        return Some((Clause::Using, 1));
    }
    if word("for") && lparen {
        return Some((Clause::For, 1));
    }
    if word("known") && is_word(next, "by") {
        return Some((Clause::KnownBy, 2));
    }
    // Columns may be called `at` and `within`: a clause begins only where an operand has just ended and another
    // one begins.
    if word("within") && (lparen || after_operand && next.is_some_and(is_operand_begin)) {
        return Some((Clause::Within, 1));
    }
    if word("at") && !is_word(next, "time") && after_operand && next.is_some_and(is_operand_begin) {
        return Some((Clause::At, 1));
    }
    None
}

fn is_operand_end(t: &TokenWithSpan) -> bool {
    match &t.token {
        Token::Word(w) => {
            w.quote_style.is_some()
                || !["on", "and", "or", "not", "as", "by", "at", "within", "for"].contains(&w.value.to_lowercase().as_str())
        }
        Token::Number(..) | Token::SingleQuotedString(_) | Token::RParen | Token::Placeholder(_) | Token::RBracket => true,
        _ => false,
    }
}

fn is_operand_begin(t: &TokenWithSpan) -> bool {
    match &t.token {
        Token::Word(_) => !ends(t) && !is_word(Some(t), "and") && !is_word(Some(t), "or") && !is_word(Some(t), "is"),
        Token::Number(..) | Token::SingleQuotedString(_) | Token::LParen | Token::Placeholder(_) => true,
        _ => false,
    }
}

/// True where the word AT at `i`, behind a table, begins a clause. Before the next clause it is an alias: `JOIN t at ON …`.
pub fn begins_instant(tokens: &[TokenWithSpan], i: usize) -> bool {
    let pivots = ["pivot", "unpivot", "match_recognize"].iter().any(|w| is_word(at(tokens, i + 1), w));
    let is_alias = pivots || clause_behind(tokens, i + 1, true).is_some();
    !is_alias && clause_behind(tokens, i, true).is_some_and(|(clause, _)| clause == Clause::At)
}

/// True where the tokens at `i`, right behind a table's name, give it an alias.
pub fn has_alias(tokens: &[TokenWithSpan], i: usize) -> bool {
    match at(tokens, i) {
        Some(t) if is_word(Some(t), "as") => true,
        Some(t) => matches!(&t.token, Token::Word(_)) && !ends(t) && clause_at(tokens, i).is_none(),
        None => false,
    }
}

/// End (exclusive) of the group whose opening parenthesis is at `open`.
fn close(tokens: &[TokenWithSpan], open: usize) -> Result<usize> {
    closing(tokens, open).ok_or_else(|| Error::syntax("this parenthesis is never closed").with_span(place(tokens[open].span)))
}

/// Rewrites every ASOF and ONLINE join of the tokens, nested ones included.
pub fn rewrite(tokens: &[TokenWithSpan]) -> Result<Vec<TokenWithSpan>> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        match head(tokens, i)? {
            Some(head) => i = join(tokens, i, &head, &mut out)?,
            None => {
                out.push(tokens[i].clone());
                i += 1;
            }
        }
    }
    Ok(out)
}

/// The words that begin a join, and where its factor does.
struct Head {
    online: bool,
    /// `left`, `inner` or `default`.
    kind: &'static str,
    factor: usize,
}

/// `ASOF | ONLINE [LEFT [OUTER] | INNER] JOIN` at `i`.
fn head(tokens: &[TokenWithSpan], i: usize) -> Result<Option<Head>> {
    let online = is_word(at(tokens, i), "online");
    // behind FROM, JOIN, AS or a period it is the name of a table, an alias or a column
    let left = i.checked_sub(1).map(|p| &tokens[p]);
    let follows = match left.map(|t| &t.token) {
        Some(Token::Word(_)) => !["from", "join", "as"].iter().any(|w| is_word(left, w)),
        Some(_) => left.is_some_and(is_operand_end),
        None => false,
    };
    if !(follows && (online || is_word(at(tokens, i), "asof"))) {
        return Ok(None);
    }
    let (kind, mut next) = match at(tokens, i + 1) {
        t if is_word(t, "left") => ("left", i + 2),
        t if is_word(t, "inner") => ("inner", i + 2),
        t if is_word(t, "join") => ("default", i + 1),
        t if ["right", "full", "cross", "anti", "semi"].iter().any(|w| is_word(t, w)) => {
            let word = if online { "ONLINE" } else { "ASOF" };
            let which = t.map(|t| t.token.to_string()).unwrap_or_default().to_uppercase();
            return Err(Error::syntax(format!("{word} {which} JOIN does not exist"))
                .with_span(place(tokens[i].span))
                .with_hint(format!("{word} JOIN keeps every left row, {word} INNER JOIN only the matched ones")));
        }
        _ => return Ok(None),
    };
    if is_word(at(tokens, next), "outer") {
        next += 1;
    }
    if !is_word(at(tokens, next), "join") {
        return Ok(None);
    }
    Ok(Some(Head { online, kind, factor: next + 1 }))
}

/// Reads one join from its factor on, writes it out, and returns where it ends.
fn join(tokens: &[TokenWithSpan], start: usize, head: &Head, out: &mut Vec<TokenWithSpan>) -> Result<usize> {
    let span = tokens[start].span;
    let missing = || {
        Error::syntax(match head.online {
            true => "ONLINE JOIN wants the name of a feature view or service",
            false => "ASOF JOIN wants a table, feature view or service",
        })
        .with_span(place(span))
    };
    let mut i = head.factor;
    // the factor: a group, or a dotted name with arguments
    match at(tokens, i).map(|t| &t.token) {
        Some(Token::LParen) if !head.online => i = close(tokens, i)?,
        Some(Token::Word(_)) if !ends(&tokens[i]) => {
            i += 1;
            while at(tokens, i).is_some_and(|t| t.token == Token::Period) {
                i += 2;
            }
            if at(tokens, i).is_some_and(|t| t.token == Token::LParen) {
                if head.online {
                    return Err(missing());
                }
                i = close(tokens, i)?;
            }
        }
        _ => return Err(missing()),
    }
    let factor_end = i.min(tokens.len());
    if has_alias(tokens, i) {
        i += if is_word(at(tokens, i), "as") { 2 } else { 1 };
        if at(tokens, i).is_some_and(|t| t.token == Token::LParen) && clause_at(tokens, i - 1).is_none() {
            i = close(tokens, i)?; // alias (columns)
        }
    }
    let alias_end = i.min(tokens.len());
    let mut clauses: Vec<(Clause, usize, usize)> = vec![];
    while let Some((clause, words)) = if i == alias_end { clause_behind(tokens, i, true) } else { clause_at(tokens, i) } {
        if clauses.iter().any(|(c, ..)| *c == clause) {
            return Err(Error::syntax(format!("{} is written twice in one join", clause.name())).with_span(place(tokens[i].span)));
        }
        let from = i + words;
        let to = match clause {
            Clause::Match | Clause::Using | Clause::For => close(tokens, from)?,
            _ => expression_end(tokens, from)?,
        };
        if to == from {
            return Err(Error::syntax(format!("{} wants an expression", clause.name())).with_span(place(tokens[i].span)));
        }
        clauses.push((clause, from, to));
        i = to;
    }
    let made = |t: Token| TokenWithSpan { token: t, span };
    out.extend([made(Token::make_keyword("ASOF")), made(Token::make_keyword("JOIN"))]);
    match head.online {
        true => {
            out.extend([made(Token::make_word(ONLINE, None)), made(Token::LParen)]);
            out.extend(tokens[head.factor..factor_end].iter().cloned());
            out.push(made(Token::RParen));
        }
        false => out.extend(rewrite(&tokens[head.factor..factor_end])?),
    }
    out.extend(alias(&tokens[factor_end..alias_end]));
    let kind = if head.online { format!("online {}", head.kind) } else { head.kind.to_string() };
    out.extend([made(Token::make_keyword("MATCH_CONDITION")), made(Token::LParen), made(Token::make_word(MARKER, None))]);
    out.extend([made(Token::LParen), made(Token::SingleQuotedString(kind))]);
    for want in [Clause::Match, Clause::On, Clause::Using, Clause::At, Clause::KnownBy, Clause::Within] {
        out.push(made(Token::Comma));
        match clauses.iter().find(|(c, ..)| *c == want) {
            Some(&(_, from, to)) => out.extend(rewrite(&tokens[from..to])?),
            None => out.push(made(Token::make_keyword("NULL"))),
        }
    }
    if let Some(&(_, from, to)) = clauses.iter().find(|(c, ..)| *c == Clause::For) {
        // (a = b, c = d) becomes further arguments
        out.push(made(Token::Comma));
        out.extend(tokens[from + 1..to - 1].iter().cloned());
    }
    out.extend([made(Token::RParen), made(Token::RParen)]);
    Ok(i)
}

/// An alias of a table, quoted: the stock parser takes some words (`at`, `within`) for none.
fn alias(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut out = tokens.to_vec();
    let name = if is_word(tokens.first(), "as") { 1 } else { 0 };
    if let Some(t) = out.get_mut(name)
        && let Token::Word(w) = &t.token
    {
        t.token = Token::make_word(&fold(w), Some('"'));
    }
    out
}

/// Where the expression that begins at `i` ends: at the next clause or the end of the factor.
pub fn expression_end(tokens: &[TokenWithSpan], mut i: usize) -> Result<usize> {
    let from = i;
    let mut brackets = 0usize;
    while i < tokens.len() {
        let t = &tokens[i];
        match t.token {
            Token::LParen => {
                i = close(tokens, i)?;
                continue;
            }
            Token::LBracket | Token::LBrace => brackets += 1,
            Token::RBracket | Token::RBrace => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        // ARRAY[1, 2], IS DISTINCT FROM and TIMESTAMP WITH TIME ZONE go on
        let goes_on = brackets > 0 || is_distinct_from(tokens, i) || (is_word(Some(t), "with") && is_word(at(tokens, i + 1), "time"));
        if goes_on {
            i += 1;
            continue;
        }
        // left(x, 3) and right(x, 3) are functions
        let function =
            i + 1 < tokens.len() && tokens[i + 1].token == Token::LParen && (is_word(Some(t), "left") || is_word(Some(t), "right"));
        let column = i > from && tokens[i - 1].token == Token::Period;
        if (ends(t) && !function && !column) || (i > from && !column && clause_at(tokens, i).is_some()) {
            break;
        }
        i += 1;
    }
    Ok(i)
}

#[cfg(test)]
mod tests {
    use crate::sql::rewrite::rewrite;
    use crate::sql::text::tokenize;

    fn pass(sql: &str) -> String {
        match tokenize(sql).and_then(rewrite) {
            Ok(out) => out.iter().map(|t| t.token.to_string()).collect::<Vec<_>>().join(" "),
            Err(e) => format!("error: {}", e.message()),
        }
    }

    fn marker(sql: &str) -> String {
        let all = pass(sql);
        all.split_once("__remige_asof").map_or(all.clone(), |(_, m)| m.to_string())
    }

    #[test]
    fn snowflake_form() {
        assert_eq!(
            pass("FROM l ASOF JOIN p MATCH_CONDITION (l.t >= p.t) ON l.k = p.k WHERE 1"),
            "FROM l ASOF JOIN p MATCH_CONDITION ( __remige_asof ( 'default' , ( l . t >= p . t ) , l . k = p . k , NULL , NULL , NULL , NULL ) ) WHERE 1"
        );
    }

    #[test]
    fn duckdb_form() {
        assert_eq!(
            marker("FROM l ASOF LEFT JOIN p ON l.k = p.k AND l.t >= p.t ORDER BY 1"),
            " ( 'left' , NULL , l . k = p . k AND l . t >= p . t , NULL , NULL , NULL , NULL ) ) ORDER BY 1"
        );
    }

    #[test]
    fn feature_form_in_any_order() {
        let a = marker("FROM l ASOF JOIN v f FOR (k = l.b) AT l.t KNOWN BY l.t2 WITHIN INTERVAL '1 day' WHERE x");
        let b = marker("FROM l ASOF JOIN v f WITHIN INTERVAL '1 day' KNOWN BY l.t2 AT l.t FOR (k = l.b) WHERE x");
        assert_eq!(a, b);
        assert_eq!(a, " ( 'default' , NULL , NULL , NULL , l . t , l . t2 , INTERVAL '1 day' , k = l . b ) ) WHERE x");
    }

    #[test]
    fn clause_words_may_be_names() {
        assert!(
            pass("FROM l ASOF JOIN v AS at AT l.at")
                .ends_with("v AS \"at\" MATCH_CONDITION ( __remige_asof ( 'default' , NULL , NULL , NULL , l . at , NULL , NULL ) )")
        );
        assert!(pass("FROM l ASOF JOIN v AS within WITHIN INTERVAL '1 day'").ends_with("NULL , INTERVAL '1 day' ) )"));
        assert!(
            marker("FROM l ASOF JOIN v ON l.k IS NOT DISTINCT FROM v.k AT l.t")
                .contains("( l . k IS NOT DISTINCT FROM v . k ) , NULL , l . t")
        );
        assert!(marker("FROM l ASOF JOIN v ON l.k = ARRAY[1, 2][1] AT l.t").contains("ARRAY [ 1 , 2 ] [ 1 ] , NULL , l . t"));
        assert!(marker("FROM l ASOF JOIN v AT l.t WITHIN l.k * INTERVAL '1 day'").contains("l . k * INTERVAL '1 day'"));
        assert!(marker("FROM l ASOF JOIN v ON at = v.k AT at").contains("NULL , at = v . k , NULL , at ,"));
        assert!(marker("FROM l ASOF JOIN v AT l.t AT TIME ZONE 'UTC'").contains("l . t AT TIME ZONE 'UTC'"));
        assert!(marker("FROM l ASOF JOIN v AT l.at WITHIN INTERVAL '1 day'").contains("l . at , NULL , INTERVAL '1 day'"));
        assert!(pass("SELECT t.asof FROM t").contains("t . asof"));
    }

    #[test]
    fn chains_and_subqueries() {
        let out = pass("FROM (SELECT * FROM a ASOF JOIN b) x ASOF JOIN (SELECT * FROM c ASOF JOIN d AT t) y ASOF JOIN e AT q");
        assert_eq!(out.matches("__remige_asof").count(), 4, "{out}");
    }

    #[test]
    fn online_joins_name_their_target_only() {
        assert_eq!(
            pass("FROM r ONLINE JOIN s.rec f FOR (k = r.b) WHERE 1"),
            "FROM r ASOF JOIN __remige_online ( s . rec ) \"f\" MATCH_CONDITION ( __remige_asof ( 'online default' , NULL , NULL , NULL , NULL , NULL , NULL , k = r . b ) ) WHERE 1"
        );
        assert!(marker("FROM (VALUES (1)) r (k) online inner join rec@v2").contains("'online inner'"));
        assert!(pass("FROM r ONLINE LEFT OUTER JOIN rec@v2").contains("__remige_online ( \"rec@v2\" ) MATCH_CONDITION"));
        assert!(marker("FROM r ONLINE JOIN rec AT r.t").contains("NULL , r . t , NULL"));
        assert_eq!(pass("FROM r ONLINE JOIN a ON r.k = a.k ONLINE JOIN b WHERE x").matches("'online default'").count(), 2);
        assert_eq!(pass("FROM r ASOF JOIN a AT r.online ONLINE JOIN b").matches("__remige_online").count(), 1);
    }

    #[test]
    fn online_may_be_a_name() {
        for same in
            ["FROM online JOIN u ON 1", "FROM system.online LEFT JOIN u ON 1", "FROM t AS online JOIN u ON 1", "FROM a JOIN asof JOIN b"]
        {
            assert_eq!(pass(same), same.replace('.', " . "));
        }
    }

    #[test]
    fn faults_are_named() {
        assert!(pass("FROM l ONLINE FULL JOIN p").contains("ONLINE FULL JOIN does not exist"));
        for what in ["(SELECT 1)", "f(1)", "WHERE"] {
            assert!(pass(&format!("FROM l ONLINE JOIN {what}")).contains("ONLINE JOIN wants the name"), "{what}");
        }
        assert!(pass("FROM l ASOF RIGHT JOIN p").contains("ASOF RIGHT JOIN does not exist"));
        assert!(pass("FROM l ASOF JOIN p AT a AT b").contains("twice"));
        assert!(pass("FROM l ASOF JOIN WHERE").contains("wants a table"));
        // without an instant behind it, AT is a name
        let named = pass("FROM l ASOF JOIN p AT").to_lowercase();
        assert!(named.contains("join p \"at\" "), "{named}");
    }
}
