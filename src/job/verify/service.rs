//! The expressions of a service: requests put together from the keys of its views.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array, new_null_array};
use datafusion::arrow::compute::take;
use futures::future::BoxFuture;

use super::compare::{Finding, Sides};
use super::draw::Dice;
use super::sides::{Both, Seen, keys_of};
use super::{ROUNDS, Report};
use crate::error::Result;
use crate::model::FeatureView;
use crate::plan::names::Names;
use crate::plan::target::Target;
use crate::resolve::resolver::Resolver;

/// Requests where no SAMPLE says how many.
pub const REQUESTS: usize = 1_000;

/// Compares the outputs of a service. `pools`: keys of each item's view.
pub fn check<'a>(
    resolver: &'a Arc<Resolver>,
    both: &'a Both,
    target: &'a Target,
    pools: &'a [Arc<RecordBatch>],
    seed: i64,
) -> BoxFuture<'a, Result<Report>> {
    Box::pin(async move {
        let views: Vec<Arc<FeatureView>> = target.items.iter().map(|i| Arc::clone(&i.view)).collect();
        let requests = requests(target, pools, seed)?;
        let mut report = Report { at: resolver.instant, checked: requests.num_rows() as u64, ..Default::default() };
        if requests.num_rows() == 0 {
            return Ok(report);
        }
        let mut differ: Vec<Finding> = vec![];
        let mut lag = false;
        for round in 0..ROUNDS {
            let seen = match round {
                0 => both.look_at(Arc::clone(&resolver.catalog), resolver.instant, &views).await?,
                _ => both.look(&views).await?,
            };
            differ = compare(both, target, &seen, &requests).await?;
            lag = seen.views.iter().any(|v| v.lag() > 0);
            if differ.is_empty() {
                break;
            }
        }
        if lag && !differ.is_empty() {
            // parts of later versions may be online, and a request reads several views
            resolver.notice(format!(
                "feature service {}: {} request(s) differ, which may be because a view of it is behind its table; \
                 MATERIALIZE its views, then VERIFY again",
                target.name,
                differ.len()
            ));
            return Ok(report);
        }
        differ.into_iter().for_each(|f| report.add(f));
        Ok(report)
    })
}

fn compare<'a>(both: &'a Both, target: &'a Target, seen: &'a Seen, requests: &'a RecordBatch) -> BoxFuture<'a, Result<Vec<Finding>>> {
    Box::pin(async move {
        let answers = both.online(seen, &target.name, None, requests).await?;
        let pins: HashMap<String, u64> = seen.views.iter().map(|v| (v.view.location.clone(), v.online)).collect();
        let offline = both.service(seen, &target.name, pins, requests).await?;
        let names: Vec<String> = offline.schema().fields().iter().map(|f| f.name().clone()).collect();
        let all: Vec<usize> = (0..requests.num_rows()).collect();
        // statuses of the items follow; they are compared with the views
        let online = answers.columns(&all)?.map(|mut columns| {
            columns.truncate(names.len());
            columns
        });
        let unreadable = answers.unreadable(&all);
        let sides = Sides {
            keys: requests.columns(),
            names: &names,
            offline: offline.columns(),
            online: online.as_deref(),
            unreadable: &unreadable,
        };
        Ok(sides.outputs()?.into_iter().flatten().collect())
    })
}

/// One row per request: each view's keys in turn, and values for REQUEST columns, some of them NULL.
fn requests(target: &Target, pools: &[Arc<RecordBatch>], seed: i64) -> Result<RecordBatch> {
    let wanted = target.wanted()?;
    let rows = pools.iter().map(|p| p.num_rows()).max().unwrap_or(0);
    let mut dice = Dice::new(seed);
    let mut columns: Vec<ArrayRef> = vec![];
    for column in &wanted {
        let of = column.data_type.arrow();
        let mut found = None;
        for (item, pool) in target.items.iter().zip(pools) {
            if let Some(at) = item.view.keys.iter().position(|k| item.callers_name(&k.name) == column.name) {
                found = Some(pool.column(at));
                break;
            }
        }
        columns.push(match found {
            Some(keys) if keys.is_empty() => new_null_array(of, rows),
            Some(keys) => {
                let turn: UInt64Array = (0..rows).map(|i| (i % keys.len()) as u64).collect();
                take(keys, &turn, None)?
            }
            None => dice.values(of, rows, true)?,
        });
    }
    keys_of(&wanted, columns)
}
