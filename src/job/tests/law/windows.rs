//! The law for windowed views: after events came, went or were loaded, ONLINE_LOOKUP and an ASOF JOIN at any instant from then
//! on are what nested loops over the history give. The ends of the windows are written down here once more, by hand.

use super::*;
use crate::clock::MINUTE;

/// A window as SQL, and by hand: length, step, delay, grain, whether the instant itself is left out.
struct Shape {
    sql: &'static str,
    length: Option<Micros>,
    step: Micros,
    delay: Micros,
    grain: Micros,
    before: bool,
}

const fn shape(sql: &'static str, length: Micros, step: Micros) -> Shape {
    Shape { sql, length: Some(length), step, delay: 0, grain: 1, before: false }
}

const SHAPES: [Shape; 11] = [
    shape("LAST '10 seconds'", 10 * SECOND, 1),
    shape("LAST '2 minutes'", 2 * MINUTE, SECOND),
    shape("LAST '10 minutes'", 10 * MINUTE, 5 * SECOND),
    shape("LAST '10 minutes' EVERY '1 minute'", 10 * MINUTE, MINUTE),
    shape("LAST '10 minutes' EXACT", 10 * MINUTE, 1),
    shape("LAST '1 hour'", 60 * MINUTE, 15 * SECOND),
    Shape { before: true, ..shape("LAST '10 minutes' EXCLUDE CURRENT TIME", 10 * MINUTE, 5 * SECOND) },
    Shape { delay: 10 * SECOND, ..shape("LAST '3 minutes' DELAY '10 seconds'", 3 * MINUTE, SECOND) },
    Shape { delay: 5 * MINUTE, grain: SECOND, ..shape("LAST '10 minutes' DELAY '5 minutes'", 10 * MINUTE, 5 * SECOND) },
    Shape { length: None, ..shape("ALL", 0, 1) },
    Shape { length: None, delay: 5 * MINUTE, grain: SECOND, ..shape("ALL DELAY '5 minutes'", 0, 1) },
];

impl Shape {
    fn holds(&self, event: Micros, t: Micros) -> bool {
        let floor = |t: Micros, step: Micros| t.div_euclid(step) * step;
        let u = floor(t - self.delay, self.grain);
        let newer = if self.grain > 1 || self.before { event < u } else { event <= u };
        newer && self.length.is_none_or(|l| event >= floor(u - l, self.step))
    }
}

#[derive(Debug, Clone)]
struct Event {
    key: i64,
    at: Micros,
    n: Option<i64>,
    x: Option<f64>,
    s: Option<String>,
    b: Option<bool>,
}

/// Aggregates: as SQL, whether only the order of arrival may tell between ties, and by hand.
type ByHand = fn(&[&Event]) -> String;
const FUNCTIONS: [(&str, bool, ByHand); 14] = [
    ("count(*)", false, |e| e.len().to_string()),
    ("count(x)", false, |e| e.iter().filter(|e| e.x.is_some()).count().to_string()),
    ("sum(n)", false, |e| null(e.iter().filter_map(|e| e.n).reduce(|a, b| a + b))),
    ("sum(x)", false, |e| float(e.iter().filter_map(|e| e.x).reduce(|a, b| a + b))),
    ("avg(n)", false, |e| {
        let all: Vec<f64> = e.iter().filter_map(|e| e.n).map(|n| n as f64).collect();
        float((!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64))
    }),
    ("min(x)", false, |e| float(e.iter().filter_map(|e| e.x).reduce(f64::min))),
    ("max(s)", false, |e| null(e.iter().filter_map(|e| e.s.clone()).max())),
    ("bool_or(b)", false, |e| null(e.iter().filter_map(|e| e.b).max())),
    ("count(DISTINCT s)", false, |e| e.iter().filter_map(|e| e.s.clone()).collect::<BTreeSet<_>>().len().to_string()),
    ("last_value(n)", true, |e| null(e.last().and_then(|e| e.n))),
    ("first_value(s)", true, |e| null(e.first().and_then(|e| e.s.clone()))),
    ("last_n(n, 3)", true, |e| list(e.iter().rev().take(3).map(|e| e.n).collect())),
    ("max_by(n, x)", true, |e| {
        let mut best: Option<&Event> = None;
        for e in e.iter().filter(|e| e.x.is_some()) {
            if best.is_none_or(|b| e.x >= b.x) {
                best = Some(e);
            }
        }
        null(best.and_then(|e| e.n))
    }),
    ("stddev_pop(n)", false, |e| {
        // of whole numbers this small everything but the quotient and the root is exact
        let all: Vec<i64> = e.iter().filter_map(|e| e.n).collect();
        let (count, sum, squares) = (all.len() as i64, all.iter().sum::<i64>(), all.iter().map(|n| n * n).sum::<i64>());
        float((count > 0).then(|| (((count * squares - sum * sum) as f64) / ((count * count) as f64)).sqrt()))
    }),
];

