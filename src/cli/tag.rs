//! What a statement that answers no rows did, in a few words: `CREATE FEATURE VIEW`, `INSERT 3`.

pub fn tag(sql: &str, rows: u64) -> String {
    match remige::statement::words_of(sql) {
        Some(words @ ("INSERT" | "DELETE" | "UPDATE" | "COPY")) => format!("{words} {rows}"),
        Some(words) => words.to_string(),
        // a server that is newer than this shell
        None => after_comments(sql).split_whitespace().next().unwrap_or("OK").to_uppercase(),
    }
}

/// `sql` from its first word on: white space and comments left out.
pub fn after_comments(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    loop {
        let after = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else {
            return rest;
        };
        rest = after.trim_start();
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
