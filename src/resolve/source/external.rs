//! Source data outside of the warehouse: Parquet, CSV and JSON files, and foreign Delta tables.

pub mod bounds;

use std::str::FromStr;
use std::sync::Arc;

use datafusion::arrow::array::StringArray;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::GetExt;
use datafusion::common::config::{CsvOptions, JsonOptions, TableParquetOptions};
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, PartitionedFile};
use futures::future::BoxFuture;

use self::bounds::{WithoutBounds, has_floats};
use super::files::{self, FileTable, Found, Place, Reading, TextFormat};
use crate::engine::session_state::INT96;
use crate::error::{Error, Result};
use crate::model::{PinnedFile, Table, Travel};
use crate::services::Services;
use crate::store::offline::{ForeignTable, open_foreign_delta};

/// Options for reading, by format. Those of writing belong to COPY … TO.
const CSV_OPTIONS: [&str; 11] = [
    "has_header",
    "delimiter",
    "quote",
    "escape",
    "comment",
    "terminator",
    "null_regex",
    "newlines_in_values",
    "schema_infer_max_rec",
    "truncated_rows",
    "compression",
];
const JSON_OPTIONS: [&str; 3] = ["compression", "schema_infer_max_rec", "newline_delimited"];
const PARQUET_OPTIONS: [&str; 1] = ["binary_as_string"];
/// Of every format: whether folders `key=value` give columns.
pub const HIVE: &str = "hive_partitioning";

/// Names that other systems use for the same option.
const ALIASES: [(&str, &str); 4] =
    [("header", "has_header"), ("delim", "delimiter"), ("sep", "delimiter"), ("sample_size", "schema_infer_max_rec")];

fn bare(key: &str) -> &str {
    let bare = key.strip_prefix("format.").unwrap_or(key);
    ALIASES.iter().find(|(a, _)| *a == bare).map_or(bare, |(_, name)| name)
}

struct Options<'a>(&'a Table);

impl Options<'_> {
    fn known(&self) -> &'static [&'static str] {
        match self.0.format.as_str() {
            "CSV" => &CSV_OPTIONS,
            "JSON" => &JSON_OPTIONS,
            "PARQUET" => &PARQUET_OPTIONS,
            _ => &[],
        }
    }

    fn check(&self) -> Result<()> {
        let format = &self.0.format;
        for key in self.0.options.keys() {
            if self.known().contains(&bare(key)) || (bare(key) == HIVE && format != "DELTA") {
                continue;
            }
            let e = Error::invalid(format!("{format} has no option {key:?} for reading")).suggest(bare(key), self.known().iter().copied());
            return Err(match self.known().is_empty() {
                true => e.or_hint(&format!("{format} takes no options")),
                false => e.or_hint(&format!("options are {}, {HIVE}", self.known().join(", "))),
            });
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.options.iter().find(|(k, _)| bare(k) == name).map(|(_, v)| v.as_str())
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.get(name)
            .map(|v| match v.to_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(Error::invalid(format!("option {name:?} wants true or false, not {v:?}"))),
            })
            .transpose()
    }

    fn byte(&self, name: &str) -> Result<Option<u8>> {
        self.get(name)
            .map(|v| match v {
                "\\t" => Ok(b'\t'),
                "\\n" => Ok(b'\n'),
                "\\r" => Ok(b'\r'),
                _ if v.len() == 1 => Ok(v.as_bytes()[0]),
                _ => Err(Error::invalid(format!("option {name:?} wants one character, not {v:?}"))),
            })
            .transpose()
    }

    fn count(&self, name: &str) -> Result<Option<usize>> {
        self.get(name)
            .map(|v| v.replace('_', "").parse().map_err(|_| Error::invalid(format!("option {name:?} wants a whole number, not {v:?}"))))
            .transpose()
    }

    fn compression(&self) -> Result<CompressionTypeVariant> {
        match self.get("compression") {
            // the names of the files say it as well
            None => Ok(match self.0.location.to_lowercase().rsplit('.').next() {
                Some("gz") => CompressionTypeVariant::GZIP,
                Some("bz2") => CompressionTypeVariant::BZIP2,
                Some("xz") => CompressionTypeVariant::XZ,
                Some("zst") => CompressionTypeVariant::ZSTD,
                _ => CompressionTypeVariant::UNCOMPRESSED,
            }),
            Some(v) => CompressionTypeVariant::from_str(v)
                .map_err(|_| Error::invalid(format!("option \"compression\" wants gzip, bzip2, xz, zstd or uncompressed, not {v:?}"))),
        }
    }
}

