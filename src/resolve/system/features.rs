use super::Scan;
use super::declare::system_table;
use super::values::{int, tags};
use crate::error::Result;

system_table! {
    /// Features of feature views, of the versions that bare names mean.
    features {
        /// Schema of the view.
        schema: Text,
        /// Name of the view.
        feature_view: Text,
        /// The version that the bare name means.
        version: Int,
        /// Name of the feature.
        name: Text,
        /// Its type.
        data_type: Text,
        /// COMMENT of the feature.
        comment: Text,
        /// TAGS of the feature: `tag = value`, with commas between.
        tags: Text,
        /// Of a windowed feature: how long its windows are, and in which steps they move.
        window: Text,
        /// Its place among the features of the view, from 1.
        position: Int,
    }
}

async fn rows(scan: &Scan, _: Wanted) -> Result<Vec<Row>> {
    let mut out = vec![];
    for v in scan.catalog.feature_views.values().filter_map(|s| s.current()) {
        out.extend(v.features.iter().enumerate().map(|(i, f)| Row {
            schema: Some(v.name.schema.clone()),
            feature_view: Some(v.name.name.clone()),
            version: int(v.version),
            name: Some(f.name.clone()),
            data_type: Some(f.data_type.to_string()),
            comment: f.comment.clone(),
            tags: tags(&f.tags),
            window: v.windowed.as_ref().map(|w| w.describe(i)),
            position: int(i + 1),
        }));
    }
    Ok(out)
}
