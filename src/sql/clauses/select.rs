//! Clauses of a SELECT, its list and its FROM.

use sqlparser::ast::{
    ConnectByKind, Distinct, FunctionArg, GroupByExpr, GroupByWithModifier, Join, JoinConstraint, JoinOperator, NamedWindowDefinition,
    NamedWindowExpr, Select, SelectFlavor, SelectItem, TableFactor, TableFunctionArgs, TableSampleKind, TableWithJoins,
    WildcardAdditionalOptions,
};

use super::query::table_alias;
use super::{Verdict, function, refuse};

pub(super) fn select(s: &Select) -> Verdict {
    let Select {
        select_token: _,
        optimizer_hints,
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having: _,
        named_window,
        qualify: _,
        window_before_qualify: _,
        value_table_mode,
        flavor: _,
    } = s;
    refuse(!optimizer_hints.is_empty(), "a hint in a comment", &["SELECT"], "leave it out")?;
    match distinct {
        None | Some(Distinct::All | Distinct::Distinct | Distinct::On(_)) => {}
    }
    refuse(select_modifiers.as_ref().is_some_and(|m| m.is_any_set()), "a modifier behind SELECT", &["SELECT"], "leave it out")?;
    refuse(top.is_some(), "TOP", &["TOP"], "write LIMIT n behind the query")?;
    refuse(exclude.is_some(), "EXCLUDE behind the SELECT list", &["EXCLUDE"], "write it behind the star: SELECT * EXCLUDE (column)")?;
    refuse(into.is_some(), "SELECT … INTO", &["INTO"], "write CREATE TABLE name AS SELECT …")?;
    refuse(!lateral_views.is_empty(), "LATERAL VIEW", &["LATERAL VIEW"], "write unnest(list) in the SELECT list")?;
    refuse(prewhere.is_some(), "PREWHERE", &["PREWHERE"], "write WHERE")?;
    for c in connect_by {
        match c {
            ConnectByKind::ConnectBy { connect_token: _, nocycle: _, relationships: _ }
            | ConnectByKind::StartWith { start_token: _, condition: _ } => {
                refuse(true, "CONNECT BY", &["CONNECT BY", "START WITH"], "write WITH RECURSIVE … AS (… UNION ALL …)")?;
            }
        }
    }
    let by_parts = "rows are spread by the engine; write ORDER BY for the order of a result";
    refuse(!cluster_by.is_empty(), "CLUSTER BY", &["CLUSTER BY"], by_parts)?;
    refuse(!distribute_by.is_empty(), "DISTRIBUTE BY", &["DISTRIBUTE BY"], by_parts)?;
    refuse(!sort_by.is_empty(), "SORT BY", &["SORT BY"], by_parts)?;
    refuse(
        value_table_mode.is_some(),
        "AS STRUCT or AS VALUE",
        &["AS STRUCT", "AS VALUE"],
        "write the columns, or named_struct('name', value, …)",
    )?;
    grouping(group_by)?;
    projection.iter().try_for_each(item)?;
    for NamedWindowDefinition(_, window) in named_window {
        match window {
            NamedWindowExpr::WindowSpec(w) => function::window(w)?,
            NamedWindowExpr::NamedWindow(_) => refuse(true, "a window that is another one", &["WINDOW"], "write the window out in full")?,
        }
    }
    for TableWithJoins { relation: _, joins } in from {
        joins.iter().try_for_each(join)?;
    }
    Ok(())
}

/// `FROM t` is `SELECT * FROM t`.
pub(super) fn from_alone(s: &mut Select) {
    if s.flavor == SelectFlavor::FromFirstNoSelect && s.projection.is_empty() {
        s.flavor = SelectFlavor::Standard;
        s.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
    }
}

