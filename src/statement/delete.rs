//! `[WITH …] DELETE FROM table | view [[AS] alias] [WHERE …]`. Every other clause that the parser reads is refused.

use async_trait::async_trait;
use datafusion::sql::parser::Statement as DfStatement;
use sqlparser::ast::{
    Delete as SqlDelete, FromTable, Ident, ObjectName, ObjectNamePart, Query, SetExpr, Spanned, Statement as SqlStatement, TableAlias,
    TableFactor, TableWithJoins, With,
};

use super::training_set::volatile_function;
use super::{Planned, Planning, Statement};
use crate::catalog::Relation;
use crate::error::{Error, Result, Span};
use crate::model::Name;
use crate::model::windowed::EVENTS;
use crate::plan::command::{Command, Deletion};
use crate::plan::deletion::matching_rows;
use crate::sql::cursor::NameRef;
use crate::sql::rewrite::TIME_TRAVEL;

#[derive(Debug, Clone)]
pub struct Delete {
    /// As it was written.
    text: String,
    target: NameRef,
    /// `SELECT … FROM target WHERE …`: what the DELETE removes.
    query: Query,
    /// Whether there is a WHERE.
    is_chosen: bool,
}

/// A DELETE as the parser read it, behind `with`.
fn read(text: &str, with: Option<With>, delete: SqlDelete) -> Result<Delete> {
    refuse_clauses(&delete)?;
    let mut from = match delete.from {
        FromTable::WithFromKeyword(from) => from,
        FromTable::WithoutKeyword(from) if delete.selection.is_some() => from,
        // all rows of a table are not to go by a word that was left out
        FromTable::WithoutKeyword(from) => {
            return Err(Error::not_built("DELETE without FROM and WHERE")
                .or_span(from.first().and_then(|t| Span::from_sql(t.span())))
                .with_hint("write DELETE FROM table WHERE …, or TRUNCATE table for all of its rows"));
        }
    };
    if from.len() > 1 {
        return Err(several(from[1].span()));
    }
    let Some(table) = from.pop() else { return Err(Error::syntax("DELETE names no table").with_hint("write DELETE FROM table WHERE …")) };
    if let Some(join) = table.joins.first() {
        return Err(several(join.span()));
    }
    let target = target(&table)?;
    if let Some(with) = &with {
        refuse_shadowed(with, &target)?;
    }
    let mut query = crate::sql::parse::query("SELECT 1")?;
    let SetExpr::Select(select) = query.body.as_mut() else { return Err(Error::internal("a SELECT was read as something else")) };
    select.from = vec![table];
    let is_chosen = delete.selection.is_some();
    select.selection = delete.selection;
    query.with = with;
    Ok(Delete { text: text.to_string(), target, query, is_chosen })
}

fn refuse_clauses(d: &SqlDelete) -> Result<()> {
    const CHOOSE: &str = "say in WHERE which rows go, for example WHERE id IN (SELECT id FROM … ORDER BY … LIMIT 10)";
    const JOIN: &str = "ask the other table in WHERE: … IN (SELECT …), or EXISTS (SELECT …)";
    const SHOW: &str = "SELECT the rows with the same WHERE before they are removed";
    let refuse =
        |what: &str, at: Option<Span>, hint: &str| Err(Error::not_built(format!("DELETE with {what}")).or_span(at).with_hint(hint));
    if let Some(t) = d.tables.first() {
        return refuse("a list of tables before FROM", Span::from_sql(t.span()), "write one DELETE FROM table WHERE … per table");
    }
    if let Some(using) = &d.using {
        return refuse("USING", using.first().and_then(|t| Span::from_sql(t.span())), JOIN);
    }
    if let Some(limit) = &d.limit {
        return refuse("LIMIT", Span::from_sql(limit.span()), CHOOSE);
    }
    if let Some(by) = d.order_by.first() {
        return refuse("ORDER BY", Span::from_sql(by.expr.span()), CHOOSE);
    }
    if let Some(items) = &d.returning {
        return refuse("RETURNING", items.first().and_then(|i| Span::from_sql(i.span())), SHOW);
    }
    if d.output.is_some() {
        return refuse("OUTPUT", None, SHOW);
    }
    if !d.optimizer_hints.is_empty() {
        return refuse("optimizer hints", None, "leave them out");
    }
    Ok(())
}

