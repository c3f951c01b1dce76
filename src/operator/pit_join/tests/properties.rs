//! Random cases against the oracle.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::*;
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::execution::SessionState;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, collect, displayable};
use datafusion::prelude::col;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

use super::oracle::{self, Label, Row, Rule};
use super::testing::*;
use crate::operator::codec::PlanCodec;
use crate::operator::pit_join::InLabelOrderExec;
use crate::operator::pit_join::options::{PitJoinOptions, PitStrategy};
use crate::plan::pit_join::{MatchOp, PitItem};

const BATCH_SIZES: [usize; 3] = [1, 2, 8192];
static NEXT_CASE: AtomicUsize = AtomicUsize::new(0);
static SESSIONS: LazyLock<Vec<SessionState>> = LazyLock::new(|| {
    let runtime = |b: &usize| if *b == 1 { without_cache() } else { Arc::default() };
    BATCH_SIZES.iter().map(|b| session(*b, runtime(b))).collect()
});

/// Families of key types that may meet in one comparison.
static KEY_TYPES: LazyLock<Vec<Vec<DataType>>> = LazyLock::new(|| {
    use DataType::*;
    let zones = [None, Some("UTC"), Some("+01:00"), Some("America/New_York")];
    let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
    let mut times = vec![Date32, Date64];
    times.extend(units.iter().flat_map(|u| zones.iter().map(|z| Timestamp(*u, z.map(Into::into)))));
    vec![
        vec![Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Decimal128(10, 2), Decimal128(38, 0), Decimal64(9, 1)],
        vec![Utf8, LargeUtf8, Utf8View, Dictionary(Box::new(Int8), Box::new(Utf8)), Dictionary(Box::new(UInt32), Box::new(LargeUtf8))],
        vec![Binary, LargeBinary, BinaryView, FixedSizeBinary(3)],
        times,
        vec![Boolean],
    ]
});

/// Pairs of (type, step): a column holds multiples of its step.
type TimeType = (DataType, i128);
static TIME_TYPES: LazyLock<Vec<(TimeType, TimeType)>> = LazyLock::new(|| {
    use DataType::*;
    use TimeUnit::*;
    let t = |u, step| (Timestamp(u, None), step);
    let z = |u, step| (Timestamp(u, Some("+01:00".into())), step);
    vec![
        (t(Microsecond, 1), t(Microsecond, 1)),
        (z(Microsecond, 1), t(Millisecond, 1)),
        (t(Nanosecond, 700), t(Microsecond, 1)),
        (t(Microsecond, 1), z(Nanosecond, 700)),
        (t(Nanosecond, 300), t(Nanosecond, 700)),
        (t(Second, 1), t(Millisecond, 500)),
        (t(Nanosecond, 1), t(Nanosecond, 1)),
        ((Date32, 1), t(Second, 43_200)),
        (t(Millisecond, 43_200_000), (Date32, 1)),
        ((Date64, 86_400_000), (Date32, 1)),
        ((Int64, 1), (Int16, 1)),
        ((UInt64, 1), (Int32, 1)),
        ((Float64, 1), (Float32, 1)),
        ((Decimal128(20, 2), 25), (Decimal64(9, 2), 50)),
    ]
});

/// Nanoseconds per unit of a time type; 1 for numbers.
fn nanos(t: &DataType) -> i128 {
    match t {
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Date32 => 86_400_000_000_000,
        _ => 1,
    }
}

/// Per view and label, the row that wins.
type Matches = Vec<Vec<Option<i64>>>;

#[derive(Debug, Clone)]
struct RawLabel {
    keys: [Option<u8>; 2],
    at: Option<i8>,
    known_by: Option<i8>,
}

#[derive(Debug, Clone)]
struct RawRow {
    keys: [Option<u8>; 2],
    time: Option<i8>,
    created: Option<i8>,
    seq: i64,
    value: Option<i64>,
}

#[derive(Debug, Clone)]
struct RawView {
    rows: Vec<RawRow>,
    op: MatchOp,
    /// In steps of the finer side.
    ttl: Option<u8>,
    created: bool,
    seq: bool,
    known_by: bool,
    inner: bool,
    /// A feature view: compared in microseconds.
    micros: bool,
    key_types: [prop::sample::Index; 2],
    partitions: usize,
    batch_rows: usize,
}

