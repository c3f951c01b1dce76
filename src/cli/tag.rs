//! What a statement that answers no rows did, in a few words: `CREATE FEATURE VIEW`, `INSERT 3`.

use remige::sql::text::first_token;

/// `rows`: how many it wrote.
pub fn tag(sql: &str, rows: u64) -> String {
    match remige::statement::words_of(sql) {
        Some(words @ ("INSERT" | "DELETE" | "UPDATE" | "COPY")) => format!("{words} {rows}"),
        Some(words) => words.to_string(),
        // a server that is newer than this shell
        None => first_token(sql).map_or("OK".to_string(), |(word, _)| word.to_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        for (sql, want) in [
            ("create or replace feature view v AS SELECT 1", "CREATE FEATURE VIEW"),
            ("-- why\n/* x */ CREATE ENTITY IF NOT EXISTS u KEY (a BIGINT)", "CREATE ENTITY"),
            ("insert into t values (1)", "INSERT 3"),
            ("DROP TABLE feature", "DROP TABLE"),
            ("USE s", "USE"),
            ("SET a = 1", "SET"),
            ("ALTER FEATURE VIEW s RESUME", "ALTER FEATURE VIEW"),
            ("NEWER x", "NEWER"),
            ("", "OK"),
        ] {
            assert_eq!(tag(sql, 3), want, "{sql}");
        }
    }
}
