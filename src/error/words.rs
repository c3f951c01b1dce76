//! The engine's errors in the words of SQL. What it says is written for those who work on it: names of its types,
//! of its literals and of its own stages. All of that is translated here, by kind.

use std::iter::Peekable;
use std::str::CharIndices;

/// A message and, where there is something to do, a help.
pub struct Words {
    pub message: String,
    pub hint: Option<String>,
    /// The statement is at fault, whatever the engine calls it.
    pub of_statement: bool,
}

/// Class names that the engine puts in front of its messages.
const PREFIXES: &[&str] = &[
    "Error during planning: ",
    "Execution error: ",
    "External error: ",
    "SQL error: ",
    "Invalid argument error: ",
    "Compute error: ",
    "Cast error: ",
    "Parser error: ",
    "sql parser error: ",
    "Schema error: ",
    "This feature is not implemented: ",
    "Internal error: ",
    "Arrow error: ",
    "DataFusion error: ",
    "Parquet error: ",
    "Arithmetic overflow: ",
    "Optimizer error: ",
    "Resources exhausted: ",
    "Substrait error: ",
];

/// What no user should have to read.
const FOREIGN: &[&str] = &[
    "Internal error",
    "DataFusion",
    "Physical plan",
    "LogicalPlan",
    "ParserError",
    "TokenizerError",
    "SchemaError",
    "Arrow error",
    "External error",
    " AST",
    "Ident {",
    "Field {",
    "Column {",
    "Expr(",
    "Some(",
    "BinaryExpr",
    "ScalarSubquery",
    "OuterReferenceColumn",
    "ScalarFunction",
    "bug in",
    "RuntimeEnv",
];

/// Translates one message of the engine.
pub fn plain(message: &str) -> Words {
    let text = bare(message);
    let words = known(&text).unwrap_or_else(|| Words { message: names(&text), hint: None, of_statement: false });
    if !FOREIGN.iter().any(|f| words.message.contains(f)) {
        return words;
    }
    tracing::warn!(message, "an error of the engine that has no words of ours");
    let end = FOREIGN.iter().filter_map(|f| words.message.find(f)).min().unwrap_or(0);
    let beginning = words.message[..end].trim_end_matches([' ', ':', '(', '"', '\'', ',', '.']);
    let message = match beginning.split_whitespace().count() {
        0..=3 => "this statement has a form that cannot be carried out".to_string(),
        _ => format!("{beginning} …"),
    };
    Words { message, ..words }
}

/// Without class names, stages and requests to report.
fn bare(message: &str) -> String {
    let mut text = message.split("\n\nbacktrace:").next().unwrap_or(message).to_string();
    // `rule\ncaused by\nError` : the cause is what helps
    if let Some((_, cause)) = text.rsplit_once("\ncaused by\n") {
        text = cause.to_string();
    }
    if let Some((before, after)) = text.split_once("\nThis issue was likely caused by a bug") {
        let rest = after.split_once("issues").map_or("", |(_, rest)| rest);
        text = format!("{before}{rest}");
    }
    for prefix in PREFIXES {
        text = text.replace(prefix, "");
    }
    for (open, close) in [("ParserError(\"", "\")"), ("TokenizerError(\"", "\")")] {
        if let Some((before, inner)) = text.split_once(open)
            && let Some((inner, after)) = inner.rsplit_once(close)
        {
            text = format!("{before}{}{after}", inner.replace("\\\"", "\"").replace("\\n", "\n"));
        }
    }
    text.trim().trim_end_matches('.').to_string()
}

/// The text between two others.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    text.split_once(open)?.1.split_once(close).map(|(inner, _)| inner)
}

fn words(message: impl Into<String>, hint: impl Into<String>) -> Option<Words> {
    Some(Words { message: message.into(), hint: Some(hint.into()), of_statement: true })
}

/// How instants are written.
pub const INSTANTS: &str =
    "write '2026-02-01', '2026-02-01 10:00', '2026-02-01 10:00:00' or RFC 3339 ('2026-02-01T10:00:00+01:00'); without a zone it is UTC";

