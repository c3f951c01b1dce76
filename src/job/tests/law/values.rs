//! Features of all kinds of types, and values of them.

/// A value as SQL writes it and as a query shows it; `None`: NULL.
pub type Cell = Option<(&'static str, &'static str)>;

/// Where the cells of these features stand.
pub const PRICE: usize = 2;
pub const MANY: usize = 3;
/// Cells that a row of the first version has; those of `w0`, `w1`, … follow.
pub const FIRST: usize = 5;
/// Of so many choices the cells of a row are made.
pub const CHOICES: usize = 8;

/// Names and types of the features of a view to which so many were added.
pub fn features(added: usize) -> Vec<(String, &'static str)> {
    let first = [
        ("x", "BIGINT"),
        ("y", "VARCHAR"),
        ("ok", "BOOLEAN"),
        ("ratio", "DOUBLE"),
        ("price", "DECIMAL(12, 3)"),
        ("many", "BIGINT[]"),
        ("seen", "TIMESTAMP"),
    ];
    let later = (0..added).map(|i| (format!("w{i}"), ["DOUBLE", "BIGINT[]", "VARCHAR"][i % 3]));
    first.iter().map(|(name, of)| (name.to_string(), *of)).chain(later).collect()
}

fn values(of: &str) -> &'static [(&'static str, &'static str)] {
    match of {
        "BOOLEAN" => &[("true", "true"), ("false", "false")],
        "DOUBLE" => {
            &[("0.5", "0.5"), ("CAST('-0.0' AS DOUBLE)", "-0.0"), ("CAST('NaN' AS DOUBLE)", "NaN"), ("-1234567.125", "-1234567.125")]
        }
        "DECIMAL(12, 3)" => &[
            ("CAST('12.500' AS DECIMAL(12, 3))", "12.500"),
            ("CAST('-0.001' AS DECIMAL(12, 3))", "-0.001"),
            ("CAST('0' AS DECIMAL(12, 3))", "0.000"),
            ("CAST('999999999.999' AS DECIMAL(12, 3))", "999999999.999"),
        ],
        "BIGINT[]" => &[
            ("make_array(1, NULL, -2)", "[1, NULL, -2]"),
            ("make_array()", "[]"),
            ("make_array(9223372036854775807)", "[9223372036854775807]"),
            ("make_array(CAST(NULL AS BIGINT))", "[NULL]"),
            ("make_array(0, 0)", "[0, 0]"),
        ],
        "TIMESTAMP" => &[
            ("TIMESTAMP '1969-12-31 23:59:59.999999'", "-1"),
            ("TIMESTAMP '1970-01-01 00:00:00'", "0"),
            ("TIMESTAMP '2200-01-01 00:00:00'", "7258118400000000"),
        ],
        _ => &[("''", ""), ("'ü'", "ü"), ("'a text that does not fit beside its length'", "a text that does not fit beside its length")],
    }
}

/// The cells of a row, of the features behind `x` and `y`.
pub fn cells(choices: &[Option<usize>], added: usize) -> Vec<Cell> {
    let one = |(i, (_, of)): (usize, &(String, &str))| {
        let all = values(of);
        // features of one type have other values beside one another
        choices[i % choices.len()].map(|c| all[(c + i / choices.len()) % all.len()])
    };
    features(added)[2..].iter().enumerate().map(one).collect()
}

pub fn written(cells: &[Cell]) -> String {
    cells.iter().map(|c| format!(", {}", c.map_or("NULL", |c| c.0))).collect()
}

pub fn shown<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> String {
    cells.into_iter().map(|c| format!("|{}", c.map_or("NULL", |c| c.1))).collect()
}

/// The features behind `x` and `y` in a SELECT; timestamps as numbers.
pub fn selected(qualifier: &str, added: usize) -> String {
    let one = |(name, of): &(String, &str)| match *of {
        "TIMESTAMP" => format!(", CAST({qualifier}{name} AS BIGINT)"),
        _ => format!(", {qualifier}{name}"),
    };
    features(added)[2..].iter().map(one).collect()
}