fn several(at: sqlparser::tokenizer::Span) -> Error {
    Error::not_built("DELETE FROM several tables")
        .or_span(Span::from_sql(at))
        .with_hint("ask the other table in WHERE: … IN (SELECT …), or EXISTS (SELECT …)")
}

/// The name of the one table; all that may stand behind it is an alias.
fn target(table: &TableWithJoins) -> Result<NameRef> {
    let at = Span::from_sql(table.relation.span());
    let refuse = |what: &str| Err(Error::not_built(format!("DELETE FROM {what}")).or_span(at).with_hint("write DELETE FROM table WHERE …"));
    let TableFactor::Table { name, alias, args, with_hints, version, with_ordinality, partitions, json_path, sample, index_hints } =
        &table.relation
    else {
        return refuse("something that is not the name of a table or feature view");
    };
    if args.is_some() || *with_ordinality || json_path.is_some() {
        return refuse("a function");
    }
    if sample.is_some() {
        return refuse("a sample of a table");
    }
    if !with_hints.is_empty() || !index_hints.is_empty() || !partitions.is_empty() || version.is_some() {
        return refuse("a table with hints, partitions or a version");
    }
    if alias.as_ref().is_some_and(|a| !a.columns.is_empty() || a.at.is_some()) {
        return refuse("a table whose columns get other names");
    }
    named(name, at)
}

fn named(name: &ObjectName, at: Option<Span>) -> Result<NameRef> {
    let parts = name.0.iter().map(|p| p.as_ident().map(fold)).collect::<Option<Vec<_>>>();
    let parts = parts.ok_or_else(|| Error::syntax(format!("{name} is not the name of a table or feature view")).or_span(at))?;
    if let Some((table, _)) = parts.last().and_then(|t| t.split_once(TIME_TRAVEL)) {
        return Err(Error::invalid(format!("DELETE FROM {table}: an old version cannot be changed"))
            .or_span(at)
            .with_hint(format!("write DELETE FROM {table} WHERE …, which removes rows from now on; old versions keep them")));
    }
    NameRef::from_parts(parts, at)
}

fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// In a SELECT the name would mean the one of WITH.
fn refuse_shadowed(with: &With, target: &NameRef) -> Result<()> {
    let same = |ident: &Ident| target.schema.is_none() && fold(ident).split('@').next() == Some(target.name.as_str());
    match with.cte_tables.iter().find(|c| same(&c.alias.name)) {
        Some(cte) => Err(Error::invalid(format!("WITH gives {:?}, from which the rows are to be removed, another meaning", target.name))
            .or_span(Span::from_sql(cte.alias.name.span))
            .with_hint("use another name in WITH")),
        None => Ok(()),
    }
}

#[async_trait]
impl Statement for Delete {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let name = p.names().name(&self.target);
        let is_table = self.check_target(p, &name)?;
        let mut query = self.query.clone();
        if !is_table && p.names().feature_view(&self.target).is_ok_and(|v| v.windowed.is_some()) {
            over_events(&mut query);
        }
        let statement = DfStatement::Statement(Box::new(SqlStatement::Query(Box::new(query))));
        let schema = p.names().schema().to_string();
        let plan = p.sql(statement, &schema).await?;
        if let Some(function) = volatile_function(&plan)? {
            return Err(Error::invalid(format!(
                "DELETE FROM {name} cannot use {function}(): which rows go must not be a matter of chance"
            ))
            .or_span(self.target.span)
            .with_hint("choose the rows by their values, or by the keys that a SELECT found"));
        }
        let table = is_table.then(|| p.names().plain_table(&name)).transpose()?;
        let (rows, source) = matching_rows(&plan, self.is_chosen, table)?;
        if *source.name() != name {
            return Err(Error::internal(format!("DELETE FROM {name} was planned for {}; nothing was removed", source.name())));
        }
        let deletion = Deletion { target: source.target(), delta_version: source.snapshot().version(), statement: self.text, schema };
        Planned::command("DELETE", Command::Delete(deletion), vec![rows])
    }
}

