//! What the shell knows about text being typed: how a word may go on.

use std::cell::RefCell;

use rustyline::completion::{Completer, Pair};
use rustyline::{Context, Helper, Highlighter, Hinter, Validator};

/// Keywords behind the first words of statements, which come from the list of statements.
const KEYWORDS: &str = "ALL AND AS ASC ASOF AT AVG BETWEEN BIGINT BOOLEAN BY CASCADE CASE CAST COMMENT COUNT CREATED CSV DATE DELTA \
    DESC DISTINCT DOUBLE DRY ELSE END ENTITIES EVENT EVERY EXCEPT EXISTS FEATURES FOR FROM FULL GROUP HAVING IF \
    IN INNER INTERVAL INTO IS JOIN JSON KEY KNOWN LEFT LIKE LIMIT LOCATION LOOKBACK MATCH_CONDITION NOT NULL \
    OFFLINE ON ONLINE ONLINE_LOOKUP OPTIONS OR ORDER OVER OWNER PARQUET PARTITION PLACE REPLACE REQUEST RESUME \
    RETAIN RUNS SERVICES SETS STORED SUM SUSPEND TABLES TAGS THEN TIME TIMESTAMP TO TTL UNION UNSET USING \
    VARCHAR VERSION VERSIONS VIEWS WARNINGS WHEN WHERE WITHIN ZONE";

pub const META: [&str; 17] =
    ["\\d", "\\dt", "\\dv", "\\de", "\\ds", "\\dn", "\\df", "\\x", "\\i", "\\e", "\\o", "\\p", "\\r", "\\format", "\\timing", "\\q", "\\?"];

/// Asks for the names of tables and columns when the user wants them.
pub type NameSource<'a> = Box<dyn Fn() -> Vec<String> + 'a>;

#[derive(Helper, Highlighter, Hinter, Validator)]
pub struct ShellHelper<'a> {
    source: NameSource<'a>,
    names: RefCell<Option<Vec<String>>>,
}

impl<'a> ShellHelper<'a> {
    pub fn new(source: NameSource<'a>) -> Self {
        ShellHelper { source, names: RefCell::new(None) }
    }

    /// A statement may have changed them.
    pub fn forget_names(&self) {
        self.names.replace(None);
    }
}

impl Completer for ShellHelper<'_> {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let start = word_start(&line[..pos]);
        let word = &line[start..pos];
        let words = if word.starts_with('\\') {
            META.iter().filter(|m| m.starts_with(word)).map(|m| m.to_string()).collect()
        } else {
            let mut names = self.names.borrow_mut();
            candidates(word, names.get_or_insert_with(&self.source))
        };
        Ok((start, words.into_iter().map(|w| Pair { display: w.clone(), replacement: w }).collect()))
    }
}

fn word_start(before: &str) -> usize {
    let part_of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '@' | '"' | '\\');
    before.char_indices().rev().take_while(|(_, c)| part_of_word(*c)).last().map_or(before.len(), |(at, _)| at)
}

/// Names and keywords that begin with `word`; keywords in the case that was begun.
fn candidates(word: &str, names: &[String]) -> Vec<String> {
    if word.is_empty() {
        return Vec::new();
    }
    let lower = word.to_lowercase();
    let mut found: Vec<String> = names.iter().filter(|n| n.to_lowercase().starts_with(&lower)).cloned().collect();
    let small = word.chars().all(|c| !c.is_uppercase());
    let keywords = KEYWORDS.split_whitespace().chain(remige::statement::keywords()).filter(|k| k.to_lowercase().starts_with(&lower));
    found.extend(keywords.map(|k| if small { k.to_lowercase() } else { k.to_string() }));
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_on_as_names_and_keywords() {
        let names = ["user_features".to_string(), "public.user_features".to_string(), "Using".to_string()];
        assert_eq!(candidates("us", &names), ["Using", "use", "user_features", "using"]);
        assert_eq!(candidates("MATER", &names), ["MATERIALIZE"]);
        assert_eq!(candidates("public.u", &names), ["public.user_features"]);
        assert!(candidates("", &names).is_empty());
        let line = "SELECT * FROM public.us";
        assert_eq!(&line[word_start(line)..], "public.us");
        assert_eq!(word_start("é "), 3);
    }
}
