//! The core against counting by hand.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;

use super::state::Finished;
use super::value::{Column, Value};
use super::*;
use crate::clock::{DAY, HOUR, MINUTE, Micros, SECOND};

fn asked(length: Micros) -> Asked {
    Asked { length: Some(length), ..Asked::default() }
}

#[test]
fn steps_are_those_of_the_ladder() {
    let step = |length| Window::new(&asked(length), false).unwrap().step;
    assert_eq!(step(30 * DAY), 3 * HOUR);
    assert_eq!(step(7 * DAY), HOUR);
    assert_eq!(step(DAY), 15 * MINUTE);
    assert_eq!(step(HOUR), 15 * SECOND);
    assert_eq!(step(96 * SECOND), SECOND);
    assert_eq!(step(95 * SECOND), 1);
    assert_eq!(step(12 * 365 * DAY), 7 * DAY);
    let all = Window::new(&Asked { delay: Some(DAY), ..Asked::default() }, false).unwrap();
    assert_eq!((all.length, all.grain), (None, 15 * MINUTE));
    let delayed = Window::new(&Asked { delay: Some(7 * DAY), ..asked(7 * DAY) }, false).unwrap();
    assert_eq!((delayed.step, delayed.grain), (HOUR, HOUR));
    // the step of the window alone would cut the delay into too many
    let climbed = Window::new(&Asked { delay: Some(7 * DAY), ..asked(HOUR) }, false).unwrap();
    assert!(climbed.delay / climbed.grain <= 1_000 && climbed.step >= climbed.grain, "{climbed:?}");
}

#[test]
fn ends_are_inclusive_and_floors_go_down() {
    let w = Window { length: Some(10), step: 4, delay: 0, grain: 1, excludes_current: false };
    assert_eq!(w.bounds(21), (8, 21));
    assert_eq!(w.bounds(-1), (-12, -1));
    assert_eq!(Window { excludes_current: true, ..w.clone() }.bounds(21), (8, 20));
    assert_eq!(Window { delay: 5, grain: 2, ..w.clone() }.bounds(21), (4, 15));
    assert_eq!(Window { length: None, ..w.clone() }.bounds(21), (Micros::MIN, 21));
    assert_eq!(w.bounds(Micros::MIN + 1).1, Micros::MIN + 1);
    let refused = [
        Asked { length: Some(0), ..Asked::default() },
        Asked { length: Some(-1), ..Asked::default() },
        Asked { every: Some(2 * DAY), ..asked(DAY) },
        Asked { every: Some(1), ..asked(DAY) },
        Asked { every: Some(1), ..Asked::default() },
        Asked { delay: Some(-1), ..asked(DAY) },
        Asked { exact: true, ..Asked::default() },
    ];
    for a in refused {
        assert!(Window::new(&a, false).is_err(), "{a:?}");
    }
    let centuries = Window::new(&asked(300 * 365 * DAY), false).unwrap_err();
    assert!(centuries.message().contains("15642 steps") && centuries.hint().unwrap().contains("OVER ALL"), "{centuries}");
}

#[test]
fn sums_are_rounded_once() {
    use super::exact::ExactSum;
    let sum = |all: &[f64]| {
        let mut s = ExactSum::default();
        all.iter().for_each(|x| s.add_f64(*x));
        s
    };
    assert_eq!(sum(&[0.1, 0.2, 0.3]).to_f64(), 0.6);
    assert_eq!(sum(&[1e308, 1e308, -1e308]).to_f64(), 1e308);
    assert_eq!(sum(&[1e308, 1e308]).to_f64(), f64::INFINITY);
    assert_eq!(sum(&[1e300, 1.0, -1e300]).to_f64(), 1.0);
    assert_eq!(sum(&[5e-324, 5e-324]).to_f64(), 1e-323);
    assert_eq!(sum(&[1.0, 2f64.powi(-53)]).to_f64(), 1.0);
    assert_eq!(sum(&[1.0, 2f64.powi(-53), 2f64.powi(-1000)]).to_f64(), 1.0 + f64::EPSILON);
    assert_eq!(sum(&[f64::MIN_POSITIVE, -5e-324]).to_f64(), f64::MIN_POSITIVE - 5e-324);
    assert_eq!(super::exact::quotient(1, 0, 3), 1.0 / 3.0);
    assert_eq!(super::exact::quotient(-10, 0, 7), -10.0 / 7.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_time: 60_000, ..ProptestConfig::default() })]

    /// A double is its own sum, and every sum is the same in any order.
    #[test]
    fn any_order_gives_the_same_bits(mut all in prop::collection::vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 1..20)) {
        use super::exact::ExactSum;
        use super::numbers::Bytes;
        let sum = |all: &[f64]| { let mut s = ExactSum::default(); all.iter().for_each(|x| s.add_f64(*x)); s };
        prop_assert_eq!(sum(&all[..1]).to_f64(), all[0]);
        let (one, mut bytes) = (sum(&all), vec![]);
        one.encode(&mut bytes);
        all.reverse();
        let (other, mut others) = (sum(&all), vec![]);
        other.encode(&mut others);
        prop_assert_eq!(&bytes, &others);
        prop_assert_eq!(one.to_f64().to_bits(), other.to_f64().to_bits());
        prop_assert_eq!(ExactSum::decode(&mut Bytes(&bytes)).unwrap().to_f64().to_bits(), one.to_f64().to_bits());
        let halves = { let (a, b) = all.split_at(all.len() / 2); let mut s = sum(a); s.merge(&sum(b)); s };
        prop_assert_eq!(halves.to_f64().to_bits(), one.to_f64().to_bits());
    }
}

