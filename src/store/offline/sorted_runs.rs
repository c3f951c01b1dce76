//! Which files follow one another.

use std::cmp::Ordering;

use datafusion::common::ScalarValue;

use super::snapshot::DataFile;

/// Puts files one behind another where all keys of one come before all keys of the next. Compared are the leading
/// columns of `order` whose bounds are known and without NULLs in all files; none: every file is a run by itself.
pub(super) fn sorted_runs<T: Clone>(files: &[T], file: impl Fn(&T) -> &DataFile, order: &[String]) -> Vec<Vec<T>> {
    let known = |c: &&String| {
        files.iter().all(|f| file(f).range(c).is_some_and(|r| r.nulls == Some(0)) && file(f).min(c).is_some() && file(f).max(c).is_some())
    };
    let compared: Vec<&String> = order.iter().take_while(known).collect();
    if compared.is_empty() {
        return files.iter().map(|f| vec![f.clone()]).collect();
    }
    let bounds = |f: &T, max: bool| -> Vec<ScalarValue> {
        compared.iter().filter_map(|c| if max { file(f).max(c) } else { file(f).min(c) }.cloned()).collect()
    };
    let mut by_min: Vec<(Vec<ScalarValue>, &T)> = files.iter().map(|f| (bounds(f, false), f)).collect();
    by_min.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal));
    let mut runs: Vec<(Vec<ScalarValue>, Vec<T>)> = vec![];
    for (min, file) in by_min {
        match runs.iter_mut().find(|(max, _)| max.partial_cmp(&min) == Some(Ordering::Less)) {
            Some((max, run)) => {
                *max = bounds(file, true);
                run.push(file.clone());
            }
            None => runs.push((bounds(file, true), vec![file.clone()])),
        }
    }
    runs.into_iter().map(|(_, run)| run).collect()
}