fn grouping(g: &GroupByExpr) -> Verdict {
    let modifiers = match g {
        GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => modifiers,
    };
    for m in modifiers {
        let (what, words, hint): (_, &'static [&'static str], _) = match m {
            GroupByWithModifier::Rollup => ("WITH ROLLUP", &["WITH ROLLUP"], "write GROUP BY ROLLUP (a, b)"),
            GroupByWithModifier::Cube => ("WITH CUBE", &["WITH CUBE"], "write GROUP BY CUBE (a, b)"),
            GroupByWithModifier::Totals => ("WITH TOTALS", &["WITH TOTALS"], "write GROUP BY GROUPING SETS ((a, b), ())"),
            GroupByWithModifier::GroupingSets(_) => {
                ("GROUPING SETS behind other groups", &["GROUPING SETS"], "write GROUP BY GROUPING SETS ((a, b), (a), …)")
            }
        };
        refuse(true, what, words, hint)?;
    }
    Ok(())
}

pub(super) fn item(i: &SelectItem) -> Verdict {
    match i {
        SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { expr: _, alias: _ } => Ok(()),
        SelectItem::ExprWithAliases { expr: _, aliases: _ } => {
            refuse(true, "several names for one expression", &["AS"], "name each column: expression AS name")
        }
        SelectItem::QualifiedWildcard(_, options) | SelectItem::Wildcard(options) => wildcard(options),
    }
}

pub(super) fn wildcard(o: &WildcardAdditionalOptions) -> Verdict {
    let WildcardAdditionalOptions { wildcard_token: _, opt_ilike, opt_exclude: _, opt_except: _, opt_replace: _, opt_rename, opt_alias } =
        o;
    refuse(opt_ilike.is_some(), "* ILIKE", &["ILIKE"], "name the columns, or leave some out: * EXCLUDE (column)")?;
    refuse(opt_rename.is_some(), "* RENAME", &["RENAME"], "leave the column out and add it under its new name: * EXCLUDE (a), a AS b")?;
    refuse(opt_alias.is_some(), "a name behind *", &["AS"], "name the columns one by one")
}

pub(super) fn factor(t: &TableFactor) -> Verdict {
    match t {
        TableFactor::Table { name: _, alias, args, with_hints, version, with_ordinality, partitions, json_path, sample, index_hints } => {
            if let Some(TableFunctionArgs { args: _, settings }) = args {
                refuse(settings.is_some(), "SETTINGS", &["SETTINGS"], "SET name = value changes a setting of the session")?;
            }
            refuse(!with_hints.is_empty(), "WITH (…) behind a table", &["WITH"], "leave the hint out")?;
            refuse(
                version.is_some(),
                "this form of time travel",
                &["FOR SYSTEM_TIME", "FOR", "AT", "BEFORE", "CHANGES"],
                "write: table TIMESTAMP AS OF '2026-02-01 10:00', or: table VERSION AS OF 12",
            )?;
            refuse(*with_ordinality, "WITH ORDINALITY", &["WITH ORDINALITY"], "number the rows with row_number() OVER ()")?;
            refuse(!partitions.is_empty(), "PARTITION (…) behind a table", &["PARTITION"], "write WHERE partition_column = …")?;
            refuse(json_path.is_some(), "a JSON path behind a table", &["FROM"], "name the table, and take fields out in the SELECT list")?;
            refuse(!index_hints.is_empty(), "an index hint", &["USE", "FORCE", "IGNORE"], "leave it out: there are no indexes")?;
            sampled(sample)?;
            named(alias)
        }
        TableFactor::Derived { lateral: _, subquery: _, alias, sample } => {
            sampled(sample)?;
            named(alias)
        }
        TableFactor::Function { lateral: _, name, args, with_ordinality, alias } => {
            refuse(*with_ordinality, "WITH ORDINALITY", &["WITH ORDINALITY"], "number the rows with row_number() OVER ()")?;
            let by_name = args.iter().any(|a| !matches!(a, FunctionArg::Unnamed(_)));
            refuse(
                by_name,
                format!("a named argument of {name}"),
                &["LATERAL"],
                "give the arguments by their place, or leave LATERAL out",
            )?;
            named(alias)
        }
        TableFactor::UNNEST { alias, array_exprs: _, with_offset, with_offset_alias, with_ordinality } => {
            let number = "number the elements with row_number() OVER ()";
            refuse(*with_offset || with_offset_alias.is_some(), "WITH OFFSET", &["WITH OFFSET"], number)?;
            refuse(*with_ordinality, "WITH ORDINALITY", &["WITH ORDINALITY"], number)?;
            named(alias)
        }
        TableFactor::NestedJoin { table_with_joins, alias } => {
            table_with_joins.joins.iter().try_for_each(join)?;
            named(alias)
        }
        TableFactor::TableFunction { expr: _, alias: _ } => {
            refuse(true, "TABLE(…)", &["TABLE"], "name the function by itself: FROM unnest(…), FROM generate_series(…)")
        }
        TableFactor::Pivot { table: _, aggregate_functions: _, value_column: _, value_source: _, default_on_null: _, alias } => {
            named(alias)
        }
        TableFactor::Unpivot { table: _, value: _, name: _, columns: _, null_inclusion: _, alias } => named(alias),
        TableFactor::MatchRecognize { .. } => {
            refuse(true, "MATCH_RECOGNIZE", &["MATCH_RECOGNIZE"], "write window functions: lag(x) OVER (PARTITION BY … ORDER BY …)")
        }
        TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } => {
            refuse(true, "JSON_TABLE", &["JSON_TABLE", "OPENJSON"], "read JSON files as a table: CREATE EXTERNAL TABLE … STORED AS JSON")
        }
        TableFactor::XmlTable { .. } => refuse(true, "XMLTABLE", &["XMLTABLE"], "turn the XML into Parquet, CSV or JSON files first"),
        TableFactor::SemanticView { .. } => refuse(true, "SEMANTIC_VIEW", &["SEMANTIC_VIEW"], "write the query of the view"),
    }
}