#[derive(Debug, Clone)]
struct Event {
    t: Micros,
    n: Option<i64>,
    x: Option<f64>,
    d: Option<i128>,
    s: Option<String>,
    b: Option<bool>,
}

fn event() -> impl Strategy<Value = Event> {
    let float = prop_oneof![
        5 => (-1000i32..1000).prop_map(|n| f64::from(n) / 7.0),
        1 => any::<f64>(),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0), Just(0.0)],
    ];
    let whole = prop_oneof![5 => -5i64..5, 1 => any::<i64>()];
    let decimal = prop_oneof![5 => -500i128..500, 1 => Just(10i128.pow(37))];
    (
        prop_oneof![6 => -400i64..400, 1 => -2_000_000i64..2_000_000],
        prop::option::weighted(0.8, whole),
        prop::option::weighted(0.8, float),
        prop::option::weighted(0.8, decimal),
        prop::option::weighted(0.8, "[abc]{0,2}"),
        prop::option::weighted(0.8, any::<bool>()),
    )
        .prop_map(|(t, n, x, d, s, b)| Event { t: t * SECOND / 4, n, x, d, s, b })
}

fn window() -> impl Strategy<Value = Window> {
    let steps = prop::sample::select(vec![1, SECOND, 5 * SECOND, 15 * SECOND, MINUTE]);
    let delay = prop_oneof![4 => Just(0), 1 => Just(SECOND), 1 => 0i64..200_000_000];
    (prop::option::weighted(0.9, 1i64..200_000_000), steps, delay, any::<bool>(), any::<bool>()).prop_map(
        |(length, step, delay, coarse, excludes)| {
            let step = if length.is_some() { step } else { 1 };
            let grain = if coarse && delay > 0 { if length.is_some() { step } else { SECOND } } else { 1 };
            Window { length, step, delay, grain, excludes_current: excludes && delay == 0 }
        },
    )
}

const FUNCTIONS: &[(&str, &str)] = &[
    ("count", ""),
    ("count", "s"),
    ("sum", "n"),
    ("sum", "x"),
    ("sum", "d"),
    ("avg", "n"),
    ("avg", "x"),
    ("avg", "d"),
    ("min", "x"),
    ("max", "x"),
    ("min", "s"),
    ("max", "d"),
    ("var_pop", "x"),
    ("stddev_samp", "n"),
    ("var_samp", "d"),
    ("bool_and", "b"),
    ("bool_or", "b"),
    ("first_value", "s"),
    ("last_value", "n"),
    ("min_by", "s,n"),
    ("max_by", "x,s"),
    ("first_n", "n"),
    ("last_n", "s"),
    ("top_k", "s"),
];

fn function(i: usize, distinct: bool) -> (Function, Vec<String>) {
    let (name, args) = FUNCTIONS[i];
    let args: Vec<String> = args.split(',').filter(|a| !a.is_empty()).map(String::from).collect();
    let three = ["3".to_string()];
    let constants: &[String] = if name.ends_with("_n") || name == "top_k" { &three } else { &[] };
    let distinct = distinct && name == "count" && !args.is_empty();
    let call = Call { name, distinct, ignore_nulls: false, star: args.is_empty(), columns: args.len(), constants };
    (Function::find(&call).unwrap(), args)
}

fn aggregate() -> impl Strategy<Value = Aggregate> {
    (0..FUNCTIONS.len(), any::<bool>(), window(), any::<bool>()).prop_map(|(i, distinct, window, filter)| {
        let (function, args) = function(i, distinct);
        Aggregate { function, args, filter: filter.then(|| "b".to_string()), window }
    })
}

