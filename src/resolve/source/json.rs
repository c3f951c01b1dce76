//! JSON files: one object per line, or one array.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::GetExt;
use datafusion::common::config::JsonOptions;
use datafusion::datasource::file_format::DEFAULT_SCHEMA_INFER_MAX_RECORD;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use futures::future::BoxFuture;

use super::file_source::{FileKind, FileSource, Format, Looked};
use super::files::{self, TextFormat};
use super::kind::Source;
use super::options::Options;
use crate::error::Result;

pub const SOURCE: &dyn Source = &FileSource(&Json);

struct Json;

impl FileKind for Json {
    fn format(&self, o: &Options<'_>) -> Result<Format> {
        let (lines, compression) = (o.flag("newline_delimited")?.unwrap_or(true), o.compression()?);
        let options = JsonOptions {
            compression,
            schema_infer_max_rec: o.count("schema_infer_max_rec")?,
            newline_delimited: lines,
            ..Default::default()
        };
        let text = TextFormat::Json { lines, compression: compression.into() };
        let extension = format!(".json{}", FileCompressionType::from(compression).get_ext());
        Ok(Format { engine: Arc::new(JsonFormat::default().with_options(options)), text: Some(text), extension })
    }

    fn check<'a>(&'a self, looked: Looked<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Looked { table: t, given, .. } = &looked;
            let Some(TextFormat::Json { lines: true, compression }) = looked.format.text else { return Ok(()) };
            let declared =
                t.columns.iter().filter(|c| !given.contains(&c.name)).map(|c| Field::new(&c.name, c.data_type.arrow().clone(), true));
            let declared = Schema::new(declared.collect::<Vec<_>>());
            let records = Options(t).count("schema_infer_max_rec")?.unwrap_or(DEFAULT_SCHEMA_INFER_MAX_RECORD);
            files::check::json_kinds(looked.store.as_ref(), looked.found, &declared, compression, records).await
        })
    }
}
