//! Plain file scans of our own tables: pinned files, statistics, pruning, and the order of the rows
//! where every chosen file carries it.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::{ObjectMeta, ObjectStore};

use super::is_hidden;
use super::snapshot::{DataFile, Snapshot};
use super::sorted_runs::sorted_runs;
use super::stats::{FilePruning, SureBounds, file_statistics};
use super::warehouse::OfflineStore;
use crate::error::{Error, Result};

/// More sorted runs than this are not worth a merge that opens them all.
const MAX_SORTED_RUNS: usize = 64;

/// Whether a scan says that its rows are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ordering {
    /// Where every chosen file is, and there are few enough runs.
    #[default]
    Auto,
    /// Wherever every chosen file is, however many runs there are.
    Always,
    Never,
}

#[derive(Debug, Clone, Default)]
pub struct ScanOptions {
    /// `_seq` and `_remige…` are columns too.
    pub hidden: bool,
    /// Only these files (of this table, current or removed) instead of the snapshot's.
    pub files: Option<Vec<Arc<DataFile>>>,
    pub ordering: Ordering,
}

#[derive(Debug)]
struct DeltaScan {
    location: String,
    version: u64,
    /// Columns of the files.
    full: SchemaRef,
    /// Columns of the table, as indices into `full`.
    columns: Vec<usize>,
    schema: SchemaRef,
    files: Vec<(Arc<DataFile>, object_store::path::Path)>,
    ordering: Ordering,
    url: ObjectStoreUrl,
    /// To be registered where DataFusion does not know it by itself.
    store: Option<Arc<dyn ObjectStore>>,
}

impl OfflineStore {
    /// The rows of a snapshot. Refuses what a plain file scan would read wrongly: deletion vectors,
    /// column mapping, partitions (all of them only by other writers).
    pub fn scan_provider(&self, snapshot: &Snapshot, options: ScanOptions) -> Result<Arc<dyn TableProvider>> {
        let refuse = |what: &str| {
            Error::invalid(format!("table {:?} was changed by another writer and now has {what}", snapshot.location()))
                .with_hint("read it as an external table: CREATE EXTERNAL TABLE … STORED AS DELTA")
        };
        if snapshot.properties().get("delta.columnMapping.mode").is_some_and(|m| m != "none") {
            return Err(refuse("column mapping"));
        }
        let files = options.files.unwrap_or_else(|| snapshot.files().to_vec());
        if files.iter().any(|f| f.has_deletions) {
            return Err(refuse("deletion vectors"));
        }
        if files.iter().any(|f| f.is_partitioned) {
            return Err(refuse("partitions"));
        }
        let files = files
            .into_iter()
            .map(|f| {
                let path = self.absolute(snapshot.location(), &f.object_path())?;
                Ok((f, path))
            })
            .collect::<Result<Vec<_>>>()?;
        let full = Arc::clone(snapshot.schema());
        let columns: Vec<usize> = (0..full.fields().len()).filter(|i| options.hidden || !is_hidden(full.field(*i).name())).collect();
        Ok(Arc::new(DeltaScan {
            location: snapshot.location().to_string(),
            version: snapshot.version(),
            schema: Arc::new(full.project(&columns)?),
            full,
            columns,
            files,
            ordering: options.ordering,
            url: self.object_store_url()?,
            store: (!self.is_local()).then(|| Arc::clone(self.root_store())),
        }))
    }
}

#[async_trait]
impl TableProvider for DeltaScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        let all = self.files.iter().map(|(f, _)| f);
        table_statistics(all, &self.full).project(Some(&self.columns)).into()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        if let Some(store) = &self.store {
            state.runtime_env().register_object_store(self.url.as_ref(), Arc::clone(store));
        }
        let chosen = self.prune(state, filters)?;
        let wanted: Vec<usize> = match projection {
            Some(p) => p.iter().map(|i| self.columns[*i]).collect(),
            None => self.columns.clone(),
        };
        if chosen.is_empty() {
            // a file scan without files has no partition at all, which a sort or an aggregate cannot read
            return Ok(Arc::new(EmptyExec::new(Arc::new(self.full.project(&wanted)?))));
        }
        let order = self.common_order(&chosen);
        let (groups, ordering) = self.group(&chosen, order, state.config().target_partitions());
        let statistics = table_statistics(chosen.iter().map(|(f, _)| f), &self.full);
        let groups = groups.into_iter().map(|g| FileGroup::new(g.iter().map(|f| self.partitioned(f)).collect())).collect();

        let store = state.runtime_env().object_store(&self.url)?;
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let options = TableParquetOptions { global: state.config_options().execution.parquet.clone(), ..Default::default() };
        let source = ParquetSource::new(Arc::clone(&self.full))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(store, cache)));
        let config = FileScanConfigBuilder::new(self.url.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(Some(wanted))?
            .with_limit(limit)
            .with_output_ordering(ordering.into_iter().collect())
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Terms of a filter by which files and row groups are left out. The engine looks at the chain of ANDs once per term; what
/// the further ones say is left to the filter above the scan.
pub const PRUNING_TERMS: usize = 100;

/// Which files' bounds do not rule out a filter over columns of `schema`.
fn may_match(files: &[Arc<DataFile>], schema: &SchemaRef, filter: Arc<dyn PhysicalExpr>) -> datafusion::common::Result<Vec<bool>> {
    let predicate = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).try_build(filter)?;
    predicate.prune(&FilePruning { files, schema: Arc::clone(schema) })
}

