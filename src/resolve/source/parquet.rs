//! Parquet files.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::config::TableParquetOptions;
use datafusion::datasource::file_format::parquet::ParquetFormat;

use super::bounds::has_floats;
use super::file_source::{FileKind, FileSource, Format};
use super::kind::Source;
use super::options::Options;
use crate::engine::session_state::INT96;
use crate::error::Result;

pub const SOURCE: &dyn Source = &FileSource(&Parquet);

struct Parquet;

impl FileKind for Parquet {
    fn format(&self, o: &Options<'_>) -> Result<Format> {
        let mut options = TableParquetOptions::default();
        options.global.coerce_int96 = Some(INT96.into());
        options.global.binary_as_string = o.flag("binary_as_string")?.unwrap_or(false);
        let engine = ParquetFormat::default().with_options(options);
        Ok(Format { engine: Arc::new(engine), text: None, extension: ".parquet".into() })
    }

    /// Bounds in the files leave NaN out, and the engine does not know it.
    fn has_wrong_bounds(&self, schema: &Schema) -> bool {
        has_floats(schema)
    }
}
