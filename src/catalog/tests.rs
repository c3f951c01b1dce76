use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, SECOND};
use crate::error::{Error, Kind, Result};
use crate::model::*;
use crate::store::offline::{Commit, OfflineStore, TableOptions};

const T0: i64 = 1_700_000_000_000_000;

async fn store(dir: &TempDir) -> Arc<OfflineStore> {
    OfflineStore::open(dir.path().to_str().unwrap(), Clock::fixed(T0)).await.unwrap()
}

async fn registry(dir: &TempDir) -> Arc<Registry> {
    Registry::open(store(dir).await).await.unwrap()
}

fn name(n: &str) -> Name {
    let (schema, n) = n.split_once('.').unwrap_or(("public", n));
    Name::new(schema, n)
}

fn column(n: &str, t: &str) -> Column {
    Column { name: n.into(), data_type: t.parse().unwrap() }
}

fn entity(n: &str) -> Entity {
    Entity { name: name(n), keys: vec![column("user_id", "BIGINT")], about: About::default(), created_at: T0 }
}

fn view(n: &str) -> View {
    View {
        name: name(n),
        columns: vec![],
        query: "SELECT 1".into(),
        query_schema: "public".into(),
        reads: vec![],
        about: About::default(),
        created_at: T0,
    }
}

fn feature_view(n: &str, version: u32, online_id: u32, query: Option<&str>) -> FeatureView {
    FeatureView {
        name: name(n),
        version,
        table_id: format!("id-{n}-{version}-{online_id}"),
        location: format!("features/{n}-{version}"),
        online_id,
        entities: vec![name("user")],
        keys: vec![column("user_id", "BIGINT")],
        event_timestamp: "event_time".into(),
        event_zone: None,
        created_timestamp: None,
        features: vec![],
        ttl: Some(SECOND),
        lookback: 0,
        refresh_every: None,
        suspended: false,
        online: true,
        query: query.map(str::to_string),
        query_schema: "public".into(),
        reads: vec![],
        snapshot: false,
        windowed: None,
        about: About { comment: Some("Füße „x“".into()), owner: None, tags: [("team".to_string(), "growth".to_string())].into() },
        created_at: T0,
    }
}

fn service(n: &str, of: &str, pin: VersionSpec) -> Service {
    let item = ServiceItem { alias: "u".into(), view: name(of), pin, roles: Default::default() };
    Service {
        name: name(n),
        request: vec![],
        items: vec![item],
        outputs: vec![],
        query: "SELECT u.a FROM v u".into(),
        about: About::default(),
        created_at: T0,
    }
}

async fn put(r: &Arc<Registry>, changes: Vec<CatalogChange>) -> Result<Arc<CatalogSnapshot>> {
    r.commit(None, move |_| Ok((changes.clone(), ()))).await?;
    Ok(r.cached())
}

