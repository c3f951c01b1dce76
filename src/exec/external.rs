//! Source data outside of the warehouse: Parquet, CSV and JSON files, and foreign Delta tables.

mod bounds;

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::config::TableParquetOptions;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use futures::TryStreamExt;

use self::bounds::{WithoutBounds, has_floats};
use super::resolve::Travel;
use super::services::Services;
use crate::error::{Error, Result};
use crate::model::{PinnedFile, Table};
use crate::store::offline::{ForeignTable, open_foreign_delta};

/// The unit of Parquet's INT96 instants; by default they would be nanoseconds, which end in 2262.
pub const INT96: &str = "us";

fn yes(v: &str) -> bool {
    ["true", "1", "yes", "on"].contains(&v.to_lowercase().as_str())
}

fn one_byte(key: &str, v: &str) -> Result<u8> {
    let v = if v == "\\t" { "\t" } else { v };
    match v.as_bytes() {
        [b] => Ok(*b),
        _ => Err(Error::invalid(format!("option {key:?} wants one character, not {v:?}"))),
    }
}

const CSV_OPTIONS: [&str; 7] = ["has_header", "delimiter", "quote", "escape", "comment", "null_regex", "newlines_in_values"];

fn format(t: &Table) -> Result<(Arc<dyn FileFormat>, &'static str)> {
    let known: &[&str] = if t.format == "CSV" { &CSV_OPTIONS } else { &[] };
    for key in t.options.keys() {
        let bare = key.rsplit('.').next().unwrap_or(key);
        if !known.contains(&bare) {
            let e = Error::invalid(format!("{} has no option {key:?}", t.format)).suggest(bare, known.iter().copied());
            return Err(if known.is_empty() {
                e.or_hint(&format!("{} takes no options", t.format))
            } else {
                e.or_hint(&format!("options are {}", known.join(", ")))
            });
        }
    }
    let option = |name: &str| t.options.iter().find(|(k, _)| k.rsplit('.').next() == Some(name)).map(|(_, v)| v.as_str());
    Ok(match t.format.as_str() {
        "PARQUET" => {
            let mut options = TableParquetOptions::default();
            options.global.coerce_int96 = Some(INT96.into());
            (Arc::new(ParquetFormat::default().with_options(options)), ".parquet")
        }
        "JSON" => (Arc::new(JsonFormat::default()), ".json"),
        "CSV" => {
            let mut f = CsvFormat::default().with_has_header(option("has_header").is_none_or(yes));
            if let Some(d) = option("delimiter") {
                f = f.with_delimiter(one_byte("delimiter", d)?);
            }
            if let Some(q) = option("quote") {
                f = f.with_quote(one_byte("quote", q)?);
            }
            if let Some(e) = option("escape") {
                f = f.with_escape(Some(one_byte("escape", e)?));
            }
            if let Some(c) = option("comment") {
                f = f.with_comment(Some(one_byte("comment", c)?));
            }
            if let Some(n) = option("null_regex") {
                f = f.with_null_regex(Some(n.to_string()));
            }
            if let Some(n) = option("newlines_in_values") {
                f = f.with_newlines_in_values(yes(n));
            }
            (Arc::new(f), ".csv")
        }
        other => return Err(Error::invalid(format!("external tables are not read as {other}"))),
    })
}

/// Opens a Delta table of others: where the statement says, else at a pinned version, else as it is now.
pub async fn open_delta(t: &Table, travel: Option<Travel>, pin: Option<u64>) -> Result<ForeignTable> {
    let (version, at) = match travel {
        Some(Travel::Version(v)) => (Some(v), None),
        Some(Travel::Instant(i)) => (None, Some(i)),
        None => (pin, None),
    };
    open_foreign_delta(&t.location, version, at).await
}

/// Opens an external table as it is now.
pub fn open<'a>(services: &'a Services, t: &'a Table) -> futures::future::BoxFuture<'a, Result<Arc<dyn TableProvider>>> {
    Box::pin(async move {
        if t.format == "DELTA" {
            return Ok(open_delta(t, None, None).await?.provider);
        }
        let url = url(t)?;
        let (format, extension) = format(t)?;
        // a pattern or one file says by itself which files are meant
        let extension = if url.is_collection() && url.get_glob().is_none() { extension } else { "" };
        let mut options = ListingOptions::new(format).with_file_extension(extension);
        let state = services.session.as_ref();
        let declared = Schema::new(t.columns.iter().map(|c| Field::new(&c.name, c.data_type.arrow().clone(), true)).collect::<Vec<_>>());
        let all = match t.columns.is_empty() {
            true => {
                let found = list(services, t).await?;
                if found.is_empty() {
                    return Err(Error::not_found(format!("no {} files at {}", t.format, t.location))
                        .with_hint("check the path; a folder ends with /, and a pattern may hold *"));
                }
                options.infer_schema(state, &url).await.map_err(|e| Error::from(e).context(&t.location))?
            }
            false => Arc::new(declared),
        };
        // the path says what the value is, declared columns and the files only of which type
        let partitions = t.partition_columns.iter().map(|c| (c.clone(), partition_type(&all, c))).collect();
        options = options.with_table_partition_cols(partitions);
        let fields = all.fields().iter().filter(|f| !t.partition_columns.contains(f.name()));
        let schema = Arc::new(Schema::new(fields.map(|f| wide_keys(f)).collect::<Vec<_>>()));
        let config = ListingTableConfig::new(url).with_listing_options(options).with_schema(schema);
        let table = ListingTable::try_new(config)?;
        let bounds = t.format != "PARQUET" || !has_floats(&table.schema());
        let table: Arc<dyn TableProvider> = if bounds { Arc::new(table) } else { Arc::new(WithoutBounds(table)) };
        Ok(table)
    })
}

