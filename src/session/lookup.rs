//! Lookups that are planned once and run many times (docs/storage.md, "The registry": their catalog may be
//! `online_settings.catalog_max_age` old).

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::future::BoxFuture;

use super::compiled::{Compiled, compile};
use super::described::same_columns;
use super::parameters::parameters;
use super::plans::{Form, Key, Plan};
use super::{Notices, Outcome, Prepared, Session, state};
use crate::cancel::Cancel;
use crate::catalog::CatalogSnapshot;
use crate::clock::{self, Micros};
use crate::error::{Error, Kind, Result};
use crate::model::Column;
use crate::model::exact::exactly;
use crate::plan::lookup::{find, over_parameters};
use crate::sql::references::lookup_name;

/// A lookup by name, as a ticket asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LookupRequest {
    /// A feature view or service, as ONLINE_LOOKUP names it.
    pub name: String,
    /// For a name without one; `None`: the session's.
    pub schema: Option<String>,
    /// Adds status and event timestamp of each item.
    pub status: bool,
    /// Judge rows at this instant (microseconds, UTC) instead of now.
    pub at: Option<Micros>,
}

impl Session {
    /// The answer of `ONLINE_LOOKUP(name, rows …)`: columns are taken by name; one row per row of `rows`, in order.
    pub fn lookup<'a>(&'a self, request: &'a LookupRequest, rows: &'a RecordBatch) -> BoxFuture<'a, Result<(SchemaRef, Vec<RecordBatch>)>> {
        Box::pin(async move {
            let schema = request.schema.clone().unwrap_or_else(|| self.current_schema());
            let key = Key { schema, form: Form::Target { name: request.name.clone(), status: request.status } };
            let columns = |c: &Compiled| c.by_name(rows, &request.name);
            // places in a service's definition say nothing to who sent a ticket
            let answer = self.in_time(&request.name, self.planned(&key, &columns, request.at)).await.map_err(Error::without_span)?;
            answer.ok_or_else(|| Error::internal(format!("the lookup of {} cannot be planned for bound rows", request.name)))
        })
    }

    /// Runs a prepared lookup over all bound rows at once; `None` where each row needs a run of its own.
    pub(super) fn run_compiled<'a>(&'a self, prepared: &'a Prepared, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Option<Outcome>>> {
        Box::pin(async move {
            let Some(types) = prepared.parameters.iter().cloned().collect::<Option<Vec<DataType>>>() else { return Ok(None) };
            let key = Key { schema: self.current_schema(), form: Form::Text(prepared.sql.clone(), types.clone()) };
            let columns = |c: &Compiled| {
                same_columns(&prepared.schema, &c.described, "the result")?;
                bound(rows, &types)
            };
            let Some((schema, batches)) = self.in_time(&prepared.sql, self.planned(&key, &columns, None)).await? else { return Ok(None) };
            *self.own.notices.lock() = Notices::default();
            let rows = futures::stream::iter(batches.into_iter().map(Ok));
            Ok(Some(Outcome::Rows(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))))
        })
    }

    /// Looking up the catalog, planning and reading take no longer than a lookup may.
    async fn in_time<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let deadline = Duration::from_micros(self.engine.config().online_settings.lookup_deadline.max(0) as u64);
        clock::timeout(deadline, work).await.unwrap_or_else(|_| {
            Err(Error::unavailable(format!("lookup of {what}: not done within {} ms", deadline.as_millis()))
                .with_hint("try again; online_settings.lookup_deadline says how long a lookup may take"))
        })
    }

    async fn planned(
        &self,
        key: &Key,
        columns: &(dyn Fn(&Compiled) -> Result<Vec<ArrayRef>> + Sync),
        at: Option<Micros>,
    ) -> Result<Option<(SchemaRef, Vec<RecordBatch>)>> {
        let registry = &self.services().registry;
        let mut catalog = registry.recent(self.engine.config().online_settings.catalog_max_age).await?;
        loop {
            let done = async {
                let Plan::Ready(plan) = self.plan_of(key, &catalog).await? else { return Ok(None) };
                let rows = columns(&plan)?;
                let limit = self.engine.config().online_settings.max_keys;
                if rows.first().is_some_and(|r| r.len() > limit) {
                    return Err(Error::exhausted(format!("a lookup may ask for {limit} keys at most"))
                        .with_hint("ask in several lookups, use an ASOF JOIN for bulk reads, or raise online_settings.max_keys"));
                }
                let schema = Arc::clone(&plan.schema);
                Ok(Some((schema, plan.run(rows, at).await?)))
            };
            match crate::services::boxed(done).await {
                // what an old catalog says may be wrong
                Err(e) if matches!(e.kind(), Kind::Invalid | Kind::NotFound | Kind::Conflict) => {
                    let newest = registry.snapshot().await?;
                    if newest.version == catalog.version {
                        return Err(e);
                    }
                    catalog = newest;
                }
                done => return done,
            }
        }
    }

    /// The plan of this catalog or a newer one. All who want one wait for the one who makes it: after a change of the
    /// catalog they come all at once.
    async fn plan_of(&self, key: &Key, catalog: &Arc<CatalogSnapshot>) -> Result<Plan> {
        let plans = &self.engine.lookups.0;
        loop {
            match plans.get_value_or_guard_async(key).await {
                Ok(plan) if plan.catalog_version() >= catalog.version => return Ok(plan),
                Ok(_) => drop(plans.remove_if(key, |plan| plan.catalog_version() < catalog.version)),
                Err(place) => {
                    let (session, wanted, catalog) = (self.clone(), key.clone(), Arc::clone(catalog));
                    let plan = async move { session.make_plan(&wanted, &catalog).await };
                    let plan = self.workers().plan_lookup(&Cancel::default(), Box::pin(plan)).await?;
                    // it may have been thrown out already
                    let _ = place.insert(plan.clone());
                    return Ok(plan);
                }
            }
        }
    }

    async fn make_plan(&self, key: &Key, catalog: &Arc<CatalogSnapshot>) -> Result<Plan> {
        let session = self.in_schema(&key.schema);
        let resolver = session.resolver_at(Arc::clone(catalog), vec![], Notices::default());
        let (plan, wanted) = match &key.form {
            Form::Text(sql, _) => (session.plan(sql, &resolver).await?.plan, vec![]),
            Form::Target { name, status } => {
                let target = find(&*resolver, &lookup_name(name)?)?;
                let wanted = target.wanted()?;
                (over_parameters(&*resolver, &target, &wanted, *status)?, wanted)
            }
        };
        let types: Vec<DataType> = match &key.form {
            Form::Text(_, types) => {
                let now = parameters(&plan)?;
                if let Some(n) = now.iter().zip(types).position(|(now, then)| now.as_ref().is_some_and(|now| now != then)) {
                    return Err(Error::conflict(format!("parameter ${} has another type than when the statement was prepared", n + 1))
                        .with_hint("prepare the statement again"));
                }
                types.clone()
            }
            Form::Target { .. } => wanted.iter().map(|c: &Column| c.data_type.arrow().clone()).collect(),
        };
        let made = compile(self.services(), state(&resolver, &key.schema)?, catalog.version, &plan, &types, wanted).await?;
        Ok(made.map_or(Plan::PerRow { catalog_version: catalog.version }, |c| Plan::Ready(Arc::new(c))))
    }

    /// The same user in another schema; what it changes does not last.
    fn in_schema(&self, schema: &str) -> Session {
        if self.current_schema() == schema {
            return self.clone();
        }
        let other = self.engine.session();
        *other.own.schema.write() = schema.to_string();
        other
    }
}

/// The bound values in the types that the statement wants, a column per parameter.
fn bound(rows: &RecordBatch, types: &[DataType]) -> Result<Vec<ArrayRef>> {
    let typed = |(i, (values, want)): (usize, (&ArrayRef, &DataType))| {
        exactly(values, want).map_err(|e| e.context(format!("parameter ${}", i + 1)))
    };
    rows.columns().iter().zip(types).enumerate().map(typed).collect()
}

#[cfg(test)]
mod tests;