fn null(v: Option<impl ToString>) -> String {
    v.map_or("NULL".into(), |v| v.to_string())
}

fn float(v: Option<f64>) -> String {
    v.map_or("NULL".into(), |v| format!("{v:?}"))
}

fn list(v: Vec<Option<i64>>) -> String {
    match v.is_empty() {
        true => "NULL".into(),
        false => format!("[{}]", v.into_iter().map(null).collect::<Vec<_>>().join(", ")),
    }
}

#[derive(Debug, Clone)]
struct Feature {
    function: usize,
    shape: usize,
    filter: bool,
}

impl Feature {
    fn sql(&self, name: &str) -> String {
        let filter = if self.filter { " FILTER (WHERE b)" } else { "" };
        format!("{}{filter} OVER {} AS {name}", FUNCTIONS[self.function].0, SHAPES[self.shape].sql)
    }

    fn by_hand(&self, events: &[Event], key: i64, t: Micros) -> String {
        let shape = &SHAPES[self.shape];
        let counts = |e: &&Event| e.key == key && shape.holds(e.at, t) && (!self.filter || e.b == Some(true));
        let mut of: Vec<&Event> = events.iter().filter(counts).collect();
        of.sort_by_key(|e| e.at);
        FUNCTIONS[self.function].2(&of)
    }
}

#[derive(Debug, Clone)]
enum Act {
    Insert(Vec<Event>),
    DeleteKey(i64),
    DeleteOld(Micros),
    Advance(Micros),
    Materialize(Load),
    Optimize,
    Verify,
}

#[derive(Debug, Clone)]
struct History {
    /// A view over a query, whose source gets the events.
    query: bool,
    features: Vec<Feature>,
    acts: Vec<Act>,
    later: Vec<Micros>,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    // `at` is counted back from now
    let ago = prop_oneof![4 => 0..30 * SECOND, 3 => 0..20 * MINUTE, 1 => -MINUTE..0, 1 => 0..3 * 60 * MINUTE];
    let event = (
        0i64..3,
        (ago, any::<bool>()).prop_map(|(t, whole)| if whole { t / SECOND * SECOND } else { t }),
        prop::option::weighted(0.8, -5i64..20),
        prop::option::weighted(0.8, (-40i32..40).prop_map(|n| f64::from(n) / 4.0)),
        prop::option::weighted(0.8, "[ab]{1,2}"),
        prop::option::weighted(0.8, any::<bool>()),
    );
    prop::collection::vec(event.prop_map(|(key, at, n, x, s, b)| Event { key, at, n, x, s, b }), 1..6)
}

fn history() -> impl Strategy<Value = History> {
    let feature = (0..FUNCTIONS.len(), 0..SHAPES.len(), prop::bool::weighted(0.3));
    let feature = feature.prop_map(|(function, shape, filter)| Feature { function, shape, filter });
    let load = prop::sample::select(vec![Load::Incremental, Load::Full, Load::InPlace]);
    let act = prop_oneof![
        6 => events().prop_map(Act::Insert),
        1 => (0i64..3).prop_map(Act::DeleteKey),
        1 => (0..20 * MINUTE).prop_map(Act::DeleteOld),
        3 => prop_oneof![0..30 * SECOND, 0..15 * MINUTE].prop_map(Act::Advance),
        3 => load.prop_map(Act::Materialize),
        1 => Just(Act::Optimize),
        1 => Just(Act::Verify),
    ];
    let later = prop_oneof![Just(0), 0..SECOND, 0..2 * MINUTE, 0..20 * MINUTE, 0..3 * 60 * MINUTE];
    (prop::bool::weighted(0.3), prop::collection::vec(feature, 1..5), prop::collection::vec(act, 1..8), prop::collection::vec(later, 2..4))
        .prop_map(|(query, features, acts, later)| History { query, features, acts, later })
}

