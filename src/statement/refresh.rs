//! `REFRESH FEATURE VIEW v[@vN] [FULL | FROM t TO t] [AT t [ALLOW UNBOUNDED]]`, `REFRESH ALL FEATURE VIEWS`,
//! `MATERIALIZE FEATURE VIEW v[@vN] [FULL | IN PLACE]`, `MATERIALIZE ALL FEATURE VIEWS`

mod back_fill;

use async_trait::async_trait;
use std::sync::Arc;

use datafusion::scalar::ScalarValue;

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::clock::{DAY, Micros, format_micros};
use crate::error::{Error, Result, Span};
use crate::model::{FeatureView, ViewVersionId};
use crate::plan::command::{Command, Extent, Range};
use crate::sql::Cursor;
use crate::sql::cursor::NameRef;
use crate::sql::instant::{Instant, parse_instant};

type Text = (String, Span);

#[derive(Debug, Clone)]
pub struct Refresh {
    /// `None`: all.
    view: Option<NameRef>,
    full: bool,
    from_to: Option<(Text, Text)>,
    at: Option<Text>,
    /// ALLOW UNBOUNDED.
    unbounded: Option<Span>,
}

#[derive(Debug, Clone)]
pub struct Materialize {
    view: Option<NameRef>,
    extent: Extent,
}

/// The view that is meant; `None`: all.
fn view(c: &mut Cursor<'_>) -> Result<Option<NameRef>> {
    if c.eat("ALL FEATURE VIEWS") {
        return Ok(None);
    }
    if !c.eat("FEATURE VIEW") {
        return Err(c.expected("FEATURE VIEW name, or ALL FEATURE VIEWS"));
    }
    c.name("the name of a feature view").map(Some)
}

pub fn parse_materialize(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let view = view(&mut c)?;
    let extent = if c.eat("FULL") {
        Extent::Full
    } else if c.eat("IN PLACE") {
        Extent::InPlace
    } else {
        Extent::Changes
    };
    c.end(if extent == Extent::Changes { &["FULL", "IN PLACE"] } else { &[] })?;
    Ok(Box::new(Materialize { view, extent }))
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let view = view(&mut c)?;
    let (mut full, mut from_to, mut at, mut unbounded) = (false, None, None, None);
    loop {
        let here = c.here();
        let range = full || from_to.is_some();
        if c.is("FULL") || c.is("FROM") {
            if range {
                return Err(Error::syntax("REFRESH takes one of FULL and FROM … TO …").with_span(here));
            }
            if c.eat("FULL") {
                full = true;
            } else {
                c.want("FROM")?;
                let a = c.until(&["TO"], "an instant after FROM")?;
                c.want("TO")?;
                let b = c.until(&["AT", "FULL", "FROM", "ALLOW"], "an instant after TO")?;
                from_to = Some((a, b));
            }
        } else if at.is_none() && c.eat("AT") {
            at = Some(c.until(&["FULL", "FROM", "ALLOW"], "an instant after AT")?);
        } else if unbounded.is_none() && c.is("ALLOW") {
            c.want("ALLOW UNBOUNDED")?;
            if at.is_none() {
                return Err(Error::syntax("ALLOW UNBOUNDED stands after an instant: REFRESH … AT '…' ALLOW UNBOUNDED").with_span(here));
            }
            unbounded = Some(here);
        } else {
            break;
        }
    }
    c.end(&["FULL", "FROM '…' TO '…'", "AT '…'", "ALLOW UNBOUNDED after AT '…'"])?;
    Ok(Box::new(Refresh { view, full, from_to, at, unbounded }))
}

async fn instant(p: &dyn Planning, (text, span): &Text) -> Result<Instant> {
    let value = p.constant(text).await.map_err(|e| {
        Error::new(e.kind(), e.message())
            .with_span(*span)
            .or_hint(e.hint().unwrap_or("write an instant such as '2026-02-01 10:00' or now() - INTERVAL '7 days'"))
    })?;
    let read = match &value {
        ScalarValue::Utf8(Some(s)) | ScalarValue::Utf8View(Some(s)) | ScalarValue::LargeUtf8(Some(s)) => parse_instant(s),
        ScalarValue::Date32(Some(days)) => Ok(Instant { micros: *days as Micros * DAY, day_only: true }),
        v if v.is_null() => Err(Error::invalid("the instant is NULL")),
        v if matches!(v.data_type(), datafusion::arrow::datatypes::DataType::Timestamp(..)) => {
            match v.cast_to(&crate::model::types::timestamp_type())? {
                ScalarValue::TimestampMicrosecond(Some(micros), _) => Ok(Instant { micros, day_only: false }),
                _ => Err(Error::invalid("the instant is NULL")),
            }
        }
        v => Err(Error::invalid(format!("{v} is not an instant")).with_hint("write '2026-02-01 10:00' or now() - INTERVAL '7 days'")),
    };
    read.map_err(|e| e.with_span(*span))
}

