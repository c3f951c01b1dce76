//! What every store must do, run against each of them.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::clock::stopwatch;
use crate::config::RedisSettings;
use crate::error::Kind;
use crate::model::Column;
use crate::model::codec::{EncodedKey, Row, RowDecoder, RowEncoder, encode_keys};
use datafusion::arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};

mod places;

pub(crate) use places::{Place, test_certificate, wait_for};

pub(crate) fn view(online_id: u32) -> OnlineView {
    OnlineView { warehouse_id: "w-1".into(), online_id }
}

pub(crate) fn pointer(generation: u32) -> Pointer {
    Pointer { generation, schema_id: 1, view_version: 1, delta_version: 0, rows: 0, published_at: 7, ttl: None }
}

fn features() -> Vec<Column> {
    vec![Column { name: "v".into(), data_type: "BIGINT".parse().unwrap() }]
}

pub(crate) fn key(k: i64) -> EncodedKey {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![k]));
    encode_keys(&[column]).unwrap().remove(0).unwrap()
}

fn row(kind: PutKind, k: i64, order: (i64, Option<i64>, i64), asof: u64, value: i64) -> PutRow {
    let created = TimestampMicrosecondArray::from(vec![order.1]);
    let values: ArrayRef = Arc::new(Int64Array::from(vec![value]));
    let row = RowEncoder::new(1, &features())
        .encode(
            &[key(k)],
            &TimestampMicrosecondArray::from(vec![order.0]),
            Some(&created),
            &Int64Array::from(vec![order.2]),
            asof,
            &[values],
        )
        .unwrap()
        .remove(0);
    PutRow { key: key(k).into_stored(), row, kind, expire_at: None }
}

pub(crate) fn offer(k: i64, event: i64, seq: i64, asof: u64, value: i64) -> PutRow {
    row(PutKind::Offer, k, (event, None, seq), asof, value)
}

fn state(k: i64, event: i64, seq: i64, asof: u64, value: i64) -> PutRow {
    row(PutKind::State, k, (event, None, seq), asof, value)
}

fn grave(k: i64, asof: u64) -> PutRow {
    let row = RowEncoder::new(1, &features()).tombstone(&key(k), asof);
    PutRow { key: key(k).into_stored(), row, kind: PutKind::State, expire_at: None }
}

/// The value of each key; `None` for no row and for a tombstone.
pub(crate) async fn values(store: &dyn OnlineStore, view: &OnlineView, keys: &[i64]) -> Vec<Option<i64>> {
    use datafusion::arrow::array::{Array, AsArray};
    let encoded: Vec<_> = keys.iter().map(|k| key(*k)).collect();
    let got = store.get_batch(&[KeysOf { view, keys: encoded.iter().map(|k| k.stored()).collect() }]).await.unwrap().remove(0);
    let rows: Vec<_> = got.rows.iter().map(|r| r.as_ref().map(|r| Row::parse(r).unwrap())).collect();
    let decoder = RowDecoder::new(&[(1, features())], &features()).unwrap();
    let column = decoder.decode(&rows, |i| i.to_string()).unwrap().remove(0);
    let column = column.as_primitive::<datafusion::arrow::datatypes::Int64Type>();
    (0..keys.len()).map(|i| column.is_valid(i).then(|| column.value(i))).collect()
}

pub(crate) async fn published(store: &dyn OnlineStore, view: &OnlineView) -> u32 {
    let generation = store.begin_generation(view).await.unwrap();
    assert!(store.publish(view, None, &pointer(generation), None).await.unwrap());
    generation
}

pub(crate) async fn put(store: &dyn OnlineStore, view: &OnlineView, generation: u32, rows: Vec<PutRow>) -> (u64, u64) {
    let s = store.put(view, generation, rows).await.unwrap();
    (s.written, s.skipped)
}

async fn an_unpublished_view_has_no_pointer(p: &Place) {
    let (store, v) = (p.open().await, view(1));
    assert_eq!(store.pointer(&v).await.unwrap(), None);
    let generation = store.begin_generation(&v).await.unwrap();
    store.load(&v, generation, vec![offer(1, 1, 1, 1, 10)]).await.unwrap();
    let k = key(1);
    let got = store.get_batch(&[KeysOf { view: &v, keys: vec![k.stored()] }]).await.unwrap();
    assert_eq!(got, [RowsOf::unpublished(1)]);
    assert_eq!(store.generations(&v).await.unwrap(), [generation]);
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
}

