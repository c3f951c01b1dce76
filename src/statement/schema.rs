//! `CREATE SCHEMA | DATABASE [IF NOT EXISTS] name`

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::catalog::SchemaDef;
use crate::catalog::ddl::{Ddl, Exists};
use crate::error::{Error, Result};
use crate::model::About;
use async_trait::async_trait;

#[derive(Debug, Clone)]
pub struct CreateSchema {
    name: String,
    if_not_exists: bool,
    comment: Option<String>,
    /// Written as DATABASE, by which others mean more.
    as_database: bool,
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    read(head, false)
}

pub fn parse_database(head: Head<'_>) -> Result<Parsed> {
    read(head, true)
}

fn read(head: Head<'_>, as_database: bool) -> Result<Parsed> {
    let Head { cursor: mut c, or_replace, start } = head;
    if or_replace {
        return Err(Error::invalid("a schema has nothing to replace")
            .with_span(start.here())
            .with_hint("write CREATE SCHEMA IF NOT EXISTS name"));
    }
    let if_not_exists = c.eat("IF NOT EXISTS");
    let (name, span) = c.identifier("the schema's name")?;
    if name.contains('@') {
        return Err(Error::syntax("a schema's name cannot hold @").with_span(span));
    }
    let path = name.contains(['/', '\\', '%']) || name.chars().all(|c| c == '.') || name.chars().any(char::is_control);
    if path || name.len() > 200 {
        return Err(Error::invalid(format!("{:?} cannot be the name of a schema", crate::sql::text::short(&name, 60)))
            .with_span(span)
            .with_hint("its tables lie in a folder of that name: write at most 200 bytes, without /, \\, % and control characters"));
    }
    let comment = if c.eat("COMMENT") { Some(c.string("a text in quotes after COMMENT")?) } else { None };
    c.end(&["COMMENT '…'"])?;
    Ok(Box::new(CreateSchema { name, if_not_exists, comment, as_database }))
}

#[async_trait]
impl Statement for CreateSchema {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        if self.as_database {
            p.names().notice(format!(
                "a database is a schema here: schema {:?} of this warehouse; another warehouse is opened with remige sql -w folder",
                self.name
            ));
        }
        let about = About { comment: self.comment, ..Default::default() };
        let ddl = Ddl::CreateSchema {
            schema: SchemaDef { name: self.name, about, created_at: p.now() },
            exists: Exists::of(false, self.if_not_exists),
        };
        p.allows(&ddl)?;
        Planned::ddl("CREATE SCHEMA", ddl)
    }
}
