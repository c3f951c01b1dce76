//! Every way in, for every pair of types: what is stored is the value that came, or the statement is refused and nothing
//! is stored. What a value is, `value.rs` tells without the engine's help.
//!
//! `PROPTEST_CASES=10000` makes it a long run; `PROPTEST_RNG_SEED` repeats one.

mod draw;
mod value;

use std::fs::File;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray, new_empty_array};
use datafusion::arrow::datatypes::DataType;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use proptest::test_runner::{Config as ProptestConfig, RngSeed, TestCaseError, TestError, TestRunner};
use remige::clock::{Clock, new_id};
use remige::config::Config;
use remige::error::{Error, Kind};
use remige::session::{Engine, IngestMode, Outcome, Session};

use self::draw::Draw;
use self::value::{Value, must_be_taken, same};

/// Without PROPTEST_CASES.
const FEW: u32 = 60;
/// A warehouse is made anew after so many cases: its catalog grows.
const PER_WAREHOUSE: u32 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ingest,
    IngestKey,
    IngestFeature,
    Select,
    SelectFeature,
    Literals,
    LiteralsKey,
    BoundRow,
    BoundRows,
    Refresh,
    RefreshKey,
    ExternalInsert,
}

const WAYS: [Way; 12] = [
    Way::Ingest,
    Way::IngestKey,
    Way::IngestFeature,
    Way::Select,
    Way::SelectFeature,
    Way::Literals,
    Way::LiteralsKey,
    Way::BoundRow,
    Way::BoundRows,
    Way::Refresh,
    Way::RefreshKey,
    Way::ExternalInsert,
];

/// Types that columns may be declared as.
const TARGETS: [&str; 20] = [
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL(10, 2)",
    "DECIMAL(38, 0)",
    "DECIMAL(5, 4)",
    "DECIMAL(38, 10)",
    "VARCHAR",
    "BYTEA",
    "DATE",
    "TIMESTAMP",
    "BIGINT[]",
    "DECIMAL(10, 2)[]",
    "STRUCT<a INT>",
    "STRUCT<a DATE, b VARCHAR>",
    "STRUCT<a BIGINT>[]",
];

struct World {
    session: Session,
    dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { warehouse: dir.path().join("w").to_string_lossy().to_string(), threads: 2, ..Config::default() };
    World { session: Engine::open(config, Clock::fixed(1_772_366_400_000_000)).await.unwrap().session(), dir }
}

impl World {
    async fn run(&self, text: &str, bound: Option<RecordBatch>) -> Result<(u64, Vec<RecordBatch>), Error> {
        let prepared = self.session.prepare(text).await?;
        match self.session.run(&prepared, bound).await? {
            Outcome::Rows(rows) => Ok((0, rows.try_collect().await?)),
            Outcome::Updated(n) => Ok((n, vec![])),
        }
    }

    async fn must(&self, text: &str) -> Result<Vec<RecordBatch>, TestCaseError> {
        Ok(self.run(text, None).await.map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?.1)
    }

    async fn ingest(&self, table: &str, rows: RecordBatch) -> Result<(), Error> {
        let stream = RecordBatchStreamAdapter::new(rows.schema(), futures::stream::iter([Ok(rows)]));
        self.session.ingest(None, table, IngestMode::Append, Box::pin(stream)).await.map(|_| ())
    }

    fn file(&self, name: &str, rows: &RecordBatch) -> String {
        let path = self.dir.path().join(name);
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), rows.schema(), None).unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
        path.to_string_lossy().to_string()
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

fn numbers(n: usize) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(0..n as i64))
}

fn instants(n: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(0..n as i64).with_timezone("UTC"))
}

