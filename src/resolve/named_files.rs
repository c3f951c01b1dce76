//! Files that a query names by itself: `read_parquet('…')`, `read_csv('…', header => false)`, `FROM 'file.parquet'`. They
//! are external tables for one statement, with the same options.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::sql::parser::{CopyToSource, Statement as DfStatement};
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Spanned, TableAlias, TableFactor, Value, VisitMut, VisitorMut,
};

use super::source;
use crate::clock::Micros;
use crate::error::{Error, Result, Span};
use crate::model::{About, Name, SOURCE_KINDS, SourceKind, Table};
use crate::services::Services;

/// Schema of the names that stand for files. No user can make it.
const SCHEMA: &str = "";

/// A table that stands for files in a statement.
pub type Opened = (Arc<Table>, Arc<dyn TableProvider>);

/// Puts a name for each file or set of files that the statement names, and opens them. `loaded`: how many tables the
/// statement has by now.
pub async fn open(services: &Services, instant: Micros, loaded: usize, statement: &mut DfStatement) -> Result<Vec<Opened>> {
    let mut find = Find { instant, loaded, found: vec![] };
    let out = match statement {
        DfStatement::Statement(s) => s.visit(&mut find),
        DfStatement::CopyTo(c) => match &mut c.source {
            CopyToSource::Query(q) => q.visit(&mut find),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        DfStatement::Explain(e) => return Box::pin(open(services, instant, loaded, &mut e.statement)).await,
        DfStatement::CreateExternalTable(_) | DfStatement::Reset(_) => ControlFlow::Continue(()),
    };
    if let ControlFlow::Break(e) = out {
        return Err(e);
    }
    let mut all = vec![];
    for (mut table, place) in find.found {
        let opened = async {
            if source::finds_hive(services, &table).await? {
                table.options.insert(source::HIVE.into(), "true".into());
            }
            source::look_through(services, &table).await?;
            source::open(services, &table).await
        };
        let provider = opened.await.map_err(|e| e.or_span(place))?;
        all.push((Arc::new(table), provider));
    }
    Ok(all)
}

struct Find {
    instant: Micros,
    /// Tables that the statement, or a view of it, has by now: names must not meet.
    loaded: usize,
    found: Vec<(Table, Option<Span>)>,
}

impl VisitorMut for Find {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, t: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table { name, alias, args, .. } = t else { return ControlFlow::Continue(()) };
        let place = Span::from_sql(name.span());
        let read = match args {
            Some(args) => called(name, &args.args),
            None => quoted(name).map(|path| by_extension(&path)),
        };
        let Some(read) = read else { return ControlFlow::Continue(()) };
        let (mut table, shown) = match read {
            Ok(read) => read,
            Err(e) => return ControlFlow::Break(e.or_span(place)),
        };
        table.name = Name::new(SCHEMA, format!("{shown} ({})", self.loaded + self.found.len() + 1));
        table.created_at = self.instant;
        let ident = |s: &str| Ident::with_quote('"', s);
        *name = ObjectName::from(vec![ident(&table.name.name)]);
        *args = None;
        if alias.is_none() {
            *alias = Some(TableAlias { explicit: true, name: ident(&shown), columns: vec![], at: None });
        }
        self.found.push((table, place));
        ControlFlow::Continue(())
    }
}

type Read = Result<(Table, String)>;

fn table(format: &str, paths: &[String], options: BTreeMap<String, String>) -> Result<Table> {
    let location = paths.iter().map(|p| crate::statement::absolute(p)).collect::<Result<Vec<_>>>()?.join("\n");
    Ok(Table {
        name: Name::new(SCHEMA, ""),
        format: format.to_string(),
        location,
        managed: false,
        columns: vec![],
        options,
        partition_columns: vec![],
        replacing: None,
        about: About::default(),
        created_at: 0,
    })
}

/// `FROM 'file.parquet'`: a name in single quotes.
fn quoted(name: &ObjectName) -> Option<String> {
    let [part] = &name.0[..] else { return None };
    part.as_ident().filter(|i| i.quote_style == Some('\'')).map(|i| i.value.clone())
}

