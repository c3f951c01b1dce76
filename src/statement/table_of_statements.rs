//! Every statement of the dialect, by its first words: a new one is a file and a line here. What suggests, completes or
//! explains statements reads this list.

use super::{
    Head, Parsed, alter, alter_table, create_entity, create_feature_view, create_service, describe, drop, explain, maintain, prepare,
    refresh, schema, settings, show, show_create, sql, table, training_set, truncate, verify,
};
use crate::error::{Error, Result};
use crate::sql::Cursor;

/// A kind of statement.
pub struct Entry {
    /// The words that it begins with. OR REPLACE may stand behind CREATE.
    pub words: &'static str,
    pub parse: fn(Head<'_>) -> Result<Parsed>,
    /// The stock parser knows it, and EXPLAIN of it with all options.
    pub stock: bool,
    /// Suggested and completed; others are another spelling, or refused with what to write.
    pub shown: bool,
}

impl Entry {
    fn first_word(&self) -> &'static str {
        self.words.split(' ').next().unwrap_or(self.words)
    }
}

const fn ours(words: &'static str, parse: fn(Head<'_>) -> Result<Parsed>) -> Entry {
    Entry { words, parse, stock: false, shown: true }
}

const fn stock(words: &'static str, parse: fn(Head<'_>) -> Result<Parsed>) -> Entry {
    Entry { words, parse, stock: true, shown: true }
}

const fn hidden(entry: Entry) -> Entry {
    Entry { shown: false, ..entry }
}

/// Where one entry begins with the words of another, the longer one stands first.
#[rustfmt::skip]
pub const STATEMENTS: &[Entry] = &[
    stock("SELECT", sql::parse),
    stock("WITH", sql::parse),
    stock("VALUES", sql::parse),
    hidden(stock("FROM", sql::parse)),
    hidden(stock("TABLE", sql::parse)),
    ours("CREATE ENTITY", create_entity::parse),
    ours("CREATE FEATURE VIEW", create_feature_view::parse),
    ours("CREATE FEATURE SERVICE", create_service::parse),
    ours("CREATE TRAINING SET", training_set::parse),
    ours("CREATE SCHEMA", schema::parse),
    hidden(ours("CREATE DATABASE", schema::parse_database)),
    ours("CREATE EXTERNAL TABLE", table::parse_create),
    hidden(ours("CREATE UNBOUNDED EXTERNAL TABLE", table::parse_create)),
    ours("CREATE TABLE", table::parse_create),
    ours("CREATE VIEW", table::parse_view),
    ours("DROP SCHEMA", drop::parse),
    hidden(ours("DROP DATABASE", drop::parse)),
    ours("DROP ENTITY", drop::parse),
    hidden(ours("DROP EXTERNAL TABLE", drop::parse)),
    ours("DROP TABLE", drop::parse),
    ours("DROP VIEW", drop::parse),
    ours("DROP FEATURE VIEW", drop::parse),
    ours("DROP FEATURE SERVICE", drop::parse),
    ours("DROP TRAINING SET", drop::parse),
    hidden(ours("DROP", drop::parse)),
    ours("ALTER FEATURE VIEW", alter::parse),
    ours("ALTER TABLE", alter_table::parse),
    hidden(ours("ALTER", alter::parse)),
    ours("REFRESH", refresh::parse),
    ours("MATERIALIZE", refresh::parse_materialize),
    ours("OPTIMIZE", maintain::parse_optimize),
    ours("VACUUM", maintain::parse_vacuum),
    ours("REBUILD TRAINING SET", training_set::parse_rebuild),
    ours("VERIFY", verify::parse),
    ours("VALIDATE", |head| Err(Error::not_built("VALIDATE").with_span(head.start.here()))),
    ours("SHOW CREATE", show_create::parse),
    hidden(ours("SHOW LINEAGE", |head| Err(Error::not_built("SHOW LINEAGE").with_span(head.start.here())))),
    ours("SHOW COLUMNS", describe::parse_columns),
    ours("SHOW", show::parse),
    ours("DESCRIBE", describe::parse),
    hidden(ours("DESC", describe::parse)),
    ours("USE", settings::parse_use),
    ours("PREPARE", prepare::parse),
    ours("EXECUTE", prepare::parse_execute),
    ours("DEALLOCATE", prepare::parse_deallocate),
    ours("SET", settings::parse_set),
    ours("RESET", settings::parse_reset),
    stock("COPY", sql::parse_copy),
    stock("EXPLAIN", explain::parse),
    stock("INSERT", sql::parse),
    stock("DELETE", sql::parse),
    stock("UPDATE", sql::parse),
    hidden(stock("MERGE", sql::parse)),
    ours("TRUNCATE", truncate::parse),
];

/// The entry whose words, without `prefix`, come next, and the cursor behind them.
pub fn find<'a>(c: &Cursor<'a>, prefix: &str) -> Option<(&'static Entry, Cursor<'a>)> {
    STATEMENTS.iter().find_map(|entry| {
        let mut ahead = c.clone();
        let words = entry.words.strip_prefix(prefix)?;
        ahead.eat(words).then_some((entry, ahead))
    })
}

/// The words that a statement begins with, as far as they tell its kind: `CREATE FEATURE VIEW`, `INSERT`; `None`: no
/// statement begins so.
pub fn words_of(sql: &str) -> Option<&'static str> {
    let mut c = Cursor::new(sql).ok()?;
    let created = c.eat("CREATE");
    let _ = created && c.eat("OR REPLACE");
    find(&c, if created { "CREATE " } else { "" }).map(|(entry, _)| entry.words)
}

/// Keywords of all statements, for completion.
pub fn keywords() -> impl Iterator<Item = &'static str> {
    STATEMENTS.iter().filter(|s| s.shown).flat_map(|s| s.words.split(' '))
}

/// The first words of all statements, each once.
pub fn first_words() -> Vec<&'static str> {
    let mut out = vec![];
    for entry in STATEMENTS.iter().filter(|s| s.shown) {
        let first = entry.first_word();
        if !out.contains(&first) {
            out.push(first);
        }
    }
    out
}

/// The first words of an entry of ours that comes next.
pub fn ours_at(c: &Cursor<'_>) -> Option<&'static str> {
    STATEMENTS.iter().filter(|e| !e.stock).map(Entry::first_word).find(|w| c.is(w))
}

/// Whether statements of ours begin with a word.
pub fn is_ours(word: &str) -> bool {
    STATEMENTS.iter().any(|e| !e.stock && e.first_word() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_entry_hides_a_later_one() {
        for (i, later) in STATEMENTS.iter().enumerate() {
            let hides = |e: &Entry| later.words.starts_with(&format!("{} ", e.words)) || later.words == e.words;
            assert!(!STATEMENTS[..i].iter().any(hides), "{}", later.words);
        }
    }
}
