//! What the stock parser takes is obeyed, or refused here. Each struct of its syntax tree is taken apart with all
//! fields named, so that a field of a later parser does not compile before somebody has decided about it.
//! tests/it/clauses.txt lists every field with its verdict and an example.

mod function;
mod query;
mod select;
mod table;
mod write;

use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, CopyToStatement, CreateExternalTable, Statement as DfStatement};
use sqlparser::ast::{
    ColumnDef, ColumnOption, ColumnOptionDef, Expr, Query, Select, Statement as SqlStatement, TableFactor, Visit, VisitMut, Visitor,
    VisitorMut,
};
use sqlparser::tokenizer::TokenWithSpan;

pub use self::function::{Kind, check_functions, order_by_constant};
use super::text::tokenize;
use super::tokens::is_word;
use super::tokens::place;
use crate::error::{Error, Kind as ErrorKind, Result, Span};

/// A clause that is taken by the parser and would do nothing.
pub(super) struct Refusal {
    what: String,
    /// Words to look for in the text, to point at the clause.
    words: &'static [&'static str],
    hint: String,
}

type Verdict = std::result::Result<(), Refusal>;

/// Refuses a clause that is `given`.
pub(super) fn refuse(given: bool, what: impl Into<String>, words: &'static [&'static str], hint: impl Into<String>) -> Verdict {
    match given {
        true => Err(Refusal { what: what.into(), words, hint: hint.into() }),
        false => Ok(()),
    }
}

/// Refuses what `statement` holds of clauses that nothing obeys. `text` is what it was read from.
pub fn check(statement: &DfStatement, text: &str) -> Result<()> {
    statement_of(statement).map_err(|r| r.located(text))
}

/// Writes what has the same meaning in another form that the planner knows.
pub fn reduce(statement: &mut DfStatement) {
    match statement {
        DfStatement::Statement(s) => reduce_part(s.as_mut()),
        DfStatement::Explain(e) => reduce(&mut e.statement),
        DfStatement::CopyTo(c) => {
            if let CopyToSource::Query(q) = &mut c.source {
                reduce_part(q.as_mut());
            }
        }
        DfStatement::CreateExternalTable(_) | DfStatement::Reset(_) => {}
    }
}

/// The same for a part of a statement.
pub fn reduce_part(part: &mut impl VisitMut) {
    struct Reduce;
    impl VisitorMut for Reduce {
        type Break = ();
        fn pre_visit_select(&mut self, s: &mut Select) -> ControlFlow<()> {
            select::from_alone(s);
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, q: &mut Query) -> ControlFlow<()> {
            query::fetch_is_limit(q);
            query::order_all(q);
            ControlFlow::Continue(())
        }
        fn post_visit_expr(&mut self, e: &mut Expr) -> ControlFlow<()> {
            function::cut_to_length(e);
            function::order_by_constant(e);
            super::rows::by_columns(e);
            ControlFlow::Continue(())
        }
    }
    let _ = part.visit(&mut Reduce);
}

/// The same for one expression.
pub fn check_expression(e: &Expr, text: &str) -> Result<()> {
    walk(e).map_err(|r| r.located(text))
}

impl Refusal {
    fn located(self, text: &str) -> Error {
        let tokens = tokenize(text).unwrap_or_default();
        let span = self.words.iter().find_map(|w| find(&tokens, w));
        Error::new(ErrorKind::NotBuilt, format!("{} is not supported", self.what)).with_hint(self.hint).or_span(span)
    }
}

/// The place of one or more words that follow each other.
fn find(tokens: &[TokenWithSpan], words: &str) -> Option<Span> {
    let words: Vec<&str> = words.split(' ').collect();
    let at = (0..tokens.len()).find(|i| words.iter().enumerate().all(|(n, w)| is_word(tokens.get(i + n), w)))?;
    let (first, last) = (place(tokens[at].span), place(tokens[at + words.len() - 1].span));
    Some(Span::new(first.line, first.column, last.end_line, last.end_column))
}

