//! Windows as of the instant asked: `OVER LAST '30 days' …`, `OVER ALL …`, and their names in `WINDOW`. The stock parser
//! takes `OVER LAST` for a named window with an alias behind it, so they are read ahead of it, and leave a name.

use datafusion::sql::parser::Statement;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::cursor::Cursor;
use super::tokens::{at, fold, is_word, place};
use crate::clock::Micros;
use crate::error::{Error, Result, Span};

/// Names of windows that are written behind an aggregate begin like this; a number follows.
const INLINE: &str = "_remige_window_";

/// A window as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowClause {
    /// `None`: ALL.
    pub length: Option<Micros>,
    pub every: Option<Micros>,
    pub exact: bool,
    pub delay: Option<Micros>,
    pub exclude_current: bool,
    pub span: Span,
}

/// A query in which every such window is `OVER name`.
#[derive(Debug)]
pub struct Windowed {
    pub statement: Statement,
    pub windows: Vec<(String, WindowClause)>,
}

/// Whether a window stands behind its aggregate, without a name of its own.
pub fn is_inline(name: &str) -> bool {
    name.starts_with(INLINE)
}

/// Whether a text holds such a window.
pub fn find(tokens: &[TokenWithSpan]) -> Option<Span> {
    (0..tokens.len()).find(|i| begins(tokens, *i).is_some() || begins_named(tokens, *i)).map(|i| place(tokens[i].span))
}

/// The error for such a window elsewhere than in a feature view.
pub fn refuse(tokens: &[TokenWithSpan]) -> Result<()> {
    match find(tokens) {
        None => Ok(()),
        Some(place) => Err(Error::invalid("OVER LAST and OVER ALL stand in the SELECT of a feature view, where they are as of the instant that is asked")
            .with_span(place)
            .with_hint("CREATE FEATURE VIEW v ENTITY user EVENT TIMESTAMP ts AS SELECT user_id, ts, count(*) OVER LAST '30 days' AS n FROM events; elsewhere write OVER (PARTITION BY … ORDER BY … RANGE …)")),
    }
}

/// Where the words of a window behind OVER begin, and whether they stand in parentheses.
fn begins(tokens: &[TokenWithSpan], i: usize) -> Option<(usize, bool)> {
    if !is_word(at(tokens, i), "over") {
        return None;
    }
    let parenthesis = at(tokens, i + 1).is_some_and(|t| t.token == Token::LParen);
    let start = i + 1 + usize::from(parenthesis);
    is_window(tokens, start).then_some((start, parenthesis))
}

fn is_window(tokens: &[TokenWithSpan], i: usize) -> bool {
    let behind = at(tokens, i + 1);
    let length = behind.is_some_and(|t| matches!(t.token, Token::SingleQuotedString(_) | Token::Number(..))) || is_word(behind, "interval");
    (is_word(at(tokens, i), "last") && length) || is_word(at(tokens, i), "all")
}

/// `w AS (LAST '…'` behind WINDOW or a comma.
fn begins_named(tokens: &[TokenWithSpan], i: usize) -> bool {
    let before = i.checked_sub(1).and_then(|b| at(tokens, b));
    let listed = is_word(before, "window") || before.is_some_and(|t| t.token == Token::Comma);
    listed
        && matches!(at(tokens, i).map(|t| &t.token), Some(Token::Word(_)))
        && is_word(at(tokens, i + 1), "as")
        && at(tokens, i + 2).is_some_and(|t| t.token == Token::LParen)
        && is_window(tokens, i + 3)
}

/// Reads a query; `None` where it has no such window.
pub fn parse(text: &str) -> Result<Option<Windowed>> {
    let tokens = super::text::tokenize(text)?;
    if find(&tokens).is_none() {
        return Ok(None);
    }
    let mut c = Cursor::new(text)?;
    let (mut out, mut windows): (Vec<TokenWithSpan>, Vec<(String, WindowClause)>) = (vec![], vec![]);
    let mut i = 0;
    while let Some(token) = c.peek(0).cloned() {
        let rest = |c: &Cursor<'_>| tokens.len() - c.left();
        if let Some((start, parenthesis)) = begins(&tokens, i) {
            out.push(token.clone());
            (i..start).for_each(|_| c.skip());
            let clause = clause(&mut c)?;
            if parenthesis {
                c.want_token(&Token::RParen)?;
            }
            let name = format!("{INLINE}{}", windows.len());
            out.push(TokenWithSpan { token: Token::make_word(&name, Some('"')), span: token.span });
            windows.push((name, clause));
        } else if begins_named(&tokens, i) {
            let Token::Word(word) = &token.token else { return Err(Error::internal("a window has no name")) };
            let name = fold(word);
            if windows.iter().any(|(n, _)| *n == name) {
                return Err(Error::invalid(format!("window {name:?} is declared twice")).with_span(place(token.span)));
            }
            (0..3).for_each(|n| out.extend(c.peek(n).cloned()));
            (0..3).for_each(|_| c.skip());
            let clause = clause(&mut c)?;
            out.extend(c.peek(0).cloned());
            c.want_token(&Token::RParen)?;
            windows.push((name, clause));
        } else {
            out.push(token);
            c.skip();
        }
        i = rest(&c);
    }
    Ok(Some(Windowed { statement: super::parse::windowed(out)?, windows }))
}