/// Messages that are said another way altogether.
fn known(text: &str) -> Option<Words> {
    if let Some(call) = between(text, "No function matches the given name and argument types '", "'.") {
        return no_function(call, text);
    }
    if let Some(rest) = text.strip_prefix("Cannot cast string '")
        && let Some((value, t)) = rest.rsplit_once("' to value of ")
    {
        return not_a(value, t.trim_end_matches(" type"));
    }
    if let Some(rest) = text.strip_prefix("Cannot cast value '")
        && let Some((value, t)) = rest.rsplit_once("' to value of ")
    {
        return not_a(value, t.trim_end_matches(" type"));
    }
    if let Some(value) = between(text, "Error parsing timestamp from '", "': ") {
        return words(format!("{value:?} is not an instant"), INSTANTS);
    }
    if text.starts_with("Divide by zero") || text.starts_with("DivideByZero") {
        return words("division by zero", "write a / nullif(b, 0), which is NULL there");
    }
    if let Some((_, call)) = text.split_once("Array overflow on ") {
        return words(format!("{call} does not fit its type"), "CAST to a wider type first: DECIMAL(38, 0) or DOUBLE");
    }
    if let Some(what) = text.strip_prefix("regex parse error:") {
        let why = what.rsplit_once("error: ").map_or(what, |(_, why)| why);
        return words(
            format!("this is no regular expression: {}", why.trim()),
            "a character with a meaning of its own wants a \\ before it",
        );
    }
    if text.contains("unable to unwrap lambda") {
        return words(
            "a function of elements (x -> …) cannot be the condition of a join",
            "join the elements: FROM (SELECT id, unnest(l) AS e FROM a) u JOIN b ON u.e = b.e, or write list_contains(l, b.e)",
        );
    }
    if text.contains("qualifier for lambda variable") {
        return words(
            "a subquery cannot use the parameter of a function of elements (x -> …)",
            "take the elements out first: SELECT … FROM (SELECT unnest(l) AS e FROM …)",
        );
    }
    if let Some(what) = text.strip_prefix("Overflow happened on: ") {
        return words(format!("{what} does not fit its type"), "CAST to a wider type first: DECIMAL(38, 0) or DOUBLE");
    }
    if text.contains(" require unique expression names") {
        let name = names(between(text, "expression \"", "\" at position").unwrap_or_default());
        let name = name.rsplit_once(" AS ").map_or(name.as_str(), |(_, alias)| alias);
        let hint = match text.starts_with("Projections") {
            true => "give one of them another name with AS",
            false => "they differ by a CAST only: compute it in a subquery, SELECT f(x) FROM (SELECT CAST(… AS …) AS x FROM …)",
        };
        return words(format!("two columns are called {name:?}"), hint);
    }
    if let Some(name) = text.strip_prefix("Schema contains duplicate qualified field name ") {
        return words(format!("column {name} is there twice"), "two tables of a FROM have one name: give one of them an alias");
    }
    if let Some(name) = text.strip_prefix("Schema contains duplicate unqualified field name ") {
        return words(format!("two columns are called {name}"), "give one of them another name with AS");
    }
    if let Some(column) = between(text, "While expanding wildcard, column \"", "\" must appear in the GROUP BY") {
        return words(
            format!("column {} is neither in GROUP BY nor inside of an aggregate function", names(column)),
            "add it to GROUP BY, or write min(…), max(…) or first_value(…) around it",
        );
    }
    if text.contains("Physical plan does not support logical expression") {
        let what = if text.contains("Exists") { "EXISTS" } else { "this subquery" };
        return words(
            format!("{what} reads the row around it in a way that cannot be planned"),
            "join instead: ASOF JOIN for the last row before each row, LEFT JOIN and GROUP BY for counts and sums",
        );
    }
    if let Some(rest) = text.strip_prefix("Unsupported ast node ").or_else(|| text.strip_prefix("Unsupported AST node ")) {
        let node: String = rest.trim_start_matches("in sqltorel: ").chars().take_while(|c| c.is_alphanumeric()).collect();
        return words(format!("{} is not supported here", spaced(&node)), "see the pages on SQL for what is");
    }
    if let Some(url) =
        between(text, "No suitable object store found for ", ". See").or_else(|| text.strip_prefix("No suitable object store found for "))
    {
        let scheme = url.split("://").next().unwrap_or(url);
        return words(
            format!("this build cannot read {scheme}:// ({url})"),
            "local paths work always; s3://, gs:// and az:// need a build with the cargo feature s3, gcs or azure",
        );
    }
    if let Some(rest) = text.strip_prefix("Cannot coerce arithmetic expression ") {
        let e = names(rest.trim_end_matches(" to valid types"));
        return words(format!("{e}: these types cannot be computed with each other"), "CAST one side to the type of the other");
    }
    if let Some(rest) = text.strip_prefix("Cannot infer common argument type for comparison operation ") {
        return words(format!("{}: these types cannot be compared", names(rest)), "CAST one side to the type of the other");
    }
    None
}

