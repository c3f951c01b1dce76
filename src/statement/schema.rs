//! `CREATE SCHEMA | DATABASE [IF NOT EXISTS] name`

use std::sync::Arc;

use super::{Planned, Planning, Statement};
use crate::catalog::{CatalogChange, SchemaDef};
use crate::error::{Error, Result};
use crate::plan::command::Command;
use crate::sql::Cursor;

#[derive(Debug, Clone)]
pub struct CreateSchema {
    name: String,
    if_not_exists: bool,
    comment: Option<String>,
    /// Written as DATABASE, by which others mean more.
    as_database: bool,
}

pub fn parse(mut c: Cursor<'_>, as_database: bool) -> Result<Statement> {
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
    Ok(Statement::CreateSchema(CreateSchema { name, if_not_exists, comment, as_database }))
}

impl CreateSchema {
    pub fn plan(self, p: &dyn Planning) -> Result<Planned> {
        let now = p.now();
        if self.as_database {
            p.names().notice(format!(
                "a database is a schema here: schema {:?} of this warehouse; another warehouse is opened with remige sql -w folder",
                self.name
            ));
        }
        let what = format!("CREATE SCHEMA {}", self.name);
        let build = Arc::new(move |catalog: &crate::catalog::CatalogSnapshot| match catalog.schema(&self.name) {
            Ok(_) if self.if_not_exists => Ok(vec![]),
            Ok(_) => Err(Error::already_exists(format!("schema {:?} exists already", self.name)).with_hint("IF NOT EXISTS keeps it")),
            Err(_) => Ok(vec![CatalogChange::CreateSchema(SchemaDef {
                name: self.name.clone(),
                about: crate::model::About { comment: self.comment.clone(), ..Default::default() },
                created_at: now,
            })]),
        });
        build(p.names().catalog().as_ref())?;
        Planned::command("CREATE SCHEMA", Command::Change { what, tables: vec![], build }, vec![])
    }
}
