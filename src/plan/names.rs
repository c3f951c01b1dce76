//! What planning may ask for: the catalog as of this statement and the tables already loaded for it.

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;

use super::feature_table::FeatureTable;
use super::plain_table::PlainTable;
use crate::catalog::CatalogSnapshot;
use crate::error::{Error, Result};
use crate::model::{FeatureView, Name, ServiceItem, VersionSpec};
use crate::sql::cursor::NameRef;

/// The names of one statement. Everything here is in memory: the resolve step has loaded it.
pub trait Names: Debug + Send + Sync {
    fn catalog(&self) -> &Arc<CatalogSnapshot>;

    /// The schema that bare names mean.
    fn schema(&self) -> &str;

    /// The table of a view version that this statement names, at the Delta version it was loaded at.
    fn feature_table(&self, view: &FeatureView) -> Result<Arc<FeatureTable>>;

    /// A plain table that this statement reads as it is now.
    fn plain_table(&self, name: &Name) -> Result<PlainTable>;

    /// Plans a parsed expression over a schema.
    fn sql_expression(&self, parsed: sqlparser::ast::Expr, schema: &DFSchema) -> Result<Expr>;

    /// Plans an expression over a schema.
    fn expression(&self, text: &str, schema: &DFSchema) -> Result<Expr> {
        self.sql_expression(crate::sql::parse::expression(text)?, schema)
    }

    /// The value bound to `$n`; `None` while the statement is only prepared.
    fn parameter(&self, placeholder: &str) -> Option<ScalarValue>;

    /// A notice for the user.
    fn notice(&self, message: String);

    /// A name as written to a name in the catalog.
    fn name(&self, n: &NameRef) -> Name {
        Name::new(n.schema.clone().unwrap_or_else(|| self.schema().to_string()), n.name.clone())
    }

    /// The version of a feature view that a reference means: `@vN`, or what the bare name means.
    fn feature_view(&self, n: &NameRef) -> Result<Arc<FeatureView>> {
        let version = n.version.and_then(VersionSpec::number);
        self.catalog().feature_view(&self.name(n), version).map(|v| Arc::new(v.clone())).map_err(|e| e.or_span(n.span))
    }

    /// The version that an item of a service means now.
    fn pinned(&self, item: &ServiceItem) -> Result<Arc<FeatureView>> {
        let version = item.pin.number();
        self.catalog().feature_view(&item.view, version).map(|v| Arc::new(v.clone()))
    }
}

/// Parses a table name of the SQL planner (`schema`, `table[@vN]`) into a reference.
pub fn reference(r: &datafusion::common::TableReference) -> Result<NameRef> {
    let mut parts = vec![];
    parts.extend(r.catalog().map(str::to_string));
    parts.extend(r.schema().map(str::to_string));
    parts.push(r.table().to_string());
    NameRef::from_parts(parts, None)
}

/// `not found` for a name that is not in the catalog, with the nearest one that is.
pub fn unknown(what: &str, n: &NameRef) -> Error {
    Error::not_found(format!("{what} {:?} does not exist", n.name)).or_span(n.span)
}
