//! Compaction selection: the rule by which OPTIMIZE chooses the files that it writes again.

use std::sync::Arc;

use super::snapshot::DataFile;
use super::sorted_runs::sorted_runs;

/// Sorted runs of large files that a table may have: a reader merges as many cheaply.
const MAX_RUNS: usize = 4;

/// The files that one rewrite makes better; none: there is nothing to do.
///
/// - A file that does not carry `order` (another engine wrote it) is chosen.
/// - Small files, of less than half of `target_rows`, are chosen where there are two or more, or where something
///   else is chosen. So at most one small file is left, and the same rule finds nothing to do afterwards.
/// - Large files in order stay, unless they form more than [`MAX_RUNS`] runs that overlap: then the smallest runs are
///   chosen until no more are left. Where something is chosen, runs no larger than what was chosen so far join it:
///   each row is rewritten once per doubling of its run, not once per call.
pub fn files_to_compact(files: &[Arc<DataFile>], order: &[String], target_rows: usize) -> Vec<Arc<DataFile>> {
    let rows = |f: &Arc<DataFile>| f.rows.unwrap_or(0);
    let small = |f: &Arc<DataFile>| f.rows.is_none_or(|r| r < target_rows as u64 / 2);
    let (loose, large): (Vec<_>, Vec<_>) = files.iter().cloned().partition(|f| f.order != order || small(f));
    let mut chosen = if loose.len() > 1 || loose.iter().any(|f| f.order != order) { loose } else { vec![] };
    let mut sum: u64 = chosen.iter().map(rows).sum();
    let mut runs = sorted_runs(&large, |f| f.as_ref(), order);
    runs.sort_by_key(|run| std::cmp::Reverse(run.iter().map(rows).sum::<u64>()));
    while let Some(run) = runs.pop() {
        let size: u64 = run.iter().map(rows).sum();
        // with what is chosen written as one
        let left = runs.len() + 1 + usize::from(!chosen.is_empty());
        if left <= MAX_RUNS && (chosen.is_empty() || size > sum) {
            break;
        }
        sum += size;
        chosen.extend(run);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use datafusion::common::ScalarValue;

    use super::super::stats::{ColumnRange, Ranges};
    use super::*;

    fn file(name: &str, order: &[&str], rows: u64, keys: (i64, i64)) -> Arc<DataFile> {
        let range = ColumnRange { min: Some(ScalarValue::from(keys.0)), max: Some(ScalarValue::from(keys.1)), nulls: Some(0) };
        Arc::new(DataFile {
            path: name.into(),
            size: rows * 10,
            rows: Some(rows),
            order: order.iter().map(|c| c.to_string()).collect(),
            added: (1, 0),
            ahead: 0,
            modified_ms: 0,
            ranges: Ranges::from([("k".to_string(), range)]),
            has_deletions: false,
            is_partitioned: false,
        })
    }

    fn chosen(files: &[Arc<DataFile>]) -> Vec<String> {
        let mut names: Vec<String> = files_to_compact(files, &["k".to_string()], 100).iter().map(|f| f.path.clone()).collect();
        names.sort();
        names
    }

    #[test]
    fn small_files_are_chosen_where_there_are_two() {
        assert!(chosen(&[]).is_empty());
        assert!(chosen(&[file("a", &["k"], 3, (1, 9))]).is_empty());
        assert!(chosen(&[file("a", &["k"], 3, (1, 9)), file("b", &["k"], 100, (1, 9))]).is_empty(), "one small file may stay");
        assert_eq!(chosen(&[file("a", &["k"], 3, (1, 9)), file("b", &["k"], 100, (1, 9)), file("c", &["k"], 49, (1, 9))]), ["a", "c"]);
    }

    #[test]
    fn unsorted_files_are_always_chosen_and_take_a_small_one_along() {
        assert_eq!(chosen(&[file("a", &[], 500, (1, 9))]), ["a"]);
        assert_eq!(chosen(&[file("a", &["v"], 80, (1, 9)), file("b", &["k"], 1, (1, 9)), file("c", &["k"], 90, (1, 9))]), ["a", "b"]);
    }

    #[test]
    fn overlapping_runs_are_merged_smallest_first() {
        let run = |n: usize, rows: u64| file(&format!("r{n}"), &["k"], rows, (1, 9));
        let four: Vec<_> = (0..4).map(|n| run(n, 100)).collect();
        assert!(chosen(&four).is_empty());
        let mut six = vec![run(9, 100_000)];
        six.extend((0..5).map(|n| run(n, 100)));
        assert_eq!(chosen(&six), ["r0", "r1", "r2", "r3", "r4"], "the great run is not worth it");
        // files that follow one another are one run, however many they are
        let line: Vec<_> = (0..50).map(|n| file(&format!("r{n}"), &["k"], 100, (n * 10, n * 10 + 9))).collect();
        assert!(chosen(&line).is_empty());
    }

    #[test]
    fn a_small_rewrite_takes_no_large_run_along() {
        let mut files = vec![file("a", &["k"], 10, (1, 9)), file("b", &["k"], 10, (1, 9)), file("c", &["k"], 60, (1, 9))];
        assert_eq!(chosen(&files), ["a", "b"]);
        files.extend((0..5).map(|n| file(&format!("d{n}"), &["k"], 10, (1, 9))));
        assert_eq!(chosen(&files), ["a", "b", "c", "d0", "d1", "d2", "d3", "d4"]);
    }
}
