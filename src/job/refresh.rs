//! REFRESH: evaluates a view's query and replaces a range of its rows, one Delta commit per run
//! (docs/storage.md, "Refresh").

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::scalar::ScalarValue;
use futures::{StreamExt, TryStreamExt};

use super::versions::{each_version, takes_over};
use crate::catalog::{CatalogChange, CatalogSnapshot, Run};
use crate::clock::{Micros, format_micros};
use crate::engine::session_state::explained;
use crate::error::{Error, Kind, Result};
use crate::model::windowed::slot_name;
use crate::model::{FeatureView, ViewVersionId};
use crate::plan::command::Range;
use crate::plan::feature_table::SEQ;
use crate::plan::names::Names;
use crate::resolve::planner::{plan_sql, state};
use crate::resolve::resolver::{Resolver, Scope};
use crate::services::boxed;
use crate::services::record::recorded_until;
use crate::sql::windowed::{Roles, split};
use crate::store::offline::{Commit, NO_WATERMARK, NewFile, Operation, Snapshot};
use crate::table::conform::{Accept, Conform, Counts, doubtful_notice};
use crate::table::prepare::{number, prepare};
use crate::table::replace;
use crate::table::write::{Sequence, order, sorted, spec};

/// How often a run starts again because somebody else committed to the table meanwhile.
const MAX_ATTEMPTS: u32 = 10;

/// Runs REFRESH for each view in turn; answers one row of `system.runs` each. Stops at the first failure.
pub fn run<'a>(
    resolver: &'a Arc<Resolver>,
    views: &'a [Arc<FeatureView>],
    range: Range,
    at: Option<Micros>,
    cx: &'a Arc<TaskContext>,
) -> futures::future::BoxFuture<'a, Result<Vec<Run>>> {
    Box::pin(async move { each_version(views, |view| boxed(run_one(resolver, view, range, at, cx))).await })
}

fn run_one<'a>(
    resolver: &'a Arc<Resolver>,
    view: &'a Arc<FeatureView>,
    range: Range,
    at: Option<Micros>,
    cx: &'a Arc<TaskContext>,
) -> futures::future::BoxFuture<'a, Result<Run>> {
    Box::pin(async move {
        let services = &resolver.services;
        let instant = at.unwrap_or(resolver.instant);
        let until = (!matches!(range, Range::FromTo(..))).then_some(instant);
        let run = recorded_until(services, "refresh", view, until, |run| async move {
            let mut attempt = 0;
            loop {
                attempt += 1;
                match boxed(try_once(resolver, view, range, instant, run.clone(), cx)).await {
                    Err(e) if e.kind() == Kind::Conflict && attempt < MAX_ATTEMPTS => {
                        tracing::info!(view = %view.name, attempt, "the table changed during REFRESH; computing again");
                    }
                    other => return other.map_err(|e| e.context(format!("REFRESH FEATURE VIEW {}", view.versioned_name()))),
                }
            }
        })
        .await?;
        if !matches!(range, Range::FromTo(..)) {
            boxed(filled(resolver, view, at)).await?;
        }
        metrics::counter!(crate::telemetry::REFRESH_ROWS, "view" => view.name.to_string()).increment(run.rows_written);
        Ok(run)
    })
}