#[derive(Debug, Clone)]
struct Case {
    labels: Vec<RawLabel>,
    views: Vec<RawView>,
    key_count: usize,
    key_families: [prop::sample::Index; 2],
    key_types: [prop::sample::Index; 2],
    time_types: usize,
    label_partitions: usize,
    label_batch_rows: usize,
    session: usize,
    optimize: bool,
    reading: Reading,
}

/// Where the rows lie and how the join goes about them.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Labels and views are Parquet files.
    label_files: bool,
    view_files: bool,
    row_group_rows: usize,
    pages: Pages,
    strategy: PitStrategy,
    parts: usize,
    /// The plan is written down and read in another session before it runs.
    travels: bool,
    chunk_rows: Option<usize>,
    partitions: usize,
    /// Rows of views in the order of key, time, created timestamp and sequence.
    sorted: bool,
}

/// How Parquet files are written.
#[derive(Debug, Clone, Copy)]
struct Pages {
    rows: usize,
    /// Bytes after which bounds are cut.
    bounds: usize,
    statistics: EnabledStatistics,
    without_offsets: bool,
}

impl Pages {
    fn properties(self, row_group_rows: usize) -> WriterProperties {
        paged(row_group_rows, self.rows)
            .set_statistics_truncate_length(Some(self.bounds))
            .set_column_index_truncate_length(Some(self.bounds))
            .set_statistics_enabled(self.statistics)
            .set_offset_index_disabled(self.without_offsets)
            .build()
    }
}

fn pages() -> impl Strategy<Value = Pages> {
    use EnabledStatistics::*;
    // Without statistics of pages there may be no offsets either.
    let kinds = prop_oneof![3 => Just((Page, false)), 1 => Just((Chunk, false)), 1 => Just((Chunk, true)), 1 => Just((None, true))];
    (1..6usize, 1..24usize, kinds).prop_map(|(rows, bounds, (statistics, without_offsets))| Pages {
        rows,
        bounds,
        statistics,
        without_offsets,
    })
}

fn reading() -> impl Strategy<Value = Reading> {
    let strategy = prop_oneof![Just(PitStrategy::Auto), Just(PitStrategy::Slots), Just(PitStrategy::Merge), Just(PitStrategy::Stream)];
    let flags = (any::<bool>(), prop::bool::weighted(0.7), any::<bool>(), any::<bool>());
    let parts = prop_oneof![2 => Just(1), 1 => 2..5usize];
    (flags, 1..50usize, pages(), (strategy, parts), weighted(0.3, 1..30usize), 1..9usize).prop_map(
        |((label_files, view_files, sorted, travels), row_group_rows, pages, (strategy, parts), chunk_rows, partitions)| Reading {
            label_files,
            view_files,
            row_group_rows,
            pages,
            strategy,
            parts,
            travels,
            chunk_rows,
            partitions,
            sorted,
        },
    )
}

fn key() -> impl Strategy<Value = Option<u8>> {
    // Half of the rows share one key.
    weighted(0.9, prop_oneof![Just(0u8), 0..5u8])
}

fn instant() -> impl Strategy<Value = Option<i8>> {
    weighted(0.9, 0..20i8)
}

