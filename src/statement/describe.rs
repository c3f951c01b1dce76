//! `DESCRIBE x`, `SHOW COLUMNS FROM x`: the columns of anything that has a name.

use async_trait::async_trait;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};
use datafusion::scalar::ScalarValue;

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::error::Result;
use crate::model::Feature;
use crate::model::types::ColumnType;
use crate::plan::target::Target;
use crate::sql::cursor::NameRef;

struct Row {
    name: String,
    data_type: String,
    role: &'static str,
    comment: Option<String>,
}

fn row(name: &str, data_type: impl ToString, role: &'static str, comment: Option<String>) -> Row {
    Row { name: name.to_string(), data_type: data_type.to_string(), role, comment }
}

#[derive(Debug, Clone)]
pub struct Describe(NameRef);

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let _ = ["FEATURE VIEW", "FEATURE SERVICE", "ENTITY", "TRAINING SET", "TABLE", "VIEW"].iter().any(|kind| c.eat(kind));
    let name = c.name("the name of an object")?;
    c.end(&[])?;
    Ok(Box::new(Describe(name)))
}

/// `SHOW COLUMNS FROM | IN x`
pub fn parse_columns(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    if !c.eat("FROM") && !c.eat("IN") {
        return Err(c.expected("FROM name"));
    }
    let name = c.name("the name of an object")?;
    c.end(&[])?;
    Ok(Box::new(Describe(name)))
}

#[async_trait]
impl Statement for Describe {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        columns_of(p, self.0).await
    }
}

async fn columns_of(p: &dyn Planning, n: NameRef) -> Result<Planned> {
    let names = p.names();
    let name = names.name(&n);
    let catalog = names.catalog();
    let mut rows = vec![];
    if let Some(service) = catalog.services.get(&name) {
        let Some(target) = Target::find(names.as_ref(), &n)? else { return Err(crate::plan::names::unknown("object", &n)) };
        for w in target.wanted()? {
            let role = if service.request.iter().any(|r| r.name == w.name) { "request" } else { "key" };
            rows.push(row(&w.name, &w.data_type, role, None));
        }
        rows.extend(service.outputs.iter().map(|o| row(&o.name, &o.data_type, "feature", Some(o.expr.clone()))));
    } else if catalog.feature_views.contains_key(&name) {
        let v = names.feature_view(&n)?;
        let ts = ColumnType::timestamp();
        rows.extend(v.keys.iter().map(|k| row(&k.name, &k.data_type, "key", None)));
        rows.push(row(&v.event_timestamp, &ts, "event timestamp", None));
        rows.extend(v.created_timestamp.iter().map(|c| row(c, &ts, "created timestamp", None)));
        let comment = |(i, f): (usize, &Feature)| {
            let window = v.windowed.as_ref().map(|w| w.describe(i));
            let both: Vec<String> = f.comment.iter().cloned().chain(window).collect();
            (!both.is_empty()).then(|| both.join("; "))
        };
        rows.extend(v.features.iter().enumerate().map(|(i, f)| row(&f.name, &f.data_type, "feature", comment((i, f)))));
    } else if let (Some(entity), None) = (catalog.entities.get(&name), catalog.relation(&name)) {
        rows.extend(entity.keys.iter().map(|k| row(&k.name, &k.data_type, "key", None)));
    } else {
        let schema = p.columns(&n).await?;
        for f in schema.fields() {
            let t = ColumnType::stored(f.data_type()).map(|t| t.to_string()).unwrap_or_else(|_| f.data_type().to_string());
            rows.push(row(f.name(), t, "column", None));
        }
    }
    let values = rows.into_iter().map(|r| vec![lit(r.name), lit(r.data_type), lit(r.role), lit(ScalarValue::Utf8(r.comment))]).collect();
    let b = LogicalPlanBuilder::values(values)?;
    let columns = b.schema().columns();
    let list: Vec<_> =
        columns.into_iter().zip(["column_name", "data_type", "role", "comment"]).map(|(c, n)| Expr::Column(c).alias(n)).collect();
    Ok(Planned { tag: "DESCRIBE", ..Planned::query(b.project(list)?.build()?) })
}
