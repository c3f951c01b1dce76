//! Parquet scans read twice: key columns first, and of the other columns only the rows that won.
//! A row group, or the part of it that is read, is the unit of work; its rows are numbered as they come.

use std::sync::Arc;

use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{DefaultParquetFileReaderFactory, ParquetAccessPlan, RowGroupAccess};
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use super::footer::KnownFooter;
use super::row_set::RowSet;
use crate::operator::ordered_scan::inner_scan;
use crate::operator::pit_join::tasks::spawned;

/// Footers read at a time.
const OPEN_AT_ONCE: usize = 16;

/// A scan of whole Parquet files without predicate or limit.
#[derive(Debug, Clone)]
pub struct ParquetFiles {
    scan: FileScanConfig,
    reader: Option<Arc<dyn ParquetFileReaderFactory>>,
    files: Vec<PartitionedFile>,
}

/// The rows of one row group that are read.
#[derive(Debug, Clone)]
pub struct Unit {
    pub file: usize,
    pub row_group: usize,
    access: RowGroupAccess,
    /// How many these are.
    pub rows: usize,
    /// Number of its first row among all rows that are read.
    pub base: usize,
}

/// Files with their footers.
#[derive(Debug, Clone)]
pub struct OpenFiles {
    scan: FileScanConfig,
    reader: Arc<dyn ParquetFileReaderFactory>,
    files: Vec<PartitionedFile>,
    pub footers: Vec<Arc<ParquetMetaData>>,
}

impl ParquetFiles {
    /// The files behind a plan, if it is such a scan.
    pub fn behind(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let plan = inner_scan(plan);
        let (scan, source) = plan.downcast_ref::<DataSourceExec>()?.downcast_to_file_source::<ParquetSource>()?;
        let files: Vec<PartitionedFile> = scan.file_groups.iter().flat_map(|g| g.files().to_vec()).collect();
        let whole = |f: &PartitionedFile| f.range.is_none() && f.extension::<ParquetAccessPlan>().is_none();
        let plain = source.filter().is_none() && scan.limit.is_none() && files.iter().all(whole);
        let encrypted = source.table_parquet_options().crypto.factory_id.is_some();
        (plain && !encrypted).then(|| ParquetFiles { scan: scan.clone(), reader: source.parquet_file_reader_factory().cloned(), files })
    }

    /// Rows by the statistics of the scan, if all files have them.
    pub fn rows_known(&self) -> Option<usize> {
        self.files.iter().map(|f| f.statistics.as_ref()?.num_rows.get_value().copied()).sum()
    }

    /// True where a file is known to be sorted.
    pub fn is_sorted(&self) -> bool {
        !self.scan.output_ordering.is_empty()
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Rows of some files, as far as they are known.
    pub fn rows_where(&self, is: impl Fn(usize) -> bool) -> usize {
        let rows = |f: &PartitionedFile| f.statistics.as_ref()?.num_rows.get_value().copied();
        self.files.iter().enumerate().filter(|(i, _)| is(*i)).filter_map(|(_, f)| rows(f)).sum()
    }

    /// The statistics of files that carry this mark, with the numbers of the files.
    pub fn statistics_with<M: Send + Sync + 'static>(&self) -> impl Iterator<Item = (usize, &Statistics)> {
        let marked = self.files.iter().enumerate().filter(|(_, f)| f.extension::<M>().is_some());
        marked.filter_map(|(i, f)| Some((i, f.statistics.as_deref()?)))
    }

    /// The number of a column in those statistics.
    pub fn file_column(&self, name: &str) -> Option<usize> {
        self.scan.file_schema().index_of(name).ok()
    }

    /// The name that a column of the scan's output has in the files, if it is one of theirs.
    pub fn column_name(&self, plan: &Arc<dyn ExecutionPlan>, column: usize) -> Option<String> {
        let name = match self.scan.file_source().projection() {
            Some(p) => p.as_ref().get(column)?.expr.downcast_ref::<Column>()?.name().to_string(),
            None => plan.schema().fields().get(column)?.name().clone(),
        };
        // A file may hold a column that its path overrules.
        (!self.scan.table_partition_cols().iter().any(|f| *f.name() == name)).then_some(name)
    }

    /// Reads the footers of some files, without indexes of their pages unless those are at hand.
    pub async fn open(&self, is_read: impl Fn(usize) -> bool, context: &Arc<TaskContext>) -> Result<OpenFiles> {
        let reader = match &self.reader {
            Some(r) => Arc::clone(r),
            None => Arc::new(DefaultParquetFileReaderFactory::new(context.runtime_env().object_store(&self.scan.object_store_url)?)),
        };
        let files: Vec<PartitionedFile> = self.files.iter().enumerate().filter(|(i, _)| is_read(*i)).map(|(_, f)| f.clone()).collect();
        let opening: Vec<_> = files.iter().map(|f| read_footer(&reader, f, PageIndexPolicy::Skip)).collect();
        let footers = stream::iter(opening).buffered(OPEN_AT_ONCE).try_collect().await?;
        Ok(OpenFiles { scan: self.scan.clone(), reader, files, footers })
    }
}

fn read_footer(
    reader: &Arc<dyn ParquetFileReaderFactory>,
    file: &PartitionedFile,
    pages: PageIndexPolicy,
) -> BoxFuture<'static, Result<Arc<ParquetMetaData>>> {
    let metrics = ExecutionPlanMetricsSet::new();
    let reader = reader.create_reader(0, file.clone(), file.metadata_size_hint, &metrics);
    let path = file.object_meta.location.clone();
    Box::pin(async move {
        let options = ArrowReaderOptions::new().with_page_index_policy(pages);
        let footer = reader?.get_metadata(Some(&options)).await;
        footer.map_err(|e| DataFusionError::from(e).context(format!("reading the footer of {path}")))
    })
}

