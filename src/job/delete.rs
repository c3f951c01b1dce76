//! DELETE FROM a push view: a query finds the `_seq` of the rows that go, and the files that hold them are written
//! again without them. Both look at one version of the table; where another writer was faster, both begin anew.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::common::ParamValues;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use futures::StreamExt;
use futures::future::BoxFuture;

use super::numbers::Numbers;
use super::push::{claim, serve};
use crate::clock::new_id;
use crate::error::{Error, Kind, Result};
use crate::model::FeatureView;
use crate::plan::command::Deletion;
use crate::plan::deletion::matching_rows;
use crate::plan::feature_table::SEQ;
use crate::resolve::planner::{plan_sql, state};
use crate::resolve::resolver::Resolver;
use crate::services::{Services, boxed};
use crate::statement::Delete;
use crate::store::offline::{Commit, DataFile, NewFile, Operation, Snapshot};
use crate::table::replace;

const MAX_ATTEMPTS: u32 = 10;

/// Removes the rows that `planned` finds; answers how many.
pub fn run<'a>(
    resolver: &'a Arc<Resolver>,
    deletion: &'a Deletion,
    planned: Arc<dyn ExecutionPlan>,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<u64>> {
    Box::pin(async move {
        let (services, view) = (&resolver.services, &resolver.version(&deletion.view)?);
        // the right to write online comes first: a row that is gone must not be served
        let claim = claim(services, view, "DELETE FROM").await?;
        let mut planned = Some(planned);
        for _ in 0..MAX_ATTEMPTS {
            let newest = services.store.snapshot(&view.location, None).await?;
            let (base, query) = match planned.take().filter(|_| newest.version() == deletion.delta_version) {
                Some(query) => (newest, query),
                None => boxed(planned_again(resolver, deletion, view, cx)).await?,
            };
            let gone = boxed(find(services, view, query, cx)).await?;
            if gone.is_empty() {
                return Ok(0);
            }
            let mut adds = vec![];
            let removes = match boxed(cut(services, view, &base, &gone, cx, &mut adds)).await {
                Ok(removes) => removes,
                Err(e) => {
                    services.store.discard(&view.location, &adds).await;
                    return Err(e);
                }
            };
            let commit = Commit {
                adds: adds.clone(),
                removes,
                operation: Operation::Delete,
                run_id: Some(new_id()),
                exposed: true,
                ..Default::default()
            };
            match services.store.commit(&base, commit).await {
                Ok(done) => {
                    if view.online {
                        serve(services, view, done.version(), cx).await?;
                    }
                    drop(claim);
                    return Ok(gone.count());
                }
                Err(e) => {
                    services.store.take_back(&view.location, &adds, &e).await;
                    if e.kind() != Kind::Conflict {
                        return Err(e);
                    }
                }
            }
        }
        Err(Error::conflict(format!("DELETE FROM {}: the table changed {MAX_ATTEMPTS} times meanwhile", view.name)).with_hint("try again"))
    })
}

/// The query over the newest version of the table, and that version. `now()` and the parameters stay.
async fn planned_again(
    resolver: &Arc<Resolver>,
    deletion: &Deletion,
    then: &FeatureView,
    cx: &Arc<TaskContext>,
) -> Result<(Snapshot, Arc<dyn ExecutionPlan>)> {
    let now = resolver.again(resolver.services.registry.snapshot().await?);
    let (query, is_chosen) = Delete::query_of(&deletion.statement)?;
    let statement = DfStatement::Statement(Box::new(SqlStatement::Query(Box::new(query))));
    let plan = plan_sql(&now, statement, &deletion.schema).await?;
    let (mut rows, table) = matching_rows(&plan, is_chosen)?;
    let view = &table.view;
    let what = |v: &FeatureView| (v.name.clone(), v.version, v.location.clone(), v.online, v.online_id);
    if what(then) != what(view) {
        return Err(Error::conflict(format!("DELETE FROM {}: the feature view was changed meanwhile; nothing was removed", then.name))
            .with_hint("try again"));
    }
    let values: Vec<ScalarValue> = resolver.parameters().to_vec();
    if !values.is_empty() {
        rows = rows.with_param_values(ParamValues::from(values))?;
    }
    let mut state = state(&now, &deletion.schema)?;
    *state.config_mut() = cx.session_config().clone();
    let plan = state.create_physical_plan(&rows).await?;
    Ok((table.snapshot, plan))
}

async fn find(services: &Services, view: &FeatureView, query: Arc<dyn ExecutionPlan>, cx: &Arc<TaskContext>) -> Result<Numbers> {
    let mut gone = Numbers::new(&services.runtime.memory_pool);
    let mut rows = crate::services::stall::execute(services, query, Arc::clone(cx))?;
    while let Some(batch) = rows.next().await {
        gone.add(seq_of(&batch?)?).map_err(|e| e.context(format!("DELETE FROM {}", view.name)))?;
    }
    gone.finish();
    Ok(gone)
}

fn seq_of(batch: &RecordBatch) -> Result<&Int64Array> {
    batch.column_by_name(SEQ).and_then(|c| c.as_primitive_opt::<Int64Type>()).ok_or_else(|| Error::internal("there is no column _seq"))
}

/// Writes the files that hold the rows again without them; answers the paths of the old ones.
async fn cut(
    services: &Services,
    view: &FeatureView,
    base: &Snapshot,
    gone: &Numbers,
    cx: &Arc<TaskContext>,
    adds: &mut Vec<NewFile>,
) -> Result<Vec<String>> {
    let (mut removes, mut found) = (vec![], 0);
    for file in base.files() {
        let (hits, rows) = match may_hold(file, gone) {
            true => boxed(hits(services, base, file, gone, cx)).await?,
            false => continue,
        };
        if hits == 0 {
            continue;
        }
        found += hits;
        removes.push(file.path.clone());
        if hits == rows {
            continue;
        }
        let without = |b: &RecordBatch| {
            let keep: BooleanArray = seq_of(b)?.values().iter().map(|s| Some(!gone.contains(*s))).collect();
            Ok(filter_record_batch(b, &keep)?)
        };
        adds.extend(replace::rewrite(services, view, base, file, cx, without).await?);
    }
    match found == gone.count() {
        true => Ok(removes),
        false => Err(Error::internal(format!(
            "DELETE FROM {}: the condition is true for {} row(s), and {found} were found in the files; nothing was removed",
            view.name,
            gone.count()
        ))),
    }
}

/// Whether the bounds of `_seq` that the log knows leave a place for one of the rows.
fn may_hold(file: &DataFile, gone: &Numbers) -> bool {
    match (file.min(SEQ), file.max(SEQ)) {
        (Some(ScalarValue::Int64(Some(min))), Some(ScalarValue::Int64(Some(max)))) => gone.meets(*min, *max),
        _ => true,
    }
}

/// How many of a file's rows go, and how many it has.
async fn hits(services: &Services, base: &Snapshot, file: &Arc<DataFile>, gone: &Numbers, cx: &Arc<TaskContext>) -> Result<(u64, u64)> {
    let mut batches = replace::numbers(services, base, file, cx).await?;
    let (mut hits, mut rows) = (0, 0);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        hits += seq_of(&batch)?.values().iter().filter(|s| gone.contains(**s)).count() as u64;
        rows += batch.num_rows() as u64;
    }
    Ok((hits, rows))
}
