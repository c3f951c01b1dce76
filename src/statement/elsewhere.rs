//! Statements that other systems have and Remige has not: each with what to write instead. `{}` stands for the name
//! that follows the words. More words mean more, so the longest entry that fits is the one that speaks.

use crate::error::{Error, Kind, Result, Span};
use crate::model::VersionSpec;
use crate::sql::Cursor;
use crate::sql::text::tokenize;
use crate::sql::tokens::place;

struct Other {
    /// First words of the statement.
    words: &'static str,
    /// Words that stand somewhere behind them; "": any.
    with: &'static str,
    hint: &'static str,
}

const fn other(words: &'static str, hint: &'static str) -> Other {
    Other { words, with: "", hint }
}

const fn with(words: &'static str, with: &'static str, hint: &'static str) -> Other {
    Other { words, with, hint }
}

const ATOMIC: &str = "leave it out: each statement is atomic by itself, and reads one version of each table";
const RIGHTS: &str =
    "there are no users and rights in SQL: whoever reaches the port or the files may read and write; guard those (docs/clients.md)";
const CURSORS: &str = "run the SELECT: rows come in batches as the client asks for them";
const FILES: &str = "name the files in the query: SELECT * FROM read_parquet('…'), read_csv('…'), read_json('…') or read_delta('…')";
const KEPT: &str = "CREATE FEATURE VIEW keeps the rows of a query, and REFRESH brings them up to date; CREATE TABLE … AS SELECT keeps them as they are now";
const QUERY_NAMES: &str = "write the expression in the query, or in a view: CREATE VIEW … AS SELECT …";
const NO_INDEX: &str =
    "leave it out: there are no indexes; feature views are kept in the order of their keys, and ONLINE views have a store by key";
const STATISTICS: &str = "leave it out: statistics of files are kept as they are written";
const IN_MEMORY: &str = "leave it out: statements read the newest version, and what servers keep in memory follows it";
const SETTINGS: &str = "SHOW ALL lists the settings";

