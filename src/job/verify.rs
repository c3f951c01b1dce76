//! VERIFY: the law that ties training and serving (sql/README.md, "The law"), checked on live data.
//!
//! Both sides are statements of our own, planned and run as a user's: an ASOF JOIN with the table at the Delta
//! version that is online, and ONLINE_LOOKUP at the same instant. What was committed after that version is
//! lag, no fault. Others may write meanwhile: a key whose rows differ is looked at again, with everything as
//! it is then, before it counts.

mod compare;
mod draw;
mod service;
mod sides;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use datafusion::arrow::compute::{concat, take_record_batch};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use futures::future::BoxFuture;

use self::compare::{Fault, Finding, Found, Sides};
use self::draw::{Dice, Draw};
use self::sides::{Both, Seen, SeenView, each, keys_of, numbers};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::plan::answers;
use crate::plan::command::Sample;
use crate::plan::names::Names;
use crate::plan::target::Target;
use crate::progress::Task;
use crate::resolve::resolver::Resolver;
use crate::services::boxed;

/// Keys made up, which the table does not have, as good as surely.
const MADE_UP: usize = 16;
/// Removed keys that are asked for.
const GONE: usize = 10_000;
/// Keys looked at again together.
const SUSPECTS: usize = 10_000;
/// Keys that differ, after which there is nothing more to learn.
const ENOUGH: u64 = 10_000;
/// Looks at a key that differs while others write.
const ROUNDS: usize = 3;
/// Versions since the one that is online, which a row may be of.
const VERSIONS: u64 = 32;
const EXAMPLES: usize = 5;

/// One row of the answer.
#[derive(Debug, Clone, Default)]
struct Report {
    item: Option<String>,
    view: Option<Arc<FeatureView>>,
    generation: Option<u32>,
    /// Delta versions: online, offline.
    versions: Option<(u64, u64)>,
    at: Micros,
    checked: u64,
    mismatches: u64,
    missing: u64,
    extra: u64,
    examples: Vec<String>,
}

impl Report {
    fn add(&mut self, f: Finding) {
        self.mismatches += 1;
        match f.fault {
            Fault::Missing => self.missing += 1,
            Fault::Extra => self.extra += 1,
            Fault::Differs => {}
        }
        if self.examples.len() < EXAMPLES {
            self.examples.push(f.text);
        }
    }
}

/// Compares both sides; answers one row per view, and for a service one more for its expressions.
pub fn run<'a>(resolver: &'a Arc<Resolver>, target: &'a Target, sample: Option<Sample>) -> BoxFuture<'a, Result<RecordBatch>> {
    Box::pin(async move {
        let both = Both::new(resolver).await?;
        let seed = sample.and_then(|s| s.seed).unwrap_or_else(draw::seed);
        let keys = sample.map(|s| usize::try_from(s.keys).unwrap_or(usize::MAX));
        let mut reports: Vec<Report> = vec![];
        let mut pools = vec![];
        for (i, item) in target.items.iter().enumerate() {
            let view = &item.view;
            let known = target.items[..i].iter().position(|o| o.view.online_id == view.online_id);
            if let Some(k) = known {
                // one view in two roles has the same rows in both
                reports.push(Report { item: Some(item.alias.clone()), ..reports[k].clone() });
                pools.push(Arc::clone(&pools[k]));
                continue;
            }
            let what = || format!("VERIFY FEATURE VIEW {}", view.versioned_name());
            let done = boxed(check(resolver, &both, view, keys, seed)).await;
            let (report, pool) = done.map_err(|e| e.context(what()))?;
            reports.push(Report { item: Some(item.alias.clone()), ..report });
            pools.push(Arc::new(pool));
        }
        if target.outputs.is_some() {
            let what = || format!("VERIFY FEATURE SERVICE {}", target.name);
            let report = service::check(resolver, &both, target, &pools, seed).await.map_err(|e| e.context(what()))?;
            reports.push(report);
        }
        notices(resolver, target, &reports);
        answer(target, &reports, sample.map(|_| seed))
    })
}

