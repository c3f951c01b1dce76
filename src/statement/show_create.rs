//! `SHOW CREATE ENTITY | FEATURE VIEW | FEATURE SERVICE | TRAINING SET | TABLE | VIEW name`: text that
//! makes the object again.

use async_trait::async_trait;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::error::Result;
use crate::model::types::quote;
use crate::model::{About, Column, Entity, FeatureView, Name, Service, Table, Tags, TrainingSet, View};
use crate::sql::cursor::{NameRef, format_interval};

#[derive(Debug, Clone)]
pub struct ShowCreate {
    kind: &'static str,
    name: NameRef,
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let kinds = ["ENTITY", "FEATURE VIEW", "FEATURE SERVICE", "TRAINING SET", "EXTERNAL TABLE", "TABLE", "VIEW"];
    let Some(kind) = kinds.into_iter().find(|k| c.eat(k)) else {
        return Err(c.expected(&kinds.join(", ")));
    };
    let name = c.name("a name")?;
    c.end(&[])?;
    Ok(Box::new(ShowCreate { kind, name }))
}

#[async_trait]
impl Statement for ShowCreate {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let names = p.names();
        let name = names.name(&self.name);
        let c = names.catalog();
        let text = match self.kind {
            "ENTITY" => c.entity(&name).map(|e| entity(e)),
            "FEATURE VIEW" => names.feature_view(&self.name).map(|v| feature_view(&v)),
            "FEATURE SERVICE" => c.service(&name).map(|s| service(s)),
            "TRAINING SET" => c.training_set(&name).map(|t| training_set(t)),
            "VIEW" => c.view(&name).map(|v| view(v)),
            _ => c.table(&name).map(|t| table(t)),
        }
        .map_err(|e| e.or_span(self.name.span))?;
        let b = LogicalPlanBuilder::values(vec![vec![lit(text)]])?;
        let column = b.schema().columns()[0].clone();
        Ok(Planned { tag: "SHOW", ..Planned::query(b.project([Expr::Column(column).alias("statement")])?.build()?) })
    }
}

fn name(n: &Name) -> String {
    format!("{}.{}", quote(&n.schema), quote(&n.name))
}

fn text(s: &str) -> String {
    format!("'{}'", s.replace('\'', "''"))
}

fn tags(t: &Tags) -> String {
    let list: Vec<String> = t.iter().map(|(k, v)| format!("{} = {}", quote(k), text(v))).collect();
    format!("TAGS ({})", list.join(", "))
}

fn columns(c: &[Column]) -> String {
    c.iter().map(|c| format!("{} {}", quote(&c.name), c.data_type)).collect::<Vec<_>>().join(", ")
}

fn about(out: &mut String, a: &About) {
    if let Some(c) = &a.comment {
        out.push_str(&format!("\n  COMMENT {}", text(c)));
    }
    if let Some(o) = &a.owner {
        out.push_str(&format!("\n  OWNER {}", text(o)));
    }
    if !a.tags.is_empty() {
        out.push_str(&format!("\n  {}", tags(&a.tags)));
    }
}

pub fn entity(e: &Entity) -> String {
    let mut out = format!("CREATE ENTITY {} KEY ({})", name(&e.name), columns(&e.keys));
    about(&mut out, &e.about);
    out
}

pub fn feature_view(v: &FeatureView) -> String {
    let mut out = format!("CREATE FEATURE VIEW {}", name(&v.name));
    let pushed = if v.is_push() { v.value_features() } else { v.features.clone() };
    let listed: Vec<String> = pushed
        .iter()
        .filter(|f| v.is_push() || f.comment.is_some() || !f.tags.is_empty())
        .map(|f| {
            let mut s = quote(&f.name);
            if v.is_push() {
                s.push_str(&format!(" {}", f.data_type));
            }
            if let Some(c) = &f.comment {
                s.push_str(&format!(" COMMENT {}", text(c)));
            }
            if !f.tags.is_empty() {
                s.push_str(&format!(" {}", tags(&f.tags)));
            }
            s
        })
        .collect();
    if !listed.is_empty() {
        out.push_str(&format!(" (\n    {}\n  )", listed.join(",\n    ")));
    }
    let entities: Vec<String> = v.entities.iter().map(name).collect();
    out.push_str(&format!("\n  ENTITY {}\n  EVENT TIMESTAMP {}", entities.join(", "), quote(&v.event_timestamp)));
    if let Some(z) = &v.event_zone {
        out.push_str(&format!(" AT TIME ZONE {}", text(z)));
    }
    if let Some(c) = &v.created_timestamp {
        out.push_str(&format!("\n  CREATED TIMESTAMP {}", quote(c)));
    }
    if let Some(t) = v.ttl {
        out.push_str(&format!("\n  TTL {}", format_interval(t)));
    }
    if let Some(t) = v.refresh_every {
        out.push_str(&format!("\n  REFRESH EVERY {}", format_interval(t)));
    }
    if v.lookback > 0 {
        out.push_str(&format!("\n  LOOKBACK {}", format_interval(v.lookback)));
    }
    if v.online {
        out.push_str("\n  ONLINE");
    }
    about(&mut out, &v.about);
    if let Some(q) = &v.query {
        out.push_str(&format!("\nAS {q}"));
    }
    out
}

pub fn service(s: &Service) -> String {
    let mut out = format!("CREATE FEATURE SERVICE {}", name(&s.name));
    if !s.request.is_empty() {
        out.push_str(&format!("\n  REQUEST ({})", columns(&s.request)));
    }
    about(&mut out, &s.about);
    out.push_str(&format!("\nAS {}", s.query));
    out
}

fn training_set(t: &TrainingSet) -> String {
    let mut out = format!("CREATE TRAINING SET {}", name(&t.name));
    about(&mut out, &t.about);
    out.push_str(&format!("\nAS {}", t.query));
    out
}

pub fn view(v: &View) -> String {
    let mut out = format!("CREATE VIEW {}", name(&v.name));
    if !v.columns.is_empty() {
        out.push_str(&format!(" ({})", v.columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ")));
    }
    about(&mut out, &v.about);
    let space = if v.about == About::default() { " " } else { "\n" };
    out.push_str(&format!("{space}AS\n{}", v.query));
    out
}

pub fn table(t: &Table) -> String {
    if t.managed {
        return format!("CREATE TABLE {} ({})", name(&t.name), columns(&t.columns));
    }
    let mut out = format!("CREATE EXTERNAL TABLE {}", name(&t.name));
    if !t.columns.is_empty() {
        out.push_str(&format!(" ({})", columns(&t.columns)));
    }
    out.push_str(&format!("\n  STORED AS {}", t.format));
    if !t.partition_columns.is_empty() {
        out.push_str(&format!("\n  PARTITIONED BY ({})", t.partition_columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ")));
    }
    out.push_str(&format!("\n  LOCATION {}", text(&t.location)));
    if !t.options.is_empty() {
        let o: Vec<String> = t.options.iter().map(|(k, v)| format!("{} {}", text(k), text(v))).collect();
        out.push_str(&format!("\n  OPTIONS ({})", o.join(", ")));
    }
    out
}