#[rustfmt::skip]
const OTHERS: &[Other] = &[
    // transactions
    other("BEGIN", ATOMIC),
    other("START TRANSACTION", ATOMIC),
    other("COMMIT", ATOMIC),
    other("END", ATOMIC),
    other("ROLLBACK", "each statement is atomic by itself, and is over when it answers; SELECT * FROM t VERSION AS OF n reads what a table was"),
    other("ABORT", ATOMIC),
    other("SAVEPOINT", ATOMIC),
    other("RELEASE", ATOMIC),
    other("SET TRANSACTION", ATOMIC),
    other("SET SESSION CHARACTERISTICS", ATOMIC),
    other("LOCK", ATOMIC),
    other("UNLOCK", ATOMIC),
    // rights
    other("GRANT", RIGHTS),
    other("REVOKE", RIGHTS),
    other("DENY", RIGHTS),
    other("SET ROLE", RIGHTS),
    other("CREATE USER", RIGHTS), other("CREATE ROLE", RIGHTS), other("CREATE GROUP", RIGHTS), other("CREATE POLICY", RIGHTS),
    other("ALTER USER", RIGHTS), other("ALTER ROLE", RIGHTS),
    other("DROP USER", RIGHTS), other("DROP ROLE", RIGHTS),
    other("SHOW GRANTS", RIGHTS), other("SHOW USERS", RIGHTS), other("SHOW ROLES", RIGHTS),
    other("CREATE SECRET", "credentials come from the environment (AWS_ACCESS_KEY_ID, …)"),
    // prepared statements and cursors
    other("DECLARE", CURSORS),
    other("OPEN", CURSORS),
    other("FETCH", CURSORS),
    other("CLOSE", CURSORS),
    // comments
    other("COMMENT", "comments are part of definitions: CREATE SCHEMA, ENTITY, VIEW, FEATURE VIEW and FEATURE SERVICE take COMMENT '…'"),
    other("COMMENT ON FEATURE VIEW", "write ALTER FEATURE VIEW {} SET COMMENT '…'"),
    other("COMMENT ON VIEW", "write the view anew: CREATE OR REPLACE VIEW {} COMMENT '…' AS SELECT …"),
    other("COMMENT ON TABLE", "tables have no comment; a view over one has: CREATE VIEW … COMMENT '…' AS SELECT * FROM {}"),
    other("COMMENT ON COLUMN", "columns of tables have no comment; features have, in CREATE FEATURE VIEW … (x BIGINT COMMENT '…')"),
    // looking at things
    other("SUMMARIZE", "write SELECT count(*), count(DISTINCT column), min(column), max(column), avg(column) FROM {}; DESCRIBE {} lists its columns"),
    other("TABLE", "write SELECT * FROM {}, or FROM {}"),
    other("SHOW FIELDS", "write DESCRIBE name"),
    other("SHOW MATERIALIZED VIEWS", "write SHOW FEATURE VIEWS"),
    other("SHOW FEATURES OF", "write SELECT name, data_type, comment FROM system.features WHERE feature_view = '{}'"),
    other("SHOW FEATURES FROM", "write SELECT name, data_type, comment FROM system.features WHERE feature_view = '{}'"),
    other("SHOW FEATURES IN", "write SELECT name, data_type, comment FROM system.features WHERE feature_view = '{}'"),
    other("SHOW DATABASES", "write SHOW SCHEMAS"),
    other("SHOW CATALOGS", "a warehouse is one catalog; SHOW SCHEMAS lists what is in it"),
    other("SHOW INDEXES", NO_INDEX),
    other("SHOW INDEX", NO_INDEX),
    other("SHOW KEYS", "SHOW ENTITIES lists the keys of feature views"),
    other("SHOW VARIABLES", SETTINGS),
    other("SHOW SETTINGS", SETTINGS),
    other("SHOW PARAMETERS", SETTINGS),
    other("SHOW PARTITIONS", "write SELECT DISTINCT partition_column FROM {}"),
    other("SHOW PROCESSLIST", "write SHOW RUNS, which lists what REFRESH, MATERIALIZE and their like did"),
    other("SHOW JOBS", "write SHOW RUNS"),
    other("SHOW TASKS", "write SHOW RUNS"),
    other("SHOW STATUS", "write SELECT * FROM system.freshness, or SHOW RUNS"),
    other("DESCRIBE HISTORY", "write SELECT * FROM system.runs WHERE object LIKE '%{}%' ORDER BY started_at"),
    other("PRAGMA", "write DESCRIBE name for the columns of a table, SHOW ALL for the settings, SET name = value for one"),
    // what CREATE does not make
    other("CREATE TEMP", "make a table or a view with a name of its own, and DROP it when done; a WITH query lasts for one statement"),
    other("CREATE TEMPORARY", "make a table or a view with a name of its own, and DROP it when done; a WITH query lasts for one statement"),
    other("CREATE GLOBAL", "make a table or a view with a name of its own, and DROP it when done; a WITH query lasts for one statement"),
    other("CREATE UNLOGGED", "write CREATE TABLE"),
    other("CREATE RECURSIVE", "write CREATE VIEW name AS WITH RECURSIVE … SELECT …"),
    other("CREATE MATERIALIZED", KEPT),
    other("CREATE DYNAMIC", KEPT),
    other("CREATE LIVE", KEPT),
    other("CREATE STREAMING", KEPT),
    other("CREATE FEATURE TABLE", "write CREATE FEATURE VIEW name (feature TYPE, …) ENTITY entity EVENT TIMESTAMP ts, or … AS SELECT …"),
    other("CREATE FEATURE GROUP", "write CREATE FEATURE SERVICE name AS SELECT view.feature, … FROM view, …"),
    other("CREATE FUNCTION", QUERY_NAMES),
    other("CREATE AGGREGATE", QUERY_NAMES),
    other("CREATE MACRO", QUERY_NAMES),
    other("CREATE PROCEDURE", "run the statements one by one: remige sql -f file.sql"),
    other("CREATE TRIGGER", "REFRESH EVERY of a feature view runs its query by itself: CREATE FEATURE VIEW … REFRESH EVERY INTERVAL '1 hour' AS SELECT …"),
    other("CREATE TASK", "REFRESH EVERY of a feature view runs its query by itself: CREATE FEATURE VIEW … REFRESH EVERY INTERVAL '1 hour' AS SELECT …"),
    other("CREATE STREAM", "a push view takes rows as they come: CREATE FEATURE VIEW name (feature TYPE, …) ENTITY entity EVENT TIMESTAMP ts, then INSERT INTO name"),
    other("CREATE SOURCE", "write CREATE EXTERNAL TABLE name STORED AS PARQUET LOCATION '…', or a push view, into which rows are INSERTed"),
    other("CREATE INDEX", NO_INDEX),
    other("CREATE UNIQUE INDEX", NO_INDEX),
    other("DROP INDEX", NO_INDEX),
    other("ALTER INDEX", NO_INDEX),
    other("REINDEX", NO_INDEX),
    other("CLUSTER", NO_INDEX),
    other("CREATE SEQUENCE", "number rows in the query: row_number() OVER (ORDER BY …); uuid() makes keys"),
    other("CREATE TYPE", "columns are VARCHAR, STRUCT<…> and the other types by themselves; look for wrong values with WHERE column NOT IN (…)"),
    other("CREATE DOMAIN", "columns have one of the types by itself; look for wrong values with WHERE NOT (…)"),
    other("CREATE EXTENSION", "all that there is, is built in"),
    other("CREATE SERVER", FILES),
    other("CREATE FOREIGN TABLE", "write CREATE EXTERNAL TABLE name STORED AS PARQUET LOCATION '…'"),
    other("CREATE STAGE", FILES),
    other("CREATE CATALOG", "a warehouse is one catalog: CREATE SCHEMA name keeps objects apart, remige sql -w folder opens another warehouse"),
    other("CREATE STATISTICS", STATISTICS),
    other("CREATE MODEL", "train where your tools are, on CREATE TRAINING SET … AS SELECT …"),
    other("DROP MATERIALIZED", "write DROP FEATURE VIEW name"),
    other("DROP FUNCTION", "there are no functions of users to drop"),
    other("DROP MACRO", "there are no functions of users to drop"),
    other("DROP SEQUENCE", "there are no sequences to drop"),
    other("DROP TYPE", "there are no types of users to drop"),
    // changes of tables
    other("RENAME", "write CREATE TABLE new_name AS SELECT * FROM name, then DROP TABLE name"),
    other("RENAME TABLE", "write CREATE TABLE new_name AS SELECT * FROM {}, then DROP TABLE {}"),
    other("ALTER VIEW", "write CREATE OR REPLACE VIEW {} AS SELECT …; SHOW CREATE VIEW {} shows its query"),
    with("ALTER VIEW", "RENAME", "SHOW CREATE VIEW {} shows its query: write CREATE VIEW new_name AS that query, then DROP VIEW {}"),
    other("ALTER ENTITY", "write CREATE OR REPLACE ENTITY {} KEY (…); keys stay as they are while feature views use it"),
    other("ALTER SCHEMA", "make objects in another schema: CREATE SCHEMA new_name, then CREATE TABLE new_name.t AS SELECT * FROM {}.t"),
    other("ALTER DATABASE", "make objects in another schema: CREATE SCHEMA new_name, then CREATE TABLE new_name.t AS SELECT * FROM {}.t"),
    other("ALTER TRAINING SET", "write CREATE OR REPLACE TRAINING SET {} AS SELECT …; REBUILD TRAINING SET {} runs its query again"),
    with("ALTER FEATURE VIEW", "RENAME TO", "SHOW CREATE FEATURE VIEW {} shows its definition: create it under the new name, then DROP FEATURE VIEW {}"),
    with("ALTER FEATURE VIEW", "RENAME COLUMN", "write CREATE OR REPLACE FEATURE VIEW {} …, which makes a new version; SHOW CREATE FEATURE VIEW {} shows what it is now"),
    with("ALTER FEATURE SERVICE", "RENAME", "SHOW CREATE FEATURE SERVICE {} shows its definition: create it under the new name, then DROP FEATURE SERVICE {}"),
    with("ALTER FEATURE VIEW", "ADD", "write CREATE OR REPLACE FEATURE VIEW {} …, which makes a new version; SHOW CREATE FEATURE VIEW {} shows what it is now"),
    with("ALTER FEATURE VIEW", "DROP", "write CREATE OR REPLACE FEATURE VIEW {} …, which makes a new version; SHOW CREATE FEATURE VIEW {} shows what it is now"),
    other("ALTER SYSTEM", "write SET name = value for a session; remige serve takes the settings of a server"),
    other("ALTER SESSION", "write SET name = value"),
    other("UNDROP", "what is dropped is gone"),
    // changes of rows
    other("UPSERT", "INSERT: feature views keep the newest row of each key by themselves; for a table, CREATE OR REPLACE TABLE … AS the rows that it should have"),
    other("REPLACE", "INSERT: feature views keep the newest row of each key by themselves; for a table, CREATE OR REPLACE TABLE … AS the rows that it should have"),
    // statements around the data
    other("PIVOT", "write SELECT * FROM {} PIVOT (sum(x) FOR kind IN ('a', 'b')): the values that become columns are named"),
    other("UNPIVOT", "write SELECT * FROM {} UNPIVOT (value FOR name IN (a, b))"),
    other("VACUUM", "leave it out for tables; VACUUM FEATURE VIEW name removes files of a feature view that nothing reads any more"),
    other("OPTIMIZE", "leave it out for tables; OPTIMIZE FEATURE VIEW name puts the files of a feature view together"),
    other("ANALYZE", STATISTICS),
    other("REFRESH TABLE", IN_MEMORY),
    other("REFRESH MATERIALIZED VIEW", "write REFRESH FEATURE VIEW {}"),
    other("REFRESH VIEW", "a view is computed where it is read; REFRESH FEATURE VIEW name brings a feature view up to date"),
    other("MSCK", "leave it out: an external table is its files as they are when a statement reads them"),
    other("CACHE", IN_MEMORY),
    other("UNCACHE", IN_MEMORY),
    other("CALL", "run the statements one by one: remige sql -f file.sql"),
    other("DO", "run the statements one by one: remige sql -f file.sql"),
    other("ATTACH", "one process has one warehouse, remige sql -w folder; to read files, SELECT * FROM read_parquet('…'), read_csv('…') or read_delta('…')"),
    other("DETACH", "one process has one warehouse: remige sql -w folder opens another one"),
    other("INSTALL", FILES),
    other("LOAD", FILES),
    other("UNLOAD", "write COPY (SELECT …) TO 'file.parquet'"),
    other("EXPORT", "write COPY name TO 'file.parquet' for each table"),
    other("IMPORT", "write CREATE TABLE name AS SELECT * FROM read_parquet('…') for each table"),
    other("GET", "write COPY name TO 'file.parquet'"),
    other("PUT", FILES),
    other("CHECKPOINT", "leave it out: a statement that has answered is stored"),
    other("FLUSH", "leave it out: a statement that has answered is stored"),
    other("KILL", "end the statement where it runs (Ctrl-C, or cancel of the driver); SET statement_timeout = '30s' ends those that take longer"),
    other("LISTEN", "ask for what is new: SELECT … WHERE ts > $1"),
    other("NOTIFY", "ask for what is new: SELECT … WHERE ts > $1"),
    other("DISCARD", "a new connection begins a new session; RESET name puts a setting back"),
    other("RESET ALL", "put the settings back one by one: RESET name; SHOW ALL lists them"),
    other("SET NAMES", "leave it out: texts are UTF-8"),
    other("SET SEARCH_PATH", "write SET schema = name, or USE name"),
];

