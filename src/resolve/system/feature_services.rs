use super::Scan;
use super::declare::system_table;
use super::values::{int, joined, near, tags};
use crate::catalog::CatalogSnapshot;
use crate::error::Result;
use crate::model::Service;

system_table! {
    /// Feature services.
    feature_services {
        /// Schema of the service.
        schema: Text,
        /// Its name.
        name: Text,
        /// Columns that callers bring: keys, then REQUEST columns.
        wants: Text,
        /// Feature views that it reads, with the version that it names.
        views: Text,
        /// Number of outputs.
        features: Int,
        /// The SELECT after AS.
        query: Text,
        /// COMMENT of the service.
        comment: Text,
        /// OWNER of the service.
        owner: Text,
        /// TAGS of the service: `tag = value`, with commas between.
        tags: Text,
        /// When it was created.
        created_at: Time,
    }
}

async fn rows(scan: &Scan, _: Wanted) -> Result<Vec<Row>> {
    let one = |s: &std::sync::Arc<Service>| Row {
        schema: Some(s.name.schema.clone()),
        name: Some(s.name.name.clone()),
        wants: joined(wants(&scan.catalog, s)),
        views: joined(views(s)),
        features: int(s.outputs.len()),
        query: Some(s.query.clone()),
        comment: s.about.comment.clone(),
        owner: s.about.owner.clone(),
        tags: tags(&s.about.tags),
        created_at: Some(s.created_at),
    };
    Ok(scan.catalog.services.values().map(one).collect())
}

/// `view@v1`, `view@latest`
fn views(s: &Service) -> impl Iterator<Item = String> {
    s.items.iter().map(|item| {
        let at = item.pin.number().map_or("latest".to_string(), |v| format!("v{v}"));
        format!("{}@{at}", near(&item.view, &s.name.schema))
    })
}

fn wants(catalog: &CatalogSnapshot, s: &Service) -> Vec<String> {
    let mut wants: Vec<String> = vec![];
    for item in &s.items {
        let Ok(view) = catalog.feature_view(&item.view, item.pin.number()) else { continue };
        for key in &view.keys {
            let callers = item.callers_name(&key.name);
            if !wants.iter().any(|w| w == callers) {
                wants.push(callers.to_string());
            }
        }
    }
    wants.extend(s.request.iter().map(|r| r.name.clone()));
    wants
}
