//! `remige sql`: runs scripts statement by statement.

use std::io::{self, IsTerminal, Read};
use std::path::Path;

use remige::clock;
use remige::config::Config;
use remige::error::{Error, Result};
use remige::session::Engine;

use super::args::{Input, SqlArgs};
use super::connect::Remote;
use super::interrupt::Interrupt;
use super::output::{Format, Layout};
use super::runner::{Runner, standard_output, terminal_width};
use super::target::Target;
use super::{Exit, note, progress, shell};

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