struct Windows<'w> {
    w: &'w World,
    case: &'w History,
    name: String,
    events: Vec<Event>,
    stored: Vec<Event>,
}

const COLUMNS: &str = "id, ts, n, x, s, b";

impl<'w> Windows<'w> {
    async fn create(w: &'w World, case: &'w History) -> Checked<Self> {
        w.views.set(w.views.get() + 1);
        let name = format!("win{}", w.views.get());
        let features: Vec<String> = case.features.iter().enumerate().map(|(i, f)| f.sql(&format!("f{i}"))).collect();
        let (list, from) = match case.query {
            true => {
                w.rows(&format!("CREATE TABLE {name}_src (id BIGINT, ts TIMESTAMP, n BIGINT, x DOUBLE, s VARCHAR, b BOOLEAN)")).await?;
                (String::new(), format!("{name}_src"))
            }
            false => ("(n BIGINT, x DOUBLE, s VARCHAR, b BOOLEAN)".to_string(), "PUSHED".to_string()),
        };
        w.rows(&format!(
            "CREATE FEATURE VIEW {name} {list} ENTITY win EVENT TIMESTAMP ts ONLINE AS SELECT {} FROM {from}",
            features.join(", ")
        ))
        .await?;
        Ok(Windows { w, case, name, events: vec![], stored: vec![] })
    }

