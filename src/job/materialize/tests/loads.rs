//! Full loads and loads in place, what meets them, and what is left of them.

use super::meddler::{Meddler, Moment};
use super::*;
use crate::catalog::CatalogChange;
use crate::clock::new_id;
use crate::job::garbage_collection;
use crate::job::materialize::Job;
use crate::job::tests::put_online;
use crate::model::{FeatureView, Name};
use crate::plan::command::Extent;
use crate::progress::{Progress, ProgressBar, ProgressSink};
use crate::services::lease::load_lease;
use crate::store::online::{KeysOf, OnlineStore, OnlineView, Pointer, PutKind, PutRow};
use parking_lot::Mutex;

/// The view `v` as the online store knows it.
struct Online {
    view: Arc<FeatureView>,
    store: Arc<dyn OnlineStore>,
    id: OnlineView,
}

impl World {
    async fn online(&self) -> Online {
        self.online_of("v").await
    }

    async fn online_of(&self, name: &str) -> Online {
        let services = self.engine.services();
        let catalog = services.registry.snapshot().await.unwrap();
        let name = Name { schema: self.session.current_schema(), name: name.into() };
        let view = Arc::new(catalog.feature_view(&name, None).unwrap().clone());
        Online { store: services.online().await.unwrap(), id: services.online_view(&view), view }
    }

    async fn put_online(&self, online: bool) {
        put_online(self.engine.services(), "v", None, online).await;
    }

    /// MATERIALIZE through another store than the warehouse's.
    async fn materialize_through(&self, store: Arc<dyn OnlineStore>, extent: Extent) -> crate::error::Result<u64> {
        let view = self.online().await.view;
        let cx = self.engine.services().session.task_ctx();
        let mut job = Job::new(self.engine.services(), &view, &cx).await?;
        job.online = store;
        job.bring_up(extent, &|_| ()).await
    }

    async fn sweep(&self) -> garbage_collection::Collected {
        garbage_collection::pass(self.engine.services(), &|| false).await.unwrap()
    }
}

impl Online {
    async fn pointer(&self) -> Pointer {
        self.store.pointer(&self.id).await.unwrap().unwrap()
    }

    /// Key and row as stored, by the keys' order.
    async fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let page = self.store.scan_rows(&self.id, self.pointer().await.generation, None).await.unwrap();
        assert_eq!(page.next, None);
        let mut rows: Vec<_> = page.rows.into_iter().map(|(k, r)| (k, r.to_vec())).collect();
        rows.sort();
        rows
    }

    /// Stores a row whatever is there.
    async fn store_blindly(&self, key: &[u8], row: &[u8]) {
        let put = PutRow { key: key.to_vec(), row: row.to_vec(), kind: PutKind::Offer, expire_at: None };
        self.store.load(&self.id, self.pointer().await.generation, vec![put]).await.unwrap();
    }
}

async fn in_place_needs_rows_to_replace(place: fn() -> Place) {
    let w = world(place(), "").await;
    w.insert(&[(1, T0 - 10, 10)]).await;
    w.run("ALTER FEATURE VIEW v SET ONLINE").await;
    let e = w.error("MATERIALIZE FEATURE VIEW v IN PLACE").await;
    assert_eq!((e.kind(), e.hint()), (Kind::Invalid, Some("MATERIALIZE FEATURE VIEW public.v@v1")), "{e}");
    w.materialize("").await;
    let v = w.online().await;
    let p = v.pointer().await;
    for other in [Pointer { schema_id: p.schema_id + 1, ..p.clone() }, Pointer { view_version: 9, ..p.clone() }] {
        assert!(v.store.publish(&v.id, Some(p.generation), &other, None).await.unwrap());
        let e = w.error("MATERIALIZE FEATURE VIEW v IN PLACE").await;
        assert_eq!((e.kind(), e.hint()), (Kind::Invalid, Some("MATERIALIZE FEATURE VIEW public.v@v1 FULL")), "{e}");
    }
    assert!(v.store.publish(&v.id, Some(p.generation), &p, None).await.unwrap());
    assert!(v.store.advance_watermark(&v.id, p.generation, v.store.watermark(&v.id, p.generation).await.unwrap(), 999).await.unwrap());
    let e = w.error("MATERIALIZE FEATURE VIEW v IN PLACE").await;
    assert_eq!((e.kind(), e.hint()), (Kind::Invalid, Some("MATERIALIZE FEATURE VIEW public.v@v1 FULL")), "{e}");
    w.materialize("FULL").await;
    w.materialize("IN PLACE").await;
    assert_eq!(w.look("1").await, ["10|PRESENT"]);
}

