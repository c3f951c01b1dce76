//! CSV files.

use std::sync::Arc;

use datafusion::arrow::array::StringArray;
use datafusion::common::GetExt;
use datafusion::common::config::CsvOptions;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use futures::future::BoxFuture;

use super::file_source::{FileKind, FileSource, Format, Looked};
use super::files::{self, TextFormat};
use super::kind::Source;
use super::options::Options;
use crate::error::{Error, Result};

pub const SOURCE: &dyn Source = &FileSource(&Csv);

struct Csv;

impl FileKind for Csv {
    fn format(&self, o: &Options<'_>) -> Result<Format> {
        let options = csv_options(o)?;
        let text = options.null_regex.is_some().then(|| TextFormat::Csv(Box::new(options.clone())));
        let mut inferred = options.clone();
        // an empty field is NULL, whatever else is
        inferred.null_regex = options.null_regex.as_ref().map(|r| format!("(?:{r})|^$"));
        let extension = format!(".csv{}", FileCompressionType::from(options.compression).get_ext());
        Ok(Format { engine: Arc::new(CsvFormat::default().with_options(inferred)), text, extension })
    }

    fn check<'a>(&'a self, looked: Looked<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let t = looked.table;
            if t.columns.is_empty() {
                files::check::header(looked.store.as_ref(), looked.found, &csv_options(&Options(t))?).await?;
            }
            if looked.given.is_empty() {
                return Ok(());
            }
            // its columns are read by their place
            let metas: Vec<_> = looked.found.iter().map(|f| f.meta.clone()).collect();
            let engine = &looked.format.engine;
            let header = engine.infer_schema(looked.services.session.as_ref(), &looked.store, &metas).await;
            let header = header.map_err(|e| Error::from(e).context(&t.location))?;
            match looked.given.iter().find(|c| header.field_with_name(c).is_ok()) {
                None => Ok(()),
                Some(c) => Err(Error::invalid(format!("the CSV files hold a column {c:?}, and their paths give it, too")).with_hint(
                    "leave it out of PARTITIONED BY, or out of the files; OPTIONS ('hive_partitioning' 'false') reads the files alone",
                )),
            }
        })
    }
}

fn csv_options(o: &Options<'_>) -> Result<CsvOptions> {
    let default = CsvOptions::default();
    if let Some(regex) = o.get("null_regex") {
        let probe = StringArray::from(vec![""]);
        if datafusion::arrow::compute::regexp_is_match_scalar(&probe, regex, None).is_err() {
            return Err(Error::invalid(format!("option \"null_regex\": {regex:?} is not a regular expression"))
                .with_hint("'^NA$' means fields that are NA; a special character is written with \\ in front"));
        }
    }
    Ok(CsvOptions {
        has_header: Some(o.flag("has_header")?.unwrap_or(true)),
        delimiter: o.byte("delimiter")?.unwrap_or(default.delimiter),
        quote: o.byte("quote")?.unwrap_or(default.quote),
        escape: o.byte("escape")?,
        comment: o.byte("comment")?,
        terminator: o.byte("terminator")?,
        null_regex: o.get("null_regex").map(str::to_string),
        newlines_in_values: o.flag("newlines_in_values")?,
        schema_infer_max_rec: o.count("schema_infer_max_rec")?,
        truncated_rows: o.flag("truncated_rows")?,
        compression: o.compression()?,
        ..default
    })
}
