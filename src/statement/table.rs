//! Source data: `CREATE EXTERNAL TABLE`, `CREATE TABLE … AS`, `CREATE TABLE (…)`, `CREATE VIEW`.

use async_trait::async_trait;
use std::collections::BTreeMap;

use datafusion::arrow::datatypes::{DataType as ArrowType, Fields};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{CreateExternalTable, Statement as DfStatement};
use sqlparser::ast::{ColumnDef, CreateTable, DataType, Statement as SqlStatement};
use sqlparser::tokenizer::{Location, Token};

use super::training_set::{check_columns, moved};
use super::{Head, Parsed, Planned, Planning, Statement, about, kept, show_create};
use crate::catalog::ddl::{Ddl, Exists};
use crate::clock::new_id;
use crate::error::{Error, Result, Span};
use crate::model::layout::check_column_name;
use crate::model::types::{ColumnType, quote};
use crate::model::{About, Column, Name, SourceKind, Table, View};
use crate::plan::command::Command;
use crate::plan::wildcard::renamed;
use crate::sql::Cursor;
use crate::sql::cursor::NameRef;

/// For errors of CREATE EXTERNAL TABLE.
const LOOK: &str = "write CREATE EXTERNAL TABLE name STORED AS PARQUET LOCATION '…'; only to look at files, SELECT * FROM read_parquet('…'), \
     read_csv('…'), read_json('…') or read_delta('…')";

#[derive(Debug, Clone)]
pub struct CreateView {
    name: NameRef,
    or_replace: bool,
    if_not_exists: bool,
    columns: Vec<(String, Span)>,
    about: About,
    query: (String, Span),
}

pub fn parse_view(head: Head<'_>) -> Result<Parsed> {
    let Head { cursor: mut c, or_replace, .. } = head;
    let if_not_exists = c.eat("IF NOT EXISTS");
    about::exclusive(&c, or_replace, if_not_exists)?;
    let name = c.plain_name("view")?;
    let columns = if c.is_token(&Token::LParen) { c.list(|c| c.identifier("a column's name"))? } else { vec![] };
    let mut about = About::default();
    while about::clause(&mut c, &mut about)? {}
    if !c.eat("AS") {
        return Err(c.expected("AS SELECT …"));
    }
    let at = c.here();
    Ok(Box::new(CreateView { name, or_replace, if_not_exists, columns, about, query: (c.rest()?.to_string(), at) }))
}

#[async_trait]
impl Statement for CreateView {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let name = p.names().name(&self.name);
        let (query, place) = self.query;
        let statement = crate::sql::parse::statement(&query).map_err(|e| moved(e, place))?;
        if !matches!(&statement, DfStatement::Statement(s) if matches!(s.as_ref(), SqlStatement::Query(_))) {
            return Err(Error::syntax("AS wants a query (SELECT …)").with_span(place));
        }
        let plan = p.sql(statement, p.names().schema()).await.map_err(|e| moved(e, place))?;
        p.check(&plan, &query).map_err(|e| moved(e, place).or_span(Some(place)))?;
        let columns: Vec<String> = self.columns.iter().map(|(n, _)| n.clone()).collect();
        for (i, (column, span)) in self.columns.iter().enumerate() {
            if columns[..i].contains(column) {
                return Err(Error::invalid(format!("view {name} would have two columns called {column:?}")).with_span(*span));
            }
        }
        let plan = renamed(plan, &columns).map_err(|e| e.or_span(self.columns.first().map(|(_, s)| *s)))?;
        let fields = plan.schema().fields();
        for (i, f) in fields.iter().enumerate() {
            if fields[..i].iter().any(|o| o.name() == f.name()) {
                return Err(Error::invalid(format!("view {name} would have two columns called {:?}", f.name()))
                    .with_span(place)
                    .with_hint("give one of them another name with AS"));
            }
        }
        let view = View {
            name: name.clone(),
            columns,
            query,
            query_schema: p.names().schema().to_string(),
            reads: p.dependencies(),
            about: self.about,
            created_at: p.now(),
        };
        if self.if_not_exists {
            match p.names().catalog().views.get(&name) {
                Some(old) => {
                    kept::tell(p, "view", &name, &show_create::view(old), &show_create::view(&view));
                }
                None => kept::taken(p, "view", &name),
            }
        }
        let ddl = Ddl::CreateView { view, exists: Exists::of(self.or_replace, self.if_not_exists) };
        p.allows(&ddl).map_err(|e| e.or_span(self.name.span))?;
        Planned::ddl("CREATE VIEW", ddl)
    }
}