async fn newest_wins_whatever_the_order(p: &Place) {
    let (store, v) = (p.open().await, view(1));
    let g = published(&*store, &v).await;
    assert_eq!(put(&*store, &v, g, vec![offer(1, 50, 1, 1, 10), offer(2, 50, 1, 1, 20)]).await, (2, 0));
    // Older, equal and newer events, of a later version.
    assert_eq!(put(&*store, &v, g, vec![offer(1, 49, 9, 2, 11), offer(2, 51, 0, 2, 21), offer(3, -5, 0, 2, 30)]).await, (2, 1));
    assert_eq!(values(&*store, &v, &[1, 2, 3, 4]).await, [Some(10), Some(21), Some(30), None]);
    // A correction at the same instant: written later, or with a created timestamp.
    assert_eq!(put(&*store, &v, g, vec![offer(1, 50, 2, 3, 12)]).await, (1, 0));
    assert_eq!(put(&*store, &v, g, vec![row(PutKind::Offer, 1, (50, Some(-1), 0), 4, 13)]).await, (1, 0));
    assert_eq!(put(&*store, &v, g, vec![offer(1, 50, 99, 5, 14)]).await, (0, 1));
    assert_eq!(values(&*store, &v, &[1]).await, [Some(13)]);
    // Before 1970 and far away; big differences in one half of the word only.
    let far = [i64::MIN + 1, -1, 0, 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) + 1, (1 << 53) + 2, i64::MAX];
    for (n, event) in far.into_iter().enumerate() {
        assert_eq!(put(&*store, &v, g, vec![offer(7, event, 0, n as u64 + 1, n as i64)]).await, (1, 0), "{event}");
    }
    assert_eq!(put(&*store, &v, g, far.iter().map(|e| offer(7, *e, 0, 99, -1)).take(9).collect()).await, (0, 9));
    assert_eq!(values(&*store, &v, &[7]).await, [Some(9)]);
}

async fn full_ties_fall_to_the_greater_bytes(p: &Place) {
    let (store, v) = (p.open().await, view(1));
    let g = published(&*store, &v).await;
    for (k, first, second) in [(1, 5, 6), (2, 6, 5), (3, 255, 256), (4, -1, 1)] {
        put(&*store, &v, g, vec![offer(k, 1, 1, 1, first)]).await;
        put(&*store, &v, g, vec![offer(k, 1, 1, 2, second)]).await;
    }
    assert_eq!(values(&*store, &v, &[1, 2, 3, 4]).await, [Some(6), Some(6), Some(256), Some(-1)]);
}

async fn states_and_tombstones(p: &Place) {
    let (store, v) = (p.open().await, view(1));
    let g = published(&*store, &v).await;
    put(&*store, &v, g, vec![offer(1, 50, 1, 1, 10), offer(2, 50, 1, 1, 20), offer(3, 50, 1, 5, 30)]).await;
    // The newest row was removed: an older one, or none, is the state now.
    assert_eq!(put(&*store, &v, g, vec![state(1, 40, 1, 4, 11), grave(2, 4), grave(3, 4)]).await, (2, 1));
    assert_eq!(values(&*store, &v, &[1, 2, 3]).await, [Some(11), None, Some(30)]);
    // An offer that the state has seen comes too late; a newer one wins over a tombstone however old its event.
    assert_eq!(put(&*store, &v, g, vec![offer(1, 50, 1, 1, 10), offer(2, 60, 1, 4, 22), offer(2, -9, 1, 5, 23)]).await, (1, 2));
    assert_eq!(values(&*store, &v, &[1, 2]).await, [Some(11), Some(23)]);
}

async fn a_replay_changes_nothing(p: &Place) {
    let (store, v) = (p.open().await, view(1));
    let g = published(&*store, &v).await;
    let range = || vec![offer(1, 5, 1, 3, 1), state(2, 4, 1, 3, 2), grave(3, 3)];
    assert_eq!(put(&*store, &v, g, range()).await, (3, 0));
    assert_eq!(put(&*store, &v, g, range()).await, (0, 3));
    put(&*store, &v, g, vec![state(1, 3, 1, 4, 9)]).await;
    assert_eq!(put(&*store, &v, g, range()).await, (0, 3));
    assert_eq!(values(&*store, &v, &[1, 2, 3]).await, [Some(9), Some(2), None]);
}

async fn two_writers_agree(p: &Place) {
    let (a, b, v) = (p.open().await, p.open().await, view(1));
    let g = published(&*a, &v).await;
    let write = |store: Arc<dyn OnlineStore>, by: i64| {
        let v = v.clone();
        tokio::spawn(async move {
            for version in 1..20u64 {
                let rows = (0..40).map(|k| offer(k, (version as i64 * 7 + k * by) % 50, version as i64, version, k * 100 + by));
                store.put(&v, g, rows.collect()).await.unwrap();
            }
        })
    };
    let (x, y) = (write(a.clone(), 1), write(b.clone(), 3));
    x.await.unwrap();
    y.await.unwrap();
    // Whoever came first: the greatest (event, seq) of the two writers' rows stands, unless it came
    // with a version that the other's row had covered already.
    let keys: Vec<i64> = (0..40).collect();
    assert_eq!(values(&*a, &v, &keys).await, values(&*b, &v, &keys).await);
    assert!(values(&*a, &v, &keys).await.iter().all(Option::is_some));
    assert_eq!(a.stats(&v, g).await.unwrap().0, 40);
}