async fn in_place_repairs_what_is_served(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10), (2, T0 - 10, 20), (3, T0 - 10, 30), (4, T0 - 10, 40)]).await;
    w.run("DELETE FROM v WHERE k = 4").await;
    let v = w.online().await;
    let before = v.rows().await;
    let (generation, rows) = (v.pointer().await.generation, before.len());
    assert_eq!(rows, 4, "a tombstone is a row");
    // too short, a wrong value, another codec, and rows of keys that the table does not have
    v.store_blindly(&before[0].0, &before[0].1[..20]).await;
    v.store_blindly(&before[1].0, &before[2].1).await;
    let mut strange = before[2].1.clone();
    strange[32] = 99;
    v.store_blindly(&before[2].0, &strange).await;
    v.store_blindly(&before[3].0, &before[1].1).await;
    let unknown = [&before[3].0[..before[3].0.len() - 1], &[99]].concat();
    v.store_blindly(&unknown, &before[0].1[..20]).await;
    assert_eq!(w.error("SELECT x FROM ONLINE_LOOKUP('v', 1)").await.kind(), Kind::Internal);
    assert_eq!(w.look("2, 4").await, ["30|PRESENT", "20|PRESENT"]);

    // three keys and two graves
    assert_eq!(w.materialize("IN PLACE").await, 5);
    assert!(w.session.notices().iter().any(|n| n.message.contains("not atomic")), "{:?}", w.session.notices());
    assert_eq!(w.look("1, 2, 3, 4").await, ["10|PRESENT", "20|PRESENT", "30|PRESENT", "NULL|NOT_FOUND"]);
    let keys = vec![unknown.as_slice()];
    let found = v.store.get_batch(&[KeysOf { view: &v.id, keys }]).await.unwrap().remove(0).rows.remove(0).unwrap();
    assert!(crate::model::codec::Row::parse(&found).unwrap().tombstone);
    assert_eq!((v.pointer().await.generation, v.pointer().await.rows), (generation, 3));
    // what comes later goes on from there
    w.insert(&[(1, T0 - 20, 9), (2, T0 - 5, 21), (4, T0 - 50, 41)]).await;
    w.run("DELETE FROM v WHERE k = 3").await;
    assert_eq!(w.look("1, 2, 3, 4").await, ["10|PRESENT", "21|PRESENT", "NULL|NOT_FOUND", "41|PRESENT"]);
    assert_eq!(w.materialize("").await, 0);
}

async fn in_place_knows_longer_ttls_and_rows_of_the_future(place: fn() -> Place) {
    let w = world(place(), "ONLINE TTL INTERVAL '1 hour'").await;
    w.insert(&[(1, T0 - 2 * HOUR, 1), (2, T0 - 1, 2), (2, T0 + MINUTE, 3)]).await;
    w.run("ALTER FEATURE VIEW v SET TTL INTERVAL '3 hours'").await;
    w.materialize("IN PLACE").await;
    let v = w.online().await;
    assert_eq!(v.pointer().await.ttl, Some(3 * HOUR));
    assert_eq!(w.generations().await.0.len(), 1, "no second generation");
    assert_eq!(w.look("1, 2").await, ["1|PRESENT", "2|PRESENT"]);
    w.clock.set(T0 + 2 * MINUTE);
    w.materialize("").await;
    assert_eq!(w.look("1, 2").await, ["1|PRESENT", "3|PRESENT"]);
}

