use super::*;
use crate::clock::{DAY, HOUR, MINUTE, SECOND};
use crate::model::About;

const NOON: Micros = 1_767_268_800 * SECOND; // 2026-01-01T12:00:00Z

fn view(every: Option<Micros>, online: bool) -> FeatureView {
    FeatureView {
        name: Name::new("public", "f"),
        version: 1,
        table_id: "id".into(),
        location: "features/f".into(),
        online_id: 0,
        entities: vec![],
        keys: vec![],
        event_timestamp: "ts".into(),
        event_zone: None,
        created_timestamp: None,
        features: vec![],
        ttl: None,
        lookback: 0,
        refresh_every: every,
        suspended: false,
        online,
        query: Some("SELECT 1".into()),
        query_schema: "public".into(),
        reads: vec![],
        snapshot: false,
        windowed: None,
        about: About::default(),
        created_at: NOON - 10 * MINUTE,
    }
}

/// Ended a second after it began; a refresh up to its beginning.
fn run(kind: &str, started_at: Micros, status: RunStatus) -> Run {
    Run {
        run_id: format!("{kind} {started_at}"),
        kind: kind.into(),
        object: "public.f".into(),
        version: Some(1),
        started_at,
        finished_at: Some(started_at + SECOND),
        status,
        until: (kind == "refresh").then_some(started_at),
        error: (status == RunStatus::Failed).then(|| format!("{kind} failed")),
        location: Some("features/f".into()),
        ..Run::default()
    }
}

fn ok(kind: &str, at: Micros) -> Run {
    run(kind, at, RunStatus::Succeeded)
}

fn bad(kind: &str, at: Micros) -> Run {
    run(kind, at, RunStatus::Failed)
}

fn standing(view: &FeatureView, mut runs: Vec<Run>) -> Standing {
    runs.sort_by_key(|r| std::cmp::Reverse(r.started_at));
    History::new(&runs).standing(view, &ScheduleSettings::default())
}

fn refresh_due(runs: Vec<Run>) -> Option<Micros> {
    standing(&view(Some(HOUR), false), runs).due_from(Step::Refresh)
}

#[test]
fn a_tick_makes_due_and_missed_ticks_count_as_one() {
    assert_eq!(refresh_due(vec![]), Some(NOON - 10 * MINUTE), "a view that never ran is due from its creation on");
    assert_eq!(refresh_due(vec![ok("refresh", NOON)]), Some(NOON + HOUR), "a run at the tick itself is of that tick");
    assert_eq!(refresh_due(vec![ok("refresh", NOON - 1)]), Some(NOON));
    assert_eq!(refresh_due(vec![ok("refresh", NOON + 59 * MINUTE)]), Some(NOON + HOUR), "ticks do not move with the runs");
    let late = NOON + 5 * HOUR + MINUTE;
    let after = |runs| standing(&view(Some(HOUR), false), runs);
    assert!(after(vec![ok("refresh", NOON)]).is_due(Step::Refresh, late));
    assert_eq!(after(vec![ok("refresh", NOON), ok("refresh", late)]).next_due(), Some(NOON + 6 * HOUR), "five ticks, one run");
    assert_eq!(tick_after(-1, HOUR), 0);
    assert_eq!(tick_after(Micros::MAX, HOUR), Micros::MAX);
    let daily = standing(&view(Some(DAY), false), vec![ok("refresh", NOON)]);
    assert_eq!(daily.next_due(), Some(NOON + 12 * HOUR), "midnight UTC");
}

#[test]
fn only_complete_runs_count() {
    let range = |run: Run| Run { until: None, ..run };
    let earlier = Run { until: Some(NOON - 30 * DAY), ..ok("refresh", NOON + 1) };
    let first = ok("refresh", NOON - HOUR);
    assert_eq!(refresh_due(vec![first.clone(), range(ok("refresh", NOON + 1))]), Some(NOON), "a range");
    assert_eq!(refresh_due(vec![first.clone(), range(bad("refresh", NOON + 1))]), Some(NOON), "a range that failed");
    assert!(refresh_due(vec![first.clone(), earlier]) <= Some(NOON), "a back-fill as of an earlier instant");
    assert_eq!(refresh_due(vec![first.clone(), run("refresh", NOON + 1, RunStatus::Running)]), Some(NOON));
    assert_eq!(refresh_due(vec![first.clone(), run("refresh", NOON + 1, RunStatus::Cancelled)]), Some(NOON));
    assert_eq!(refresh_due(vec![first.clone(), ok("optimize", NOON + 1)]), Some(NOON));
    let other = Run { location: Some("features/dropped".into()), ..ok("refresh", NOON + 1) };
    assert_eq!(refresh_due(vec![first, other]), Some(NOON), "a view of the same name that was dropped");
}