/// Types that a part of a path can be read as.
fn partition_type(schema: &Schema, column: &str) -> DataType {
    match schema.field_with_name(column).map(Field::data_type) {
        Ok(t) if t.is_integer() || matches!(t, DataType::Date32 | DataType::Timestamp(..) | DataType::Decimal128(..)) => t.clone(),
        _ => DataType::Utf8,
    }
}

/// A dictionary of few keys holds for one file; the values of all files together need more.
fn wide_keys(field: &Field) -> Field {
    match field.data_type() {
        DataType::Dictionary(keys, values) if matches!(**keys, DataType::Int8 | DataType::UInt8 | DataType::Int16 | DataType::UInt16) => {
            field.clone().with_data_type(DataType::Dictionary(Box::new(DataType::Int32), values.clone()))
        }
        _ => field.clone(),
    }
}

/// Columns of a new external table. Refuses what could be made, but not be read.
pub fn infer<'a>(services: &'a Services, t: &'a Table) -> futures::future::BoxFuture<'a, Result<SchemaRef>> {
    Box::pin(async move {
        let columns = open(services, t).await?.schema();
        if t.partition_columns.is_empty() || t.format == "DELTA" {
            return Ok(columns);
        }
        if let Some(twice) = t.partition_columns.iter().enumerate().find(|(i, c)| t.partition_columns[..*i].contains(c)) {
            return Err(Error::invalid(format!("PARTITIONED BY names column {:?} twice", twice.1)));
        }
        if columns.fields().len() == t.partition_columns.len() {
            return Err(Error::invalid("all columns are in PARTITIONED BY").with_hint("leave the columns of the files out of it"));
        }
        let found = list(services, t).await?;
        for c in &t.partition_columns {
            if !found.is_empty() && !found.iter().any(|m| m.location.parts().any(|p| p.as_ref().starts_with(&format!("{c}=")))) {
                return Err(Error::invalid(format!("no folder below {} is called {c}=…, as PARTITIONED BY ({c}) says", t.location))
                    .with_hint("name the columns as the folders do, or leave PARTITIONED BY away"));
            }
        }
        if t.format == "CSV" && !found.is_empty() {
            // its columns are read by their place
            let (format, extension) = format(t)?;
            let url = url(t)?;
            let extension = if url.is_collection() && url.get_glob().is_none() { extension } else { "" };
            let header = ListingOptions::new(format).with_file_extension(extension).infer_schema(services.session.as_ref(), &url).await?;
            if let Some(c) = t.partition_columns.iter().find(|c| header.field_with_name(c).is_ok()) {
                return Err(Error::invalid(format!("the CSV files hold a column {c:?}, and their paths give it, too"))
                    .with_hint("leave it out of PARTITIONED BY, or out of the files"));
            }
        }
        Ok(columns)
    })
}

fn url(t: &Table) -> Result<ListingTableUrl> {
    ListingTableUrl::parse(&t.location).map_err(|e| Error::from(e).context(format!("location {:?}", t.location)))
}

fn list<'a>(services: &'a Services, t: &'a Table) -> futures::future::BoxFuture<'a, Result<Vec<object_store::ObjectMeta>>> {
    Box::pin(async move {
        let url = url(t)?;
        let store = services.runtime.object_store(&url).map_err(|e| {
            Error::from(e).with_hint("local paths work always; s3://, gs:// and az:// need a build with the cargo feature s3, gcs or azure")
        })?;
        let (_, extension) = format(t)?;
        let extension = if url.is_collection() && url.get_glob().is_none() { extension } else { "" };
        let stream = url.list_all_files(services.session.as_ref(), store.as_ref(), extension).await?;
        match stream.try_collect().await {
            Ok(found) => Ok(found),
            Err(datafusion::common::DataFusionError::ObjectStore(e)) if matches!(*e, object_store::Error::NotFound { .. }) => Ok(vec![]),
            Err(e) => Err(e.into()),
        }
    })
}

/// The files of a table and what tells one version of a file from the next.
pub fn files<'a>(services: &'a Services, t: &'a Table) -> futures::future::BoxFuture<'a, Result<Vec<PinnedFile>>> {
    Box::pin(async move {
        if t.format == "DELTA" {
            return Ok(vec![]);
        }
        let mut out: Vec<PinnedFile> = list(services, t)
            .await?
            .into_iter()
            .map(|m| PinnedFile {
                table: t.name.to_string(),
                path: format!("/{}", m.location),
                size: m.size,
                fingerprint: m.e_tag.unwrap_or_else(|| m.last_modified.timestamp_micros().to_string()),
            })
            .collect();
        out.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(out)
    })
}
