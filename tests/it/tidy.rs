//! The house rules of docs/ARCHITECTURE.md that a test can see.

use std::collections::{BTreeMap, BTreeSet};
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
    &["engine"],
    &["services"],
    &["table"],
    &["resolve"],
    &["job"],
    &["session"],
    &["background"],
    &["server"],
    &["cli"],
];

/// A library, and the only folders that may name it.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("redis", &["src/store/online/redis"]),
    ("deltalake", &["src/store/offline/"]),
    ("tonic", &["src/server/", "src/cli/"]),
    ("redb", &["src/store/online/embedded"]),
];

/// Dependencies that no code names, and why they are there.
const UNNAMED_DEPENDENCIES: &[(&str, &str)] = &[
    ("md-5", "its features keep one build of DataFusion for `cargo build` and `cargo test`"),
    ("getrandom", "its features keep one build of DataFusion for `cargo build` and `cargo test`"),
];

/// Files of one stage that import one another in a circle, at most.
const LARGEST_CIRCLE: usize = 4;

const MOST_LINES: usize = 500;

/// Files with more lines than that.
const LONG_FILES: &[&str] = &["src/catalog/runs.rs", "src/sql/cursor.rs", "src/store/online/embedded.rs"];

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

/// Text up to the unit tests that stand in a file; those that it only declares have files of their own.
fn shipped(text: &str) -> &str {
    let tests = text.match_indices("#[cfg(test)]\nmod ").find(|(at, _)| text[*at..].lines().nth(1).is_some_and(|l| l.ends_with('{')));
    tests.map_or(text, |(at, _)| &text[..at])
}

fn is_test_file(path: &str) -> bool {
    let is =
        |part: &str| ["tests", "conformance", "testing", "oracle", "properties", "testdata"].contains(&part) || part.ends_with("_tests");
    path.trim_end_matches(".rs").split('/').any(is)
}

/// The top folder of `src` that a file belongs to; `session.rs` stands for `session/`.
fn stage_of(path: &str) -> &str {
    path.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default()
}

/// The shipped code of a file, without comments.
fn code(text: &str) -> String {
    shipped(text).lines().map(|l| l.split("//").next().unwrap_or(l)).collect::<Vec<_>>().join("\n")
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Where paths begin with this word: `word::…`, but not `other::word::…`.
fn paths_from<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(word)
        .map(|(at, _)| (&code[..at], &code[at..]))
        .filter(move |(before, path)| {
            let before = before.strip_suffix("::").map_or(*before, |b| if b.ends_with(is_of_word) { "x" } else { "" });
            path[word.len()..].starts_with("::") && !before.ends_with(is_of_word)
        })
        .map(|(_, path)| path)
}

/// The paths of a tree such as `a::{b::C, d}`, each as its parts, and the text behind it.
fn paths_of(tree: &str) -> (Vec<Vec<&str>>, &str) {
    let mut parts = vec![];
    let mut rest = tree;
    loop {
        rest = rest.trim_start();
        if let Some(list) = rest.strip_prefix('{') {
            let mut paths = vec![];
            rest = list;
            while !rest.trim_start().starts_with('}') {
                let (inner, behind) = paths_of(rest);
                paths.extend(inner.into_iter().map(|p| [parts.clone(), p].concat()));
                let Some(end) = behind.find([',', '}']) else { return (paths, behind) };
                rest = behind[end..].trim_start_matches(',');
            }
            return (paths, rest.trim_start().trim_start_matches('}'));
        }
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = &rest[end..];
        match rest.trim_start().strip_prefix("::") {
            Some(more) if end > 0 => rest = more,
            _ => return (vec![parts], rest),
        }
    }
}

/// The module that a file holds: `src/a/b.rs` and `src/a/b/mod.rs` are `a`, `b`.
fn module(path: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = path.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
    parts.pop_if(|last| *last == "mod");
    parts
}

/// Which files of its own stage each shipped file names by `crate::`, `super::` and `self::`. What a module re-exports
/// is the module's; that a module declares its children and hands them on is no import.
fn imports(sources: &[(String, String)]) -> BTreeMap<&str, BTreeSet<&str>> {
    let files: BTreeMap<Vec<&str>, &str> = sources.iter().filter(|(p, _)| !is_test_file(p)).map(|(p, _)| (module(p), p.as_str())).collect();
    let mut graph = BTreeMap::new();
    for (path, text) in sources.iter().filter(|(p, _)| !is_test_file(p)) {
        let own = module(path);
        let code: String = code(text).split_inclusive(';').filter(|s| !s.trim_start().starts_with("pub use self::")).collect();
        let named = ["crate", "super", "self"].into_iter().flat_map(|word| paths_from(&code, word)).flat_map(|p| paths_of(p).0);
        let mut to = BTreeSet::new();
        for parts in named {
            let mut at = own.clone();
            for part in parts {
                match part {
                    "crate" => at.clear(),
                    "super" => drop(at.pop()),
                    "self" => {}
                    child => {
                        at.push(child);
                        if !files.contains_key(&at) {
                            at.pop();
                            break;
                        }
                    }
                }
            }
            to.extend(files.get(&at).filter(|other| **other != path && stage_of(other) == stage_of(path)));
        }
        graph.insert(path.as_str(), to);
    }
    graph
}

