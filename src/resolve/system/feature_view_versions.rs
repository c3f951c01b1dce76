use futures::future::BoxFuture;

use super::Scan;
use super::declare::system_table;
use super::values::{int, joined, near, span, tags, typed};
use crate::clock::Micros;
use crate::error::Result;
use crate::model::{FeatureView, FeatureViewSeries};
use crate::services::boxed;

system_table! {
    /// Versions of feature views, each with its own table.
    feature_view_versions {
        /// Schema of the view.
        schema: Text,
        /// Name of the view.
        name: Text,
        /// Number of the version: the N of `view@vN`.
        version: Int,
        /// Whether the bare name means this version.
        is_current: Bool,
        /// Whether it had a complete REFRESH; of a push view always true.
        filled: Bool,
        /// Whether it was materialized to the online store.
        materialized: Bool,
        /// Rows of its table; NULL where the table cannot be read.
        rows: Int,
        /// Newest event timestamp that is stored.
        watermark: Time,
        /// Where its table lies.
        location: Text,
        /// The SELECT after AS; NULL for a push view.
        query: Text,
        /// COMMENT of the view.
        comment: Text,
        /// When the version was created.
        created_at: Time,
        /// Names of its entities.
        entities: Text,
        /// Key columns with their types, in the entities' order.
        keys: Text,
        /// Number of features.
        features: Int,
        /// TTL; NULL: no limit.
        ttl: Text,
        /// Whether it is ONLINE.
        online: Bool,
        /// `query`; `push`: rows come by INSERT; `snapshot`: each REFRESH stores one snapshot.
        kind: Text,
        /// Column of the event timestamp.
        event_timestamp: Text,
        /// Column of the created timestamp.
        created_timestamp: Text,
        /// LOOKBACK: how far behind the watermark a REFRESH looks.
        lookback: Text,
        /// REFRESH EVERY; NULL: no schedule.
        refresh_every: Text,
        /// Whether its schedule is suspended.
        suspended: Bool,
        /// OWNER of the view.
        owner: Text,
        /// TAGS of the view: `tag = value`, with commas between.
        tags: Text,
    }
}

async fn rows(scan: &Scan, wanted: Wanted) -> Result<Vec<Row>> {
    let mut out = vec![];
    for series in scan.catalog.feature_views.values() {
        let current_only = scan.only("is_current");
        for view in series.versions.values().filter(|v| !current_only || v.version == series.current) {
            let (rows, watermark) = if wanted.rows || wanted.watermark { size(scan, view).await } else { (None, None) };
            out.push(Row { rows, watermark, ..row(scan, series, view) });
        }
    }
    Ok(out)
}

fn row(scan: &Scan, series: &FeatureViewSeries, v: &FeatureView) -> Row {
    Row {
        schema: Some(v.name.schema.clone()),
        name: Some(v.name.name.clone()),
        version: int(v.version),
        is_current: Some(series.current == v.version),
        filled: Some(series.filled.contains(&v.version)),
        materialized: Some(series.materialized.contains(&v.version)),
        location: Some(scan.services.store.display_path(&v.location)),
        query: v.query.clone(),
        comment: v.about.comment.clone(),
        created_at: Some(v.created_at),
        entities: joined(v.entities.iter().map(|e| near(e, &v.name.schema))),
        keys: typed(&v.keys),
        features: int(v.features.len()),
        ttl: v.ttl.map(span),
        online: Some(v.online),
        kind: Some(kind(v).to_string()),
        event_timestamp: Some(v.event_timestamp.clone()),
        created_timestamp: v.created_timestamp.clone(),
        lookback: Some(span(v.lookback)),
        refresh_every: v.refresh_every.map(span),
        suspended: Some(v.suspended),
        owner: v.about.owner.clone(),
        tags: tags(&v.about.tags),
        ..Row::default()
    }
}

fn kind(v: &FeatureView) -> &'static str {
    match (v.is_push(), v.snapshot) {
        (true, _) => "push",
        (_, true) => "snapshot",
        _ => "query",
    }
}

/// Rows and watermark of a view's table; NULL where it cannot be read, so that a list still lists it.
fn size<'a>(scan: &'a Scan, view: &'a FeatureView) -> BoxFuture<'a, (Option<i64>, Option<Micros>)> {
    boxed(async move {
        match scan.services.store.snapshot(&view.location, None).await {
            Ok(s) => (s.rows().and_then(int), s.watermark()),
            Err(e) => {
                tracing::warn!(view = view.versioned_name(), error = %e, "the table of a feature view cannot be read");
                (None, None)
            }
        }
    })
}
