//! What a statement that answers no rows did, in a few words: `CREATE FEATURE VIEW`, `INSERT 3`.

/// Objects of two words.
const OBJECTS: [[&str; 2]; 6] = [
    ["FEATURE", "VIEW"],
    ["FEATURE", "SERVICE"],
    ["TRAINING", "SET"],
    ["EXTERNAL", "TABLE"],
    ["MATERIALIZED", "VIEW"],
    ["UNBOUNDED", "EXTERNAL"],
];

pub fn tag(sql: &str, rows: u64) -> String {
    let words = leading_words(sql);
    let mut words = words.iter().map(String::as_str);
    let verb = words.next().unwrap_or("OK");
    match verb {
        "CREATE" | "DROP" | "ALTER" => {
            let mut rest = words.filter(|w| !matches!(*w, "OR" | "REPLACE" | "TEMP" | "TEMPORARY"));
            let first = rest.next().unwrap_or_default();
            let second = rest.next().unwrap_or_default();
            if OBJECTS.contains(&[first, second]) {
                format!("{verb} {first} {second}")
            } else {
                format!("{verb} {first}").trim_end().to_string()
            }
        }
        "INSERT" | "DELETE" | "UPDATE" | "COPY" => format!("{verb} {rows}"),
        _ => verb.to_string(),
    }
}

/// The first words in upper case, comments left out.
fn leading_words(sql: &str) -> Vec<String> {
    let mut rest = sql;
    let mut words = Vec::new();
    while words.len() < 6 {
        rest = after_comments(rest);
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        words.push(rest[..end].to_uppercase());
        rest = &rest[end..];
    }
    words
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
            ("ALTER FEATURE SERVICE s UPGRADE", "ALTER FEATURE SERVICE"),
            ("", "OK"),
        ] {
            assert_eq!(tag(sql, 3), want, "{sql}");
        }
    }
}