fn raw_view(max_rows: usize) -> impl Strategy<Value = RawView> {
    let row = ([key(), key()], instant(), instant(), 0..3i64, weighted(0.8, 0..3i64))
        .prop_map(|(keys, time, created, seq, value)| RawRow { keys, time, created, seq, value });
    let op = prop_oneof![Just(MatchOp::AtOrBefore), Just(MatchOp::Before), Just(MatchOp::AtOrAfter), Just(MatchOp::After)];
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.3), prop::bool::weighted(0.2), any::<bool>());
    (vec(row, 0..max_rows), op, weighted(0.5, 0..12u8), flags, any::<[prop::sample::Index; 2]>(), 1..5usize, 1..40usize).prop_map(
        |(rows, op, ttl, (created, seq, known_by, inner, micros), key_types, partitions, batch_rows)| RawView {
            rows,
            op,
            ttl,
            created: created || known_by,
            seq,
            known_by,
            inner,
            micros,
            key_types,
            partitions,
            batch_rows,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let label = ([key(), key()], instant(), instant()).prop_map(|(keys, at, known_by)| RawLabel { keys, at, known_by });
    let label = label.boxed();
    let types = (any::<[prop::sample::Index; 2]>(), any::<[prop::sample::Index; 2]>(), any::<usize>());
    let shape = (1..5usize, 1..40usize, 0..BATCH_SIZES.len(), prop::bool::weighted(0.1));
    (prop_oneof![2 => vec(label.clone(), 0..60), 1 => vec(label, 1..4)], vec(raw_view(80), 1..4), 0..3usize, types, shape, reading())
        .prop_map(
            |(
                labels,
                mut views,
                key_count,
                (key_families, key_types, time_types),
                (label_partitions, label_batch_rows, session, optimize),
                reading,
            )| {
                if reading.sorted {
                    views.iter_mut().for_each(|v| v.rows.sort_by_key(|r| (r.keys, r.time, r.created, r.seq)));
                }
                Case {
                    labels,
                    views,
                    key_count,
                    key_families,
                    key_types,
                    time_types,
                    label_partitions,
                    label_batch_rows,
                    session,
                    optimize,
                    reading,
                }
            },
        )
}

fn fold(key: Option<u8>, t: &DataType) -> Option<u8> {
    key.map(|k| if *t == DataType::Boolean { k % 2 } else { k })
}

fn key_column(raw: &[Option<u8>], t: &DataType) -> ArrayRef {
    let keys: Vec<Option<usize>> = raw.iter().map(|k| fold(*k, t).map(usize::from)).collect();
    let pick = |of: [i64; 5]| int(keys.iter().map(|k| k.map(|k| of[k])));
    match t {
        DataType::Boolean => Arc::new(keys.iter().map(|k| k.map(|k| k == 1)).collect::<BooleanArray>()),
        DataType::Date32 => cast(&cast(&pick([0, -1, 1, 365, 20_000]), &DataType::Int32).unwrap(), t).unwrap(),
        DataType::Date64 | DataType::Timestamp(..) => {
            let days = key_column(raw, &DataType::Date32);
            let zone = |u| DataType::Timestamp(u, Some("UTC".into()));
            match t {
                DataType::Timestamp(u, Some(_)) => cast(&cast(&days, &zone(*u)).unwrap(), t).unwrap(),
                _ => cast(&days, t).unwrap(),
            }
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let of: [&[u8]; 5] = [b"\0\0\0", b"\0\0\x01", b"\xff\xff\xff", b"a\0b", b"a\0\0"];
            match t {
                DataType::FixedSizeBinary(_) => {
                    Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(keys.iter().map(|k| k.map(|k| of[k])), 3).unwrap())
                }
                t => cast(&(Arc::new(keys.iter().map(|k| k.map(|k| of[k])).collect::<BinaryArray>()) as ArrayRef), t).unwrap(),
            }
        }
        t if t.is_integer() || t.is_decimal() => cast(&pick([0, 1, 2, 100, 127]), t).unwrap(),
        t => {
            let of = ["", "a", "a\0", "ein langer Schlüssel, 1", "ein langer Schlüssel, 11"];
            cast(&text(keys.iter().map(|k| k.map(|k| of[k]))), t).unwrap()
        }
    }
}

fn time_column(values: impl Iterator<Item = Option<i8>>, (t, step): &TimeType) -> ArrayRef {
    let values: Vec<Option<i64>> = values.map(|v| v.map(|v| i64::from(v) * *step as i64)).collect();
    match t {
        DataType::Timestamp(unit, zone) => stamp(values, *unit, zone.as_deref()),
        DataType::Date32 => cast(&cast(&int(values), &DataType::Int32).unwrap(), t).unwrap(),
        DataType::Decimal128(p, s) => {
            let values: Decimal128Array = values.into_iter().map(|v| v.map(i128::from)).collect();
            Arc::new(values.with_precision_and_scale(*p, *s).unwrap())
        }
        DataType::Decimal64(p, s) => Arc::new(values.into_iter().collect::<Decimal64Array>().with_precision_and_scale(*p, *s).unwrap()),
        t => cast(&int(values), t).unwrap(),
    }
}

impl Case {
    /// Which rows win by the oracle, per view; and which by the operator, per view, with the label rows.
    fn run(&self) -> (Vec<usize>, Matches, Vec<i64>, Matches) {
        let (at_type, time_type) = TIME_TYPES[self.time_types % TIME_TYPES.len()].clone();
        let micros_type = (DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), 1i128);
        let families: Vec<&Vec<DataType>> = self.key_families.iter().map(|f| f.get(&KEY_TYPES)).collect();
        let label_types: Vec<&DataType> = (0..2).map(|k| self.key_types[k].get(families[k])).collect();
        let is_time = matches!(at_type.0, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);