async fn generations_switch_whole(p: &Place) {
    let (a, b, v) = (p.open().await, p.open().await, view(1));
    let first = published(&*a, &v).await;
    put(&*a, &v, first, vec![offer(1, 1, 1, 1, 10), offer(2, 1, 1, 1, 20)]).await;
    assert_eq!(values(&*b, &v, &[1, 2]).await, [Some(10), Some(20)]);

    let second = a.begin_generation(&v).await.unwrap();
    assert!(second > first);
    assert_eq!(a.load(&v, second, vec![offer(1, 1, 1, 1, 11), offer(3, 1, 1, 1, 31)]).await.unwrap(), 2);
    put(&*a, &v, second, vec![offer(3, 2, 1, 2, 32)]).await;
    assert_eq!(values(&*b, &v, &[1, 2, 3]).await, [Some(10), Some(20), None]);

    assert!(!a.publish(&v, None, &pointer(second), None).await.unwrap());
    assert!(!a.publish(&v, Some(second), &pointer(second), None).await.unwrap());
    // not while the current one has come further
    assert!(a.advance_watermark(&v, first, None, 7).await.unwrap());
    assert!(!a.publish(&v, Some(first), &pointer(second), Some(6)).await.unwrap());
    assert_eq!(a.pointer(&v).await.unwrap().unwrap().generation, first);
    let full = Pointer { ttl: Some(5), rows: 2, delta_version: u64::MAX >> 1, ..pointer(second) };
    assert!(a.publish(&v, Some(first), &full, Some(7)).await.unwrap());
    // Both handles, also the one that had the old pointer.
    for store in [&a, &b] {
        assert_eq!(store.pointer(&v).await.unwrap().as_ref(), Some(&full));
        assert_eq!(values(&**store, &v, &[1, 2, 3]).await, [Some(11), None, Some(32)]);
    }
    // In place, seen by the other handle at once; then back and forth.
    put(&*a, &v, second, vec![offer(2, 2, 2, 9, 29)]).await;
    assert_eq!(values(&*b, &v, &[2]).await, [Some(29)]);
    assert!(b.publish(&v, Some(second), &pointer(first), None).await.unwrap());
    assert_eq!(values(&*a, &v, &[1, 2, 3]).await, [Some(10), Some(20), None]);
    assert!(b.publish(&v, Some(first), &pointer(second), None).await.unwrap());

    assert_eq!(a.drop_generation(&v, second).await.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(a.drop_generation(&v, first).await.unwrap(), 2);
    assert_eq!(a.drop_generation(&v, first).await.unwrap(), 0);
    assert_eq!(b.generations(&v).await.unwrap(), [second]);
    assert_eq!(values(&*b, &v, &[1, 2, 3]).await, [Some(11), Some(29), Some(32)]);
}

async fn a_dropped_generation_takes_no_rows(p: &Place) {
    let (store, v) = (p.open().await, view(1));
    let current = published(&*store, &v).await;
    let g = store.begin_generation(&v).await.unwrap();
    store.load(&v, g, vec![offer(1, 1, 1, 1, 1)]).await.unwrap();
    store.drop_generation(&v, g).await.unwrap();
    assert_eq!(store.load(&v, g, vec![offer(1, 1, 1, 1, 1)]).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(store.put(&v, g, vec![offer(1, 1, 1, 1, 1)]).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(store.advance_watermark(&v, g, None, 1).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(store.publish(&v, Some(current), &pointer(g), None).await.unwrap_err().kind(), Kind::Conflict);
    assert_ne!(store.begin_generation(&v).await.unwrap(), g);
    assert_eq!(store.stats(&v, g).await.unwrap().0, 0);
}

async fn watermarks_only_advance(p: &Place) {
    let (a, b, v) = (p.open().await, p.open().await, view(1));
    let g = published(&*a, &v).await;
    assert_eq!(a.watermark(&v, g).await.unwrap(), None);
    assert!(!a.advance_watermark(&v, g, Some(1), 2).await.unwrap());
    assert!(a.advance_watermark(&v, g, None, 9).await.unwrap());
    assert!(!b.advance_watermark(&v, g, None, 10).await.unwrap());
    assert!(!b.advance_watermark(&v, g, Some(9), 9).await.unwrap());
    assert!(!b.advance_watermark(&v, g, Some(9), 8).await.unwrap());
    let big = (1 << 53) + 1;
    assert!(b.advance_watermark(&v, g, Some(9), big).await.unwrap());
    assert!(!b.advance_watermark(&v, g, Some(big - 1), big + 1).await.unwrap());
    assert!(a.advance_watermark(&v, g, Some(big), big + 1).await.unwrap());
    assert_eq!(b.watermark(&v, g).await.unwrap(), Some(big + 1));
    // It belongs to the generation, and is read with the rows.
    let next = a.begin_generation(&v).await.unwrap();
    assert_eq!(a.watermark(&v, next).await.unwrap(), None);
    let got = b.get_batch(&[KeysOf { view: &v, keys: vec![] }]).await.unwrap();
    assert_eq!((got[0].watermark, got[0].pointer.as_ref()), (Some(big + 1), Some(&pointer(g))));
}

/// So many keys in one read, and rows in one write, where a store cuts them.
fn in_chunks(read_chunk: usize, write_chunk: usize) -> OnlineSettings {
    OnlineSettings { redis: RedisSettings { read_chunk, write_chunk, ..Default::default() }, ..Default::default() }
}

async fn one_batch_reads_many_views_and_keys(p: &Place) {
    let store = p.open_with(&in_chunks(7, 5)).await;
    let (x, y, none) = (view(1), view(2), view(3));
    let (gx, gy) = (published(&*store, &x).await, published(&*store, &y).await);
    assert_eq!(store.load(&x, gx, (0..40).map(|k| offer(k, 1, 1, 1, k)).collect()).await.unwrap(), 40);
    assert_eq!(put(&*store, &y, gy, (0..40).map(|k| offer(k, 1, 1, 1, -k - 1)).collect()).await, (40, 0));
    let keys: Vec<_> = (0..50).map(key).collect();
    let stored: Vec<&[u8]> = keys.iter().map(|k| k.stored()).collect();
    let requests = [
        KeysOf { view: &y, keys: stored[30..].to_vec() },
        KeysOf { view: &none, keys: stored[..2].to_vec() },
        KeysOf { view: &x, keys: stored.clone() },
        KeysOf { view: &y, keys: stored[..1].to_vec() },
    ];
    for handle in [store.clone(), p.open().await] {
        let got = handle.get_batch(&requests).await.unwrap();
        let present = |r: &RowsOf| r.rows.iter().map(Option::is_some).collect::<Vec<_>>();
        assert_eq!(present(&got[0]), (30..50).map(|k| k < 40).collect::<Vec<_>>());
        assert_eq!(got[1], RowsOf::unpublished(2));
        assert_eq!(present(&got[2]), (0..50).map(|k| k < 40).collect::<Vec<_>>());
        assert_eq!((got[3].pointer.as_ref(), got[3].rows.len()), (Some(&pointer(gy)), 1));
        assert_ne!(got[3].rows[0], got[2].rows[0]);
    }
    assert_eq!(values(&*store, &x, &[39, 0, 0]).await, [Some(39), Some(0), Some(0)]);
}

async fn drop_reclaims_exactly_its_own(p: &Place) {
    let store = p.open().await;
    // 0x1 and 0x10, 0x11: hexadecimal or decimal prefixes of one another.
    let views = [view(1), view(16), view(17), view(10)];
    for v in &views {
        let g = published(&*store, v).await;
        store.load(v, g, (0..30).map(|k| offer(k, 1, 1, 1, k)).collect()).await.unwrap();
        store.advance_watermark(v, g, None, 3).await.unwrap();
    }
    let extra = store.begin_generation(&views[0]).await.unwrap();
    store.load(&views[0], extra, vec![offer(1, 1, 1, 1, 1)]).await.unwrap();
    assert_eq!(store.drop_view(&views[0]).await.unwrap(), 31);
    assert_eq!(store.drop_view(&views[0]).await.unwrap(), 0);
    assert_eq!(store.pointer(&views[0]).await.unwrap(), None);
    assert_eq!(store.generations(&views[0]).await.unwrap(), Vec::<u32>::new());
    assert_eq!(values(&*store, &views[0], &[1]).await, [None]);
    for v in &views[1..] {
        assert_eq!(values(&*store, v, &[29]).await, [Some(29)]);
        assert_eq!(store.get_batch(&[KeysOf { view: v, keys: vec![] }]).await.unwrap()[0].watermark, Some(3));
    }
}

async fn a_generation_is_walked_whole(p: &Place) {
    const ROWS: i64 = 12_000;
    let (store, v) = (p.open().await, view(1));
    let g = store.begin_generation(&v).await.unwrap();
    let rows: Vec<PutRow> = (0..ROWS).map(|k| offer(k, k, 1, 1, k)).collect();
    store.load(&v, g, rows.clone()).await.unwrap();
    store.put(&v, g, vec![grave(ROWS, 2)]).await.unwrap();
    let other = store.begin_generation(&v).await.unwrap();
    store.load(&v, other, vec![offer(-1, 1, 1, 1, 1)]).await.unwrap();
    // before it is published, and after
    for _ in 0..2 {
        let (mut seen, mut from, mut pages) = (std::collections::BTreeMap::new(), None, 0);
        loop {
            let page = store.scan_rows(&v, g, from.take()).await.unwrap();
            seen.extend(page.rows);
            pages += 1;
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert!(pages > 1 && seen.len() as i64 == ROWS + 1);
        assert!(rows.iter().all(|r| seen.get(&r.key).is_some_and(|s| *s == r.row)));
        let keys = [key(0), key(ROWS - 1), key(ROWS + 7)];
        let found = store.peek(&v, g, &keys.each_ref().map(|k| k.stored())).await.unwrap();
        let want = [Some(&rows[0].row), rows.last().map(|r| &r.row), None];
        assert_eq!(found.iter().map(|f| f.as_ref().map(|b| b.to_vec())).collect::<Vec<_>>(), want.map(|w| w.cloned()));
        store.publish(&v, None, &pointer(g), None).await.unwrap();
    }
    store.drop_generation(&v, other).await.unwrap();
    let mut from = None;
    loop {
        let page = store.scan_rows(&v, other, from.take()).await.unwrap();
        assert_eq!(page.rows, []);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(store.peek(&v, other, &[key(-1).stored()]).await.unwrap(), [None]);
}

async fn what_is_no_row_counts_as_absent(p: &Place) {
    let (store, v) = (p.open().await, view(1));
    let g = published(&*store, &v).await;
    // Bytes that would be of a later version, were they any row's.
    let damaged = |k: i64, len: usize| PutRow { row: vec![0xff; len], ..offer(k, 1, 1, 1, 1) };
    let lengths = [0, 1, 7, 31, 33, 34, 37];
    store.load(&v, g, (0..7).map(|k| damaged(k, lengths[k as usize])).collect()).await.unwrap();
    let rows = |k: i64| if k % 2 == 0 { offer(k, -5, 0, 1, 10 + k) } else { state(k, -5, 0, 1, 10 + k) };
    assert_eq!(put(&*store, &v, g, (0..7).map(rows).collect()).await, (7, 0));
    assert_eq!(values(&*store, &v, &[0, 1, 2, 3, 4, 5, 6]).await, (10..17).map(Some).collect::<Vec<_>>());
    store.load(&v, g, vec![damaged(1, 37)]).await.unwrap();
    assert_eq!(put(&*store, &v, g, vec![grave(1, 1)]).await, (1, 0));
    assert_eq!(values(&*store, &v, &[1]).await, [None]);
}

async fn a_state_replaces_what_cannot_be_read(p: &Place) {
    let (store, v) = (p.open().await, view(1));
    let g = published(&*store, &v).await;
    let damaged = PutRow { row: vec![1, 2, 3], ..offer(1, 1, 1, 1, 1) };
    let mut strange = offer(5, 1, 1, 1, 1);
    strange.row[32] = 77;
    store.load(&v, g, vec![damaged, offer(2, 50, 1, 7, 20), offer(3, 50, 1, 8, 30), strange]).await.unwrap();
    assert_eq!(put(&*store, &v, g, (1..=5).map(|k| state(k, 40, 1, 8, k)).collect()).await, (4, 1));
    assert_eq!(values(&*store, &v, &[1, 2, 3, 4, 5]).await, [Some(1), Some(2), Some(30), Some(4), Some(5)]);
    assert_eq!(put(&*store, &v, g, vec![grave(3, 9)]).await, (1, 0));
    assert_eq!(values(&*store, &v, &[3]).await, [None]);
}

async fn the_views_that_hold_space_are_known(p: &Place) {
    let store = p.open().await;
    let views = || async { store.views("w-1").await.unwrap() };
    assert_eq!(views().await, Vec::<u32>::new());
    for id in [300, 7, 20] {
        let g = store.begin_generation(&view(id)).await.unwrap();
        store.load(&view(id), g, vec![offer(1, 1, 1, 1, 1)]).await.unwrap();
    }
    assert_eq!(views().await, [7, 20, 300]);
    store.drop_view(&view(20)).await.unwrap();
    assert_eq!(views().await, [7, 300]);
    assert_eq!(p.open().await.views("w-1").await.unwrap(), [7, 300]);
    store.begin_generation(&view(20)).await.unwrap();
    assert_eq!(views().await, [7, 20, 300], "a loader that has not seen the drop");
}

async fn readers_never_see_two_generations(p: &Place) {
    let (writer, v) = (p.open().await, view(1));
    // Few keys per command, so that one answer is put together from several.
    let reader = p.open_with(&in_chunks(7, 500)).await;
    let mut current = published(&*writer, &v).await;
    writer.load(&v, current, (0..20).map(|k| offer(k, 1, 1, 1, 0)).collect()).await.unwrap();
    let task = {
        let v = v.clone();
        tokio::spawn(async move {
            let mut seen = std::collections::BTreeSet::new();
            let keys: Vec<i64> = (0..20).collect();
            while !seen.contains(&8) {
                let got = values(&*reader, &v, &keys).await;
                // a service may read one view in two roles
                let stored: Vec<Vec<u8>> = (0..30).map(|k| key(k).into_stored()).collect();
                let requests = [&stored[..3], &stored[5..], &stored[..9]];
                let requests = requests.map(|k| KeysOf { view: &v, keys: k.iter().map(Vec::as_slice).collect() });
                let found = reader.get_batch(&requests).await.unwrap();
                let generation = |i: usize| found[i].pointer.as_ref().unwrap().generation;
                assert!((generation(0), generation(1)) == (generation(1), generation(2)), "{found:?}");
                assert!(got[0].is_some() && got.iter().all(|g| *g == got[0]), "{got:?}");
                seen.extend(got[0]);
            }
        })
    };
    for n in 1..=8 {
        let next = writer.begin_generation(&v).await.unwrap();
        writer.load(&v, next, (0..20).map(|k| offer(k, 1, 1, 1, n)).collect()).await.unwrap();
        assert!(writer.publish(&v, Some(current), &pointer(next), None).await.unwrap());
        let old = std::mem::replace(&mut current, next);
        crate::clock::sleep(Duration::from_millis(10)).await;
        writer.drop_generation(&v, old).await.unwrap();
    }
    task.await.unwrap();
}

/// Places with a cache of hot rows; written behind the address, `embedded#…`.
impl Place {
    /// Each handle is a process of its own, and what it keeps is out of date at once.
    pub fn cached_briefly() -> Place {
        let mut place = Place::embedded();
        place.url = "embedded#briefly".into();
        place
    }

    /// All handles are one process that keeps what it reads for good, so that only its own writes make it read again.
    pub fn cached_for_good() -> Place {
        let mut place = Place::embedded();
        place.url = "embedded#for_good".into();
        place
    }

    async fn open_cached(&self, settings: &OnlineSettings) -> Arc<dyn OnlineStore> {
        static PROCESSES: parking_lot::Mutex<Vec<(std::path::PathBuf, Arc<dyn OnlineStore>)>> = parking_lot::Mutex::new(vec![]);
        let (url, how) = self.url.split_once('#').unwrap();
        let for_good = how == "for_good";
        let dir = self.dir.path();
        let known = PROCESSES.lock().iter().find(|(d, _)| d == dir).map(|(_, s)| Arc::clone(s));
        if let Some(store) = known {
            return store;
        }
        let cache_freshness = if for_good { crate::clock::DAY } else { 1 };
        let settings = OnlineSettings { cache_bytes: 1 << 20, cache_freshness, ..settings.clone() };
        let store = connect(url, Some(dir), &settings, Clock::system()).await.unwrap();
        if for_good {
            PROCESSES.lock().push((dir.to_path_buf(), Arc::clone(&store)));
        }
        store
    }
}

macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod embedded_store { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(&super::Place::embedded()).await }
        )* }
        mod briefly_cached { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(&super::Place::cached_briefly()).await }
        )* }
        mod cached_for_good { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(&super::Place::cached_for_good()).await }
        )* }
        #[cfg(feature = "redis")]
        mod redis_store { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(&super::Place::redis()).await }
        )* }
        #[cfg(feature = "redis")]
        mod redis_over_tls { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(&super::Place::tls("no")).await }
        )* }
        // These take seconds to start: one for all cases.
        #[cfg(feature = "redis")]
        async fn all_cases(place: Place) { $(
            eprintln!(stringify!($case));
            $case(&place).await;
            place.flush();
        )* }
    };
}