#[derive(Debug, Clone)]
pub struct CreateExternal {
    name: NameRef,
    syntax: CreateExternalTable,
}

#[derive(Debug, Clone)]
pub struct CreateTableAs {
    name: NameRef,
    or_replace: bool,
    if_not_exists: bool,
    syntax: Box<CreateTable>,
    /// Names for the columns of AS SELECT …, where the list gives no types.
    columns: Vec<(String, Span)>,
}

fn name_of(n: &sqlparser::ast::ObjectName) -> Result<NameRef> {
    use sqlparser::ast::Spanned;
    let parts =
        n.0.iter()
            .map(|p| p.as_ident().map(|i| if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() }))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::syntax(format!("{n} is not a name")))?;
    let span = Span::from_sql(n.span());
    let r = NameRef::from_parts(parts, span)?;
    if r.version.is_some() {
        return Err(Error::syntax("a table's name cannot hold @").or_span(span));
    }
    Ok(r)
}

pub fn parse_create(head: Head<'_>) -> Result<Parsed> {
    let (text, columns) = without_names(head.cursor.text())?;
    let external = text.split_whitespace().take(5).any(|w| w.eq_ignore_ascii_case("external"));
    let statement = crate::sql::parse::statement(&text).map_err(|e| if external { e.or_hint(LOOK) } else { e })?;
    match statement {
        DfStatement::CreateExternalTable(syntax) => {
            let name = name_of(&syntax.name)?;
            Ok(Box::new(CreateExternal { name, syntax }))
        }
        DfStatement::Statement(s) => match *s {
            SqlStatement::CreateTable(t) => {
                let name = name_of(&t.name)?;
                Ok(Box::new(CreateTableAs { name, or_replace: t.or_replace, if_not_exists: t.if_not_exists, syntax: Box::new(t), columns }))
            }
            other => Err(Error::not_built(first_words(&other.to_string()))),
        },
        other => Err(Error::not_built(first_words(&other.to_string()))),
    }
}

/// Takes the list of `CREATE TABLE t (a, b) AS …` out of the text, every other character keeping its place. The stock
/// parser wants a type behind each name.
fn without_names(text: &str) -> Result<(String, Vec<(String, Span)>)> {
    let mut c = Cursor::new(text)?;
    let mut names = vec![];
    let _ = c.eat("CREATE") && c.eat("OR REPLACE");
    if !c.eat("TABLE") {
        return Ok((text.to_string(), names));
    }
    c.eat("IF NOT EXISTS");
    if c.name("a table's name").is_err() || !c.is_token(&Token::LParen) {
        return Ok((text.to_string(), names));
    }
    let from = c.here();
    c.eat_token(&Token::LParen);
    loop {
        match c.identifier("a column's name") {
            Ok(named) if c.is_token(&Token::Comma) || c.is_token(&Token::RParen) => names.push(named),
            _ => return Ok((text.to_string(), vec![])),
        }
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    let to = c.here();
    c.eat_token(&Token::RParen);
    if !c.is("AS") {
        return Ok((text.to_string(), vec![]));
    }
    let at = |line, column| crate::sql::text::offset(text, Location { line, column });
    let (start, end) = (at(from.line, from.column), at(to.end_line, to.end_column));
    let blank: String = text[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
    Ok((format!("{}{blank}{}", &text[..start], &text[end..]), names))
}

fn first_words(s: &str) -> String {
    s.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[async_trait]
impl Statement for CreateExternal {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let s = self.syntax;
        let name = p.names().name(&self.name);
        let span = self.name.span;
        let named = s.file_type.to_uppercase();
        let Some(kind) = SourceKind::of(&named) else {
            let known = SourceKind::names();
            return Err(Error::invalid(format!("external tables are not read as {named}"))
                .suggest(&named, known.iter().copied())
                .or_hint(&format!("STORED AS one of {}; {LOOK}", known.join(", ")))
                .or_span(span));
        };
        let format = kind.name.to_string();
        let mut options = BTreeMap::new();
        for (key, value) in &s.options {
            let lower = key.to_lowercase();
            if ["secret", "password", "token", "access_key", "account_key", "sas", "credential", "private_key"]
                .iter()
                .any(|w| lower.contains(w))
            {
                return Err(Error::denied(format!("option {key:?} holds a secret, and definitions are readable by everybody"))
                    .with_hint("credentials come from the environment (AWS_ACCESS_KEY_ID, …)")
                    .or_span(span));
            }
            let text = match value {
                sqlparser::ast::Value::SingleQuotedString(s) => s.clone(),
                other => other.to_string(),
            };
            options.insert(lower, text);
        }
        let [location] = &s.locations[..] else {
            return Err(Error::invalid(format!("external table {name} wants one LOCATION (a file, a folder or a pattern)")).or_span(span));
        };
        let location = absolute(location)?;
        let columns = s.columns.iter().map(|c| declared(p, c)).collect::<Result<Vec<_>>>()?;
        distinct(&columns, &name).map_err(|e| e.or_span(span))?;
        let mut table = Table {
            name: name.clone(),
            format,
            location,
            managed: false,
            columns,
            options,
            partition_columns: s.table_partition_cols.iter().map(|c| unquoted(c)).collect(),
            replacing: None,
            about: About::default(),
            created_at: p.now(),
        };
        if p.finds_hive(&table).await.map_err(|e| e.context(format!("external table {name}")).or_span(span))? {
            table.options.insert("hive_partitioning".into(), "true".into());
        }
        // a table that cannot be read is better refused now than at its first use
        let found = p.infer(&table).await.map_err(|e| e.context(format!("external table {name}")).or_span(span).or_hint(LOOK))?;
        if found.fields().is_empty() {
            return Err(Error::invalid(format!("external table {name}: no data files with columns at {}", table.location)).or_span(span));
        }
        if s.if_not_exists {
            match p.names().catalog().tables.get(&name) {
                Some(old) => {
                    kept::tell(p, "external table", &name, &show_create::table(old), &show_create::table(&table));
                }
                None => kept::taken(p, "table", &name),
            }
        }
        let ddl = Ddl::CreateTable { table, exists: Exists::of(s.or_replace, s.if_not_exists), announced: None };
        p.allows(&ddl).map_err(|e| e.or_span(span))?;
        Planned::ddl("CREATE EXTERNAL TABLE", ddl)
    }
}

/// The parser gives names of partition columns as they were written.
fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_lowercase(),
    }
}