/// One try: `Ok(Err(…))`: refused. The second value: what was stored, in order.
async fn bring(
    w: &World,
    id: u32,
    way: Way,
    target: &str,
    rows: &ArrayRef,
    literals: &[String],
) -> Result<Result<(), Error>, TestCaseError> {
    use Way::*;
    let n = rows.len();
    let table = format!("CREATE TABLE t{id} (n BIGINT, x {target})");
    let feature = format!("CREATE FEATURE VIEW t{id} (x {target}) ENTITY e EVENT TIMESTAMP n");
    let entity = format!("CREATE ENTITY e{id} KEY (x {target})");
    let keyed = format!("CREATE FEATURE VIEW t{id} (y BIGINT) ENTITY e{id} EVENT TIMESTAMP n");
    let source = |w: &World, columns: Vec<(&str, ArrayRef)>| w.file(&format!("s{id}.parquet"), &batch(columns));
    let external = |path: &str| format!("CREATE EXTERNAL TABLE s{id} STORED AS PARQUET LOCATION '{path}'");
    let values = |columns: &dyn Fn(usize, &str) -> String| {
        literals.iter().enumerate().map(|(i, v)| format!("({})", columns(i, v))).collect::<Vec<_>>().join(", ")
    };
    let instant = |i: usize| format!("TIMESTAMP '1970-01-01 00:00:00.{i:06}'");
    Ok(match way {
        Ingest => {
            w.must(&table).await?;
            w.ingest(&format!("t{id}"), batch(vec![("n", numbers(n)), ("x", rows.clone())])).await
        }
        IngestFeature => {
            w.must(&feature).await?;
            w.ingest(&format!("t{id}"), batch(vec![("k", numbers(n)), ("n", instants(n)), ("x", rows.clone())])).await
        }
        IngestKey => {
            w.must(&entity).await?;
            w.must(&keyed).await?;
            w.ingest(&format!("t{id}"), batch(vec![("x", rows.clone()), ("n", instants(n))])).await
        }
        Select | SelectFeature => {
            w.must(if way == Select { &table } else { &feature }).await?;
            let path = source(w, vec![("k", numbers(n)), ("n", instants(n)), ("x", rows.clone())]);
            w.must(&external(&path)).await?;
            let list = if way == Select { "k, x" } else { "k, n, x" };
            w.run(&format!("INSERT INTO t{id} SELECT {list} FROM s{id}"), None).await.map(|_| ())
        }
        Literals => {
            w.must(&table).await?;
            w.run(&format!("INSERT INTO t{id} VALUES {}", values(&|i, v| format!("{i}, {v}"))), None).await.map(|_| ())
        }
        LiteralsKey => {
            w.must(&entity).await?;
            w.must(&keyed).await?;
            let rows = values(&|i, v| format!("{v}, {}", instant(i)));
            w.run(&format!("INSERT INTO t{id} (x, n) VALUES {rows}"), None).await.map(|_| ())
        }
        BoundRow | BoundRows => {
            w.must(&table).await?;
            let rows = batch(vec![("a", numbers(n)), ("b", rows.clone())]);
            let rows = if way == BoundRow { rows.slice(0, 1) } else { rows };
            w.run(&format!("INSERT INTO t{id} VALUES ($1, $2)"), Some(rows)).await.map(|_| ())
        }
        Refresh | RefreshKey => {
            // the source had the declared type when the view was made
            let (key, value) = if way == Refresh { ("k", "x") } else { ("x", "y") };
            w.must(&format!("CREATE TABLE z{id} (x {target})")).await?;
            let typed = w.session.prepare(&format!("SELECT x FROM z{id}")).await.map_err(|e| TestCaseError::fail(e.to_string()))?;
            let none = new_empty_array(typed.schema.field(0).data_type());
            let first = vec![("k", numbers(0)), ("n", instants(0)), ("x", none), ("y", numbers(0))];
            let path = source(w, first);
            w.must(&external(&path)).await?;
            if way == RefreshKey {
                w.must(&entity).await?;
            }
            let of = if way == Refresh { "e".to_string() } else { format!("e{id}") };
            w.must(&format!("CREATE FEATURE VIEW t{id} ENTITY {of} EVENT TIMESTAMP n AS SELECT {key}, n, {value} FROM s{id}")).await?;
            source(w, vec![("k", numbers(n)), ("n", instants(n)), ("x", rows.clone()), ("y", numbers(n))]);
            w.run(&format!("REFRESH FEATURE VIEW t{id}"), None).await.map(|_| ())
        }
        ExternalInsert => {
            let path = w.dir.path().join(format!("x{id}/"));
            std::fs::create_dir_all(&path).unwrap();
            w.must(&format!("CREATE EXTERNAL TABLE t{id} (n BIGINT, x {target}) STORED AS PARQUET LOCATION '{}/'", path.display())).await?;
            w.run(&format!("INSERT INTO t{id} VALUES {}", values(&|i, v| format!("{i}, {v}"))), None).await.map(|_| ())
        }
    })
}

