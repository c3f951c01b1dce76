//! The law that ties training and serving (sql/README.md, "The law"), for random histories on every store: after
//! a load at instant T, ONLINE_LOOKUP at any t ≥ T, an ASOF JOIN at t and nested loops over the history agree.
//!
//! PROPTEST_CASES asks for more histories, PROPTEST_RNG_SEED for those of a failure.

mod history;
mod oracle;
mod values;

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestError, TestRunner};
use tempfile::TempDir;

use self::history::{Case, ENTITIES, KEYS, Load, RawRow, Refresh, Step, TTLS, entity};
use self::oracle::{Answer, Row};
use self::values::{FIRST, MANY, PRICE, cells, features, selected, shown, written};
use crate::clock::{Clock, Micros, SECOND, format_micros, new_id};
use crate::config::Config;
use crate::model::live::narrow;
use crate::model::{FeatureView, Name};
use crate::session::{Engine, Outcome, Session};
use crate::store::online::Place;

/// 2100-01-01: a store with a clock of its own lets no row go for its age.
const T0: Micros = 4_102_444_800 * SECOND;
/// Histories per store where PROPTEST_CASES does not say.
const FEW: u32 = 6;

type Checked<T = ()> = Result<T, TestCaseError>;

/// One warehouse for all cases: each has a view of its own.
struct World {
    engine: Arc<Engine>,
    session: Session,
    clock: Clock,
    views: std::cell::Cell<u32>,
    _place: Place,
    _dir: TempDir,
}

async fn world(place: Place) -> World {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(T0);
    let config =
        Config { warehouse: dir.path().join("w").display().to_string(), online: place.url.clone(), threads: 2, ..Default::default() };
    let engine = Engine::open(config, clock.clone()).await.unwrap();
    let w = World { session: engine.session(), engine, clock, views: Default::default(), _place: place, _dir: dir };
    for kind in 0..ENTITIES {
        w.rows(&format!("CREATE ENTITY e{kind} KEY ({})", entity(kind).0)).await.unwrap();
    }
    w
}

fn failed(what: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(what.to_string())
}

impl World {
    /// Rows as texts.
    async fn rows(&self, sql: &str) -> Checked<Vec<String>> {
        let fault = |e: &dyn std::fmt::Display| failed(format!("{sql}: {e}"));
        let batches = match self.session.execute(sql).await.map_err(|e| fault(&e))? {
            Outcome::Updated(n) => return Ok(vec![n.to_string()]),
            Outcome::Rows(s) => s.try_collect::<Vec<_>>().await.map_err(|e| fault(&e))?,
        };
        let options = FormatOptions::default().with_null("NULL");
        let mut out = vec![];
        for b in &batches {
            let columns: Vec<_> = b.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
            out.extend((0..b.num_rows()).map(|i| columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>().join("|")));
        }
        Ok(out)
    }

    async fn view(&self, name: &str, version: u32) -> Checked<FeatureView> {
        let catalog = self.engine.services().registry.snapshot().await.map_err(failed)?;
        let name = Name { schema: self.session.current_schema(), name: name.into() };
        catalog.feature_view(&name, Some(version)).cloned().map_err(failed)
    }

    /// The TTL of a view that its online rows were loaded with; `None`: nothing is online.
    async fn loaded_with(&self, view: &FeatureView) -> Checked<Option<Option<Micros>>> {
        let services = self.engine.services();
        let pointer = services.online().await.map_err(failed)?.pointer(&services.online_view(view)).await.map_err(failed)?;
        Ok(pointer.map(|p| p.ttl))
    }
}

/// One version of the view, as it should be.
#[derive(Default)]
struct Version {
    stored: Vec<Row>,
    /// W of a query view.
    watermark: Option<Micros>,
    /// When its online rows were last brought up to date.
    brought: Micros,
}

/// A view with its history.
struct View<'w> {
    w: &'w World,
    case: &'w Case,
    name: String,
    keys: [Vec<String>; KEYS],
    columns: String,
    versions: Vec<Version>,
    source: Vec<Row>,
    online: bool,
}

