//! DELETE FROM a push view or a plain table: a query finds the numbers of the rows that go, and the files that hold them
//! are written again without them. Both look at one version of the table; where another writer was faster, both begin anew.

use std::sync::Arc;

use datafusion::common::ParamValues;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement as DfStatement;
use futures::StreamExt;
use futures::future::BoxFuture;
use sqlparser::ast::Statement as SqlStatement;

use super::delete_rows::{Rows, left_of_table, numbers_of, replaced};
use super::numbers::Numbers;
use super::push::{claim, serve};
use crate::clock::new_id;
use crate::error::{Error, Kind, Result};
use crate::model::FeatureView;
use crate::plan::command::{DeleteTarget, Deletion};
use crate::plan::deletion::{Source, matching_rows};
use crate::plan::names::Names;
use crate::resolve::planner::{plan_sql, state};
use crate::resolve::resolver::Resolver;
use crate::services::{Services, boxed};
use crate::statement::{Delete, over_events};
use crate::store::offline::{Commit, NewFile, Operation, Snapshot};

const MAX_ATTEMPTS: u32 = 10;

/// Removes the rows that `planned` finds; answers how many.
pub fn run<'a>(
    resolver: &'a Arc<Resolver>,
    deletion: &'a Deletion,
    planned: Arc<dyn ExecutionPlan>,
    cx: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<u64>> {
    Box::pin(async move {
        let (services, rows) = (&resolver.services, &Rows::of(resolver, &deletion.target)?);
        match rows {
            Rows::View(view) => {
                // the right to write online comes first: a row that is gone must not be served
                let claim = claim(services, view, "DELETE FROM").await?;
                let (count, version) = boxed(remove(resolver, deletion, rows, planned, cx)).await?;
                if let Some(version) = version.filter(|_| view.online) {
                    serve(services, view, version, cx).await?;
                }
                drop(claim);
                Ok(count)
            }
            Rows::Table(table) => {
                let removed = boxed(remove(resolver, deletion, rows, planned, cx)).await;
                let any = matches!(removed, Ok((_, Some(_))));
                left_of_table(resolver, table, any).await?;
                Ok(removed?.0)
            }
        }
    })
}

/// How many rows were removed, and by which version of the table; `None`: there were none.
async fn remove(
    resolver: &Arc<Resolver>,
    deletion: &Deletion,
    rows: &Rows,
    planned: Arc<dyn ExecutionPlan>,
    cx: &Arc<TaskContext>,
) -> Result<(u64, Option<u64>)> {
    let (services, location) = (&resolver.services, rows.location());
    let mut planned = Some(planned);
    for _ in 0..MAX_ATTEMPTS {
        let newest = services.store.snapshot(location, None).await?;
        let (base, query) = match planned.take().filter(|_| newest.version() == deletion.delta_version) {
            Some(query) => (newest, query),
            None => boxed(planned_again(resolver, deletion, rows, cx)).await?,
        };
        let gone = Arc::new(boxed(find(services, rows, query, cx)).await?);
        if gone.is_empty() {
            return Ok((0, None));
        }
        let mut adds = vec![];
        let removes = match boxed(cut(services, rows, &base, &gone, cx, &mut adds)).await {
            Ok(removes) => removes,
            Err(e) => {
                services.store.discard(location, &adds).await;
                return Err(e);
            }
        };
        let commit = Commit { adds, removes, operation: Operation::Delete, run_id: Some(new_id()), exposed: true, ..Default::default() };
        match services.store.commit_or_take_back(&base, commit).await {
            Ok(done) => return Ok((gone.count(), Some(done.version()))),
            Err(e) if e.kind() == Kind::Conflict => {}
            Err(e) => return Err(e),
        }
    }
    Err(Error::conflict(format!("DELETE FROM {}: the table changed {MAX_ATTEMPTS} times meanwhile", rows.name())).with_hint("try again"))
}

/// The query over the newest version of the table, and that version. `now()` and the parameters stay.
async fn planned_again(
    resolver: &Arc<Resolver>,
    deletion: &Deletion,
    then: &Rows,
    cx: &Arc<TaskContext>,
) -> Result<(Snapshot, Arc<dyn ExecutionPlan>)> {
    let now = resolver.again(resolver.services.registry.snapshot().await?);
    if matches!(then, Rows::Table(_)) {
        Rows::of(&now, &deletion.target)?;
    }
    let (mut query, is_chosen) = Delete::query_of(&deletion.statement)?;
    if matches!(then, Rows::View(view) if view.windowed.is_some()) {
        over_events(&mut query);
    }
    let statement = DfStatement::Statement(Box::new(SqlStatement::Query(Box::new(query))));
    let plan = plan_sql(&now, statement, &deletion.schema).await?;
    let table = match &deletion.target {
        DeleteTarget::Table { name, .. } => Some(now.plain_table(name)?),
        DeleteTarget::FeatureView(_) => None,
    };
    let (mut rows, source) = matching_rows(&plan, is_chosen, table)?;
    check_same(then, &source)?;
    let values: Vec<ScalarValue> = resolver.parameters().to_vec();
    if !values.is_empty() {
        rows = rows.with_param_values(ParamValues::from(values))?;
    }
    let mut state = state(&now, &deletion.schema)?;
    *state.config_mut() = cx.session_config().clone();
    let plan = state.create_physical_plan(&rows).await?;
    Ok((source.snapshot().clone(), plan))
}

fn check_same(then: &Rows, now: &Source) -> Result<()> {
    let what = |v: &FeatureView| (v.name.clone(), v.version, v.location.clone(), v.online, v.online_id);
    match (then, now) {
        (Rows::View(then), Source::View(now)) if what(then) == what(&now.view) => Ok(()),
        (Rows::Table(then), Source::Table(now)) if (&then.name, &then.location) == (&now.table.name, &now.table.location) => Ok(()),
        (Rows::View(then), _) => {
            Err(Error::conflict(format!("DELETE FROM {}: the feature view was changed meanwhile; nothing was removed", then.name))
                .with_hint("try again"))
        }
        (Rows::Table(then), _) => Err(replaced(&then.name)),
    }
}

async fn find(services: &Services, rows: &Rows, query: Arc<dyn ExecutionPlan>, cx: &Arc<TaskContext>) -> Result<Numbers> {
    let mut gone = Numbers::new(&services.runtime.memory_pool);
    let mut found = crate::services::stall::execute(services, query, Arc::clone(cx))?;
    while let Some(batch) = found.next().await {
        gone.add(numbers_of(&batch?, None)?).map_err(|e| e.context(format!("DELETE FROM {}", rows.name())))?;
    }
    gone.finish();
    Ok(gone)
}

/// Writes the files that hold the rows again without them; answers the paths of the old ones.
async fn cut(
    services: &Services,
    rows: &Rows,
    base: &Snapshot,
    gone: &Arc<Numbers>,
    cx: &Arc<TaskContext>,
    adds: &mut Vec<NewFile>,
) -> Result<Vec<String>> {
    let (mut removes, mut found) = (vec![], 0);
    for (place, file) in base.files().iter().enumerate() {
        let done = rows.cut(services, base, place, gone, cx).await?;
        if done.hits > 0 {
            found += done.hits;
            removes.push(file.path.clone());
            adds.extend(done.adds);
        }
    }
    match found == gone.count() {
        true => Ok(removes),
        false => Err(Error::internal(format!(
            "DELETE FROM {}: the condition is true for {} row(s), and {found} were found in the files; nothing was removed",
            rows.name(),
            gone.count()
        ))),
    }
}
