//! Parquet scans read twice: key columns first, and of the other columns only the rows that won.
//! A row group is the unit of work; its rows are numbered as they stand in it.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{DefaultParquetFileReaderFactory, ParquetAccessPlan, RowGroupAccess};
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::TaskContext;
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::order::under_still;
use super::tasks::spawned;

/// Footers read at a time.
const OPEN_AT_ONCE: usize = 16;

/// A scan of whole Parquet files without predicate or limit.
#[derive(Debug, Clone)]
pub struct ParquetFiles {
    scan: FileScanConfig,
    reader: Option<Arc<dyn ParquetFileReaderFactory>>,
    files: Vec<PartitionedFile>,
}

/// One row group.
#[derive(Debug, Clone)]
pub struct Unit {
    pub file: usize,
    pub row_group: usize,
    pub rows: usize,
    /// Number of its first row among all rows that are read.
    pub base: usize,
}

/// Files with their footers.
#[derive(Debug, Clone)]
pub struct OpenFiles {
    scan: FileScanConfig,
    files: Vec<PartitionedFile>,
    pub footers: Vec<Arc<ParquetMetaData>>,
}

impl ParquetFiles {
    /// The files behind a plan, if it is such a scan.
    pub fn behind(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let plan = under_still(plan);
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

    /// Reads the footers.
    pub async fn open(self, context: &Arc<TaskContext>) -> Result<OpenFiles> {
        let reader = match self.reader {
            Some(r) => r,
            None => Arc::new(DefaultParquetFileReaderFactory::new(context.runtime_env().object_store(&self.scan.object_store_url)?)),
        };
        let metrics = ExecutionPlanMetricsSet::new();
        let opening: Vec<_> = self
            .files
            .iter()
            .map(|f| {
                let reader = reader.create_reader(0, f.clone(), f.metadata_size_hint, &metrics);
                let path = f.object_meta.location.clone();
                async move {
                    let footer = reader?.get_metadata(None).await;
                    footer.map_err(|e| DataFusionError::from(e).context(format!("reading the footer of {path}")))
                }
            })
            .collect();
        let footers = stream::iter(opening).buffered(OPEN_AT_ONCE).try_collect().await?;
        Ok(OpenFiles { scan: self.scan, files: self.files, footers })
    }
}

impl OpenFiles {
    /// The row groups that `wanted` picks (file, row group), in the order of the rows.
    pub fn units(&self, wanted: impl Fn(usize, usize) -> bool) -> Vec<Unit> {
        let mut base = 0;
        let mut units = vec![];
        for (file, footer) in self.footers.iter().enumerate() {
            for (row_group, meta) in footer.row_groups().iter().enumerate() {
                let rows = usize::try_from(meta.num_rows()).unwrap_or(0);
                if rows > 0 && wanted(file, row_group) {
                    units.push(Unit { file, row_group, rows, base });
                    base += rows;
                }
            }
        }
        units
    }

    /// Rows of all files.
    pub fn rows(&self) -> usize {
        self.footers.iter().map(|f| usize::try_from(f.file_metadata().num_rows()).unwrap_or(0)).sum()
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

    /// A scan of these units, one to a partition, of some columns of the plan's output; where a selection is
    /// given, of its rows only. `batch_size`: rows per batch.
    pub fn scan(&self, units: &[(&Unit, Option<RowSelection>)], columns: &[usize], batch_size: usize) -> Result<UnitScan> {
        let groups = units
            .iter()
            .map(|(unit, selection)| {
                let mut access = ParquetAccessPlan::new_none(self.footers[unit.file].num_row_groups());
                access.set(
                    unit.row_group,
                    match selection {
                        Some(rows) => RowGroupAccess::Selection(rows.clone()),
                        None => RowGroupAccess::Scan,
                    },
                );
                FileGroup::new(vec![self.files[unit.file].clone().with_extension(access)])
            })
            .collect();
        let config = FileScanConfigBuilder::from(self.scan.clone())
            .with_file_groups(groups)
            .with_output_ordering(vec![])
            .with_output_partitioning(None)
            .with_preserve_order(true)
            .with_batch_size(Some(batch_size))
            .build();
        let scan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(config);
        let schema = scan.schema();
        let exprs = columns.iter().map(|c| {
            let name = schema.field(*c).name();
            ProjectionExpr { expr: Arc::new(Column::new(name, *c)), alias: name.clone() }
        });
        let narrowed = ProjectionExec::try_new(exprs, Arc::clone(&scan))?;
        let plan = scan.try_swapping_with_projection(&narrowed)?.unwrap_or_else(|| Arc::new(narrowed));
        Ok(UnitScan { plan })
    }
}

/// Partition `i` holds the rows of unit `i`, in order.
#[derive(Debug, Clone)]
pub struct UnitScan {
    plan: Arc<dyn ExecutionPlan>,
}

impl UnitScan {
    pub fn read(&self, unit: usize, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.plan.execute(unit, Arc::clone(context))
    }

    /// Read by a task of its own, at most `ahead` batches before they are asked for.
    pub fn read_ahead(&self, unit: usize, context: &Arc<TaskContext>, ahead: usize) -> SendableRecordBatchStream {
        spawned(&self.plan, unit, context, ahead)
    }
}