async fn a_store_that_loses_rows_is_not_switched_to(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10), (2, T0 - 10, 20)]).await;
    let (generations, v) = (w.generations().await, w.online().await);
    let loses: fn(&mut Vec<PutRow>) = |rows| drop(rows.pop());
    let changes: fn(&mut Vec<PutRow>) = |rows| *rows[0].row.last_mut().unwrap() ^= 1;
    for (spoil, key, says) in [(loses, "2", "has lost"), (changes, "1", "other bytes")] {
        let spoilt = Meddler::spoiling(Arc::clone(&v.store), spoil);
        let e = w.materialize_through(spoilt, Extent::Full).await.unwrap_err();
        assert!(e.kind() == Kind::Unavailable && e.message().contains(says) && e.message().contains(&format!("key ({key})")), "{e}");
        assert!(e.message().contains(&v.store.describe()) && e.hint().is_some(), "{e}");
        assert_eq!(w.generations().await, generations, "nothing is left of it");
        assert_eq!(w.look("1, 2").await, ["10|PRESENT", "20|PRESENT"]);
    }
    w.materialize("FULL").await;
}

async fn old_generations_and_given_up_loads_are_swept(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10)]).await;
    w.materialize("FULL").await;
    let (both, current) = w.generations().await;
    assert_eq!((w.sweep().await.generations, both.len()), (0, 2), "it may still be read");
    w.clock.advance(2 * MINUTE);
    assert_eq!(w.sweep().await, garbage_collection::Collected { generations: 1, ..Default::default() });
    assert_eq!(w.generations().await, (vec![current], current));

    let v = w.online().await;
    let begun = v.store.begin_generation(&v.id).await.unwrap();
    let (key, row) = v.rows().await.remove(0);
    let row = PutRow { key, row, kind: PutKind::Offer, expire_at: None };
    v.store.load(&v.id, begun, vec![row.clone()]).await.unwrap();
    let offline = &w.engine.services().store;
    let lease = offline.acquire_lease(&load_lease(&v.id), "a loader", HOUR).await.unwrap().unwrap();
    assert_eq!(w.sweep().await.generations, 0, "somebody loads it");
    lease.release().await.unwrap();
    assert_eq!(w.sweep().await.generations, 1);
    assert_eq!(w.generations().await, (vec![current], current));
    assert_eq!(v.store.load(&v.id, begun, vec![row]).await.unwrap_err().kind(), Kind::Conflict, "a loader that slept");
    assert_eq!(w.look("1").await, ["10|PRESENT"]);
    assert_eq!(w.sweep().await, garbage_collection::Collected::default());
}

async fn rows_of_dropped_views_are_swept(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    w.run("CREATE FEATURE VIEW u (x BIGINT) ENTITY e EVENT TIMESTAMP ts ONLINE").await;
    w.insert(&[(1, T0 - 10, 10)]).await;
    w.run("INSERT INTO u VALUES (1, '2099-12-31', 1)").await;
    let (v, u) = (w.online().await, w.online_of("u").await);
    let services = w.engine.services();
    let views = || async { u.store.views(services.store.warehouse_id()).await.unwrap() };
    assert_eq!(views().await, [v.id.online_id, u.id.online_id]);
    // a process that ended right after it changed the catalog
    services.registry.commit(None, |_| Ok((vec![CatalogChange::DropFeatureView(u.view.name.clone())], ()))).await.unwrap();
    assert_eq!(w.sweep().await, garbage_collection::Collected { views: 1, ..Default::default() });
    assert_eq!(views().await, [v.id.online_id]);
    assert_eq!(u.store.pointer(&u.id).await.unwrap(), None);
    assert_eq!(u.store.generations(&u.id).await.unwrap(), Vec::<u32>::new());
    assert_eq!(w.look("1").await, ["10|PRESENT"]);
    assert_eq!(w.sweep().await, garbage_collection::Collected::default());

    // a loader with an old catalog makes it anew; DROP and MATERIALIZE of others look after that, too
    for statement in ["MATERIALIZE FEATURE VIEW v", "DROP FEATURE VIEW v"] {
        u.store.begin_generation(&u.id).await.unwrap();
        w.run(statement).await;
        assert!(!views().await.contains(&u.id.online_id), "{statement}");
    }
    assert_eq!(views().await, Vec::<u32>::new());
}

