//! Files as a table: which files a path names, what the folders of a hive layout say, and the plan that reads them.

pub mod check;
mod hive;
mod text;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{ColumnStatistics, DFSchema, Result as DfResult, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::listing::{ListingTable, ListingTableUrl, PartitionedFile};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};

pub use self::hive::{infer as infer_hive, keys as hive_keys, value as hive_value};
pub use self::text::{Text, TextFormat};
use super::bounds::has_floats;
use crate::error::{Error, Result};
use crate::services::Services;

/// A file that a path names, and the folders between the part of the path without wildcards and the file.
#[derive(Debug, Clone)]
pub struct Found {
    pub meta: ObjectMeta,
    pub folders: Vec<String>,
}

/// A path: the part without wildcards, and the parts behind it.
pub struct Place {
    pub url: ListingTableUrl,
    pub pattern: Vec<String>,
}

impl Place {
    pub fn parse(path: &str) -> Result<Place> {
        let parts: Vec<&str> = path.split('/').collect();
        let wild = parts.iter().position(|p| p.contains(['*', '?', '[']));
        let fixed = match wild {
            Some(at) => format!("{}/", parts[..at].join("/")),
            None => path.to_string(),
        };
        let url = ListingTableUrl::parse(&fixed).map_err(|e| Error::from(e).context(format!("path {path:?}")))?;
        let pattern = wild.map_or(vec![], |at| parts[at..].iter().map(|p| p.to_string()).collect());
        for part in &pattern {
            matches(&url, part, "").map_err(|e| e.context(format!("path {path:?}")))?;
        }
        Ok(Place { url, pattern })
    }

    /// Whether rows can be added: the path names a folder.
    pub fn is_folder(&self) -> bool {
        self.pattern.is_empty() && self.url.is_collection()
    }

    /// Whether the parts of a path behind the fixed one are meant.
    fn holds(&self, folders: &[String], file: &str) -> Result<bool> {
        let below = |of: &[String]| of.iter().all(|f| f.contains('='));
        match &self.pattern[..] {
            [] => Ok(below(folders)),
            // folders of a hive layout stand between a folder and its files
            [one] if one != "**" => Ok(below(folders) && matches(&self.url, one, file)?),
            parts => {
                let all: Vec<&str> = folders.iter().map(String::as_str).chain([file]).collect();
                walk(&self.url, parts, &all)
            }
        }
    }
}

fn matches(url: &ListingTableUrl, pattern: &str, text: &str) -> Result<bool> {
    let wild = url.clone().with_glob(pattern)?;
    Ok(wild.get_glob().as_ref().is_some_and(|g| g.matches(text)))
}

