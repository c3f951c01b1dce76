//! How much a statement reads, before it is planned. A WITH query or a view is planned anew wherever it is named, so
//! that a short text can mean a plan without end: `c1 AS (SELECT * FROM c0 UNION ALL SELECT * FROM c0)`, and so on.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, Statement};
use sqlparser::ast::{Ident, ObjectName, Query, Select, Visit, Visitor};

use crate::error::{Error, Result};

/// Queries inside one another, those of views and WITH counted. Plans are walked by recursion.
const MAX_DEPTH: u64 = 500;
/// Tables joined in one FROM: the plan nests them.
const MAX_JOINED: usize = 500;

/// Tables read, and how deep the queries that read them nest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    pub relations: u64,
    pub depth: u64,
}

impl Weight {
    fn add(&mut self, other: Weight) {
        self.relations = self.relations.saturating_add(other.relations);
        self.depth = self.depth.max(other.depth);
    }
}

/// Weighs a statement. `view` knows the weight of a view by schema and name; every other table weighs 1.
pub fn weigh(statement: &Statement, schema: &str, limit: usize, view: &dyn Fn(&str, &str) -> Option<Weight>) -> Result<Weight> {
    let mut scale = Scale { schema, view, open: vec![Frame::default()], joined: 0 };
    scale.put(statement);
    let Frame { sum, .. } = scale.open.swap_remove(0);
    if scale.joined > MAX_JOINED {
        return Err(Error::invalid(format!("more than {MAX_JOINED} tables in one FROM")).with_hint("join them in several steps"));
    }
    if sum.depth > MAX_DEPTH {
        return Err(Error::invalid(format!("the statement is nested too deeply: more than {MAX_DEPTH} queries inside one another"))
            .with_hint("store a step in between with CREATE TABLE … AS"));
    }
    if sum.relations > limit as u64 {
        return Err(Error::invalid(format!(
            "the statement reads more than {limit} tables, where each view and WITH query counts with all that it reads"
        ))
        .with_hint("store a step in between with CREATE TABLE … AS, or raise max_relations"));
    }
    Ok(sum)
}

#[derive(Default)]
struct Frame {
    sum: Weight,
    /// WITH queries of this query that are weighed, by name.
    known: HashMap<String, Weight>,
    /// Those that are not yet: where they are in memory, and their names.
    coming: HashMap<usize, String>,
}

struct Scale<'a> {
    schema: &'a str,
    view: &'a dyn Fn(&str, &str) -> Option<Weight>,
    open: Vec<Frame>,
    joined: usize,
}

impl Scale<'_> {
    fn put(&mut self, statement: &Statement) {
        match statement {
            Statement::Statement(s) => drop(s.visit(self)),
            Statement::CopyTo(c) => match &c.source {
                CopyToSource::Query(q) => drop(q.visit(self)),
                CopyToSource::Relation(name) => drop(self.pre_visit_relation(name)),
            },
            Statement::Explain(e) => self.put(&e.statement),
            _ => {}
        }
    }

    fn of(&self, name: &ObjectName) -> Weight {
        let parts: Vec<String> = name.0.iter().filter_map(|p| p.as_ident()).map(folded).collect();
        let one = Weight { relations: 1, depth: 1 };
        match parts.as_slice() {
            [name] => {
                let known = self.open.iter().rev().find_map(|f| f.known.get(name));
                known.copied().or_else(|| (self.view)(self.schema, name)).unwrap_or(one)
            }
            [.., schema, name] => (self.view)(schema, name).unwrap_or(one),
            [] => one,
        }
    }

    fn add(&mut self, weight: Weight) {
        if let Some(frame) = self.open.last_mut() {
            frame.sum.add(weight);
        }
    }
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

fn address(q: &Query) -> usize {
    std::ptr::from_ref(q).addr()
}

impl Visitor for Scale<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, q: &Query) -> ControlFlow<()> {
        let with = q.with.iter().flat_map(|w| &w.cte_tables);
        let coming = with.map(|cte| (address(&cte.query), folded(&cte.alias.name))).collect();
        self.open.push(Frame { coming, ..Frame::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, q: &Query) -> ControlFlow<()> {
        if self.open.len() > 1
            && let Some(done) = self.open.pop()
            && let Some(around) = self.open.last_mut()
        {
            // a query that reads no table is planned too
            let weight = Weight { depth: done.sum.depth + 1, relations: done.sum.relations.max(1) };
            match around.coming.remove(&address(q)) {
                Some(name) => drop(around.known.insert(name, weight)),
                None => around.sum.add(weight),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, s: &Select) -> ControlFlow<()> {
        self.joined = self.joined.max(s.from.iter().map(|f| 1 + f.joins.len()).sum());
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        self.add(self.of(name));
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str, limit: usize) -> Result<Weight> {
        let statement = crate::sql::parse::statement(sql).unwrap();
        weigh(&statement, "public", limit, &|schema, name| (schema == "public" && name == "v").then_some(Weight { relations: 7, depth: 3 }))
    }

    #[test]
    fn what_is_named_twice_counts_twice() {
        let w = |relations, depth| Weight { relations, depth };
        assert_eq!(of("SELECT * FROM a JOIN b ON a.x = b.x", 10).unwrap(), w(2, 2));
        assert_eq!(of("SELECT * FROM v, V, other.v, \"V\"", 100).unwrap(), w(16, 4));
        assert_eq!(of("WITH c AS (SELECT * FROM v) SELECT * FROM c UNION ALL SELECT * FROM c", 100).unwrap(), w(14, 5));
        assert_eq!(of("SELECT 1 WHERE EXISTS (WITH c AS (SELECT * FROM a) SELECT * FROM c)", 10).unwrap().relations, 1);
        let mut doubling = "WITH c0 AS (SELECT 1 AS x)".to_string();
        for i in 0..60 {
            doubling += &format!(", c{} AS (SELECT * FROM c{i} UNION ALL SELECT * FROM c{i})", i + 1);
        }
        assert!(of(&(doubling + " SELECT * FROM c60"), 10_000).unwrap_err().message().contains("more than 10000 tables"));
        let mut chain = "WITH c0 AS (SELECT * FROM a)".to_string();
        for i in 0..600 {
            chain += &format!(", c{} AS (SELECT * FROM c{i})", i + 1);
        }
        assert!(of(&(chain + " SELECT * FROM c600"), 10_000).unwrap_err().message().contains("nested too deeply"));
        assert!(of(&format!("SELECT 1 FROM a{}", ", a".repeat(600)), 10_000).unwrap_err().message().contains("in one FROM"));
    }
}