/// Clauses at which the stock parser stops.
#[rustfmt::skip]
const CLAUSES: &[(&str, &str)] = &[
    ("USING SAMPLE", "about a tenth of the rows: WHERE random() < 0.1; a number of rows: ORDER BY random() LIMIT n"),
    ("BY NAME", "name the columns behind the table: INSERT INTO t (b, a) SELECT b, a FROM …"),
    ("BY POSITION", "leave it out: columns are filled in the order in which they are given"),
    ("STDOUT", "run the SELECT: the client gets its rows; remige sql --format csv prints them as CSV"),
    ("STDIN", "write COPY t FROM 'file.csv'; drivers send rows of their own by ingest, with ADBC cursor.adbc_ingest(\"t\", rows, mode=\"append\")"),
];

/// Refuses a statement that others have. The cursor stands behind `before`: "", "CREATE", "SHOW", ….
pub fn refuse(c: &Cursor<'_>, before: &str) -> Result<()> {
    let fits = |o: &&Other| {
        let words = o.words.strip_prefix(before).map(str::trim_start).filter(|w| before.is_empty() || !w.is_empty());
        words.is_some_and(|w| c.is(w)) && (o.with.is_empty() || behind(c, o.with))
    };
    let best = OTHERS.iter().filter(fits).max_by_key(|o| (o.words.len(), !o.with.is_empty()));
    let Some(best) = best else { return Ok(()) };
    let ours = ["VACUUM FEATURE VIEW", "OPTIMIZE FEATURE VIEW"];
    if ours.iter().any(|w| c.is(w)) {
        return Ok(());
    }
    let read = best.words.split(' ').count() - before.split_whitespace().count();
    let name = name(c, read);
    let quoted = best.hint.contains("'{}'") || best.hint.contains("%{}%");
    let shown = match (&name, quoted) {
        (Some(n), true) => n.rsplit('.').next().unwrap_or(n).trim_matches('"').to_string(),
        (Some(n), false) => n.clone(),
        (None, _) => "name".to_string(),
    };
    let what = if best.with.is_empty() { best.words.to_string() } else { format!("{} … {}", best.words, best.with) };
    Err(Error::new(Kind::NotBuilt, format!("{what} is not supported")).with_span(c.here()).with_hint(best.hint.replace("{}", &shown)))
}

