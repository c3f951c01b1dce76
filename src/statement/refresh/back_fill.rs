//! `REFRESH … AT` a past instant of a view that is stamped with `now()`: its rows claim to be what was known at that
//! instant, so its query must not see what came later.

use std::sync::Arc;

use crate::clock::{Micros, format_micros};
use crate::error::{Error, Result, Span};
use crate::model::FeatureView;
use crate::plan::horizon::{Source, is_stamped, sources};
use crate::statement::Planning;

/// Refuses sources that are not bounded by `now()`, unless they are allowed; tells which ones are read as they are today.
pub async fn check(p: &dyn Planning, views: &[Arc<FeatureView>], at: Option<(Micros, Span)>, allowed: Option<Span>) -> Result<()> {
    let Some((at, span)) = at else { return Ok(()) };
    let mut stamped = false;
    for view in views {
        // events have instants of their own: none is stamped
        let Some(text) = view.query.as_ref().filter(|_| view.windowed.is_none()) else { continue };
        if at >= p.now() && allowed.is_none() {
            continue;
        }
        let query = p.sql(crate::sql::parse::statement(text)?, &view.query_schema).await;
        // its places are those of the view's text
        let plan = query.map_err(|e| match e.hint() {
            Some(hint) => Error::new(e.kind(), e.message()).with_hint(hint).context(of(view)),
            None => Error::new(e.kind(), e.message()).context(of(view)),
        })?;
        if !view.snapshot && !is_stamped(&plan, &view.event_timestamp) {
            continue;
        }
        stamped = true;
        if at >= p.now() {
            continue;
        }
        let found = sources(&plan, at);
        let open: Vec<&Source> = found.iter().filter(|s| !s.bounded && !s.times.is_empty()).collect();
        if !open.is_empty() && allowed.is_none() {
            return Err(refused(view, at, &open).with_span(span));
        }
        let as_today = |s: &&Source| !s.bounded;
        let today: Vec<&str> = found.iter().filter(as_today).map(|s| s.name.as_str()).collect();
        if !today.is_empty() {
            p.names().notice(format!(
                "{}: {} read as of today, not as of {}: nothing in the query keeps later rows out",
                of(view),
                listed(&today, "is", "are"),
                format_micros(at)
            ));
        }
    }
    match allowed {
        Some(place) if !stamped => Err(Error::invalid("ALLOW UNBOUNDED is for views whose event timestamp is now(): none is among these")
            .with_span(place)
            .with_hint("leave it out: later rows of other views stay unseen by their event timestamps")),
        _ => Ok(()),
    }
}

fn of(view: &FeatureView) -> String {
    format!("feature view {}", view.versioned_name())
}

fn refused(view: &FeatureView, at: Micros, open: &[&Source]) -> Error {
    let names: Vec<&str> = open.iter().map(|s| s.name.as_str()).collect();
    let bounds: Vec<String> = open.iter().map(|s| format!("{}.{} <= now()", s.name, s.times[0])).collect();
    Error::invalid(format!(
        "{}: its rows AT {} would know what came later: {} not bounded by now() in its query",
        of(view),
        format_micros(at),
        listed(&names, "is", "are")
    ))
    .with_hint(format!(
        "write WHERE {} into the query (CREATE OR REPLACE FEATURE VIEW), before anything is aggregated; \
         or REFRESH … AT … ALLOW UNBOUNDED to take today's rows",
        bounds.join(" AND ")
    ))
}

fn listed(names: &[&str], one: &str, several: &str) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { one } else { several })
}