/// Relative paths mean the directory in which the statement runs; the registry keeps absolute ones.
pub fn absolute(location: &str) -> Result<String> {
    if location.contains("://") {
        return Ok(location.to_string());
    }
    let path = std::path::absolute(location).map_err(|e| Error::invalid(format!("location {location:?}: {e}")))?;
    let mut text = path.to_string_lossy().to_string();
    if location.ends_with('/') && !text.ends_with('/') {
        text.push('/');
    }
    if !location.contains('*') && path.is_dir() && !text.ends_with('/') {
        text.push('/');
    }
    Ok(text)
}

#[async_trait]
impl Statement for CreateTableAs {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let name = p.names().name(&self.name);
        let span = self.name.span;
        let catalog = p.names().catalog();
        catalog.schema(&name.schema).map_err(|e| e.or_span(span))?;
        let mut table = Table {
            name: name.clone(),
            format: "DELTA".into(),
            location: name.folder("tables", &new_id()),
            managed: true,
            columns: vec![],
            options: BTreeMap::new(),
            partition_columns: vec![],
            replacing: None,
            about: About::default(),
            created_at: p.now(),
        };
        match catalog.relation(&name).map(|r| r.kind()) {
            Some(_) if self.if_not_exists => {
                let old = catalog.tables.get(&name).cloned();
                if old.is_none() {
                    kept::taken(p, "table", &name);
                } else if !self.differs(p, &name, old.as_deref()).await {
                    p.names().notice(format!("table {name} exists already; nothing was changed"));
                }
                return Planned::command("CREATE TABLE", Command::Nothing { what: format!("CREATE TABLE {name} (exists)") }, vec![]);
            }
            Some(kind) if !(self.or_replace && kind == "table") => {
                return Err(Error::already_exists(format!("{kind} {name} exists already"))
                    .or_span(span)
                    .with_hint("choose another name, or CREATE OR REPLACE TABLE"));
            }
            _ => {}
        }
        let (or_replace, if_not_exists) = (self.or_replace, self.if_not_exists);
        let typed = self.syntax.columns.iter().map(|c| declared(p, c)).collect::<Result<Vec<_>>>()?;
        let inputs = match self.syntax.query.clone() {
            Some(q) => {
                let plan = p.sql(DfStatement::Statement(Box::new(SqlStatement::Query(q))), p.names().schema()).await?;
                table.columns = filled(&name, &plan, typed, self.columns).map_err(|e| e.or_span(span))?;
                walls(p, &name, plan.schema().fields());
                vec![plan]
            }
            None if typed.is_empty() => {
                return Err(Error::syntax(format!("table {name} needs columns, or AS SELECT …")).or_span(span));
            }
            None => {
                table.columns = typed;
                vec![]
            }
        };
        distinct(&table.columns, &name).map_err(|e| e.or_span(span))?;
        Planned::command("CREATE TABLE", Command::CreateTableAs { table, exists: Exists::of(or_replace, if_not_exists) }, inputs)
    }
}

