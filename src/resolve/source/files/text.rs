//! Our own reader of CSV and JSON files: `null_regex` holds for every type, and a VARCHAR of a JSON file takes numbers
//! and booleans as their JSON text.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{CastOptions, cast_with_options, nullif};
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json;
use datafusion::common::config::CsvOptions;
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use object_store::ObjectStoreExt;

use crate::error::Error;

#[derive(Debug, Clone)]
pub enum TextFormat {
    Csv(Box<CsvOptions>),
    /// `lines`: an object per line; else one list of objects.
    Json {
        lines: bool,
        compression: FileCompressionType,
    },
}

/// Some files of a table, read one after the other.
pub struct Text {
    pub store: ObjectStoreUrl,
    pub files: Vec<PartitionedFile>,
    pub format: TextFormat,
    pub file_schema: SchemaRef,
    /// Columns wanted: of the files, and behind them those of the folders.
    pub wanted: Vec<usize>,
    pub schema: SchemaRef,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} files)", self.files.len())
    }
}

impl PartitionStream for Text {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, cx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let job = Arc::new(Text {
            files: vec![],
            format: self.format.clone(),
            store: self.store.clone(),
            file_schema: Arc::clone(&self.file_schema),
            wanted: self.wanted.clone(),
            schema: Arc::clone(&self.schema),
        });
        let rows = stream::iter(self.files.clone()).then(move |file| open(Arc::clone(&job), file, Arc::clone(&cx))).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

type Batches = BoxStream<'static, DfResult<RecordBatch>>;

async fn open(job: Arc<Text>, file: PartitionedFile, cx: Arc<TaskContext>) -> DfResult<Batches> {
    let store = cx.runtime_env().object_store(&job.store)?;
    let raw = store.get(&file.object_meta.location).await?.into_stream().map_err(DataFusionError::from).boxed();
    let compression = match &job.format {
        TextFormat::Csv(o) => o.compression.into(),
        TextFormat::Json { compression, .. } => *compression,
    };
    let input = compression.convert_stream(raw)?;
    let rows = cx.session_config().batch_size();
    // columns of the file that are read; one is needed to count rows
    let mut read: Vec<usize> = job.wanted.iter().copied().filter(|i| *i < job.file_schema.fields().len()).collect();
    if read.is_empty() && !job.file_schema.fields().is_empty() {
        read.push(0);
    }
    read.sort_unstable();
    let decoder = Decoder::new(&job, &read, rows)?;
    let state = Reader { input, rest: Bytes::new(), done: false, decoder, job, file, read, records: 0 };
    Ok(stream::try_unfold(state, |mut r| async move { Ok(r.next().await?.map(|batch| (batch, r))) }).boxed())
}

enum Decoder {
    Csv(Box<csv::reader::Decoder>),
    Json(Box<json::reader::Decoder>, Option<List>),
}

impl Decoder {
    fn new(job: &Text, read: &[usize], rows: usize) -> DfResult<Decoder> {
        match &job.format {
            TextFormat::Csv(o) => {
                let text = |f: &Arc<Field>| {
                    Field::new(f.name(), if o.null_regex.is_some() { DataType::Utf8 } else { f.data_type().clone() }, true)
                };
                let schema = Arc::new(Schema::new(job.file_schema.fields().iter().map(text).collect::<Vec<_>>()));
                let mut b = csv::ReaderBuilder::new(schema)
                    .with_header(o.has_header.unwrap_or(true))
                    .with_delimiter(o.delimiter)
                    .with_quote(o.quote)
                    .with_truncated_rows(o.truncated_rows.unwrap_or(false))
                    .with_projection(read.to_vec())
                    .with_batch_size(rows);
                if let Some(e) = o.escape {
                    b = b.with_escape(e);
                }
                if let Some(t) = o.terminator {
                    b = b.with_terminator(t);
                }
                if let Some(c) = o.comment {
                    b = b.with_comment(c);
                }
                Ok(Decoder::Csv(Box::new(b.build_decoder())))
            }
            TextFormat::Json { lines, .. } => {
                let schema = Arc::new(job.file_schema.project(read)?);
                let decoder = json::ReaderBuilder::new(schema).with_coerce_primitive(true).with_batch_size(rows).build_decoder()?;
                Ok(Decoder::Json(Box::new(decoder), (!lines).then(List::default)))
            }
        }
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<usize, ArrowError> {
        match self {
            Decoder::Csv(d) => d.decode(bytes),
            Decoder::Json(d, _) => d.decode(bytes),
        }
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        match self {
            Decoder::Csv(d) => d.flush(),
            Decoder::Json(d, _) => d.flush(),
        }
    }
}

struct Reader {
    input: BoxStream<'static, DfResult<Bytes>>,
    rest: Bytes,
    done: bool,
    decoder: Decoder,
    job: Arc<Text>,
    file: PartitionedFile,
    read: Vec<usize>,
    records: usize,
}

impl Reader {
    async fn next(&mut self) -> DfResult<Option<RecordBatch>> {
        loop {
            if self.rest.is_empty() && !self.done {
                match self.input.next().await.transpose()? {
                    Some(bytes) => {
                        self.rest = match &mut self.decoder {
                            Decoder::Json(_, Some(list)) => list.elements(&bytes),
                            _ => bytes,
                        };
                        continue;
                    }
                    None => self.done = true,
                }
            }
            let used = self.decoder.decode(&self.rest).map_err(|e| self.failed(e))?;
            let _ = self.rest.split_to(used.min(self.rest.len()));
            if !self.rest.is_empty() && used > 0 {
                // the batch is full when nothing more is taken
                continue;
            }
            if self.rest.is_empty() && !self.done {
                continue;
            }
            return match self.decoder.flush().map_err(|e| self.failed(e))? {
                Some(batch) => self.finished(batch).map(Some),
                None => Ok(None),
            };
        }
    }

