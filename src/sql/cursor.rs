//! Reads our own statements from tokens: keywords, names, types, intervals, option lists; every
//! error points at the token it stumbled on and says what was expected.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::text::{slice, tokenize};
use super::tokens::place;
use super::tokens::{fold, is_distinct_from};
use crate::clock::{DAY, HOUR, MILLISECOND, MINUTE, Micros, SECOND};
use crate::error::{Error, Result, Span, nearest};
use crate::model::types::ColumnType;
use crate::model::{Column, Tags, VersionSpec};

/// A name as written: `[schema.]name[@vN | @latest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRef {
    pub schema: Option<String>,
    pub name: String,
    pub version: Option<VersionSpec>,
    pub span: Option<Span>,
}

impl NameRef {
    /// Splits the version off the last part of a dotted name.
    pub fn from_parts(mut parts: Vec<String>, span: Option<Span>) -> Result<Self> {
        let whole = parts.join(".");
        let last = parts.pop().unwrap_or_default();
        let schema = parts.pop();
        let catalog = matches!(&parts[..], [] | [_]) && parts.first().is_none_or(|p| p == CATALOG);
        if !catalog {
            return Err(Error::invalid(format!("{whole:?} has too many parts")).with_hint("write schema.name").or_span(span));
        }
        let (name, version) = match last.split_once('@') {
            None => (last, None),
            Some((n, "latest")) => (n.to_string(), Some(VersionSpec::Latest)),
            Some((n, v)) => match v.strip_prefix('v').and_then(|v| v.parse().ok()).filter(|v| *v > 0) {
                Some(number) => (n.to_string(), Some(VersionSpec::Version(number))),
                None => {
                    return Err(Error::syntax(format!("{v:?} is not a version"))
                        .with_hint(format!("write {n}@v1 or {n}@latest"))
                        .or_span(span));
                }
            },
        };
        Ok(NameRef { schema, name, version, span })
    }
}

/// The one catalog's name, as clients may write it: `remige.schema.name`.
pub const CATALOG: &str = "remige";