fn schema() -> Schema {
    let field = |n: &str, t| Field::new(n, t, true);
    Schema::new(vec![
        field("n", DataType::Int64),
        field("x", DataType::Float64),
        field("d", DataType::Decimal128(38, 2)),
        field("s", DataType::Utf8),
        field("b", DataType::Boolean),
    ])
}

fn columns(events: &[Event]) -> Vec<ArrayRef> {
    vec![
        Arc::new(events.iter().map(|e| e.n).collect::<Int64Array>()),
        Arc::new(events.iter().map(|e| e.x).collect::<Float64Array>()),
        Arc::new(events.iter().map(|e| e.d).collect::<Decimal128Array>().with_data_type(DataType::Decimal128(38, 2))),
        Arc::new(events.iter().map(|e| e.s.clone()).collect::<StringArray>()),
        Arc::new(events.iter().map(|e| e.b).collect::<BooleanArray>()),
    ]
}

/// Event by event, into one state.
fn by_hand(a: &Aggregate, events: &[Event], t: Micros) -> Finished {
    let compiled = kernel::Compiled::new(a, &schema()).unwrap();
    let all = columns(events);
    let args: Vec<Column<'_>> = compiled.args.iter().map(|i| Column::new(&all[*i]).unwrap()).collect();
    let (oldest, newest) = a.window.bounds(t);
    let mut state = compiled.function.nothing();
    for (row, e) in events.iter().enumerate() {
        if e.t >= oldest && e.t <= newest && (a.filter.is_none() || e.b == Some(true)) {
            let values: Vec<Option<Value>> = args.iter().map(|c| c.get(row)).collect();
            compiled.function.update(&mut state, &values);
        }
    }
    compiled.finished(&state)
}

fn one(a: &ArrayRef, row: usize) -> String {
    let shown = datafusion::arrow::util::display::array_value_to_string(&a.slice(row, 1), 0).unwrap();
    match a.data_type() {
        DataType::Float64 if a.is_valid(row) => {
            let x = datafusion::arrow::array::AsArray::as_primitive::<datafusion::arrow::datatypes::Float64Type>(a).value(row);
            if x.is_nan() { "NaN".into() } else { format!("{:x}", x.to_bits()) }
        }
        _ => shown,
    }
}

fn shown(f: Finished, t: &DataType) -> String {
    let mut out = Output::new(t, 1, false);
    out.set(0, f);
    one(&out.finish().unwrap(), 0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_time: 60_000, ..ProptestConfig::default() })]

    /// The kernels, and records read at any instant from the newest event on, are what counting by hand gives, to the bit.
    #[test]
    fn kernels_and_records_count_by_hand(
        mut events in prop::collection::vec(event(), 1..30),
        aggregates in prop::collection::vec(aggregate(), 1..4),
        mut instants in prop::collection::vec(-600i64..600, 1..12),
        clock in -500i64..600,
        batch in 0usize..3,
    ) {
        events.sort_by_key(|e| e.t);
        instants.iter_mut().for_each(|t| *t *= SECOND / 4);
        instants.sort_unstable();
        // the run stands somewhere in its batch
        let mut all = vec![events[0].clone(); batch];
        all.extend(events.iter().cloned());
        let columns = columns(&all);
        let times: Vec<Micros> = events.iter().map(|e| e.t).collect();
        let columns = super::columns(&columns).unwrap();
        let run = Run { times: &times, columns: &columns, first: batch };
        let mut kernel = Aggregators::new(&aggregates, &schema()).unwrap();
        for (n, (a, mut out)) in aggregates.iter().zip(kernel.outputs(instants.len() + 1)).enumerate() {
            let t = kernel.outputs(0).swap_remove(n).finish().unwrap().data_type().clone();
            let frames: Vec<(u32, u32)> = instants.iter().map(|t| {
                let (oldest, newest) = a.window.bounds(*t);
                let (from, to) = (times.partition_point(|e| *e < oldest), times.partition_point(|e| *e <= newest));
                (from as u32, to.max(from) as u32)
            }).collect();
            // totals are kept from aggregate to aggregate of a run, and made anew for the next one
            if n % 2 == 0 {
                kernel.begin();
            }
            kernel.fill(n, &run, &frames, 1, &mut out).unwrap();
            let array = out.finish().unwrap();
            for (i, at) in instants.iter().enumerate() {
                prop_assert_eq!(one(&array, i + 1), shown(by_hand(a, &events, *at), &t), "{:?} at {}", a, at);
            }
        }
        if families_fit(&aggregates) {
            let codec = RecordCodec::new(&aggregates, &schema(), 1000).unwrap();
            let (now, mut body) = (clock * SECOND / 4, vec![]);
            let newest = codec.write(&run, now, &mut body).unwrap();
            prop_assert_eq!(newest, times.iter().copied().filter(|t| *t <= now).max());
            let wanted: Vec<usize> = (0..aggregates.len()).collect();
            for at in instants.iter().filter(|t| newest.is_none_or(|n| **t >= n)) {
                let read = codec.read(&[(Some((&body, newest)), *at), (None, *at)], &wanted, &|_| String::new()).unwrap();
                for (a, values) in aggregates.iter().zip(&read.values) {
                    let t = values.data_type();
                    prop_assert_eq!(one(values, 0), shown(by_hand(a, &events, *at), t), "record of {:?} at {}, clock {}", a, at, now);
                    prop_assert_eq!(one(values, 1), shown(by_hand(a, &[], *at), t));
                }
            }
            for cut in 0..body.len() {
                let _ = codec.read(&[(Some((&body[..cut], newest)), now)], &wanted, &|_| String::new());
                let mut flipped = body.clone();
                flipped[cut] ^= 1 << (cut % 8);
                let _ = codec.read(&[(Some((&flipped, newest)), now)], &wanted, &|_| String::new());
            }
        }
    }
}

