//! Every `.slt` file under tests/slt, each on a fresh warehouse with a clock that stands at
//! 2026-03-01T12:00:00Z.

use std::path::{Path, PathBuf};

use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use remige::clock::Clock;
use remige::config::Config;
use remige::session::{Engine, Outcome, Session};
use sqllogictest::{DBOutput, DefaultColumnType};

const NOW: i64 = 1_772_366_400_000_000;

struct Db {
    session: Session,
    _dir: tempfile::TempDir,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(String);

#[async_trait::async_trait]
impl sqllogictest::AsyncDB for Db {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let shown = |e: remige::error::Error| Failed(e.render(sql, None).replace('\n', " "));
        let outcome = match self.session.execute(sql).await {
            Ok(o) => o,
            Err(e) => return Err(shown(e)),
        };
        let stream = match outcome {
            Outcome::Updated(n) => return Ok(DBOutput::StatementComplete(n)),
            Outcome::Rows(s) => s,
        };
        let types = vec![DefaultColumnType::Any; stream.schema().fields().len()];
        let batches: Vec<_> = stream.try_collect().await.map_err(|e| shown(e.into()))?;
        let options = FormatOptions::default().with_null("NULL");
        let mut rows = vec![];
        for b in &batches {
            let columns: Vec<_> = b
                .columns()
                .iter()
                .map(|c| ArrayFormatter::try_new(c, &options))
                .collect::<Result<_, _>>()
                .map_err(|e| Failed(e.to_string()))?;
            for row in 0..b.num_rows() {
                let cell = |f: &ArrayFormatter<'_>| {
                    let v = f.value(row).to_string();
                    if v.is_empty() { "(empty)".to_string() } else { v }
                };
                rows.push(columns.iter().map(cell).collect());
            }
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}
}

async fn fresh() -> Result<Db, Failed> {
    let dir = tempfile::tempdir().map_err(|e| Failed(e.to_string()))?;
    let config = Config { warehouse: dir.path().join("warehouse").to_string_lossy().to_string(), ..Config::default() };
    let engine = Engine::open(config, Clock::fixed(NOW)).await.map_err(|e| Failed(e.to_string()))?;
    Ok(Db { session: engine.session(), _dir: dir })
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "slt") {
            out.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_slt_files() {
    let mut list = vec![];
    files(Path::new("tests/slt"), &mut list);
    assert!(list.len() >= 5, "the .slt files are missing");
    let mut failed = vec![];
    for path in list {
        let mut runner = sqllogictest::Runner::new(fresh);
        if let Err(e) = runner.run_file_async(&path).await {
            failed.push(format!("{}\n{e}", path.display()));
        }
    }
    assert!(failed.is_empty(), "{} file(s) failed:\n{}", failed.len(), failed.join("\n\n"));
}