/// Position in the tokens of one statement.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    text: &'a str,
    tokens: Vec<TokenWithSpan>,
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Result<Self> {
        Ok(Cursor { text, tokens: tokenize(text)?, pos: 0 })
    }

    pub fn peek(&self, ahead: usize) -> Option<&TokenWithSpan> {
        self.tokens.get(self.pos + ahead)
    }

    /// How many tokens are left.
    pub fn left(&self) -> usize {
        self.tokens.len() - self.pos
    }

    pub fn skip(&mut self) {
        self.pos += 1;
    }

    pub fn is_end(&self) -> bool {
        self.pos >= self.tokens.len()
    }

    /// Place of the next token, or just behind the last one.
    pub fn here(&self) -> Span {
        match (self.peek(0), self.tokens.last()) {
            (Some(t), _) => place(t.span),
            (None, Some(t)) => {
                let s = place(t.span);
                Span::new(s.end_line, s.end_column, s.end_line, s.end_column + 1)
            }
            (None, None) => Span::new(1, 1, 1, 2),
        }
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        match &self.peek(ahead)?.token {
            Token::Word(w) if w.quote_style.is_none() => Some(&w.value),
            _ => None,
        }
    }

    /// True where the next tokens are these keywords (`"IF NOT EXISTS"`).
    pub fn is(&self, words: &str) -> bool {
        words.split(' ').enumerate().all(|(i, w)| self.word(i).is_some_and(|x| x.eq_ignore_ascii_case(w)))
    }

    pub fn eat(&mut self, words: &str) -> bool {
        let found = self.is(words);
        if found {
            self.pos += words.split(' ').count();
        }
        found
    }

    pub fn want(&mut self, words: &str) -> Result<()> {
        if self.eat(words) { Ok(()) } else { Err(self.expected(words)) }
    }

    pub fn is_token(&self, token: &Token) -> bool {
        self.peek(0).is_some_and(|t| t.token == *token)
    }

    pub fn eat_token(&mut self, token: &Token) -> bool {
        let found = self.is_token(token);
        if found {
            self.pos += 1;
        }
        found
    }

    pub fn want_token(&mut self, token: &Token) -> Result<()> {
        if self.eat_token(token) { Ok(()) } else { Err(self.expected(&token.to_string())) }
    }

    /// `expected …, found …`, with a suggestion where the word found looks like one of the words wanted.
    pub fn expected(&self, what: &str) -> Error {
        let found = self.peek(0).map_or("the end of the statement".to_string(), |t| format!("{:?}", t.token.to_string()));
        let e = Error::syntax(format!("expected {what}, found {found}")).with_span(self.here());
        match self.word(0) {
            // the very word, in the wrong place
            Some(w) if what.split([',', ' ']).any(|known| known.eq_ignore_ascii_case(w)) => e,
            Some(w) => {
                e.suggest(w, what.split([',', ' ']).map(|w| w.trim()).filter(|w| w.len() > 1 && w.chars().all(|c| c.is_ascii_uppercase())))
            }
            None => e,
        }
    }

    /// The statement must end here; `clauses` are the words that could have stood here.
    pub fn end(&self, clauses: &[&str]) -> Result<()> {
        if self.is_end() {
            return Ok(());
        }
        let found = self.peek(0).map(|t| t.token.to_string()).unwrap_or_default();
        let e = Error::syntax(format!("unexpected {found:?}")).with_span(self.here());
        let first: Vec<&str> = clauses.iter().map(|c| c.split(' ').next().unwrap_or(c)).collect();
        Err(match nearest(&found, first.iter().copied()) {
            Some(best) => e.with_hint(format!("did you mean {best:?}?")),
            None if clauses.is_empty() => e.with_hint("the statement should end here"),
            None => e.with_hint(format!("here can stand: {}", clauses.join(", "))),
        })
    }

    pub fn identifier(&mut self, what: &str) -> Result<(String, Span)> {
        match self.peek(0).map(|t| (t.token.clone(), place(t.span))) {
            Some((Token::Word(w), span)) => {
                self.pos += 1;
                Ok((fold(&w), span))
            }
            _ => Err(self.expected(what)),
        }
    }

    /// `[schema.]name[@vN]`
    pub fn name(&mut self, what: &str) -> Result<NameRef> {
        let (first, mut span) = self.identifier(what)?;
        let mut parts = vec![first];
        loop {
            if self.eat_token(&Token::Period) {
                let (part, s) = self.identifier(what)?;
                parts.push(part);
                (span.end_line, span.end_column) = (s.end_line, s.end_column);
            } else if let Some(version) = self.attached_version(span) {
                if let Some(last) = parts.last_mut() {
                    last.push_str(&version);
                }
            } else {
                break;
            }
        }
        NameRef::from_parts(parts, Some(span))
    }

    /// A name without a version.
    pub fn plain_name(&mut self, what: &str) -> Result<NameRef> {
        let n = self.name(what)?;
        if n.version.is_some() {
            return Err(Error::syntax(format!("a {what} has no version here")).or_span(n.span).with_hint(format!("write {:?}", n.name)));
        }
        if n.name.contains('@') {
            return Err(Error::syntax("a name cannot hold @").or_span(n.span));
        }
        Ok(n)
    }

    /// `@v1` right behind a quoted name.
    fn attached_version(&mut self, before: Span) -> Option<String> {
        let t = self.peek(0)?;
        if (t.span.start.line, t.span.start.column) != (before.end_line, before.end_column) {
            return None;
        }
        match &t.token {
            Token::Word(w) if w.quote_style.is_none() && w.value.starts_with('@') => {
                let v = w.value.to_lowercase();
                self.pos += 1;
                Some(v)
            }
            Token::AtSign => {
                let v = self.word(1)?.to_lowercase();
                self.pos += 2;
                Some(format!("@{v}"))
            }
            _ => None,
        }
    }

    pub fn string(&mut self, what: &str) -> Result<String> {
        match self.peek(0).map(|t| t.token.clone()) {
            Some(Token::SingleQuotedString(s)) => {
                self.pos += 1;
                Ok(s)
            }
            Some(Token::DollarQuotedString(s)) => {
                self.pos += 1;
                Ok(s.value)
            }
            _ => Err(self.expected(what)),
        }
    }

    pub fn number(&mut self, what: &str) -> Result<u64> {
        match self.peek(0).map(|t| t.token.clone()) {
            Some(Token::Number(n, _)) => {
                let value = n.parse().map_err(|_| self.expected(what))?;
                self.pos += 1;
                Ok(value)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// `(item, item, …)`, at least one.
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.want_token(&Token::LParen)?;
        let mut out = vec![item(self)?];
        while self.eat_token(&Token::Comma) {
            out.push(item(self)?);
        }
        if !self.eat_token(&Token::RParen) {
            return Err(self.expected("',' or ')'"));
        }
        Ok(out)
    }

    /// `(team = 'growth', …)`; a value may be a text, a number or a word.
    pub fn tags(&mut self) -> Result<Tags> {
        let list = self.list(|c| {
            let (key, span) = c.identifier("a tag's name")?;
            c.want_token(&Token::Eq)?;
            let value = match c.peek(0).map(|t| t.token.clone()) {
                Some(Token::SingleQuotedString(s)) => s,
                Some(Token::Number(n, _)) => n,
                Some(Token::Word(w)) => w.value,
                _ => return Err(c.expected("a tag's value, such as 'growth'")),
            };
            c.pos += 1;
            Ok((key, value, span))
        })?;
        let mut tags = Tags::new();
        for (key, value, span) in list {
            if tags.insert(key.clone(), value).is_some() {
                return Err(Error::syntax(format!("tag {key:?} is written twice")).with_span(span));
            }
        }
        Ok(tags)
    }

    /// `INTERVAL '30 days'` in microseconds; months and years are refused, because they have no fixed length.
    pub fn interval(&mut self, clause: &str) -> Result<Micros> {
        let start = self.here();
        self.eat("INTERVAL");
        let mut text = match self.peek(0).map(|t| t.token.clone()) {
            Some(Token::SingleQuotedString(s)) => s,
            Some(Token::Number(n, _)) => n,
            _ => return Err(self.expected(&format!("INTERVAL '…' after {clause}"))),
        };
        self.pos += 1;
        if text.trim().parse::<i64>().is_ok()
            && let Some(unit) = self.word(0)
            && unit_micros(unit).is_some()
        {
            text = format!("{text} {unit}");
            self.pos += 1;
        }
        parse_interval(&text).map_err(|e| e.context(clause).with_span(Span { end_line: start.line, end_column: start.end_column, ..start }))
    }

    /// A column's type.
    pub fn data_type(&mut self) -> Result<ColumnType> {
        let (word, span) = self.identifier("a type, such as BIGINT, VARCHAR, DOUBLE or TIMESTAMP")?;
        let upper = word.to_uppercase();
        let mut text = match upper.as_str() {
            "BOOLEAN" | "BOOL" => "BOOLEAN".to_string(),
            "TINYINT" => "TINYINT".to_string(),
            "SMALLINT" | "INT2" => "SMALLINT".to_string(),
            "INT" | "INTEGER" | "INT4" => "INT".to_string(),
            "BIGINT" | "INT8" | "LONG" => "BIGINT".to_string(),
            "FLOAT" | "REAL" | "FLOAT4" => "FLOAT".to_string(),
            "DOUBLE" | "FLOAT8" => {
                self.eat("PRECISION");
                "DOUBLE".to_string()
            }
            "DATE" => "DATE".to_string(),
            "VARCHAR" | "TEXT" | "STRING" | "CHAR" => {
                if self.is_token(&Token::LParen) {
                    self.list(|c| c.number("a length"))?;
                }
                "VARCHAR".to_string()
            }
            "BYTEA" | "BLOB" | "BINARY" | "VARBINARY" => "BYTEA".to_string(),
            "TIMESTAMP" | "TIMESTAMPTZ" | "DATETIME" => {
                if self.is_token(&Token::LParen) {
                    self.list(|c| c.number("a precision"))?;
                }
                let _ = self.eat("WITH TIME ZONE") || self.eat("WITHOUT TIME ZONE");
                "TIMESTAMP".to_string()
            }
            "DECIMAL" | "NUMERIC" => {
                let p = if self.is_token(&Token::LParen) { self.list(|c| c.number("a number of digits"))? } else { vec![38, 10] };
                let (digits, scale) = (p.first().copied().unwrap_or(38), p.get(1).copied().unwrap_or(0));
                if !(1..=38).contains(&digits) || scale > digits || p.len() > 2 {
                    let given = p.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    return Err(Error::invalid(format!("DECIMAL({given}) is no type"))
                        .with_span(span)
                        .with_hint("DECIMAL(p, s) has 1 to 38 digits, s of them behind the point, at most all"));
                }
                format!("DECIMAL({digits}, {scale})")
            }
            "STRUCT" => {
                self.want_token(&Token::Lt)?;
                let mut fields = vec![];
                loop {
                    let (name, _) = self.identifier("a field's name")?;
                    fields.push(format!("{} {}", crate::model::types::quote(&name), self.data_type()?));
                    if !self.eat_token(&Token::Comma) {
                        break;
                    }
                }
                self.want_close()?;
                format!("STRUCT<{}>", fields.join(", "))
            }
            _ => {
                return Err(Error::syntax(format!("unknown type {word:?}"))
                    .with_span(span)
                    .suggest(&upper, ["BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DATE", "TIMESTAMP", "VARCHAR", "BYTEA", "DECIMAL", "STRUCT"])
                    .or_hint("types are BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), VARCHAR, BYTEA, DATE, TIMESTAMP, and lists (T[]) and STRUCT<…> of these"));
            }
        };
        while self.is_token(&Token::LBracket) {
            self.pos += 1;
            self.want_token(&Token::RBracket)?;
            text.push_str("[]");
        }
        text.parse::<ColumnType>().map_err(|e| e.with_span(span))
    }

    /// The `>` of a type; the tokenizer takes those of nested types for one operator (`>>`).
    fn want_close(&mut self) -> Result<()> {
        if let Some(t) = self.tokens.get_mut(self.pos)
            && t.token == Token::ShiftRight
        {
            t.token = Token::Gt;
            t.span.start.column += 1;
            return Ok(());
        }
        self.want_token(&Token::Gt)
    }

    /// `name TYPE`
    pub fn column(&mut self) -> Result<Column> {
        let (name, _) = self.identifier("a column's name")?;
        Ok(Column { name, data_type: self.data_type()? })
    }

    /// The rest of the statement as the user wrote it.
    pub fn rest(&mut self) -> Result<&'a str> {
        let Some(first) = self.peek(0).map(|t| t.span.start) else {
            return Err(self.expected("a query (SELECT …)"));
        };
        let last = self.tokens[self.tokens.len() - 1].span.end;
        self.pos = self.tokens.len();
        Ok(slice(self.text, first, last))
    }

    /// The text up to one of the keywords (outside of parentheses) or the end, as the user wrote it.
    pub fn until(&mut self, words: &[&str], what: &str) -> Result<(String, Span)> {
        let (from, begin) = (self.pos, self.here());
        let mut depth = 0i32;
        while !self.is_end() {
            match self.tokens[self.pos].token {
                Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
                Token::RParen if depth == 0 => break,
                Token::RParen | Token::RBracket | Token::RBrace => depth -= 1,
                Token::Comma if depth == 0 && words.contains(&",") => break,
                _ if depth == 0 && !is_distinct_from(&self.tokens, self.pos) && words.iter().any(|w| self.is(w)) => break,
                _ => {}
            }
            self.pos += 1;
        }
        if self.pos == from {
            return Err(self.expected(what));
        }
        let last = place(self.tokens[self.pos - 1].span);
        let text = slice(self.text, self.tokens[from].span.start, self.tokens[self.pos - 1].span.end);
        Ok((text.to_string(), Span { end_line: last.end_line, end_column: last.end_column, ..begin }))
    }

    /// Where a piece of text that was taken by `rest` began, for errors inside of it.
    pub fn text(&self) -> &'a str {
        self.text
    }
}