/// How the files of a table are read.
struct Format {
    engine: Arc<dyn FileFormat>,
    /// Where the engine would not do what the options or the types say.
    text: Option<TextFormat>,
    extension: String,
}

fn format(t: &Table) -> Result<Format> {
    let o = Options(t);
    o.check()?;
    Ok(match t.format.as_str() {
        "PARQUET" => {
            let mut options = TableParquetOptions::default();
            options.global.coerce_int96 = Some(INT96.into());
            options.global.binary_as_string = o.flag("binary_as_string")?.unwrap_or(false);
            let engine = ParquetFormat::default().with_options(options);
            Format { engine: Arc::new(engine), text: None, extension: ".parquet".into() }
        }
        "JSON" => {
            let (lines, compression) = (o.flag("newline_delimited")?.unwrap_or(true), o.compression()?);
            let options = JsonOptions {
                compression,
                schema_infer_max_rec: o.count("schema_infer_max_rec")?,
                newline_delimited: lines,
                ..Default::default()
            };
            let text = TextFormat::Json { lines, compression: compression.into() };
            let extension = format!(".json{}", FileCompressionType::from(compression).get_ext());
            Format { engine: Arc::new(JsonFormat::default().with_options(options)), text: Some(text), extension }
        }
        "CSV" => {
            let options = csv_options(&o)?;
            let text = options.null_regex.is_some().then(|| TextFormat::Csv(Box::new(options.clone())));
            let mut inferred = options.clone();
            // an empty field is NULL, whatever else is
            inferred.null_regex = options.null_regex.as_ref().map(|r| format!("(?:{r})|^$"));
            let extension = format!(".csv{}", FileCompressionType::from(options.compression).get_ext());
            Format { engine: Arc::new(CsvFormat::default().with_options(inferred)), text, extension }
        }
        other => return Err(Error::invalid(format!("external tables are not read as {other}"))),
    })
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

/// Opens a Delta table of others: where the statement says, else at a pinned version, else as it is now.
pub async fn open_delta(t: &Table, travel: Option<Travel>, pin: Option<u64>) -> Result<ForeignTable> {
    let (version, at) = match travel {
        Some(Travel::Version(v)) => (Some(v), None),
        Some(Travel::Instant(i)) => (None, Some(i)),
        None => (pin, None),
    };
    open_foreign_delta(&t.location, version, at).await
}

/// The paths of a table: one, or several for files that a query names by itself.
fn places(t: &Table) -> Result<Vec<Place>> {
    t.location.split('\n').map(Place::parse).collect()
}

/// The files of a table that are there now.
async fn list(services: &Services, t: &Table) -> Result<Vec<Found>> {
    let extension = format(t)?.extension;
    let mut out: Vec<Found> = vec![];
    for place in places(t)? {
        let found = files::list(services, &place, &extension).await?;
        if found.is_empty() && t.location.contains('\n') {
            return Err(nothing(t, place.url.as_str()));
        }
        out.extend(found.into_iter().filter(|f| !out.iter().any(|o| o.meta.location == f.meta.location)).collect::<Vec<_>>());
    }
    Ok(out)
}

fn nothing(t: &Table, at: &str) -> Error {
    Error::not_found(format!("no {} files at {at}", t.format))
        .with_hint("check the path; a folder ends with /, and a pattern may hold *, ? and ** in each part")
}

/// Opens an external table as it is now.
pub fn open<'a>(services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<Arc<dyn TableProvider>>> {
    Box::pin(async move {
        if t.format == "DELTA" {
            Options(t).check()?;
            return Ok(open_delta(t, None, None).await?.provider);
        }
        Ok(Arc::new(open_files(services, t).await?) as Arc<dyn TableProvider>)
    })
}