use CatalogChange::*;
use PutMode::{Create, Replace};

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let r = registry(&dir).await;
    assert_eq!(r.cached().schemas.keys().collect::<Vec<_>>(), ["public", "system"]);
    let table = Table {
        name: name("a.t"),
        format: "PARQUET".into(),
        location: "/data/t".into(),
        managed: false,
        columns: vec![column("x", "DECIMAL(10, 2)")],
        options: Default::default(),
        partition_columns: vec![],
        replacing: None,
        about: About::default(),
        created_at: T0,
    };
    let manifest = Manifest {
        catalog_version: 1,
        instant: T0,
        engine_version: "0".into(),
        tables: vec![],
        files: vec![],
        settings: Default::default(),
        rows: 3,
        content_hash: "h".into(),
    };
    let set = TrainingSet {
        name: name("a.ts"),
        location: "training/1".into(),
        query: "SELECT 1".into(),
        query_schema: "a".into(),
        manifest,
        about: About::default(),
        created_at: T0,
    };
    let v1 = feature_view("fv", 1, 1, Some("SELECT …"));
    let all = vec![
        CreateSchema(SchemaDef { name: "a".into(), about: About::default(), created_at: T0 }),
        PutEntity(entity("user"), Create),
        PutTable(table, Create),
        PutView(view("w"), Create),
        PutFeatureView(v1.clone(), Create),
        MarkFilled((&v1).into()),
        MarkMaterialized((&v1).into()),
        PutService(service("s", "fv", VersionSpec::Version(1)), Create),
        PutTrainingSet(set, Create),
    ];
    let made = put(&r, all).await.unwrap();
    assert_eq!((made.version, made.next_online_id), (1, 2));
    let v2 = feature_view("fv", 2, 2, None);
    let made = put(&r, vec![PutFeatureView(v2.clone(), Create)]).await.unwrap();
    let series = made.feature_view_series(&name("fv")).unwrap();
    assert_eq!((series.current, series.last_version), (1, 2), "the bare name goes on meaning the old version");
    assert_eq!(series.filled.iter().collect::<Vec<_>>(), [&1, &2], "a push view is filled from the start");
    let made = put(&r, vec![SetCurrentVersion((&v2).into()), DropView(name("w"))]).await.unwrap();

    let again = registry(&dir).await;
    assert_eq!(*again.cached(), *made);
    assert_eq!(again.cached().feature_view(&name("fv"), None).unwrap(), &v2);
    assert_eq!(again.at_version(2).await.unwrap().feature_view(&name("fv"), None).unwrap(), &v1);
    assert_eq!(again.at_version(0).await.unwrap().entities.len(), 0);
    assert_eq!(again.at_version(9).await.unwrap_err().kind(), Kind::NotFound);
    let events = again.events(2).await.unwrap();
    assert_eq!(
        events.iter().map(|e| format!("{} {} {}", e.op, e.object_kind, e.name)).collect::<Vec<_>>(),
        ["create feature_view public.fv", "set_current feature_view public.fv", "drop view public.w"]
    );
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_nothing_changes() {
    let dir = TempDir::new().unwrap();
    let r = registry(&dir).await;
    let v1 = feature_view("fv", 1, 1, Some("q"));
    put(
        &r,
        vec![
            PutEntity(entity("user"), Create),
            PutFeatureView(v1.clone(), Create),
            PutService(service("s", "fv", VersionSpec::Version(1)), Create),
            CreateSchema(SchemaDef { name: "a".into(), about: About::default(), created_at: T0 }),
            PutView(view("a.w"), Create),
        ],
    )
    .await
    .unwrap();
    let before = r.cached();
    let other = ViewVersionId { table_id: "another".into(), ..(&v1).into() };
    let cases = [
        (vec![PutEntity(entity("user"), Create)], Kind::AlreadyExists, "entity public.user exists already"),
        (vec![PutView(view("fv"), Create)], Kind::AlreadyExists, "feature view public.fv exists already"),
        (vec![PutView(view("s"), Replace)], Kind::AlreadyExists, "feature service public.s exists already"),
        (vec![PutView(view("system.x"), Create)], Kind::Invalid, "read-only"),
        (vec![PutView(view("b.x"), Create)], Kind::NotFound, "schema \"b\" does not exist"),
        (vec![DropSchema("public".into())], Kind::Invalid, "cannot be dropped"),
        (vec![DropSchema("a".into())], Kind::Invalid, "not empty"),
        (vec![DropEntity(name("user"))], Kind::Invalid, "entity public.user is used by feature view public.fv@v1"),
        (vec![DropFeatureView(name("fv"))], Kind::Invalid, "public.fv@v1 is used by feature service public.s"),
        (vec![DropFeatureViewVersion((&v1).into())], Kind::Invalid, "is used by feature service"),
        (vec![PutService(service("t", "nope", VersionSpec::Latest), Create)], Kind::Invalid, "public.nope is used by"),
        (vec![PutFeatureView(feature_view("fv", 1, 2, None), Create)], Kind::AlreadyExists, "public.fv@v1 exists already"),
        (vec![PutFeatureView(feature_view("fv", 3, 2, None), Create)], Kind::Conflict, "next version is 2"),
        (vec![PutFeatureView(feature_view("g", 1, 1, None), Create)], Kind::Conflict, "online id 1 is taken"),
        (vec![MarkFilled(other.clone())], Kind::Conflict, "dropped and made again"),
        (vec![SetCurrentVersion(ViewVersionId { version: 7, ..other })], Kind::NotFound, "has no version 7"),
        (vec![PutView(view("ok"), Create), DropView(name("nope"))], Kind::NotFound, "view public.nope does not exist"),
    ];
    for (changes, kind, text) in cases {
        let e = put(&r, changes.clone()).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{changes:?}: {e}");
        assert!(e.message().contains(text), "{e}");
    }
    assert_eq!(*registry(&dir).await.cached(), *before);
    // In one commit the order may heal it.
    put(&r, vec![DropService(name("s")), DropFeatureView(name("fv")), DropEntity(name("user"))]).await.unwrap();
    // Online ids are not used again.
    assert_eq!(registry(&dir).await.cached().next_online_id, 2);
}

