//! Statements that are planned once, described to who will bind values, and run many times.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, ParamValues};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};

use super::{Handed, Notices, Outcome, Ready, Session, StatementKind, described, parameters};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::model::exact::exactly;
use crate::operator::bound_rows::BoundRows;
use crate::plan::blame::place_of_outer;
use crate::plan::bound_rows::{insert_over_bound_rows, parameter_schema};
use crate::plan::online_lookup::asks_online;
use crate::resolve::insert;
use crate::services::boxed;

/// A planned statement that can be run many times with different parameters.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub sql: String,
    pub kind: StatementKind,
    /// Columns of the result; empty for an Update.
    pub schema: SchemaRef,
    /// Columns that an INSERT fills, and those of what it reads; empty for other statements.
    pub fills: SchemaRef,
    /// One per placeholder, in the order $1, $2, …; `None`: any type (bind as text).
    pub parameters: Vec<Option<DataType>>,
    /// The same for clients, with a guess where any type will do.
    pub announced: Vec<Option<DataType>>,
    /// USE, SET and what else lasts for the session: refused where a client has none.
    pub changes_session: bool,
    /// It asks the online store.
    pub looks_up: bool,
    /// What a shell prints when it is done: `CREATE ENTITY`, `INSERT`, …
    pub tag: &'static str,
}

impl Session {
    /// Plans exactly one statement; runs nothing.
    pub fn prepare<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Prepared>> {
        let (session, text) = (self.clone(), sql.to_string());
        let work = self.workers().plan(&Cancel::default(), Box::pin(async move { session.prepare_one(text).await }));
        Box::pin(self.time_limit().over(work))
    }

    pub(super) async fn prepare_one(&self, sql: String) -> Result<Prepared> {
        let notices = Notices::default();
        let resolver = self.resolver(vec![], Arc::clone(&notices)).await?;
        let planned = self.plan(&sql, &resolver).await?;
        if !planned.tag.starts_with("SHOW") {
            *self.own.notices.lock() = notices;
        }
        if let Some(called) = self.called(&planned.plan)? {
            return Ok(Prepared { sql, parameters: vec![], announced: vec![], changes_session: true, looks_up: false, ..called });
        }
        let parameters = parameters::parameters(&planned.plan)?;
        Ok(Prepared {
            kind: planned.kind,
            schema: described::described(&planned),
            fills: described::fills(&planned.plan),
            announced: parameters::announced(&planned.plan, &parameters)?,
            parameters,
            changes_session: planned.changes_session,
            looks_up: asks_online(&planned.plan)?.is_some(),
            tag: planned.tag,
            sql,
        })
    }

    /// Runs a prepared statement once per row of `parameters` (columns in placeholder order);
    /// without parameters: once. Results of several rows follow one another; counts add up.
    pub async fn run(&self, prepared: &Prepared, parameters: Option<RecordBatch>) -> Result<Outcome> {
        if prepared.looks_up {
            return self.run_all(prepared, parameters).await;
        }
        let limit = self.time_limit();
        match limit.over(boxed(self.run_all(prepared, parameters))).await? {
            Outcome::Rows(rows) => Ok(Outcome::Rows(limit.rows(rows))),
            done => Ok(done),
        }
    }

    async fn run_all(&self, prepared: &Prepared, parameters: Option<RecordBatch>) -> Result<Outcome> {
        let bound = match &parameters {
            Some(b) => b.num_columns(),
            None => 0,
        };
        if bound < prepared.parameters.len() {
            return Err(Error::invalid(format!("the statement has {} parameter(s), {bound} bound", prepared.parameters.len())));
        }
        if let (true, Some(rows)) = (prepared.looks_up && prepared.kind == StatementKind::Query, &parameters)
            && rows.num_columns() > 0
            && let Some(outcome) = self.run_compiled(prepared, rows).await?
        {
            return Ok(outcome);
        }
        if let (true, Some(rows)) = (prepared.tag == "INSERT", &parameters)
            && rows.num_columns() > 0
            && rows.num_rows() > 0
            && let Some(outcome) = boxed(self.insert_rows(prepared, rows)).await?
        {
            return Ok(outcome);
        }
        let rows = match parameters {
            Some(b) if b.num_columns() > 0 && b.num_rows() != 1 => b,
            one => {
                let values = match one {
                    Some(b) if b.num_columns() > 0 => row_values(&b, 0, prepared)?,
                    _ => vec![],
                };
                return self.run_once(prepared, values).await;
            }
        };
        match prepared.kind {
            StatementKind::Update => {
                let mut total = 0;
                for row in 0..rows.num_rows() {
                    if let Outcome::Updated(n) = self.run_once(prepared, row_values(&rows, row, prepared)?).await? {
                        total += n;
                    }
                }
                Ok(Outcome::Updated(total))
            }
            _ => self.run_rows(prepared, rows).await,
        }
    }