fn at(t: Micros) -> String {
    format!("TIMESTAMP '{}'", format_micros(t))
}

fn text(v: &Option<String>) -> String {
    v.as_ref().map_or("NULL".into(), |v| format!("'{v}'"))
}

fn number<T: ToString>(v: Option<T>) -> String {
    v.map_or("NULL".into(), |v| v.to_string())
}

/// What the request column of a service holds for a key.
fn amount(key: usize) -> f64 {
    key as f64 * 0.25
}

impl<'w> View<'w> {
    async fn create(w: &'w World, case: &'w Case) -> Checked<Self> {
        w.views.set(w.views.get() + 1);
        let name = format!("v{}", w.views.get());
        let (declared, keys) = entity(case.entity);
        let columns = split_columns(declared).iter().filter_map(|c| c.split(' ').next()).collect::<Vec<_>>().join(", ");
        let view = View { w, case, name, keys, columns, versions: vec![Version::default()], source: vec![], online: true };
        if case.query {
            let made = if case.created { ", made TIMESTAMP" } else { "" };
            w.rows(&format!("CREATE TABLE {}_src ({declared}, ts TIMESTAMP{made}, {})", view.name, typed_features(0))).await?;
        }
        w.rows(&view.definition(0)).await?;
        view.create_service().await?;
        Ok(view)
    }

    /// A service over the newest version: a request column, features as they are, expressions, the row's instant.
    async fn create_service(&self) -> Checked {
        let added: String = (1..self.versions.len()).map(|i| format!(", u.w{}", i - 1)).collect();
        let sql = format!(
            "CREATE FEATURE SERVICE {} REQUEST (amount DOUBLE) AS SELECT amount * u.x AS scaled, 10 / u.x AS tenth, \
             coalesce(u.y, 'none') AS told, now() > u.ts + INTERVAL '5 seconds' AS aged, u.price, u.many{added} FROM {} u",
            self.service(self.versions.len()),
            self.newest()
        );
        self.w.rows(&sql).await.map(drop)
    }

    fn service(&self, version: usize) -> String {
        format!("{}_s{version}", self.name)
    }

    /// CREATE OR REPLACE FEATURE VIEW with so many features more.
    fn definition(&self, more: usize) -> String {
        let c = self.case;
        let created = if c.created { "CREATED TIMESTAMP made" } else { "" };
        let ttl = TTLS[c.ttl].map_or(String::new(), |t| format!("TTL INTERVAL '{t} microseconds'"));
        let head = format!("EVENT TIMESTAMP ts {created} {ttl} ONLINE");
        let (name, entity) = (&self.name, c.entity);
        match c.query {
            false => format!("CREATE OR REPLACE FEATURE VIEW {name} ({}) ENTITY e{entity} {head}", typed_features(more)),
            true => {
                let made = if c.created { ", made" } else { "" };
                format!(
                    "CREATE FEATURE VIEW {name} ENTITY e{entity} {head} LOOKBACK INTERVAL '{} microseconds' \
                     AS SELECT {}, ts{made}, {} FROM {name}_src",
                    c.lookback,
                    self.columns,
                    named_features(more)
                )
            }
        }
    }

    fn newest(&self) -> String {
        format!("{}@v{}", self.name, self.versions.len())
    }

    fn row(&self, raw: &RawRow) -> Row {
        let created = raw.created.filter(|_| self.case.created).map(|c| T0 + Micros::from(c));
        let event = self.w.clock.now() - raw.ago;
        let y = raw.y.map(|y| if y == 0 { String::new() } else { format!("y{y}") });
        Row { key: raw.key, event, created, x: raw.x, y, others: cells(&raw.others, self.versions.len() - 1) }
    }