impl CreateTableAs {
    /// Whether there is a table with other columns; tells so. What cannot be planned any more says nothing.
    async fn differs(&self, p: &dyn Planning, name: &Name, old: Option<&Table>) -> bool {
        let Some(old) = old else { return false };
        let Ok(typed) = self.syntax.columns.iter().map(|c| declared(p, c)).collect::<Result<Vec<_>>>() else { return false };
        let columns = match self.syntax.query.clone() {
            None => typed,
            Some(q) => {
                let statement = DfStatement::Statement(Box::new(SqlStatement::Query(q)));
                let Ok(plan) = p.sql(statement, p.names().schema()).await else { return false };
                let Ok(columns) = filled(name, &plan, typed, self.columns.clone()) else { return false };
                columns
            }
        };
        let new = Table { columns, managed: true, format: "DELTA".into(), options: BTreeMap::new(), ..old.clone() };
        kept::tell(p, "table", name, &show_create::table(old), &show_create::table(&new))
    }
}

/// Tells of timestamps without a zone, which become instants of UTC here.
fn walls(p: &dyn Planning, table: &Name, fields: &Fields) {
    let naive: Vec<String> =
        fields.iter().filter(|f| matches!(f.data_type(), ArrowType::Timestamp(_, None))).map(|f| quote(f.name())).collect();
    if let Some(first) = naive.first() {
        let (are, them) = if naive.len() == 1 { ("has", "it is") } else { ("have", "they are") };
        p.names().notice(format!(
            "table {table}: {} {are} no time zone, {them} read as UTC; where the times are of another zone write {first} AT TIME ZONE 'Europe/Berlin' AS {first} in the query",
            naive.join(", ")
        ));
    }
}

/// A column as it was written. What its type says and the table does not keep is told.
fn declared(p: &dyn Planning, c: &ColumnDef) -> Result<Column> {
    let text = c.data_type.to_string();
    let span = Span::from_sql(c.name.span);
    let name = if c.name.quote_style.is_some() { c.name.value.clone() } else { c.name.value.to_lowercase() };
    let mut read = Cursor::new(&text)?;
    let data_type = read.data_type().map_err(|e| e.without_span().or_span(span))?;
    if !read.is_end() {
        return Err(Error::invalid(format!("column {name:?}: the type {text} is not supported"))
            .or_span(span)
            .with_hint(format!("{data_type} is; DECIMAL(p, s) has digits, other types have no size")));
    }
    let sized = matches!(&c.data_type, DataType::Timestamp(Some(n), _) | DataType::Datetime(Some(n)) if *n != 6)
        || (text.contains('(') && data_type.to_string().starts_with("VARCHAR"));
    if sized {
        p.names().notice(format!("column {name:?}: {text} is kept as {data_type}, without the size"));
    }
    Ok(Column { name, data_type })
}

fn distinct(columns: &[Column], table: &Name) -> Result<()> {
    columns.iter().try_for_each(|c| check_column_name(&c.name)).map_err(|e| e.context(format!("table {table}")))?;
    match columns.iter().enumerate().find(|(i, c)| columns[..*i].iter().any(|o| o.name == c.name)) {
        Some((_, twice)) => {
            Err(Error::invalid(format!("table {table} has two columns called {:?}", twice.name)).with_hint("give one of them another name"))
        }
        None => Ok(()),
    }
}

/// Columns of a table that a query fills: named by the list in front of AS, where there is one, and by the query.
fn filled(name: &Name, plan: &LogicalPlan, typed: Vec<Column>, named: Vec<(String, Span)>) -> Result<Vec<Column>> {
    let given = plan.schema().fields();
    let listed = typed.len().max(named.len());
    if listed == 0 {
        check_columns(plan, &format!("table {name}"))?;
    } else if listed != given.len() {
        return Err(Error::invalid(format!("the list names {listed} column(s) of table {name}, and the query gives {}", given.len()))
            .with_hint("name each column of the query, in its order, or leave the list out"));
    }
    if !typed.is_empty() {
        return Ok(typed);
    }
    let names = named.into_iter().map(|(n, _)| n).chain(given[listed..].iter().map(|f| f.name().clone()));
    let stored = |n: String, t| {
        ColumnType::stored(t)
            .map(|data_type| Column { name: n.clone(), data_type })
            .map_err(|e| e.context(format!("column {n:?} of table {name}")))
    };
    names.zip(given.iter()).map(|(n, f)| stored(n, f.data_type())).collect()
}
