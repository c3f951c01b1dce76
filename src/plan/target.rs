//! What can be joined point in time or looked up: a feature view, or a service with its items.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::names::Names;
use crate::error::{Error, Result};
use crate::model::{Column, FeatureView, Name, ServiceOutput};
use crate::sql::cursor::NameRef;

/// One feature view in one role.
#[derive(Debug, Clone)]
pub struct TargetItem {
    pub alias: String,
    pub view: Arc<FeatureView>,
    /// Key of the view -> the caller's column.
    pub roles: BTreeMap<String, String>,
}

impl TargetItem {
    pub fn callers_name<'a>(&'a self, key: &'a str) -> &'a str {
        self.roles.get(key).map_or(key, String::as_str)
    }
}

/// A feature view or service, resolved to versions.
#[derive(Debug, Clone)]
pub struct Target {
    pub name: Name,
    pub items: Vec<TargetItem>,
    pub request: Vec<Column>,
    /// A service's expressions; `None`: a feature view, all of its features.
    pub outputs: Option<Vec<ServiceOutput>>,
}

impl Target {
    /// Finds a service or feature view by the name as written; `None` where it is something else.
    pub fn find(names: &dyn Names, n: &NameRef) -> Result<Option<Target>> {
        let name = names.name(n);
        if let Some(service) = names.catalog().services.get(&name) {
            if n.version.is_some() {
                return Err(
                    Error::invalid(format!("feature service {name} has no versions: it pins the versions of its views")).or_span(n.span)
                );
            }
            let items = service
                .items
                .iter()
                .map(|i| Ok(TargetItem { alias: i.alias.clone(), view: names.pinned(i)?, roles: i.roles.clone() }))
                .collect::<Result<_>>()?;
            return Ok(Some(Target { name, items, request: service.request.clone(), outputs: Some(service.outputs.clone()) }));
        }
        if names.catalog().feature_views.contains_key(&name) {
            let view = names.feature_view(n)?;
            let item = TargetItem { alias: view.name.name.clone(), view, roles: BTreeMap::new() };
            return Ok(Some(Target { name, items: vec![item], request: vec![], outputs: None }));
        }
        Ok(None)
    }

    /// The callers' key columns in order of first appearance, then the request columns.
    pub fn wanted(&self) -> Result<Vec<Column>> {
        let mut out: Vec<Column> = vec![];
        for item in &self.items {
            for key in &item.view.keys {
                let name = item.callers_name(&key.name);
                match out.iter().find(|c| c.name == name) {
                    Some(known) if known.data_type != key.data_type => {
                        return Err(Error::invalid(format!(
                            "{}: key {name:?} is {} for one view and {} for {}",
                            self.name, known.data_type, key.data_type, item.view.name
                        ))
                        .with_hint("map one of them to another column: FROM view FOR (key = callers_column)"));
                    }
                    Some(_) => {}
                    None => out.push(Column { name: name.to_string(), data_type: key.data_type.clone() }),
                }
            }
        }
        for c in &self.request {
            if out.iter().any(|o| o.name == c.name) {
                return Err(Error::invalid(format!("{}: request column {:?} has the name of a key", self.name, c.name)));
            }
            out.push(c.clone());
        }
        Ok(out)
    }
}
