//! `FROM view [[AS] alias] AT instant`: the live row of each key, or its windows, as of an instant. The view's name carries the
//! instant's expression, as it carries a version in time travel; every token keeps its place.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::asof;
use super::rewrite::TIME_TRAVEL;
use super::tokens::{at, fold, is_distinct_from, is_word, place};
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::windowed::EVENTS;

/// Begins the part of a name behind [`TIME_TRAVEL`] that is an instant's expression.
const AS_OF: &str = "a";

/// The view and the expression of a name that the pass has made.
pub fn split(table: &str) -> Option<(&str, &str)> {
    let (name, when) = table.split_once(TIME_TRAVEL)?;
    Some((name, when.strip_prefix(AS_OF)?))
}

/// The query that such a table stands for. Of a windowed view each key with an event by the instant; of a plain one each key
/// whose row is live then.
pub fn query(view: &FeatureView, instant: &str) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let of = |side: &str, name: &str| format!("{side}.{}", quoted(name));
    let version = format!("@v{}", view.version);
    let schema = quoted(&view.name.schema);
    let table = format!("{schema}.{}{version}", quoted(&view.name.name));
    let (rows, kind) = match view.windowed.is_some() {
        true => (format!("{schema}.{}{version}", quoted(&format!("{}{EVENTS}", view.name.name))), ""),
        false => (table.clone(), "INNER "),
    };
    let keys: Vec<&str> = view.keys.iter().map(|k| k.name.as_str()).collect();
    let named = |side: &str, names: &[&str]| names.iter().map(|n| of(side, n)).collect::<Vec<_>>().join(", ");
    let features: Vec<&str> = std::iter::once(view.event_timestamp.as_str()).chain(view.features.iter().map(|f| f.name.as_str())).collect();
    format!(
        "SELECT {}, {} FROM (SELECT DISTINCT {} FROM {rows} r WHERE {} <= ({instant})) l ASOF {kind}JOIN {table} f AT ({instant})",
        named("l", &keys),
        named("f", &features),
        named("r", &keys),
        of("r", &view.event_timestamp),
    )
}

/// The pass: behind FROM, JOIN and the commas between tables.
pub fn rewrite(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    // whether a table may stand here
    let mut table = false;
    // where the last table that was read AT an instant ended
    let mut ended = usize::MAX;
    while i < tokens.len() {
        if table
            && let Some(found) = Table::read(&tokens, i)
            && let Some(end) = found.as_of(&tokens)?
        {
            out.extend(found.renamed(&tokens, end)?);
            (i, table, ended) = (end, false, end);
            continue;
        }
        let t = &tokens[i];
        let begins = is_word(Some(t), "from") && !is_distinct_from(&tokens, i) || is_word(Some(t), "join") && !is_feature_join(&tokens, i);
        let goes_on = t.token == Token::Comma && (i == ended || is_behind_a_table(&tokens, i));
        table = begins || goes_on;
        out.push(t.clone());
        i += 1;
    }
    Ok(out)
}

/// `ASOF [LEFT | INNER …] JOIN` and `ONLINE … JOIN` have an AT of their own.
fn is_feature_join(tokens: &[TokenWithSpan], join: usize) -> bool {
    (1..=3).filter_map(|n| tokens.get(join.checked_sub(n)?)).any(|t| is_word(Some(t), "asof") || is_word(Some(t), "online"))
}

/// Whether the comma at `i` follows `FROM table [alias]`, and so stands between tables.
fn is_behind_a_table(tokens: &[TokenWithSpan], i: usize) -> bool {
    let from = (0..i).rev().take(8).find(|n| is_word(at(tokens, *n), "from"));
    from.and_then(|n| Table::read(tokens, n + 1)).is_some_and(|t| t.end == i)
}

/// A table's name with its alias: places of tokens.
struct Table {
    /// The last part of the name.
    name: usize,
    begin: usize,
    /// The alias, with AS where it is written.
    alias: Option<(usize, usize)>,
    end: usize,
}

impl Table {
    fn read(tokens: &[TokenWithSpan], begin: usize) -> Option<Table> {
        let word = |i: usize| matches!(at(tokens, i).map(|t| &t.token), Some(Token::Word(_)));
        if !word(begin) {
            return None;
        }
        let mut name = begin;
        while at(tokens, name + 1).is_some_and(|t| t.token == Token::Period) && word(name + 2) {
            name += 2;
        }
        let behind = name + 1;
        let alias = match is_word(at(tokens, behind), "as") {
            true => word(behind + 1).then_some((behind, behind + 2)),
            false => asof::has_alias(tokens, behind).then_some((behind, behind + 1)),
        };
        Some(Table { name, begin, alias, end: alias.map_or(behind, |(_, end)| end) })
    }

