//! Small append-only tables of our own (registry, runs): read whole, one file per commit, and
//! rewritten into one file now and then so that opening them stays two reads and a short tail.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::commit::{Commit, Operation};
use super::snapshot::{DataFile, Snapshot};
use super::warehouse::{OfflineStore, table_path};
use super::writer::{NewFile, WriteSpec};
use crate::error::{Error, Kind, Result};

/// Files after which a table of ours is worth rewriting.
pub(crate) const COMPACT_AFTER: usize = 100;

impl OfflineStore {
    /// Reads one small data file. An error names the file.
    pub(crate) async fn read_small_file(&self, table: &Snapshot, file: &DataFile) -> Result<Vec<RecordBatch>> {
        let relative = format!("{}/{}", table.location(), file.object_path());
        let damaged = |why: String| {
            Error::invalid(format!("table {:?} is damaged: {} {why}", table.location(), self.display_path(&relative)))
                .with_hint("restore this file; nothing was changed")
        };
        let bytes = match self.files().get(&table_path(&relative)?).await {
            Ok(got) => got.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Err(damaged("is missing".into())),
            Err(e) => return Err(Error::from(e).context(format!("table {:?}", table.location()))),
        };
        let unreadable = |e: &dyn std::fmt::Display| damaged(format!("cannot be read: {e}"));
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|b| b.build()).map_err(|e| unreadable(&e))?;
        reader.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| unreadable(&e))
    }

    /// Reads several small files at once; at most `READ_AHEAD` should be asked for.
    pub(crate) async fn read_small_files(&self, table: &Snapshot, files: &[Arc<DataFile>]) -> Result<Vec<Vec<RecordBatch>>> {
        futures::future::try_join_all(files.iter().map(|f| self.read_small_file(table, f))).await
    }

    /// Writes a few rows as one file.
    pub(crate) async fn write_small_file(&self, table: &Snapshot, batch: &RecordBatch) -> Result<Vec<NewFile>> {
        let mut writer = self.writer(table.location(), WriteSpec::plain(Arc::clone(table.schema())))?;
        writer.write(batch).await?;
        writer.finish().await
    }

    /// Whether a table has so many small files that it is worth rewriting.
    pub(crate) fn wants_compaction(&self, table: &Snapshot) -> bool {
        table.files().len() > COMPACT_AFTER
    }

    /// Rewrites a table of many small files into one, row for row, and writes a checkpoint. Where
    /// somebody else commits meanwhile nothing happens: the next commit tries again.
    pub(crate) async fn compact(&self, table: &Snapshot) -> Result<Option<Snapshot>> {
        if !self.wants_compaction(table) {
            return Ok(None);
        }
        let mut writer = self.writer(table.location(), WriteSpec::plain(Arc::clone(table.schema())))?;
        for file in table.files() {
            for batch in self.read_small_file(table, file).await? {
                writer.write(&batch).await?;
            }
        }
        let adds = writer.finish().await?;
        self.put_in_place(table, adds).await
    }

    /// As `compact`, but of the caller's rows.
    pub(crate) async fn compact_to(&self, table: &Snapshot, rows: &RecordBatch) -> Result<Option<Snapshot>> {
        let adds = self.write_small_file(table, rows).await?;
        self.put_in_place(table, adds).await
    }

    async fn put_in_place(&self, table: &Snapshot, adds: Vec<NewFile>) -> Result<Option<Snapshot>> {
        let removes = table.files().iter().map(|f| f.path.clone()).collect();
        let commit = Commit { adds: adds.clone(), removes, operation: Operation::Optimize, rewrite: true, ..Default::default() };
        match self.commit(table, commit).await {
            Ok(compacted) => {
                compacted.checkpoint().await?;
                Ok(Some(compacted))
            }
            Err(e) if e.kind() == Kind::Conflict => {
                self.discard(table.location(), &adds).await;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}