    fn failed(&self, e: ArrowError) -> DataFusionError {
        let text = Error::from(e);
        Error::invalid(format!("file {}: {}", self.file.object_meta.location, text.message()))
            .with_hint("declare the column as VARCHAR and use TRY_CAST, or mend the file")
            .into()
    }

    /// The columns wanted, in their types, those of the folders among them.
    fn finished(&mut self, batch: RecordBatch) -> DfResult<RecordBatch> {
        let rows = batch.num_rows();
        let files = self.job.file_schema.fields().len();
        let columns = self
            .job
            .wanted
            .iter()
            .map(|i| match self.read.iter().position(|r| r == i) {
                Some(at) => self.typed(batch.column(at), self.job.file_schema.field(*i)),
                None => self.file.partition_values[*i - files].to_array_of_size(rows),
            })
            .collect::<DfResult<Vec<_>>>()?;
        self.records += rows;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.job.schema), columns, &options)?)
    }

    fn typed(&self, column: &ArrayRef, field: &Field) -> DfResult<ArrayRef> {
        let TextFormat::Csv(o) = &self.job.format else { return Ok(Arc::clone(column)) };
        let Some(regex) = &o.null_regex else { return Ok(Arc::clone(column)) };
        let texts = column.as_string::<i32>();
        let found = datafusion::arrow::compute::regexp_is_match_scalar(texts, regex, None)?;
        let null: BooleanArray = found.iter().map(|m| Some(m.unwrap_or(false))).collect();
        let texts = nullif(texts, &null)?;
        if field.data_type() == &DataType::Utf8 {
            return Ok(texts);
        }
        let out = cast_with_options(&texts, field.data_type(), &CastOptions { safe: true, ..Default::default() })?;
        match (0..out.len()).find(|i| out.is_null(*i) && texts.is_valid(*i)) {
            None => Ok(out),
            Some(i) => {
                let value = texts.as_string::<i32>().value(i);
                let t = field.data_type();
                Err(Error::invalid(format!(
                    "file {}: column {:?} of row {} holds {value:?}, which is no {t}",
                    self.file.object_meta.location,
                    field.name(),
                    self.records + i + 1
                ))
                .with_hint("declare the column as VARCHAR and use TRY_CAST, or let null_regex match the value")
                .into())
            }
        }
    }
}

/// Takes the elements out of one JSON list, in pieces of any size.
#[derive(Default)]
struct List {
    depth: usize,
    text: bool,
    escaped: bool,
}

impl List {
    fn elements(&mut self, bytes: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(bytes.len());
        for b in bytes {
            if self.text {
                (self.text, self.escaped) = (self.escaped || *b != b'"', !self.escaped && *b == b'\\');
                out.push(*b);
                continue;
            }
            let outer = match b {
                b'[' | b'{' => {
                    self.depth += 1;
                    self.depth == 1
                }
                b']' | b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.depth == 0
                }
                b',' => self.depth == 1,
                _ => false,
            };
            self.text = *b == b'"';
            out.push(if outer { b'\n' } else { *b });
        }
        out.into()
    }
}