fn not_a(value: &str, t: &str) -> Option<Words> {
    let t = names(t);
    words(format!("'{value}' is no {t}"), format!("TRY_CAST(… AS {t}) answers NULL where a text is no {t}"))
}

/// `substr(Int64, Utf8)` and the candidates below it.
fn no_function(call: &str, text: &str) -> Option<Words> {
    let call = names(call);
    let known: Vec<String> = text
        .split_once("Candidate functions:")
        .map(|(_, list)| {
            list.lines()
                .map(|l| names(l.trim()).replace("String", "VARCHAR"))
                .filter(|l| !l.is_empty() && !l.contains("UserDefined"))
                .collect()
        })
        .unwrap_or_default();
    let (name, types) = call.split_once('(').unwrap_or((&call, ")"));
    // what the function itself says
    let own = between(text, "coercion failed with: ", " No function matches").or_else(|| between(text, "coercion failed with \"", "\""));
    let hint = match (own, known.is_empty()) {
        (Some(own), _) => names(bare(own).trim_end_matches(['.', ' '])),
        (None, true) => "CAST the arguments".to_string(),
        (None, false) => format!("it is called as {}", known.join(" or ")),
    };
    words(format!("function {name} does not take ({types}"), hint)
}

/// `CreateFunction` as `CREATE FUNCTION`.
fn spaced(node: &str) -> String {
    let mut out = String::new();
    for (i, c) in node.chars().enumerate() {
        if i > 0 && c.is_uppercase() {
            out.push(' ');
        }
        out.push(c.to_ascii_uppercase());
    }
    if out.is_empty() { "this form".into() } else { out }
}

/// Names of types and literals as SQL has them.
pub fn names(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !(c.is_alphanumeric() || c == '_') {
            out.push(c);
            continue;
        }
        let end = word_end(&mut chars, text.len());
        let word = &text[at..end];
        let rest = &text[end..];
        let group = group(rest);
        let record = record(rest);
        match (group, record) {
            (Some((inner, after)), _) if let Some(said) = call(word, inner) => {
                out.push_str(&said);
                skip(&mut chars, end + after);
            }
            (_, Some((inner, after))) if matches!(word, "Field" | "Column") => {
                let name = between(inner, "name: \"", "\"").unwrap_or_default();
                let typed = between(inner, "data_type: ", ", nullable").or_else(|| inner.split_once("data_type: ").map(|(_, t)| t));
                out.push_str(&match (word, typed) {
                    ("Field", Some(t)) => names(t.trim()),
                    _ => format!("{name:?}"),
                });
                skip(&mut chars, end + after);
            }
            _ => out.push_str(of_type(word).unwrap_or(word)),
        }
    }
    out
}

fn word_end(chars: &mut Peekable<CharIndices<'_>>, len: usize) -> usize {
    while let Some((at, c)) = chars.peek() {
        if !(c.is_alphanumeric() || *c == '_') {
            return *at;
        }
        chars.next();
    }
    len
}

fn skip(chars: &mut Peekable<CharIndices<'_>>, to: usize) {
    while chars.peek().is_some_and(|(at, _)| *at < to) {
        chars.next();
    }
}

/// What stands in the parentheses at the beginning of a text, and where they end.
fn group(text: &str) -> Option<(&str, usize)> {
    enclosed(text, '(', ')')
}

fn record(text: &str) -> Option<(&str, usize)> {
    let space = text.len() - text.trim_start_matches(' ').len();
    enclosed(&text[space..], '{', '}').map(|(inner, end)| (inner, end + space))
}

fn enclosed(text: &str, open: char, close: char) -> Option<(&str, usize)> {
    if !text.starts_with(open) {
        return None;
    }
    let (mut depth, mut quoted) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            c if c == open && !quoted => depth += 1,
            c if c == close && !quoted => {
                depth -= 1;
                if depth == 0 {
                    return Some((&text[1..i], i + 1));
                }
            }
            _ => {}
        }
    }
    None
}

