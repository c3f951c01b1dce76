use super::*;
use crate::clock::{SECOND, new_id};
use crate::config::Config;
use crate::model::Name;
use crate::session::Engine;
use crate::store::offline::Commit;

const NOON: i64 = 1_767_268_800 * SECOND; // 2026-01-01T12:00:00Z

struct World {
    engine: Arc<Engine>,
    view: FeatureView,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { warehouse: dir.path().join("w").display().to_string(), ..Config::default() };
        let engine = Engine::open(config, Clock::fixed(NOON)).await.unwrap();
        let session = engine.session();
        session.execute("CREATE ENTITY e KEY (k BIGINT)").await.unwrap();
        session.execute("CREATE FEATURE VIEW p (v BIGINT) ENTITY e EVENT TIMESTAMP ts").await.unwrap();
        let catalog = engine.services().registry.snapshot().await.unwrap();
        let view = catalog.feature_view(&Name::new("public", "p"), None).unwrap().clone();
        World { engine, view, _dir: dir }
    }

    async fn begin(&self) -> (Recording, Run) {
        let run = Run {
            run_id: new_id(),
            kind: "refresh".into(),
            object: self.view.name.to_string(),
            version: Some(1),
            started_at: NOON,
            location: Some(self.view.location.clone()),
            process: Some(crate::catalog::runs::this_process()),
            ..Run::default()
        };
        (Recording::begin(self.engine.services(), &self.view, &run).await.unwrap(), run)
    }

    /// How the only run ended.
    async fn ended(&self) -> Run {
        for _ in 0..3000 {
            let runs = self.engine.services().runs.list().await.unwrap();
            assert_eq!(runs.len(), 1);
            if runs[0].status != RunStatus::Running {
                return runs[0].clone();
            }
            crate::clock::sleep(Duration::from_millis(20)).await;
        }
        panic!("it runs for ever");
    }
}

#[tokio::test]
async fn a_run_that_is_dropped_is_recorded_as_cancelled() {
    let w = World::new().await;
    let (recording, run) = w.begin().await;
    drop(recording);
    let cancelled = Run { status: RunStatus::Cancelled, error: Some(GIVEN_UP.into()), finished_at: Some(NOON), ..run };
    assert_eq!(w.ended().await, cancelled);
}

#[tokio::test]
async fn a_run_that_had_committed_is_recorded_as_done() {
    let w = World::new().await;
    let (recording, run) = w.begin().await;
    let store = &w.engine.services().store;
    let table = store.snapshot(&w.view.location, None).await.unwrap();
    let commit = Commit { run_id: Some(run.run_id.clone()), ..Default::default() };
    let version = store.commit(&table, commit).await.unwrap().version();
    drop(recording);
    let done = Run { status: RunStatus::Succeeded, delta_version: Some(version), finished_at: Some(NOON), ..run };
    assert_eq!(w.ended().await, done);
}

#[tokio::test]
async fn an_end_that_is_known_is_recorded_though_nobody_waits() {
    let w = World::new().await;
    let (recording, run) = w.begin().await;
    let done = Run { status: RunStatus::Succeeded, rows_written: 7, finished_at: Some(NOON), ..run };
    drop(recording.end(&done));
    assert_eq!(w.ended().await, done);
}

#[tokio::test]
async fn a_run_that_broke_off_says_so() {
    let w = World::new().await;
    let (recording, _) = w.begin().await;
    let broken: tokio::task::JoinHandle<()> = tokio::spawn(async move {
        let _recording = recording;
        panic!("of this test");
    });
    assert!(broken.await.unwrap_err().is_panic());
    let run = w.ended().await;
    assert_eq!((run.status, run.error.as_deref()), (RunStatus::Failed, Some(BROKE_OFF)));
}