conformance!(
    an_unpublished_view_has_no_pointer,
    newest_wins_whatever_the_order,
    full_ties_fall_to_the_greater_bytes,
    states_and_tombstones,
    a_replay_changes_nothing,
    two_writers_agree,
    generations_switch_whole,
    a_dropped_generation_takes_no_rows,
    watermarks_only_advance,
    one_batch_reads_many_views_and_keys,
    drop_reclaims_exactly_its_own,
    readers_never_see_two_generations,
    a_generation_is_walked_whole,
    what_is_no_row_counts_as_absent,
    a_state_replaces_what_cannot_be_read,
    the_views_that_hold_space_are_known,
);

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cluster() {
    all_cases(Place::cluster()).await
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_sentinel() {
    all_cases(Place::sentinel()).await
}

#[cfg(feature = "redis")]
mod redis_only {
    use super::*;

    #[tokio::test]
    async fn two_warehouses_share_a_server() {
        let p = Place::redis();
        let store = p.open().await;
        // Names that are patterns or prefixes of one another must not matter.
        let ids = ["a", "a:00000001", "*", "[a]", "a*"];
        for id in ids {
            let v = OnlineView { warehouse_id: id.into(), online_id: 1 };
            let g = published(&*store, &v).await;
            store.load(&v, g, vec![offer(1, 1, 1, 1, 10)]).await.unwrap();
        }
        for (n, id) in ids.iter().enumerate() {
            let v = OnlineView { warehouse_id: id.to_string(), online_id: 1 };
            assert_eq!(store.drop_view(&v).await.unwrap(), 1, "{id}");
            for rest in &ids[n + 1..] {
                let v = OnlineView { warehouse_id: rest.to_string(), online_id: 1 };
                assert_eq!(values(&*store, &v, &[1]).await, [Some(10)], "{rest} after {id}");
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_is_down_or_hangs_is_an_error_in_time() {
        let mut p = Place::redis();
        let store = p.open_with(&OnlineSettings { timeout: 300_000, ..Default::default() }).await;
        let v = view(1);
        published(&*store, &v).await;
        p.pause(true);
        let watch = stopwatch();
        let e = store.pointer(&v).await.unwrap_err();
        assert!(e.kind() == Kind::Unavailable && e.message().contains(&p.url), "{e}");
        assert!(watch.elapsed() < Duration::from_secs(5));
        p.pause(false);
        p.stop();
        for e in [
            store.check().await.unwrap_err(),
            store.pointer(&v).await.unwrap_err(),
            store.put(&v, 1, vec![offer(1, 1, 1, 1, 1)]).await.unwrap_err(),
            p.open().await.check().await.unwrap_err(),
        ] {
            assert!(e.kind() == Kind::Unavailable, "{e}");
            assert!(e.message().contains("cannot reach the online store") && e.message().contains(&p.url), "{e}");
        }
        // It comes back empty: no pointer, no half-filled generation published.
        p.start();
        assert_eq!(store.pointer(&v).await.unwrap(), None);
        let k = key(1);
        let got = store.get_batch(&[KeysOf { view: &v, keys: vec![k.stored()] }]).await.unwrap();
        assert_eq!(got, [RowsOf::unpublished(1)]);
        assert_eq!(store.load(&v, 1, vec![offer(1, 1, 1, 1, 1)]).await.unwrap_err().kind(), Kind::Conflict);
        assert_eq!(store.publish(&v, None, &pointer(1), None).await.unwrap_err().kind(), Kind::Conflict);
        published(&*store, &v).await;
    }

    #[tokio::test]
    async fn the_script_decides_as_the_rule_does() {
        use proptest::prelude::*;
        use proptest::strategy::ValueTree;
        use proptest::test_runner::TestRunner;

        let far = [i64::MIN + 1, -(1 << 32), -1, 0, 1, (1 << 32) - 1, 1 << 32, (1 << 53) + 1, i64::MAX];
        let word = prop::sample::select(far.to_vec());
        let put_row =
            (0..4i64, word.clone(), prop::option::of(word.clone()), word, 1..5u64, 0..3u8, prop::sample::select(vec![0, 1, 255, 256, -1]))
                .prop_map(|(k, event, created, seq, asof, kind, value)| match kind {
                    0 => grave(k, asof),
                    1 => row(PutKind::State, k, (event, created, seq), asof, value),
                    _ => row(PutKind::Offer, k, (event, created, seq), asof, value),
                });
        let sequence = prop::collection::vec(prop::collection::vec(put_row, 1..12), 1..6);
        let (a, b) = (Place::embedded(), Place::redis());
        let (embedded, redis) = (a.open().await, b.open().await);
        let keys: Vec<_> = (0..4).map(key).collect();
        let mut runner = TestRunner::default();
        for n in 0..60 {
            let v = view(n);
            let (ga, gb) = (published(&*embedded, &v).await, published(&*redis, &v).await);
            for rows in sequence.new_tree(&mut runner).unwrap().current() {
                let (x, y) = (put(&*embedded, &v, ga, rows.clone()).await, put(&*redis, &v, gb, rows.clone()).await);
                let read = [KeysOf { view: &v, keys: keys.iter().map(|k| k.stored()).collect() }];
                let (held, other) = (embedded.get_batch(&read).await.unwrap(), redis.get_batch(&read).await.unwrap());
                assert_eq!((x, &held[0].rows), (y, &other[0].rows), "{rows:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_flushed_script_cache_is_refilled() {
        let p = Place::redis();
        let (store, v) = (p.open().await, view(1));
        let g = published(&*store, &v).await;
        put(&*store, &v, g, vec![offer(1, 1, 1, 1, 1)]).await;
        let status = Command::new("redis-cli").args(["-u", &p.url, "script", "flush"]).stdout(Stdio::null()).status().unwrap();
        assert!(status.success());
        assert_eq!(put(&*store, &v, g, vec![offer(1, 2, 1, 2, 2)]).await, (1, 0));
    }

    #[tokio::test]
    async fn expired_rows_go_and_others_stay() {
        let p = Place::redis();
        let (store, v) = (p.open().await, view(1));
        let g = published(&*store, &v).await;
        let soon = Clock::system().now() + crate::clock::HOUR;
        let with = |k, at| PutRow { expire_at: Some(at), ..offer(k, 1, 1, 1, k) };
        store.load(&v, g, vec![with(1, 1_000_000), with(2, soon)]).await.unwrap();
        put(&*store, &v, g, vec![with(3, 1_000_000), with(4, soon)]).await;
        assert_eq!(values(&*store, &v, &[1, 2, 3, 4]).await, [None, Some(2), None, Some(4)]);
    }

    #[tokio::test]
    async fn a_password_is_never_shown_and_eviction_is_warned_of() {
        let p = Place::redis();
        let set = |args: &[&str]| {
            assert!(Command::new("redis-cli").args(["-u", &p.url]).args(args).stdout(Stdio::null()).status().unwrap().success())
        };
        set(&["config", "set", "maxmemory-policy", "allkeys-lru"]);
        let warnings = p.open().await.check().await.unwrap();
        assert!(warnings.iter().any(|w| w.contains("allkeys-lru") && w.contains("noeviction")), "{warnings:?}");
        set(&["config", "set", "requirepass", "s3cret"]);
        let url = p.url.replace("redis://", "redis://:wr0ng@");
        let store = connect(&url, None, &OnlineSettings::default(), Clock::system()).await.unwrap();
        assert_eq!(store.describe(), p.url);
        let e = store.check().await.unwrap_err();
        assert!(!format!("{e} {e:?} {store:?}").contains("wr0ng"), "{e} {store:?}");
        assert_eq!(e.kind(), Kind::Denied, "{e}");
        let store = connect(&url.replace("wr0ng", "s3cret"), None, &OnlineSettings::default(), Clock::system()).await.unwrap();
        store.check().await.unwrap();
    }

    #[tokio::test]
    async fn a_full_server_fails_the_load_and_serves_on() {
        let p = Place::redis();
        let (store, v) = (p.open().await, view(1));
        let g = published(&*store, &v).await;
        store.load(&v, g, vec![offer(1, 1, 1, 1, 1)]).await.unwrap();
        assert!(
            Command::new("redis-cli")
                .args(["-u", &p.url, "config", "set", "maxmemory", "1"])
                .stdout(Stdio::null())
                .status()
                .unwrap()
                .success()
        );
        let e = store.load(&v, g, vec![offer(2, 1, 1, 1, 2)]).await.unwrap_err();
        assert!(e.kind() == Kind::Exhausted && e.message().contains("memory"), "{e}");
        assert_eq!(store.put(&v, g, vec![offer(2, 1, 1, 1, 2)]).await.unwrap_err().kind(), Kind::Exhausted);
        assert_eq!(values(&*store, &v, &[1]).await, [Some(1)]);
    }
}

mod embedded_only {
    use super::*;

    #[tokio::test]
    async fn another_writer_is_named() {
        let p = Place::embedded();
        let (a, v) = (p.open().await, view(1));
        let b = p.open_with(&OnlineSettings { timeout: 50_000, ..Default::default() }).await;
        let g = published(&*a, &v).await;
        let claim = a.claim(&v).await.unwrap();
        put(&*a, &v, g, vec![offer(1, 1, 1, 1, 1)]).await;
        let e = b.put(&v, g, vec![offer(1, 2, 2, 2, 2)]).await.unwrap_err();
        assert!(e.kind() == Kind::Conflict && e.message().contains(&format!("process {}", std::process::id())), "{e}");
        assert!(e.hint().unwrap().contains("--connect"), "{e}");
        assert!(b.claim(&v).await.is_err());
        // Reading, and other views, are free.
        assert_eq!(values(&*b, &v, &[1]).await, [Some(1)]);
        published(&*b, &view(2)).await;
        drop(claim);
        assert_eq!(put(&*b, &v, g, vec![offer(1, 2, 2, 2, 2)]).await, (1, 0));
        assert_eq!(values(&*a, &v, &[1]).await, [Some(2)]);
    }

    #[tokio::test]
    async fn a_file_left_by_a_killed_writer_is_repaired() {
        let (p, copy, v) = (Place::embedded(), Place::embedded(), view(1));
        let store = p.open().await;
        let g = published(&*store, &v).await;
        put(&*store, &v, g, vec![offer(1, 1, 1, 1, 1)]).await;
        let (from, to) = (p.dir.path().join("_online/1"), copy.dir.path().join("_online/1"));
        std::fs::create_dir_all(&to).unwrap();
        // A copy of a file that is open to write, with one more commit, is what a kill leaves.
        let db = embedded_files::open_writer(&embedded_files::generation_path(&from, g), 1 << 20).unwrap().unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("watermark", 5).unwrap();
        txn.commit().unwrap();
        for name in ["CURRENT".into(), format!("{g}.redb")] {
            std::fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
        let store = copy.open().await;
        assert_eq!(values(&*store, &v, &[1]).await, [Some(1)]);
        assert_eq!(store.watermark(&v, g).await.unwrap(), Some(5));
        drop(db);
    }

    const CHILD: &str = "REMIGE_TEST_WRITER_DIR";
    const KEYS: std::ops::Range<i64> = 0..20;

    /// All keys of one commit hold one value; which one, or -1.
    async fn value_of_all(store: &dyn OnlineStore) -> i64 {
        let got = values(store, &view(1), &KEYS.collect::<Vec<_>>()).await;
        assert!(got.iter().all(|g| *g == got[0]), "half a commit: {got:?}");
        got[0].unwrap_or(-1)
    }

    #[tokio::test]
    #[ignore = "runs as the child of readers_outlive_a_killed_writer"]
    async fn killed_writer() {
        let dir = std::env::var(CHILD).expect("started by readers_outlive_a_killed_writer only");
        let store = connect("embedded", Some(Path::new(&dir)), &OnlineSettings::default(), Clock::system()).await.unwrap();
        let first = value_of_all(&*store).await + 1;
        for n in first.. {
            put(&*store, &view(1), 1, KEYS.map(|k| offer(k, n, 1, n as u64 + 1, n)).collect()).await;
        }
    }

    #[tokio::test]
    async fn readers_outlive_a_killed_writer() {
        let p = Place::embedded();
        let store = p.open().await;
        assert_eq!(published(&*store, &view(1)).await, 1);
        let mut last = -1;
        for round in 0..6 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::online::conformance::embedded_only::killed_writer", "--ignored"])
                .env(CHILD, p.dir.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            // A reader of another process follows the writer's commits in place.
            let target = last + 3;
            while value_of_all(&*store).await < target {
                assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
                crate::clock::sleep(Duration::from_millis(1)).await;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let seen = value_of_all(&*store).await;
            assert!(seen >= target);
            last = value_of_all(&*p.open().await).await;
            // a commit that was whole when the writer was killed is found by who opens the file anew
            assert!(last == seen || last == seen + 1, "{last} after {seen}");
            assert_eq!(put(&*store, &view(1), 1, vec![offer(1000 + round, 1, 1, 1, round)]).await, (1, 0));
            assert_eq!(value_of_all(&*store).await, last, "who stayed has caught up");
        }
    }

    #[tokio::test]
    async fn needs_a_local_warehouse_and_a_known_scheme() {
        let open = async |url: &str| connect(url, None, &OnlineSettings::default(), Clock::system()).await.unwrap_err();
        let e = open("embedded").await;
        assert!(e.hint().unwrap().contains("redis://"), "{e}");
        for (url, kind, shown) in [
            ("redis+cluster://:pw@h/1", Kind::Invalid, "numbered databases"),
            ("redis+sentinel://:pw@h", Kind::Invalid, "service"),
            ("memcached://u:pw@h", Kind::Invalid, "memcached"),
            ("redis://:pw@h:port", Kind::Invalid, "redis"),
        ] {
            let e = open(url).await;
            assert!(e.kind() == kind && e.message().contains(shown) && !e.to_string().contains("pw"), "{e}");
        }
    }
}