impl Error {
    /// Adds a hint only where there is none yet.
    pub fn or_hint(self, hint: &str) -> Self {
        if self.hint().is_some() { self } else { self.with_hint(hint) }
    }
}

fn unit_micros(unit: &str) -> Option<Micros> {
    Some(match unit.to_lowercase().as_str() {
        "week" | "weeks" | "w" => 7 * DAY,
        "day" | "days" | "d" => DAY,
        "hour" | "hours" | "hr" | "hrs" | "h" => HOUR,
        "minute" | "minutes" | "min" | "mins" | "m" => MINUTE,
        "second" | "seconds" | "sec" | "secs" | "s" => SECOND,
        "millisecond" | "milliseconds" | "ms" => MILLISECOND,
        "microsecond" | "microseconds" | "us" => 1,
        _ => return None,
    })
}

/// `30 days`, `1 hour 30 minutes`, `1.5 hours`, `00:30:00`; microseconds.
pub fn parse_interval(text: &str) -> Result<Micros> {
    let bad = || {
        Error::syntax(format!("{text:?} is not an interval"))
            .with_hint("write for example INTERVAL '30 days', '1 hour 30 minutes' or '500 milliseconds'")
    };
    let mut total: i128 = 0;
    let mut words = text.split_whitespace().peekable();
    if words.peek().is_none() {
        return Err(bad());
    }
    while let Some(word) = words.next() {
        if word.contains(':') {
            let parts: Vec<i64> = word.split(':').map(|p| p.parse().map_err(|_| bad())).collect::<Result<_>>()?;
            let [h, m, s] = match parts[..] {
                [h, m] => [h, m, 0],
                [h, m, s] => [h, m, s],
                _ => return Err(bad()),
            };
            total += (h * HOUR + m * MINUTE + s * SECOND) as i128;
            continue;
        }
        let split = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (number, attached) = word.split_at(split);
        let unit = if attached.is_empty() { words.next().ok_or_else(bad)? } else { attached };
        if ["month", "months", "mon", "mons", "year", "years", "y"].contains(&unit.to_lowercase().as_str()) {
            return Err(Error::invalid(format!("{text:?}: months and years have no fixed length"))
                .with_hint("write days, for example INTERVAL '30 days'"));
        }
        let micros = unit_micros(unit).ok_or_else(bad)?;
        total += match number.parse::<i64>() {
            Ok(n) => n as i128 * micros as i128,
            Err(_) => (number.parse::<f64>().map_err(|_| bad())? * micros as f64).round() as i128,
        };
    }
    let total = Micros::try_from(total).map_err(|_| bad())?;
    if total < 0 {
        return Err(Error::invalid(format!("interval {text:?} is negative")));
    }
    Ok(total)
}