/// Notes that a version is complete, and lets the bare name move on to it where nothing else is missing. `at`: as of an
/// instant of the user's, and so perhaps complete up to then only.
fn filled<'a>(resolver: &'a Resolver, view: &'a FeatureView, at: Option<Micros>) -> futures::future::BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let (name, version) = (view.name.clone(), view.version);
        // the changes, and whether the name moves
        let needed = |c: &CatalogSnapshot| -> Result<(Vec<CatalogChange>, bool)> {
            let series = c.feature_view_series(&name)?;
            let view = c.feature_view(&name, Some(version))?;
            let mut changes = vec![];
            if !series.filled.contains(&version) {
                changes.push(CatalogChange::MarkFilled(ViewVersionId::from(view)));
            }
            let change = takes_over(series, view, true, series.materialized.contains(&version));
            let moves = change.is_some();
            changes.extend(change);
            Ok((changes, moves))
        };
        let catalog = resolver.services.registry.snapshot().await?;
        if needed(&catalog)?.0.is_empty() {
            return Ok(());
        }
        let old = catalog.feature_view(&name, None)?;
        let waits = version > old.version;
        if let (true, Some(at)) = (waits, at)
            && let Some(reaches) = resolver.services.store.snapshot(&old.location, None).await?.watermark().filter(|w| *w > at)
        {
            resolver.notice(format!(
                "feature view {}: it is filled up to {}, and {} reaches up to {}: {name} goes on meaning v{}; REFRESH FEATURE VIEW {} fills the rest",
                view.versioned_name(), format_micros(at), old.versioned_name(), format_micros(reaches), old.version, view.quoted_name()
            ));
            return Ok(());
        }
        if resolver.services.registry.commit(None, needed).await? {
            resolver.notice(format!("{name} means version v{version} from now on"));
            if view.snapshot {
                boxed(later_snapshots(resolver, old, view)).await?;
            }
        }
        Ok(())
    })
}

/// Says that a version of a snapshot view lacks snapshots that the one before it has.
async fn later_snapshots(resolver: &Resolver, old: &FeatureView, new: &FeatureView) -> Result<()> {
    let first = async |view: &FeatureView| {
        let table = resolver.services.store.snapshot(&view.location, None).await?;
        let first = |f: &std::sync::Arc<crate::store::offline::DataFile>| match f.min(&view.event_timestamp) {
            Some(ScalarValue::TimestampMicrosecond(t, _)) => *t,
            _ => None,
        };
        Ok::<_, Error>(table.files().iter().filter_map(first).min())
    };
    if let (Some(old_first), Some(new_first)) = (first(old).await?, first(new).await?)
        && old_first < new_first
    {
        resolver.notice(format!(
            "feature view {}: its snapshots begin at {}; the earlier ones, from {} on, are those of {}: REFRESH FEATURE VIEW {} AT '…' makes one for an instant",
            new.versioned_name(), format_micros(new_first), format_micros(old_first), old.versioned_name(), new.quoted_name()
        ));
    }
    Ok(())
}

/// The range of event timestamps that a run replaces; `None`: nothing is there yet to replace.
fn bounds(view: &FeatureView, base: &Snapshot, range: Range, instant: Micros) -> (Micros, Micros) {
    match range {
        _ if view.snapshot => (instant, instant),
        Range::Full => (Micros::MIN, instant),
        Range::FromTo(a, b) => (a, b),
        Range::Incremental => (base.watermark().map_or(Micros::MIN, |w| w.saturating_sub(view.lookback)), instant),
    }
}

