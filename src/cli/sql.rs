//! `remige sql`: runs scripts statement by statement.

use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use remige::clock;
use remige::config::Config;
use remige::error::{Error, Kind, Result};
use remige::session::{Engine, Notice, Outcome, Session};

use super::args::{Input, SqlArgs};
use super::connect::Remote;
use super::interrupt::Interrupt;
use super::output::{Format, Layout, Stop, print, runs};
use super::target::{Started, Target, in_script};
use super::{Exit, note, progress, shell, tag};

/// Runs statements and writes what they answer.
pub struct Runner {
    pub target: Target,
    pub format: Format,
    /// In the shell: queries show at most this many rows, and say so.
    pub row_limit: Option<u64>,
    pub timing: bool,
    pub interrupt: Interrupt,
    pub layout: Layout,
    out: Box<dyn Write>,
}

/// The user has been told why; nothing more is to be run.
#[derive(Debug)]
pub struct Failed;

/// One named text of SQL.
struct Script {
    name: Option<String>,
    text: String,
}

pub fn run(args: SqlArgs, inputs: Vec<Input>, config: Option<Config>) -> Result<(), Exit> {
    let on_terminal = io::stdout().is_terminal();
    if args.format == Format::Arrow && on_terminal {
        return Err(Exit::Usage("--format arrow writes binary data: send it to a file or a program".into()));
    }
    let interactive = inputs.is_empty() && io::stdin().is_terminal() && on_terminal;
    let scripts = if interactive { Vec::new() } else { read_all(inputs)? };
    let runtime = super::runtime(config.as_ref().map_or(2, |c| c.threads))?;
    let (target, interrupt) = runtime.block_on(async {
        let interrupt = Interrupt::listen();
        tokio::select! {
            target = open(&args, config) => target.map(|t| (t, interrupt.clone())),
            () = interrupt.pressed() => Err(Error::cancelled("cancelled")),
        }
    })?;
    let mut runner = Runner {
        target,
        format: args.format,
        row_limit: None,
        timing: false,
        interrupt,
        layout: Layout::default(),
        out: standard_output(),
    };
    runner.layout.width = on_terminal.then(terminal_width).flatten();
    let result = if interactive {
        shell::run(&mut runner, &runtime)
    } else {
        runtime.block_on(async {
            for script in &scripts {
                if runner.script(&script.text, script.name.as_deref()).await.is_err() {
                    return Err(Exit::Told);
                }
            }
            Ok(())
        })
    };
    runtime.block_on(runner.target.close());
    super::end(runtime);
    result
}

fn standard_output() -> Box<dyn Write> {
    Box::new(io::BufWriter::new(io::stdout()))
}

fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size().map(|(width, _)| width.0.into())
}

async fn open(args: &SqlArgs, config: Option<Config>) -> Result<Target> {
    if let Some(address) = &args.connect {
        let mut remote = Remote::connect(address, args.tls_ca.clone()).await?;
        if let Some(schema) = &args.schema {
            remote.execute(&format!("USE \"{}\"", schema.replace('"', "\"\""))).await.map_err(|e| e.context("--schema"))?;
        }
        return Ok(Target::Remote(Box::new(remote)));
    }
    if let Some(config) = &config
        && is_new(&config.warehouse)
    {
        note(format!("notice: there is no warehouse at {}; a new one is made", config.warehouse));
    }
    let bars = progress::on_terminal(io::stderr().is_terminal());
    let engine = Engine::open_with(config.unwrap_or_default(), clock::Clock::system(), bars).await?;
    Ok(Target::Local(engine.session()))
}

/// Whether a local path holds no warehouse yet. A misspelt one should not go unseen.
fn is_new(warehouse: &str) -> bool {
    !warehouse.contains("://") && !Path::new(warehouse).join("_remige").exists()
}

/// All scripts are read before the first is run, so that a misspelt file name changes nothing.
fn read_all(inputs: Vec<Input>) -> Result<Vec<Script>, Exit> {
    let inputs = if inputs.is_empty() { vec![Input::File("-".into())] } else { inputs };
    let read = |input| match input {
        Input::Text(text) => Ok(Script { name: Some("-c".into()), text }),
        Input::File(path) if path == Path::new("-") => {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).map_err(|e| Exit::Usage(format!("standard input: {e}")))?;
            script("<stdin>", bytes)
        }
        Input::File(path) => {
            let name = path.display().to_string();
            let bytes = std::fs::read(&path).map_err(|e| Exit::Usage(format!("cannot read {name}: {e}")))?;
            script(&name, bytes)
        }
    };
    inputs.into_iter().map(read).collect()
}

fn script(name: &str, bytes: Vec<u8>) -> Result<Script, Exit> {
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        Exit::Usage(format!("{name} is not UTF-8 text (line {line})"))
    })?;
    // Editors on Windows put a byte-order mark in front.
    let text = text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text);
    Ok(Script { name: Some(name.into()), text })
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
