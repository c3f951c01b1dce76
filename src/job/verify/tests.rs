//! VERIFY against stores that were tampered with, and while others write.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::clock::{Clock, Micros, SECOND};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::job::tests::put_online;
use crate::model::Name;
use crate::model::codec::encode_keys;
use crate::session::{Engine, Outcome, Session};
use crate::store::online::{KeysOf, OnlineStore, OnlineView, Pointer, PutKind, PutRow};

/// 2100-01-01
const T0: Micros = 4_102_444_800 * SECOND;
const COLUMNS: &str = "keys_checked, mismatches, missing_online, extra_online, examples";

struct World {
    engine: Arc<Engine>,
    session: Session,
    clock: Clock,
    _dir: TempDir,
}

/// A warehouse with the push view `v` (x BIGINT), of 20 rows with x = 10 k.
async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(T0);
    let config = Config { warehouse: dir.path().join("w").display().to_string(), threads: 2, ..Default::default() };
    let engine = Engine::open(config, clock.clone()).await.unwrap();
    let w = World { session: engine.session(), engine, clock, _dir: dir };
    w.run("CREATE ENTITY e KEY (k BIGINT)").await;
    w.run("CREATE FEATURE VIEW v (x BIGINT) ENTITY e EVENT TIMESTAMP ts ONLINE").await;
    let rows: Vec<String> = (0..20).map(|k| format!("({k}, '2099-12-31', {})", k * 10)).collect();
    w.run(&format!("INSERT INTO v VALUES {}", rows.join(", "))).await;
    w
}

fn stored_key(k: i64) -> Vec<u8> {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![k]));
    encode_keys(&[column]).unwrap().remove(0).unwrap().into_stored()
}

impl World {
    async fn try_run(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let batches = match self.session.execute(sql).await? {
            Outcome::Updated(n) => return Ok(vec![vec![n.to_string()]]),
            Outcome::Rows(s) => s.try_collect::<Vec<_>>().await.map_err(Error::from)?,
        };
        let options = FormatOptions::default().with_null("NULL");
        let mut out = vec![];
        for b in &batches {
            let columns: Vec<_> = b.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
            out.extend((0..b.num_rows()).map(|i| columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>()));
        }
        Ok(out)
    }

