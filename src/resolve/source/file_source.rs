//! Files as a source, of whatever format: which they are, which columns they and their folders give, how they are read.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, PartitionedFile};
use futures::future::{BoxFuture, FutureExt};
use object_store::ObjectStore;

use super::bounds::WithoutBounds;
use super::files::{self, FileTable, Found, Place, Reading, TextFormat};
use super::kind::Source;
use super::options::{HIVE, Options};
use crate::error::{Error, Result};
use crate::model::{PinnedFile, Table};
use crate::services::Services;

/// How the files of a table are read.
pub struct Format {
    pub engine: Arc<dyn FileFormat>,
    /// Where the engine would not do what the options or the types say.
    pub text: Option<TextFormat>,
    pub extension: String,
}

/// What a kind of files looks through for what no query could read.
pub struct Looked<'a> {
    pub services: &'a Services,
    pub table: &'a Table,
    pub format: &'a Format,
    pub found: &'a [Found],
    pub store: Arc<dyn ObjectStore>,
    /// Columns that the paths give.
    pub given: &'a [String],
}

/// One format of files.
pub trait FileKind: Send + Sync {
    /// How files are read by these options, which were checked.
    fn format(&self, options: &Options<'_>) -> Result<Format>;

    /// Whether bounds that the files have must not be believed.
    fn has_wrong_bounds(&self, _schema: &Schema) -> bool {
        false
    }

    fn check<'a>(&'a self, _looked: Looked<'a>) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }
}

/// Files of one format as a source.
pub struct FileSource(pub &'static dyn FileKind);

impl Source for FileSource {
    fn open<'a>(&'a self, services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<Arc<dyn TableProvider>>> {
        async move { Ok(Arc::new(open_files(self.0, services, t).await?) as Arc<dyn TableProvider>) }.boxed()
    }

    fn check_columns(&self, t: &Table, columns: &SchemaRef) -> Result<()> {
        if let Some(twice) = t.partition_columns.iter().enumerate().find(|(i, c)| t.partition_columns[..*i].contains(c)) {
            return Err(Error::invalid(format!("PARTITIONED BY names column {:?} twice", twice.1)));
        }
        if !t.partition_columns.is_empty() && columns.fields().len() == t.partition_columns.len() {
            return Err(Error::invalid("all columns are in PARTITIONED BY").with_hint("leave the columns of the files out of it"));
        }
        Ok(())
    }

    fn look_through<'a>(&'a self, services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<()>> {
        async move {
            let format = format(self.0, t)?;
            let found = list(self.0, services, t).await?;
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
            self.0.check(Looked { services, table: t, format: &format, found: &found, store, given: &given }).await
        }
        .boxed()
    }

    fn files<'a>(&'a self, services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<Vec<PinnedFile>>> {
        async move {
            let found = list(self.0, services, t).await?;
            let mut out: Vec<PinnedFile> = found
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
        }
        .boxed()
    }

    fn finds_hive<'a>(&'a self, services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<bool>> {
        async move {
            if !t.partition_columns.is_empty() || Options(t).get(HIVE).is_some() {
                return Ok(false);
            }
            let found = list(self.0, services, t).await?;
            Ok(found.iter().any(|f| f.folders.iter().any(|d| d.contains('='))) && !files::hive_keys(&found)?.is_empty())
        }
        .boxed()
    }
}

fn format(kind: &dyn FileKind, t: &Table) -> Result<Format> {
    let options = Options(t);
    options.check()?;
    kind.format(&options)
}

/// The paths of a table: one, or several for files that a query names by itself.
fn places(t: &Table) -> Result<Vec<Place>> {
    t.location.split('\n').map(Place::parse).collect()
}

/// The files of a table that are there now.
async fn list(kind: &dyn FileKind, services: &Services, t: &Table) -> Result<Vec<Found>> {
    let extension = format(kind, t)?.extension;
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

async fn open_files(kind: &dyn FileKind, services: &Services, t: &Table) -> Result<FileTable> {
    let state = services.session.as_ref();
    let format = format(kind, t)?;
    let places = places(t)?;
    let [place, others @ ..] = &places[..] else { return Err(Error::internal("an external table without a location")) };
    let hive = !t.partition_columns.is_empty() || Options(t).flag(HIVE)? == Some(true);
    let simple = others.is_empty() && place.pattern.is_empty() && !hive && format.text.is_none();
    let found = match simple && !t.columns.is_empty() {
        true => vec![],
        false => list(kind, services, t).await?,
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
        Some(table) if simple && kind.has_wrong_bounds(&schema) => Reading::Listing(Arc::new(WithoutBounds(Arc::clone(table)))),
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
