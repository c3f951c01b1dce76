use super::*;
use crate::sql::over;

fn slot(i: usize) -> String {
    format!("_remige_w{i}")
}

fn taken(sql: &str) -> Result<Split> {
    let roles = Roles { view: "v", keys: &["user_id".to_string()], event: "at", created: None, push: false };
    split(over::parse(sql)?.expect("no window"), &roles, slot)
}

#[test]
fn a_select_is_taken_apart() {
    let s = taken(
        "SELECT u.user_id, at, count(*) OVER LAST '1 day' AS n, \
         sum(amount) FILTER (WHERE kind = 'buy') OVER LAST '1 hour' AS spent, \
         sum(amount) OVER w / nullif(count(*) OVER w, 0) AS mean, last_n(item, 10) OVER LAST '90 days' AS items, count(1) OVER LAST '1 day' AS m \
         FROM clicks c JOIN users u ON c.u = u.user_id WHERE ok WINDOW w AS (LAST '7 days')",
    )
    .unwrap();
    assert_eq!(
        s.events.to_string(),
        "SELECT u.user_id AS \"user_id\", at AS \"at\", amount AS \"amount\", kind = 'buy' AS \"filter1\", item AS \"item\" \
         FROM clicks c JOIN users u ON c.u = u.user_id WHERE ok"
    );
    let outputs: Vec<String> = s.outputs.iter().map(|(n, e, _)| format!("{n} = {e}")).collect();
    assert_eq!(
        outputs,
        [
            "n = \"_remige_w0\"",
            "spent = \"_remige_w1\"",
            "mean = \"_remige_w2\" / nullif(\"_remige_w3\", 0)",
            "items = \"_remige_w4\"",
            "m = \"_remige_w0\""
        ]
    );
    assert_eq!((s.aggregates[1].filter.as_deref(), s.aggregates[4].constants.as_slice()), (Some("filter1"), &["10".to_string()][..]));
}

#[test]
fn keys_need_not_be_listed() {
    let s = taken("SELECT sum(user_id) OVER ALL AS s, max(x + 1) OVER ALL AS m, min(x + 1) OVER ALL AS k FROM t").unwrap();
    assert_eq!(
        s.events.to_string(),
        "SELECT \"user_id\" AS \"user_id\", \"at\" AS \"at\", user_id AS \"user_id_2\", x + 1 AS \"arg2\" FROM t"
    );
}

#[test]
fn null_is_no_event() {
    let s = taken("SELECT count(NULL) OVER ALL AS none, count(1) OVER ALL AS one FROM t").unwrap();
    assert_eq!((s.aggregates[0].star, s.aggregates[1].star), (false, true));
}

#[test]
fn what_is_refused() {
    let day = "count(*) OVER LAST '1 day'";
    for (sql, says) in [
        (format!("SELECT {day} AS n, kind FROM t"), "is no window"),
        (format!("SELECT {day} + x AS n FROM t"), "stands beside windows"),
        (format!("SELECT {day} + count(*) AS n FROM t"), "needs a window"),
        (format!("SELECT {day} + row_number() OVER (ORDER BY x) AS n FROM t"), "window of SQL"),
        (format!("SELECT {day} FROM t"), "needs a name"),
        (format!("SELECT {day} AS n, {day} AS n FROM t"), "are called"),
        (format!("SELECT {day} AS user_id FROM t"), "are called"),
        (format!("SELECT {day} AS n FROM t GROUP BY 1"), "GROUP BY"),
        (format!("SELECT DISTINCT {day} AS n FROM t"), "DISTINCT"),
        (format!("SELECT {day} AS n FROM t LIMIT 3"), "LIMIT"),
        (format!("SELECT {day} AS n FROM t ORDER BY 1"), "ORDER BY"),
        (format!("SELECT {day} AS n FROM t UNION ALL SELECT 1"), "UNION"),
        (format!("SELECT *, {day} AS n FROM t"), "*"),
        (format!("SELECT sum({day}) OVER LAST '1 day' AS n FROM t"), "another window"),
        ("SELECT sum(x) FILTER (WHERE sum(x) > 1) OVER LAST '1 day' AS n FROM t".into(), "FILTER cannot hold an aggregate"),
        ("SELECT sum((SELECT 1)) OVER LAST '1 day' AS n FROM t".into(), "subquery"),
        ("SELECT sum(x ORDER BY y) OVER LAST '1 day' AS n FROM t".into(), "order"),
        (format!("SELECT {day} AS n FROM (SELECT {day} AS m FROM t) u"), "own SELECT"),
        (format!("SELECT {day} AS n FROM t WINDOW w AS (LAST '1 day')"), "no aggregate uses"),
        ("SELECT count(*) OVER w AS n FROM (SELECT *, sum(x) OVER w AS s FROM e WINDOW w AS (LAST '1 day')) f".into(), "own SELECT"),
        (format!("SELECT a AS user_id, b AS user_id, {day} AS n FROM t"), "are called"),
        ("SELECT count($1) OVER LAST '1 day' AS n FROM t".into(), "parameters"),
        (format!("SELECT {day} AS n FROM t HAVING true"), "HAVING"),
        (format!("SELECT {day} AS n FROM t QUALIFY true"), "QUALIFY"),
    ] {
        let e = taken(&sql).map(|_| ()).expect_err(&sql);
        assert!(e.message().contains(says) && e.hint().is_some() | e.span().is_some(), "{sql}: {e} {:?}", e.hint());
    }
}