#[test]
fn failures_in_a_row_back_off_up_to_a_limit() {
    let s = |runs| standing(&view(Some(HOUR), false), runs);
    let first = ok("refresh", NOON - HOUR);
    let mut runs = vec![first];
    let mut at = NOON;
    let mut pauses = vec![];
    for n in 1..=9 {
        runs.push(bad("refresh", at));
        let now = s(runs.clone());
        assert_eq!((now.failures, now.last_error.as_deref()), (n, Some("refresh failed")));
        assert_eq!(now.refreshed_at, Some(NOON - HOUR + SECOND));
        let due = now.next_due().unwrap();
        pauses.push((due - at - SECOND) / SECOND);
        at = due;
    }
    assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
    runs.push(ok("refresh", at));
    let now = s(runs.clone());
    assert_eq!((now.failures, now.last_error, now.refreshed_at), (0, None, Some(at + SECOND)));
    // a failure just before a tick does not bring the next try forward
    assert_eq!(
        refresh_due(vec![ok("refresh", NOON - HOUR), bad("refresh", NOON + 59 * MINUTE + 50 * SECOND)]),
        Some(NOON + HOUR + 21 * SECOND)
    );
    // nor does one long ago put the tick off
    assert_eq!(refresh_due(vec![ok("refresh", NOON - HOUR), bad("refresh", NOON - 50 * MINUTE)]), Some(NOON));
    assert_eq!(pause(usize::MAX, &ScheduleSettings::default()), HOUR);
    let small_limit = ScheduleSettings { retry_max: SECOND, ..ScheduleSettings::default() };
    assert_eq!(pause(3, &small_limit), 30 * SECOND, "the first pause is the least");
}

#[test]
fn a_failing_view_is_overdue_while_its_next_try_waits() {
    let failing = (1..=72).map(|hour| bad("refresh", NOON + hour * HOUR)).chain([ok("refresh", NOON)]).collect();
    let (s, now) = (standing(&view(Some(HOUR), false), failing), NOON + 72 * HOUR + 30 * MINUTE);
    assert!(!s.is_due(Step::Refresh, now));
    assert_eq!((s.next_due(), s.overdue(now)), (Some(NOON + 73 * HOUR + SECOND), 71 * HOUR + 30 * MINUTE));
    let s = standing(&view(Some(HOUR), false), vec![bad("refresh", NOON)]);
    assert_eq!(s.overdue(NOON + 2 * SECOND), 10 * MINUTE + 2 * SECOND, "one that never succeeded, since its creation");
    let s = standing(&view(Some(HOUR), true), vec![ok("refresh", NOON), bad("materialize", NOON + MINUTE)]);
    assert_eq!(s.overdue(NOON + MINUTE + 2 * SECOND), MINUTE + SECOND, "since the end of the REFRESH");
    let early = standing(&view(Some(HOUR), false), vec![ok("refresh", NOON), bad("refresh", NOON + 50 * MINUTE)]);
    assert_eq!((early.overdue(NOON + 59 * MINUTE), early.overdue(NOON + 61 * MINUTE)), (0, MINUTE));
}

#[test]
fn online_views_are_materialized_after_each_complete_refresh() {
    let of = |runs| standing(&view(Some(HOUR), true), runs);
    let due = |runs| of(runs).due_from(Step::Materialize);
    assert_eq!(due(vec![]), None, "nothing to load yet");
    assert_eq!(due(vec![ok("refresh", NOON)]), Some(NOON + SECOND));
    assert_eq!(due(vec![ok("refresh", NOON), ok("materialize", NOON + SECOND)]), None);
    assert_eq!(due(vec![ok("refresh", NOON), run("materialize", NOON + SECOND, RunStatus::Running)]), Some(NOON + SECOND));
    let before = vec![ok("materialize", NOON - MINUTE), ok("refresh", NOON)];
    assert_eq!(due(before), Some(NOON + SECOND));
    let began_too_early = vec![Run { finished_at: Some(NOON + 9 * SECOND), ..ok("refresh", NOON) }, ok("materialize", NOON + 5 * SECOND)];
    assert_eq!(due(began_too_early), Some(NOON + 9 * SECOND));
    let s = of(vec![ok("refresh", NOON), bad("materialize", NOON + SECOND), bad("materialize", NOON + MINUTE)]);
    assert_eq!(s.due_from(Step::Materialize), Some(NOON + MINUTE + SECOND + MINUTE));
    assert_eq!((s.failures, s.last_error.as_deref()), (2, Some("materialize failed")));
    assert_eq!(s.due_from(Step::Refresh), Some(NOON + HOUR), "a store that is away does not hold the refresh up");
    assert_eq!(standing(&view(Some(HOUR), false), vec![ok("refresh", NOON)]).due_from(Step::Materialize), None);
}

#[test]
fn without_a_schedule_nothing_is_due_and_the_record_is_still_told() {
    let suspended = FeatureView { suspended: true, ..view(Some(HOUR), true) };
    let push = FeatureView { query: None, ..view(Some(HOUR), true) };
    for v in [view(None, true), view(Some(0), true), suspended, push] {
        let s = standing(&v, vec![ok("refresh", NOON), bad("refresh", NOON + HOUR)]);
        assert_eq!((s.next_due(), s.failures, s.refreshed_at), (None, 1, Some(NOON + SECOND)));
        assert_eq!(s.overdue(Micros::MAX), 0);
        assert!(!Step::ALL.iter().any(|step| s.is_due(*step, Micros::MAX)));
    }
}