fn by_extension(path: &str) -> Read {
    let file = path.rsplit('/').next().unwrap_or(path);
    let mut bare = file.to_lowercase();
    for packed in [".gz", ".bz2", ".xz", ".zst"] {
        bare = bare.strip_suffix(packed).map(str::to_string).unwrap_or(bare);
    }
    let Some((kind, implied)) = bare.rsplit_once('.').and_then(|(_, ending)| SourceKind::of_ending(ending)) else {
        let readers: Vec<String> = SourceKind::readers().iter().map(|f| format!("{f}('…')")).collect();
        let (last, others) = (readers.last().cloned().unwrap_or_default(), readers[..readers.len().saturating_sub(1)].join(", "));
        return Err(Error::invalid(format!("the format of {path:?} is not known")).with_hint(format!("read it with {others} or {last}")));
    };
    let options = implied.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let shown = file.split(['.', '*', '?', '[']).next().filter(|s| !s.is_empty()).unwrap_or("files").to_string();
    Ok((table(kind.name, &[path.to_string()], options)?, shown))
}

/// `read_csv('path' | ['path', …], option => value, …)`
fn called(name: &ObjectName, args: &[FunctionArg]) -> Option<Read> {
    let [part] = &name.0[..] else { return None };
    let function = part.as_ident()?.value.to_lowercase();
    let Some(kind) = SourceKind::of_function(&function) else {
        return function.starts_with("read_").then(|| {
            let known = SOURCE_KINDS.iter().flat_map(|k| k.functions).filter(|f| f.starts_with("read_"));
            Err(Error::not_found(format!("there is no function {function}"))
                .with_hint(format!("files are read with {}", known.copied().collect::<Vec<_>>().join(", "))))
        });
    };
    Some(arguments(&function, kind, args))
}

fn arguments(function: &str, kind: &SourceKind, args: &[FunctionArg]) -> Read {
    let usage = format!("write {function}('path') or {function}(['path', 'path'], option => value); a path may hold * and **");
    let (mut paths, mut options) = (vec![], BTreeMap::new());
    for arg in args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) if paths.is_empty() => {
                paths = texts(e).ok_or_else(|| {
                    Error::invalid(format!("{function} wants a path in quotes, not {e}"))
                        .with_hint(&usage)
                        .or_span(Span::from_sql(e.span()))
                })?;
            }
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(e), operator: _ } => {
                let value = option(e).ok_or_else(|| {
                    Error::invalid(format!("option {} of {function} wants a value, not {e}", name.value)).or_span(Span::from_sql(e.span()))
                })?;
                if options.insert(name.value.to_lowercase(), value).is_some() {
                    return Err(
                        Error::invalid(format!("option {} of {function} is written twice", name.value)).or_span(Span::from_sql(name.span))
                    );
                }
            }
            FunctionArg::ExprNamed { name, arg: FunctionArgExpr::Expr(e), operator: _ } => {
                let value = option(e).ok_or_else(|| Error::invalid(format!("option {name} of {function} wants a value, not {e}")))?;
                options.insert(name.to_string().to_lowercase(), value);
            }
            other => return Err(Error::invalid(format!("{function} does not take {other}")).with_hint(usage)),
        }
    }
    if paths.is_empty() {
        return Err(Error::invalid(format!("{function} wants a path")).with_hint(usage));
    }
    if paths.len() > 1 && !kind.is_files {
        return Err(
            Error::invalid(format!("{function} reads one table")).with_hint("write one SELECT per table, with UNION ALL between them")
        );
    }
    Ok((table(kind.name, &paths, options)?, function.to_string()))
}

fn text(e: &Expr) -> Option<String> {
    match e {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) => Some(s.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn texts(e: &Expr) -> Option<Vec<String>> {
    match e {
        Expr::Array(list) => list.elem.iter().map(text).collect(),
        one => text(one).map(|t| vec![t]),
    }
}

fn option(e: &Expr) -> Option<String> {
    match e {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) => Some(s.clone()),
            Value::Boolean(b) => Some(b.to_string()),
            Value::Number(n, _) => Some(n.to_string()),
            _ => None,
        },
        Expr::Identifier(i) => Some(i.value.clone()),
        _ => None,
    }
}
