//! The command line: flags, output, shell. Statements themselves are the library's business.

mod args;
mod complete;
mod connect;
mod init;
mod interrupt;
mod output;
mod progress;
mod runner;
mod serve;
mod shell;
mod sql;
mod tag;
mod target;

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use remige::config::{self, Config, Flag};
use remige::error::Error;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use args::{Command, Common};

/// Deeply nested expressions of lookups need more stack than threads get by default.
const STACK_BYTES: usize = 8 << 20;

/// Why the process ends with something else than 0.
#[derive(Debug)]
pub enum Exit {
    /// 2
    Usage(String),
    /// 1
    Failed(Error),
    /// 1, and the user knows why.
    Told,
}

impl From<Error> for Exit {
    fn from(e: Error) -> Self {
        Exit::Failed(e)
    }
}

pub fn main() -> ExitCode {
    let (cli, inputs) = match args::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(e) => e.exit(),
    };
    let result = match cli.command {
        Command::Sql(args) => log("error").and_then(|()| {
            let config = match &args.connect {
                Some(_) => None,
                None => Some(settings(&args.common, args.flags())?),
            };
            sql::run(args, inputs, config)
        }),
        Command::Serve(args) => log("warn,remige=info").and_then(|()| settings(&args.common, args.flags())).and_then(serve::run),
        Command::Init { dir } => init::run(&dir).map_err(Exit::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit::Told) => ExitCode::from(1),
        Err(Exit::Failed(e)) => {
            note(e.render("", None));
            ExitCode::from(1)
        }
        Err(Exit::Usage(message)) => {
            note(format!("error: {message}\n\nFor more information, try 'remige --help'."));
            ExitCode::from(2)
        }
    }
}

/// Writes a line to standard error; that nobody listens there is no reason to stop.
fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn settings(common: &Common, flags: Result<Vec<Flag>, String>) -> Result<Config, Exit> {
    let flags = flags.map_err(Exit::Usage)?;
    let named = common.config.clone().or_else(|| std::env::var_os("REMIGE_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from));
    let wrong = |e: Error| {
        let hint = e.hint().map(|h| format!("\n  help: {h}")).unwrap_or_default();
        Exit::Usage(format!("{}{hint}", e.message()))
    };
    let file = config::read_file(named.as_deref()).map_err(wrong)?;
    let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.to_string_lossy().into_owned())));
    let loaded = config::load(file, variables, &flags).map_err(wrong)?;
    for warning in loaded.warnings {
        note(format!("warning: {warning}"));
    }
    Ok(loaded.config)
}

fn log(default: &str) -> Result<(), Exit> {
    let wanted = std::env::var("REMIGE_LOG").ok().filter(|v| !v.is_empty()).unwrap_or_else(|| {
        // these log every look at a table that is not there yet, and every lost race, as an error
        format!("{default},buoyant_kernel=off,delta_kernel=off,deltalake_core=off")
    });
    let filter = EnvFilter::try_new(&wanted).map_err(|e| Exit::Usage(format!("REMIGE_LOG: {e}")))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
    Ok(())
}

/// Ends the threads before the process ends. Work that was cancelled in the middle of a blocking call holds up the exit
/// for a moment only. Nothing is let go of while it ends (see `Workers::drop`).
fn end(runtime: Runtime) {
    runtime.shutdown_timeout(Duration::from_millis(500));
}

/// Answers clients and lookups, and listens to the terminal; statements have threads of their own.
fn runtime(threads: usize) -> Result<Runtime, Exit> {
    let built = Builder::new_multi_thread().worker_threads(threads.max(2)).thread_stack_size(STACK_BYTES).enable_all().build();
    built.map_err(|e| Exit::Failed(Error::from(e).context("cannot start threads")))
}
