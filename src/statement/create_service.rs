//! `CREATE [OR REPLACE] FEATURE SERVICE …`: resolves its views, checks every expression, pins versions.

use async_trait::async_trait;
use datafusion::logical_expr::ExprSchemable;
use sqlparser::tokenizer::Token;
use std::collections::BTreeMap;

use super::{Head, Parsed, Planned, Planning, Statement, about, kept, show_create, with_waiting};
use crate::catalog::ddl::{Ddl, Exists};
use crate::error::{Error, Result, Span};
use crate::model::layout::check_column_name;
use crate::model::types::ColumnType;
use crate::model::{About, Column, Dependency, Service, ServiceItem, ServiceOutput, VersionSpec};
use crate::plan::target::{Target, TargetItem};
use crate::plan::{names::Names, service};
use crate::sql::Cursor;
use crate::sql::cursor::NameRef;

#[derive(Debug, Clone)]
enum Item {
    /// `u.*`
    All(String, Span),
    Expr {
        text: String,
        alias: Option<String>,
        span: Span,
    },
}

#[derive(Debug, Clone)]
struct From {
    view: NameRef,
    alias: String,
    roles: Vec<(String, String, Span)>,
}

#[derive(Debug, Clone)]
pub struct CreateService {
    name: NameRef,
    or_replace: bool,
    if_not_exists: bool,
    request: Vec<Column>,
    items: Vec<Item>,
    from: Vec<From>,
    query: String,
    about: About,
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let Head { cursor: mut c, or_replace, .. } = head;
    let if_not_exists = c.eat("IF NOT EXISTS");
    about::exclusive(&c, or_replace, if_not_exists)?;
    let name = c.plain_name("feature service")?;
    let (mut request, mut about) = (vec![], About::default());
    loop {
        if request.is_empty() && c.eat("REQUEST") {
            request = c.list(|c| c.column())?;
        } else if !about::clause(&mut c, &mut about)? {
            break;
        }
    }
    if !c.eat("AS") {
        c.end(&["REQUEST (column TYPE, …)", "COMMENT '…'", "OWNER '…'", "TAGS (…)", "AS SELECT …"])?;
        return Err(c.expected("AS SELECT … FROM feature views"));
    }
    let query = c.clone().rest()?.to_string();
    c.want("SELECT")?;
    if c.is("DISTINCT") {
        return Err(refused(&c, "DISTINCT"));
    }
    let mut items = vec![];
    loop {
        items.push(item(&mut c)?);
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    c.want("FROM")?;
    let mut from: Vec<From> = vec![];
    loop {
        from.push(from_item(&mut c)?);
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    for word in ["WHERE", "GROUP BY", "HAVING", "ORDER BY", "LIMIT", "JOIN", "LEFT", "INNER", "CROSS", "UNION", "ASOF"] {
        if c.is(word) {
            return Err(refused(&c, word));
        }
    }
    c.end(&[])?;
    Ok(Box::new(CreateService { name, or_replace, if_not_exists, request, items, from, query, about }))
}

fn refused(c: &Cursor<'_>, word: &str) -> Error {
    Error::invalid(format!("a feature service cannot hold {word}"))
        .with_span(c.here())
        .with_hint("a service has one row per request: list feature views in FROM, scalar expressions in SELECT; filter or aggregate in a feature view's query")
}

fn item(c: &mut Cursor<'_>) -> Result<Item> {
    if let (Some(Token::Word(_)), Some(Token::Period), Some(Token::Mul)) =
        (c.peek(0).map(|t| &t.token), c.peek(1).map(|t| &t.token), c.peek(2).map(|t| &t.token))
    {
        let (alias, span) = c.identifier("an alias")?;
        c.eat_token(&Token::Period);
        c.eat_token(&Token::Mul);
        return Ok(Item::All(alias, span));
    }
    if c.is_token(&Token::Mul) {
        return Err(Error::syntax("write alias.* for the features of one view").with_span(c.here()));
    }
    let (text, span) = c.until(&[",", "FROM"], "an expression")?;
    // the alias is what stands last: `expr AS name` or `expr name`
    let mut inner = Cursor::new(&text)?;
    let mut tokens = vec![];
    while let Some(t) = inner.peek(0).cloned() {
        tokens.push(t);
        let next = tokens.last().map(|t| t.token.clone());
        if let Some(t) = next {
            inner.eat_token(&t);
        }
    }
    let word = |i: usize| match tokens.get(i).map(|t| &t.token) {
        Some(Token::Word(w)) => Some(w),
        _ => None,
    };
    let n = tokens.len();
    let as_at = n.checked_sub(2).filter(|i| word(*i).is_some_and(|w| w.quote_style.is_none() && w.value.eq_ignore_ascii_case("as")));
    if let (Some(i), Some(w)) = (as_at, word(n.saturating_sub(1))) {
        let end = tokens[i].span.start;
        let expr = crate::sql::text::slice(&text, tokens[0].span.start, end).trim().to_string();
        if expr.is_empty() {
            return Err(Error::syntax("an expression is missing before AS").with_span(span));
        }
        return Ok(Item::Expr { text: expr, alias: Some(crate::sql::tokens::fold(w)), span });
    }
    Ok(Item::Expr { text, alias: None, span })
}

fn from_item(c: &mut Cursor<'_>) -> Result<From> {
    if c.is_token(&Token::LParen) {
        return Err(refused(c, "a subquery"));
    }
    let view = c.name("a feature view")?;
    let clause = |c: &Cursor<'_>| c.is("FOR") && c.peek(1).is_some_and(|t| t.token == Token::LParen);
    let ends = ["WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "JOIN", "LEFT", "INNER", "CROSS", "UNION", "ASOF"];
    let mut alias = view.name.clone();
    let bare_word =
        |c: &Cursor<'_>| !clause(c) && !ends.iter().any(|w| c.is(w)) && matches!(c.peek(0).map(|t| &t.token), Some(Token::Word(_)));
    if c.eat("AS") || bare_word(c) {
        alias = c.identifier("an alias")?.0;
    }
    let mut roles = vec![];
    if clause(c) {
        c.eat("FOR");
        roles = c.list(|c| {
            let (key, span) = c.identifier("a key of the view")?;
            c.want_token(&Token::Eq)?;
            let (callers, _) = c.identifier("the caller's column")?;
            Ok((key, callers, span))
        })?;
    }
    Ok(From { view, alias, roles })
}

#[async_trait]
impl Statement for CreateService {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let names = p.names();
        let name = names.name(&self.name);
        let mut items: Vec<ServiceItem> = vec![];
        let mut targets: Vec<TargetItem> = vec![];
        for f in &self.from {
            let full = names.name(&f.view);
            if !names.catalog().feature_views.contains_key(&full) {
                let e = match names.catalog().relation(&full) {
                    Some(r) => Error::invalid(format!("{} {full} is not a feature view", r.kind()))
                        .with_hint("a feature service reads feature views only; declare one over it"),
                    None => names
                        .catalog()
                        .feature_view_series(&full)
                        .map(|_| ())
                        .err()
                        .unwrap_or_else(|| Error::not_found(format!("feature view {full} does not exist"))),
                };
                return Err(e.or_span(f.view.span));
            }
            let view = names.feature_view(&f.view)?;
            if targets.iter().any(|t| t.alias == f.alias) {
                return Err(Error::invalid(format!("feature service {name} has two items called {:?}", f.alias))
                    .or_span(f.view.span)
                    .with_hint(format!("give one an alias: {} other_name", f.view.name)));
            }
            let mut roles = BTreeMap::new();
            for (key, callers, span) in &f.roles {
                if !view.keys.iter().any(|k| k.name == *key) {
                    return Err(Error::not_found(format!("{key:?} is not a key of feature view {}", view.name))
                        .suggest(key, view.key_names())
                        .or_hint(&format!("its keys are {}", view.key_names().join(", ")))
                        .with_span(*span));
                }
                roles.insert(key.clone(), callers.clone());
            }
            let pin = match f.view.version {
                Some(VersionSpec::Latest) => VersionSpec::Latest,
                _ => VersionSpec::Version(view.version),
            };
            items.push(ServiceItem { alias: f.alias.clone(), view: view.name.clone(), pin, roles: roles.clone() });
            targets.push(TargetItem { alias: f.alias.clone(), view, roles });
        }
        let target = Target { name: name.clone(), items: targets, request: self.request.clone(), outputs: Some(vec![]) };
        let read = |f: &From| Dependency { version: f.view.version.map(|_| 0), ..Dependency::of(names.name(&f.view), None) };
        let named: Vec<Dependency> = self.from.iter().map(read).collect();
        let outputs = self.outputs(names.as_ref(), &target).map_err(|e| with_waiting(e, names.catalog(), &named))?;
        let service = Service {
            name: name.clone(),
            request: self.request,
            items,
            outputs,
            query: self.query,
            about: self.about,
            created_at: p.now(),
        };
        if self.if_not_exists
            && let Some(old) = p.names().catalog().services.get(&service.name)
        {
            kept::tell(p, "feature service", &service.name, &show_create::service(old), &show_create::service(&service));
        }
        let ddl = Ddl::CreateService { service, exists: Exists::of(self.or_replace, self.if_not_exists) };
        p.allows(&ddl).map_err(|e| e.or_span(self.name.span))?;
        Planned::ddl("CREATE FEATURE SERVICE", ddl)
    }
}

impl CreateService {
    fn outputs(&self, names: &dyn Names, target: &Target) -> Result<Vec<ServiceOutput>> {
        let schema = service::schema(target)?;
        let mut out: Vec<ServiceOutput> = vec![];
        let mut add = |o: ServiceOutput, span: Span| {
            if out.iter().any(|x| x.name == o.name) {
                return Err(Error::invalid(format!("two features of feature service {} are called {:?}", target.name, o.name))
                    .with_span(span)
                    .with_hint("give one of them another name with AS"));
            }
            out.push(o);
            Ok(())
        };
        for item in &self.items {
            match item {
                Item::All(alias, span) => {
                    let Some(t) = target.items.iter().find(|t| t.alias == *alias) else {
                        let all: Vec<&str> = target.items.iter().map(|t| t.alias.as_str()).collect();
                        return Err(Error::not_found(format!("{alias:?} is not in FROM")).with_span(*span).suggest(alias, all));
                    };
                    for f in &t.view.features {
                        let expr = format!("{}.{}", crate::model::types::quote(alias), crate::model::types::quote(&f.name));
                        add(ServiceOutput { name: f.name.clone(), expr, data_type: f.data_type.clone() }, *span)?;
                    }
                }
                Item::Expr { text, alias, span } => {
                    let moved = |e: Error| {
                        let place = e.span().map_or(*span, |s| crate::sql::text::shift(s, span.line, span.column));
                        e.with_span(place)
                    };
                    let raw = service::expression(names, text, target, &schema).map_err(moved)?;
                    let name = match (alias, &raw) {
                        (Some(a), _) => a.clone(),
                        (None, datafusion::logical_expr::Expr::Column(c)) => c.name.clone(),
                        _ => {
                            return Err(Error::invalid(format!("expression {text} needs a name"))
                                .with_span(*span)
                                .with_hint(format!("write {text} AS name")));
                        }
                    };
                    check_column_name(&name).map_err(|e| e.with_span(*span))?;
                    let expr = service::safe(raw, &schema).map_err(|e| e.with_span(*span))?;
                    let t = expr.get_type(&schema).map_err(|e| moved(e.into()))?;
                    let data_type = ColumnType::stored(&t).map_err(|e| e.context(format!("column {name:?}")).with_span(*span))?;
                    add(ServiceOutput { name, expr: text.clone(), data_type }, *span)?;
                }
            }
        }
        for w in target.wanted()? {
            if let Some(o) = out.iter().find(|o| o.name == w.name) {
                return Err(Error::invalid(format!(
                    "feature {:?} of feature service {} has the name of a key or request column",
                    o.name, target.name
                ))
                .with_hint("give it another name with AS"));
            }
        }
        Ok(out)
    }
}
