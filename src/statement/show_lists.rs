//! The lists of SHOW: the files of sql/show.

use std::sync::LazyLock;

use datafusion::sql::parser::Statement as DfStatement;
use sqlparser::ast::{BinaryOperator, Expr, Ident, Query, Select, SetExpr, Statement as SqlStatement, Value};

use crate::error::{Error, Result};

/// A list: its file begins with `-- SHOW words | LIKE column | scoped`, or `not scoped`.
#[derive(Debug)]
pub struct List {
    pub words: &'static str,
    /// Column that LIKE filters.
    like: &'static str,
    /// Only what is in the current schema is listed: `schema` is a column of the table.
    scoped: bool,
    text: &'static str,
}

macro_rules! list {
    ($file:literal) => {
        List::read(include_str!(concat!("../../sql/show/", $file, ".sql")))
    };
}

/// All lists, in the order in which an error names them.
pub static LISTS: LazyLock<Vec<List>> = LazyLock::new(|| {
    vec![
        list!("entities"),
        list!("feature_views"),
        list!("features"),
        list!("feature_services"),
        list!("training_sets"),
        list!("runs"),
        list!("sources"),
        list!("tables"),
        list!("views"),
        list!("functions"),
        list!("schemas"),
    ]
});

impl List {
    fn read(text: &'static str) -> Self {
        let head = text.lines().next().unwrap_or_default();
        let mut parts = head.trim_start_matches("-- ").split('|').map(str::trim);
        let mut part = |word: &str| parts.next().unwrap_or_default().trim_start_matches(word).trim();
        List { words: part("SHOW"), like: part("LIKE"), scoped: part("") == "scoped", text }
    }

    /// The query of the list, of the given schema where it is scoped.
    pub fn query(&self, schema: &str, like: Option<String>) -> Result<DfStatement> {
        let mut statement = crate::sql::parse::statement(self.text)?;
        let select = select_of(&mut statement).ok_or_else(|| Error::internal(format!("SHOW {} is no SELECT", self.words)))?;
        if self.scoped {
            add(select, compared("schema", schema));
        }
        if let Some(pattern) = like {
            let (expr, pattern) = (Box::new(column(self.like)), Box::new(text(&pattern)));
            add(select, Expr::Like { negated: false, any: false, expr, pattern, escape_char: None });
        }
        Ok(statement)
    }
}

fn select_of(statement: &mut DfStatement) -> Option<&mut Select> {
    let DfStatement::Statement(statement) = statement else { return None };
    let SqlStatement::Query(query) = statement.as_mut() else { return None };
    let Query { body, .. } = query.as_mut();
    if let SetExpr::Select(select) = body.as_mut() { Some(select) } else { None }
}

fn add(select: &mut Select, condition: Expr) {
    let both = |left| Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(condition.clone()) };
    select.selection = Some(select.selection.take().map_or(condition.clone(), both));
}

fn compared(name: &str, value: &str) -> Expr {
    Expr::BinaryOp { left: Box::new(column(name)), op: BinaryOperator::Eq, right: Box::new(text(value)) }
}

fn column(name: &str) -> Expr {
    Expr::Identifier(Ident::new(name))
}

fn text(value: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(value.to_string()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_list() {
        let files = std::fs::read_dir("sql/show").unwrap().count();
        assert_eq!(files, LISTS.len(), "each file of sql/show is an entry of LISTS");
        for list in LISTS.iter() {
            assert!(list.words.chars().all(|c| c.is_ascii_uppercase() || c == ' '), "{list:?}");
            assert!(list.text.contains(list.like), "{list:?}");
            let query = list.query("sch'ema", Some("a%".into())).unwrap().to_string();
            assert!(query.contains(&format!("{} LIKE 'a%'", list.like)), "{query}");
            assert_eq!(query.contains("schema = 'sch''ema'"), list.scoped, "{query}");
        }
    }
}
