//! Clauses around a SELECT: WITH, ORDER BY, LIMIT, and what other dialects put behind them.

use sqlparser::ast::{
    Cte, CteAsMaterialized, Expr, ExprWithAliasAndOrderBy, Fetch, LimitClause, OrderBy, OrderByExpr, OrderByKind, OrderByOptions,
    PipeOperator, Query, SetExpr, SetOperator, TableAlias, TableAliasColumnDef, Values, With,
};

use super::{Verdict, refuse, select};

pub(super) fn query(q: &Query) -> Verdict {
    let Query { with, body, order_by, limit_clause, fetch, locks, for_clause, settings, format_clause, pipe_operators } = q;
    refuse(
        !locks.is_empty(),
        "FOR UPDATE or FOR SHARE",
        &["FOR UPDATE", "FOR SHARE"],
        "leave it out: a statement reads one version of each table, and nobody waits for it",
    )?;
    refuse(
        for_clause.is_some(),
        "FOR JSON, FOR XML or FOR BROWSE",
        &["FOR JSON", "FOR XML", "FOR BROWSE"],
        "leave it out; the client chooses the format (remige sql --format json)",
    )?;
    refuse(settings.is_some(), "SETTINGS", &["SETTINGS"], "SET name = value changes a setting of the session")?;
    refuse(
        format_clause.is_some(),
        "FORMAT",
        &["FORMAT"],
        "the client chooses the format (remige sql --format json); COPY (…) TO 'file' writes one",
    )?;
    if let Some(With { with_token: _, recursive: _, cte_tables }) = with {
        cte_tables.iter().try_for_each(cte)?;
    }
    set(body)?;
    if let Some(o) = order_by {
        ordering(o)?;
    }
    if let Some(Fetch { with_ties, percent, quantity: _ }) = fetch {
        refuse(
            *with_ties,
            "FETCH … WITH TIES",
            &["WITH TIES"],
            "number the rows with rank() OVER (ORDER BY …), and QUALIFY or filter by it",
        )?;
        refuse(
            *percent,
            "FETCH … PERCENT",
            &["PERCENT"],
            "number the rows with percent_rank() OVER (ORDER BY …), and QUALIFY or filter by it",
        )?;
        refuse(limit_clause.as_ref().is_some_and(limited), "FETCH together with LIMIT", &["FETCH"], "write one of them")?;
    }
    if let Some(l) = limit_clause {
        limit(l)?;
    }
    pipe_operators.iter().try_for_each(pipe)
}

fn limited(l: &LimitClause) -> bool {
    match l {
        LimitClause::LimitOffset { limit, offset: _, limit_by: _ } => limit.is_some(),
        LimitClause::OffsetCommaLimit { offset: _, limit: _ } => true,
    }
}

fn limit(l: &LimitClause) -> Verdict {
    match l {
        LimitClause::LimitOffset { limit: _, offset: _, limit_by } => refuse(
            !limit_by.is_empty(),
            "LIMIT … BY",
            &["LIMIT"],
            "number the rows of each group: … QUALIFY row_number() OVER (PARTITION BY key ORDER BY …) <= n",
        ),
        LimitClause::OffsetCommaLimit { offset: _, limit: _ } => Ok(()),
    }
}

fn cte(c: &Cte) -> Verdict {
    let Cte { alias, query: _, from, materialized, closing_paren_token: _ } = c;
    table_alias(alias)?;
    refuse(from.is_some(), "FROM behind a WITH query", &["FROM"], "write the table inside of the query")?;
    match materialized {
        // a WITH query is computed where it is named
        None | Some(CteAsMaterialized::NotMaterialized) => Ok(()),
        Some(CteAsMaterialized::Materialized) => refuse(
            true,
            "AS MATERIALIZED",
            &["MATERIALIZED"],
            "leave it out, or CREATE TABLE … AS the query first, so that it is computed once",
        ),
    }
}

fn set(body: &SetExpr) -> Verdict {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) => Ok(()),
        SetExpr::SetOperation { left, op, set_quantifier: _, right } => {
            refuse(*op == SetOperator::Minus, "MINUS", &["MINUS"], "write EXCEPT")?;
            set(left)?;
            set(right)
        }
        SetExpr::Values(Values { explicit_row: _, value_keyword, rows: _ }) => refuse(*value_keyword, "VALUE", &["VALUE"], "write VALUES"),
        SetExpr::Insert(_) => {
            refuse(true, "INSERT inside of a query", &["INSERT"], "put WITH behind the table: INSERT INTO t WITH … SELECT …")
        }
        SetExpr::Update(_) => refuse(true, "UPDATE inside of a query", &["UPDATE"], "a statement changes rows or reads them"),
        // a DELETE takes itself apart
        SetExpr::Delete(_) => Ok(()),
        SetExpr::Merge(_) => refuse(true, "MERGE inside of a query", &["MERGE"], "a statement changes rows or reads them"),
        SetExpr::Table(_) => refuse(true, "TABLE as a query", &["TABLE"], "write SELECT * FROM the table"),
    }
}

