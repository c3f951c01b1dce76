//! Data files: streamed, split, with statistics and their order written down.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::StreamExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::{ArrowSchemaConverter, AsyncArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::snapshot::{DataFile, file_tags, numbers_ahead, order_text};
use super::stats::{Ranges, from_footer, to_json};
use super::warehouse::{OfflineStore, table_path};
use super::{ENGINE, ORDER_KEY};
use crate::clock::{Clock, Micros, new_id};
use crate::error::{Error, Result};

/// How files are written.
#[derive(Debug, Clone)]
pub struct WriteSpec {
    /// All columns, hidden ones included.
    pub schema: SchemaRef,
    /// The input is sorted by these columns, ascending, NULLs first; empty: it is not.
    pub order: Vec<String>,
    /// Columns with bounds in the log: keys and timestamps. Empty: the first 32 columns.
    pub stats_columns: Vec<String>,
    /// Rows after which a new file begins.
    pub target_file_rows: usize,
    pub row_group_rows: usize,
    /// Where buffered rows are accounted.
    pub memory: Option<Arc<dyn MemoryPool>>,
}

impl WriteSpec {
    /// Unsorted files of default size, memory not accounted: for small tables of our own.
    pub fn plain(schema: SchemaRef) -> Self {
        WriteSpec { schema, order: vec![], stats_columns: vec![], target_file_rows: 4_000_000, row_group_rows: 262_144, memory: None }
    }
}

/// A file that is written and that no commit names yet.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// Relative to the table.
    pub path: String,
    /// Bytes.
    pub size: u64,
    pub rows: u64,
    /// When it was whole.
    pub(super) written: Micros,
    order: Vec<String>,
    ranges: Ranges,
    /// Place among the files of the table, where it is that of a file of which this is what is left.
    stands_at: Option<(u64, u32)>,
}

impl NewFile {
    /// To stand where `file` stood: the rows that stay keep their order among those of other files.
    pub fn in_place_of(self, file: &DataFile) -> Self {
        NewFile { stands_at: Some(file.added), ..self }
    }
    pub(crate) fn stats_json(&self) -> String {
        to_json(self.rows, &self.ranges)
    }
    /// `ahead`: of the files whose rows these may be.
    pub(crate) fn tags(&self, version: u64, place: u32, ahead: u64) -> HashMap<String, Option<String>> {
        file_tags(&self.order, self.stands_at.unwrap_or((version, place)), ahead.max(numbers_ahead(&self.ranges, version)))
    }
    /// As a file of a table, so that it can be read before a commit names it.
    pub fn data_file(&self) -> DataFile {
        DataFile {
            path: self.path.clone(),
            size: self.size,
            rows: Some(self.rows),
            order: self.order.clone(),
            added: (0, 0),
            ahead: 0,
            modified_ms: 0,
            ranges: self.ranges.clone(),
            has_deletions: false,
            is_partitioned: false,
        }
    }
    /// The same rows under another name.
    pub(super) fn renamed(&self, written: Micros) -> Self {
        NewFile { path: new_name(), written, ..self.clone() }
    }
    pub fn range(&self, column: &str) -> Option<&super::ColumnRange> {
        self.ranges.get(column)
    }
}

/// Writes data files of one table. Nothing is visible before a commit names them; when it is dropped
/// unfinished the open file vanishes.
pub struct FileWriter {
    store: Arc<dyn ObjectStore>,
    clock: Clock,
    location: String,
    spec: WriteSpec,
    stats_columns: Vec<String>,
    properties: WriterProperties,
    reservation: Option<MemoryReservation>,
    open: Option<OpenFile>,
    done: Vec<NewFile>,
    order_check: Option<OrderCheck>,
    rows: u64,
}