    fn values(&self, rows: &[Row]) -> String {
        let one = |r: &Row| {
            let made = if self.case.created { format!(", {}", r.created.map_or("NULL".into(), at)) } else { String::new() };
            let others = written(&r.others);
            format!("({}, {}{made}, {}, {}{others})", self.keys[r.key].join(", "), at(r.event), number(r.x), text(&r.y))
        };
        rows.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn listed(&self) -> String {
        let made = if self.case.created { ", made" } else { "" };
        format!("{}, ts{made}, {}", self.columns, named_features(self.versions.len() - 1))
    }

    /// Rows of the newest version are gone; whether the statement brought what is left online: one that removes nothing
    /// commits nothing.
    fn removed(&mut self, stays: impl Fn(&Row) -> bool, now: Micros) -> bool {
        let last = self.versions.len() - 1;
        let before = self.versions[last].stored.len();
        self.versions[last].stored.retain(stays);
        self.versions[last].stored.len() < before && self.brought(last, now)
    }

    /// Does a step in the warehouse and in the history; true where online rows were brought up to date.
    async fn step(&mut self, step: &Step) -> Checked<bool> {
        let (w, now, newest) = (self.w, self.w.clock.now(), self.newest());
        let last = self.versions.len() - 1;
        match step {
            Step::Insert(raw) => {
                let rows: Vec<Row> = raw.iter().map(|r| self.row(r)).collect();
                w.rows(&format!("INSERT INTO {newest} ({}) VALUES {}", self.listed(), self.values(&rows))).await?;
                self.versions[last].stored.extend(rows);
                return Ok(self.brought(last, now));
            }
            Step::DeleteKey(key) => {
                let names = self.columns.split(", ").zip(&self.keys[*key]);
                let equal: Vec<_> = names.map(|(c, v)| format!("{c} = {v}")).collect();
                w.rows(&format!("DELETE FROM {newest} WHERE {}", equal.join(" AND "))).await?;
                return Ok(self.removed(|r| r.key != *key, now));
            }
            Step::DeleteX(rest) => {
                w.rows(&format!("DELETE FROM {newest} WHERE x % 3 = {rest}")).await?;
                return Ok(self.removed(|r| r.x.is_none_or(|x| x % 3 != *rest), now));
            }
            Step::DeleteOld(ago) => {
                w.rows(&format!("DELETE FROM {newest} WHERE ts < {}", at(now - ago))).await?;
                return Ok(self.removed(|r| r.event >= now - ago, now));
            }
            Step::Optimize => drop(w.rows(&format!("OPTIMIZE FEATURE VIEW {newest}")).await?),
            Step::Advance(by) => w.clock.advance(*by),
            Step::Ttl(which) => {
                let ttl = TTLS[*which].unwrap_or(0);
                w.rows(&format!("ALTER FEATURE VIEW {newest} SET TTL INTERVAL '{ttl} microseconds'")).await?;
            }
            Step::Replace => {
                w.rows(&self.definition(self.versions.len())).await?;
                self.versions.push(Version::default());
                self.create_service().await?;
            }
            Step::Offline(off) => {
                self.set_online(!off).await?;
            }
            Step::Verify => self.verify().await?,
            Step::Materialize(load) => {
                if !self.online {
                    self.set_online(true).await?;
                }
                let load = match load {
                    Load::Full => "FULL",
                    Load::InPlace => "IN PLACE",
                    Load::Incremental => "",
                };
                for v in 1..=self.versions.len() {
                    let view = w.view(&self.name, v as u32).await?;
                    // IN PLACE wants something to replace
                    let load = if w.loaded_with(&view).await?.is_some() { load } else { "" };
                    w.rows(&format!("MATERIALIZE FEATURE VIEW {}@v{v} {load}", self.name)).await?;
                    let view = w.view(&self.name, v as u32).await?;
                    let loaded = w.loaded_with(&view).await?.ok_or_else(|| failed("nothing is online after MATERIALIZE"))?;
                    if narrow(view.ttl, loaded) != view.ttl {
                        return Err(failed(format!("TTL {:?} is not served after MATERIALIZE, but {loaded:?}", view.ttl)));
                    }
                    self.brought(v - 1, now);
                }
                return Ok(true);
            }
            Step::Source(raw) => {
                let fresh = self.apart(raw);
                if !fresh.is_empty() {
                    w.rows(&format!("INSERT INTO {}_src ({}) VALUES {}", self.name, self.listed(), self.values(&fresh))).await?;
                    self.source.extend(fresh);
                }
            }
            Step::Overwrite(raw) => {
                self.source.clear();
                let fresh = self.apart(raw);
                w.rows(&format!("INSERT OVERWRITE {}_src VALUES {}", self.name, self.values(&fresh))).await?;
                self.source = fresh;
            }
            Step::Refresh(range) => self.refresh(*range, now).await?,
        }
        Ok(false)
    }

    fn brought(&mut self, version: usize, now: Micros) -> bool {
        if self.online {
            self.versions[version].brought = now;
        }
        self.online
    }

    async fn set_online(&mut self, online: bool) -> Checked {
        let to = if online { "ONLINE" } else { "OFFLINE" };
        for v in 1..=self.versions.len() {
            match self.case.created {
                true => super::put_online(self.w.engine.services(), &self.name, Some(v as u32), online).await,
                false => drop(self.w.rows(&format!("ALTER FEATURE VIEW {}@v{v} SET {to}", self.name)).await?),
            }
        }
        self.online = online;
        Ok(())
    }

    /// Rows for the source, of which no two tie unless they are the same: nothing says which of such rows a query
    /// gives last.
    fn apart(&self, raw: &[RawRow]) -> Vec<Row> {
        let mut out: Vec<Row> = vec![];
        for row in raw.iter().map(|r| self.row(r)) {
            let ties = |o: &Row| (o.key, o.event, o.created) == (row.key, row.event, row.created) && *o != row;
            if !self.source.iter().chain(&out).any(ties) {
                out.push(row);
            }
        }
        out
    }

    async fn refresh(&mut self, range: Refresh, now: Micros) -> Checked {
        let version = &mut self.versions[0];
        let (words, lo, hi) = match range {
            Refresh::Incremental => (String::new(), version.watermark.map_or(Micros::MIN, |w| w - self.case.lookback), now),
            Refresh::Full => ("FULL".into(), Micros::MIN, now),
            Refresh::FromTo(a, b) => (format!("FROM '{}' TO '{}'", format_micros(now - a), format_micros(now - b)), now - a, now - b),
        };
        self.w.rows(&format!("REFRESH FEATURE VIEW {} {words}", self.name)).await?;
        let within = |r: &Row| lo <= r.event && r.event <= hi;
        let fresh: Vec<Row> = self.source.iter().filter(|r| within(r)).cloned().collect();
        let greatest = fresh.iter().map(|r| r.event).max();
        version.watermark = match range {
            Refresh::Full => greatest,
            Refresh::Incremental => version.watermark.max(greatest),
            Refresh::FromTo(..) => match version.watermark {
                Some(w) if lo <= w => version.watermark.max(greatest),
                other => other,
            },
        };
        if matches!(range, Refresh::Full) {
            version.stored.clear();
        }
        version.stored.retain(|r| !within(r));
        version.stored.extend(fresh);
        Ok(())
    }

    /// Asks for every key of every version at several instants.
    async fn check(&self) -> Checked {
        let now = self.w.clock.now();
        for (i, version) in self.versions.iter().enumerate() {
            // rows that came due since wait for the next write to this version, or for MATERIALIZE
            if version.stored.iter().any(|r| version.brought < r.event && r.event <= now) {
                continue;
            }
            self.check_version(i as u32 + 1, version).await?;
        }
        Ok(())
    }

    async fn check_version(&self, number: u32, version: &Version) -> Checked {
        let (w, known) = (self.w, self.w.clock.now());
        let view = w.view(&self.name, number).await?;
        let Some(loaded) = w.loaded_with(&view).await? else { return Ok(()) };
        let ttl = narrow(view.ttl, loaded);
        let edges = version.stored.iter().filter_map(|r| ttl.map(|t| r.event + t)).flat_map(|e| [e - 1, e, e + 1]);
        let mut instants: BTreeSet<Micros> = edges.filter(|t| *t >= known).take(3).collect();
        instants.insert(known);
        instants.extend(self.case.later.iter().map(|d| known + d));
        let keys = self.keys.iter().map(|k| format!("({})", k.join(", "))).collect::<Vec<_>>().join(", ");
        let name = format!("{}@v{number}", self.name);
        let added = number as usize - 1;
        for &t in &instants {
            let sql = format!(
                "SELECT x, y{2}, {0}__status, CAST({0}__event_timestamp AS BIGINT) \
                 FROM ONLINE_LOOKUP('{name}', {keys}, status => true, at => {1})",
                self.name,
                at(t),
                selected("", added)
            );
            self.compare(&sql, known, version, t, ttl, &|_, answer| online(answer, added)).await?;
        }
        let last = instants.last().copied().unwrap_or(known);
        let requests = self.keys.iter().enumerate().map(|(i, k)| format!("({}, {:?})", k.join(", "), amount(i))).collect::<Vec<_>>();
        let sql = format!(
            "SELECT {}, u__status, CAST(u__event_timestamp AS BIGINT) FROM ONLINE_LOOKUP('{}', {}, status => true, at => {})",
            outputs("", added),
            self.service(number as usize),
            requests.join(", "),
            at(last)
        );
        self.compare(&sql, known, version, last, ttl, &|key, answer| online_served(answer, key, last, added)).await?;

        let now: Vec<(Micros, usize)> = (0..KEYS).map(|k| (known, k)).collect();
        let service = self.service(number as usize);
        let joins = format!("ONLINE JOIN {name} f ONLINE JOIN {service} s");
        self.check_joined(&joins, added, version, known, ttl, &now).await?;
        // the same of training, where no row of the table lies after the load
        let later = version.stored.iter().map(|r| r.event).filter(|e| *e > known).min();
        let asked: Vec<(Micros, usize)> =
            instants.iter().filter(|t| later.is_none_or(|l| l > **t)).flat_map(|t| (0..KEYS).map(|k| (*t, k))).collect();
        let within = ttl.map_or(String::new(), |t| format!("WITHIN INTERVAL '{t} microseconds'"));
        let joins = format!("ASOF JOIN {name} f AT l.at {within} ASOF JOIN {service} s AT l.at {within}");
        self.check_joined(&joins, added, version, known, ttl, &asked).await
    }

    /// Asks the online store for every key at one instant; `wanted`: the row of a key with such an answer.
    async fn compare(
        &self,
        sql: &str,
        known: Micros,
        version: &Version,
        t: Micros,
        ttl: Option<Micros>,
        wanted: &(dyn Fn(usize, &Answer) -> String + Sync),
    ) -> Checked {
        let found = self.w.rows(sql).await?;
        for (key, found) in found.iter().enumerate() {
            let answer = oracle::answer(&version.stored, key, t, known, ttl);
            // a row that is too old now may be gone
            let gone = matches!(answer, Answer::OutsideMaxAge(e) if ttl.is_some_and(|ttl| known - e > ttl));
            let row = wanted(key, &answer);
            if *found != row && !(gone && *found == wanted(key, &Answer::NotFound)) {
                return Err(failed(format!(
                    "{sql}: key {:?} at {} (loaded at {}, ttl {ttl:?}): online {found}, by hand {row}",
                    self.keys[key],
                    format_micros(t),
                    format_micros(known)
                )));
            }
        }
        if found.len() == KEYS { Ok(()) } else { Err(failed(format!("{sql}: {} rows for {KEYS} keys", found.len()))) }
    }

    /// Asks for keys at instants by joins of a view `f` and a service `s` over it.
    async fn check_joined(
        &self,
        joins: &str,
        added: usize,
        version: &Version,
        known: Micros,
        ttl: Option<Micros>,
        asked: &[(Micros, usize)],
    ) -> Checked {
        let label = |(i, (t, k)): (usize, &(Micros, usize))| format!("({i}, {}, {:?}, {})", at(*t), amount(*k), self.keys[*k].join(", "));
        let labels: Vec<String> = asked.iter().enumerate().map(label).collect();
        let keys: Vec<String> = self.columns.split(", ").enumerate().map(|(i, c)| format!("column{} AS {c}", i + 4)).collect();
        // the types of the keys, which VALUES do not have
        let typed = |(name, of): (&str, &str)| format!("CAST({name} AS {of}) AS {name}");
        let casts: Vec<String> = split_columns(entity(self.case.entity).0).iter().filter_map(|c| c.split_once(' ')).map(typed).collect();
        let sql = format!(
            "SELECT CAST(f.ts AS BIGINT), f.x, f.y{}, {} FROM (SELECT i, at, CAST(amount AS DOUBLE) AS amount, {} \
             FROM (SELECT column1 AS i, column2 AS at, column3 AS amount, {} FROM (VALUES {}))) l {joins} ORDER BY l.i",
            selected("f.", added),
            outputs("s.", added),
            casts.join(", "),
            keys.join(", "),
            labels.join(", ")
        );
        let found = self.w.rows(&sql).await?;
        for ((t, key), found) in asked.iter().zip(&found) {
            let answer = oracle::answer(&version.stored, *key, *t, known, ttl);
            let row = match &answer {
                Answer::Live(r) => format!("{}|{}", r.event, features_of(r)),
                _ => format!("NULL|NULL|NULL{}", "|NULL".repeat(FIRST + added)),
            };
            let wanted = format!("{row}|{}", served(&answer, *key, *t, added));
            if *found != wanted {
                let key = &self.keys[*key];
                return Err(failed(format!("{joins}: key {key:?} at {}: joined {found}, by hand {wanted}", format_micros(*t))));
            }
        }
        if found.len() == asked.len() { Ok(()) } else { Err(failed(format!("{} rows for {} labels", found.len(), asked.len()))) }
    }

    /// VERIFY agrees, too, whatever is not yet online.
    async fn verify(&self) -> Checked {
        for v in 1..=self.versions.len() {
            let view = self.w.view(&self.name, v as u32).await?;
            if !self.online || self.w.loaded_with(&view).await?.is_none() {
                continue;
            }
            let sql = format!("VERIFY FEATURE VIEW {}@v{v}", self.name);
            for row in self.w.rows(&sql).await? {
                let cells: Vec<&str> = row.split('|').collect();
                if cells[10..13] != ["0", "0", "0"] {
                    return Err(failed(format!("{sql}: {row}")));
                }
            }
        }
        Ok(())
    }

    async fn drop(self) -> Checked {
        self.w.rows(&format!("DROP FEATURE VIEW {} CASCADE", self.name)).await?;
        if self.case.query {
            self.w.rows(&format!("DROP TABLE {}_src", self.name)).await?;
        }
        Ok(())
    }
}

/// Cuts `d DECIMAL(10, 2), t TIMESTAMP` into columns.
fn split_columns(declared: &str) -> Vec<&str> {
    let mut out = vec![];
    let (mut depth, mut from) = (0, 0);
    for (i, c) in declared.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(declared[from..i].trim());
                from = i + 1;
            }
            _ => {}
        }
    }
    out.push(declared[from..].trim());
    out
}

