//! From a statement to a logical plan: the stock planner with our relations and wildcards put in.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::{CopyToSource, Statement as DfStatement};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sqlparser::ast::{Query, Statement as SqlStatement, Visit};

use super::resolver::{Resolver, Tables};
use super::source;
use super::{insert, named_files};
use crate::clock::Micros;
use crate::engine::functions;
use crate::engine::physical::PhysicalOptions;
use crate::engine::session_state::set_instant;
use crate::error::{Error, Result, Span};
use crate::model::Dependency;
use crate::model::local_time::Doubtful;
use crate::plan::blame::{blame, place_of_outer};
use crate::plan::names::Names;
use crate::plan::pit_join::syntax;
use crate::plan::relations::Relations;
use crate::plan::rewrites::{self, Functions};
use crate::plan::shallow::shallow_all;
use crate::plan::subqueries;
use crate::plan::weight::weigh;
use crate::plan::{at_time_zone, settle};
use crate::sql::cursor::NameRef;
use crate::sql::{clauses, marks, references, titles};
use crate::statement::{Planning, with_waiting};

/// A session state for a statement: its tables, its instant, its schema.
pub fn state(resolver: &Arc<Resolver>, schema: &str) -> Result<SessionState> {
    let names: Arc<dyn Names> = Arc::clone(resolver) as Arc<dyn Names>;
    let base = resolver.services.base()?;
    let options = PhysicalOptions { commands: resolver.effects().planner(resolver), memory_limit: resolver.services.config.memory_limit };
    let mut config = base.config().clone().with_default_catalog_and_schema(crate::sql::cursor::CATALOG, schema);
    config.set_extension(Arc::new(options));
    let mut state = base.clone();
    *state.config_mut() = config;
    state.register_catalog_list(Arc::new(Tables(Arc::clone(resolver))));
    state.register_relation_planner(Arc::new(Relations { names }))?;
    set_instant(&mut state, resolver.instant);
    state.register_udf(at_time_zone::function(Some(tell_of_switches(resolver))))?;
    state.register_udf(functions::current_schema(schema))?;
    Ok(state)
}

/// One notice for all local times of a zone that a switch of its clocks makes doubtful.
fn tell_of_switches(resolver: &Arc<Resolver>) -> at_time_zone::Tell {
    let notices = resolver.notice_list();
    let zones: Mutex<BTreeMap<String, (Doubtful, String)>> = Mutex::default();
    Arc::new(move |found, zone| {
        let mut zones = zones.lock();
        let (all, told) = zones.entry(zone.to_string()).or_default();
        all.add(found);
        let Some(text) = all.notice("AT TIME ZONE", zone) else { return };
        let mut list = notices.lock();
        list.retain(|n| n != told);
        list.push(text.clone());
        *told = text;
    })
}

/// Plans a statement of the stock parser: loads its tables, folds its ASOF and ONLINE joins, expands its wildcards.
pub fn plan_sql<'a>(resolver: &'a Arc<Resolver>, statement: DfStatement, schema: &'a str) -> BoxFuture<'a, Result<LogicalPlan>> {
    Box::pin(async move {
        let text = statement.clone();
        plan_statement(resolver, statement, schema).await.map_err(|e| with_waiting(e, &resolver.catalog, &references::of(&text, schema)))
    })
}

