//! `TRUNCATE [TABLE] name`: the rows of a plain table or of a push view go; the name, its columns and its older versions
//! stay.

use async_trait::async_trait;

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::catalog::{Relation, SYSTEM_SCHEMA};
use crate::error::{Error, Result};
use crate::model::types::quote;
use crate::sql::cursor::NameRef;

#[derive(Debug, Clone)]
pub struct Truncate(NameRef);

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    c.eat("TABLE");
    let name = c.plain_name("table")?;
    c.end(&[])?;
    Ok(Box::new(Truncate(name)))
}

#[async_trait]
impl Statement for Truncate {
    /// Both are statements that there are already: one commit each, and nothing is lost where another writer was faster.
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let (name, span) = (p.names().name(&self.0), self.0.span);
        let table = format!("{}.{}", quote(&name.schema), quote(&name.name));
        let statement = match p.names().catalog().relation(&name) {
            Some(Relation::Table(t)) if t.managed => format!("INSERT OVERWRITE {table} SELECT * FROM {table} WHERE false"),
            Some(Relation::FeatureView(s)) if s.current().is_some_and(|v| v.is_push()) => format!("DELETE FROM {table}"),
            Some(Relation::FeatureView(_)) => {
                return Err(Error::invalid(format!("feature view {name} is computed by its query; its rows cannot be removed"))
                    .or_span(span)
                    .with_hint(format!("change the source and REFRESH FEATURE VIEW {name} FULL")));
            }
            Some(other) => {
                let external = if matches!(other, Relation::Table(_)) { "external " } else { "" };
                return Err(Error::invalid(format!("rows of {external}{} {name} cannot be removed", other.kind()))
                    .or_span(span)
                    .with_hint("TRUNCATE empties tables that CREATE TABLE has made, and push views"));
            }
            None if name.schema == SYSTEM_SCHEMA => {
                return Err(Error::invalid(format!("rows of system table {name} cannot be removed"))
                    .or_span(span)
                    .with_hint("system tables show what there is; DROP removes objects"));
            }
            None => return Err(p.names().catalog().no_relation(&name).or_span(span)),
        };
        // places in that text mean nothing in the user's
        let planned = super::parse(&statement)?.plan(p).await.map_err(|e| e.without_span().or_span(span))?;
        Ok(Planned { tag: "TRUNCATE", ..planned })
    }
}
