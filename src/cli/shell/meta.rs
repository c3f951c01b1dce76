//! The backslash commands of the shell.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum;
use tokio::runtime::Runtime;

use crate::cli::complete::META;
use crate::cli::note;
use crate::cli::output::{Expanded, Format};
use crate::cli::runner::Runner;

const HELP: &str = "\
Statements end with ; and may span lines. Tab completes keywords and names, Ctrl-C cancels, Ctrl-D leaves.
  \\d             all objects            \\d NAME   columns of one of them
  \\dt            tables                 \\dv        views and feature views
  \\de            entities               \\ds        feature services
  \\dn            schemas                \\df [TEXT] functions, those with TEXT in their name
  \\x [on|off|auto]  records, a line per column; auto: where a table would be too wide
  \\i FILE        run a script
  \\e [FILE]      write the statement, or a file, in $EDITOR, and run it
  \\o [FILE]      send results to a file; without one: to the terminal again
  \\p             show the statement so far    \\r   forget it
  \\format [F]    how results are written: table, csv, json
  \\timing        show how long statements take, on or off
  \\q             leave (also: exit, quit)
  \\?             this help";

/// What `\d` lists. Feature views and training sets are tables too, and are listed as what they are.
const OBJECTS: &str = "\
SELECT * FROM (
  SELECT schema, name, 'ENTITY' AS kind, comment FROM system.entities
  UNION ALL SELECT schema, name, 'FEATURE VIEW', comment FROM system.feature_views
  UNION ALL SELECT schema, name, 'FEATURE SERVICE', comment FROM system.feature_services
  UNION ALL SELECT schema, name, 'TRAINING SET', comment FROM system.training_sets
  UNION ALL SELECT t.schema, t.name, upper(t.kind), t.comment FROM system.tables t
    LEFT ANTI JOIN (SELECT schema, name FROM system.feature_views UNION ALL SELECT schema, name FROM system.training_sets) o
      ON t.schema = o.schema AND t.name = o.name
) AS objects";

/// What the shell does after a command.
pub enum Next {
    Go,
    Leave,
}

/// Runs a command, without its backslash. `open`: the statement that has no end yet.
pub fn run(runner: &mut Runner, runtime: &Runtime, command: &str, open: &mut String) -> Next {
    let command = command.trim().trim_end_matches(';');
    let (word, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let argument = argument.trim();
    let mut sql = |text: String| drop(runtime.block_on(runner.script(&text, None)));
    match word {
        "q" => return Next::Leave,
        "?" => note(HELP),
        "d" if !argument.is_empty() => sql(format!("DESCRIBE {argument}")),
        "d" => sql(objects("kind <> 'SYSTEM TABLE'")),
        "dt" => sql(objects("kind IN ('TABLE', 'TRAINING SET', 'SYSTEM TABLE')")),
        "dv" => sql(objects("kind IN ('VIEW', 'FEATURE VIEW')")),
        "de" => sql(objects("kind = 'ENTITY'")),
        "ds" => sql(objects("kind = 'FEATURE SERVICE'")),
        "dn" => sql("SELECT name, comment FROM system.schemas ORDER BY name".into()),
        "df" => sql(functions(argument)),
        "i" if argument.is_empty() => note("error: \\i wants the name of a script"),
        "i" => script(runner, runtime, Path::new(argument)),
        "e" => edit(argument, open),
        "o" => send_to(runner, argument),
        "p" => note(if open.is_empty() { "(no statement has begun)" } else { open }),
        "r" => open.clear(),
        "x" => expand(runner, argument),
        "format" => set_format(runner, argument),
        "timing" => {
            runner.timing = !runner.timing;
            note(format!("Timing is {}.", if runner.timing { "on" } else { "off" }));
        }
        other => note(format!("error: there is no \\{other}; the commands are {}", META.join(", "))),
    }
    Next::Go
}

fn objects(which: &str) -> String {
    format!("{OBJECTS} WHERE {which} ORDER BY schema, name, kind")
}

fn functions(part: &str) -> String {
    let part = part.to_lowercase().replace('\'', "''");
    format!(
        "SELECT DISTINCT routine_name AS name, function_type AS kind, description FROM information_schema.routines \
         WHERE strpos(lower(routine_name), '{part}') > 0 ORDER BY name"
    )
}

fn script(runner: &mut Runner, runtime: &Runtime, file: &Path) {
    match std::fs::read_to_string(file) {
        Ok(text) => drop(runtime.block_on(runner.script(&text, Some(&file.display().to_string())))),
        Err(e) => note(format!("error: cannot read {}: {e}", file.display())),
    }
}

/// The user's editor changes the statement, or brings a file in its place.
fn edit(file: &str, open: &mut String) {
    let named = ["VISUAL", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.trim().is_empty()));
    let editor = named.unwrap_or_else(|| "vi".into());
    let scratch = std::env::temp_dir().join(format!("remige-{}.sql", std::process::id()));
    let path = if file.is_empty() { scratch.as_path() } else { Path::new(file) };
    let edited = || {
        if file.is_empty() {
            // never through a link that somebody else has put there
            File::options().write(true).create_new(true).open(path)?.write_all(open.as_bytes())?;
        }
        // an editor may be named with options
        let mut words = editor.split_whitespace();
        let status = Command::new(words.next().unwrap_or("vi")).args(words).arg(path).status()?;
        if status.success() { std::fs::read_to_string(path).map(Some) } else { Ok(None) }
    };
    match edited() {
        Ok(Some(text)) => *open = text.trim_end().to_string(),
        Ok(None) => note("notice: the editor failed; the statement is as it was"),
        Err(e) => note(format!("error: {editor} {}: {e}", path.display())),
    }
    if file.is_empty() {
        // it may never have been made
        let _ = std::fs::remove_file(path);
    }
}

fn send_to(runner: &mut Runner, file: &str) {
    if file.is_empty() {
        return runner.send_to(None);
    }
    match File::create(file) {
        Ok(file) => runner.send_to(Some(file)),
        Err(e) => note(format!("error: cannot write {file}: {e}")),
    }
}

fn expand(runner: &mut Runner, argument: &str) {
    runner.layout.expanded = match (argument, runner.layout.expanded) {
        ("on", _) => Expanded::On,
        ("off", _) => Expanded::Off,
        ("auto", _) => Expanded::Auto,
        ("", Expanded::On) => Expanded::Auto,
        ("", _) => Expanded::On,
        _ => return note("error: write \\x on, \\x off or \\x auto"),
    };
    note(match runner.layout.expanded {
        Expanded::On => "Results are records.",
        Expanded::Off => "Results are tables.",
        Expanded::Auto => "Results are tables, or records where a table would be too wide.",
    });
}

fn set_format(runner: &mut Runner, argument: &str) {
    match Format::from_str(argument, true) {
        Ok(Format::Arrow) => note("error: arrow is binary, and this is a terminal"),
        Ok(format) => runner.format = format,
        Err(_) if argument.is_empty() => note(format!("Format is {:?}.", runner.format).to_lowercase()),
        Err(_) => note("error: the formats are table, csv and json"),
    }
}