fn try_once<'a>(
    resolver: &'a Arc<Resolver>,
    view: &'a Arc<FeatureView>,
    range: Range,
    instant: Micros,
    mut run: Run,
    cx: &'a Arc<TaskContext>,
) -> futures::future::BoxFuture<'a, Result<Run>> {
    Box::pin(async move {
        let services = &resolver.services;
        let base = services.store.snapshot(&view.location, None).await?;
        let (lo, hi) = bounds(view, &base, range, instant);
        if lo > hi {
            return Err(Error::invalid(format!(
                "nothing to do: the stored rows reach up to {}, later than the run's instant {}",
                format_micros(base.watermark().unwrap_or(lo)),
                format_micros(hi)
            ))
            .with_hint("for a back-fill name the range: REFRESH … FROM … TO … AT …"));
        }
        let full = range == Range::Full;
        let (input, numbered) = query(resolver, view, (lo, hi), instant, cx).await?;
        let accept = Accept { now: instant.max(resolver.instant), tolerance: services.config.clock_tolerance, range: Some((lo, hi)) };
        let conform = Conform::new(Arc::clone(view), &input.schema(), accept)?;
        let doubtful = conform.doubtful();
        let progress = services.progress.start(&format!("REFRESH {}", view.name), None);
        let counted = Arc::new(parking_lot::Mutex::new(Counts::default()));
        let rows = prepare(input, conform, numbered.then(|| Sequence::after(&base)), Arc::clone(&counted), progress);

        let mut by = order(view);
        by.retain(|c| c != SEQ);
        if numbered {
            by.push(SEQ.to_string());
        } else {
            by.extend(view.value_columns().into_iter().map(|c| c.name));
        }
        let mut rows = sorted(rows, &by, cx)?;
        if !numbered {
            rows = number(rows, Sequence::after(&base));
        }
        let old = match full {
            true => replace::Old::All,
            false => replace::old_rows(services, view, &base, (lo, hi), cx).await?,
        };
        let mut old = old;
        let mut writer = services.store.writer(&view.location, spec(services, view))?;
        let mut skipped_same = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let fresh = old.unknown(&batch)?;
            skipped_same += (batch.num_rows() - fresh.num_rows()) as u64;
            if fresh.num_rows() > 0 {
                writer.write(&fresh).await?;
            }
            tokio::task::consume_budget().await;
        }
        let written = writer.rows();
        let mut adds: Vec<NewFile> = writer.finish().await?;
        let removes = match old.replaced(services, view, &base, (lo, hi), cx, &mut adds).await {
            Ok(r) => r,
            Err(e) => {
                services.store.discard(&view.location, &adds).await;
                return Err(e);
            }
        };
        let counts = counted.lock().clone();
        doubtful_notice(view, &doubtful.lock(), |told| resolver.notice(told));
        let told = || counts.rejected.notice(view).into_iter().for_each(|n| resolver.notice(n));
        run.rows_read = counts.read;
        run.rows_rejected = counts.rejected.rows;
        run.rows_skipped = counts.skipped + skipped_same;
        run.rows_written = written;
        run.bytes_written = adds.iter().map(|f| f.size).sum();
        run.delta_version = Some(base.version());
        let watermark = watermark(&base, range, counts.newest, view, lo);
        let changes_watermark = watermark.is_some() && watermark != base.watermark();
        if adds.is_empty() && removes.is_empty() && !changes_watermark {
            told();
            return Ok(run);
        }
        let operation = if removes.is_empty() { Operation::Append } else { Operation::Overwrite };
        let commit = Commit { adds, removes, operation, run_id: Some(run.run_id.clone()), watermark, ..Default::default() };
        run.delta_version = Some(services.store.commit_or_take_back(&base, commit).await?.version());
        told();
        Ok(run)
    })
}

/// W after the run: never backwards, except that FULL starts anew; FROM … TO moves it only where the range
/// begins at or before it.
fn watermark(base: &Snapshot, range: Range, newest: Option<Micros>, view: &FeatureView, lo: Micros) -> Option<Micros> {
    let old = base.watermark();
    match range {
        _ if view.snapshot => old.max(newest),
        // nothing is stored: the next run begins at the beginning
        Range::Full => newest.or(old.map(|_| NO_WATERMARK)),
        Range::Incremental => old.max(newest),
        Range::FromTo(..) => match old {
            Some(w) if lo <= w => old.max(newest),
            other => other,
        },
    }
}