fn families_fit(all: &[Aggregate]) -> bool {
    check_family(&all.iter().map(|a| &a.window).collect::<Vec<_>>()).is_ok()
}

#[test]
fn too_many_events_of_an_exact_window_have_no_answer() {
    let window = Window { length: Some(DAY), step: 1, delay: 0, grain: 1, excludes_current: false };
    let a = Aggregate { function: Function::CountAll, args: vec![], filter: None, window };
    let codec = RecordCodec::new(&[a], &schema(), 3).unwrap();
    let times: Vec<Micros> = (0..10).map(|i| i * HOUR).collect();
    let mut body = vec![];
    let newest = codec.write(&Run { times: &times, columns: &super::columns(&columns(&[])).unwrap(), first: 0 }, DAY, &mut body).unwrap();
    assert!(body.len() < 40, "{}", body.len());
    let read = |t| codec.read(&[(Some((&body, newest)), t)], &[0], &|_| String::new()).unwrap();
    assert_eq!((read(9 * HOUR).over_limit, read(DAY + 6 * HOUR).over_limit), (vec![true], vec![true]));
    let few = read(DAY + 7 * HOUR);
    assert_eq!((few.over_limit[0], one(&few.values[0], 0).as_str()), (false, "3"));
}

#[test]
fn golden_records() {
    let window = Window::new(&asked(DAY), false).unwrap();
    let of = |name, args: &[&str]| {
        let args: Vec<String> = args.iter().map(|a| a.to_string()).collect();
        let call = Call { name, distinct: false, ignore_nulls: false, star: args.is_empty(), columns: args.len(), constants: &[] };
        Aggregate { function: Function::find(&call).unwrap(), args, filter: None, window: window.clone() }
    };
    let all = [of("count", &[]), of("sum", &["x"]), of("max", &["s"])];
    let codec = RecordCodec::new(&all, &schema(), 1000).unwrap();
    let event = |t, x, s: &str| Event { t, n: None, x: Some(x), d: None, s: Some(s.into()), b: None };
    let events = [event(1_000_000, 0.5, "a"), event(HOUR, 2.25, "b"), event(HOUR + 1, f64::NAN, "a"), event(DAY, 1.0, "c")];
    let times: Vec<Micros> = events.iter().map(|e| e.t).collect();
    let mut body = vec![];
    let newest =
        codec.write(&Run { times: &times, columns: &super::columns(&columns(&events)).unwrap(), first: 0 }, 2 * HOUR, &mut body).unwrap();
    assert_eq!(newest, Some(HOUR + 1));
    let hex: String = body.iter().map(|b| format!("{b:02x}")).collect();
    let cells = ["01", "01", "8080bbdd8305"]
        .into_iter()
        .chain(["0f", "00", "01", "80909de91a", "02", "80f09df4e804", "01"])
        .chain(["1e", "00", "010001", "0101", "80909de91a", "0201010000", "03", "0109", "80f09df4e804", "01000001", "01"])
        .chain(["15", "00", "040161", "80909de91a", "040162", "80f09df4e804", "040163"]);
    assert_eq!(hex, cells.collect::<String>());
}
