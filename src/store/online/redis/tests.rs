//! What happens to a Redis store when servers move, fail, hang, or refuse.

use redis::{Commands, Connection};

use super::keys::RowKeys;
use super::map::slot;
use super::*;
use crate::clock::{SECOND, stopwatch};
use crate::config::RedisSettings;
use crate::error::Kind;
use crate::model::codec::Row;
use crate::store::online::conformance::{Place, key, offer, pointer, published, put, test_certificate, values, view, wait_for};
use crate::store::online::connect;

mod fake;

fn on(port: u16) -> Connection {
    redis::Client::open(("127.0.0.1", port)).unwrap().get_connection().unwrap()
}

async fn open(url: &str, settings: &OnlineSettings) -> Result<Arc<dyn OnlineStore>> {
    connect(url, None, settings, Clock::system()).await
}

/// Values, or the error of a store that is not ready.
async fn tried(store: &dyn OnlineStore, view: &OnlineView, keys: &[i64]) -> Option<usize> {
    let encoded: Vec<_> = keys.iter().map(|k| key(*k)).collect();
    match store.get_batch(&[KeysOf { view, keys: encoded.iter().map(|k| k.stored()).collect() }]).await {
        Ok(got) => Some(got[0].rows.iter().flatten().count()),
        Err(e) => {
            assert!(e.kind() == Kind::Unavailable, "{e}");
            None
        }
    }
}

