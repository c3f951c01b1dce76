//! Names of metrics and log fields, in one place so that dashboards can trust them.

pub const STATEMENTS: &str = "remige_statements_total";
pub const STATEMENT_SECONDS: &str = "remige_statement_seconds";
pub const LOOKUPS: &str = "remige_online_lookups_total";
pub const LOOKUP_KEYS: &str = "remige_online_lookup_keys_total";
/// Answers by status: `present`, `null_value`, `not_found`, `outside_max_age`; one per key asked for and item.
pub const LOOKUP_STATUS: &str = "remige_online_lookup_status_total";
/// From the keys to the columns, of one batch.
pub const LOOKUP_SECONDS: &str = "remige_online_lookup_seconds";
pub const LOOKUP_ERRORS: &str = "remige_online_lookup_errors_total";
/// Batched reads of the online store, and how long they took.
pub const STORE_ROUND_TRIPS: &str = "remige_online_store_round_trips_total";
pub const STORE_SECONDS: &str = "remige_online_store_seconds";
/// Keys that the cache of hot rows answered, and those that it asked the store for.
pub const ONLINE_CACHE_HITS: &str = "remige_online_cache_hits_total";
pub const ONLINE_CACHE_MISSES: &str = "remige_online_cache_misses_total";
pub const ONLINE_CACHE_BYTES: &str = "remige_online_cache_bytes";
pub const REFRESH_ROWS: &str = "remige_refresh_rows_written_total";
pub const MATERIALIZE_ROWS: &str = "remige_materialize_rows_written_total";
pub const SESSIONS: &str = "remige_sessions";
/// Runs that ended, by kind, view and status.
pub const RUNS: &str = "remige_runs_total";
/// Scheduled views that a server works on.
pub const SCHEDULE_RUNNING: &str = "remige_schedule_running";

// Of each feature view version. Seconds, but for the last.
pub const FRESHNESS: &str = "remige_feature_view_freshness_seconds";
pub const REFRESH_AGE: &str = "remige_feature_view_refresh_age_seconds";
pub const MATERIALIZE_AGE: &str = "remige_feature_view_materialize_age_seconds";
pub const OVERDUE: &str = "remige_feature_view_overdue_seconds";
pub const FAILURES: &str = "remige_feature_view_consecutive_failures";

// Of each feature view version that is served.
pub const ONLINE_GENERATION: &str = "remige_online_generation";
/// Delta version up to which the online rows are complete, and how many the table has beyond it.
pub const ONLINE_WATERMARK: &str = "remige_online_watermark";
pub const ONLINE_LAG: &str = "remige_online_lag_versions";

// Of the online store's servers together, where it has servers.
/// 1: all of them answer.
pub const ONLINE_UP: &str = "remige_online_store_up";
pub const ONLINE_MEMORY: &str = "remige_online_memory_bytes";
/// 0: without limit.
pub const ONLINE_MEMORY_LIMIT: &str = "remige_online_memory_limit_bytes";
/// Since the servers started.
pub const ONLINE_EVICTED: &str = "remige_online_evicted_keys";