fn notices(resolver: &Resolver, target: &Target, reports: &[Report]) {
    for r in reports.iter().filter(|r| r.mismatches > 0) {
        let (what, hint) = match &r.view {
            Some(v) => (
                format!("feature view {}", v.versioned_name()),
                format!("MATERIALIZE FEATURE VIEW {} FULL writes it anew", v.quoted_name()),
            ),
            None => (format!("feature service {}", target.name), "the values of its views are reported beside it".to_string()),
        };
        resolver.notice(format!("{what}: {} key(s) are not online what they are offline; {hint}", r.mismatches));
    }
}

fn answer(target: &Target, reports: &[Report], seed: Option<i64>) -> Result<RecordBatch> {
    let number = |of: &dyn Fn(&Report) -> Option<u64>| -> ArrayRef {
        Arc::new(reports.iter().map(|r| of(r).map(|n| i64::try_from(n).unwrap_or(i64::MAX))).collect::<Int64Array>())
    };
    let text = |of: &dyn Fn(&Report) -> Option<String>| -> ArrayRef { Arc::new(reports.iter().map(of).collect::<StringArray>()) };
    let at = TimestampMicrosecondArray::from_iter_values(reports.iter().map(|r| r.at)).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        text(&|_| Some(target.name.to_string())),
        text(&|r| r.item.clone()),
        text(&|r| r.view.as_ref().map(|v| v.name.to_string())),
        number(&|r| r.view.as_ref().map(|v| v.version.into())),
        number(&|r| r.generation.map(Into::into)),
        number(&|r| r.versions.filter(|_| r.generation.is_some()).map(|v| v.0)),
        number(&|r| r.versions.map(|v| v.1)),
        number(&|r| r.versions.map(|v| v.1.saturating_sub(v.0))),
        Arc::new(at),
        number(&|r| Some(r.checked)),
        number(&|r| Some(r.mismatches)),
        number(&|r| Some(r.missing)),
        number(&|r| Some(r.extra)),
        number(&|_| seed.and_then(|s| u64::try_from(s).ok())),
        text(&|r| (!r.examples.is_empty()).then(|| r.examples.join("; "))),
    ];
    Ok(RecordBatch::try_new(answers::verify(), columns)?)
}

/// One feature view being compared.
struct Check<'a> {
    both: &'a Both,
    view: &'a Arc<FeatureView>,
    seen: Seen,
    report: Report,
    /// Keys whose rows differ, to be looked at again.
    suspects: Vec<RecordBatch>,
    progress: Task,
}

/// Compares the rows of one view: of `sample` keys, or of all. Answers some of its keys, too.
fn check<'a>(
    resolver: &'a Arc<Resolver>,
    both: &'a Both,
    view: &'a Arc<FeatureView>,
    sample: Option<usize>,
    seed: i64,
) -> BoxFuture<'a, Result<(Report, RecordBatch)>> {
    Box::pin(async move {
        let services = both.services();
        let seen = both.look_at(Arc::clone(&resolver.catalog), resolver.instant, std::slice::from_ref(view)).await?;
        let one = seen.views[0].clone();
        if one.longer_ttl {
            resolver.notice(format!(
                "feature view {}: its TTL got longer, which takes effect online with the next MATERIALIZE; \
                 both sides were compared by the one that is served",
                view.versioned_name()
            ));
        }
        if one.lag() > 0 {
            resolver.notice(format!(
                "feature view {}: version {} is online, the table is at version {}; what came later was not compared",
                view.versioned_name(),
                one.online,
                one.offline
            ));
        }
        let pool = &services.runtime.memory_pool;
        let mut drawn = Draw::new(&view.keys, sample.unwrap_or(service::REQUESTS), seed, pool)?;
        let report = Report {
            view: Some(Arc::clone(view)),
            generation: one.pointer.as_ref().map(|p| p.generation),
            versions: Some((one.online, one.offline)),
            at: seen.at,
            ..Default::default()
        };
        let progress = services.progress.start(&format!("VERIFY {}", view.name), None);
        let mut check = Check { both, view, seen, report, suspects: vec![], progress };
        let keys = match sample {
            Some(_) => {
                let all = both.keys(&check.seen, &one, one.online).await?;
                each(all, |keys| drawn.add(keys)).await?;
                let keys = keys_of(&view.keys, drawn.finish()?)?;
                let rows = both.offline(&check.seen, &one, one.online, Some(&keys)).await?;
                check.compare(rows, true, &mut |_| Ok(())).await?;
                keys
            }
            None => {
                let rows = both.offline(&check.seen, &one, one.online, None).await?;
                check.compare(rows, true, &mut |keys| drawn.add(keys)).await?;
                keys_of(&view.keys, drawn.finish()?)?
            }
        };
        let absent = check.absent(resolver, &one, seed).await?;
        let rows = both.offline(&check.seen, &one, one.online, Some(&absent)).await?;
        check.compare(rows, false, &mut |_| Ok(())).await?;
        check.settle().await?;
        if check.report.mismatches >= ENOUGH {
            resolver.notice(format!(
                "feature view {}: the check ended early, after {} keys that differ",
                view.versioned_name(),
                check.report.mismatches
            ));
        }
        check.progress.finish();
        Ok((check.report, keys))
    })
}