#[tokio::test]
async fn names_are_suggested() {
    let dir = TempDir::new().unwrap();
    let r = registry(&dir).await;
    let c = put(
        &r,
        vec![
            PutEntity(entity("user"), Create),
            PutFeatureView(feature_view("user_features", 1, 1, None), Create),
            PutService(service("rec", "user_features", VersionSpec::Latest), Create),
        ],
    )
    .await
    .unwrap();
    let hint = |e: Error| e.hint().unwrap().to_string();
    assert_eq!(hint(c.feature_view(&name("user_featurs"), None).unwrap_err()), "did you mean \"user_features\"?");
    assert_eq!(hint(c.no_relation(&name("rek"))), "did you mean \"rec\"?");
    assert_eq!(hint(c.feature_view(&name("user_features"), Some(4)).unwrap_err()), "its versions are @v1");
    assert_eq!(c.service(&name("user_features")).unwrap_err().message(), "public.user_features is a feature view, not a feature service");
    assert_eq!(hint(c.entity(&name("system.user")).unwrap_err()), "there is public.user");
    assert_eq!(c.views_using_entity(&name("user")), ["public.user_features@v1"]);
    assert_eq!(c.services_using_view(&name("user_features"), Some(1)), [name("rec")]);
    assert!(c.services_using_view(&name("user_features"), Some(2)).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_that_create_at_once_lose_none() {
    let dir = TempDir::new().unwrap();
    registry(&dir).await;
    let mut tasks = vec![];
    for process in ["a", "b"] {
        let r = registry(&dir).await;
        tasks.push(tokio::spawn(async move {
            for i in 0..20 {
                put(&r, vec![PutEntity(entity(&format!("{process}{i}")), Create)]).await.unwrap();
            }
            // The same name from both: one of them is told.
            put(&r, vec![PutEntity(entity("both"), Create)]).await.map_err(|e| e.kind()).map(|_| ())
        }));
    }
    let mut outcomes = vec![];
    for t in tasks {
        outcomes.push(t.await.unwrap());
    }
    outcomes.sort_by_key(|o| o.is_err());
    assert_eq!(outcomes, [Ok(()), Err(Kind::AlreadyExists)]);
    let c = registry(&dir).await;
    assert_eq!((c.cached().version, c.cached().entities.len()), (41, 41));
    assert_eq!(c.events(1).await.unwrap().len(), 41);
}

#[tokio::test]
async fn a_second_process_sees_changes_and_conditions_are_checked_again() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (registry(&dir).await, registry(&dir).await);
    put(&a, vec![PutEntity(entity("user"), Create)]).await.unwrap();
    assert!(b.cached().entities.is_empty());
    let seen = std::sync::Mutex::new(vec![]);
    b.commit(Some("run-7"), |c| {
        seen.lock().unwrap().push(c.version);
        Ok((vec![PutFeatureView(feature_view("fv", 1, c.next_online_id, None), Create)], ()))
    })
    .await
    .unwrap();
    assert_eq!(*seen.lock().unwrap(), [1]);
    assert!(a.cached().feature_views.is_empty());
    assert_eq!(a.snapshot().await.unwrap().feature_views.len(), 1);
    assert_eq!(a.events(2).await.unwrap()[0].run_id.as_deref(), Some("run-7"));
    let e = a.commit::<(), _>(None, |_| Err(Error::invalid("no"))).await.unwrap_err();
    assert_eq!((e.message(), a.cached().version), ("no", 2));
    assert_eq!(a.commit(None, |c| Ok((vec![], c.version))).await.unwrap(), 2, "what the builder says is answered");
    assert_eq!(a.cached().version, 2);
}

fn parquet_files(dir: &TempDir) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir.path().join("_remige/registry")).unwrap().map(|f| f.unwrap().path());
    all.filter(|p| p.extension().is_some_and(|e| e == "parquet")).collect()
}