impl Snapshot {
    /// The files whose bounds do not rule out a filter over columns of `schema`. What cannot be judged stays.
    pub(crate) fn files_for(&self, filter: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> Vec<Arc<DataFile>> {
        match may_match(self.files(), schema, Arc::clone(filter)) {
            Ok(keep) => self.files().iter().zip(keep).filter(|(_, keep)| *keep).map(|(f, _)| Arc::clone(f)).collect(),
            Err(e) => {
                tracing::debug!(table = self.location(), version = self.version(), error = %e, "no file pruning");
                self.files().to_vec()
            }
        }
    }
}

type Chosen = (Arc<DataFile>, object_store::path::Path);

impl DeltaScan {
    /// Leaves out files whose bounds rule out the filters. What cannot be judged stays.
    fn prune(&self, state: &dyn Session, filters: &[Expr]) -> datafusion::common::Result<Vec<Chosen>> {
        let Some(filter) = conjunction(filters.iter().take(PRUNING_TERMS).cloned()) else { return Ok(self.files.clone()) };
        let df_schema = DFSchema::try_from(Schema::clone(&self.full))?;
        let files: Vec<_> = self.files.iter().map(|(f, _)| Arc::clone(f)).collect();
        match state.create_physical_expr(filter, &df_schema).and_then(|e| may_match(&files, &self.full, e)) {
            Ok(keep) => Ok(self.files.iter().zip(keep).filter(|(_, k)| *k).map(|(f, _)| f.clone()).collect()),
            Err(e) => {
                tracing::debug!(table = self.location, version = self.version, error = %e, "no file pruning");
                Ok(self.files.clone())
            }
        }
    }

    /// The columns by which all chosen files are sorted.
    fn common_order<'a>(&self, chosen: &'a [Chosen]) -> &'a [String] {
        let Some(first) = chosen.first().map(|(f, _)| f.order.as_slice()) else { return &[] };
        let known = first.iter().all(|c| self.full.index_of(c).is_ok());
        if known && self.ordering != Ordering::Never && chosen.iter().all(|(f, _)| f.order == first) { first } else { &[] }
    }

    /// Deals files to partitions. Sorted: runs of files that follow one another, one run each.
    fn group<'a>(&self, chosen: &'a [Chosen], order: &[String], partitions: usize) -> (Vec<Vec<&'a Chosen>>, Option<LexOrdering>) {
        if !order.is_empty() {
            let all: Vec<&Chosen> = chosen.iter().collect();
            // DataFusion wants bounds of all sort columns.
            let complete = order.iter().all(|c| all.iter().all(|(f, _)| f.min(c).is_some() && f.max(c).is_some()));
            let runs = if complete { sorted_runs(&all, |f| f.0.as_ref(), order) } else { all.iter().map(|f| vec![*f]).collect() };
            if self.ordering == Ordering::Always || runs.len() <= MAX_SORTED_RUNS.max(partitions) {
                return (runs, self.lex_ordering(order));
            }
        }
        let per_group = chosen.len().div_ceil(partitions.max(1)).max(1);
        (chosen.chunks(per_group).map(|c| c.iter().collect()).collect(), None)
    }

    fn lex_ordering(&self, order: &[String]) -> Option<LexOrdering> {
        let options = SortOptions { descending: false, nulls_first: true };
        LexOrdering::new(order.iter().filter_map(|c| {
            let index = self.full.index_of(c).ok()?;
            Some(PhysicalSortExpr::new(Arc::new(Column::new(c, index)), options))
        }))
    }

    fn partitioned(&self, (file, path): &Chosen) -> PartitionedFile {
        PartitionedFile::new_from_meta(ObjectMeta {
            location: path.clone(),
            last_modified: DateTime::from_timestamp_millis(file.modified_ms).unwrap_or_default(),
            size: file.size,
            e_tag: None,
            version: None,
        })
        .with_statistics(Arc::new(file_statistics(file, &self.full)))
        .with_extension(SureBounds)
    }
}

fn table_statistics<'a>(files: impl Iterator<Item = &'a Arc<DataFile>>, schema: &Schema) -> Statistics {
    let mut total = Statistics::new_unknown(schema);
    let mut rows = Some(0usize);
    let mut bytes = 0usize;
    for f in files {
        rows = rows.zip(f.rows.and_then(|n| usize::try_from(n).ok())).map(|(a, b)| a.saturating_add(b));
        bytes = bytes.saturating_add(usize::try_from(f.size).unwrap_or(usize::MAX));
    }
    total.num_rows = rows.map_or(Precision::Absent, Precision::Exact);
    total.total_byte_size = Precision::Inexact(bytes);
    total
}
