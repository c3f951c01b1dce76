//! Clauses of INSERT.

use sqlparser::ast::{Insert, TableObject};

use super::{Verdict, refuse};

pub(super) fn insert(i: &Insert) -> Verdict {
    let Insert {
        insert_token: _,
        optimizer_hints,
        or,
        ignore,
        into: _,
        table,
        table_alias,
        columns: _,
        overwrite: _,
        source,
        assignments,
        partitioned,
        after_columns,
        has_table_keyword: _,
        on,
        returning,
        output,
        replace_into,
        priority,
        insert_alias,
        settings,
        format_clause,
        multi_table_insert_type,
        multi_table_into_clauses,
        multi_table_when_clauses,
        multi_table_else_clause,
    } = i;
    let newest = "feature views keep the newest row of each key by themselves; for a table, CREATE OR REPLACE TABLE t AS the rows that it should have";
    refuse(!optimizer_hints.is_empty(), "a hint in a comment", &["INSERT"], "leave it out")?;
    refuse(or.is_some(), "INSERT OR …", &["OR"], newest)?;
    refuse(*ignore, "INSERT IGNORE", &["IGNORE"], newest)?;
    refuse(*replace_into, "REPLACE INTO", &["REPLACE"], newest)?;
    refuse(on.is_some(), "ON CONFLICT", &["ON CONFLICT", "ON DUPLICATE", "ON"], newest)?;
    match table {
        TableObject::TableName(_) => {}
        TableObject::TableFunction(_) => {
            refuse(true, "INSERT INTO a function", &["FUNCTION", "INTO"], "INSERT INTO a table; COPY (…) TO 'file' writes files")?
        }
        TableObject::TableQuery(_) => refuse(true, "INSERT INTO a query", &["INTO"], "INSERT INTO a table or a push view")?,
    }
    refuse(table_alias.is_some() || insert_alias.is_some(), "an alias in INSERT", &["AS"], "leave it out")?;
    refuse(partitioned.is_some(), "PARTITION (…) of INSERT", &["PARTITION"], "give the value as a column of the rows")?;
    refuse(!after_columns.is_empty(), "a list of columns behind PARTITION", &["PARTITION"], "write INSERT INTO t (a, b) …")?;
    refuse(!assignments.is_empty(), "INSERT … SET", &["SET"], "write INSERT INTO t (a, b) VALUES (…)")?;
    refuse(
        returning.is_some() || output.is_some(),
        "RETURNING",
        &["RETURNING", "OUTPUT"],
        "the answer of INSERT is the number of rows; SELECT them afterwards",
    )?;
    refuse(priority.is_some(), "a priority of INSERT", &["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY"], "leave it out")?;
    refuse(settings.is_some(), "SETTINGS", &["SETTINGS"], "SET name = value changes a setting of the session")?;
    refuse(
        format_clause.is_some(),
        "FORMAT of INSERT",
        &["FORMAT"],
        "COPY t FROM 'file' reads a file; clients send rows with bulk ingest",
    )?;
    refuse(
        multi_table_insert_type.is_some()
            || !multi_table_into_clauses.is_empty()
            || !multi_table_when_clauses.is_empty()
            || multi_table_else_clause.is_some(),
        "INSERT into several tables",
        &["ALL", "FIRST"],
        "write one INSERT for each table",
    )?;
    refuse(
        source.is_none(),
        "INSERT … DEFAULT VALUES",
        &["DEFAULT VALUES", "DEFAULT"],
        "columns have no defaults: write INSERT INTO t VALUES (NULL, …)",
    )
}