fn named(alias: &Option<sqlparser::ast::TableAlias>) -> Verdict {
    alias.as_ref().map_or(Ok(()), table_alias)
}

fn sampled(sample: &Option<TableSampleKind>) -> Verdict {
    match sample {
        None => Ok(()),
        Some(TableSampleKind::BeforeTableAlias(_) | TableSampleKind::AfterTableAlias(_)) => refuse(
            true,
            "TABLESAMPLE",
            &["TABLESAMPLE", "SAMPLE"],
            "about a tenth of the rows: WHERE random() < 0.1; a number of rows: ORDER BY random() LIMIT n",
        ),
    }
}

pub(super) fn join(j: &Join) -> Verdict {
    let Join { relation: _, global, join_operator } = j;
    refuse(*global, "GLOBAL", &["GLOBAL"], "leave it out")?;
    let crossed = |c: &JoinConstraint| {
        refuse(!matches!(c, JoinConstraint::None), "a condition of a CROSS JOIN", &["CROSS JOIN"], "write JOIN … ON …")
    };
    match join_operator {
        JoinOperator::Join(_)
        | JoinOperator::Inner(_)
        | JoinOperator::Left(_)
        | JoinOperator::LeftOuter(_)
        | JoinOperator::Right(_)
        | JoinOperator::RightOuter(_)
        | JoinOperator::FullOuter(_)
        | JoinOperator::LeftSemi(_)
        | JoinOperator::RightSemi(_)
        | JoinOperator::LeftAnti(_)
        | JoinOperator::RightAnti(_)
        | JoinOperator::AsOf { match_condition: _, constraint: _ } => Ok(()),
        JoinOperator::CrossJoin(c) => crossed(c),
        JoinOperator::Semi(_) => refuse(true, "SEMI JOIN without a side", &["SEMI"], "write LEFT SEMI JOIN"),
        JoinOperator::Anti(_) => refuse(true, "ANTI JOIN without a side", &["ANTI"], "write LEFT ANTI JOIN"),
        JoinOperator::CrossApply | JoinOperator::OuterApply => {
            refuse(true, "APPLY", &["CROSS APPLY", "OUTER APPLY"], "write a JOIN … ON …, or unnest(list) in the SELECT list")
        }
        JoinOperator::StraightJoin(_) => refuse(true, "STRAIGHT_JOIN", &["STRAIGHT_JOIN"], "write JOIN … ON …"),
        JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
            refuse(true, "ARRAY JOIN", &["ARRAY JOIN"], "write unnest(list) in the SELECT list")
        }
    }
}
