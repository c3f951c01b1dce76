//! How long work tells whoever watches how far it is. Without a watcher nothing happens.

use std::fmt;
use std::sync::Arc;

/// Something that can show progress: a terminal, a log, a test.
pub trait ProgressSink: Send + Sync {
    /// Begins to show one piece of work; `total` is its size where known.
    fn start(&self, name: &str, total: Option<u64>) -> Box<dyn ProgressBar>;
}

/// One piece of work being shown. Dropping it ends it.
pub trait ProgressBar: Send + Sync {
    fn advance(&self, by: u64);
}

/// A handle to the watcher; clones share it. The default shows nothing.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn ProgressSink>>);

/// Work under way. It ends with `finish` or, when the work fails or is cancelled, by being dropped.
pub struct Task(Option<Box<dyn ProgressBar>>);

impl Progress {
    pub fn new(sink: Arc<dyn ProgressSink>) -> Self {
        Progress(Some(sink))
    }

    /// Starts a task, for instance `("REFRESH public.user_features", Some(rows))`.
    pub fn start(&self, name: &str, total: Option<u64>) -> Task {
        Task(self.0.as_ref().map(|sink| sink.start(name, total)))
    }
}

impl Task {
    pub fn advance(&self, by: u64) {
        if let Some(bar) = &self.0 {
            bar.advance(by);
        }
    }

    pub fn finish(self) {}
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress(shown)" } else { "Progress(none)" })
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl ProgressSink for Log {
        fn start(&self, name: &str, total: Option<u64>) -> Box<dyn ProgressBar> {
            self.0.lock().push(format!("start {name} {total:?}"));
            Box::new(self.clone())
        }
    }
    impl ProgressBar for Log {
        fn advance(&self, by: u64) {
            self.0.lock().push(format!("+{by}"));
        }
    }

    #[test]
    fn the_watcher_sees_what_the_work_reports() {
        let log = Log::default();
        let task = Progress::new(Arc::new(log.clone())).start("REFRESH v", Some(10));
        task.advance(4);
        task.finish();
        assert_eq!(*log.0.lock(), ["start REFRESH v Some(10)", "+4"]);
    }

    #[test]
    fn nobody_needs_to_watch() {
        let progress = Progress::default();
        progress.start("x", None).advance(1);
        assert_eq!(format!("{progress:?}"), "Progress(none)");
    }
}
