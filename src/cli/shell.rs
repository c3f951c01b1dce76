//! The interactive shell.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use remige::error::{Error, Result};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use tokio::runtime::Runtime;

use super::complete::{META, ShellHelper};
use super::output::Format;
use super::sql::Runner;
use super::target::Target;
use super::{Exit, note};

/// Queries show at most this many rows here.
const ROW_LIMIT: u64 = 1_000;
/// A completion that takes longer than this is none.
const NAMES_TIMEOUT: Duration = Duration::from_secs(2);
const HISTORY_LINES: usize = 10_000;

const HELP: &str = "\
Statements end with ; and may span lines. Tab completes keywords and names, Ctrl-C cancels, Ctrl-D leaves.
  \\d             tables, views and feature views
  \\d NAME        columns of one of them
  \\format [F]    how results are written: table, csv, json
  \\timing        show how long statements take, on or off
  \\q             leave
  \\?             this help";

enum Next {
    Go,
    Leave,
}

/// Reads and runs statements until the user leaves. A failed statement is no failure of the shell.
pub fn run(runner: &mut Runner, runtime: &Runtime) -> std::result::Result<(), Exit> {
    runner.row_limit = Some(ROW_LIMIT);
    note(format!("remige {}: statements end with ;  help: \\?  leave: \\q", env!("CARGO_PKG_VERSION")));
    let history = history_file();
    let runner = RefCell::new(runner);
    let helper = ShellHelper::new(Box::new(|| names(&mut runner.borrow_mut().target, runtime)));
    let mut editor = editor(helper).map_err(|e| Exit::Failed(Error::internal(format!("the terminal: {e}"))))?;
    if let Some(file) = &history {
        // There is none before the first session.
        let _ = editor.load_history(file);
    }
    loop {
        // Before the line is read: from the moment it is entered, Ctrl-C is meant for its statement.
        runner.borrow().interrupt.reset();
        let line = match editor.readline("remige> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(e) => return Err(Exit::Failed(Error::internal(format!("the terminal: {e}")))),
        };
        if line.trim().is_empty() {
            continue;
        }
        // A statement with a secret can be kept out of the history by a space in front.
        let _ = editor.add_history_entry(line.trim_end());
        let mut runner = runner.borrow_mut();
        match line.trim().strip_prefix('\\') {
            Some(command) => {
                if let Next::Leave = meta(&mut runner, runtime, command) {
                    break;
                }
            }
            // The user has been told, and may go on.
            None => drop(runtime.block_on(runner.script(&line, None))),
        }
        drop(runner);
        if let Some(helper) = editor.helper() {
            helper.forget_names();
        }
    }
    if let Some(file) = &history
        && let Err(e) = editor.save_history(file)
    {
        note(format!("warning: the history was not saved to {}: {e}", file.display()));
    }
    Ok(())
}

fn editor(helper: ShellHelper<'_>) -> rustyline::Result<Editor<ShellHelper<'_>, FileHistory>> {
    let config =
        Config::builder().max_history_size(HISTORY_LINES)?.history_ignore_space(true).completion_type(CompletionType::List).build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(helper));
    Ok(editor)
}

/// A backslash command, without its backslash.
fn meta(runner: &mut Runner, runtime: &Runtime, command: &str) -> Next {
    let command = command.trim().trim_end_matches(';');
    let (word, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let argument = argument.trim();
    match word {
        "q" => return Next::Leave,
        "?" => note(HELP),
        "timing" => {
            runner.timing = !runner.timing;
            note(format!("Timing is {}.", if runner.timing { "on" } else { "off" }));
        }
        "format" => set_format(runner, argument),
        "d" if argument.is_empty() => {
            if let Err(e) = list(runner, runtime) {
                note(e.render("", None));
            }
        }
        "d" => drop(runtime.block_on(runner.script(&format!("DESCRIBE {argument}"), None))),
        other => note(format!("error: there is no \\{other}; the commands are {}", META.join(", "))),
    }
    Next::Go
}

fn set_format(runner: &mut Runner, argument: &str) {
    match Format::from_str(argument, true) {
        Ok(Format::Arrow) => note("error: arrow is binary, and this is a terminal"),
        Ok(format) => runner.format = format,
        Err(_) if argument.is_empty() => note(format!("Format is {:?}.", runner.format).to_lowercase()),
        Err(_) => note("error: the formats are table, csv and json"),
    }
}

fn list(runner: &mut Runner, runtime: &Runtime) -> Result<()> {
    let tables = runtime.block_on(runner.target.tables())?;
    let mut shown = comfy_table::Table::new();
    shown.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    shown.set_header(["schema", "name", "kind", "comment"]);
    for t in &tables {
        shown.add_row([&t.schema, &t.name, &t.kind, &t.comment]);
    }
    let plural = if tables.len() == 1 { "object" } else { "objects" };
    runner.say(&format!("{shown}\n({} {plural})", tables.len()))?;
    Ok(())
}

/// What Tab may write: names, alone and with their schema, and columns.
fn names(target: &mut Target, runtime: &Runtime) -> Vec<String> {
    let found = runtime.block_on(async {
        tokio::time::timeout(NAMES_TIMEOUT, async {
            let mut names: Vec<String> =
                target.tables().await.unwrap_or_default().into_iter().flat_map(|t| [format!("{}.{}", t.schema, t.name), t.name]).collect();
            names.extend(target.columns().await.unwrap_or_default());
            names.sort();
            names.dedup();
            names
        })
        .await
    });
    found.unwrap_or_default()
}

/// In the user's data directory (XDG): `~/.local/share/remige/history`.
fn history_file() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local").join("share")))?;
    let dir = data.join("remige");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join("history"))
}