/// Every file below a directory.
fn contents(dir: &std::path::Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut out = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => out.extend(contents(&path)),
            false => drop(out.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    out
}

#[tokio::test]
async fn a_damaged_registry_says_which_file_and_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let r = registry(&dir).await;
    put(&r, vec![PutEntity(entity("user"), Create)]).await.unwrap();
    let file = parquet_files(&dir).remove(0);
    let short = file.file_name().unwrap().to_str().unwrap().to_string();
    let good = std::fs::read(&file).unwrap();
    let error = async || {
        let before = contents(dir.path());
        let e = Registry::open(store(&dir).await).await.unwrap_err();
        assert_eq!(contents(dir.path()), before, "something was changed");
        e
    };

    std::fs::write(&file, "rubbish").unwrap();
    let e = error().await;
    assert!(e.message().contains(&short) && e.message().contains("cannot be read"), "{e}");
    assert_eq!(std::fs::read(&file).unwrap(), b"rubbish");

    std::fs::remove_file(&file).unwrap();
    let e = error().await;
    assert!(e.message().contains(&short) && e.message().contains("is missing"), "{e}");

    std::fs::write(&file, good).unwrap();
    assert_eq!(registry(&dir).await.cached().entities.len(), 1);
    let log = dir.path().join("_remige/registry/_delta_log/00000000000000000001.json");
    std::fs::write(&log, "{").unwrap();
    let e = error().await;
    assert!(e.message().contains("00000000000000000001.json"), "{e}");
}

async fn write_event(dir: &TempDir, edit: impl Fn(&mut Event)) {
    let s = store(dir).await;
    let table = s.snapshot("_remige/registry", None).await.unwrap();
    let mut events = Event::of(&CatalogSnapshot::empty(), 2, T0, None, &[PutEntity(entity("x"), Create)]).unwrap();
    events.iter_mut().for_each(edit);
    let adds = s.write_small_file(&table, &event::to_batch(&events).unwrap()).await.unwrap();
    s.commit(&table, Commit { adds, ..Default::default() }).await.unwrap();
}

#[tokio::test]
async fn changes_of_a_newer_version_and_broken_events_are_errors() {
    for (edit, text) in [
        (Box::new(|e: &mut Event| (e.op, e.engine) = ("rename".into(), "9.9.9".into())) as Box<dyn Fn(&mut Event)>, "remige 9.9.9"),
        (Box::new(|e: &mut Event| e.payload = "{}".into()), "change 2 of entity public.x"),
        (Box::new(|e: &mut Event| e.catalog_version = 4), "damaged"),
    ] {
        let dir = TempDir::new().unwrap();
        let r = registry(&dir).await;
        put(&r, vec![PutEntity(entity("user"), Create)]).await.unwrap();
        write_event(&dir, edit).await;
        let e = Registry::open(store(&dir).await).await.unwrap_err();
        assert!(e.message().contains(text), "{e}");
        assert!(r.snapshot().await.is_err());
        assert_eq!(r.cached().entities.len(), 1);
    }
}

