//! `ALTER TABLE [IF EXISTS] t ADD COLUMN [IF NOT EXISTS] c TYPE | RENAME COLUMN a TO b | DROP COLUMN [IF EXISTS] c`

use async_trait::async_trait;

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::catalog::{Relation, SYSTEM_SCHEMA};
use crate::error::{Error, Kind, Result, Span};
use crate::model::{Column, Name};
use crate::plan::alteration::{Alteration, ColumnChange};
use crate::plan::command::Command;
use crate::sql::Cursor;
use crate::sql::cursor::NameRef;

const TAG: &str = "ALTER TABLE";

#[derive(Debug, Clone)]
pub struct AlterTable {
    name: NameRef,
    if_exists: bool,
    change: ColumnChange,
    /// Of the column.
    span: Span,
    /// IF EXISTS or IF NOT EXISTS of the column.
    lenient: bool,
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let if_exists = c.eat("IF EXISTS");
    let name = c.plain_name("the name of a table")?;
    let (change, span, lenient) = change(&mut c, &name)?;
    if c.is_token(&sqlparser::tokenizer::Token::Comma) {
        return Err(Error::not_built("several changes in one ALTER TABLE").with_span(c.here()).with_hint("write one ALTER TABLE for each"));
    }
    c.end(&[])?;
    Ok(Box::new(AlterTable { name, if_exists, change, span, lenient }))
}

fn change(c: &mut Cursor<'_>, table: &NameRef) -> Result<(ColumnChange, Span, bool)> {
    let here = c.here();
    let refuse = |what: &str, hint: String| Err(Error::not_built(format!("ALTER TABLE … {what}")).with_span(here).with_hint(hint));
    let t = &table.name;
    if c.eat("RENAME TO") {
        return refuse("RENAME TO", format!("write CREATE TABLE new_name AS SELECT * FROM {t}, then DROP TABLE {t}"));
    }
    if c.is("ALTER") || c.is("MODIFY") || c.is("CHANGE") {
        return refuse(
            "ALTER COLUMN",
            format!("write the table anew: CREATE OR REPLACE TABLE {t} AS SELECT * REPLACE (CAST(column AS BIGINT) AS column) FROM {t}"),
        );
    }
    if c.is("ADD CONSTRAINT") || c.is("ADD PRIMARY KEY") || c.is("ADD UNIQUE") || c.is("ADD CHECK") || c.is("ADD FOREIGN KEY") {
        return refuse(
            "ADD CONSTRAINT",
            "leave it out: tables keep no constraints; CREATE ENTITY declares the key of feature views".into(),
        );
    }
    if c.eat("ADD COLUMN") || c.eat("ADD") {
        let lenient = c.eat("IF NOT EXISTS");
        let (name, span) = c.identifier("a column's name")?;
        let data_type = c.data_type()?;
        column_options(c, &name)?;
        return Ok((ColumnChange::Add(Column { name, data_type }), span, lenient));
    }
    if c.eat("RENAME COLUMN") || c.eat("RENAME") {
        let (from, span) = c.identifier("a column's name")?;
        c.want("TO")?;
        return Ok((ColumnChange::Rename { from, to: c.identifier("the new name")?.0 }, span, false));
    }
    if c.eat("DROP COLUMN") || c.eat("DROP") {
        let lenient = c.eat("IF EXISTS");
        let (name, span) = c.identifier("a column's name")?;
        let _ = c.eat("RESTRICT");
        return Ok((ColumnChange::Drop(name), span, lenient));
    }
    if c.is("SET") || c.is("UNSET") || c.is("OWNER") {
        return refuse(
            "SET",
            "leave it out: tables have columns and nothing else to set; COMMENT, OWNER and TAGS are for feature views".into(),
        );
    }
    Err(c.expected("ADD COLUMN, RENAME COLUMN or DROP COLUMN"))
}

/// What may stand behind a new column's type in other systems, and would be kept nowhere.
fn column_options(c: &mut Cursor<'_>, name: &str) -> Result<()> {
    let here = c.here();
    let refuse = |what: &str, hint: String| {
        Err(Error::not_built(format!("{what} of a new column (column {name:?})")).with_span(here).with_hint(hint))
    };
    let _ = c.eat("NULL");
    if c.is("NOT NULL") {
        return refuse("NOT NULL", format!("leave it out: the rows that are there have NULL; look for it with WHERE {name} IS NULL"));
    }
    if c.is("DEFAULT") {
        return refuse(
            "DEFAULT",
            "leave it out: the rows that are there have NULL, and each INSERT gives its value; a query may say coalesce(column, value)"
                .into(),
        );
    }
    for what in ["PRIMARY KEY", "UNIQUE", "REFERENCES", "CHECK", "GENERATED", "COLLATE", "FIRST", "AFTER"] {
        if c.is(what) {
            return refuse(what, "leave it out: a new column stands behind the others, and takes every value of its type".into());
        }
    }
    Ok(())
}

#[async_trait]
impl Statement for AlterTable {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let name = p.names().name(&self.name);
        let location = match (p.names().catalog().relation(&name), self.if_exists) {
            (Some(Relation::Table(t)), _) if t.managed => t.location.clone(),
            (None, true) => return Planned::command(TAG, Command::Nothing { what: format!("ALTER TABLE {name}") }, vec![]),
            (other, _) => return Err(no_table(p, &name, other).or_span(self.name.span)),
        };
        let alteration = Alteration { table: name, location, change: self.change };
        let columns = p.columns(&self.name).await?;
        match alteration.applied(&columns) {
            Err(e) if self.lenient && matches!(e.kind(), Kind::NotFound | Kind::AlreadyExists) => {
                p.names().notice(format!("{}; nothing was changed", e.message()));
                return Planned::command(TAG, Command::Nothing { what: format!("ALTER TABLE {}", alteration.table) }, vec![]);
            }
            applied => applied.map_err(|e| e.or_span(Some(self.span)))?,
        };
        alteration.check_readers(p.names().catalog()).map_err(|e| e.or_span(Some(self.span)))?;
        Planned::command(TAG, Command::AlterTable(alteration), vec![])
    }
}

fn no_table(p: &dyn Planning, name: &Name, found: Option<Relation<'_>>) -> Error {
    let refuse = |what: &str, hint: String| Error::invalid(format!("ALTER TABLE {name}: {what}")).with_hint(hint);
    match found {
        None if name.schema != SYSTEM_SCHEMA => p.names().catalog().no_relation(name),
        Some(Relation::Table(_)) => refuse(
            "the columns of an external table are those of its files",
            format!(
                "CREATE OR REPLACE EXTERNAL TABLE {name} (…) names others; CREATE TABLE … AS SELECT * FROM {name} makes a table to change"
            ),
        ),
        Some(Relation::FeatureView(_)) => {
            refuse("it is a feature view", format!("CREATE OR REPLACE FEATURE VIEW {name} … makes a new version of it with other features"))
        }
        other => {
            let kind = other.map_or("system table", |r| r.kind());
            refuse(&format!("it is a {kind}"), "ALTER TABLE changes tables that CREATE TABLE has made".into())
        }
    }
}