async fn plan_statement(resolver: &Arc<Resolver>, mut statement: DfStatement, schema: &str) -> Result<LogicalPlan> {
    crate::statement::refuse_changes(&statement)?;
    let state = state(resolver, schema)?;
    check_functions(&statement, &state)?;
    for (files, table) in named_files::open(&resolver.services, resolver.instant, resolver.loaded_tables(), &mut statement).await? {
        resolver.provide_files(schema, files, table);
    }
    with_queries(&mut statement, &mut |q| {
        syntax::fold(q);
        Ok(())
    })?;
    let mut missing = vec![];
    let functions_called = references::functions(&statement);
    for reference in state.resolve_table_references(&statement)? {
        let (s, t) = (reference.schema().unwrap_or(schema).to_string(), reference.table().to_string());
        if s == "information_schema" || reference.catalog().is_some_and(|c| c != crate::sql::cursor::CATALOG) {
            continue;
        }
        match resolver.load(&s, &t).await {
            Ok(Some(_)) => {}
            // `generate_series(1, 3)` is no table that is missing
            Ok(None) if reference.schema().is_none() && functions_called.contains(&t) => {}
            Ok(None) => missing.push((s, t)),
            Err(e) => return Err(locate(e, &statement, &t)),
        }
    }
    resolver.note(references::of(&statement, schema));
    let limit = resolver.services.config.max_relations;
    resolver.weighed(weigh(&statement, schema, limit, &|schema, name| resolver.weight(schema, name))?);
    let plan_query = |q: Query| -> Result<LogicalPlan> {
        let mut s = DfStatement::Statement(Box::new(SqlStatement::Query(Box::new(q))));
        marks::mark_statement(&mut s);
        // all tables are loaded: nothing is waited for
        match state.statement_to_plan(s).now_or_never() {
            Some(plan) => Ok(settle::plan(plan?)?),
            None => Err(Error::internal("planning had to wait for a table")),
        }
    };
    let copy = statement.clone();
    let by_name = |e: Error| told_by_name(e, &missing, resolver, schema, &copy);
    with_queries(&mut statement, &mut |q| {
        let functions =
            Functions { kind: &|name| functions::kind_of(&state, name), is_volatile: &|name| functions::is_volatile(&state, name) };
        rewrites::apply(q, &plan_query, &functions).map_err(by_name)?;
        titles::tell_apart(q);
        Ok(())
    })?;
    let mut taken = match missing.is_empty() {
        true => insert::take_query(resolver, &mut statement, schema).await?,
        false => None,
    };
    let query = taken.as_mut().and_then(insert::Taken::query).map(&plan_query).transpose()?;
    marks::mark_statement(&mut statement);
    let planned = state.statement_to_plan(statement).await.map_err(|e| by_name(e.into()))?;
    let planned = match (taken, query) {
        (Some(taken), Some(query)) => taken.put_back(planned, query)?,
        _ => settle::plan(planned)?,
    };
    Ok(shallow_all(planned)?)
}

/// The planner's error about one of the tables that are `missing`, in our words.
fn told_by_name(e: Error, missing: &[(String, String)], resolver: &Resolver, schema: &str, statement: &DfStatement) -> Error {
    let text = e.message();
    let is_named = |s: &str, t: &str| text.contains(t) && (resolver.schema == s || text.contains(s) || schema == s);
    match missing.iter().find(|(s, t)| text.contains("not found") && is_named(s, t)) {
        Some((s, t)) => locate(resolver.unknown(s, t).or_span(e.span()), statement, t),
        None => e,
    }
}

/// Refuses FILTER, DISTINCT and their like behind functions that do not obey them.
fn check_functions(statement: &DfStatement, state: &SessionState) -> Result<()> {
    match statement {
        DfStatement::Statement(s) => check_functions_in(s.as_ref(), state),
        DfStatement::CopyTo(c) => match &c.source {
            CopyToSource::Query(q) => check_functions_in(q.as_ref(), state),
            CopyToSource::Relation(_) => Ok(()),
        },
        DfStatement::Explain(e) => check_functions(&e.statement, state),
        DfStatement::CreateExternalTable(_) | DfStatement::Reset(_) => Ok(()),
    }
}

/// The same for a part of a statement; and refuses functions that do not exist.
pub fn check_functions_in(part: &impl Visit, state: &SessionState) -> Result<()> {
    functions::check_names(part, state)?;
    clauses::check_functions(part, &|name| functions::kind_of(state, name))
}

/// Finds the place of a table's name in a statement, for errors that have none.
fn locate(e: Error, statement: &DfStatement, table: &str) -> Error {
    use sqlparser::ast::{ObjectName, Spanned, Visitor};
    if e.span().is_some() {
        return e;
    }
    struct Find<'a>(&'a str, Option<Span>);
    impl Visitor for Find<'_> {
        type Break = ();
        fn pre_visit_relation(&mut self, n: &ObjectName) -> std::ops::ControlFlow<()> {
            let last = n.0.last().and_then(|p| p.as_ident());
            if last.is_some_and(|i| i.value == self.0 || i.value.to_lowercase() == self.0) {
                self.1 = Span::from_sql(n.span());
                return std::ops::ControlFlow::Break(());
            }
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut find = Find(table, None);
    match statement {
        DfStatement::Statement(s) => {
            let _ = s.visit(&mut find);
        }
        DfStatement::CopyTo(c) => {
            if let CopyToSource::Query(q) = &c.source {
                let _ = q.visit(&mut find);
            }
        }
        DfStatement::Explain(x) => return locate(e, &x.statement, table),
        _ => {}
    }
    e.or_span(find.1)
}