/// The strongly connected components of more than one file.
fn circles<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<BTreeSet<&'a str>> {
    let reached = |from: &'a str| {
        let (mut seen, mut stack) = (BTreeSet::new(), vec![from]);
        while let Some(next) = stack.pop() {
            stack.extend(graph[next].iter().filter(|f| seen.insert(**f)));
        }
        seen
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> = graph.keys().map(|f| (*f, reached(f))).collect();
    let of = |file: &&'a str| -> BTreeSet<&'a str> { reach[file].iter().copied().filter(|f| reach[f].contains(file)).collect() };
    graph.keys().map(of).filter(|c| c.len() > 1).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn no_stage_names_a_later_one() {
    let rank: BTreeMap<&str, usize> = STAGES.iter().enumerate().flat_map(|(i, s)| s.iter().map(move |n| (*n, i))).collect();
    let mut wrong = vec![];
    for (path, text) in all() {
        let stage = stage_of(&path);
        let Some(own) = rank.get(stage) else { continue };
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

/// A path of its own for each import, so that the rules above see it.
#[test]
fn no_import_gathers_stages() {
    let gathers = |(path, text): (String, String)| {
        let found = ["use crate::{", "use remige::{"].iter().any(|w| text.contains(w));
        found.then_some(path)
    };
    let wrong: Vec<String> = all().into_iter().filter_map(gathers).collect();
    assert!(wrong.is_empty(), "write one `use` per stage: {}", wrong.join(", "));
}

#[test]
fn no_large_circle_inside_a_stage() {
    let sources = all();
    let found = circles(&imports(&sources));
    let wrong: Vec<String> = found
        .iter()
        .filter(|c| c.len() > LARGEST_CIRCLE)
        .map(|c| format!("{} files: {}", c.len(), c.iter().copied().collect::<Vec<_>>().join(", ")))
        .collect();
    assert!(wrong.is_empty(), "circles of imports:\n{}", wrong.join("\n"));
}

#[test]
fn circles_are_found() {
    let file = |path: &str, text: &str| (path.to_string(), text.to_string());
    let sources = [
        file("src/a/mod.rs", "pub mod b;\npub use self::b::B;\n"),
        file("src/a/f.rs", "#[cfg(test)]\nmod tests;\n\nuse super::e;\n"),
        file("src/a/b.rs", "use super::{c::{self, C}, d::D};\n// super::e\n"),
        file("src/a/c.rs", "use crate::a::d::x::Y;\n"),
        file("src/a/d.rs", "fn f() { super::b::g() }\n#[cfg(test)]\nmod tests {\n    use super::super::e;\n}\n"),
        file("src/a/e.rs", "use super::B;\nuse other::a::b;\nuse crate::z::Z;\n"),
        file("src/a/b/tests.rs", "use crate::a::e;\n"),
        file("src/z.rs", "use crate::a::e;\n"),
    ];
    let graph = imports(&sources);
    let to = |f: &str| graph[f].iter().copied().collect::<Vec<_>>();
    assert_eq!(to("src/a/mod.rs"), [""; 0]);
    assert_eq!(to("src/a/b.rs"), ["src/a/c.rs", "src/a/d.rs"]);
    assert_eq!(to("src/a/e.rs"), ["src/a/mod.rs"]);
    assert_eq!(to("src/a/f.rs"), ["src/a/e.rs"]);
    assert_eq!(circles(&graph), [BTreeSet::from(["src/a/b.rs", "src/a/c.rs", "src/a/d.rs"])]);
}

#[test]
fn files_are_short() {
    let long = |(path, text): (String, String)| {
        let lines = text.lines().count();
        let listed = LONG_FILES.contains(&path.as_str());
        match lines > MOST_LINES {
            true => (!listed && !is_test_file(&path)).then(|| format!("{path} has {lines} lines, more than {MOST_LINES}")),
            false => listed.then(|| format!("{path} is short enough now: take it off the list")),
        }
    };
    let wrong: Vec<String> = all().into_iter().filter_map(long).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn libraries_stay_in_their_rooms() {
    let mut wrong = vec![];
    for (path, text) in all().iter().filter(|(path, _)| !is_test_file(path)) {
        let code = code(text);
        for (library, rooms) in LIBRARIES {
            if paths_from(&code, library).next().is_some() && !rooms.iter().any(|r| path.starts_with(r)) {
                wrong.push(format!("{path} names {library}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The names in a section of Cargo.toml.
fn dependencies<'a>(manifest: &'a str, section: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|l| *l != section).skip(1).take_while(|l| !l.starts_with('['));
    lines.filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once(" = ")).map(|(name, _)| name).collect()
}

/// What only tests name is a dev-dependency: users do not build it.
#[test]
fn every_dependency_is_named() {
    let manifest = std::fs::read_to_string("Cargo.toml").unwrap();
    let of = |dirs: &[&str]| texts(dirs).into_iter().filter(|(path, _)| path.ends_with(".rs")).collect::<Vec<_>>();
    let shipped: Vec<String> = of(&["src"]).iter().filter(|(path, _)| !is_test_file(path)).map(|(_, text)| code(text)).collect();
    let tests: Vec<String> = of(&["src", "tests", "benches"]).into_iter().map(|(_, text)| text).collect();
    let mut wrong = vec![];
    for (section, sources, place) in [("[dependencies]", &shipped, "shipped"), ("[dev-dependencies]", &tests, "test")] {
        let names = dependencies(&manifest, section);
        assert!(names.len() > 3, "{section}: {names:?}");
        for name in names {
            let is_named = sources.iter().any(|text| paths_from(text, &name.replace('-', "_")).next().is_some());
            let is_listed = UNNAMED_DEPENDENCIES.iter().any(|(listed, _)| *listed == name);
            match (is_named, is_listed) {
                (true, true) => wrong.push(format!("{name} is named now: take it off the list")),
                (false, false) => wrong.push(format!("{section} {name}: no {place} code names it")),
                _ => {}
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
