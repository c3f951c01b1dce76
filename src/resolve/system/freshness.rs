use super::Scan;
use super::declare::system_table;
use super::values::{int, span};
use crate::clock::{Micros, SECOND};
use crate::error::Result;
use crate::services::freshness::{self, Freshness};

system_table! {
    /// How fresh each version of each feature view is, and how its last runs went.
    freshness {
        /// Schema of the view.
        schema: Text,
        /// Name of the view.
        view: Text,
        /// Number of the version.
        version: Int,
        /// Whether the bare name means this version.
        is_current: Bool,
        /// Whether it is ONLINE.
        online: Bool,
        /// REFRESH EVERY; NULL: no schedule.
        refresh_every: Text,
        /// Whether its schedule is suspended.
        suspended: Bool,
        /// Newest event timestamp that is stored; NULL: no rows, or the table cannot be read.
        watermark: Time,
        /// Age of the watermark.
        freshness_seconds: Int,
        /// When the last complete REFRESH ended.
        refreshed_at: Time,
        /// Age of `refreshed_at`.
        refresh_age_seconds: Int,
        /// When the last MATERIALIZE ended.
        materialized_at: Time,
        /// Age of `materialized_at`.
        materialize_age_seconds: Int,
        /// When its schedule runs it next.
        next_due: Time,
        /// Runs that failed since the last that succeeded.
        failures: Int,
        /// Error of the last run that failed since then.
        last_error: Text,
    }
}

async fn rows(scan: &Scan, _: Wanted) -> Result<Vec<Row>> {
    let now = scan.services.clock.now();
    Ok(freshness::all(&scan.services, &scan.catalog).await?.into_iter().map(|f| row(f, now)).collect())
}

fn row(f: Freshness, now: Micros) -> Row {
    let age = |at: Option<Micros>| at.map(|t| now.saturating_sub(t).div_euclid(SECOND));
    let (v, s) = (f.view, f.standing);
    Row {
        next_due: s.next_due(),
        schema: Some(v.name.schema),
        view: Some(v.name.name),
        version: int(v.version),
        is_current: Some(f.is_current),
        online: Some(v.online),
        refresh_every: v.refresh_every.map(span),
        suspended: Some(v.suspended),
        watermark: f.watermark,
        freshness_seconds: age(f.watermark),
        refreshed_at: s.refreshed_at,
        refresh_age_seconds: age(s.refreshed_at),
        materialized_at: s.materialized_at,
        materialize_age_seconds: age(s.materialized_at),
        failures: int(s.failures),
        last_error: s.last_error,
    }
}