/// Columns that folders give: those of PARTITIONED BY, or all that are there.
fn partitions(t: &Table, found: &[Found], columns: &Schema) -> Result<Vec<FieldRef>> {
    let field = |name: &str, t: DataType| Arc::new(Field::new(name, t, true));
    if !t.partition_columns.is_empty() {
        // the path says what the value is, declared columns and the files only of which type
        return Ok(t.partition_columns.iter().map(|c| field(c, partition_type(columns, c))).collect());
    }
    if Options(t).flag(HIVE)? != Some(true) {
        return Ok(vec![]);
    }
    let declared =
        |name: &str| (!t.columns.is_empty()).then(|| columns.field_with_name(name).ok()).flatten().map(|f| f.data_type().clone());
    Ok(files::infer_hive(found)?.into_iter().map(|(name, inferred)| field(&name, declared(&name).unwrap_or(inferred))).collect())
}

async fn open_files(services: &Services, t: &Table) -> Result<FileTable> {
    let state = services.session.as_ref();
    let format = format(t)?;
    let places = places(t)?;
    let [place, others @ ..] = &places[..] else { return Err(Error::internal("an external table without a location")) };
    let hive = !t.partition_columns.is_empty() || Options(t).flag(HIVE)? == Some(true);
    let simple = others.is_empty() && place.pattern.is_empty() && !hive && format.text.is_none();
    let found = match simple && !t.columns.is_empty() {
        true => vec![],
        false => list(services, t).await?,
    };
    let store = services.runtime.object_store(&place.url).map_err(|e| {
        Error::from(e).with_hint("local paths work always; s3://, gs:// and az:// need a build with the cargo feature s3, gcs or azure")
    })?;
    let all = match t.columns.is_empty() {
        true if found.is_empty() => return Err(nothing(t, &t.location)),
        true => {
            let metas: Vec<_> = found.iter().map(|f| f.meta.clone()).collect();
            format.engine.infer_schema(state, &store, &metas).await.map_err(|e| Error::from(e).context(&t.location))?
        }
        false => {
            Arc::new(Schema::new(t.columns.iter().map(|c| Field::new(&c.name, c.data_type.arrow().clone(), true)).collect::<Vec<_>>()))
        }
    };
    let partitions = partitions(t, &found, &all)?;
    let given = |f: &&FieldRef| !partitions.iter().any(|p| p.name() == f.name());
    let schema = Arc::new(Schema::new(all.fields().iter().filter(given).map(|f| wide_keys(f)).collect::<Vec<_>>()));
    let listing = others.is_empty() && place.pattern.is_empty();
    let folder = match listing {
        true => Some(Arc::new(listing_table(place, &format, &partitions, &schema)?)),
        false => None,
    };
    let reading = match &folder {
        Some(table) if simple && t.format == "PARQUET" && has_floats(&schema) => {
            Reading::Listing(Arc::new(WithoutBounds(Arc::clone(table))))
        }
        Some(table) if simple => Reading::Listing(Arc::clone(table) as Arc<dyn TableProvider>),
        _ => {
            let files = found
                .iter()
                .map(|f| {
                    let mut file = PartitionedFile::from(f.meta.clone());
                    file.partition_values =
                        partitions.iter().map(|p| files::hive_value(f, p.name(), p.data_type())).collect::<Result<_>>()?;
                    Ok(file)
                })
                .collect::<Result<Vec<_>>>()?;
            match &format.text {
                Some(text) => Reading::Text(files, text.clone()),
                None => Reading::Engine(files),
            }
        }
    };
    let folder = folder.filter(|_| place.is_folder());
    Ok(FileTable::new(t.name.to_string(), place.url.object_store(), format.engine, schema, partitions, reading, folder))
}

fn listing_table(place: &Place, format: &Format, partitions: &[FieldRef], schema: &SchemaRef) -> Result<ListingTable> {
    // one file says by itself which file is meant
    let extension = if place.url.is_collection() { format.extension.as_str() } else { "" };
    let options = ListingOptions::new(Arc::clone(&format.engine))
        .with_file_extension(extension)
        .with_table_partition_cols(partitions.iter().map(|f| (f.name().clone(), f.data_type().clone())).collect());
    let config = ListingTableConfig::new(place.url.clone()).with_listing_options(options).with_schema(Arc::clone(schema));
    Ok(ListingTable::try_new(config)?)
}