async fn what_is_set_offline_goes_and_never_comes_back(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10), (2, T0 - 10, 20)]).await;
    let old = w.online().await;
    let views = || async { old.store.views(w.engine.services().store.warehouse_id()).await.unwrap() };
    w.run("ALTER FEATURE VIEW v SET OFFLINE").await;
    assert_eq!(views().await, Vec::<u32>::new());
    // a statement with an old catalog brings rows under the old id
    let cx = w.engine.services().session.task_ctx();
    crate::job::materialize::apply(w.engine.services(), &old.view, &cx).await.unwrap();
    assert_eq!(views().await, [old.id.online_id]);
    w.run("DELETE FROM v WHERE k = 1").await;
    w.insert(&[(2, T0 - 5, 21)]).await;
    w.run("ALTER FEATURE VIEW v SET ONLINE").await;
    let new = w.online().await;
    assert!(new.id.online_id > old.id.online_id);
    assert_eq!(new.store.pointer(&new.id).await.unwrap(), None, "nothing is served before it is loaded");
    crate::job::materialize::apply(w.engine.services(), &old.view, &cx).await.unwrap();
    let catalog = w.engine.services().registry.snapshot().await.unwrap();
    assert!(!catalog.feature_view_series(&new.view.name).unwrap().materialized.contains(&1), "what nobody reads marks nothing");
    assert_eq!(w.sweep().await, garbage_collection::Collected { views: 1, ..Default::default() });
    assert_eq!(views().await, Vec::<u32>::new());
    w.run("MATERIALIZE FEATURE VIEW v").await;
    assert_eq!(w.look("1, 2").await, ["NULL|NOT_FOUND", "21|PRESENT"]);
    assert_eq!(views().await, [new.id.online_id]);
    // what an older binary left behind a view that it set OFFLINE
    w.put_online(false).await;
    assert_eq!(w.sweep().await, garbage_collection::Collected { views: 1, ..Default::default() });
    // an id is taken once, and never twice
    w.run("CREATE FEATURE VIEW u (x BIGINT) ENTITY e EVENT TIMESTAMP ts ONLINE").await;
    assert!(w.online_of("u").await.id.online_id > new.id.online_id);
}

async fn what_has_come_due_is_applied_by_a_server(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    w.insert(&[(1, T0 - 5, 1), (1, T0 + MINUTE, 2), (2, T0 + MINUTE, 3)]).await;
    assert_eq!(w.sweep().await.applied, 0);
    w.clock.set(T0 + 2 * MINUTE);
    assert_eq!(w.look("1, 2").await, ["1|PRESENT", "NULL|NOT_FOUND"]);
    assert_eq!(w.sweep().await.applied, 1);
    assert_eq!(w.look("1, 2").await, ["2|PRESENT", "3|PRESENT"]);
    assert_eq!(w.sweep().await.applied, 0);
    // of a view with a query only MATERIALIZE says what is online
    w.run("CREATE TABLE src AS SELECT * FROM (VALUES (1, TIMESTAMP '2099-12-31', 7)) AS t(k, ts, x)").await;
    w.run("CREATE FEATURE VIEW q ENTITY e EVENT TIMESTAMP ts ONLINE AS SELECT k, ts, x FROM src").await;
    w.run("REFRESH FEATURE VIEW q").await;
    w.run("MATERIALIZE FEATURE VIEW q").await;
    w.run("INSERT OVERWRITE src VALUES (1, '2099-12-31', 8)").await;
    w.run("REFRESH FEATURE VIEW q FULL").await;
    assert_eq!(w.sweep().await.applied, 0);
    assert_eq!(w.run("SELECT x FROM ONLINE_LOOKUP('q', 1)").await, ["7"]);
}