        let mut columns: Vec<(&str, ArrayRef)> = vec![("lid", int(0..self.labels.len() as i64))];
        for (k, name) in ["k0", "k1"].into_iter().enumerate() {
            columns.push((name, key_column(&self.labels.iter().map(|l| l.keys[k]).collect::<Vec<_>>(), label_types[k])));
        }
        columns.push(("at", time_column(self.labels.iter().map(|l| l.at), &at_type)));
        columns.push(("known", time_column(self.labels.iter().map(|l| l.known_by), &micros_type)));
        let all = batch(columns);
        let schema = all.schema();
        let reading = self.reading;
        let options = PitJoinOptions { strategy: reading.strategy, chunk_rows: reading.chunk_rows, parts: reading.parts };
        let state = &with_options(&SESSIONS[self.session], options, reading.partitions);
        let folder = NEXT_CASE.fetch_add(1, Ordering::Relaxed).to_string();
        let relation = |files: bool, name: &str, parts: Vec<Vec<RecordBatch>>, schema: Arc<Schema>| match files {
            true => {
                let properties = reading.pages.properties(reading.row_group_rows);
                RUNTIME.block_on(parquet_with(state, name, &folder, parts, schema, properties))
            }
            false => scan(name, parts, schema),
        };
        let labels = relation(reading.label_files, "l", partitions(&all, self.label_partitions, self.label_batch_rows), schema);

        let late = reading.view_files && reading.strategy != PitStrategy::Stream;
        let (mut views, mut items, mut expected) = (vec![], vec![], vec![]);
        for (v, view) in self.views.iter().enumerate() {
            let name = format!("f{v}");
            let types: Vec<&DataType> = (0..2).map(|k| view.key_types[k].get(families[k])).collect();
            let mut columns: Vec<(&str, ArrayRef)> = vec![];
            for (k, name) in ["k0", "k1"].into_iter().enumerate() {
                columns.push((name, key_column(&view.rows.iter().map(|r| r.keys[k]).collect::<Vec<_>>(), types[k])));
            }
            columns.push(("ts", time_column(view.rows.iter().map(|r| r.time), &time_type)));
            columns.push(("created", time_column(view.rows.iter().map(|r| r.created), &micros_type)));
            columns.push(("seq", int(view.rows.iter().map(|r| r.seq))));
            columns.push(("value", int(view.rows.iter().map(|r| r.value))));
            columns.push(("rid", int(0..view.rows.len() as i64)));
            let all = batch(columns);
            let schema = all.schema();
            views.push(relation(reading.view_files, &name, partitions(&all, view.partitions, view.batch_rows), schema));

            let column = |c: &str| col(format!("{name}.{c}"));
            let finer = (nanos(&at_type.0) * at_type.1).min(nanos(&time_type.0) * time_type.1);
            let ttl_micros = view.ttl.filter(|_| is_time).map(|t| (i128::from(t) * finer + 999) / 1_000);
            items.push(PitItem {
                keys: (0..self.key_count).map(|k| (col(format!("l.k{k}")), column(&format!("k{k}")))).collect(),
                created: view.created.then(|| column("created")),
                seq: view.seq.then(|| column("seq")),
                known_by: view.known_by.then(|| col("l.known")),
                ttl: ttl_micros.map(|t| t as i64),
                op: view.op,
                inner: view.inner,
                round_to_micros: view.micros,
                features_only: false,
                ..item(&name)
            });

            let rounds = is_time && view.micros;
            let at = |v: i8| {
                let n = i128::from(v) * at_type.1 * nanos(&at_type.0);
                if rounds { n.div_euclid(1_000) * 1_000 } else { n }
            };
            let time = |v: i8| {
                let n = i128::from(v) * time_type.1 * nanos(&time_type.0);
                if rounds { (n + 999).div_euclid(1_000) * 1_000 } else { n }
            };
            let keys = |keys: &[Option<u8>; 2]| (0..self.key_count).map(|k| fold(keys[k], label_types[k])).collect::<Vec<_>>();
            let plain_labels: Vec<Label> =
                self.labels.iter().map(|l| Label { keys: keys(&l.keys), at: l.at.map(at), known_by: l.known_by.map(i128::from) }).collect();
            let rows: Vec<Row> = view
                .rows
                .iter()
                .enumerate()
                .map(|(i, r)| Row {
                    keys: keys(&r.keys),
                    time: r.time.map(time),
                    created: r.created.filter(|_| view.created).map(i128::from),
                    tie: match view.seq {
                        // Rows that are fetched late are not compared by value.
                        true if late => vec![Some(r.seq.into()), Some(i as i128)],
                        true => std::iter::once(Some(r.seq.into())).chain(values_in_order(r, i, &types)).collect(),
                        false => vec![Some(i as i128)],
                    },
                })
                .collect();
            let rule = Rule { op: view.op, ttl: ttl_micros.map(|t| t * 1_000), known_by: view.known_by };
            expected.push(oracle::winners(&plain_labels, &rows, rule));
        }
        let kept: Vec<usize> =
            (0..self.labels.len()).filter(|l| self.views.iter().zip(&expected).all(|(v, e)| !v.inner || e[*l].is_some())).collect();
        let expected = expected.iter().map(|e| kept.iter().map(|l| e[*l].map(|r| r as i64)).collect()).collect();