struct OpenFile {
    name: String,
    path: Path,
    rows: usize,
    writer: AsyncArrowWriter<BufWriter>,
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter").field("location", &self.location).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl OfflineStore {
    pub fn writer(&self, location: &str, spec: WriteSpec) -> Result<FileWriter> {
        table_path(location)?;
        let stats_columns = if spec.stats_columns.is_empty() {
            spec.schema.fields().iter().take(32).map(|f| f.name().clone()).collect()
        } else {
            spec.stats_columns.clone()
        };
        let order_check = if spec.order.is_empty() { None } else { Some(OrderCheck::new(&spec)?) };
        let reservation = spec.memory.as_ref().map(|pool| MemoryConsumer::new(format!("FileWriter[{location}]")).register(pool));
        Ok(FileWriter {
            store: Arc::clone(self.files()),
            clock: self.clock().clone(),
            location: location.to_string(),
            properties: properties(&spec, &stats_columns)?,
            stats_columns,
            spec,
            reservation,
            open: None,
            done: vec![],
            order_check,
            rows: 0,
        })
    }

    /// Writes a whole stream. On an error the files already written are taken back.
    pub async fn write_files(&self, location: &str, spec: WriteSpec, mut input: SendableRecordBatchStream) -> Result<Vec<NewFile>> {
        let mut writer = self.writer(location, spec)?;
        let outcome = async {
            while let Some(batch) = input.next().await {
                writer.write(&batch?).await?;
            }
            Ok::<(), Error>(())
        }
        .await;
        match outcome {
            Ok(()) => writer.finish().await,
            Err(e) => {
                writer.abandon().await;
                Err(e)
            }
        }
    }
}

impl FileWriter {
    /// Rows taken so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes rows; columns must be those of the spec's schema, in order.
    pub fn write<'a>(&'a mut self, batch: &'a RecordBatch) -> futures::future::BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let batch = self.conform(batch)?;
            if let Some(check) = &mut self.order_check {
                check.follow(&batch).map_err(|e| e.context(format!("table {:?}", self.location)))?;
            }
            let mut offset = 0;
            while offset < batch.num_rows() {
                let limit = self.spec.target_file_rows.max(1);
                let file = match self.open.take() {
                    Some(f) => self.open.insert(f),
                    None => {
                        let f = self.begin()?;
                        self.open.insert(f)
                    }
                };
                let n = (batch.num_rows() - offset).min(limit - file.rows);
                file.writer.write(&batch.slice(offset, n)).await.map_err(parquet_error)?;
                file.rows += n;
                offset += n;
                self.rows += n as u64;
                if let Some(r) = &self.reservation {
                    r.try_resize(file.writer.memory_size())?;
                }
                if file.rows >= limit {
                    self.close().await?;
                }
            }
            Ok(())
        })
    }

    /// Gives up: what was written is taken back.
    pub async fn abandon(mut self) {
        let written = std::mem::take(&mut self.done);
        self.open = None;
        for file in written {
            if let Ok(path) = table_path(&format!("{}/{}", self.location, file.path)) {
                let _ = self.store.delete(&path).await;
            }
        }
    }

    /// Ends the last file. No rows: no files.
    pub fn finish(mut self) -> futures::future::BoxFuture<'static, Result<Vec<NewFile>>> {
        Box::pin(async move {
            self.close().await?;
            Ok(std::mem::take(&mut self.done))
        })
    }

    /// Field metadata and nullability of the input do not matter; names, types and NULLs do.
    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        if batch.schema() == self.spec.schema {
            return Ok(batch.clone());
        }
        RecordBatch::try_new(Arc::clone(&self.spec.schema), batch.columns().to_vec())
            .map_err(|e| Error::internal(e.to_string()).context(format!("table {:?}", self.location)))
    }

    fn begin(&self) -> Result<OpenFile> {
        let name = new_name();
        let path = table_path(&format!("{}/{name}", self.location))?;
        let sink = BufWriter::new(Arc::clone(&self.store), path.clone());
        let writer =
            AsyncArrowWriter::try_new(sink, Arc::clone(&self.spec.schema), Some(self.properties.clone())).map_err(parquet_error)?;
        Ok(OpenFile { name, path, rows: 0, writer })
    }

    async fn close(&mut self) -> Result<()> {
        let Some(mut file) = self.open.take() else { return Ok(()) };
        let footer = file.writer.finish().await.map_err(parquet_error)?;
        if let Some(r) = &self.reservation {
            r.free();
        }
        let size = self.store.head(&file.path).await?.size;
        self.done.push(NewFile {
            path: file.name,
            size,
            rows: file.rows as u64,
            written: self.clock.now(),
            order: self.spec.order.clone(),
            ranges: from_footer(&footer, &self.spec.schema, &self.stats_columns)?,
            stands_at: None,
        });
        Ok(())
    }
}

