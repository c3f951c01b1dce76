//! Every file of sql/system and sql/show is planned. Those of sql/starter are run by the tests of `remige init`, the
//! blocks of sql/README.md by tests/docs_check.py.

use std::path::Path;

use remige::clock::Clock;
use remige::config::Config;
use remige::session::{Engine, Outcome, Session};

fn files(dir: &str) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(Path::new("sql").join(dir)).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().to_string()).collect();
    names.sort();
    names
}

async fn columns(session: &Session, sql: &str) -> Vec<String> {
    match session.execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")) {
        Outcome::Rows(rows) => rows.schema().fields().iter().map(|f| f.name().clone()).collect(),
        Outcome::Updated(_) => panic!("{sql} answered no rows"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_planned() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { warehouse: dir.path().join("w").display().to_string(), ..Config::default() };
    let session = Engine::open(config, Clock::fixed(0)).await.unwrap().session();
    assert_eq!(files(""), ["README.md", "show", "starter", "system"], "a folder that no test plans");
    for file in files("system") {
        let text = std::fs::read_to_string(format!("sql/system/{file}")).unwrap();
        let table = file.trim_end_matches(".sql");
        assert_eq!(columns(&session, &text).await, columns(&session, &format!("SELECT * FROM system.{table}")).await, "{file}");
    }
    for file in files("show") {
        let text = std::fs::read_to_string(format!("sql/show/{file}")).unwrap();
        let words = text.lines().next().and_then(|l| l.strip_prefix("-- ")?.split(" | ").next()).unwrap();
        for show in [words.to_string(), format!("{words} LIKE '%'")] {
            assert_eq!(columns(&session, &text).await, columns(&session, &show).await, "{file}");
        }
    }
}