        let plan = join(labels, views, items).unwrap();
        let result = RUNTIME
            .block_on(async {
                let physical = if self.optimize {
                    state.create_physical_plan(&plan).await?
                } else {
                    state.query_planner().create_physical_plan(&plan, state).await?
                };
                // What the optimizer does where it sees that the order is seen.
                let physical: Arc<dyn ExecutionPlan> = match physical.output_partitioning().partition_count() {
                    1 => physical,
                    _ => Arc::new(InLabelOrderExec::new(physical)),
                };
                let physical = if reading.travels { elsewhere(state, physical)? } else { physical };
                let batches = collect(Arc::clone(&physical), state.task_ctx()).await?;
                assert!(batches.iter().all(|b| b.num_rows() <= BATCH_SIZES[self.session]));
                Ok::<_, datafusion::common::DataFusionError>(concat_batches(&physical.schema(), &batches)?)
            })
            .unwrap();
        let lids = ints(&result, "lid").into_iter().map(Option::unwrap).collect();
        let found = (0..self.views.len()).map(|v| ints_at(&result, 5 + 7 * v + 6)).collect();
        (kept, expected, lids, found)
    }
}

/// The plan as another session reads it, which knows nothing of this one but its object stores.
fn elsewhere(state: &SessionState, plan: Arc<dyn ExecutionPlan>) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
    let shown = |p: &Arc<dyn ExecutionPlan>| displayable(p.as_ref()).indent(false).to_string();
    let bytes = PlanCodec::default().encode(Arc::clone(&plan))?;
    let other = session(state.config().batch_size(), Arc::clone(state.runtime_env()));
    let read = PlanCodec::default().decode(&bytes, &other.task_ctx())?;
    assert_eq!(shown(&read), shown(&plan));
    Ok(read)
}

/// What full ties are decided by: the values of the row's columns, in order.
fn values_in_order(r: &RawRow, id: usize, types: &[&DataType]) -> Vec<Option<i128>> {
    // Keys that are joined on are equal; a key that is not is compared as its column's values are.
    let rank = |k: Option<u8>, t: &DataType| fold(k, t).map(|k| key_rank(k, t));
    vec![
        rank(r.keys[0], types[0]),
        rank(r.keys[1], types[1]),
        r.time.map(i128::from),
        r.created.map(i128::from),
        r.value.map(i128::from),
        Some(id as i128),
    ]
}

/// The place of a key among the keys of its type.
fn key_rank(k: u8, t: &DataType) -> i128 {
    let order: [i128; 5] = match t {
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => [1, 0, 2, 3, 4],
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => [0, 1, 4, 3, 2],
        _ => [0, 1, 2, 3, 4],
    };
    order[usize::from(k)]
}

fn ints_at(batch: &RecordBatch, column: usize) -> Vec<Option<i64>> {
    batch.column(column).as_primitive::<datafusion::arrow::datatypes::Int64Type>().iter().collect()
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, max_shrink_time: 120_000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(1_000))]

    /// P1, P2, P3, P4, P10, P12: whatever the types, ties, NULLs, partitions and batch sizes, the
    /// operator gives what the nested loops give, for exactly the label rows and in their order.
    #[test]
    fn operator_is_the_oracle(case in case()) {
        let (labels, expected, got_labels, got) = case.run();
        prop_assert_eq!(labels.iter().map(|l| *l as i64).collect::<Vec<_>>(), got_labels);
        prop_assert_eq!(expected, got);
    }
}

impl Case {
    /// The same case with nothing dropped, in the order of the labels.
    fn left(mut self) -> Self {
        self.views.iter_mut().for_each(|v| v.inner = false);
        self
    }

    fn found(&self) -> Matches {
        self.run().3
    }