#[async_trait]
impl Statement for Refresh {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let at = match &self.at {
            Some(t) => Some((instant(p, t).await?.micros, t.1)),
            None => None,
        };
        if let Some((at, span)) = at
            && at > p.now()
        {
            return Err(Error::invalid(format!("AT {} is in the future", format_micros(at))).with_span(span));
        }
        let run = at.map_or(p.now(), |(t, _)| t);
        let range = match &self.from_to {
            None if self.full => Range::Full,
            None => Range::Incremental,
            Some((a, b)) => {
                let (from, to) = (instant(p, a).await?, instant(p, b).await?);
                let mut end = to.micros;
                if to.day_only {
                    // a day alone means its end; today: the run's instant
                    let last = end.saturating_add(DAY - 1);
                    end = if end <= run && run <= last { run } else { last };
                }
                if from.micros > end {
                    return Err(Error::invalid(format!(
                        "the range ends before it starts: FROM {} TO {}",
                        format_micros(from.micros),
                        format_micros(end)
                    ))
                    .with_span(b.1));
                }
                if end > run {
                    return Err(Error::invalid(format!(
                        "the range ends in the future: TO {}, while the run's instant is {}",
                        format_micros(end),
                        format_micros(run)
                    ))
                    .with_hint("rows of the future are found by a later run; end the range at now() or before")
                    .with_span(b.1));
                }
                Range::FromTo(from.micros, end)
            }
        };
        let views = match &self.view {
            Some(n) => {
                let meant = meant(p, n)?;
                let name = meant[0].name.clone();
                let views: Vec<_> = meant.into_iter().filter(|v| !v.is_push()).collect();
                if views.is_empty() {
                    return Err(Error::invalid(format!(
                        "feature view {name} is a push view: its rows come by INSERT or bulk ingest, there is no query to run"
                    ))
                    .or_span(n.span));
                }
                left_out(p, n, &views, "REFRESH", |v| !v.is_push());
                views
            }
            None => in_order(p, |v| !v.is_push()),
        };
        for v in &views {
            if v.snapshot && range == Range::Full {
                return Err(Error::invalid(format!(
                    "feature view {} is a snapshot view (its event timestamp is now()): REFRESH FULL would drop its history",
                    v.name
                ))
                .with_hint("REFRESH adds one snapshot; REFRESH … AT t back-fills one"));
            }
            if v.snapshot && matches!(range, Range::FromTo(..)) {
                return Err(Error::invalid(format!(
                    "feature view {} is a snapshot view: a run makes one instant, there is no range to replace",
                    v.name
                ))
                .with_hint("REFRESH … AT t back-fills one snapshot"));
            }
        }
        back_fill::check(p, &views, at, self.unbounded).await?;
        Planned::command("REFRESH", Command::Refresh { views: ids(&views), range, at: at.map(|(t, _)| t) }, vec![])
    }
}

#[async_trait]
impl Statement for Materialize {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let views = match &self.view {
            Some(n) => {
                let meant = meant(p, n)?;
                let name = meant[0].name.clone();
                let views: Vec<_> = meant.into_iter().filter(|v| v.online).collect();
                if views.is_empty() {
                    return Err(Error::invalid(format!("feature view {name} is not ONLINE"))
                        .with_hint(format!("ALTER FEATURE VIEW {name} SET ONLINE"))
                        .or_span(n.span));
                }
                left_out(p, n, &views, "MATERIALIZE", |v| v.online);
                views
            }
            None => in_order(p, |v| v.online),
        };
        Planned::command("MATERIALIZE", Command::Materialize { views: ids(&views), extent: self.extent }, vec![])
    }
}

fn ids(views: &[Arc<FeatureView>]) -> Vec<ViewVersionId> {
    views.iter().map(|v| v.as_ref().into()).collect()
}

/// What a name means to REFRESH and MATERIALIZE: the bare name also the newest version that waits to take it over.
fn meant(p: &dyn Planning, n: &NameRef) -> Result<Vec<Arc<FeatureView>>> {
    let mut views = vec![p.names().feature_view(n)?];
    if n.version.is_none() {
        let series = p.names().catalog().feature_view_series(&p.names().name(n))?;
        views.extend(series.waiting().map(|v| Arc::new(v.clone())));
    }
    Ok(views)
}

/// Tells of services that are pinned to versions which the bare name does not mean: these get no new values.
fn left_out(p: &dyn Planning, n: &NameRef, views: &[Arc<FeatureView>], statement: &str, wanted: impl Fn(&FeatureView) -> bool) {
    let catalog = p.names().catalog();
    let name = p.names().name(n);
    let Some(series) = catalog.feature_views.get(&name).filter(|_| n.version.is_none()) else { return };
    let others = series.versions.values().filter(|v| wanted(v) && views.iter().all(|ran| ran.version != v.version));
    for version in others {
        let services = catalog.services_using_view(&name, Some(version.version));
        if services.is_empty() {
            continue;
        }
        let services = services.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        p.names().notice(format!(
            "feature service {services} reads {}, which this statement leaves as it is: {statement} FEATURE VIEW {}",
            version.versioned_name(),
            version.quoted_name()
        ));
    }
}

/// All versions of all feature views of the current schema that `wanted` holds for; views that others
/// read come first.
fn in_order(p: &dyn Planning, wanted: impl Fn(&FeatureView) -> bool) -> Vec<Arc<FeatureView>> {
    let catalog = p.names().catalog();
    let mut all: Vec<Arc<FeatureView>> = catalog
        .feature_views
        .iter()
        .filter(|(n, _)| n.schema == p.names().schema())
        .flat_map(|(_, s)| s.versions.values().map(|v| Arc::new(v.clone())))
        .filter(|v| wanted(v))
        .collect();
    // created earlier means: cannot read one created later
    all.sort_by_key(|v| (v.created_at, v.online_id));
    all
}
