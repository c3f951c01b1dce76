//! The freshness of each feature view version, and the state of the online store, as gauges, for a server whose
//! metrics somebody reads.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::online_gauges::OnlineGauges;
use crate::clock::{self, Micros, SECOND};
use crate::error::Result;
use crate::services::freshness::{self, Freshness};
use crate::session::Engine;
use crate::telemetry::{FAILURES, FRESHNESS, MATERIALIZE_AGE, OVERDUE, REFRESH_AGE};

const GAUGES: [&str; 5] = [FRESHNESS, REFRESH_AGE, MATERIALIZE_AGE, OVERDUE, FAILURES];

/// The task that measures; ended when dropped. It changes nothing, so that it may end at any time.
pub(super) fn start(engine: Arc<Engine>) -> JoinSet<()> {
    let mut task = JoinSet::new();
    let server = &engine.config().server;
    let every = server.freshness_every;
    if server.metrics.is_some() && every > 0 {
        let workers = engine.services().workers.handle().clone();
        task.spawn_on(run(engine, Duration::from_micros(every.unsigned_abs())), &workers);
    }
    task
}

async fn run(engine: Arc<Engine>, every: Duration) {
    let mut ticks = clock::ticks(every);
    let mut shown = HashSet::new();
    let mut online = OnlineGauges::default();
    loop {
        ticks.tick().await;
        online.measure(&engine).await;
        match measured(&engine).await {
            Ok(list) => show(&list, engine.clock().now(), &mut shown),
            Err(e) => tracing::warn!(error = %e, "the freshness of feature views could not be measured"),
        }
    }
}

async fn measured(engine: &Arc<Engine>) -> Result<Vec<Freshness>> {
    let catalog = engine.services().registry.snapshot().await?;
    freshness::all(engine.services(), &catalog).await
}

/// Sets the gauges. What cannot be told, and what is left of dropped views, is NaN.
fn show(list: &[Freshness], now: Micros, shown: &mut HashSet<String>) {
    let gone: Vec<String> = {
        let known: HashSet<String> = list.iter().map(|f| f.view.versioned_name()).collect();
        shown.drain().filter(|v| !known.contains(v)).collect()
    };
    for view in gone {
        GAUGES.iter().for_each(|name| metrics::gauge!(*name, "view" => view.clone()).set(f64::NAN));
    }
    for f in list {
        let view = f.view.versioned_name();
        let s = &f.standing;
        let age = |at: Option<Micros>| at.map_or(f64::NAN, |t| now.saturating_sub(t) as f64 / SECOND as f64);
        // not scheduled: never overdue
        let overdue = s.overdue(now) as f64 / SECOND as f64;
        let values = [age(f.watermark), age(s.refreshed_at), age(s.materialized_at), overdue, s.failures as f64];
        for (name, value) in GAUGES.iter().zip(values) {
            metrics::gauge!(*name, "view" => view.clone()).set(value);
        }
        shown.insert(view);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::clock::{Clock, HOUR};
    use crate::config::Config;

    const NOON: Micros = 1_767_268_800 * SECOND; // 2026-01-01T12:00:00Z

    async fn engine() -> (Arc<Engine>, Clock, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::fixed(NOON);
        let config = Config { warehouse: dir.path().join("w").display().to_string(), ..Config::default() };
        (Engine::open(config, clock.clone()).await.unwrap(), clock, dir)
    }

    #[tokio::test]
    async fn gauges_tell_ages_and_forget_dropped_views() {
        let (engine, clock, _dir) = engine().await;
        let session = engine.session();
        for sql in [
            "CREATE ENTITY e KEY (k BIGINT)",
            "CREATE FEATURE VIEW f ENTITY e EVENT TIMESTAMP ts ONLINE REFRESH EVERY INTERVAL '1 hour' AS SELECT 1 AS k, TIMESTAMP '2026-01-01 11:58:30' AS ts, 5 AS v",
            "CREATE FEATURE VIEW p (v BIGINT) ENTITY e EVENT TIMESTAMP ts",
            "REFRESH FEATURE VIEW f",
        ] {
            session.execute(sql).await.unwrap();
        }
        clock.advance(HOUR + 600 * SECOND);
        let recorder = PrometheusBuilder::new().build_recorder();
        let mut shown = HashSet::new();
        let scrape = async |shown: &mut HashSet<String>| {
            let list = measured(&engine).await.unwrap();
            metrics::with_local_recorder(&recorder, || show(&list, clock.now(), shown));
            recorder.handle().render()
        };
        let text = scrape(&mut shown).await;
        let has = |text: &str, line: &str| assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        has(&text, "remige_feature_view_freshness_seconds{view=\"public.f@v1\"} 4290");
        has(&text, "remige_feature_view_refresh_age_seconds{view=\"public.f@v1\"} 4200");
        has(&text, "remige_feature_view_materialize_age_seconds{view=\"public.f@v1\"} NaN");
        // waiting for its MATERIALIZE since the REFRESH
        has(&text, "remige_feature_view_overdue_seconds{view=\"public.f@v1\"} 4200");
        has(&text, "remige_feature_view_consecutive_failures{view=\"public.f@v1\"} 0");
        has(&text, "remige_feature_view_freshness_seconds{view=\"public.p@v1\"} NaN");
        has(&text, "remige_feature_view_overdue_seconds{view=\"public.p@v1\"} 0");
        session.execute("INSERT INTO p VALUES (1, '2026-01-01 13:09:59', 1)").await.unwrap();
        session.execute("MATERIALIZE FEATURE VIEW f").await.unwrap();
        let text = scrape(&mut shown).await;
        has(&text, "remige_feature_view_freshness_seconds{view=\"public.p@v1\"} 1");
        has(&text, "remige_feature_view_materialize_age_seconds{view=\"public.f@v1\"} 0");
        has(&text, "remige_feature_view_overdue_seconds{view=\"public.f@v1\"} 600");
        session.execute("DROP FEATURE VIEW p").await.unwrap();
        let text = scrape(&mut shown).await;
        has(&text, "remige_feature_view_freshness_seconds{view=\"public.p@v1\"} NaN");
        assert_eq!(shown.len(), 1);
    }

    #[tokio::test]
    async fn a_failing_view_is_overdue_while_its_next_try_waits() {
        let (engine, clock, _dir) = engine().await;
        let session = engine.session();
        for sql in [
            "CREATE ENTITY e KEY (k BIGINT)",
            "CREATE TABLE src AS SELECT 1 AS k, TIMESTAMP '2026-01-01 11:00:00' AS ts, 'x' AS v",
            "CREATE FEATURE VIEW f ENTITY e EVENT TIMESTAMP ts REFRESH EVERY INTERVAL '1 hour' AS SELECT k, ts, CAST(v AS BIGINT) AS v FROM src",
        ] {
            session.execute(sql).await.unwrap();
        }
        clock.advance(HOUR);
        assert!(session.execute("REFRESH FEATURE VIEW f").await.is_err());
        // the next try is 20 seconds away
        clock.advance(10 * SECOND);
        let list = measured(&engine).await.unwrap();
        assert!(list[0].standing.next_due() > Some(clock.now()));
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || show(&list, clock.now(), &mut HashSet::new()));
        let text = recorder.handle().render();
        for line in [
            "remige_feature_view_overdue_seconds{view=\"public.f@v1\"} 3610",
            "remige_feature_view_consecutive_failures{view=\"public.f@v1\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }
}