fn walk(part: &impl Visit) -> Verdict {
    match part.visit(&mut Walk) {
        ControlFlow::Break(r) => Err(r),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Walk;

fn flow(v: Verdict) -> ControlFlow<Refusal> {
    match v {
        Ok(()) => ControlFlow::Continue(()),
        Err(r) => ControlFlow::Break(r),
    }
}

impl Visitor for Walk {
    type Break = Refusal;

    fn pre_visit_statement(&mut self, s: &SqlStatement) -> ControlFlow<Refusal> {
        flow(match s {
            SqlStatement::Insert(i) => write::insert(i),
            SqlStatement::CreateTable(t) => table::create(t),
            _ => Ok(()),
        })
    }

    fn pre_visit_query(&mut self, q: &Query) -> ControlFlow<Refusal> {
        flow(query::query(q))
    }

    fn pre_visit_select(&mut self, s: &Select) -> ControlFlow<Refusal> {
        flow(select::select(s))
    }

    fn pre_visit_table_factor(&mut self, t: &TableFactor) -> ControlFlow<Refusal> {
        flow(select::factor(t))
    }

    fn pre_visit_expr(&mut self, e: &Expr) -> ControlFlow<Refusal> {
        flow(function::expression(e))
    }
}

fn statement_of(statement: &DfStatement) -> Verdict {
    match statement {
        DfStatement::Statement(s) => walk(s.as_ref()),
        DfStatement::Explain(e) => statement_of(&e.statement),
        DfStatement::CopyTo(c) => copy(c),
        DfStatement::CreateExternalTable(t) => external(t),
        DfStatement::Reset(_) => Ok(()),
    }
}

fn copy(c: &CopyToStatement) -> Verdict {
    // the options are checked where their format is known
    let CopyToStatement { source, target: _, partitioned_by: _, stored_as: _, options: _ } = c;
    match source {
        CopyToSource::Query(q) => walk(q.as_ref()),
        CopyToSource::Relation(_) => Ok(()),
    }
}

fn external(t: &CreateExternalTable) -> Verdict {
    let CreateExternalTable {
        name: _,
        columns,
        file_type: _,
        locations: _,
        table_partition_cols: _,
        order_exprs,
        if_not_exists,
        or_replace,
        temporary,
        unbounded,
        options: _,
        constraints,
    } = t;
    refuse(*unbounded, "UNBOUNDED", &["UNBOUNDED"], "external tables are files as they are when a statement reads them")?;
    refuse(*temporary, "TEMPORARY", &["TEMPORARY", "TEMP"], "leave it out, and DROP TABLE when done")?;
    refuse(!order_exprs.is_empty(), "WITH ORDER", &["WITH ORDER"], "leave it out: the order of rows is what ORDER BY of a query says")?;
    refuse(*if_not_exists && *or_replace, "OR REPLACE together with IF NOT EXISTS", &["IF NOT EXISTS"], "write one of them")?;
    table::constraints(constraints)?;
    columns.iter().try_for_each(column)
}

/// A column of a new table: its constraints would be kept nowhere.
pub(super) fn column(c: &ColumnDef) -> Verdict {
    let ColumnDef { name, data_type: _, options } = c;
    for o in options {
        let ColumnOptionDef { name: _, option } = o;
        option_of(&name.value, option)?;
    }
    Ok(())
}

fn option_of(name: &str, option: &ColumnOption) -> Verdict {
    let no = |what: &str, words: &'static [&'static str], hint: String| refuse(true, format!("{what} (column {name:?})"), words, hint);
    let checked = || format!("leave it out, and look for wrong rows with a query: SELECT count(*) FROM … WHERE {name} …");
    match option {
        // every column takes NULL
        ColumnOption::Null => Ok(()),
        ColumnOption::NotNull => {
            no("NOT NULL", &["NOT NULL"], format!("leave it out: columns take NULL; look for it with WHERE {name} IS NULL"))
        }
        ColumnOption::Default(_) => {
            no("DEFAULT", &["DEFAULT"], "leave it out, and give the value in each INSERT; a column that is not named is NULL".into())
        }
        ColumnOption::PrimaryKey(_) => {
            no("PRIMARY KEY", &["PRIMARY KEY"], "leave it out; CREATE ENTITY declares the key of feature views".into())
        }
        ColumnOption::Unique(_) => no("UNIQUE", &["UNIQUE"], checked()),
        ColumnOption::ForeignKey(_) => no("REFERENCES", &["REFERENCES", "FOREIGN KEY"], checked()),
        ColumnOption::Check(_) => no("CHECK", &["CHECK"], checked()),
        ColumnOption::Generated { .. } => {
            no("GENERATED", &["GENERATED", "AS"], "compute the column in a view: CREATE VIEW … AS SELECT …".into())
        }
        ColumnOption::Materialized(_) | ColumnOption::Ephemeral(_) | ColumnOption::Alias(_) => no(
            "a computed column",
            &["MATERIALIZED", "EPHEMERAL", "ALIAS"],
            "compute the column in a view: CREATE VIEW … AS SELECT …".into(),
        ),
        ColumnOption::Identity(_) => {
            no("IDENTITY", &["IDENTITY", "AUTOINCREMENT"], "number the rows in the query: row_number() OVER (ORDER BY …)".into())
        }
        ColumnOption::Collation(_) => no("COLLATE", &["COLLATE"], "leave it out: texts compare by their code points".into()),
        ColumnOption::CharacterSet(_) => no("CHARACTER SET", &["CHARACTER SET", "CHARSET"], "leave it out: texts are UTF-8".into()),
        ColumnOption::Comment(_) => {
            no("COMMENT", &["COMMENT"], "leave it out; schemas, views, entities and feature views take COMMENT".into())
        }
        ColumnOption::DialectSpecific(_)
        | ColumnOption::OnUpdate(_)
        | ColumnOption::Options(_)
        | ColumnOption::OnConflict(_)
        | ColumnOption::Policy(_)
        | ColumnOption::Tags(_)
        | ColumnOption::Srid(_)
        | ColumnOption::Invisible => no(
            &option.to_string(),
            &["AUTO_INCREMENT", "AUTOINCREMENT", "ON UPDATE", "OPTIONS", "ON CONFLICT", "POLICY", "TAG", "SRID", "INVISIBLE"],
            "a column has a name and a type".into(),
        ),
    }
}