impl OpenFiles {
    /// Reads the indexes of the pages of some files too. Without them more is read, so a broken one is no error.
    pub async fn load_page_indexes(&mut self, is_read: impl Fn(usize) -> bool) {
        let opening: Vec<_> = (0..self.files.len())
            .filter(|f| is_read(*f))
            .map(|f| read_footer(&self.reader, &self.files[f], PageIndexPolicy::Optional).map(move |footer| (f, footer)))
            .collect();
        let mut loaded = stream::iter(opening).buffer_unordered(OPEN_AT_ONCE);
        while let Some((file, footer)) = loaded.next().await {
            match footer {
                Ok(footer) if footer.num_row_groups() == self.footers[file].num_row_groups() => self.footers[file] = footer,
                Ok(_) => {}
                Err(e) => tracing::debug!(error = %e, "no index of pages"),
            }
        }
    }

    /// What `access` reads of every row group (file, row group), in the order of the rows.
    pub fn units(&self, access: impl Fn(usize, usize) -> RowGroupAccess) -> Vec<Unit> {
        let mut base = 0;
        let mut units = vec![];
        for (file, footer) in self.footers.iter().enumerate() {
            for (row_group, meta) in footer.row_groups().iter().enumerate() {
                let access = access(file, row_group);
                let rows = match &access {
                    RowGroupAccess::Skip => 0,
                    RowGroupAccess::Scan => usize::try_from(meta.num_rows()).unwrap_or(0),
                    RowGroupAccess::Selection(rows) => rows.row_count(),
                };
                if rows > 0 {
                    units.push(Unit { file, row_group, access, rows, base });
                    base += rows;
                }
            }
        }
        units
    }

    /// Rows of all files.
    pub fn rows(&self) -> usize {
        self.footers.iter().flat_map(|f| f.row_groups()).map(|g| usize::try_from(g.num_rows()).unwrap_or(0)).sum()
    }

    /// A scan of these units, of some columns of the plan's output; where a selection among a unit's rows is given, of
    /// these only. `batch_size`: rows per batch.
    pub fn scan(self: &Arc<Self>, units: &Arc<Vec<(Unit, Option<RowSelection>)>>, columns: &[usize], batch_size: usize) -> UnitScan {
        UnitScan { files: Arc::clone(self), units: Arc::clone(units), columns: columns.into(), batch_size }
    }
}

/// The rows of a set in every unit that has any. All bits are shared.
pub fn selections(rows: RowSet, units: &[Unit]) -> Vec<(Unit, RowSelection)> {
    let bits = rows.into_bits();
    let selected = units.iter().map(|u| (u.clone(), BooleanBuffer::new(bits.clone(), u.base, u.rows)));
    selected.filter(|(_, b)| b.has_true()).map(|(u, b)| (u, RowSelection::from_boolean_buffer(b))).collect()
}

/// Units to be read one by one. What is needed for a unit is made when it is read: there may be very many.
#[derive(Debug, Clone)]
pub struct UnitScan {
    files: Arc<OpenFiles>,
    units: Arc<Vec<(Unit, Option<RowSelection>)>>,
    columns: Arc<[usize]>,
    batch_size: usize,
}

impl UnitScan {
    fn plan(&self, unit: usize) -> Result<Arc<dyn ExecutionPlan>> {
        let files = &self.files;
        let (unit, selection) = &self.units[unit];
        let footer = &files.footers[unit.file];
        let mut access = ParquetAccessPlan::new_none(footer.num_row_groups());
        access.set(
            unit.row_group,
            match (&unit.access, selection) {
                (read, None) => read.clone(),
                (RowGroupAccess::Selection(read), Some(rows)) => RowGroupAccess::Selection(read.and_then(rows)),
                (_, Some(rows)) => RowGroupAccess::Selection(rows.clone()),
            },
        );
        let file = files.files[unit.file].clone().with_extension(access);
        let mut config = FileScanConfigBuilder::from(files.scan.clone());
        if let Some(source) = files.scan.file_source().downcast_ref::<ParquetSource>() {
            let reader = KnownFooter { reader: Arc::clone(&files.reader), footer: Arc::clone(footer) };
            config = config.with_source(Arc::new(source.clone().with_parquet_file_reader_factory(Arc::new(reader))));
        }
        let config = config
            .with_file_groups(vec![FileGroup::new(vec![file])])
            .with_output_ordering(vec![])
            .with_output_partitioning(None)
            .with_preserve_order(true)
            .with_batch_size(Some(self.batch_size))
            .build();
        let scan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(config);
        let schema = scan.schema();
        let exprs = self.columns.iter().map(|c| {
            let name = schema.field(*c).name();
            ProjectionExpr { expr: Arc::new(Column::new(name, *c)), alias: name.clone() }
        });
        let narrowed = ProjectionExec::try_new(exprs, Arc::clone(&scan))?;
        Ok(scan.try_swapping_with_projection(&narrowed)?.unwrap_or_else(|| Arc::new(narrowed)))
    }

    pub fn read(&self, unit: usize, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.plan(unit)?.execute(0, Arc::clone(context))
    }

    /// Read by a task of its own, at most `ahead` batches before they are asked for.
    pub fn read_ahead(&self, unit: usize, context: &Arc<TaskContext>, ahead: usize) -> Result<SendableRecordBatchStream> {
        Ok(spawned(&self.plan(unit)?, 0, context, ahead))
    }
}
