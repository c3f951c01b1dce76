//! Progress bars on standard error.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar as Bar, ProgressDrawTarget, ProgressStyle};
use remige::progress::{Progress, ProgressBar, ProgressSink};

struct Bars(MultiProgress);

struct Shown(Bar);

/// Bars on standard error, or nothing where that is no terminal.
pub fn on_terminal(terminal: bool) -> Progress {
    if terminal {
        Progress::new(Arc::new(Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)))))
    } else {
        Progress::default()
    }
}

impl ProgressSink for Bars {
    fn start(&self, name: &str, total: Option<u64>) -> Box<dyn ProgressBar> {
        let (bar, template) = match total {
            Some(total) => (Bar::new(total), "{msg} {bar:30} {human_pos}/{human_len} ({per_sec}, {eta})"),
            None => (Bar::new_spinner(), "{msg} {spinner} {human_pos} ({per_sec}, {elapsed})"),
        };
        let bar = self.0.add(bar);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(name.to_string());
        bar.enable_steady_tick(Duration::from_millis(250));
        Box::new(Shown(bar))
    }
}

impl ProgressBar for Shown {
    fn advance(&self, by: u64) {
        self.0.inc(by);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