async fn holds(w: &World, id: u32, seed: u64) -> Result<(), TestCaseError> {
    let mut d = Draw::new(seed);
    let way = *d.one(&WAYS);
    let target = *d.one(&TARGETS);
    let nested = target.contains('[') || target.contains('<');
    let key = matches!(way, Way::IngestKey | Way::LiteralsKey | Way::RefreshKey);
    if key && (nested || ["FLOAT", "DOUBLE"].contains(&target)) {
        return Ok(());
    }
    let files = matches!(way, Way::Select | Way::SelectFeature | Way::Refresh | Way::RefreshKey);
    let literals = matches!(way, Way::Literals | Way::LiteralsKey | Way::ExternalInsert);
    let Some(drawn) = d.rows(target, files, literals) else { return Ok(()) };
    let (rows, came, literals) = (drawn.array, drawn.values, drawn.literals);
    let came: Vec<Value> = if way == Way::BoundRow { came[..1].to_vec() } else { came };
    let about = || format!("{way:?} of {} {literals:?} {came:?} into {target}", rows.data_type());
    let done = bring(w, id, way, target, &rows, &literals).await?;
    let stored = w.must(&format!("SELECT x FROM t{id} ORDER BY n")).await;
    let stored = match (stored, way) {
        (Ok(s), _) => s,
        // a folder without files
        (Err(_), Way::ExternalInsert) => vec![],
        (Err(e), _) => return Err(e),
    };
    let stored: Vec<Value> = stored.iter().flat_map(|b| (0..b.num_rows()).map(|r| Value::of(b.column(0), r)).collect::<Vec<_>>()).collect();
    match done {
        Err(e) => {
            if e.kind() != Kind::Invalid {
                return Err(TestCaseError::fail(format!("{}: {:?} {e}", about(), e.kind())));
            }
            for odd in ["Internal error", "External error", "Arrow error", "Optimizer rule", "DataFusion"] {
                if e.to_string().contains(odd) {
                    return Err(TestCaseError::fail(format!("{}: in words of the engine: {e}", about())));
                }
            }
            if !stored.is_empty() {
                return Err(TestCaseError::fail(format!("{}: refused ({e}), but stored {stored:?}", about())));
            }
            let all_null = key && came.contains(&Value::Null);
            if !all_null && came.iter().all(|v| must_be_taken(v, target)) {
                return Err(TestCaseError::fail(format!("{}: refused without need: {e}", about())));
            }
        }
        Ok(()) => {
            // rows without a key are rejected
            let came: Vec<&Value> = came.iter().filter(|v| !key || **v != Value::Null).collect();
            if came.len() != stored.len() || !came.iter().zip(&stored).all(|(c, s)| same(c, s, target)) {
                return Err(TestCaseError::fail(format!("{}: stored {stored:?}", about())));
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_stored_is_what_came() {
    let asked = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { FEW };
    let seed = match asked.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => new_id().bytes().fold(7, |h: u64, b| h.wrapping_mul(31).wrapping_add(b.into())),
    };
    let config = ProptestConfig { cases, max_shrink_iters: 0, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..asked };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let now = std::cell::RefCell::new((0u32, None::<World>));
    let case = |seed: u64| {
        let mut now = now.borrow_mut();
        let (id, w) = &mut *now;
        runtime.block_on(async {
            if *id % PER_WAREHOUSE == 0 {
                let made = world().await;
                made.must("CREATE ENTITY e KEY (k BIGINT)").await?;
                *w = Some(made);
            }
            *id += 1;
            let Some(w) = w else { return Ok(()) };
            holds(w, *id, seed).await
        })
    };
    match TestRunner::new(config).run(&proptest::num::u64::ANY, case) {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("{why}\nPROPTEST_RNG_SEED={seed}, case {case}"),
        Err(TestError::Abort(why)) => panic!("{why}\nPROPTEST_RNG_SEED={seed}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_other_floats_are_equal_keeps_its_nan() {
    let w = world().await;
    let floats: ArrayRef = Arc::new(datafusion::arrow::array::Float64Array::from(vec![-64.5, f64::NAN]));
    let path = w.file("floats.parquet", &batch(vec![("n", numbers(2)), ("x", floats)]));
    w.must(&format!("CREATE EXTERNAL TABLE f STORED AS PARQUET LOCATION '{path}'")).await.unwrap();
    let rows = w.must("SELECT x FROM f ORDER BY n").await.unwrap();
    assert_eq!(Value::of(rows[0].column(0), 0), Value::Float(-64.5));
    assert!(matches!(Value::of(rows[0].column(0), 1), Value::Float(v) if v.is_nan()));
}

#[test]
fn the_comparison_tells_values_apart() {
    let number = |t: &str| Value::number(t).unwrap();
    assert!(same(&number("1.50"), &number("1.5"), "DECIMAL(10, 2)") && !same(&number("1.5"), &number("1"), "BIGINT"));
    assert!(same(&Value::Float(0.1), &number("0.1"), "DECIMAL(10, 2)") && !same(&Value::Float(0.12), &number("0.1"), "DECIMAL(10, 2)"));
    assert!(same(&Value::Text("7".into()), &number("7"), "BIGINT") && !same(&Value::Text("7.5".into()), &number("7"), "BIGINT"));
    let noon = Value::of(&(Arc::new(TimestampMicrosecondArray::from(vec![43_200_000_000])) as ArrayRef), 0);
    let midnight = Value::of(&(Arc::new(datafusion::arrow::array::Date32Array::from(vec![0])) as ArrayRef), 0);
    assert!(!same(&noon, &midnight, "DATE") && same(&Value::Text("1970-01-01 12:00".into()), &noon, "TIMESTAMP"));
    assert!(!same(&Value::Bool(true), &number("1"), "BIGINT") && !same(&number("1"), &Value::Null, "BIGINT"));
    assert!(
        must_be_taken(&number("-128"), "TINYINT") && !must_be_taken(&number("128"), "TINYINT") && !must_be_taken(&number("1.5"), "INT")
    );
    assert_eq!(DataType::Int64, *numbers(1).data_type());
}