#[tokio::test]
async fn the_registry_is_compacted_and_stays_the_same() {
    let dir = TempDir::new().unwrap();
    let (r, late) = (registry(&dir).await, registry(&dir).await);
    for i in 0..50 {
        put(&r, vec![PutView(view(&format!("v{i}")), Create), PutView(view(&format!("w{i}")), Create)]).await.unwrap();
    }
    late.snapshot().await.unwrap();
    for i in 0..60 {
        put(&r, vec![DropView(name(&format!("v{}", i % 50))), PutView(view(&format!("v{}", i % 50)), Create)]).await.unwrap();
    }
    let s = store(&dir).await;
    let table = s.snapshot("_remige/registry", None).await.unwrap();
    assert_eq!(table.files().len(), 10);
    let fresh = registry(&dir).await;
    assert_eq!(*fresh.cached(), *r.cached());
    assert_eq!(*late.snapshot().await.unwrap(), *r.cached());
    assert_eq!(fresh.cached().version, 110);
    assert_eq!(fresh.at_version(50).await.unwrap().views.len(), 100);
    assert_eq!(fresh.events(1).await.unwrap().len(), 220);
    assert!(dir.path().join("_remige/registry/_delta_log/_last_checkpoint").exists());
}

#[tokio::test]
async fn runs_are_folded_and_orphans_settled() {
    let dir = TempDir::new().unwrap();
    let s = store(&dir).await;
    let runs = Runs::open(Arc::clone(&s)).await.unwrap();
    let run = |id: &str| Run {
        run_id: id.into(),
        kind: "refresh".into(),
        object: "public.fv".into(),
        version: Some(1),
        started_at: T0 + id.len() as i64,
        location: Some("features/fv".into()),
        process: Some(runs::this_process()),
        ..Run::default()
    };
    let a = run("a");
    runs.start(&a).await.unwrap();
    assert_eq!(runs.list().await.unwrap(), std::slice::from_ref(&a));
    assert!(runs.finish(&a).await.is_err());
    let done = Run { status: RunStatus::Succeeded, rows_written: 7, bytes_written: 99, delta_version: Some(3), ..a.clone() };
    runs.finish(&done).await.unwrap();
    let done = Run { finished_at: Some(T0), ..done };
    assert_eq!(runs.list().await.unwrap(), std::slice::from_ref(&done));

    // Two runs of a process that is gone, one of which had committed; one of a living process.
    let table = s.create_table("features/fv", event::schema(), TableOptions::default()).await.unwrap();
    s.commit(&table, Commit { run_id: Some("bb".into()), ..Default::default() }).await.unwrap();
    let me = runs::this_process();
    let gone = me.replace(&format!("/{}/", std::process::id()), "/1/");
    assert_eq!((runs::is_gone(&me), runs::is_gone(&gone), runs::is_gone("elsewhere/1/x")), (Some(false), Some(true), None));
    for (id, process) in [("bb", &gone), ("ccc", &gone), ("dddd", &me)] {
        runs.start(&Run { process: Some(process.clone()), ..run(id) }).await.unwrap();
    }
    let reopened = Runs::open(store(&dir).await).await.unwrap();
    assert_eq!(
        reopened
            .settle(|r| {
                let runs = Arc::clone(&reopened);
                async move { runs.judge(&r).await }
            })
            .await
            .unwrap(),
        2
    );
    let states: Vec<_> = reopened.list().await.unwrap().into_iter().map(|r| (r.run_id, r.status, r.delta_version)).collect();
    assert_eq!(
        states,
        [
            ("dddd".to_string(), RunStatus::Running, None),
            ("ccc".to_string(), RunStatus::Failed, None),
            ("bb".to_string(), RunStatus::Succeeded, Some(1)),
            ("a".to_string(), RunStatus::Succeeded, Some(3)),
        ]
    );
    let batch = Runs::to_batch(&reopened.list().await.unwrap()).unwrap();
    assert_eq!((batch.schema(), batch.num_rows()), (Runs::schema(), 4));
    assert!(batch.column_by_name("process").is_none());
}