/// An interval as SQL text that `parse_interval` reads.
pub fn format_interval(micros: Micros) -> String {
    for (unit, name) in [(DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (SECOND, "second"), (MILLISECOND, "millisecond")] {
        if micros != 0 && micros % unit == 0 {
            let n = micros / unit;
            return format!("INTERVAL '{n} {name}{}'", if n == 1 { "" } else { "s" });
        }
    }
    format!("INTERVAL '{micros} microseconds'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        for (text, micros) in [
            ("30 days", 30 * DAY),
            ("1 hour 30 minutes", 90 * MINUTE),
            ("1.5 hours", 90 * MINUTE),
            ("00:30:00", 30 * MINUTE),
            ("250ms", 250 * MILLISECOND),
            ("0 days", 0),
        ] {
            assert_eq!(parse_interval(text).unwrap(), micros, "{text}");
            let shown = format_interval(micros);
            let inner = shown.trim_start_matches("INTERVAL '").trim_end_matches('\'').to_string();
            assert_eq!(parse_interval(&inner).unwrap(), micros);
        }
        for bad in ["", "days", "1 month", "-1 days", "1 fortnight"] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_versions() {
        let mut c = Cursor::new("a.\"B c\"@v3 x@latest y@w").unwrap();
        let n = c.name("name").unwrap();
        assert_eq!((n.schema.as_deref(), n.name.as_str(), n.version), (Some("a"), "B c", Some(VersionSpec::Version(3))));
        assert_eq!(c.name("name").unwrap().version, Some(VersionSpec::Latest));
        assert!(c.name("name").is_err());
    }

    #[test]
    fn misspelt_keywords_get_a_suggestion() {
        let mut c = Cursor::new("ENTTY user").unwrap();
        let e = c.want("ENTITY").unwrap_err();
        assert_eq!(e.hint(), Some("did you mean \"ENTITY\"?"));
        let c = Cursor::new("COMENT 'x'").unwrap();
        assert_eq!(c.end(&["COMMENT '…'", "OWNER '…'"]).unwrap_err().hint(), Some("did you mean \"COMMENT\"?"));
    }

    #[test]
    fn types() {
        let mut c = Cursor::new("DECIMAL(10,2), double precision, VARCHAR(20)[], STRUCT<a INT, b TEXT>, blobb").unwrap();
        let mut seen = vec![];
        loop {
            match c.data_type() {
                Ok(t) => seen.push(t.to_string()),
                Err(e) => {
                    assert!(e.message().contains("blobb"));
                    break;
                }
            }
            c.eat_token(&Token::Comma);
        }
        assert_eq!(seen, ["DECIMAL(10, 2)", "DOUBLE", "VARCHAR[]", "STRUCT<a INT, b VARCHAR>"]);
        let nested = "STRUCT<a STRUCT<b STRUCT<c BIGINT[]>[]>>[]";
        let read = Cursor::new(nested).unwrap().data_type().unwrap().to_string();
        assert_eq!(read, nested);
        assert_eq!(Cursor::new("STRUCT<a STRUCT<b BIGINT> >").unwrap().data_type().unwrap().to_string(), "STRUCT<a STRUCT<b BIGINT>>");
        assert!(Cursor::new("STRUCT<a BIGINT>>").unwrap().column().is_err());
    }
}