fn behind(c: &Cursor<'_>, words: &str) -> bool {
    let mut c = c.clone();
    while !c.is_end() {
        c.skip();
        if c.is(words) {
            return true;
        }
    }
    false
}

/// The name that follows a number of words.
fn name(c: &Cursor<'_>, words: usize) -> Option<String> {
    let mut c = c.clone();
    (0..words).for_each(|_| c.skip());
    for filler in ["TABLE", "IF EXISTS", "IF NOT EXISTS", "FEATURE VIEW", "FEATURE SERVICE", "VIEW", "FROM", "ONLY"] {
        c.eat(filler);
    }
    let n = c.name("a name").ok()?;
    let quote = crate::model::types::quote;
    let schema = n.schema.as_deref().map(|s| format!("{}.", quote(s))).unwrap_or_default();
    let version = match n.version {
        Some(VersionSpec::Version(v)) => format!("@v{v}"),
        _ => String::new(),
    };
    Some(format!("{schema}{}{version}", quote(&n.name)))
}

/// An error of the stock parser, which stopped at a clause that others have.
pub fn inside(e: Error, text: &str) -> Error {
    if e.kind() != Kind::Syntax {
        return e;
    }
    let (Some(at), Ok(tokens)) = (e.span(), tokenize(text)) else { return e };
    let is = |i: usize, words: &str| words.split(' ').enumerate().all(|(n, w)| crate::sql::tokens::is_word(tokens.get(i + n), w));
    let here = (0..tokens.len()).find(|i| {
        let p: Span = place(tokens[*i].span);
        (p.line, p.column) == (at.line, at.column)
    });
    let Some(here) = here else { return e };
    match CLAUSES.iter().find(|(words, _)| is(here, words) || here.checked_sub(1).is_some_and(|i| is(i, words))) {
        Some((words, hint)) => Error::new(Kind::NotBuilt, format!("{words} is not supported")).with_span(at).with_hint(*hint),
        None => e,
    }
}