/// Part by part; `**` stands for any number of folders.
fn walk(url: &ListingTableUrl, pattern: &[String], path: &[&str]) -> Result<bool> {
    match (pattern, path) {
        ([], []) => Ok(true),
        ([], _) => Ok(false),
        ([any, rest @ ..], _) if any == "**" => {
            for skipped in 0..=path.len() {
                if walk(url, rest, &path[skipped..])? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (_, []) => Ok(false),
        ([one, rest @ ..], [first, others @ ..]) => Ok(matches(url, one, first)? && walk(url, rest, others)?),
    }
}

/// The files that a path names, in the order of their paths. Of a plain folder only those that end with `extension`.
pub async fn list(services: &Services, place: &Place, extension: &str) -> Result<Vec<Found>> {
    let url = &place.url;
    let store = services.runtime.object_store(url).map_err(|e| {
        Error::from(e).with_hint("local paths work always; s3://, gs:// and az:// need a build with the cargo feature s3, gcs or azure")
    })?;
    if !url.is_collection() {
        match store.head(url.prefix()).await {
            Ok(meta) => return Ok(vec![Found { meta, folders: vec![] }]),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let all: Vec<ObjectMeta> = match store.list(Some(url.prefix())).try_collect().await {
        Ok(all) => all,
        Err(object_store::Error::NotFound { .. }) => vec![],
        Err(e) => return Err(e.into()),
    };
    let mut out = vec![];
    for meta in all {
        let Some(parts) = url.strip_prefix(&meta.location) else { continue };
        let mut folders: Vec<String> = parts.map(str::to_string).collect();
        let Some(file) = folders.pop() else { continue };
        let by_name = !place.pattern.is_empty() || meta.location.as_ref().ends_with(extension);
        if meta.size > 0 && by_name && place.holds(&folders, &file)? {
            out.push(Found { meta, folders });
        }
    }
    out.sort_by(|a, b| a.meta.location.cmp(&b.meta.location));
    Ok(out)
}

/// How the files are read.
#[derive(Debug)]
pub enum Reading {
    /// One folder or file, by the engine alone.
    Listing(Arc<dyn TableProvider>),
    /// The files at hand, by the engine.
    Engine(Vec<PartitionedFile>),
    /// The files at hand, by our own reader of texts.
    Text(Vec<PartitionedFile>, TextFormat),
}

/// Files as a table.
#[derive(Debug)]
pub struct FileTable {
    pub name: String,
    pub store: ObjectStoreUrl,
    pub format: Arc<dyn FileFormat>,
    /// Columns of the files.
    pub file_schema: SchemaRef,
    /// Columns that the folders give.
    pub partitions: Vec<FieldRef>,
    pub reading: Reading,
    /// Where rows can be added.
    pub folder: Option<Arc<ListingTable>>,
    schema: SchemaRef,
}

impl FileTable {
    pub fn new(
        name: String,
        store: ObjectStoreUrl,
        format: Arc<dyn FileFormat>,
        file_schema: SchemaRef,
        partitions: Vec<FieldRef>,
        reading: Reading,
        folder: Option<Arc<ListingTable>>,
    ) -> FileTable {
        let schema = Arc::new(Schema::new(file_schema.fields().iter().chain(&partitions).cloned().collect::<Vec<_>>()));
        FileTable { name, store, format, file_schema, partitions, reading, folder, schema }
    }

    /// Leaves out the files whose folders say that no row of them is wanted.
    fn pruned(&self, state: &dyn Session, files: &[PartitionedFile], filters: &[Expr]) -> DfResult<Vec<PartitionedFile>> {
        let of_folders = |e: &&Expr| {
            let columns = e.column_refs();
            !columns.is_empty() && !e.is_volatile() && columns.iter().all(|c| self.partitions.iter().any(|f| *f.name() == c.name))
        };
        let filters: Vec<Expr> = filters.iter().filter(of_folders).cloned().collect();
        let Some(filter) = datafusion::logical_expr::utils::conjunction(filters) else { return Ok(files.to_vec()) };
        if files.is_empty() {
            return Ok(vec![]);
        }
        let schema = Arc::new(Schema::new(self.partitions.clone()));
        let columns = (0..self.partitions.len())
            .map(|i| ScalarValue::iter_to_array(files.iter().map(|f| f.partition_values[i].clone())))
            .collect::<DfResult<Vec<_>>>()?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let unqualified = filter_without_tables(filter)?;
        let predicate = state.create_physical_expr(unqualified, &DFSchema::try_from(schema)?)?;
        let kept = predicate.evaluate(&batch)?.into_array(files.len())?;
        let kept = kept.as_boolean();
        Ok(files.iter().enumerate().filter(|(i, _)| kept.is_valid(*i) && kept.value(*i)).map(|(_, f)| f.clone()).collect())
    }

    async fn engine(
        &self,
        state: &dyn Session,
        files: Vec<PartitionedFile>,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let store = state.runtime_env().object_store(&self.store)?;
        let (mut known, mut statistics) = (vec![], vec![]);
        for file in files {
            let own = match has_floats(&self.file_schema) {
                true => Statistics::new_unknown(&self.file_schema),
                false => self.format.infer_stats(state, &store, Arc::clone(&self.file_schema), &file.object_meta).await?,
            };
            statistics.push(own.clone());
            known.push(file.with_statistics(Arc::new(own)));
        }
        let mut all = Statistics::try_merge_iter(statistics.iter(), &self.file_schema)?.to_inexact();
        all.column_statistics.extend(self.partitions.iter().map(|_| ColumnStatistics::new_unknown()));
        let groups = FileGroup::new(known).split_files(state.config().target_partitions().max(1));
        let table = TableSchema::builder(Arc::clone(&self.file_schema)).with_table_partition_cols(self.partitions.clone()).build();
        let config = FileScanConfigBuilder::new(self.store.clone(), self.format.file_source(table))
            .with_file_groups(groups)
            .with_statistics(all)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        self.format.create_physical_plan(state, config).await
    }

    fn text(
        &self,
        state: &dyn Session,
        files: Vec<PartitionedFile>,
        format: &TextFormat,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let wanted = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&wanted)?);
        let groups = FileGroup::new(files).split_files(state.config().target_partitions().max(1));
        let partitions = groups
            .into_iter()
            .map(|g| {
                Arc::new(Text {
                    store: self.store.clone(),
                    files: g.into_inner(),
                    format: format.clone(),
                    file_schema: Arc::clone(&self.file_schema),
                    wanted: wanted.clone(),
                    schema: Arc::clone(&schema),
                }) as Arc<dyn PartitionStream>
            })
            .collect();
        Ok(Arc::new(StreamingTableExec::try_new(schema, partitions, None, vec![], false, limit)?))
    }
}

/// The filter over bare column names.
fn filter_without_tables(e: Expr) -> DfResult<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    e.transform(|e| {
        Ok(match e {
            Expr::Column(c) => Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(c.name))),
            other => Transformed::no(other),
        })
    })
    .map(|t| t.data)
}

#[async_trait]
impl TableProvider for FileTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        match &self.reading {
            Reading::Listing(t) => t.supports_filters_pushdown(filters),
            Reading::Engine(_) | Reading::Text(..) => Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()]),
        }
    }

    fn statistics(&self) -> Option<Statistics> {
        match &self.reading {
            Reading::Listing(t) => t.statistics(),
            Reading::Engine(_) | Reading::Text(..) => None,
        }
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let (files, text) = match &self.reading {
            Reading::Listing(t) => return t.scan(state, projection, filters, limit).await,
            Reading::Engine(files) => (files, None),
            Reading::Text(files, format) => (files, Some(format)),
        };
        let files = self.pruned(state, files, filters)?;
        // rows are counted behind the filters
        let limit = limit.filter(|_| filters.is_empty());
        match text {
            _ if files.is_empty() => {
                let wanted = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
                Ok(Arc::new(EmptyExec::new(Arc::new(self.schema.project(&wanted)?))))
            }
            Some(format) => self.text(state, files, format, projection, limit),
            None => self.engine(state, files, projection, limit).await,
        }
    }

    async fn insert_into(&self, state: &dyn Session, input: Arc<dyn ExecutionPlan>, op: InsertOp) -> DfResult<Arc<dyn ExecutionPlan>> {
        let no = |why: &str| {
            let hint = "COPY (SELECT …) TO 'folder/new.parquet' writes a file; rows are inserted into tables made by CREATE TABLE, or into an external table over a folder";
            Err(Error::invalid(format!("table {}: {why}", self.name)).with_hint(hint).into())
        };
        match &self.folder {
            None => no("its LOCATION names files, not a folder, so no rows can be added"),
            Some(_) if op != InsertOp::Append => no("the files of an external table are not replaced"),
            Some(folder) => folder.insert_into(state, input, op).await,
        }
    }
}