/// What is acknowledged while a generation is filled goes on being served, though it was not due when that began.
async fn a_switch_does_not_go_back_behind_what_came_due(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10), (2, T0 + MINUTE, 20)]).await;
    let (v, session, clock) = (w.online().await, w.engine.session(), w.clock.clone());
    let act = async move {
        clock.set(T0 + 2 * MINUTE);
        let at = format_micros(T0 + 2 * MINUTE);
        session.execute(&format!("INSERT INTO v (k, ts, x) VALUES (1, TIMESTAMP '{at}', 11), (3, TIMESTAMP '{at}', 30)")).await.unwrap();
    };
    let store = Meddler::acting(v.store, Moment::BeforeLoad, act);
    let loaded = w.materialize_through(store, Extent::Full).await.unwrap();
    let newest = w.engine.services().store.snapshot(&v.view.location, None).await.unwrap().version();
    assert_eq!(loaded, newest);
    assert_eq!(w.look("1, 2, 3").await, ["11|PRESENT", "20|PRESENT", "30|PRESENT"]);
    assert_eq!(w.materialize("").await, 0);
}

/// The version of the table stays the same, the clock goes on: then what came due meanwhile has the same version as the
/// older rows that are loaded already.
async fn what_comes_due_while_it_is_loaded_is_loaded(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10), (1, T0 + MINUTE, 11), (2, T0 + MINUTE, 20)]).await;
    let (v, clock) = (w.online().await, w.clock.clone());
    let act = async move { clock.set(T0 + 2 * MINUTE) };
    w.materialize_through(Meddler::acting(v.store, Moment::BeforeLoad, act), Extent::Full).await.unwrap();
    assert_eq!(w.look("1, 2").await, ["11|PRESENT", "20|PRESENT"]);
}

/// Equal rows may get other numbers, and with them another of two that tie is the newest.
async fn ties_that_are_numbered_anew_are_served_as_they_are_joined(place: fn() -> Place) {
    let w = world(place(), "ONLINE").await;
    let agree = async |what: &str, view: &str, want: &str| {
        let online = w.run(&format!("SELECT k, x FROM ONLINE_LOOKUP('{view}', 1, 2)")).await;
        let labels = format!("(SELECT column1 AS k, TIMESTAMP '{}' AS at FROM (VALUES (1), (2)))", format_micros(T0));
        let offline = w.run(&format!("SELECT l.k, f.x FROM {labels} l ASOF JOIN {view} f AT l.at ORDER BY l.k")).await;
        assert_eq!((online.clone(), online[0].as_str()), (offline, want), "{what}");
    };
    // by a full refresh, which numbers ties by their values
    w.run("CREATE TABLE src AS SELECT * FROM (VALUES (1, TIMESTAMP '2099-12-31', 2), (2, TIMESTAMP '2099-12-31', 7)) AS t(k, ts, x)").await;
    w.run("CREATE FEATURE VIEW q ENTITY e EVENT TIMESTAMP ts ONLINE AS SELECT k, ts, x FROM src").await;
    w.run("REFRESH FEATURE VIEW q").await;
    w.run("MATERIALIZE FEATURE VIEW q").await;
    w.run("INSERT INTO src VALUES (1, '2099-12-31', 1)").await;
    w.run("REFRESH FEATURE VIEW q").await;
    w.run("MATERIALIZE FEATURE VIEW q").await;
    agree("the later one", "q", "1|1").await;
    w.run("REFRESH FEATURE VIEW q FULL").await;
    w.run("MATERIALIZE FEATURE VIEW q").await;
    agree("the greater one", "q", "1|2").await;
    // by a row that is deleted and inserted again, seen as one range
    w.insert(&[(1, T0 - 10, 2)]).await;
    w.insert(&[(1, T0 - 10, 1)]).await;
    agree("the later one", "v", "1|1").await;
    w.put_online(false).await;
    w.run("DELETE FROM v WHERE x = 2").await;
    w.insert(&[(1, T0 - 10, 2)]).await;
    w.put_online(true).await;
    w.run("MATERIALIZE FEATURE VIEW v").await;
    agree("the one inserted again", "v", "1|2").await;
}