    /// With a time type whose steps are equal on both sides, and whole microseconds or no time at all.
    fn with_equal_steps(mut self) -> Self {
        let equal: Vec<usize> = (0..TIME_TYPES.len())
            .filter(|i| {
                let ((at, at_step), (time, step)) = &TIME_TYPES[*i];
                let tick = nanos(at) * at_step;
                tick == nanos(time) * step
                    && (tick % 1_000 == 0 || tick == 1 && !matches!(at, DataType::Timestamp(..) | DataType::Decimal128(..)))
            })
            .collect();
        self.time_types = equal[self.time_types % equal.len()];
        self
    }

    fn map_times(mut self, f: impl Fn(i8) -> i8) -> Self {
        self.labels.iter_mut().for_each(|l| l.at = l.at.map(&f));
        self.views.iter_mut().flat_map(|v| &mut v.rows).for_each(|r| r.time = r.time.map(&f));
        self
    }
}

proptest! {
    #![proptest_config(config(60))]

    /// P5: rows later than every label change nothing, nor do rows older than every window.
    #[test]
    fn rows_out_of_reach_change_nothing(case in case()) {
        let mut case = case.left();
        for view in &mut case.views {
            view.op = if view.op.is_strict() { MatchOp::Before } else { MatchOp::AtOrBefore };
        }
        let before = case.found();
        for view in &mut case.views {
            for key in 0..5 {
                view.rows.push(RawRow { keys: [Some(key); 2], time: Some(100), created: None, seq: 9, value: None });
            }
        }
        prop_assert_eq!(before, case.found());
    }

    /// P6: looking ahead is looking back in a mirror.
    #[test]
    fn time_mirrors(case in case()) {
        let case = case.left().with_equal_steps();
        let before = case.found();
        let mut mirrored = case.map_times(|t| 40 - t);
        for view in &mut mirrored.views {
            view.op = match view.op {
                MatchOp::AtOrBefore => MatchOp::AtOrAfter,
                MatchOp::Before => MatchOp::After,
                MatchOp::AtOrAfter => MatchOp::AtOrBefore,
                MatchOp::After => MatchOp::Before,
            };
        }
        prop_assert_eq!(before, mirrored.found());
    }

    /// P7: only differences of time matter.
    #[test]
    fn time_shifts(case in case()) {
        let case = case.left().with_equal_steps();
        prop_assert_eq!(case.found(), case.clone().map_times(|t| t + 100).found());
    }

    /// P8: views do not see each other.
    #[test]
    fn views_are_joined_independently(case in case()) {
        let case = case.left();
        let alone: Matches = (0..case.views.len()).map(|v| Case { views: vec![case.views[v].clone()], ..case.clone() }.found().remove(0)).collect();
        prop_assert_eq!(alone, case.found());
    }

    /// P9: a longer TTL only turns NULLs into matches.
    #[test]
    fn ttl_is_monotone(case in case()) {
        let mut case = case.left();
        let short = case.found();
        case.views.iter_mut().for_each(|v| v.ttl = v.ttl.map(|t| t + 5));
        for (short, long) in short.iter().flatten().zip(case.found().iter().flatten()) {
            prop_assert!(short.is_none() || short == long || case.views.iter().any(|v| v.known_by));
        }
    }

    /// P2: neither the order of the feature rows (where a sequence decides) nor of the labels matters.
    #[test]
    fn input_order_does_not_matter(case in case(), seed in any::<u64>()) {
        let mut case = case.left();
        case.views.iter_mut().for_each(|v| v.seq = true);
        // Distinct sequence numbers: row numbers cannot decide a tie.
        for view in &mut case.views {
            view.rows.iter_mut().enumerate().for_each(|(i, r)| r.seq = i as i64);
        }
        let by_row = |case: &Case| {
            let found = case.found();
            case.views.iter().zip(found).map(|(v, f)| f.into_iter().map(|r| r.map(|r| v.rows[r as usize].seq)).collect()).collect::<Matches>()
        };
        let mut before = by_row(&case);
        let order = shuffled(case.labels.len(), seed);
        case.labels = order.iter().map(|i| case.labels[*i].clone()).collect();
        for view in &mut case.views {
            view.rows = shuffled(view.rows.len(), seed ^ 1).iter().map(|i| view.rows[*i].clone()).collect();
        }
        before.iter_mut().for_each(|b| *b = order.iter().map(|i| b[*i]).collect());
        prop_assert_eq!(before, by_row(&case));
    }
}

/// A permutation of 0..n.
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|i| (*i as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(0xBF58_476D_1CE4_E5B9));
    order
}