/// `x BIGINT, y VARCHAR, …`
fn typed_features(added: usize) -> String {
    features(added).iter().map(|(name, of)| format!("{name} {of}")).collect::<Vec<_>>().join(", ")
}

/// `x, y, …`
fn named_features(added: usize) -> String {
    features(added).into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

/// All features of a row as a query shows them.
fn features_of(r: &Row) -> String {
    format!("{}|{}{}", number(r.x), r.y.clone().unwrap_or("NULL".into()), shown(&r.others))
}

/// `…|status|event timestamp` behind what was read; `null`: all features that were asked for are.
fn status(answer: &Answer, null: impl Fn(&Row) -> bool) -> String {
    match answer {
        Answer::NotFound => "NOT_FOUND|NULL".into(),
        Answer::OutsideMaxAge(_) => "OUTSIDE_MAX_AGE|NULL".into(),
        Answer::Live(r) => format!("{}|{}", if null(r) { "NULL_VALUE" } else { "PRESENT" }, r.event),
    }
}

/// All features, status and event timestamp.
fn online(answer: &Answer, added: usize) -> String {
    let read = match answer {
        Answer::Live(r) => features_of(r),
        _ => format!("NULL|NULL{}", "|NULL".repeat(FIRST + added)),
    };
    format!("{read}|{}", status(answer, |r| r.x.is_none() && r.y.is_none() && r.others.iter().all(Option::is_none)))
}

/// The features that a service gives as they are.
fn kept(r: &Row) -> impl Iterator<Item = &values::Cell> {
    [PRICE, MANY].into_iter().chain(FIRST..r.others.len()).map(move |i| &r.others[i])
}

/// What a service gives.
fn outputs(qualifier: &str, added: usize) -> String {
    let names = ["scaled", "tenth", "told", "aged", "price", "many"].map(|n| format!("{qualifier}{n}"));
    names.into_iter().chain((0..added).map(|i| format!("{qualifier}w{i}"))).collect::<Vec<_>>().join(", ")
}

/// The outputs by hand: features of what is not there are NULL, and expressions go on with that.
fn served(answer: &Answer, key: usize, t: Micros, added: usize) -> String {
    let Answer::Live(r) = answer else { return format!("NULL|NULL|none|NULL{}", "|NULL".repeat(2 + added)) };
    let scaled = number(r.x.map(|x| format!("{:?}", amount(key) * x as f64)));
    let tenth = number(r.x.filter(|x| *x != 0).map(|x| 10 / x));
    let told = r.y.clone().unwrap_or("none".into());
    format!("{scaled}|{tenth}|{told}|{}{}", t > r.event + 5 * SECOND, shown(kept(r)))
}

fn online_served(answer: &Answer, key: usize, t: Micros, added: usize) -> String {
    let null = |r: &Row| r.x.is_none() && r.y.is_none() && kept(r).all(Option::is_none);
    format!("{}|{}", served(answer, key, t, added), status(answer, null))
}

async fn holds(w: &World, case: &Case) -> Checked {
    let mut view = View::create(w, case).await?;
    for step in &case.steps {
        let loaded = view.step(step).await.map_err(|e| failed(format!("{step:?}: {e}")))?;
        if loaded {
            view.check().await.map_err(|e| failed(format!("after {step:?}: {e}")))?;
        }
    }
    view.step(&Step::Materialize(Load::Incremental)).await?;
    view.check().await.map_err(|e| failed(format!("at the end: {e}")))?;
    view.verify().await?;
    view.drop().await
}

/// Milliseconds in which a failing history is made shorter: on a cluster each takes seconds, and whoever waits wants the report.
const SHRINKING: u32 = 120_000;

/// Draws histories, lets each play in one world, and reports the shortest that fails.
fn drawn<C: std::fmt::Debug>(
    cases_of: impl Strategy<Value = C>,
    world: impl Fn(&tokio::runtime::Runtime) -> World,
    holds: impl Fn(&tokio::runtime::Runtime, &World, &C) -> Checked,
) {
    let asked = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { FEW };
    let seed = match asked.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => new_id().bytes().fold(7, |h: u64, b| h.wrapping_mul(31).wrapping_add(b.into())),
    };
    let seeded = RngSeed::Fixed(seed);
    let config =
        ProptestConfig { cases, max_shrink_iters: 150, max_shrink_time: SHRINKING, failure_persistence: None, rng_seed: seeded, ..asked };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let w = world(&runtime);
    match TestRunner::new(config).run(&cases_of, |case| holds(&runtime, &w, &case)) {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("{why}\nPROPTEST_RNG_SEED={seed}, the shortest history:\n{case:#?}"),
        Err(TestError::Abort(why)) => panic!("{why}\nPROPTEST_RNG_SEED={seed}"),
    }
}

fn the_law_holds(place: fn() -> Place) {
    drawn(history::case(), |runtime| runtime.block_on(world(place())), |runtime, w, case| runtime.block_on(holds(w, case)));
}

macro_rules! on_every_store {
    ($($(#[$if:meta])* $store:ident => $place:path),* $(,)?) => { $(
        $(#[$if])*
        #[test]
        fn $store() { the_law_holds($place) }
    )* };
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

mod windows;