/// An INSERT does not wait for ever for what another process does.
async fn an_insert_does_not_wait_for_another_load(place: fn() -> Place) {
    let (dir, place, clock) = (tempfile::tempdir().unwrap(), place(), Clock::fixed(T0));
    let mut config = Config { warehouse: dir.path().join("w").display().to_string(), online: place.url.clone(), ..Default::default() };
    config.online_settings.timeout = SECOND;
    let engine = Engine::open(config, clock.clone()).await.unwrap();
    let w = World { session: engine.session(), engine, clock, place, dir };
    w.run("CREATE ENTITY e KEY (k BIGINT)").await;
    w.run("CREATE FEATURE VIEW v (x BIGINT, y VARCHAR) ENTITY e EVENT TIMESTAMP ts ONLINE").await;
    let v = w.online().await;
    let lease = w.engine.services().store.acquire_lease(&load_lease(&v.id), "host-7", HOUR).await.unwrap().unwrap();
    let e = w.error("INSERT INTO v (k, ts, x) VALUES (1, '2099-12-31', 11)").await;
    assert!(e.kind() == Kind::Unavailable && e.message().contains("not yet online") && e.message().contains("host-7"), "{e}");
    assert_eq!(w.run("SELECT count(*) FROM v").await, ["1"], "it is stored");
    lease.release().await.unwrap();
    w.materialize("").await;
    assert_eq!(w.look("1").await, ["11|PRESENT"]);
}

on_every_store!(
    a_switch_does_not_go_back_behind_what_came_due,
    what_comes_due_while_it_is_loaded_is_loaded,
    ties_that_are_numbered_anew_are_served_as_they_are_joined,
    an_insert_does_not_wait_for_another_load,
    in_place_needs_rows_to_replace,
    in_place_repairs_what_is_served,
    in_place_knows_longer_ttls_and_rows_of_the_future,
    a_store_that_loses_rows_is_not_switched_to,
    old_generations_and_given_up_loads_are_swept,
    rows_of_dropped_views_are_swept,
    what_is_set_offline_goes_and_never_comes_back,
    what_has_come_due_is_applied_by_a_server,
);

/// What another process commits between the last look of a full load at the table and its switch.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_right_before_the_switch_is_served_right_after_it() {
    let w = world(Place::redis(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10), (2, T0 - 10, 20)]).await;
    let (v, first) = (w.online().await, w.generations().await.1);
    let other = open(&w.dir, &w.place, &w.clock).await.session();
    let act = async move {
        other.execute("INSERT INTO v (k, ts, x) VALUES (1, '2099-12-31 23:59:59.999999', 11), (3, '2099-12-31', 30)").await.unwrap();
        other.execute("DELETE FROM v WHERE k = 2").await.unwrap();
    };
    let (reader, seen) = (open(&w.dir, &w.place, &w.clock).await, Arc::new(Mutex::new(vec![])));
    let look = {
        let (session, seen) = (reader.session(), Arc::clone(&seen));
        async move {
            let rows = session.execute("SELECT x FROM ONLINE_LOOKUP('v', 1, 2, 3)").await.unwrap();
            let Outcome::Rows(rows) = rows else { panic!("no rows") };
            *seen.lock() = rows.try_collect::<Vec<_>>().await.unwrap();
        }
    };
    let acts: Vec<(Moment, super::meddler::Act)> = vec![(Moment::BeforePublish, Box::pin(act)), (Moment::AfterPublish, Box::pin(look))];
    w.materialize_through(Meddler::acting_twice(v.store, acts), Extent::Full).await.unwrap();
    assert!(w.generations().await.1 > first);
    assert_eq!(w.look("1, 2, 3").await, ["11|PRESENT", "NULL|NOT_FOUND", "30|PRESENT"]);
    // no round later: the switch itself was put off
    let at_once: Vec<_> = seen.lock().iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect();
    assert_eq!(at_once, [Some(11), None, Some(30)]);
}