#[tokio::test]
async fn a_run_that_cannot_be_judged_holds_up_no_other() {
    let dir = TempDir::new().unwrap();
    let s = store(&dir).await;
    let runs = Runs::open(Arc::clone(&s)).await.unwrap();
    let gone = runs::this_process() + "0";
    // the newest is judged first
    for (at, id) in [(T0, "good"), (T0 + 1, "bad")] {
        let location = format!("features/{id}");
        let table = s.create_table(&location, event::schema(), TableOptions::default()).await.unwrap();
        s.commit(&table, Commit { run_id: Some(id.into()), ..Default::default() }).await.unwrap();
        let (process, location) = (Some(gone.clone()), Some(location));
        runs.start(&Run { run_id: id.into(), kind: "refresh".into(), started_at: at, process, location, ..Run::default() }).await.unwrap();
    }
    std::fs::write(dir.path().join("features/bad/_delta_log/00000000000000000001.json"), "{\"add\": nonsense").unwrap();
    let reopened = Runs::open(store(&dir).await).await.unwrap();
    assert_eq!(reopened.settle(async |r: Run| reopened.judge(&r).await).await.unwrap(), 1);
    let states: Vec<_> = reopened.list().await.unwrap().into_iter().map(|r| (r.run_id, r.status)).collect();
    assert_eq!(states, [("bad".to_string(), RunStatus::Running), ("good".to_string(), RunStatus::Succeeded)]);
}

/// A table of runs made before `until` was recorded is written and read on, and its refreshes count as complete.
#[tokio::test]
async fn older_tables_of_runs_serve_on() {
    let dir = TempDir::new().unwrap();
    let s = store(&dir).await;
    Runs::open(Arc::clone(&s)).await.unwrap();
    let now = s.snapshot("_remige/runs", None).await.unwrap().schema().as_ref().clone();
    s.delete_table("_remige/runs").await.unwrap();
    let fields: Vec<_> = now.fields().iter().filter(|f| f.name() != "until").cloned().collect();
    assert_eq!(fields.len() + 1, now.fields().len());
    let older = Arc::new(datafusion::arrow::datatypes::Schema::new(fields));
    s.create_table("_remige/runs", older, TableOptions::default()).await.unwrap();
    let runs = Runs::open(store(&dir).await).await.unwrap();
    let run = Run { run_id: "a".into(), kind: "refresh".into(), object: "public.f".into(), started_at: T0, until: None, ..Run::default() };
    runs.start(&run).await.unwrap();
    runs.finish(&Run { status: RunStatus::Succeeded, finished_at: Some(T0 + 1), ..run.clone() }).await.unwrap();
    let expected = Run { status: RunStatus::Succeeded, finished_at: Some(T0 + 1), until: Some(T0), ..run };
    assert_eq!(runs.list().await.unwrap(), [expected]);
}

/// The record does not grow without end, and forgets nothing that a schedule rests on.
#[tokio::test]
async fn old_runs_are_forgotten_but_the_last_of_each_kind() {
    let dir = TempDir::new().unwrap();
    let s = store(&dir).await;
    let runs = Runs::open(Arc::clone(&s)).await.unwrap();
    let now = s.clock().now();
    let run = |id: &str, days: i64, kind: &str, status, until| Run {
        run_id: id.into(),
        kind: kind.into(),
        object: "public.f".into(),
        version: Some(1),
        started_at: now - days * crate::clock::DAY,
        finished_at: Some(now - days * crate::clock::DAY + 1),
        location: Some("features/f".into()),
        status,
        until,
        ..Run::default()
    };
    use RunStatus::{Failed, Succeeded};
    for old in [
        run("refresh 1", 400, "refresh", Succeeded, Some(T0)),
        run("refresh 2", 300, "refresh", Succeeded, Some(T0)),
        run("range", 200, "refresh", Succeeded, None),
        run("failed", 199, "refresh", Failed, Some(T0)),
        run("load 1", 198, "materialize", Failed, None),
        run("load 2", 197, "materialize", Succeeded, None),
        run("load 3", 100, "materialize", Succeeded, None),
    ] {
        runs.start(&old).await.unwrap();
        runs.finish(&old).await.unwrap();
    }
    runs.start(&run("endless", 500, "optimize", RunStatus::Running, None)).await.unwrap();
    for i in 0..60 {
        let recent = run(&format!("recent {i:02}"), 1, "vacuum", Succeeded, None);
        runs.start(&recent).await.unwrap();
        runs.finish(&recent).await.unwrap();
    }
    assert!(s.snapshot("_remige/runs", None).await.unwrap().files().len() < 100, "it was compacted");
    let list = runs.list().await.unwrap();
    let (recent, old): (Vec<_>, Vec<_>) = list.iter().map(|r| r.run_id.as_str()).partition(|id| id.starts_with("recent"));
    assert_eq!(recent.len(), 60);
    assert_eq!(old, ["load 3", "failed", "range", "refresh 2", "endless"]);
    assert_eq!(list.iter().find(|r| r.run_id == "refresh 2"), Some(&run("refresh 2", 300, "refresh", Succeeded, Some(T0))));
}