/// Looks up until the store is ready again; every answer on the way has all keys.
async fn survives(store: &dyn OnlineStore, view: &OnlineView, keys: &[i64]) {
    for _ in 0..600 {
        match tried(store, view, keys).await {
            Some(found) => {
                assert_eq!(found, keys.len());
                return;
            }
            None => crate::clock::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
    panic!("the store does not come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_while_it_is_read_and_written() {
    let p = Place::cluster();
    let (store, v) = (p.open().await, view(1));
    let g = published(&*store, &v).await;
    let keys: Vec<i64> = (0..60).collect();
    put(&*store, &v, g, keys.iter().map(|k| offer(*k, 1, 1, 1, *k)).collect()).await;
    let expected: Vec<_> = keys.iter().map(|k| Some(*k)).collect();
    assert_eq!(values(&*store, &v, &keys).await, expected);

    // The slot of one row, from the server that has it to another primary.
    let mut names = RowKeys::new(&Keys::new(&v, true).generation(g));
    let moving = names.of(key(7).stored()).to_vec();
    let slot = slot(&moving);
    let from = [5460, 10922, 16383].iter().position(|last| slot <= *last).unwrap();
    let (source, target) = (&p.servers[from], &p.servers[(from + 1) % 3]);
    let (source_id, target_id) = (source.cli(&["CLUSTER", "MYID"]), target.cli(&["CLUSTER", "MYID"]));
    let number = slot.to_string();
    assert_eq!(target.cli(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &source_id]), "OK");
    assert_eq!(source.cli(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &target_id]), "OK");
    assert_eq!(values(&*store, &v, &keys).await, expected);

    // The row is gone from its server, which sends askers on.
    let mut migrate = cmd("MIGRATE");
    migrate.arg("127.0.0.1").arg(target.port).arg("").arg(0).arg(5000).arg("KEYS").arg(&moving);
    let moved: String = migrate.query(&mut on(source.port)).unwrap();
    assert_eq!(moved, "OK");
    assert_eq!(values(&*store, &v, &keys).await, expected, "ASK");
    // Over there the script is not known.
    target.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(put(&*store, &v, g, vec![offer(7, 2, 1, 2, 700), offer(8, 2, 1, 2, 800)]).await, (2, 0));
    assert_eq!(values(&*store, &v, &[7, 8]).await, [Some(700), Some(800)]);

    for server in [target, source] {
        assert_eq!(server.cli(&["CLUSTER", "SETSLOT", &number, "NODE", &target_id]), "OK");
    }
    assert_eq!(values(&*store, &v, &[7, 8, 9]).await, [Some(700), Some(800), Some(9)], "MOVED");
    // Later calls know, and handles that open now.
    let other = p.open().await;
    for _ in 0..3 {
        assert_eq!(values(&*store, &v, &[7]).await, [Some(700)]);
        assert_eq!(values(&*other, &v, &[7]).await, [Some(700)]);
    }
    assert_eq!(put(&*store, &v, g, vec![offer(7, 3, 1, 3, 701)]).await, (1, 0));
    assert_eq!(store.stats(&v, g).await.unwrap().0, 60);
    assert_eq!(store.drop_view(&v).await.unwrap(), 60);
    let left: usize = p.servers[..3].iter().map(|s| s.cli(&["DBSIZE"]).parse::<usize>().unwrap()).sum();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_of_a_cluster_dies() {
    let mut p = Place::cluster();
    let settings = OnlineSettings { timeout: SECOND, ..Default::default() };
    let (store, v) = (p.open_with(&settings).await, view(1));
    let g = store.begin_generation(&v).await.unwrap();
    let keys: Vec<i64> = (0..60).collect();
    store.load(&v, g, keys.iter().map(|k| offer(*k, 1, 1, 1, *k)).collect()).await.unwrap();
    // Publishing waits for the replicas: what is published outlives a server.
    assert!(store.publish(&v, None, &pointer(g), None).await.unwrap());
    assert_eq!(tried(&*store, &v, &keys).await, Some(60));
    p.servers[0].kill();
    wait_for("the failover", || p.servers[3].cli(&["ROLE"]).starts_with("master"));
    survives(&*store, &v, &keys).await;
    // The new primary has never seen the script.
    let rows = keys.iter().map(|k| offer(*k, 2, 1, 2, 100 + k)).collect();
    assert_eq!(put(&*store, &v, g, rows).await, (60, 0));
    assert_eq!(values(&*store, &v, &[0, 59]).await, [Some(100), Some(159)]);
    assert!(store.advance_watermark(&v, g, None, 2).await.unwrap());
    let warnings = store.check().await.unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let health = store.health().await.unwrap().unwrap();
    assert!(health.connected && health.used_memory > 0 && health.maxmemory == 0 && health.evicted_keys == 0, "{health:?}");
}

async fn fails_over(mut p: Place, hangs: bool) {
    let settings = OnlineSettings { timeout: SECOND, lookup_deadline: SECOND / 2, ..Default::default() };
    let (store, v) = (p.open_with(&settings).await, view(1));
    let g = published(&*store, &v).await;
    let keys: Vec<i64> = (0..20).collect();
    put(&*store, &v, g, keys.iter().map(|k| offer(*k, 1, 1, 1, *k)).collect()).await;
    let mut primary = on(p.servers[0].port);
    let _: () = primary.set("mark", 1).unwrap();
    let acknowledged: i64 = cmd("WAIT").arg(1).arg(5000).query(&mut primary).unwrap();
    assert_eq!(acknowledged, 1);
    match hangs {
        true => p.servers[0].pause(true),
        false => p.servers[0].kill(),
    }
    wait_for("the failover", || p.servers[1].cli(&["ROLE"]).starts_with("master"));
    survives(&*store, &v, &keys).await;
    assert_eq!(put(&*store, &v, g, vec![offer(1, 2, 1, 2, 100)]).await, (1, 0), "NOSCRIPT");
    assert_eq!(values(&*store, &v, &[0, 1]).await, [Some(0), Some(100)]);
    assert!(!store.publish(&v, None, &pointer(g), None).await.unwrap());
    // The old one comes back, and takes itself for a primary until Sentinels tell it otherwise.
    match hangs {
        true => p.servers[0].pause(false),
        false => p.servers[0].start(),
    }
    for n in 3..9 {
        assert_eq!(put(&*store, &v, g, vec![offer(1, n, 1, n as u64, 100 + n)]).await, (1, 0));
        assert_eq!(values(&*store, &v, &[0, 1]).await, [Some(0), Some(100 + n)]);
    }
    let direct = open(&format!("redis://127.0.0.1:{}", p.servers[1].port), &settings).await.unwrap();
    assert_eq!(values(&*direct, &v, &[0, 1]).await, [Some(0), Some(108)], "it is where the failover led");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_sentinels_watch_dies() {
    fails_over(Place::sentinel(), false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_sentinels_watch_hangs() {
    fails_over(Place::sentinel(), true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_of_a_hanging_server_end_in_time() {
    let p = Place::redis();
    let settings = OnlineSettings { lookup_deadline: SECOND / 5, timeout: 20 * SECOND, ..Default::default() };
    let (store, v) = (p.open_with(&settings).await, view(1));
    let g = published(&*store, &v).await;
    put(&*store, &v, g, vec![offer(1, 1, 1, 1, 1)]).await;
    assert_eq!(tried(&*store, &v, &[1]).await, Some(1));
    p.pause(true);
    let watch = stopwatch();
    for _ in 0..3 {
        assert_eq!(tried(&*store, &v, &[1]).await, None);
    }
    assert!(watch.elapsed() < std::time::Duration::from_secs(15));
    p.pause(false);
    survives(&*store, &v, &[1]).await;
}

#[tokio::test]
async fn lost_connections_are_made_anew_without_an_error() {
    let p = Place::redis();
    let (store, v) = (p.open().await, view(1));
    let g = published(&*store, &v).await;
    for n in 1..4 {
        p.servers[0].cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert_eq!(put(&*store, &v, g, vec![offer(1, n, 1, n as u64, n)]).await, (1, 0));
        p.servers[0].cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert_eq!(values(&*store, &v, &[1]).await, [Some(n)]);
        p.servers[0].cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert!(store.advance_watermark(&v, g, (n > 1).then_some(n as u64 - 1), n as u64).await.unwrap());
        p.servers[0].cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        let again = Pointer { rows: n as u64, ..pointer(g) };
        assert!(store.publish(&v, Some(g), &again, None).await.unwrap());
    }
}

#[tokio::test]
async fn figures_are_told_through_a_cache_too_and_by_nobody_who_is_gone() {
    let mut p = Place::redis();
    p.servers[0].cli(&["CONFIG", "SET", "maxmemory", "100mb"]);
    for cache_bytes in [0, 1 << 20] {
        let store = p.open_with(&OnlineSettings { cache_bytes, ..Default::default() }).await;
        let health = store.health().await.unwrap().unwrap();
        assert!(health.connected && health.used_memory > 0 && health.evicted_keys == 0, "{health:?}");
        assert_eq!(health.maxmemory, 100 << 20);
        p.stop();
        assert_eq!(store.health().await.unwrap(), Some(Health::default()));
        p.start();
        p.servers[0].cli(&["CONFIG", "SET", "maxmemory", "100mb"]);
    }
    assert_eq!(Place::embedded().open().await.health().await.unwrap(), None);
}

#[tokio::test]
async fn missing_rights_are_named() {
    let p = Place::redis();
    let (store, v) = (p.open().await, view(1));
    let g = published(&*store, &v).await;
    put(&*store, &v, g, vec![offer(1, 1, 1, 1, 1)]).await;
    let acl = |rule: &str| {
        let rule: Vec<&str> = ["ACL", "SETUSER"].into_iter().chain(rule.split(' ')).collect();
        assert_eq!(p.servers[0].cli(&rule), "OK");
    };
    let login = async |user: &str| {
        let url = p.url.replace("redis://", &format!("redis://{user}:s3cret@"));
        open(&url, &OnlineSettings::default()).await.unwrap()
    };
    // A model server needs no more than this.
    acl("reader on >s3cret ~remige:* +get +mget");
    let reader = login("reader").await;
    assert_eq!(values(&*reader, &v, &[1]).await, [Some(1)]);
    let warnings = reader.check().await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("+info"), "{warnings:?}");
    let e = reader.put(&v, g, vec![offer(1, 2, 1, 2, 2)]).await.unwrap_err();
    assert!(e.kind() == Kind::Denied && e.hint().unwrap().contains("+evalsha"), "{e}");
    assert!(!format!("{e} {e:?} {reader:?}").contains("s3cret"), "{e}");
    // One who may ask is told what is missing for more.
    acl("asker on >s3cret ~remige:* +get +mget +info +acl|whoami +acl|dryrun +set");
    let warnings = login("asker").await.check().await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("+unlink") && !warnings[0].contains("+set "), "{warnings:?}");
    // The wrong keys, within a script and without.
    acl("stranger on >s3cret ~other:* +@all");
    let stranger = login("stranger").await;
    for e in [stranger.check().await.unwrap_err(), stranger.put(&v, g, vec![offer(1, 2, 1, 2, 2)]).await.unwrap_err()] {
        assert!(e.kind() == Kind::Denied && e.hint().unwrap().contains("~remige:*"), "{e}");
    }
    // Writers do not need everything.
    acl(
        "writer on >s3cret ~remige:* +get +mget +info +set +mset +incr +sadd +srem +sismember +smembers +sunion +unlink +del +exists +strlen +scan +evalsha +script|load +ping",
    );
    let writer = login("writer").await;
    assert_eq!(writer.check().await.unwrap(), Vec::<String>::new());
    p.servers[0].cli(&["SCRIPT", "FLUSH"]);
    let next = writer.begin_generation(&v).await.unwrap();
    writer.load(&v, next, vec![offer(1, 1, 1, 1, 9)]).await.unwrap();
    assert_eq!(put(&*writer, &v, next, vec![offer(2, 1, 1, 1, 8)]).await, (1, 0));
    assert!(writer.publish(&v, Some(g), &pointer(next), None).await.unwrap());
    assert_eq!(writer.drop_generation(&v, g).await.unwrap(), 1);
    assert_eq!(values(&*reader, &v, &[1, 2]).await, [Some(9), Some(8)]);
    assert_eq!(writer.drop_view(&v).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_another_type_is_absent_or_damaged() {
    // MGET, which reads rows of one server, says nil of it
    for p in [Place::redis(), Place::cluster()] {
        let (store, v) = (p.open().await, view(1));
        let g = published(&*store, &v).await;
        put(&*store, &v, g, (1..5).map(|k| offer(k, 1, 1, 1, k)).collect()).await;
        let names = Keys::new(&v, p.servers.len() > 1);
        let put_list = |name: &[u8]| {
            let at = if p.servers.len() > 1 { [5460, 10922, 16383].iter().position(|last| slot(name) <= *last).unwrap() } else { 0 };
            let mut server = on(p.servers[at].port);
            let _: () = server.del(name).unwrap();
            let _: () = server.rpush(name, "x").unwrap();
        };
        put_list(RowKeys::new(&names.generation(g)).of(key(2).stored()));
        let keys: Vec<_> = [1, 2, 3, 9].map(key).to_vec();
        let stored: Vec<&[u8]> = keys.iter().map(|k| k.stored()).collect();
        let read = store.get_batch(&[KeysOf { view: &v, keys: stored.clone() }]).await.unwrap().remove(0).rows;
        for (rows, told) in [(read, p.servers.len() > 1), (store.peek(&v, g, &stored).await.unwrap(), true)] {
            let whole: Vec<_> = rows.iter().map(|r| r.as_ref().map(|r| Row::parse(r).map_err(|e| e.message().to_string()))).collect();
            let damaged = matches!(whole[1], Some(Err(_)));
            assert!(matches!(&whole[..], [Some(Ok(_)), _, Some(Ok(_)), None]) && damaged == told, "{whole:?}");
        }
        assert_eq!(store.stats(&v, g).await.unwrap().0, 4);
        // It is no row: what comes replaces it.
        assert_eq!(put(&*store, &v, g, vec![offer(2, 1, 1, 1, 20)]).await, (1, 0));
        assert_eq!(values(&*store, &v, &[1, 2]).await, [Some(1), Some(20)]);

        put_list(names.pointer().as_bytes());
        let e = store.pointer(&v).await.unwrap_err();
        assert!(e.message().contains("under a name of ours") && e.hint().unwrap().contains("MATERIALIZE FEATURE VIEW … FULL"), "{e}");
        let e = store.get_batch(&[KeysOf { view: &v, keys: stored }]).await.unwrap_err();
        assert!(e.message().contains("pointer of view 1") && e.message().contains("damaged"), "{e}");
    }
}

#[tokio::test]
async fn a_damaged_pointer_says_how_to_repair_it() {
    let p = Place::redis();
    let (store, v) = (p.open().await, view(1));
    let g = published(&*store, &v).await;
    put(&*store, &v, g, vec![offer(1, 1, 1, 1, 1)]).await;
    let name = Keys::new(&v, false).pointer();
    p.servers[0].cli(&["SET", &name, "{]"]);
    let k = key(1);
    let read = store.get_batch(&[KeysOf { view: &v, keys: vec![k.stored()] }]).await;
    for e in [read.unwrap_err(), store.pointer(&v).await.unwrap_err()] {
        assert!(e.message().contains("damaged"), "{e}");
        let hint = e.hint().unwrap();
        assert!(hint.contains(&format!("DEL {name}")) && hint.contains("MATERIALIZE FEATURE VIEW … FULL"), "{e}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_checked_on_both_sides() {
    let p = Place::tls("yes");
    let (cert, key) = test_certificate();
    let ours = RedisSettings { tls_ca: Some(cert.clone()), tls_cert: Some(cert.clone()), tls_key: Some(key.clone()), ..Default::default() };
    let with = |redis: RedisSettings| OnlineSettings { timeout: 2 * SECOND, redis, ..Default::default() };
    let settings = with(ours.clone());
    let store = open(&p.url, &settings).await.unwrap();
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    published(&*store, &view(1)).await;
    let refused = async |url: &str, settings: OnlineSettings| open(url, &settings).await.unwrap().check().await.unwrap_err();
    // Ours is missing; theirs is not believed; it is for another name; no TLS at all on either side.
    let e = refused(&p.url, with(RedisSettings { tls_cert: None, tls_key: None, ..ours.clone() })).await;
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
    let e = refused(&p.url, with(RedisSettings { tls_ca: None, ..ours.clone() })).await;
    assert!(e.kind() == Kind::Unavailable && e.hint().unwrap().contains("online_settings.tls_ca"), "{e}");
    let e = refused(&p.url.replace("localhost", "127.0.0.1"), settings.clone()).await;
    assert!(e.kind() == Kind::Unavailable && e.message().contains("127.0.0.1"), "{e}");
    let e = refused(&p.url.replace("rediss", "redis"), OnlineSettings { timeout: SECOND, ..Default::default() }).await;
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
    let plain = Place::redis();
    let e = refused(&plain.url.replace("redis://127.0.0.1", "rediss://localhost"), settings.clone()).await;
    assert!(e.kind() == Kind::Unavailable && e.hint().unwrap().contains("TLS"), "{e}");
    // Settings that cannot be.
    let wrong = async |url: &str, settings: OnlineSettings| open(url, &settings).await.unwrap_err();
    let e = wrong(&p.url, with(RedisSettings { tls_ca: Some("/nowhere/ca.crt".into()), ..ours.clone() })).await;
    assert!(e.message().contains("online_settings.tls_ca") && e.message().contains("/nowhere/ca.crt"), "{e}");
    let e = wrong(&p.url, with(RedisSettings { tls_key: Some(cert.clone()), ..ours.clone() })).await;
    assert!(e.kind() == Kind::Invalid && e.hint().unwrap().contains("PEM"), "{e}");
    let e = wrong(&p.url, with(RedisSettings { tls_key: None, ..ours.clone() })).await;
    assert!(e.kind() == Kind::Invalid && e.hint().unwrap().contains("tls_key"), "{e}");
    let e = wrong(&plain.url, settings).await;
    assert!(e.kind() == Kind::Invalid && e.hint().unwrap().contains("rediss"), "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_of_another_shape_is_told_from_a_server_that_is_down() {
    let settings = OnlineSettings::default();
    let told = async |url: String| open(&url, &settings).await.unwrap().pointer(&view(1)).await.unwrap_err();
    let (plain, cluster, sentinel) = (Place::redis(), Place::cluster(), Place::sentinel());
    let host = |p: &Place, n: usize| format!("127.0.0.1:{}", p.servers[n].port);
    for (url, kind, says, hint) in [
        (format!("redis+cluster://{}", host(&plain, 0)), Kind::Invalid, "not part of a cluster", "redis://"),
        (format!("redis+sentinel://{}/svc", host(&plain, 0)), Kind::Invalid, "no Sentinel", "26379"),
        (sentinel.url.replace("/svc", "/other"), Kind::Invalid, "knows no service \"other\"", "service"),
        (format!("redis://{}", host(&sentinel, 1)), Kind::Unavailable, "is a replica", "redis+sentinel"),
        ("redis+cluster://127.0.0.1:1,127.0.0.1:2".into(), Kind::Unavailable, "cannot reach", "runs"),
        ("redis+sentinel://127.0.0.1:1/svc".into(), Kind::Unavailable, "cannot reach", "runs"),
    ] {
        let e = match says {
            "is a replica" => open(&url, &settings).await.unwrap().begin_generation(&view(1)).await.unwrap_err(),
            _ => told(url.clone()).await,
        };
        assert!(e.kind() == kind && e.message().contains(says) && e.hint().unwrap().contains(hint), "{url}: {e}");
    }
    // Of three views at least one pointer is on another server than the one that is asked.
    let one = open(&format!("redis://{}", host(&cluster, 0)), &settings).await.unwrap();
    let mut errors = vec![];
    for n in 1..12 {
        errors.extend(one.pointer(&view(n)).await.err());
    }
    let e = errors.first().unwrap();
    assert!(e.kind() == Kind::Invalid && e.hint().unwrap().contains("redis+cluster"), "{e}");
    // Sentinels with users of their own.
    let with = async |password: &str| {
        let url = format!("{}?sentinel_user=asker&sentinel_password={password}", sentinel.url);
        open(&url, &settings).await.unwrap()
    };
    let store = with("s3nt").await;
    assert_eq!((store.pointer(&view(1)).await.unwrap(), store.describe()), (None, sentinel.url.clone()));
    let store = with("wr0ng").await;
    let e = store.pointer(&view(1)).await.unwrap_err();
    assert!(e.kind() == Kind::Denied && !format!("{e} {e:?} {store:?}").contains("wr0ng"), "{e}");
}
