//! What the online store serves, and how its servers are, as gauges.

use std::collections::HashSet;

use crate::error::{Kind, Result};
use crate::services::served::{self, Served};
use crate::session::Engine;
use crate::store::online::Health;
use crate::telemetry::{ONLINE_EVICTED, ONLINE_GENERATION, ONLINE_LAG, ONLINE_MEMORY, ONLINE_MEMORY_LIMIT, ONLINE_UP, ONLINE_WATERMARK};

const OF_VIEWS: [&str; 3] = [ONLINE_GENERATION, ONLINE_WATERMARK, ONLINE_LAG];

/// The views that gauges were set of.
#[derive(Debug, Default)]
pub(super) struct OnlineGauges {
    shown: HashSet<String>,
    failing: bool,
}

impl OnlineGauges {
    pub async fn measure(&mut self, engine: &Engine) {
        match health(engine).await {
            Ok(None) => {}
            Ok(Some(health)) => show_health(&health),
            Err(e) => self.failed(&e),
        }
        match served_now(engine).await {
            Ok(list) => {
                self.failing = false;
                self.show(&list);
            }
            Err(e) => {
                self.failed(&e);
                self.show(&[]);
            }
        }
    }

    /// Said once: the store may be gone for long.
    fn failed(&mut self, e: &crate::error::Error) {
        // a warehouse may be without an online store
        if !std::mem::replace(&mut self.failing, true) && e.kind() != Kind::Invalid {
            tracing::warn!(error = %e, "the online store could not be measured");
        }
    }

    /// Sets the gauges. What cannot be told, and what is left of dropped views, is NaN.
    fn show(&mut self, list: &[Served]) {
        let now: HashSet<String> = list.iter().map(|s| s.view.clone()).collect();
        for view in self.shown.difference(&now) {
            OF_VIEWS.iter().for_each(|name| metrics::gauge!(*name, "view" => view.clone()).set(f64::NAN));
        }
        let number = |n: Option<u64>| n.map_or(f64::NAN, |n| n as f64);
        for s in list {
            let values = [f64::from(s.generation), number(s.watermark), number(s.lag)];
            for (name, value) in OF_VIEWS.iter().zip(values) {
                metrics::gauge!(*name, "view" => s.view.clone()).set(value);
            }
        }
        self.shown = now;
    }
}

async fn health(engine: &Engine) -> Result<Option<Health>> {
    engine.services().online().await?.health().await
}

async fn served_now(engine: &Engine) -> Result<Vec<Served>> {
    let catalog = engine.services().registry.snapshot().await?;
    served::all(engine.services(), &catalog).await
}

fn show_health(health: &Health) {
    metrics::gauge!(ONLINE_UP).set(if health.connected { 1.0 } else { 0.0 });
    let known = |n: u64| if health.connected { n as f64 } else { f64::NAN };
    metrics::gauge!(ONLINE_EVICTED).set(known(health.evicted_keys));
    metrics::gauge!(ONLINE_MEMORY).set(known(health.used_memory));
    metrics::gauge!(ONLINE_MEMORY_LIMIT).set(known(health.maxmemory));
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::clock::{Clock, SECOND};
    use crate::config::Config;
    use crate::store::online::Place;

    const NOON: i64 = 1_767_268_800 * SECOND; // 2026-01-01T12:00:00Z

    #[tokio::test]
    async fn gauges_tell_what_is_served_and_how_the_servers_are() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::redis();
        let config = Config { warehouse: dir.path().join("w").display().to_string(), online: place.url.clone(), ..Config::default() };
        let engine = Engine::open(config, Clock::fixed(NOON)).await.unwrap();
        let session = engine.session();
        for sql in [
            "CREATE ENTITY e KEY (k BIGINT)",
            "CREATE FEATURE VIEW f ENTITY e EVENT TIMESTAMP ts ONLINE AS SELECT 1 AS k, TIMESTAMP '2026-01-01 11:58:30' AS ts, 5 AS v",
            "CREATE FEATURE VIEW idle (v BIGINT) ENTITY e EVENT TIMESTAMP ts ONLINE",
            "REFRESH FEATURE VIEW f",
            "MATERIALIZE FEATURE VIEW f",
            "REFRESH FEATURE VIEW f",
        ] {
            session.execute(sql).await.unwrap();
        }
        let recorder = PrometheusBuilder::new().build_recorder();
        let mut gauges = OnlineGauges::default();
        let (list, health) = (served_now(&engine).await.unwrap(), health(&engine).await.unwrap().unwrap());
        let lag = list[0].lag.unwrap();
        assert_eq!(list.len(), 1, "nothing is served of a view without rows: {list:?}");
        let mut scrape = |list: &[Served], health: &Health| {
            metrics::with_local_recorder(&recorder, || {
                gauges.show(list);
                show_health(health);
            });
            recorder.handle().render()
        };
        let has = |text: &str, line: &str| assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        let text = scrape(&list, &health);
        has(&text, "remige_online_generation{view=\"public.f@v1\"} 1");
        has(&text, &format!("remige_online_lag_versions{{view=\"public.f@v1\"}} {lag}"));
        has(&text, "remige_online_store_up 1");
        has(&text, "remige_online_evicted_keys 0");
        assert!(!text.contains("remige_online_memory_bytes 0\n"), "{text}");
        session.execute("MATERIALIZE FEATURE VIEW f FULL").await.unwrap();
        let list = served_now(&engine).await.unwrap();
        let text = scrape(&list, &health);
        has(&text, "remige_online_generation{view=\"public.f@v1\"} 2");
        has(&text, "remige_online_lag_versions{view=\"public.f@v1\"} 0");
        let text = scrape(&[], &Health::default());
        has(&text, "remige_online_generation{view=\"public.f@v1\"} NaN");
        has(&text, "remige_online_store_up 0");
        has(&text, "remige_online_memory_bytes NaN");
    }
}