/// Futures of the public API can be spawned, closures included.
#[tokio::test]
async fn futures_are_send() {
    fn send<T: Send>(t: T) -> T {
        t
    }
    let dir = TempDir::new().unwrap();
    let s = store(&dir).await;
    let r = send(Registry::open(Arc::clone(&s))).await.unwrap();
    let changes = vec![PutEntity(entity("user"), Create)];
    send(r.commit(None, |_| Ok((changes.clone(), ())))).await.unwrap();
    send(r.snapshot()).await.unwrap();
    send(r.at_version(0)).await.unwrap();
    assert_eq!(send(r.events(1)).await.unwrap().len(), 1);
    let runs = send(Runs::open(s)).await.unwrap();
    send(runs.finish(&Run { status: RunStatus::Cancelled, ..Run::default() })).await.unwrap();
    assert_eq!(send(runs.settle(async |r: Run| runs.judge(&r).await)).await.unwrap(), 0);
    assert_eq!(send(runs.list()).await.unwrap().len(), 1);
}

/// A reader that does not know the form of a change says so, and changes nothing.
#[tokio::test]
async fn a_change_of_a_newer_form_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let r = registry(&dir).await;
    put(&r, vec![PutEntity(entity("user"), Create)]).await.unwrap();
    put(&r, vec![PutFeatureView(feature_view("fv", 1, 1, None), Create)]).await.unwrap();
    let moved = FeatureView { online_id: 2, ..feature_view("fv", 1, 1, None) };
    put(&r, vec![PutFeatureView(moved, Replace)]).await.unwrap();
    let events = r.events(1).await.unwrap();
    assert_eq!(events.iter().map(|e| (e.op.as_str(), e.form)).collect::<Vec<_>>(), [("create", 1), ("create", 1), ("replace", 2)]);
    let newer = Event { form: 4, ..events[2].clone() };
    let e = newer.change().unwrap_err();
    assert!(e.message().contains("form 4") && e.message().contains("forms up to 3"), "{e}");
    assert_eq!(events[2].change().unwrap(), registry(&dir).await.events(3).await.unwrap()[0].change().unwrap());
    // a view whose table holds events would be read as one with columns that it does not have
    let windowed = FeatureView { windowed: Some(Box::default()), ..feature_view("w", 1, 3, None) };
    put(&r, vec![PutFeatureView(windowed, Create)]).await.unwrap();
    assert_eq!(r.events(4).await.unwrap()[0].form, 3);
}

/// Threads of statements that are busy for long hold no lookup up, though a task of theirs began to look at the catalog.
#[test]
fn busy_threads_of_statements_hold_no_lookup_up() {
    let threads = |n| tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build().unwrap();
    let (lookups, statements) = (threads(2), threads(1));
    let dir = TempDir::new().unwrap();
    let r = lookups.block_on(registry(&dir));
    let (begun, is_begun) = std::sync::mpsc::channel();
    let (end, is_ended) = std::sync::mpsc::channel::<()>();
    let looking = Arc::clone(&r);
    let busy = statements.spawn(async move {
        let mut look = std::pin::pin!(looking.snapshot());
        let looked = futures::poll!(&mut look);
        begun.send(()).unwrap();
        // the thread is kept, as a long poll of an operator keeps it
        let _ = is_ended.recv();
        if looked.is_pending() {
            look.await.unwrap();
        }
    });
    is_begun.recv().unwrap();
    let looked_up = lookups.block_on(async { crate::clock::timeout(std::time::Duration::from_secs(60), r.snapshot()).await });
    end.send(()).unwrap();
    statements.block_on(busy).unwrap();
    assert!(looked_up.expect("it waits for the threads of statements").is_ok());
}