/// What another process stored and serves before IN PLACE begins, by a clock that went on while that waited.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_does_not_bury_what_came_due_while_it_waited() {
    let w = world(Place::redis(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10)]).await;
    let (v, clock) = (w.online().await, w.clock.clone());
    let other = open(&w.dir, &w.place, &w.clock).await.session();
    let act = async move {
        clock.set(T0 + 2 * MINUTE);
        let at = format_micros(T0 + MINUTE);
        other.execute(&format!("INSERT INTO v (k, ts, x) VALUES (1, TIMESTAMP '{at}', 11), (3, TIMESTAMP '{at}', 30)")).await.unwrap();
    };
    w.materialize_through(Meddler::acting(Arc::clone(&v.store), Moment::BeforePointer, act), Extent::InPlace).await.unwrap();
    assert_eq!(w.look("1, 3").await, ["11|PRESENT", "30|PRESENT"]);

    // by a clock that is ahead of ours: nothing is written, nothing lost
    let ahead = Clock::fixed(T0 + 4 * MINUTE);
    let other = open(&w.dir, &w.place, &ahead).await.session();
    let at = format_micros(T0 + 4 * MINUTE);
    other.execute(&format!("INSERT INTO v (k, ts, x) VALUES (1, TIMESTAMP '{at}', 12)")).await.unwrap();
    let before = v.rows().await;
    let e = w.error("MATERIALIZE FEATURE VIEW v IN PLACE").await;
    assert!(e.kind() == Kind::Conflict && e.message().contains("nothing was written"), "{e}");
    assert_eq!(v.rows().await, before);
    w.clock.set(T0 + 4 * MINUTE);
    assert_eq!(w.look("1, 3").await, ["12|PRESENT", "30|PRESENT"]);
}

/// A file that a machine left behind when it lost power, and one that is damaged: they go like others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_of_generations_do_not_hold_up_the_others() {
    let w = world(Place::embedded(), "ONLINE").await;
    w.run("CREATE FEATURE VIEW u (x BIGINT) ENTITY e EVENT TIMESTAMP ts ONLINE").await;
    w.insert(&[(1, T0 - 10, 10)]).await;
    w.run("INSERT INTO u VALUES (1, '2099-12-31', 1)").await;
    w.materialize("FULL").await;
    let (v, (both, current)) = (w.online().await, w.generations().await);
    let dir = w.dir.path().join("w/_online").join(v.id.online_id.to_string());
    let old = both[0];
    std::fs::write(dir.join(format!("{old}.redb")), vec![7; 5000]).unwrap();
    for (name, bytes) in [(current + 1, vec![]), (current + 2, vec![0; 4096])] {
        std::fs::write(dir.join(format!("{name}.redb")), bytes).unwrap();
    }
    w.clock.advance(2 * MINUTE);
    assert_eq!(w.sweep().await.generations, 3);
    assert_eq!(w.generations().await, (vec![current], current));
    // also of the view that is dropped, whatever state its file is in
    std::fs::write(dir.join(format!("{current}.redb")), vec![0; 4096]).unwrap();
    let e = w.error("SELECT x FROM ONLINE_LOOKUP('v', 1)").await;
    assert!(e.message().contains(&format!("{current}.redb")), "{e}");
    assert_eq!(w.run("SELECT x FROM ONLINE_LOOKUP('u', 1)").await, ["1"]);
    w.run("DROP FEATURE VIEW v").await;
    assert!(!dir.exists());
}

/// What another process commits while rows are written over in place, and a full load that overtakes that.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_leaves_what_others_store_meanwhile() {
    let w = world(Place::redis(), "ONLINE").await;
    w.insert(&[(1, T0 - 10, 10), (2, T0 - 10, 20)]).await;
    let (v, first) = (w.online().await, w.generations().await.1);
    let other = open(&w.dir, &w.place, &w.clock).await.session();
    let again = other.clone();
    let act = async move {
        other.execute("INSERT INTO v (k, ts, x) VALUES (1, '2099-12-31 23:59:59.999999', 11), (3, '2099-12-31', 30)").await.unwrap();
        other.execute("DELETE FROM v WHERE k = 2").await.unwrap();
    };
    w.materialize_through(Meddler::acting(Arc::clone(&v.store), Moment::BeforeScan, act), Extent::InPlace).await.unwrap();
    assert_eq!(w.generations().await.1, first);
    assert_eq!(w.look("1, 2, 3").await, ["11|PRESENT", "NULL|NOT_FOUND", "30|PRESENT"]);

    let act = async move {
        again.execute("MATERIALIZE FEATURE VIEW v FULL").await.unwrap();
    };
    w.materialize_through(Meddler::acting(v.store, Moment::BeforeScan, act), Extent::InPlace).await.unwrap();
    assert!(w.generations().await.1 > first);
    assert_eq!(w.look("1, 2, 3").await, ["11|PRESENT", "NULL|NOT_FOUND", "30|PRESENT"]);
}