fn ordering(o: &OrderBy) -> Verdict {
    let OrderBy { kind, interpolate } = o;
    refuse(interpolate.is_some(), "INTERPOLATE", &["INTERPOLATE"], "join the rows to a series: generate_series(…)")?;
    match kind {
        OrderByKind::All(OrderByOptions { asc: _, nulls_first: _ }) => Ok(()),
        OrderByKind::Expressions(list) => {
            refuse(
                list.iter().any(|o| is_all(&o.expr)),
                "ORDER BY ALL together with other columns",
                &["ALL"],
                "write ORDER BY ALL alone, or name the columns; a column called all is written in quotes: \"all\"",
            )?;
            list.iter().try_for_each(order)
        }
    }
}

/// One item of an ORDER BY, wherever it stands.
pub(super) fn order(o: &OrderByExpr) -> Verdict {
    let OrderByExpr { expr: _, options: OrderByOptions { asc: _, nulls_first: _ }, with_fill } = o;
    refuse(with_fill.is_some(), "WITH FILL", &["WITH FILL"], "join the rows to a series: generate_series(…)")
}

/// The name of a relation, and names of its columns.
pub(super) fn table_alias(a: &TableAlias) -> Verdict {
    let TableAlias { explicit: _, name: _, columns, at } = a;
    refuse(at.is_some(), "AT behind an alias", &["AT"], "number the elements with row_number() OVER ()")?;
    for TableAliasColumnDef { name, data_type } in columns {
        refuse(
            data_type.is_some(),
            format!("a type behind the name of column {:?}", name.value),
            &["AS"],
            "name the columns only, and CAST in the SELECT list",
        )?;
    }
    Ok(())
}

fn pipe(p: &PipeOperator) -> Verdict {
    match p {
        PipeOperator::Aggregate { full_table_exprs, group_by_expr } => full_table_exprs.iter().chain(group_by_expr).try_for_each(|e| {
            let ExprWithAliasAndOrderBy { expr: _, order_by: OrderByOptions { asc, nulls_first } } = e;
            refuse(
                asc.is_some() || nulls_first.is_some(),
                "an order inside of |> AGGREGATE",
                &["AGGREGATE"],
                "write |> ORDER BY … behind it",
            )
        }),
        PipeOperator::Join(j) => select::join(j),
        PipeOperator::Select { exprs } | PipeOperator::Extend { exprs } => exprs.iter().try_for_each(select::item),
        PipeOperator::OrderBy { exprs } => exprs.iter().try_for_each(order),
        PipeOperator::Limit { expr: _, offset: _ }
        | PipeOperator::Where { expr: _ }
        | PipeOperator::As { alias: _ }
        | PipeOperator::Union { set_quantifier: _, queries: _ }
        | PipeOperator::Intersect { set_quantifier: _, queries: _ }
        | PipeOperator::Except { set_quantifier: _, queries: _ } => Ok(()),
        PipeOperator::Set { assignments: _ }
        | PipeOperator::Drop { columns: _ }
        | PipeOperator::TableSample { sample: _ }
        | PipeOperator::Rename { mappings: _ }
        | PipeOperator::Call { function: _, alias: _ }
        | PipeOperator::Pivot { aggregate_functions: _, value_column: _, value_source: _, alias: _ }
        | PipeOperator::Unpivot { value_column: _, name_column: _, unpivot_columns: _, alias: _ } => {
            let word = p.to_string().split_whitespace().next().unwrap_or_default().to_string();
            refuse(
                true,
                format!("|> {word}"),
                &["SET", "DROP", "TABLESAMPLE", "RENAME", "CALL", "PIVOT", "UNPIVOT"],
                "|> takes WHERE, SELECT, EXTEND, AS, AGGREGATE, JOIN, ORDER BY, LIMIT, UNION, INTERSECT and EXCEPT",
            )
        }
    }
}

/// `ORDER BY ALL`, which the parser takes for a column of that name.
pub(super) fn order_all(q: &mut Query) {
    if let Some(OrderBy { kind, interpolate: None }) = &mut q.order_by
        && let OrderByKind::Expressions(list) = kind
        && let [OrderByExpr { expr, options, with_fill: None }] = &list[..]
        && is_all(expr)
    {
        *kind = OrderByKind::All(*options);
    }
}

fn is_all(e: &Expr) -> bool {
    matches!(e, Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("all"))
}

/// `FETCH FIRST n ROWS ONLY` says what LIMIT says.
pub(super) fn fetch_is_limit(q: &mut Query) {
    let Some(Fetch { with_ties: false, percent: false, quantity }) = &q.fetch else { return };
    let count = match quantity {
        Some(n) => n.clone(),
        None => Expr::value(sqlparser::ast::Value::Number("1".into(), false)),
    };
    match &mut q.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset: _, limit_by: _ }) if limit.is_none() => *limit = Some(count),
        None => q.limit_clause = Some(LimitClause::LimitOffset { limit: Some(count), offset: None, limit_by: vec![] }),
        Some(_) => return,
    }
    q.fetch = None;
}
