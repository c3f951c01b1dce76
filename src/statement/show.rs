//! `SHOW …`: reads of tables in schema `system`.

use async_trait::async_trait;
use datafusion::logical_expr::{LogicalPlanBuilder, lit};

use super::show_lists::{LISTS, List};
use super::{Head, Parsed, Planned, Planning, Statement};
use crate::error::{Error, Result, nearest};
use crate::sql::cursor::NameRef;

#[derive(Debug, Clone)]
pub enum Show {
    List { what: &'static List, like: Option<String> },
    Versions(NameRef),
    Warnings,
    Variable(String),
    Zone,
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    if c.eat("TIME ZONE") || c.eat("TIMEZONE") {
        c.end(&[])?;
        return Ok(Box::new(Show::Zone));
    }
    if c.eat("WARNINGS") {
        c.end(&[])?;
        return Ok(Box::new(Show::Warnings));
    }
    if c.eat("VERSIONS OF") {
        c.eat("FEATURE VIEW");
        let name = c.plain_name("feature view")?;
        c.end(&[])?;
        return Ok(Box::new(Show::Versions(name)));
    }
    if let Some(what) = LISTS.iter().find(|l| c.eat(l.words)) {
        let like = if c.eat("LIKE") { Some(c.string("a pattern in quotes")?) } else { None };
        c.end(&["LIKE '…'"])?;
        return Ok(Box::new(Show::List { what, like }));
    }
    if c.is("ALL") || super::settings::VARIABLES.iter().any(|(n, _)| c.is(n)) {
        let variable = c.identifier("a setting's name")?.0;
        c.end(&[])?;
        return Ok(Box::new(Show::Variable(variable)));
    }
    let found = c.peek(0).map(|t| t.token.to_string()).unwrap_or_default();
    let e = Error::syntax(format!("SHOW {found} is not a statement")).with_span(c.here());
    let words: Vec<&str> = LISTS.iter().map(|l| l.words).chain(["WARNINGS", "VERSIONS OF", "CREATE"]).collect();
    Err(match nearest(&found, words.iter().map(|w| w.split(' ').next().unwrap_or(w))) {
        Some(best) => {
            let full = words.iter().find(|w| w.starts_with(&best)).copied().unwrap_or(&best).to_string();
            e.with_hint(format!("did you mean SHOW {full}?"))
        }
        None => e.with_hint(format!("SHOW can list {}", words.join(", "))),
    })
}

fn quoted(s: &str) -> String {
    format!("'{}'", s.replace('\'', "''"))
}

#[async_trait]
impl Statement for Show {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let schema = p.names().schema().to_string();
        let text = match *self {
            Show::List { what, like } => {
                let plan = p.sql(what.query(&schema, like)?, &schema).await.map_err(Error::without_span)?;
                return Ok(Planned { tag: "SHOW", ..Planned::query(plan) });
            }
            Show::Versions(n) => {
                let name = p.names().name(&n);
                p.names().catalog().feature_view_series(&name).map_err(|e| e.or_span(n.span))?;
                format!(
                    "SELECT version, is_current, filled, materialized, rows, watermark, location, created_at FROM system.feature_view_versions WHERE schema = {} AND name = {} ORDER BY version",
                    quoted(&name.schema),
                    quoted(&name.name)
                )
            }
            Show::Variable(v) => match v.as_str() {
                "all" => "SELECT name, value, meaning FROM system.settings ORDER BY name".to_string(),
                v => format!("SELECT name, value, meaning FROM system.settings WHERE name = {}", quoted(v)),
            },
            Show::Zone => "SELECT 'timezone' AS name, 'UTC' AS value, 'the time zone of sessions; AT TIME ZONE names another one in a query' AS meaning".to_string(),
            Show::Warnings => return warnings(p),
        };
        // places in the generated text mean nothing in the user's
        let plan = p.sql(crate::sql::parse::statement(&text)?, &schema).await.map_err(Error::without_span)?;
        Ok(Planned { tag: "SHOW", ..Planned::query(plan) })
    }
}

fn warnings(p: &dyn Planning) -> Result<Planned> {
    let rows = p.warnings();
    let plan = if rows.is_empty() {
        let b = LogicalPlanBuilder::values(vec![vec![lit(""), lit("")]])?;
        let first = b.schema().columns()[0].clone();
        b.filter(datafusion::logical_expr::Expr::Column(first).not_eq(lit("")))?
    } else {
        LogicalPlanBuilder::values(rows.into_iter().map(|(level, m)| vec![lit(level), lit(m)]).collect())?
    };
    let columns = plan.schema().columns();
    let list: Vec<_> =
        columns.into_iter().zip(["level", "message"]).map(|(c, n)| datafusion::logical_expr::Expr::Column(c).alias(n)).collect();
    Ok(Planned { tag: "SHOW WARNINGS", ..Planned::query(plan.project(list)?.build()?) })
}
