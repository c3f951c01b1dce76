//! The interactive shell.

mod meta;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use remige::clock;
use remige::error::Error;
use remige::sql::typed::{Typed, typed};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use tokio::runtime::Runtime;

use super::complete::ShellHelper;
use super::runner::Runner;
use super::target::Target;
use super::{Exit, note};
use meta::Next;

/// Queries show at most this many rows here.
const ROW_LIMIT: u64 = 1_000;
/// A completion that takes longer than this is none.
const NAMES_TIMEOUT: Duration = Duration::from_secs(2);
const HISTORY_LINES: usize = 10_000;

type LineEditor<'a> = Editor<ShellHelper<'a>, FileHistory>;

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
    // Lines of a statement that has no end yet.
    let mut open = String::new();
    loop {
        // Before the line is read: from the moment it is entered, Ctrl-C is meant for its statement.
        runner.borrow().interrupt.reset();
        let line = match editor.readline(prompt(&open)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                open.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(e) => return Err(Exit::Failed(Error::internal(format!("the terminal: {e}")))),
        };
        let mut runner = runner.borrow_mut();
        runner.measure_terminal();
        let next = match command(&line, &open) {
            Some(command) => {
                remember(&mut editor, history.as_deref(), &line);
                meta::run(&mut runner, runtime, command, &mut open)
            }
            None => {
                if !open.is_empty() {
                    open.push('\n');
                }
                open.push_str(&line);
                Next::Go
            }
        };
        match next {
            Next::Leave => break,
            Next::Go if !open.trim().is_empty() && typed(&open) == Typed::Whole => {
                let text = std::mem::take(&mut open);
                remember(&mut editor, history.as_deref(), &text);
                // The user has been told, and may go on.
                drop(runtime.block_on(runner.script(&text, None)));
            }
            Next::Go if open.trim().is_empty() => open.clear(),
            Next::Go => {}
        }
        drop(runner);
        if let Some(helper) = editor.helper() {
            helper.forget_names();
        }
    }
    Ok(())
}

/// The prompt says what is open.
fn prompt(open: &str) -> &'static str {
    match typed(open) {
        Typed::Whole => "remige> ",
        Typed::Statement => "remige-> ",
        Typed::Quoted('\'') => "remige'> ",
        Typed::Quoted('"') => "remige\"> ",
        Typed::Quoted(_) => "remige$> ",
        Typed::Comment => "remige*> ",
    }
}

/// The command of a line, without its backslash: of those that begin with one, and of `exit`, `quit` and `help` where no
/// statement has begun. In an open text or comment a line is a part of it.
fn command<'a>(line: &'a str, open: &str) -> Option<&'a str> {
    let trimmed = line.trim();
    match typed(open) {
        Typed::Whole | Typed::Statement if trimmed.starts_with('\\') => trimmed.strip_prefix('\\'),
        Typed::Whole => match trimmed.trim_end_matches(';').trim_end().to_lowercase().as_str() {
            "exit" | "quit" => Some("q"),
            "help" => Some("?"),
            _ => None,
        },
        _ => None,
    }
}

/// Keeps what was entered, at once: a terminal that is lost later loses no history. A statement with a secret can be kept
/// out by a space in front.
fn remember(editor: &mut LineEditor<'_>, file: Option<&Path>, text: &str) {
    if !editor.add_history_entry(text.trim_end()).unwrap_or_default() {
        return;
    }
    if let Some(file) = file
        && let Err(e) = editor.append_history(file)
    {
        note(format!("warning: the history was not saved to {}: {e}", file.display()));
    }
}

fn editor(helper: ShellHelper<'_>) -> rustyline::Result<LineEditor<'_>> {
    let config =
        Config::builder().max_history_size(HISTORY_LINES)?.history_ignore_space(true).completion_type(CompletionType::List).build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(helper));
    Ok(editor)
}

/// What Tab may write: names, alone and with their schema, and columns.
fn names(target: &mut Target, runtime: &Runtime) -> Vec<String> {
    let found = runtime.block_on(async {
        clock::timeout(NAMES_TIMEOUT, async {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_statements() {
        for (line, open, want) in [
            ("\\d t", "", Some("d t")),
            ("\\q", "SELECT 1", Some("q")),
            ("exit", "", Some("q")),
            ("QUIT ;", "", Some("q")),
            ("help", "", Some("?")),
            ("exit", "SELECT 1 AS", None),
            ("\\q", "SELECT '", None),
            ("helpful", "", None),
            ("SELECT 1;", "", None),
        ] {
            assert_eq!(command(line, open), want, "{line:?} after {open:?}");
        }
    }
}