/// Runs the view's query as of an instant. The second value: true where the query has an order of its own,
/// which then numbers full ties.
fn query<'a>(
    resolver: &'a Arc<Resolver>,
    view: &'a FeatureView,
    range: (Micros, Micros),
    instant: Micros,
    cx: &'a Arc<TaskContext>,
) -> futures::future::BoxFuture<'a, Result<(SendableRecordBatchStream, bool)>> {
    Box::pin(async move {
        let Some(text) = view.query.as_ref().filter(|_| !view.is_push()) else {
            return Err(Error::invalid(format!("feature view {} is a push view", view.name)));
        };
        let scope = Scope {
            schema: view.query_schema.clone(),
            instant,
            parameters: vec![],
            notices: resolver.notice_list(),
            pins: Default::default(),
            effects: resolver.effects(),
        };
        let inner = Resolver::new(Arc::clone(&resolver.services), Arc::clone(&resolver.catalog), scope);
        let plan = plan_sql(&inner, rows_of(view, text)?, &view.query_schema).await?;
        let ordered = is_ordered(&plan);
        let rejected_after = instant.max(resolver.instant).saturating_add(resolver.services.config.clock_tolerance);
        let plan = if ordered { plan } else { narrowed(plan, view, range, rejected_after)? };
        let state = state(&inner, &view.query_schema)?;
        let physical = state.create_physical_plan(&plan).await?;
        let rows = crate::services::stall::execute(&resolver.services, physical, Arc::clone(cx))?;
        let schema = rows.schema();
        // places are those of the view's text, not of this statement's
        let named = rows.map_err(move |e| DataFusionError::from(explained(e, &plan, &state).without_span()));
        Ok((Box::pin(RecordBatchStreamAdapter::new(schema, named)) as SendableRecordBatchStream, ordered))
    })
}

/// The query of what the view's table holds: of a windowed view its events.
fn rows_of(view: &FeatureView, text: &str) -> Result<datafusion::sql::parser::Statement> {
    if view.windowed.is_none() {
        return crate::sql::parse::statement(text);
    }
    let parsed =
        crate::sql::over::parse(text)?.ok_or_else(|| Error::internal(format!("{} has lost its windows", view.versioned_name())))?;
    let keys: Vec<String> = view.keys.iter().map(|k| k.name.clone()).collect();
    let roles =
        Roles { view: &view.name.name, keys: &keys, event: &view.event_timestamp, created: view.created_timestamp.as_deref(), push: false };
    crate::sql::parse::checked(split(parsed, &roles, slot_name)?.events, text)
}

fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Limit(l) => is_ordered(&l.input),
        LogicalPlan::Projection(p) => is_ordered(&p.input),
        LogicalPlan::SubqueryAlias(a) => is_ordered(&a.input),
        _ => false,
    }
}

/// Filters the query's output by the range, a microsecond wider so that rounding cannot cut; the optimizer
/// pushes it down only where that changes nothing.
fn narrowed(plan: LogicalPlan, view: &FeatureView, (lo, hi): (Micros, Micros), rejected_after: Micros) -> Result<LogicalPlan> {
    let Ok((q, field)) = plan.schema().qualified_field_with_unqualified_name(&view.event_timestamp) else { return Ok(plan) };
    let utc = match field.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, Some(_)) => Some("UTC".into()),
        DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, None) if view.event_zone.is_none() => None,
        _ => return Ok(plan),
    };
    let column = Expr::Column(datafusion::common::Column::new(q.cloned(), field.name()));
    // nanoseconds do not reach as far as microseconds
    let reach = i64::MAX / 1000 - 1;
    let literal = |m: Micros| lit(ScalarValue::TimestampMicrosecond(Some(m), utc.clone()));
    let mut filters = vec![];
    if lo > -reach {
        filters.push(column.clone().gt_eq(literal(lo - 1)));
    }
    if hi < reach {
        // rows too far in the future must arrive, to be counted as rejected
        filters.push(column.clone().lt_eq(literal(hi)).or(column.gt(literal(rejected_after.clamp(-reach, reach)))));
    }
    match filters.into_iter().reduce(Expr::and) {
        // rows without an event timestamp must arrive, to be counted as rejected
        Some(f) => {
            let null = Expr::Column(datafusion::common::Column::new(q.cloned(), field.name())).is_null();
            let keys = view
                .keys
                .iter()
                .filter_map(|k| plan.schema().qualified_field_with_unqualified_name(&k.name).ok())
                .map(|(q, f)| Expr::Column(datafusion::common::Column::new(q.cloned(), f.name())).is_null());
            let counted = keys.fold(null, |a, b| a.or(b));
            Ok(LogicalPlanBuilder::from(plan).filter(f.or(counted))?.build()?)
        }
        None => Ok(plan),
    }
}
