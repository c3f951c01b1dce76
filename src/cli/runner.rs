//! Runs statements and writes what they answer.

use std::io::{self, Write};

use remige::clock;
use remige::error::{Error, Kind};
use remige::session::{Notice, Outcome, Session};

use super::interrupt::Interrupt;
use super::output::{Format, Layout, Stop, print, runs};
use super::target::{Started, Target, in_script};
use super::{note, tag};

/// Runs statements and writes what they answer.
pub struct Runner {
    pub target: Target,
    pub format: Format,
    /// In the shell: queries show at most this many rows, and say so.
    pub row_limit: Option<u64>,
    pub timing: bool,
    pub interrupt: Interrupt,
    pub layout: Layout,
    pub out: Box<dyn Write>,
}

/// The user has been told why; nothing more is to be run.
#[derive(Debug)]
pub struct Failed;

pub fn standard_output() -> Box<dyn Write> {
    Box::new(io::BufWriter::new(io::stdout()))
}

pub fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size().map(|(width, _)| width.0.into())
}

impl Runner {
    /// Runs the statements of `text` in order, up to the first that fails; `name` is where the text came from.
    pub async fn script(&mut self, text: &str, name: Option<&str>) -> Result<(), Failed> {
        let statements = Session::split(text).map_err(|e| tell(&e, text, name))?;
        for (sql, line, column) in statements {
            let interrupt = self.interrupt.clone();
            let clock = clock::stopwatch();
            let result = tokio::select! {
                result = self.statement(&sql) => result,
                () = interrupt.pressed() => Err(Stop::Statement(Error::cancelled("the statement was cancelled"))),
            };
            let flushed = self.out.flush();
            match result.and_then(|()| Ok(flushed?)) {
                Ok(()) => {}
                Err(Stop::Statement(e)) => {
                    if let Target::Local(session) = &self.target {
                        tell_notices(&session.notices());
                    }
                    let whole_input = name.is_none() && e.kind() == Kind::Cancelled;
                    let e = if whole_input { e } else { in_script(e, &sql, line, column) };
                    return Err(tell(&e, text, name));
                }
                Err(Stop::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => {
                    note("error: standard output was closed; later statements were not run");
                    return Err(Failed);
                }
                Err(Stop::Output(e)) => {
                    note(format!("error: cannot write to standard output: {e}"));
                    return Err(Failed);
                }
            }
            if self.timing {
                note(format!("Time: {:.1} ms", clock.elapsed().as_secs_f64() * 1e3));
            }
        }
        Ok(())
    }

    async fn statement(&mut self, sql: &str) -> Result<(), Stop> {
        let Started { outcome, may_be_cut } = self.target.start(sql).await?;
        match outcome {
            Outcome::Rows(rows) if self.format == Format::Table && runs::are_runs(&rows, &tag::tag(sql, 0)) => {
                runs::print(rows, &mut self.out).await?;
            }
            Outcome::Rows(rows) => {
                let limit = self.row_limit.filter(|_| may_be_cut);
                let printed = print(rows, self.format, self.layout, limit, &mut self.out).await?;
                if printed.cut {
                    note(format!(
                        "notice: only the first {} rows are shown; COPY (…) TO 'file' or `remige sql -c` gives all",
                        printed.rows
                    ));
                }
            }
            Outcome::Updated(rows) if self.format == Format::Table => note(tag::tag(sql, rows)),
            Outcome::Updated(_) => {}
        }
        tell_notices(&self.target.notices().await);
        Ok(())
    }

    /// The terminal may have another width by now.
    pub fn measure_terminal(&mut self) {
        if self.layout.width.is_some() {
            self.layout.width = terminal_width();
        }
    }

    /// Sends results to a file from now on; `None`: to standard output again.
    pub fn send_to(&mut self, file: Option<std::fs::File>) {
        // what a full disk did not take is lost, and the user is told
        if let Err(e) = self.out.flush() {
            note(format!("error: results were not written: {e}"));
        }
        self.layout.width = if file.is_some() { None } else { terminal_width() };
        self.out = match file {
            Some(file) => Box::new(io::BufWriter::new(file)),
            None => standard_output(),
        };
    }
}

fn tell(e: &Error, text: &str, name: Option<&str>) -> Failed {
    note(e.render(text, name));
    Failed
}

fn tell_notices(notices: &[Notice]) {
    for notice in notices {
        note(format!("{}: {}", notice.level, notice.message));
    }
}
