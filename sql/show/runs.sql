-- SHOW RUNS | LIKE object | not scoped
SELECT run_id, kind, object, version, started_at, finished_at, status, rows_read, rows_written, rows_skipped, rows_rejected, bytes_written,
  delta_version, error
FROM system.runs
ORDER BY started_at DESC
