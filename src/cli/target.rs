//! Where statements run: a warehouse in this process, or a server.

use remige::error::{Error, Result, Span};
use remige::session::{Notice, Outcome, Session, StatementKind};
use remige::sql::text::first_token;

use super::connect::{Listed, Remote};

pub enum Target {
    Local(Session),
    Remote(Box<Remote>),
}

/// A started statement.
pub struct Started {
    pub outcome: Outcome,
    /// Reading only a part of the rows leaves nothing half done.
    pub may_be_cut: bool,
}

impl Target {
    pub async fn start(&mut self, sql: &str) -> Result<Started> {
        match self {
            Target::Local(session) => {
                let started = session.start(sql).await?;
                Ok(Started { outcome: started.outcome, may_be_cut: started.kind == StatementKind::Query })
            }
            Target::Remote(remote) => Ok(Started { outcome: remote.execute(sql).await?, may_be_cut: true }),
        }
    }

    /// What the last statement had to say. Only a courtesy: a server that cannot tell is no failure.
    pub async fn notices(&mut self) -> Vec<Notice> {
        match self {
            Target::Local(session) => session.notices(),
            Target::Remote(remote) => remote.notices().await.unwrap_or_default(),
        }
    }

    pub async fn tables(&mut self) -> Result<Vec<Listed>> {
        let mut tables = match self {
            Target::Local(session) => {
                let listed = |t: remige::session::TableInfo| Listed {
                    schema: t.schema,
                    name: t.name,
                    kind: t.kind.to_string(),
                    comment: t.comment.unwrap_or_default(),
                };
                session.tables(false).await?.into_iter().map(listed).collect()
            }
            Target::Remote(remote) => remote.tables().await?,
        };
        tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        Ok(tables)
    }

    /// Column names, for completion.
    pub async fn columns(&mut self) -> Result<Vec<String>> {
        match self {
            Target::Local(session) => {
                let schemas = session.tables(true).await?.into_iter().filter_map(|t| t.columns);
                Ok(schemas.flat_map(|s| s.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>()).collect())
            }
            Target::Remote(_) => Ok(Vec::new()),
        }
    }

    /// Ends the conversation.
    pub async fn close(self) {
        if let Target::Remote(remote) = self {
            remote.close().await;
        }
    }
}

/// `error` of the statement that begins at `line`, `column` of a script, with its place in the script.
/// An error that knows no place gets the statement's first word.
pub fn in_script(error: Error, sql: &str, line: u64, column: u64) -> Error {
    let span = error.span().or_else(|| Some(first_token(sql)?.1)).unwrap_or(Span::new(1, 1, 1, 2));
    let shift = |at_line: u64, at_column: u64| {
        let column = if at_line <= 1 { at_column + column.saturating_sub(1) } else { at_column };
        (at_line.max(1) + line.saturating_sub(1), column)
    };
    let ((from_line, from_column), (to_line, to_column)) = (shift(span.line, span.column), shift(span.end_line, span.end_column));
    error.with_span(Span::new(from_line, from_column, to_line, to_column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_move_into_the_script() {
        let e = Error::not_found("x").with_span(Span::new(1, 8, 1, 9));
        assert_eq!(in_script(e.clone(), "SELECT x", 3, 5).span(), Some(Span::new(3, 12, 3, 13)));
        let later = Error::not_found("x").with_span(Span::new(2, 8, 2, 9));
        assert_eq!(in_script(later, "SELECT\n       x", 3, 5).span(), Some(Span::new(4, 8, 4, 9)));
        assert_eq!(in_script(Error::internal("y"), "DROP it", 3, 5).span(), Some(Span::new(3, 5, 3, 9)));
        assert_eq!(in_script(Error::internal("y"), "-- why\n /* x */ DROP it", 3, 5).span(), Some(Span::new(4, 10, 4, 14)));
        let script = "SELECT 1;\n\n    SELECT x;";
        let shown = in_script(e, "SELECT x", 3, 5).render(script, Some("a.sql"));
        assert!(shown.contains("--> a.sql:3:12\n   |\n 3 |     SELECT x;\n   |            ^"), "{shown}");
    }
}