#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<String>>>);

impl ProgressSink for Shown {
    fn start(&self, name: &str, _total: Option<u64>) -> Box<dyn ProgressBar> {
        self.0.lock().push(name.into());
        Box::new(self.clone())
    }
}

impl ProgressBar for Shown {
    fn advance(&self, _by: u64) {}
}

impl Shown {
    async fn wait_for(&self, what: &str) {
        while !self.0.lock().iter().any(|s| s.contains(what)) {
            crate::clock::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_wait_for_their_turn_and_say_so() {
    let (dir, place, clock, shown) = (tempfile::tempdir().unwrap(), Place::embedded(), Clock::fixed(T0), Shown::default());
    let config = Config { warehouse: dir.path().join("w").display().to_string(), ..Default::default() };
    let engine = Engine::open_with(config, clock.clone(), Progress::new(Arc::new(shown.clone()))).await.unwrap();
    let w = World { session: engine.session(), engine, clock, place, dir };
    w.run("CREATE ENTITY e KEY (k BIGINT)").await;
    w.run("CREATE FEATURE VIEW v (x BIGINT, y VARCHAR) ENTITY e EVENT TIMESTAMP ts ONLINE").await;
    w.insert(&[(1, T0 - 10, 10)]).await;
    let (services, v) = (w.engine.services(), w.online().await);
    let full = || {
        let session = w.engine.session();
        tokio::spawn(async move { session.execute("MATERIALIZE FEATURE VIEW v FULL").await.map(|_| ()) })
    };

    let lease = services.store.acquire_lease(&load_lease(&v.id), "host-7", HOUR).await.unwrap().unwrap();
    let task = full();
    shown.wait_for("waiting for host-7").await;
    assert_eq!(w.generations().await.0.len(), 1, "it has begun nothing");
    lease.release().await.unwrap();
    task.await.unwrap().unwrap();
    assert_eq!(w.generations().await.0.len(), 2);

    let turns = services.loads.acquire_many(services.config.online_settings.concurrent_loads as u32).await.unwrap();
    let task = full();
    shown.wait_for("waiting for other loads").await;
    drop(turns);
    task.await.unwrap().unwrap();
    assert_eq!(w.look("1").await, ["10|PRESENT"]);
}

/// Who only wanted the rows online is content with what somebody else has loaded.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_another_process_has_done_is_not_done_again() {
    let w = world(Place::redis(), "").await;
    w.insert(&[(1, T0 - 10, 10)]).await;
    w.put_online(true).await;
    let shown = Shown::default();
    let config = Config { warehouse: w.dir.path().join("w").display().to_string(), online: w.place.url.clone(), ..Default::default() };
    let other = Engine::open_with(config, w.clock.clone(), Progress::new(Arc::new(shown.clone()))).await.unwrap().session();
    let v = w.online().await;
    let lease = w.engine.services().store.acquire_lease(&load_lease(&v.id), &new_id(), HOUR).await.unwrap().unwrap();
    let task = tokio::spawn(async move { other.execute("MATERIALIZE FEATURE VIEW v").await.map(|_| ()) });
    shown.wait_for("waiting for").await;
    // the holder of the lease is done, and goes on holding it
    let generation = v.store.begin_generation(&v.id).await.unwrap();
    assert!(v.store.advance_watermark(&v.id, generation, None, 0).await.unwrap());
    let schema_id = crate::model::codec::row_schema(&v.view).0;
    let pointer = Pointer { generation, schema_id, view_version: 1, delta_version: 0, rows: 0, published_at: T0, ttl: None };
    assert!(v.store.publish(&v.id, None, &pointer, None).await.unwrap());
    task.await.unwrap().unwrap();
    assert_eq!(w.generations().await, (vec![generation], generation));
    assert_eq!(w.look("1").await, ["10|PRESENT"], "only caught up with");
    drop(lease);
}