/// Applies `f` to the queries of a statement (which visit their own subqueries).
fn with_queries(statement: &mut DfStatement, f: &mut dyn FnMut(&mut Query) -> Result<()>) -> Result<()> {
    match statement {
        DfStatement::Statement(s) => sql_queries(s, f),
        DfStatement::CopyTo(c) => match &mut c.source {
            CopyToSource::Query(q) => f(q),
            CopyToSource::Relation(_) => Ok(()),
        },
        DfStatement::Explain(e) => with_queries(&mut e.statement, f),
        _ => Ok(()),
    }
}

fn sql_queries(s: &mut SqlStatement, f: &mut dyn FnMut(&mut Query) -> Result<()>) -> Result<()> {
    match s {
        SqlStatement::Query(q) => f(q),
        SqlStatement::Insert(i) => match &mut i.source {
            Some(q) => f(q),
            None => Ok(()),
        },
        SqlStatement::Explain { statement, .. } => sql_queries(statement, f),
        _ => Ok(()),
    }
}

/// Plans the statements of the dialect.
pub struct StatementPlanner {
    pub resolver: Arc<Resolver>,
    names: Arc<dyn Names>,
    warnings: Vec<(String, String)>,
}

impl StatementPlanner {
    pub fn new(resolver: Arc<Resolver>, warnings: Vec<(String, String)>) -> Self {
        let names = Arc::clone(&resolver) as Arc<dyn Names>;
        StatementPlanner { resolver, names, warnings }
    }
}

#[async_trait]
impl Planning for StatementPlanner {
    fn names(&self) -> &Arc<dyn Names> {
        &self.names
    }

    fn now(&self) -> Micros {
        self.resolver.instant
    }

    async fn sql(&self, statement: DfStatement, schema: &str) -> Result<LogicalPlan> {
        plan_sql(&self.resolver, statement, schema).await
    }

    fn dependencies(&self) -> Vec<Dependency> {
        self.resolver.dependencies()
    }

    async fn columns(&self, name: &NameRef) -> Result<SchemaRef> {
        let full = self.names.name(name);
        let table = match name.version {
            Some(crate::model::VersionSpec::Version(v)) => format!("{}@v{v}", full.name),
            _ => full.name.clone(),
        };
        match self.resolver.load(&full.schema, &table).await? {
            Some(t) => Ok(t.schema()),
            None => Err(self.resolver.unknown(&full.schema, &table).or_span(name.span)),
        }
    }

    async fn constant(&self, expression: &str) -> Result<ScalarValue> {
        use datafusion::logical_expr::simplify::SimplifyContext;
        let schema = DFSchema::empty();
        let expr = self.names.expression(expression, &schema)?;
        let bound = match &expr {
            Expr::Placeholder(p) => self.names.parameter(&p.id).map(|v| Expr::Literal(v, None)),
            _ => None,
        };
        let at = chrono::DateTime::from_timestamp_micros(self.resolver.instant);
        let cx = SimplifyContext::builder()
            .with_schema(Arc::new(schema))
            .with_config_options(Arc::clone(self.resolver.services.session.config().options()))
            .with_query_execution_start_time(at)
            .build();
        let simplifier = datafusion::optimizer::simplify_expressions::ExprSimplifier::new(cx);
        let expr = simplifier.coerce(bound.unwrap_or(expr), &DFSchema::empty()).and_then(|e| simplifier.simplify(e))?;
        match expr {
            Expr::Literal(v, _) => Ok(v),
            Expr::Placeholder(p) => Err(Error::invalid(format!("parameter {} has no value yet", p.id))),
            other => Err(Error::invalid(format!("{other} is not a constant"))),
        }
    }

    fn check(&self, plan: &LogicalPlan, text: &str) -> Result<()> {
        let optimized = state(&self.resolver, &self.resolver.schema)?.optimize(plan).map_err(Error::from);
        optimized.and_then(|o| subqueries::check(&o)).map_err(|e| place_of_outer(blame(e, plan, || None), text))
    }

    fn warnings(&self) -> Vec<(String, String)> {
        self.warnings.clone()
    }

    async fn infer(&self, table: &crate::model::Table) -> Result<SchemaRef> {
        source::infer(&self.resolver.services, table).await
    }

    async fn finds_hive(&self, table: &crate::model::Table) -> Result<bool> {
        source::finds_hive(&self.resolver.services, table).await
    }

    fn clock_tolerance(&self) -> Micros {
        self.resolver.services.config.clock_tolerance
    }
}
