//! What EXPLAIN ANALYZE shows of a join.

use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, Time};

#[derive(Debug, Clone)]
pub struct Metrics {
    pub label_rows: Count,
    /// Rows of views whose keys were looked at.
    pub feature_rows: Count,
    /// Of these, rows that came in runs of one key and were merged.
    pub merged_rows: Count,
    /// Labels with a row, over all views.
    pub matched_rows: Count,
    pub output_rows: Count,
    /// What of the views' files was read, and what was not because no label sees a row of it. Files: with and without
    /// rows to read. Row groups: of the files whose footers were read. Pages: of key and time columns in row groups that
    /// were not left out by their own bounds. Rows: of all these, as far as their number is known.
    pub files_read: Count,
    pub files_pruned: Count,
    pub row_groups_read: Count,
    pub row_groups_pruned: Count,
    pub pages_pruned: Count,
    pub rows_pruned: Count,
    /// Chunks of labels: more than one where the memory limit did not let all in at once.
    pub label_chunks: Count,
    /// Processor time of all tasks, per phase.
    pub index_time: Time,
    pub probe_time: Time,
    /// Elapsed.
    pub fetch_time: Time,
    pub output_time: Time,
    pub peak_memory: Gauge,
}

impl Metrics {
    /// Those of one output partition.
    pub fn new(set: &ExecutionPlanMetricsSet, part: usize) -> Self {
        let counter = |name: &'static str| MetricBuilder::new(set).counter(name, part);
        let time = |name: &'static str| MetricBuilder::new(set).subset_time(name, part);
        Metrics {
            label_rows: counter("label_rows"),
            feature_rows: counter("feature_rows"),
            merged_rows: counter("merged_rows"),
            matched_rows: counter("matched_rows"),
            output_rows: MetricBuilder::new(set).output_rows(part),
            files_read: counter("files_read"),
            files_pruned: counter("files_pruned"),
            row_groups_read: counter("row_groups_read"),
            row_groups_pruned: counter("row_groups_pruned"),
            pages_pruned: counter("pages_pruned"),
            rows_pruned: counter("rows_pruned"),
            label_chunks: counter("label_chunks"),
            index_time: time("index_time"),
            probe_time: time("probe_time"),
            fetch_time: time("fetch_time"),
            output_time: time("output_time"),
            peak_memory: MetricBuilder::new(set).gauge("peak_memory_bytes", part),
        }
    }
}
