//! Progress bars on standard error.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanCount, MultiProgress, ProgressBar as Bar, ProgressDrawTarget, ProgressState, ProgressStyle};
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
            None => (Bar::new_spinner(), "{msg} {spinner} {rows} ({elapsed})"),
        };
        let bar = self.0.add(bar);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rows", rows));
        }
        bar.set_message(name.to_string());
        bar.enable_steady_tick(Duration::from_millis(250));
        Box::new(Shown(bar))
    }
}

/// A window or an aggregate reads all of its input before it gives the first row.
fn rows(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let rows = state.pos();
    // a terminal that takes nothing more needs no bar
    let _ = match rows {
        0 => write!(out, "computing, no rows yet"),
        _ => write!(out, "{} rows, {:.0}/s", HumanCount(rows), state.per_sec()),
    };
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