/// A type with arguments, or a literal.
fn call(word: &str, inner: &str) -> Option<String> {
    Some(match word {
        "Timestamp" => "TIMESTAMP".into(),
        "Interval" | "Duration" => "INTERVAL".into(),
        "Time32" | "Time64" => "TIME".into(),
        "FixedSizeBinary" => "BYTEA".into(),
        "List" | "LargeList" | "ListView" => format!("{}[]", names(inner)),
        "FixedSizeList" => format!("{}[]", names(inner.rsplit_once(',').map_or(inner, |(t, _)| t))),
        "Dictionary" => names(inner.split_once(',').map_or(inner, |(_, t)| t.trim())),
        "Struct" if inner.contains("Field") || inner.starts_with('"') => "STRUCT".into(),
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => match inner.strip_prefix("Some(").and_then(|i| i.split_once(')')) {
            Some((digits, rest)) => decimal(digits, rest.rsplit(',').next().and_then(|s| s.trim().parse().ok()).unwrap_or(0)),
            None if inner.starts_with("None") => "NULL".into(),
            None => format!("DECIMAL({inner})"),
        },
        w if is_literal(w) => literal(inner),
        _ => return None,
    })
}

fn is_literal(word: &str) -> bool {
    let kinds = ["Timestamp", "Interval", "Duration", "Time32", "Time64"];
    of_type(word).is_some() || kinds.iter().any(|k| word.len() > k.len() && word.starts_with(k))
}

fn literal(inner: &str) -> String {
    match inner.strip_prefix('"').and_then(|i| i.strip_suffix('"')) {
        Some(text) => format!("'{text}'"),
        None => inner.split(", None").next().unwrap_or(inner).to_string(),
    }
}

fn decimal(digits: &str, scale: usize) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |d| ("-", d));
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

fn of_type(word: &str) -> Option<&'static str> {
    Some(match word {
        "Utf8" | "LargeUtf8" | "Utf8View" => "VARCHAR",
        "Int8" => "TINYINT",
        "Int16" => "SMALLINT",
        "Int32" => "INT",
        "Int64" => "BIGINT",
        "UInt8" => "unsigned TINYINT",
        "UInt16" => "unsigned SMALLINT",
        "UInt32" => "unsigned INT",
        "UInt64" => "unsigned BIGINT",
        "Float16" | "Float32" => "FLOAT",
        "Float64" => "DOUBLE",
        "Boolean" => "BOOLEAN",
        "Date32" | "Date64" => "DATE",
        "LargeBinary" | "BinaryView" => "BYTEA",
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => "DECIMAL",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_literals_are_those_of_sql() {
        for (engine, ours) in [
            ("date_part(Utf8(\"DAY\"),now() - d.ts)", "date_part('DAY',now() - d.ts)"),
            ("Int64(1) + Float64(1.5)", "1 + 1.5"),
            ("Utf8 + Int64", "VARCHAR + BIGINT"),
            ("Timestamp(Microsecond, Some(\"UTC\")) and List(Int64)", "TIMESTAMP and BIGINT[]"),
            ("List(Field { name: \"item\", data_type: Utf8, nullable: true })", "VARCHAR[]"),
            ("Decimal128(Some(-15),3,1) of Decimal128(10, 2)", "-1.5 of DECIMAL(10, 2)"),
            ("Dictionary(Int32, Utf8)", "VARCHAR"),
            ("Column { relation: None, name: \"x\" }", "\"x\""),
            ("IntervalMonthDayNano(\"1 day\")", "'1 day'"),
            ("sum(t.Int64)", "sum(t.BIGINT)"),
            ("é Int32", "é INT"),
        ] {
            assert_eq!(names(engine), ours);
        }
    }

    #[test]
    fn kinds_of_errors() {
        let shown = |m: &str| {
            let w = plain(m);
            format!("{} | {}", w.message, w.hint.unwrap_or_default())
        };
        let s = shown(
            "Internal error: Function 'substr' failed to match any signature, errors: Error during planning: x.\nThis issue was likely caused by a bug in DataFusion's code. Please help us to resolve this by filing a bug report in our issue tracker: https://github.com/apache/datafusion/issues. No function matches the given name and argument types 'substr(Int64)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tsubstr(str: String, start_pos: Int64)",
        );
        assert_eq!(s, "function substr does not take (BIGINT) | it is called as substr(str: VARCHAR, start_pos: BIGINT)");
        assert!(shown("Cannot cast string 'it's' to value of Int64 type").starts_with("'it's' is no BIGINT | TRY_CAST"));
        assert!(shown("SQL error: ParserError(\"Expected: \\\"x\\\", found: y\")").starts_with("Expected: \"x\", found: y"));
        assert!(shown("Unsupported ast node CreateFunction { a: Ident { b } }").starts_with("CREATE FUNCTION is not supported"));
        assert!(shown("type_coercion\ncaused by\nError during planning: no way").starts_with("no way"));
        let odd = shown("Physical plan of DataFusion");
        assert!(!FOREIGN.iter().any(|f| odd.contains(f)), "{odd}");
    }
}
