//! Row groups that no label can match: outside `[earliest at − TTL, latest at]`, or outside the range of the keys.
//! Exact, because such a row is in no label's reach; what has no statistics stays.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, Scalar};
use datafusion::arrow::compute::kernels::cmp::{gt, lt};
use datafusion::arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;

use super::exec::PitExecItem;
use super::files::OpenFiles;
use super::instant::{Instants, OnLine, Round};
use super::labels::{Index, LabelIndex};
use super::views::Question;

/// Per file and row group: true where it may hold a match.
pub struct Kept(Vec<Vec<bool>>);

impl Kept {
    pub fn contains(&self, file: usize, row_group: usize) -> bool {
        self.0[file][row_group]
    }

    pub fn pruned(&self) -> usize {
        self.0.iter().flatten().filter(|k| !**k).count()
    }
}

pub fn row_groups(files: &OpenFiles, plan: &Arc<dyn ExecutionPlan>, item: &PitExecItem, question: &Question) -> Result<Kept> {
    let name = |e: &Arc<dyn PhysicalExpr>| {
        let column = e.downcast_ref::<Column>()?;
        files.column_name(plan, column.index())
    };
    let time = name(&item.time);
    let time_type = item.time.data_type(&plan.schema())?;
    let keys: Vec<(String, ArrayRef, ArrayRef)> = question
        .keys
        .bounds()?
        .into_iter()
        .zip(&item.keys)
        .filter_map(|(bounds, (_, e))| {
            let (min, max) = bounds?;
            Some((name(e)?, min, max))
        })
        .collect();
    let mut kept = vec![];
    for footer in &files.footers {
        let groups = footer.row_groups();
        let schema = footer.file_metadata().schema_descr();
        let arrow = parquet_to_arrow_schema(schema, footer.file_metadata().key_value_metadata())?;
        let mut keep = vec![true; groups.len()];
        // A file of another type than the table's is read through a cast, which may change the order or round.
        let bounds = time.as_ref().and_then(|t| bounds_of(t, &arrow, footer));
        if let Some((min, max)) = bounds.filter(|(min, max)| *min.data_type() == time_type && *max.data_type() == time_type) {
            match &question.index {
                Index::Narrow(i) => out_of_time(i, item, &min, &max, &mut keep)?,
                Index::Wide(i) => out_of_time(i, item, &min, &max, &mut keep)?,
            }
        }
        for (name, least, greatest) in &keys {
            let Some((min, max)) = bounds_of(name, &arrow, footer) else { continue };
            if min.data_type() != least.data_type() || max.data_type() != greatest.data_type() {
                continue;
            }
            for beyond in [gt(&min, &Scalar::new(greatest))?, lt(&max, &Scalar::new(least))?] {
                drop_where(&beyond, &mut keep);
            }
        }
        kept.push(keep);
    }
    Ok(Kept(kept))
}

/// Least and greatest value per row group; NULL where it is not known.
fn bounds_of(name: &str, arrow: &Schema, footer: &datafusion::parquet::file::metadata::ParquetMetaData) -> Option<(ArrayRef, ArrayRef)> {
    let converter = StatisticsConverter::try_new(name, arrow, footer.file_metadata().schema_descr()).ok()?;
    let groups = footer.row_groups();
    Some((converter.row_group_mins(groups).ok()?, converter.row_group_maxes(groups).ok()?))
}

fn out_of_time<T: OnLine>(index: &LabelIndex<T>, item: &PitExecItem, min: &ArrayRef, max: &ArrayRef, keep: &mut [bool]) -> Result<()> {
    let Some((first, last)) = index.bounds() else {
        keep.fill(false);
        return Ok(());
    };
    let (min, max) = (Instants::<T>::read(min, item.lines.event, Round::Up)?, Instants::<T>::read(max, item.lines.event, Round::Up)?);
    let ttl = item.lines.ttl.map(T::saturate);
    for (group, keep) in keep.iter_mut().enumerate() {
        let (min, max) = (min.get(group), max.get(group));
        let out = if item.op.looks_ahead() {
            max.is_some_and(|m| m < first) || ttl.zip(min).is_some_and(|(ttl, m)| m > last.saturating_add(ttl))
        } else {
            min.is_some_and(|m| m > last) || ttl.zip(max).is_some_and(|(ttl, m)| m < first.saturating_sub(ttl))
        };
        *keep &= !out;
    }
    Ok(())
}

fn drop_where(beyond: &BooleanArray, keep: &mut [bool]) {
    for (group, keep) in keep.iter_mut().enumerate() {
        *keep &= !(beyond.is_valid(group) && beyond.value(group));
    }
}