    async fn run(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// keys_checked, mismatches, missing_online, extra_online; and the examples.
    async fn verify(&self, sql: &str) -> ([u64; 4], String) {
        let row = self.run(sql).await.remove(0);
        let at = |name: &str| COLUMNS.split(", ").position(|c| c == name).unwrap() + 9;
        let number = |name: &str| row[at(name)].parse().unwrap();
        let numbers = [number("keys_checked"), number("mismatches"), number("missing_online"), number("extra_online")];
        (numbers, row[14].clone())
    }

    async fn online(&self) -> (Arc<dyn OnlineStore>, OnlineView, Pointer) {
        let services = self.engine.services();
        let catalog = services.registry.snapshot().await.unwrap();
        let view = catalog.feature_view(&Name { schema: "public".into(), name: "v".into() }, None).unwrap();
        let (store, id) = (services.online().await.unwrap(), services.online_view(view));
        let pointer = store.pointer(&id).await.unwrap().unwrap();
        (store, id, pointer)
    }

    /// Switches to a generation whose rows are those of now, changed: by key and bytes, new keys and bytes.
    async fn tamper(&self, change: impl Fn(i64, Vec<u8>) -> Vec<(i64, Vec<u8>)>) {
        let (store, id, pointer) = self.online().await;
        let keys: Vec<Vec<u8>> = (0..20).map(stored_key).collect();
        let found = store.get_batch(&[KeysOf { view: &id, keys: keys.iter().map(Vec::as_slice).collect() }]).await.unwrap().remove(0);
        let mut rows: Vec<(i64, Vec<u8>)> =
            found.rows.iter().enumerate().flat_map(|(k, r)| change(k as i64, r.clone().unwrap().to_vec())).collect();
        rows.sort_by_key(|(k, _)| *k);
        let put = |(k, row)| PutRow { key: stored_key(k), row, kind: PutKind::Offer, expire_at: None };
        let generation = store.begin_generation(&id).await.unwrap();
        store.load(&id, generation, rows.into_iter().map(put).collect()).await.unwrap();
        assert!(store.advance_watermark(&id, generation, None, found.watermark.unwrap()).await.unwrap());
        let switched = Pointer { generation, ..pointer.clone() };
        assert!(store.publish(&id, Some(pointer.generation), &switched, None).await.unwrap());
    }

    fn notices(&self) -> String {
        self.session.notices().into_iter().map(|n| n.message).collect::<Vec<_>>().join("\n")
    }
}

/// As a BIGINT feature stands at the end of its row.
fn changed(mut row: Vec<u8>) -> Vec<u8> {
    *row.last_mut().unwrap() ^= 1;
    row
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_tampered_with_is_found() {
    let w = world().await;
    assert_eq!(w.verify("VERIFY FEATURE VIEW v").await, ([20, 0, 0, 0], "NULL".into()));
    assert_eq!(w.notices(), "");

    // key 3 has another value, key 5 has no row
    w.tamper(|k, row| match k {
        3 => vec![(k, changed(row))],
        5 => vec![],
        _ => vec![(k, row)],
    })
    .await;
    let (numbers, examples) = w.verify("VERIFY FEATURE VIEW v").await;
    assert_eq!(numbers, [20, 2, 1, 0], "{examples}");
    assert!(examples.contains("(3) x online ") && examples.contains(", offline 30"), "{examples}");
    assert!(examples.contains("(5) status online NOT_FOUND, offline PRESENT"), "{examples}");
    assert!(w.notices().contains("2 key(s)") && w.notices().contains("MATERIALIZE FEATURE VIEW public.v@v1 FULL"), "{}", w.notices());

    let plan = w.run("EXPLAIN VERIFY FEATURE VIEW v SAMPLE 10 SEED 3").await;
    assert_eq!(plan[0][1], "Command: VERIFY FEATURE VIEW public.v@v1 SAMPLE 10 SEED 3");
    assert_eq!(w.notices(), "", "a plan compares nothing");

    w.run("MATERIALIZE FEATURE VIEW v FULL").await;
    assert_eq!(w.verify("VERIFY FEATURE VIEW v").await.0, [20, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_key_that_is_still_online_is_found() {
    let w = world().await;
    let (store, id, _) = w.online().await;
    let key = stored_key(4);
    let before = store.get_batch(&[KeysOf { view: &id, keys: vec![&key] }]).await.unwrap().remove(0).rows.remove(0).unwrap();
    w.run("DELETE FROM v WHERE k = 4").await;
    assert_eq!(w.verify("VERIFY FEATURE VIEW v").await.0, [19, 0, 0, 0], "a tombstone is no row");
    // written by nobody's rule: with the version of what it replaces raised
    let mut row = before.to_vec();
    row[24..32].copy_from_slice(&u64::from(u32::MAX).to_be_bytes());
    let (_, _, pointer) = w.online().await;
    store.put(&id, pointer.generation, vec![PutRow { key, row, kind: PutKind::State, expire_at: None }]).await.unwrap();
    let (numbers, examples) = w.verify("VERIFY FEATURE VIEW v").await;
    assert_eq!((numbers, examples.as_str()), ([19, 1, 0, 1], "(4) status online PRESENT, offline NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_bytes_are_a_finding_of_their_key() {
    let w = world().await;
    w.tamper(|k, row| if k == 7 { vec![(k, row[..row.len() - 3].to_vec())] } else { vec![(k, row)] }).await;
    let (numbers, examples) = w.verify("VERIFY FEATURE VIEW v").await;
    assert_eq!(numbers, [20, 1, 0, 0], "{examples}");
    assert!(examples.starts_with("(7) ") && examples.contains("damaged"), "{examples}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_is_drawn_by_its_seed() {
    let w = world().await;
    w.tamper(|k, row| if k % 2 == 0 { vec![(k, changed(row))] } else { vec![(k, row)] }).await;
    let sql = "VERIFY FEATURE VIEW v SAMPLE 8 SEED 11";
    let first = w.run(sql).await.remove(0);
    assert_eq!((first[9].as_str(), first[13].as_str()), ("8", "11"));
    assert_eq!(w.run(sql).await.remove(0), first);
    let any = w.run("VERIFY FEATURE VIEW v SAMPLE 100").await.remove(0);
    assert_eq!((any[9].as_str(), any[10].as_str()), ("20", "10"), "a sample may be all there is");
    assert!(any[13].parse::<i64>().unwrap() >= 0);
    assert_eq!(w.run("VERIFY FEATURE VIEW v").await[0][13], "NULL");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_yet_applied_is_lag_and_no_fault() {
    let w = world().await;
    put_online(w.engine.services(), "v", None, false).await;
    w.run("INSERT INTO v VALUES (1, '2099-12-31 01:00:00', 99), (100, '2099-12-31', 1)").await;
    w.run("DELETE FROM v WHERE k = 2").await;
    put_online(w.engine.services(), "v", None, true).await;
    let row = w.run("VERIFY FEATURE VIEW v").await.remove(0);
    assert_eq!((row[7].as_str(), &row[9..13]), ("2", &["20", "0", "0", "0"].map(String::from)[..]));
    assert!(w.notices().contains("was not compared"), "{}", w.notices());
    w.run("MATERIALIZE FEATURE VIEW v").await;
    assert_eq!(w.verify("VERIFY FEATURE VIEW v").await.0, [20, 0, 0, 0]);
    assert_eq!(w.notices(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_not_yet_due_hold_the_watermark_and_are_no_fault() {
    let w = world().await;
    w.run("INSERT INTO v VALUES (1, '2100-01-01 00:01:00', 99)").await;
    // this version is applied, though the watermark stays below the one before
    w.run("INSERT INTO v VALUES (2, '2099-12-31 01:00:00', 98), (50, '2099-12-31 01:00:00', 97)").await;
    w.run("DELETE FROM v WHERE k = 3").await;
    let row = w.run("VERIFY FEATURE VIEW v").await.remove(0);
    assert_eq!(&row[10..13], ["0", "0", "0"], "{row:?}");
    assert_ne!(row[7], "0", "{row:?}");
    w.clock.set(T0 + 2 * 60 * SECOND);
    assert_eq!(&w.run("VERIFY FEATURE VIEW v").await[0][10..13], ["0", "0", "0"], "due, and lagging");
    w.run("MATERIALIZE FEATURE VIEW v").await;
    let row = w.run("VERIFY FEATURE VIEW v").await.remove(0);
    assert_eq!((row[7].as_str(), &row[9..13]), ("0", &["20", "0", "0", "0"].map(String::from)[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ttl_that_got_longer_is_said_and_no_fault() {
    let w = world().await;
    w.run("ALTER FEATURE VIEW v SET TTL INTERVAL '1 hour'").await;
    w.run("MATERIALIZE FEATURE VIEW v FULL").await;
    assert_eq!(w.verify("VERIFY FEATURE VIEW v").await.0, [20, 0, 0, 0]);
    w.run("ALTER FEATURE VIEW v SET TTL INTERVAL '30 days'").await;
    assert_eq!(w.verify("VERIFY FEATURE VIEW v").await.0, [20, 0, 0, 0]);
    assert!(w.notices().contains("its TTL got longer"), "{}", w.notices());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_and_switches_meanwhile_are_no_fault() {
    let w = world().await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (session, stop, clock) = (w.engine.session(), Arc::clone(&stop), w.clock.clone());
        tokio::spawn(async move {
            let mut n = 0i64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                clock.advance(SECOND);
                let at = crate::clock::format_micros(clock.now());
                let sql = match n % 5 {
                    0 => "MATERIALIZE FEATURE VIEW v FULL".to_string(),
                    1 => format!("DELETE FROM v WHERE k = {}", n % 20),
                    _ => format!("INSERT INTO v VALUES ({}, '{at}', {n}), ({}, '{at}', {n})", n % 20, n % 7),
                };
                session.execute(&sql).await.unwrap();
            }
            n
        })
    };
    for _ in 0..8 {
        let row = w.run("VERIFY FEATURE VIEW v").await.remove(0);
        assert_eq!(&row[10..13], ["0", "0", "0"], "{row:?}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(writer.await.unwrap() > 0);
    let row = w.run("VERIFY FEATURE VIEW v").await.remove(0);
    assert_eq!((row[7].as_str(), &row[10..13]), ("0", &["0", "0", "0"].map(String::from)[..]), "{row:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lost_a_view_is_an_error_and_no_finding() {
    let w = world().await;
    let (store, id, _) = w.online().await;
    store.drop_view(&id).await.unwrap();
    let e = w.try_run("VERIFY FEATURE VIEW v").await.unwrap_err();
    assert_eq!((e.kind(), e.hint()), (Kind::Invalid, Some("MATERIALIZE FEATURE VIEW public.v")), "{e}");
    assert!(e.message().contains("VERIFY FEATURE VIEW public.v@v1") && e.message().contains("never materialized"), "{e}");
}
