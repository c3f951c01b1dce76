//! Runs on record.

mod recording;

use self::recording::{GIVEN_UP, Recording};
use super::{Services, boxed};
use crate::catalog::{Run, RunStatus};
use crate::clock::{Micros, new_id};
use crate::error::{Kind, Result};
use crate::model::FeatureView;

/// Records a run around its work: "running" first, then how it ended, also where it is dropped half-way.
pub async fn recorded<F>(services: &Services, kind: &'static str, view: &FeatureView, work: impl FnOnce(Run) -> F) -> Result<Run>
where
    F: Future<Output = Result<Run>> + Send,
{
    recorded_until(services, kind, view, None, work).await
}

/// As `recorded`; `until`: the instant that a refresh brings the view up to.
pub async fn recorded_until<F>(
    services: &Services,
    kind: &'static str,
    view: &FeatureView,
    until: Option<Micros>,
    work: impl FnOnce(Run) -> F,
) -> Result<Run>
where
    F: Future<Output = Result<Run>> + Send,
{
    let started = Run {
        run_id: new_id(),
        kind: kind.to_string(),
        object: view.name.to_string(),
        version: Some(view.version),
        started_at: services.clock.now(),
        location: Some(view.location.clone()),
        process: Some(crate::catalog::runs::this_process()),
        until,
        ..Default::default()
    };
    let recording = Recording::begin(services, view, &started).await?;
    let ended = boxed(work(started.clone())).await;
    let finished_at = Some(services.clock.now());
    match ended {
        Ok(run) => {
            let run = Run { finished_at, status: RunStatus::Succeeded, ..run };
            recording.end(&run).await?;
            Ok(run)
        }
        Err(e) => {
            let (status, why) = match e.kind() {
                Kind::Cancelled => (RunStatus::Cancelled, GIVEN_UP.to_string()),
                _ => (RunStatus::Failed, e.to_string()),
            };
            let failed = Run { finished_at, status, error: Some(why), ..started };
            if let Err(second) = recording.end(&failed).await {
                tracing::error!(error = %second, run_id = %failed.run_id, "a failed run could not be recorded");
            }
            Err(e)
        }
    }
}
