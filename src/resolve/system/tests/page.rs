//! docs/system-tables.md, made from the declarations.

use datafusion::arrow::datatypes::DataType;

use super::{TABLES, Table, Warehouse, open};
use crate::model::types::ColumnType;

const PAGE: &str = "docs/system-tables.md";
const HEAD: &str = "# System tables\n
Tables of the schema `system` are read with SELECT. They cannot be changed. What is expensive to tell, as `rows` of a feature view or `keys`
of the online store, is computed only where its column is read. Lists of SHOW are reads of these tables: [the SQL](../sql/README.md#looking-around).\n
This page is made from the declarations in `src/resolve/system` and `sql/system`. To make it anew: `REMIGE_WRITE=1 cargo test --lib resolve::system`.
";

/// A column: name, type, what it says.
type Row = (String, String, String);

fn words(t: &DataType) -> String {
    ColumnType::stored(t).unwrap().to_string()
}

/// What a view's file says: about the table in its first lines, about a column behind it.
fn described(query: &str) -> (String, Vec<(String, String)>) {
    let about: Vec<&str> = query.lines().map_while(|l| l.strip_prefix("-- ")).collect();
    let column = |l: &str| {
        let (code, doc) = l.split_once("-- ")?;
        let name = code.trim().trim_end_matches(',').rsplit([' ', '.']).next()?;
        (!name.is_empty()).then(|| (name.to_string(), doc.trim().to_string()))
    };
    (about.join(" "), query.lines().filter_map(column).collect())
}

impl Warehouse {
    /// What a table is, and its columns.
    async fn section(&self, table: &Table) -> (String, Vec<Row>) {
        let row = |name: &str, t: &DataType, doc: &str| (name.to_string(), words(t), doc.trim().to_string());
        match table {
            Table::Declared(t) => {
                let columns = t.columns.iter().map(|c| row(c.name, &(c.data_type)(), c.doc)).collect();
                (t.doc.trim().to_string(), columns)
            }
            Table::View(v) => {
                let (about, docs) = described(v.query);
                let schema = self.sql(&format!("SELECT * FROM system.{}", v.name)).await.schema();
                let names: Vec<&str> = docs.iter().map(|(name, _)| name.as_str()).collect();
                let planned: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                assert_eq!(names, planned, "sql/system/{}.sql says something about each column, in their order", v.name);
                let columns = schema.fields().iter().zip(&docs).map(|(f, (_, doc))| row(f.name(), f.data_type(), doc)).collect();
                (about, columns)
            }
        }
    }
}

#[tokio::test]
async fn the_page_is_what_the_declarations_say() {
    let w = open().await;
    let mut page = HEAD.to_string();
    for table in &TABLES {
        let (about, columns) = w.section(table).await;
        assert!(about.ends_with('.'), "system.{}: {about:?} is no sentence", table.name());
        page.push_str(&format!("\n## {}\n\n{about}\n\n| column | type | |\n|---|---|---|\n", table.name()));
        for (name, data_type, doc) in columns {
            assert!(!doc.is_empty() && !doc.contains('|'), "system.{}.{name}: {doc:?}", table.name());
            page.push_str(&format!("| `{name}` | {data_type} | {doc} |\n"));
        }
    }
    if std::env::var_os("REMIGE_WRITE").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(written == page, "{PAGE} is out of date: REMIGE_WRITE=1 cargo test --lib resolve::system writes it");
}
