//! `COMMENT '…' OWNER '…' TAGS (…)`, which all objects have.

use crate::error::{Error, Result};
use crate::model::About;
use crate::sql::Cursor;

pub const CLAUSES: [&str; 3] = ["COMMENT '…'", "OWNER '…'", "TAGS (…)"];

/// Reads one of the three clauses if it stands here.
pub fn clause(c: &mut Cursor<'_>, about: &mut About) -> Result<bool> {
    let here = c.here();
    let twice = |name: &str| Err(Error::syntax(format!("{name} is written twice")).with_span(here));
    if c.eat("COMMENT") {
        if about.comment.is_some() {
            return twice("COMMENT");
        }
        about.comment = Some(c.string("a text in quotes after COMMENT")?);
    } else if c.eat("OWNER") {
        if about.owner.is_some() {
            return twice("OWNER");
        }
        about.owner = Some(c.string("a text in quotes after OWNER")?);
    } else if c.eat("TAGS") {
        if !about.tags.is_empty() {
            return twice("TAGS");
        }
        about.tags = c.tags()?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// `CREATE OR REPLACE x IF NOT EXISTS` says two things at once.
pub fn exclusive(c: &Cursor<'_>, or_replace: bool, if_not_exists: bool) -> Result<()> {
    if or_replace && if_not_exists {
        return Err(Error::syntax("OR REPLACE and IF NOT EXISTS exclude each other").with_span(c.here()));
    }
    Ok(())
}