    /// True where online rows are up to date afterwards.
    async fn act(&mut self, act: &Act) -> Checked<bool> {
        let (w, name, now) = (self.w, &self.name, self.w.clock.now());
        match act {
            Act::Insert(raw) => {
                let fresh: Vec<Event> = raw.iter().map(|e| Event { at: now - e.at, ..e.clone() }).collect();
                let row = |e: &Event| {
                    let s = e.s.as_ref().map_or("NULL".into(), |s| format!("'{s}'"));
                    format!("({}, {}, {}, {}, {s}, {})", e.key, at(e.at), null(e.n), null(e.x), null(e.b))
                };
                let values = fresh.iter().map(row).collect::<Vec<_>>().join(", ");
                let into = if self.case.query { format!("{name}_src") } else { name.clone() };
                w.rows(&format!("INSERT INTO {into} ({COLUMNS}) VALUES {values}")).await?;
                self.events.extend(fresh);
                if !self.case.query {
                    self.stored = self.events.clone();
                }
                return Ok(!self.case.query);
            }
            Act::DeleteKey(key) => return self.delete(&format!("id = {key}"), |e| e.key != *key).await,
            Act::DeleteOld(ago) => return self.delete(&format!("ts < {}", at(now - ago)), |e| e.at >= now - ago).await,
            Act::Advance(by) => w.clock.advance(*by),
            Act::Optimize => drop(w.rows(&format!("OPTIMIZE FEATURE VIEW {name}")).await?),
            Act::Verify => self.verify().await?,
            Act::Materialize(load) => {
                if self.case.query {
                    w.rows(&format!("REFRESH FEATURE VIEW {name} FULL")).await?;
                    self.stored = self.events.iter().filter(|e| e.at <= now).cloned().collect();
                }
                let view = w.view(name, 1).await?;
                let load = match load {
                    Load::InPlace if w.loaded_with(&view).await?.is_some() => "IN PLACE",
                    Load::Full => "FULL",
                    _ => "",
                };
                w.rows(&format!("MATERIALIZE FEATURE VIEW {name} {load}")).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn delete(&mut self, which: &str, stays: impl Fn(&Event) -> bool) -> Checked<bool> {
        if self.case.query {
            return Ok(false);
        }
        self.w.rows(&format!("DELETE FROM {} WHERE {which}", self.name)).await?;
        self.events.retain(stays);
        self.stored = self.events.clone();
        Ok(true)
    }

    async fn verify(&self) -> Checked {
        let view = self.w.view(&self.name, 1).await?;
        if self.w.loaded_with(&view).await?.is_none() {
            return Ok(());
        }
        let sql = format!("SELECT mismatches, missing_online, extra_online, examples FROM (VERIFY FEATURE VIEW {})", self.name);
        let found =
            self.w.rows(&sql.replace("SELECT mismatches, missing_online, extra_online, examples FROM (", "").replace(')', "")).await?;
        let row = found.first().cloned().unwrap_or_default();
        let cells: Vec<&str> = row.split('|').collect();
        match cells.get(10..13) {
            Some(["0", "0", "0"]) => Ok(()),
            _ => Err(failed(format!("VERIFY: {row}"))),
        }
    }

    async fn check(&self) -> Checked {
        let now = self.w.clock.now();
        let shown: Vec<String> = (0..self.case.features.len()).map(|i| format!("f{i}")).collect();
        let keys = [0i64, 1, 2, 77];
        for t in self.case.later.iter().map(|l| now + l) {
            let hand: Vec<String> = keys
                .iter()
                .map(|k| self.case.features.iter().map(|f| f.by_hand(&self.stored, *k, t)).collect::<Vec<_>>().join("|"))
                .collect();
            let list = shown.iter().map(|f| format!("v.{f}")).collect::<Vec<_>>().join(", ");
            let labels = keys.iter().enumerate().map(|(i, k)| format!("({i}, {k})")).collect::<Vec<_>>().join(", ");
            let train = format!(
                "SELECT {list} FROM (SELECT * FROM (VALUES {labels}) k (o, id) ORDER BY o) l ASOF JOIN {} v AT {}",
                self.name,
                at(t)
            );
            let trained = self.w.rows(&train).await?;
            if trained != hand {
                return Err(failed(format!("{train}: {trained:?}, by hand {hand:?}")));
            }
            let list = shown.join(", ");
            let serve = format!("SELECT {list} FROM ONLINE_LOOKUP('{}', 0, 1, 2, 77, at => {})", self.name, at(t));
            let served = self.w.rows(&serve).await?;
            if served != hand {
                return Err(failed(format!("{serve}: {served:?}, by hand {hand:?}")));
            }
        }
        Ok(())
    }
}

async fn windows_hold(w: &World, case: &History) -> Checked {
    let mut view = Windows::create(w, case).await?;
    for act in &case.acts {
        if view.act(act).await.map_err(|e| failed(format!("{act:?}: {e}")))? {
            view.check().await.map_err(|e| failed(format!("after {act:?}: {e}")))?;
        }
    }
    view.act(&Act::Materialize(Load::Incremental)).await?;
    view.check().await.map_err(|e| failed(format!("at the end: {e}")))?;
    view.verify().await?;
    w.rows(&format!("DROP FEATURE VIEW {}", view.name)).await.map(drop)
}

/// Order-dependent aggregates are drawn where the order is that of arrival.
fn order_is_told(case: &History) -> bool {
    !case.query || case.features.iter().all(|f| !FUNCTIONS[f.function].1)
}

fn the_law_holds(place: fn() -> Place) {
    let w_of = |runtime: &tokio::runtime::Runtime| {
        runtime.block_on(async {
            let w = world(place()).await;
            w.rows("CREATE ENTITY win KEY (id BIGINT)").await.unwrap();
            w
        })
    };
    drawn(history().prop_filter("ties of a query have no order", order_is_told), w_of, |runtime, w, case| {
        runtime.block_on(windows_hold(w, case))
    });
}

on_every_store!(
    embedded => Place::embedded,
    #[cfg(feature = "redis")]
    redis => Place::redis,
    #[cfg(feature = "redis")]
    cluster => Place::cluster,
    #[cfg(feature = "redis")]
    sentinel => Place::sentinel,
);