fn new_name() -> String {
    format!("part-{}.zstd.parquet", new_id())
}

fn parquet_error(e: ParquetError) -> Error {
    match e {
        ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
            Ok(store) => Error::from(*store),
            Err(other) => match other.downcast::<std::io::Error>() {
                Ok(io) => Error::from(*io),
                Err(other) => Error::internal(other.to_string()),
            },
        },
        other => Error::internal(other.to_string()),
    }
}

fn properties(spec: &WriteSpec, stats_columns: &[String]) -> Result<WriterProperties> {
    let zstd = ZstdLevel::try_new(1).map_err(parquet_error)?;
    let mut builder = WriterProperties::builder()
        .set_created_by(ENGINE.into())
        .set_compression(Compression::ZSTD(zstd))
        .set_max_row_group_row_count(Some(spec.row_group_rows.max(1)))
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for name in spec.order.iter().chain(stats_columns) {
        builder = builder.set_column_statistics_enabled(ColumnPath::new(vec![name.clone()]), EnabledStatistics::Page);
    }
    if !spec.order.is_empty() {
        let leaves = ArrowSchemaConverter::new().convert(&spec.schema).map_err(parquet_error)?;
        let sorting = spec
            .order
            .iter()
            .map(|name| {
                let leaf = leaves.columns().iter().position(|c| c.path().parts() == [name.clone()]);
                let leaf = leaf.and_then(|i| i32::try_from(i).ok());
                let column_idx = leaf.ok_or_else(|| Error::internal(format!("no plain column {name:?} to sort by")))?;
                Ok(SortingColumn { column_idx, descending: false, nulls_first: true })
            })
            .collect::<Result<Vec<_>>>()?;
        builder = builder
            .set_sorting_columns(Some(sorting))
            .set_key_value_metadata(Some(vec![KeyValue::new(ORDER_KEY.to_string(), order_text(&spec.order))]));
    }
    Ok(builder.build())
}

/// Order is declared to every later reader, so a plan that feeds unsorted batches must not get by:
/// each batch's first and last row are checked (in debug builds every row).
struct OrderCheck {
    converter: RowConverter,
    columns: Vec<usize>,
    last: Option<OwnedRow>,
}

impl OrderCheck {
    fn new(spec: &WriteSpec) -> Result<Self> {
        let columns = spec.order.iter().map(|c| Ok(spec.schema.index_of(c)?)).collect::<Result<Vec<_>>>()?;
        let options = SortOptions { descending: false, nulls_first: true };
        let fields =
            columns.iter().map(|i| SortField::new_with_options(DataType::clone(spec.schema.field(*i).data_type()), options)).collect();
        Ok(OrderCheck { converter: RowConverter::new(fields)?, columns, last: None })
    }

    fn follow(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some(end) = batch.num_rows().checked_sub(1) else { return Ok(()) };
        let looked_at = if cfg!(debug_assertions) {
            batch.project(&self.columns)?
        } else {
            let ends = datafusion::arrow::array::UInt64Array::from(vec![0, end as u64]);
            datafusion::arrow::compute::take_record_batch(&batch.project(&self.columns)?, &ends)?
        };
        let rows = self.converter.convert_columns(looked_at.columns())?;
        let sorted = rows.iter().zip(rows.iter().skip(1)).all(|(a, b)| a <= b);
        let follows = self.last.as_ref().is_none_or(|last| last.row() <= rows.row(0));
        if !(sorted && follows) {
            return Err(Error::internal("rows came unsorted to a sorted file"));
        }
        self.last = Some(rows.row(rows.num_rows() - 1).owned());
        Ok(())
    }
}