/// Shows keys to whoever draws from them.
type Show<'s> = &'s mut (dyn FnMut(&[ArrayRef]) -> Result<()> + Send);

impl Check<'_> {
    /// Keys that should not be online: removed since the full load, and made up.
    fn absent<'s>(&'s self, resolver: &'s Resolver, one: &'s SeenView, seed: i64) -> BoxFuture<'s, Result<RecordBatch>> {
        Box::pin(async move {
            let mut dice = Dice::new(seed);
            let made_up = self.view.keys.iter().map(|k| dice.values(k.data_type.arrow(), MADE_UP, false)).collect::<Result<Vec<_>>>()?;
            let made_up = keys_of(&self.view.keys, made_up)?;
            let loaded = one.pointer.as_ref().map(|p| p.delta_version).filter(|v| *v < one.online);
            let Some(loaded) = loaded else { return Ok(made_up) };
            let mut drawn = Draw::new(&self.view.keys, GONE, seed, &self.both.services().runtime.memory_pool)?;
            let read = async {
                let rows = self.both.gone(&self.seen, one, loaded).await?;
                each(rows, |keys| drawn.add(keys)).await
            };
            if let Err(e) = boxed(read).await {
                // a VACUUM may have taken that version
                resolver.notice(format!(
                    "feature view {}: keys removed since version {loaded} were not looked for ({})",
                    self.view.versioned_name(),
                    e.message()
                ));
                return Ok(made_up);
            }
            let gone = drawn.finish()?;
            let columns = gone.iter().zip(made_up.columns()).map(|(a, b)| Ok(concat(&[a.as_ref(), b.as_ref()])?));
            keys_of(&self.view.keys, columns.collect::<Result<_>>()?)
        })
    }

    /// Compares rows of training with what is online, and keeps the keys that differ.
    fn compare<'s>(&'s mut self, mut rows: SendableRecordBatchStream, counts: bool, show: Show<'s>) -> BoxFuture<'s, Result<()>> {
        Box::pin(async move {
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                let keys = keys_of(&self.view.keys, batch.columns()[..self.view.keys.len()].to_vec())?;
                if counts {
                    show(keys.columns())?;
                    self.report.checked += batch.num_rows() as u64;
                    self.progress.advance(batch.num_rows() as u64);
                }
                let answers = self.both.online(&self.seen, &self.view.name, Some(self.view.version), &keys).await?;
                let all: Vec<usize> = (0..batch.num_rows()).collect();
                let found = findings(self.view, &batch, answers.columns(&all)?, &answers.unreadable(&all))?;
                let differ: Vec<usize> = found.iter().enumerate().filter(|(_, f)| f.is_some()).map(|(i, _)| i).collect();
                if !differ.is_empty() {
                    self.suspects.push(some(&keys, &differ)?);
                }
                if self.suspects.iter().map(RecordBatch::num_rows).sum::<usize>() >= SUSPECTS {
                    self.settle().await?;
                    if self.report.mismatches >= ENOUGH {
                        return Ok(());
                    }
                }
                tokio::task::consume_budget().await;
            }
            Ok(())
        })
    }

    /// Looks at the suspects again, with everything as it is now, and counts those that differ still.
    fn settle(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let suspects = std::mem::take(&mut self.suspects);
            let Some(first) = suspects.first() else { return Ok(()) };
            let mut keys = datafusion::arrow::compute::concat_batches(&first.schema(), &suspects)?;
            let mut open: Vec<(usize, Finding)> = vec![];
            for _ in 0..ROUNDS {
                open = self.again(&keys).await?;
                if open.is_empty() {
                    return Ok(());
                }
                let left: Vec<usize> = open.iter().map(|(i, _)| *i).collect();
                keys = some(&keys, &left)?;
            }
            open.into_iter().for_each(|(_, f)| self.report.add(f));
            Ok(())
        })
    }

    /// The keys whose online rows are of none of the versions that they may be of: the one that is online,
    /// and every later one, of which parts are online while a range is applied, or while rows that are not yet
    /// due hold the watermark back.
    fn again<'s>(&'s self, keys: &'s RecordBatch) -> BoxFuture<'s, Result<Vec<(usize, Finding)>>> {
        Box::pin(async move {
            let seen = self.both.look(std::slice::from_ref(self.view)).await?;
            let one = &seen.views[0];
            let answers = self.both.online(&seen, &self.view.name, Some(self.view.version), keys).await?;
            let newest = self.both.services().store.snapshot(&self.view.location, None).await?.version();
            let mut open: Vec<(usize, Finding)> = vec![];
            let mut left = keys.clone();
            let mut places: Vec<usize> = (0..keys.num_rows()).collect();
            let first_later = (one.online + 1).max(newest.saturating_sub(VERSIONS));
            for version in std::iter::once(one.online).chain((first_later..=newest).rev()) {
                let mut differ = vec![];
                let mut rows = self.both.offline(&seen, one, version, Some(&left)).await?;
                while let Some(batch) = rows.next().await {
                    let batch = batch?;
                    let local = numbers(batch.column(self.view.keys.len()))?;
                    let of: Vec<usize> = local.iter().filter_map(|i| places.get(*i).copied()).collect();
                    let found = findings(self.view, &batch, answers.columns(&of)?, &answers.unreadable(&of))?;
                    differ.extend(of.into_iter().zip(found).filter_map(|(i, f)| f.map(|f| (i, f))));
                }
                differ.sort_by_key(|(i, _)| *i);
                places = differ.iter().map(|(i, _)| *i).collect();
                // what is said of a key is said of the version that is online
                open = match version == one.online {
                    true => differ,
                    false => open.into_iter().filter(|(i, _)| places.binary_search(i).is_ok()).collect(),
                };
                if places.is_empty() {
                    break;
                }
                left = some(keys, &places)?;
            }
            Ok(open)
        })
    }
}

fn some(keys: &RecordBatch, which: &[usize]) -> Result<RecordBatch> {
    Ok(take_record_batch(keys, &UInt64Array::from_iter_values(which.iter().map(|i| *i as u64)))?)
}

/// Compares rows as `Both::offline` gives them with features, status and event timestamp.
fn findings(
    view: &FeatureView,
    offline: &RecordBatch,
    online: Option<Vec<ArrayRef>>,
    unreadable: &[Option<String>],
) -> Result<Vec<Option<Finding>>> {
    let (keys, features) = (view.keys.len(), view.features.len());
    let names: Vec<String> = view.features.iter().map(|f| f.name.clone()).collect();
    let of = offline.columns();
    if of.len() != keys + 3 + features || online.as_ref().is_some_and(|o| o.len() != features + 2) {
        return Err(Error::internal("VERIFY: an answer has other columns than its view"));
    }
    let sides =
        Sides { keys: &of[..keys], names: &names, offline: &of[keys + 3..], online: online.as_deref().map(|o| &o[..features]), unreadable };
    let found =
        online.as_deref().map(|o| Found { newest: &of[keys + 1], live: &of[keys + 2], status: &o[features], event: &o[features + 1] });
    sides.view(found.as_ref())
}