/// Whether the folders of a new table give columns that nobody named: its options then say so.
pub fn finds_hive<'a>(services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<bool>> {
    Box::pin(async move {
        if t.format == "DELTA" || !t.partition_columns.is_empty() || Options(t).get(HIVE).is_some() {
            return Ok(false);
        }
        let found = list(services, t).await?;
        Ok(found.iter().any(|f| f.folders.iter().any(|d| d.contains('='))) && !files::hive_keys(&found)?.is_empty())
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
pub fn infer<'a>(services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<SchemaRef>> {
    Box::pin(async move {
        looked_through(services, t).await?;
        let columns = open(services, t).await?.schema();
        if t.format == "DELTA" {
            return Ok(columns);
        }
        if let Some(twice) = t.partition_columns.iter().enumerate().find(|(i, c)| t.partition_columns[..*i].contains(c)) {
            return Err(Error::invalid(format!("PARTITIONED BY names column {:?} twice", twice.1)));
        }
        if !t.partition_columns.is_empty() && columns.fields().len() == t.partition_columns.len() {
            return Err(Error::invalid("all columns are in PARTITIONED BY").with_hint("leave the columns of the files out of it"));
        }
        Ok(columns)
    })
}

/// Reads the beginning of text files, and looks for what no query could read.
pub fn look_through<'a>(services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<()>> {
    Box::pin(looked_through(services, t))
}

async fn looked_through(services: &Services, t: &Table) -> Result<()> {
    if t.format == "DELTA" {
        return Ok(());
    }
    let format = format(t)?;
    let found = list(services, t).await?;
    let places = places(t)?;
    let (Some(place), false) = (places.first(), found.is_empty()) else { return Ok(()) };
    let store = services.runtime.object_store(&place.url)?;
    let given = match t.partition_columns.is_empty() {
        true if Options(t).flag(HIVE)? == Some(true) => files::hive_keys(&found)?,
        _ => t.partition_columns.clone(),
    };
    for f in &found {
        for c in &given {
            files::hive_value(f, c, &DataType::Utf8)?;
        }
    }
    if t.format == "CSV" {
        let options = csv_options(&Options(t))?;
        if t.columns.is_empty() {
            files::check::header(store.as_ref(), &found, &options).await?;
        }
        // its columns are read by their place
        let metas: Vec<_> = found.iter().map(|f| f.meta.clone()).collect();
        let header = match given.is_empty() {
            true => return Ok(()),
            false => format
                .engine
                .infer_schema(services.session.as_ref(), &store, &metas)
                .await
                .map_err(|e| Error::from(e).context(&t.location))?,
        };
        if let Some(c) = given.iter().find(|c| header.field_with_name(c).is_ok()) {
            return Err(Error::invalid(format!("the CSV files hold a column {c:?}, and their paths give it, too")).with_hint(
                "leave it out of PARTITIONED BY, or out of the files; OPTIONS ('hive_partitioning' 'false') reads the files alone",
            ));
        }
    }
    if let Some(TextFormat::Json { lines: true, compression }) = format.text {
        let declared =
            t.columns.iter().filter(|c| !given.contains(&c.name)).map(|c| Field::new(&c.name, c.data_type.arrow().clone(), true));
        let declared = Schema::new(declared.collect::<Vec<_>>());
        let records =
            Options(t).count("schema_infer_max_rec")?.unwrap_or(datafusion::datasource::file_format::DEFAULT_SCHEMA_INFER_MAX_RECORD);
        files::check::json_kinds(store.as_ref(), &found, &declared, compression, records).await?;
    }
    Ok(())
}

/// The files of a table and what tells one version of a file from the next.
pub fn files<'a>(services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<Vec<PinnedFile>>> {
    Box::pin(async move {
        if t.format == "DELTA" {
            return Ok(vec![]);
        }
        let mut out: Vec<PinnedFile> = list(services, t)
            .await?
            .into_iter()
            .map(|f| f.meta)
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
