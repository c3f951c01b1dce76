//! Names of metrics and log fields, in one place so that dashboards can trust them.

pub const STATEMENTS: &str = "remige_statements_total";
pub const STATEMENT_SECONDS: &str = "remige_statement_seconds";
pub const LOOKUPS: &str = "remige_online_lookups_total";
pub const LOOKUP_KEYS: &str = "remige_online_lookup_keys_total";
pub const LOOKUP_STATUS: &str = "remige_online_lookup_status_total";
pub const REFRESH_ROWS: &str = "remige_refresh_rows_written_total";
pub const MATERIALIZE_ROWS: &str = "remige_materialize_rows_written_total";
pub const SESSIONS: &str = "remige_sessions";