/// LAST '…' or ALL, and what stands behind.
fn clause(c: &mut Cursor<'_>) -> Result<WindowClause> {
    let span = c.here();
    let length = match c.eat("ALL") {
        true => None,
        false => {
            c.want("LAST")?;
            Some(c.interval("LAST")?)
        }
    };
    let mut out = WindowClause { length, every: None, exact: false, delay: None, exclude_current: false, span };
    loop {
        let here = c.here();
        let once = |taken: bool, what: &str| match taken {
            true => Err(Error::syntax(format!("{what} is written twice")).with_span(here)),
            false => Ok(()),
        };
        if c.eat("EVERY") {
            once(out.every.is_some(), "EVERY")?;
            out.every = Some(c.interval("EVERY")?);
        } else if c.eat("EXACT") {
            once(out.exact, "EXACT")?;
            out.exact = true;
        } else if c.eat("DELAY") {
            once(out.delay.is_some(), "DELAY")?;
            out.delay = Some(c.interval("DELAY")?);
        } else if c.eat("EXCLUDE CURRENT TIME") || c.eat("EXCLUDE CURRENT_TIME") {
            once(out.exclude_current, "EXCLUDE CURRENT TIME")?;
            out.exclude_current = true;
        } else {
            let exclusive = |what: &str| Err(Error::syntax(format!("{what} exclude each other")).with_span(span));
            return match &out {
                WindowClause { exact: true, every: Some(_), .. } => exclusive("EVERY and EXACT"),
                WindowClause { exclude_current: true, delay: Some(_), .. } => exclusive("DELAY and EXCLUDE CURRENT TIME"),
                _ => Ok(out),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{DAY, HOUR};

    fn windows(list: &str) -> Result<Vec<(String, WindowClause)>> {
        Ok(parse(&format!("SELECT {list}"))?.map(|w| w.windows).unwrap_or_default())
    }

    #[test]
    fn forms() {
        let of = |sql: &str| windows(sql).unwrap_or_else(|e| panic!("{sql}: {e}")).remove(0).1;
        assert_eq!(of("count(*) OVER LAST '30 days' AS n FROM t").length, Some(30 * DAY));
        assert_eq!(of("count(*) OVER LAST INTERVAL '1 hour' n FROM t").length, Some(HOUR));
        assert_eq!(of("count(*) OVER LAST 2 HOURS n FROM t").length, Some(2 * HOUR));
        assert_eq!(of("count(*) OVER (LAST '1 day' EVERY '1 hour') AS n FROM t").every, Some(HOUR));
        assert!(of("avg(x) FILTER (WHERE y) OVER LAST '1 day' EXACT AS n FROM t").exact);
        assert_eq!(of("count(*) OVER LAST '1 day' DELAY '2 hours' AS n FROM t").delay, Some(2 * HOUR));
        assert!(of("count(*) OVER ALL EXCLUDE CURRENT TIME AS n FROM t").exclude_current);
        let named =
            windows("sum(a) OVER w / count(*) OVER w AS m FROM t WINDOW w AS (LAST '7 days' DELAY '7 days'), x AS (ORDER BY y)").unwrap();
        assert_eq!(named.len(), 1);
        assert_eq!((named[0].0.as_str(), named[0].1.delay), ("w", Some(7 * DAY)));
    }

    #[test]
    fn other_windows_stay() {
        for sql in
            ["count(*) OVER last AS n FROM t WINDOW last AS (ORDER BY y)", "count(*) OVER (PARTITION BY a) FROM t", "a AS last, 'x' FROM t"]
        {
            assert_eq!(windows(sql).unwrap(), [], "{sql}");
        }
    }

    #[test]
    fn what_excludes_each_other() {
        for sql in [
            "count(*) OVER LAST '1 day' EVERY '1 hour' EXACT n FROM t",
            "count(*) OVER LAST '1 day' DELAY '1 hour' EXCLUDE CURRENT TIME n FROM t",
            "count(*) OVER LAST '1 day' EXACT EXACT n FROM t",
            "count(*) OVER LAST '1 month' n FROM t",
            "count(*) OVER (LAST '1 day' n FROM t",
        ] {
            let e = windows(sql).unwrap_err();
            assert!(e.span().is_some(), "{sql}: {e}");
        }
    }
}
