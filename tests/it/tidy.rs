//! The house rules of docs/ARCHITECTURE.md that a test can see.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Stages in order: each may name itself and those before it.
const STAGES: &[&[&str]] = &[
    &["error"],
    &["activity", "cancel", "clock", "telemetry", "progress"],
    &["config"],
    &["model"],
    &["sql"],
    &["store"],
    &["catalog"],
    &["plan"],
    &["operator"],
    &["statement"],
    &["exec"],
    &["session"],
    &["server"],
];

fn sources(dir: &Path, out: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for p in entries {
        if p.is_dir() {
            sources(&p, out);
        } else if p.extension().is_some_and(|e| e == "rs") {
            out.push((p.to_string_lossy().to_string(), std::fs::read_to_string(&p).unwrap()));
        }
    }
}

fn all() -> Vec<(String, String)> {
    let mut out = vec![];
    sources(Path::new("src"), &mut out);
    assert!(out.len() > 50);
    out
}

/// Path and text of every file below some folders that is a text.
fn texts(dirs: &[&str]) -> Vec<(String, String)> {
    let mut out = vec![];
    let mut stack: Vec<PathBuf> = dirs.iter().map(PathBuf::from).collect();
    while let Some(d) = stack.pop() {
        for e in std::fs::read_dir(d).unwrap() {
            let p = e.unwrap().path();
            if p.is_dir() {
                stack.push(p);
            } else if let Ok(text) = std::fs::read_to_string(&p) {
                out.push((p.to_string_lossy().to_string(), text));
            }
        }
    }
    out
}

/// Text up to the unit tests of a file.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn is_test_file(path: &str) -> bool {
    ["/tests", "conformance", "testing", "oracle", "properties", "testdata"].iter().any(|w| path.contains(w))
}

#[test]
fn no_stage_names_a_later_one() {
    let rank: BTreeMap<&str, usize> = STAGES.iter().enumerate().flat_map(|(i, s)| s.iter().map(move |n| (*n, i))).collect();
    let mut wrong = vec![];
    for (path, text) in all() {
        let stage = path.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default().to_string();
        let Some(own) = rank.get(stage.as_str()) else { continue };
        if is_test_file(&path) {
            continue;
        }
        for (n, line) in shipped(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            for part in code.split("crate::").skip(1) {
                let named: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if rank.get(named.as_str()).is_some_and(|other| other > own) {
                    wrong.push(format!("{path}:{}: {stage} names {named}", n + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "back edges:\n{}", wrong.join("\n"));
}

#[test]
fn libraries_stay_in_their_rooms() {
    let rooms = [
        ("redis::", "src/store/online/redis"),
        ("deltalake::", "src/store/offline/"),
        ("tonic::Status", "src/server/"),
        ("redb::", "src/store/online/embedded"),
    ];
    let mut wrong = vec![];
    for (path, text) in all() {
        for (library, room) in rooms {
            let uses = shipped(&text).lines().any(|l| {
                let l = l.trim_start();
                !l.starts_with("//")
                    && (l.starts_with(&format!("use {library}")) || l.contains(&format!(" {library}")) && !l.contains("crate::"))
            });
            if uses && !path.starts_with(room) && !path.starts_with("src/cli/") && !is_test_file(&path) {
                wrong.push(format!("{path} uses {library}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_refers_to_the_workplace() {
    for (path, text) in texts(&["src", "docs", "sql", "examples", "scripts", "tests", "benches"]) {
        assert!(!text.contains(concat!("../", "shared")), "{path}");
    }
}

/// A page is named by its path from the top or from docs/, or by its file name; behind it may stand a section: `, "Title"`.
#[test]
fn pages_and_sections_that_are_named_exist() {
    let root = |name: &str| (name.to_string(), std::fs::read_to_string(name).unwrap());
    let mut pages = vec![root("README.md"), root("CONTRIBUTING.md")];
    pages.extend(texts(&["docs", "sql", "examples"]).into_iter().filter(|(path, _)| path.ends_with(".md")));
    let mut sources = texts(&["src", "tests", "scripts"]);
    sources.retain(|(path, _)| path.starts_with("scripts/") || path.ends_with(".rs") || path.ends_with(".py"));
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let mut found = 0;
    let mut wrong = vec![];
    for (path, text) in &sources {
        for (n, line) in text.lines().enumerate() {
            let place = format!("{path}:{}", n + 1);
            for (at, _) in line.match_indices(".md") {
                let name = &line[line[..at].trim_end_matches(of_a_name).len()..at + 3];
                let behind = &line[at + 3..];
                // `*.md` is a pattern, `.md5` something else
                if name == ".md" || behind.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                    continue;
                }
                // a link from docs/
                let name = name.trim_start_matches("../");
                let ending = format!("/{name}");
                let Some((page, content)) = pages.iter().find(|(p, _)| p == name || p.ends_with(&ending)) else {
                    wrong.push(format!("{place}: there is no page {name}"));
                    continue;
                };
                found += 1;
                let Some((title, _)) = behind.strip_prefix(", \"").and_then(|rest| rest.split_once('"')) else { continue };
                let is_title = |l: &str| l.starts_with('#') && l.trim_start_matches('#').trim() == title;
                if !content.lines().any(is_title) {
                    wrong.push(format!("{place}: {page} has no section {title:?}"));
                }
            }
        }
    }
    assert!(found > 20, "only {found} names of pages were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