/// Rows of a windowed view are its events: their table takes the place of the view, under its name.
pub fn over_events(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    for table in &mut select.from {
        let TableFactor::Table { name, alias, .. } = &mut table.relation else { continue };
        let Some(ObjectNamePart::Identifier(last)) = name.0.last_mut() else { continue };
        let view = fold(last);
        let (base, version) = view.split_once('@').map_or((view.as_str(), String::new()), |(b, v)| (b, format!("@{v}")));
        if alias.is_none() {
            let name = Ident { span: last.span, ..Ident::with_quote('"', base) };
            *alias = Some(TableAlias { explicit: true, name, columns: vec![], at: None });
        }
        *last = Ident { span: last.span, ..Ident::with_quote('"', format!("{base}{EVENTS}{version}")) };
    }
}

impl Delete {
    /// The query of a DELETE that was planned before, and whether it has a WHERE.
    pub fn query_of(text: &str) -> Result<(Query, bool)> {
        let DfStatement::Statement(s) = crate::sql::parse::statement(text)? else {
            return Err(Error::internal("a DELETE was read as something else"));
        };
        match find(text, *s)? {
            Ok(d) => Ok((d.query, d.is_chosen)),
            Err(_) => Err(Error::internal("a DELETE was read as something else")),
        }
    }

    /// Rows can be removed from push views and from our tables; answers whether it is a table.
    fn check_target(&self, p: &dyn Planning, name: &Name) -> Result<bool> {
        let error = match p.names().catalog().relation(name) {
            Some(Relation::FeatureView(_)) => {
                let view = p.names().feature_view(&self.target)?;
                if view.is_push() {
                    return Ok(false);
                }
                Error::invalid(format!("feature view {name} is computed by its query; rows cannot be deleted"))
                    .with_hint(format!("change the source and REFRESH FEATURE VIEW {name}"))
            }
            // the planner says that there is no such table
            None if name.schema != crate::catalog::SYSTEM_SCHEMA => return Ok(false),
            Some(Relation::Table(t)) if t.managed => return Ok(true),
            Some(Relation::Table(t)) => Error::invalid(format!(
                "DELETE FROM {name}: rows of an external table cannot be removed, its files are others'"
            ))
            .with_hint(format!(
                "remove them where {} is written, or keep the others: CREATE TABLE … AS SELECT * FROM {name} WHERE …",
                t.location
            )),
            other => {
                let kind = other.map_or("system table", |r| r.kind());
                Error::invalid(format!("DELETE FROM {name}: rows of a {kind} cannot be removed"))
                    .with_hint("DELETE removes rows of push views, which are fed by INSERT, and of tables that CREATE TABLE has made")
            }
        };
        Err(error.or_span(self.target.span))
    }
}

/// The DELETE of a statement, `WITH … DELETE` too.
pub fn find(text: &str, statement: SqlStatement) -> Result<Result<Delete, SqlStatement>> {
    match statement {
        SqlStatement::Delete(d) => Ok(Ok(read(text, None, d)?)),
        SqlStatement::Query(q) if matches!(q.body.as_ref(), SetExpr::Delete(_)) => {
            let Query { with, body, order_by, limit_clause, fetch, locks, .. } = *q;
            if order_by.is_some() || limit_clause.is_some() || fetch.is_some() || !locks.is_empty() {
                return Err(Error::not_built("DELETE with ORDER BY or LIMIT").with_hint("say in WHERE which rows go"));
            }
            match *body {
                SetExpr::Delete(SqlStatement::Delete(d)) => Ok(Ok(read(text, with, d)?)),
                _ => Err(Error::internal("a DELETE was read as something else")),
            }
        }
        other => Ok(Err(other)),
    }
}
