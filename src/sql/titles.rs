//! Names of result columns. The planner names what has no name after its own notation (`Int64(1)`), and refuses
//! two columns of one name. Here expressions without a name are called as the user wrote them, and columns may
//! share a name where nothing but their place tells them apart.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, Query, Select, SelectItem, SetExpr, VisitMut, VisitorMut};

use super::tokens::fold_ident;

/// Stands behind a column's name, before the number of its place, where another column has the same name.
pub const MARK: char = '\u{1}';

/// Names the columns of a query's result.
pub fn entitle(query: &mut Query) {
    let mut order = query.order_by.as_ref().map(|o| o.to_string()).unwrap_or_default();
    if let Some(select) = first_select(&mut query.body) {
        order.push_str(&by_name(select));
        let order = order.to_lowercase();
        let order: Vec<&str> = order.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
        name_all(select, &order);
    }
}

/// The clauses of a SELECT that may name its columns.
fn by_name(s: &Select) -> String {
    let clauses = s.having.iter().chain(&s.qualify).map(|e| format!(" {e}"));
    let distinct = s.distinct.as_ref().map(|d| format!(" {d}"));
    format!(" {}{}{}", s.group_by, clauses.collect::<String>(), distinct.unwrap_or_default())
}

fn first_select(body: &mut SetExpr) -> Option<&mut Select> {
    match body {
        SetExpr::Select(s) => Some(s),
        SetExpr::SetOperation { left, .. } => first_select(left),
        // the names of a query in parentheses are those of its result
        SetExpr::Query(q) => first_select(&mut q.body),
        _ => None,
    }
}

fn name_all(select: &mut Select, order: &[&str]) {
    if select.into.is_some() {
        return;
    }
    let titles: Vec<Option<String>> = select.projection.iter().map(title).collect();
    let starred = select.projection.iter().any(|i| !matches!(i, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }));
    for (i, item) in select.projection.iter_mut().enumerate() {
        let Some(title) = &titles[i] else { continue };
        // a star may hold a column of any name
        let shared = starred || titles.iter().filter(|t| t.as_ref() == Some(title)).count() > 1;
        match item {
            SelectItem::UnnamedExpr(e) if shared => *item = alias(e.clone(), format!("{title}{MARK}{i}")),
            SelectItem::UnnamedExpr(e) if !is_column(e) => *item = alias(e.clone(), title.clone()),
            // ORDER BY may mean the alias
            SelectItem::ExprWithAlias { alias, .. } if shared && !order.contains(&title.to_lowercase().as_str()) => {
                *alias = Ident::with_quote('"', format!("{title}{MARK}{i}"));
            }
            _ => {}
        }
    }
}

fn alias(expr: Expr, name: String) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) }
}

fn is_column(e: &Expr) -> bool {
    matches!(e, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

fn title(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(i)) => Some(fold_ident(i)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(fold_ident),
        SelectItem::UnnamedExpr(e) => Some(e.to_string()),
        SelectItem::ExprWithAlias { alias, .. } => Some(fold_ident(alias)),
        _ => None,
    }
}

/// Gives expressions without a name that stand twice in one SELECT of a statement names of their own, which
/// nobody can have meant: they were refused.
pub fn tell_apart(query: &mut Query) {
    struct Apart;
    impl VisitorMut for Apart {
        type Break = ();
        fn pre_visit_query(&mut self, q: &mut Query) -> ControlFlow<()> {
            selects(&mut q.body);
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Apart);
}

fn selects(body: &mut SetExpr) {
    match body {
        SetExpr::Select(s) => name_twins(s),
        SetExpr::SetOperation { left, right, .. } => {
            selects(left);
            selects(right);
        }
        _ => {}
    }
}

fn name_twins(s: &mut Select) {
    let mut seen: Vec<String> = vec![];
    for item in &mut s.projection {
        if let SelectItem::UnnamedExpr(e) = item {
            let text = lowered(&e.to_string());
            let twins = seen.iter().filter(|t| **t == text).count();
            seen.push(text);
            if twins > 0 {
                let name = match &*e {
                    Expr::Identifier(i) => fold_ident(i),
                    Expr::CompoundIdentifier(parts) => parts.last().map(fold_ident).unwrap_or_default(),
                    other => other.to_string(),
                };
                *item = alias(e.clone(), format!("{name}_{twins}"));
            }
        }
    }
}

/// In small letters, outside of quotes.
fn lowered(text: &str) -> String {
    let mut quote = None;
    text.chars()
        .map(|c| match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                c
            }
            (Some(q), c) if q == c => {
                quote = None;
                c
            }
            (None, c) => c.to_ascii_lowercase(),
            (Some(_), c) => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entitled(sql: &str) -> String {
        let mut q = crate::sql::parse::query(sql).unwrap();
        entitle(&mut q);
        q.to_string().replace(MARK, "#")
    }

    #[test]
    fn expressions_are_called_as_they_are_written() {
        assert_eq!(entitled("SELECT a, 1, count(*), x AS y FROM t"), "SELECT a, 1 AS \"1\", count(*) AS \"count(*)\", x AS y FROM t");
        assert_eq!(
            entitled("SELECT date_part('day', now() - ts) FROM t"),
            "SELECT date_part('day', now() - ts) AS \"date_part('day', now() - ts)\" FROM t"
        );
        assert_eq!(entitled("SELECT *, 1, a AS b FROM t"), "SELECT *, 1 AS \"1#1\", a AS \"b#2\" FROM t");
        assert_eq!(entitled("SELECT *, f(x) AS b FROM t QUALIFY b = 1"), "SELECT *, f(x) AS b FROM t QUALIFY b = 1");
    }

    #[test]
    fn twins_are_marked() {
        assert_eq!(entitled("SELECT 1 AS a, 2 AS a"), "SELECT 1 AS \"a#0\", 2 AS \"a#1\"");
        assert_eq!(entitled("SELECT a, t.a FROM t ORDER BY a"), "SELECT a AS \"a#0\", t.a AS \"a#1\" FROM t ORDER BY a");
        assert_eq!(entitled("SELECT b AS x, c AS x FROM t ORDER BY b"), "SELECT b AS \"x#0\", c AS \"x#1\" FROM t ORDER BY b");
        assert_eq!(entitled("SELECT 1 AS a, 2 AS a ORDER BY a"), "SELECT 1 AS a, 2 AS a ORDER BY a");
    }

    #[test]
    fn twins_inside_get_names() {
        let mut q = crate::sql::parse::query("SELECT * FROM (SELECT 1, 1, a, a, l.id, r.id FROM t)").unwrap();
        tell_apart(&mut q);
        assert_eq!(q.to_string(), "SELECT * FROM (SELECT 1, 1 AS \"1_1\", a, a AS \"a_1\", l.id, r.id FROM t)");
    }
}