    /// Where the expression behind AT ends; `None`: there is none.
    fn as_of(&self, tokens: &[TokenWithSpan]) -> Result<Option<usize>> {
        let begins = is_word(at(tokens, self.end), "at") && asof::begins_instant(tokens, self.end);
        if !begins {
            return Ok(None);
        }
        let end = asof::expression_end(tokens, self.end + 1)?;
        let t = &tokens[self.end];
        if tokens[self.end + 1..end].iter().any(|t| matches!(t.token, Token::Placeholder(_))) {
            return Err(Error::invalid("the instant of AT behind a table takes no parameter")
                .with_span(place(t.span))
                .with_hint("write a constant, or join the keys: FROM (SELECT DISTINCT key FROM view) k ASOF JOIN view v AT $1"));
        }
        if let Some(word) = at(tokens, end).filter(|t| is_word(Some(t), "known")) {
            return Err(Error::invalid("KNOWN BY stands in an ASOF JOIN")
                .with_span(place(word.span))
                .with_hint("write: FROM (SELECT DISTINCT key FROM view) k ASOF JOIN view v AT instant KNOWN BY instant"));
        }
        Ok(Some(end))
    }

    fn renamed(&self, tokens: &[TokenWithSpan], end: usize) -> Result<Vec<TokenWithSpan>> {
        let last = &tokens[self.name];
        let Token::Word(word) = &last.token else { return Err(Error::internal("a table's name is no word")) };
        let bare = fold(word);
        if bare.contains(TIME_TRAVEL) {
            return Err(Error::invalid("a view is read AT an instant or as an older version, not both")
                .with_span(place(tokens[self.end].span))
                .with_hint("join the keys: FROM (SELECT DISTINCT key FROM view) k ASOF JOIN view VERSION AS OF 3 v AT instant"));
        }
        let expression: Vec<String> = tokens[self.end + 1..end].iter().map(|t| t.token.to_string()).collect();
        let name = format!("{bare}{TIME_TRAVEL}{AS_OF}{}", expression.join(" "));
        let quoted = |value: &str, t: &TokenWithSpan| TokenWithSpan { token: Token::make_word(value, Some('"')), span: t.span };
        let mut out = tokens[self.begin..self.name].to_vec();
        out.push(quoted(&name, last));
        match self.alias {
            Some((from, to)) => out.extend_from_slice(&tokens[from..to]),
            None => {
                let unversioned = bare.split('@').next().unwrap_or(&bare);
                out.push(TokenWithSpan { token: Token::make_keyword("AS"), span: last.span });
                out.push(quoted(unversioned, last));
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::tokenize;

    fn pass(sql: &str) -> String {
        rewrite(tokenize(sql).unwrap())
            .unwrap()
            .iter()
            .filter(|t| !matches!(t.token, Token::EOF))
            .map(|t| t.token.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_name_carries_the_instant() {
        assert_eq!(pass("FROM v AT now ( ) WHERE x"), "FROM \"v@@anow ( )\" AS \"v\" WHERE x");
        assert_eq!(pass("FROM s.v AS f AT '2026-01-01' JOIN w ON a"), "FROM s . \"v@@a'2026-01-01'\" AS f JOIN w ON a");
        assert_eq!(pass("FROM a x, v f AT now() - x"), "FROM a x , \"v@@anow ( ) - x\" f");
        assert_eq!(pass("FROM a JOIN v AT '1' ON b"), "FROM a JOIN \"v@@a'1'\" AS \"v\" ON b");
        assert_eq!(split("v@v2@@anow ( )"), Some(("v@v2", "now ( )")));
        assert_eq!(split("v@@v2"), None);
    }

    #[test]
    fn other_words_at_stay() {
        for sql in [
            "FROM labels at WHERE x",
            "FROM labels at",
            "FROM labels AS at JOIN x",
            "FROM a JOIN labels at ON at . id = a . id",
            "FROM a JOIN labels at USING ( id )",
            "FROM labels at PIVOT ( sum ( x ) FOR k IN ( 1 ) )",
            "FROM l ASOF JOIN v f AT l . at",
            "FROM l ASOF INNER JOIN v AT l . at",
            "FROM l ONLINE LEFT JOIN v f",
            "SELECT a AT TIME ZONE 'UTC' , b FROM t",
            "SELECT a , b at FROM t",
            "WHERE a IS DISTINCT FROM b AND c",
        ] {
            assert_eq!(pass(sql), sql);
        }
    }
}
