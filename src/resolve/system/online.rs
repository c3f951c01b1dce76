use futures::future::BoxFuture;

use super::Scan;
use super::declare::system_table;
use super::values::int;
use crate::error::Result;
use crate::model::FeatureView;
use crate::services::{boxed, served};

system_table! {
    /// What the online store holds of versions that are ONLINE, or have been.
    online {
        /// Schema of the view.
        schema: Text,
        /// Name of the view.
        view: Text,
        /// Number of the version.
        version: Int,
        /// The generation that is served; NULL: none yet.
        generation: Int,
        /// Version of the Delta table up to which the online rows are complete.
        online_version: Int,
        /// Newest version of the Delta table.
        offline_version: Int,
        /// Versions that are not served yet.
        lag: Int,
        /// Keys that are served. Reading it counts a whole generation.
        keys: Int,
        /// Bytes of their rows. Reading it counts a whole generation.
        bytes: Int,
        /// When the generation was published.
        published_at: Time,
        /// Why the online store cannot be read; what it would say is NULL then.
        error: Text,
    }
}

async fn rows(scan: &Scan, wanted: Wanted) -> Result<Vec<Row>> {
    let mut lost: Option<String> = None;
    let mut out = vec![];
    for v in served::versions(&scan.catalog) {
        let offline = scan.services.store.snapshot(&v.location, None).await.ok().map(|s| s.version());
        let mut row = Row::default();
        // one wait for a store that is gone, not one per view
        if lost.is_none() {
            match of_store(scan, v, wanted).await {
                Ok(found) => row = found,
                Err(e) => {
                    tracing::warn!(error = %e, "the online store cannot be read");
                    lost = Some(e.message().to_string());
                }
            }
        }
        out.push(Row {
            schema: Some(v.name.schema.clone()),
            view: Some(v.name.name.clone()),
            version: int(v.version),
            offline_version: offline.and_then(int),
            lag: offline.and_then(int).zip(row.online_version).map(|(table, served)| (table - served).max(0)),
            error: lost.clone(),
            ..row
        });
    }
    Ok(out)
}

/// The columns that only the online store knows.
fn of_store<'a>(scan: &'a Scan, view: &'a FeatureView, wanted: Wanted) -> BoxFuture<'a, Result<Row>> {
    boxed(async move {
        let store = scan.services.online().await?;
        let view = scan.services.online_view(view);
        let Some(pointer) = store.pointer(&view).await? else { return Ok(Row::default()) };
        let counted = wanted.keys || wanted.bytes;
        let size = if counted { Some(store.stats(&view, pointer.generation).await?) } else { None };
        Ok(Row {
            generation: int(pointer.generation),
            online_version: store.watermark(&view, pointer.generation).await?.and_then(int),
            keys: size.and_then(|s| int(s.0)),
            bytes: size.and_then(|s| int(s.1)),
            published_at: Some(pointer.published_at),
            ..Row::default()
        })
    })
}
