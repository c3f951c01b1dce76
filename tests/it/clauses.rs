//! Nothing is accepted and ignored: `clauses.txt` lists every field of the syntax trees that `src/sql/clauses` takes
//! apart, each with its verdict and an example, and every example does what its verdict says.

use std::collections::{BTreeMap, BTreeSet};

use remige::clock::Clock;
use remige::config::Config;
use remige::session::{Engine, Outcome, Session};

use futures::TryStreamExt;

struct Line {
    field: String,
    verdict: String,
    example: String,
}

fn lines() -> Vec<Line> {
    let text = std::fs::read_to_string("tests/it/clauses.txt").unwrap();
    let mut out = vec![];
    for l in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
        let parts: Vec<&str> = l.splitn(3, " | ").map(str::trim).collect();
        let [field, verdict, example] = parts[..] else { panic!("{l}: want field | verdict | example") };
        out.push(Line { field: field.into(), verdict: verdict.into(), example: example.into() });
    }
    out
}

/// `Struct.field` of every pattern in the sources that names the fields of a struct.
fn taken_apart() -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let mut paths: Vec<_> = std::fs::read_dir("src/sql/clauses").unwrap().map(|e| e.unwrap().path()).collect();
    paths.push("src/sql/clauses.rs".into());
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let code: String = text.lines().map(|l| l.split("//").next().unwrap_or(l)).collect::<Vec<_>>().join(" ");
        for (at, _) in code.match_indices(" {") {
            let name: String = code[..at].chars().rev().take_while(|c| c.is_alphanumeric() || *c == ':').collect();
            let name: String = name.chars().rev().collect();
            let Some(end) = code[at..].find('}') else { continue };
            let inside = &code[at + 2..at + end];
            let after = code[at + end + 1..].trim_start();
            let pattern = after.starts_with("=>") || after.starts_with("= ") || after.starts_with('|') || after.starts_with(')');
            if !pattern
                || name.ends_with("Refusal")
                || !name.chars().next().is_some_and(char::is_uppercase)
                || inside.contains("..")
                || inside.contains('{')
                || inside.contains("vec!")
            {
                continue;
            }
            for field in inside.split(',').map(|f| f.split(':').next().unwrap_or(f).trim()).filter(|f| !f.is_empty()) {
                out.insert(format!("{}.{field}", name.replace("::", ".")));
            }
        }
    }
    out
}

#[test]
fn every_clause_has_a_verdict() {
    let listed: BTreeSet<String> = lines().into_iter().map(|l| l.field).collect();
    let code = taken_apart();
    assert!(code.len() > 150, "only {} fields found", code.len());
    let missing: Vec<_> = code.difference(&listed).collect();
    assert!(missing.is_empty(), "tests/it/clauses.txt lacks {missing:#?}");
    let stale: Vec<_> = listed.difference(&code).filter(|f| f.chars().next().is_some_and(char::is_uppercase)).collect();
    assert!(stale.is_empty(), "tests/it/clauses.txt lists what no code takes apart: {stale:#?}");
}

async fn run(session: &Session, sql: &str) -> Result<(), String> {
    let shown = |e: remige::error::Error| e.render(sql, None);
    match session.execute(sql).await.map_err(shown)? {
        Outcome::Updated(_) => Ok(()),
        Outcome::Rows(s) => s.try_collect::<Vec<_>>().await.map(|_| ()).map_err(|e| shown(e.into())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_does_what_its_verdict_says() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { warehouse: dir.path().join("warehouse").to_string_lossy().to_string(), ..Config::default() };
    let session = Engine::open(config, Clock::fixed(1_772_366_400_000_000)).await.unwrap().session();
    let setup = [
        "CREATE TABLE t AS SELECT * FROM (VALUES (1, 10, 'a'), (2, 20, 'b')) v (id, x, s)",
        "CREATE TABLE n (a BIGINT, b BIGINT)",
        "CREATE ENTITY u KEY (id BIGINT)",
        "CREATE FEATURE VIEW fv (f BIGINT) ENTITY u EVENT TIMESTAMP ts ONLINE",
    ];
    for sql in setup {
        run(&session, sql).await.unwrap();
    }
    let mut wrong = vec![];
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for (i, l) in lines().into_iter().enumerate() {
        let (verdict, want) = l.verdict.split_once(' ').unwrap_or((&l.verdict, ""));
        *count.entry(verdict.to_string()).or_default() += 1;
        if l.example == "-" {
            continue;
        }
        let sql = l.example.replace("NEW", &format!("new_{i}")).replace("DIR", &dir.path().to_string_lossy());
        let said = run(&session, &sql).await;
        let good = match verdict {
            "obeyed" => said.is_ok(),
            // refused by us, in words that say what to do
            "refused" => said.as_ref().is_err_and(|e| e.contains(want) && e.contains("help:") && !want.is_empty()),
            // the parser does not take it, or the planner says no
            "unread" => said.is_err(),
            other => panic!("{}: unknown verdict {other:?}", l.field),
        };
        if !good {
            wrong.push(format!("{} is {}:\n  {sql}\n  {}", l.field, l.verdict, said.err().unwrap_or_else(|| "accepted".into())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count["refused"] > 100, "{count:?}");
}