    /// Runs an INSERT of a row of parameters once for all bound rows; `None` where each needs a run of its own.
    async fn insert_rows(&self, prepared: &Prepared, rows: &RecordBatch) -> Result<Option<Outcome>> {
        let Some(types) = prepared.parameters.iter().cloned().collect::<Option<Vec<DataType>>>() else { return Ok(None) };
        let (session, prepared, rows, cancel) = (self.clone(), prepared.clone(), rows.clone(), Cancel::default());
        let plan = async move { session.ready_for_rows(prepared, types, rows).await };
        match self.workers().plan(&cancel, Box::pin(plan)).await? {
            Some(ready) => self.finish(ready, &cancel).await.map(Some),
            None => Ok(None),
        }
    }

    async fn ready_for_rows(&self, prepared: Prepared, types: Vec<DataType>, rows: RecordBatch) -> Result<Option<Ready>> {
        let notices = Notices::default();
        let resolver = self.resolver(vec![], Arc::clone(&notices)).await?;
        let mut planned = self.plan(&prepared.sql, &resolver).await?;
        described::check(&prepared, &planned)?;
        let Some(plan) = insert_over_bound_rows(&planned.plan, &types)? else { return Ok(None) };
        let rows = insert::bound(&planned.plan, &rows, &types)?;
        planned.plan = plan;
        *self.own.notices.lock() = notices;
        let rows = RecordBatch::try_new(Arc::new(parameter_schema(&types)), rows)?;
        self.begin(planned, &resolver, Handed::Bound(BoundRows(rows))).await.map(Some)
    }

    /// A query for several bound rows: the results one after another.
    async fn run_rows(&self, prepared: &Prepared, rows: RecordBatch) -> Result<Outcome> {
        if rows.num_rows() == 0 {
            // columns are promised for no rows too
            let planned = self.plan(&prepared.sql, &self.resolver(vec![], Notices::default()).await?).await?;
            described::check(prepared, &planned)?;
        }
        let (session, prepared) = (self.clone(), prepared.clone());
        let schema = Arc::clone(&prepared.schema);
        let values = (0..rows.num_rows()).map(|r| row_values(&rows, r, &prepared)).collect::<Result<Vec<_>>>()?;
        let all = futures::stream::iter(values)
            .then(move |v| {
                let (session, prepared) = (session.clone(), prepared.clone());
                async move {
                    match session.run_once(&prepared, v).await? {
                        Outcome::Rows(s) => Ok::<_, Error>(s),
                        Outcome::Updated(_) => Err(Error::internal("a query answered a count")),
                    }
                }
            })
            .map_err(DataFusionError::from)
            .try_flatten();
        Ok(Outcome::Rows(Box::pin(RecordBatchStreamAdapter::new(schema, all))))
    }

    /// Plans and begins on threads of planning; what is left to do is done by the workers.
    fn run_once<'a>(&'a self, prepared: &'a Prepared, values: Vec<ScalarValue>) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let (session, prepared, cancel) = (self.clone(), prepared.clone(), Cancel::default());
            let ready = self.workers().plan(&cancel, Box::pin(async move { session.ready(prepared, values).await })).await?;
            self.finish(ready, &cancel).await
        })
    }

    pub(super) async fn ready(&self, prepared: Prepared, values: Vec<ScalarValue>) -> Result<Ready> {
        let notices = Notices::default();
        let resolver = self.resolver(values.clone(), Arc::clone(&notices)).await?;
        let mut planned = self.plan(&prepared.sql, &resolver).await?;
        match self.called(&planned.plan)? {
            Some(called) => described::same_columns(&prepared.schema, &called.schema, "the result")?,
            None => described::check(&prepared, &planned)?,
        }
        if !planned.tag.starts_with("SHOW") {
            *self.own.notices.lock() = notices;
        }
        if !values.is_empty() {
            planned.plan = planned.plan.with_param_values(ParamValues::from(values))?;
        }
        self.begin(planned, &resolver, Handed::Nothing).await.map_err(|e| place_of_outer(e, &prepared.sql))
    }
}

/// One row of bound values, in the types that the statement wants; a value that would be another one there is refused.
fn row_values(batch: &RecordBatch, row: usize, prepared: &Prepared) -> Result<Vec<ScalarValue>> {
    if row >= batch.num_rows() {
        return Ok(vec![]);
    }
    let value = |(i, c): (usize, &ArrayRef)| {
        let one = c.slice(row, 1);
        let one = match prepared.parameters.get(i) {
            Some(Some(want)) => exactly(&one, want).map_err(|e| e.context(format!("parameter ${}", i + 1)))?,
            _ => one,
        };
        Ok(ScalarValue::try_from_array(&one, 0)?)
    };
    batch.columns().iter().enumerate().map(value).collect()
}
