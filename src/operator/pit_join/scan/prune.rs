//! Files, row groups and pages that hold no row which any label sees are not read.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::datasource::physical_plan::parquet::RowGroupAccess;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use parquet::arrow::arrow_reader::RowSelection;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use super::bounds::{ANYWHERE, ColumnBounds, LabelBounds, MinMax};
use super::files::{OpenFiles, ParquetFiles, Unit};
use crate::operator::pit_join::labels::question::Question;
use crate::operator::pit_join::metrics::Metrics;
use crate::operator::pit_join::spec::PitExecItem;
use crate::store::offline::SureBounds;

/// Bytes of a page in an offset index, about.
const BYTES_PER_LOCATION: usize = 10;
/// Stretches of this many rows, or of one part of the row group in so many, cost more to skip than to read.
const SKIPPED_ROWS: usize = 1024;
const SKIPPED_PART: usize = 64;

/// The files of a view with rows to read, and those rows.
pub struct Pruned {
    pub files: Arc<OpenFiles>,
    pub units: Arc<Vec<Unit>>,
}

/// Opens the files and picks what is to be read for these labels.
pub async fn open(
    files: &ParquetFiles,
    plan: &Arc<dyn ExecutionPlan>,
    item: &PitExecItem,
    question: &Question,
    context: &Arc<TaskContext>,
    metrics: &Metrics,
) -> Result<Pruned> {
    let label_bounds = LabelBounds::new(files, plan, item, question)?;
    let is_read = match &label_bounds {
        Some(label_bounds) => files_in_bounds(files, label_bounds)?,
        None => vec![false; files.len()],
    };
    let mut rows_pruned = files.rows_where(|f| !is_read[f]);
    let files_known_out = is_read.iter().filter(|r| !**r).count();
    let mut open = files.open(|f| is_read[f], context).await?;
    let mut parts = vec![];
    if let Some(label_bounds) = &label_bounds {
        for footer in &open.footers {
            parts.push(FileParts::new(footer, label_bounds)?);
            tokio::task::consume_budget().await;
        }
        let ask: Vec<bool> = open.footers.iter().zip(&parts).map(|(f, p)| p.is_page_index_worth_it(f)).collect();
        open.load_page_indexes(|f| ask[f]).await;
        for (footer, parts) in open.footers.iter().zip(&mut parts) {
            parts.leave_pages_out(footer, label_bounds)?;
        }
    }
    let units = open.units(|file, group| parts[file].access[group].clone());
    let all_rows = open.rows();
    rows_pruned += all_rows - units.iter().map(|u| u.rows).sum::<usize>();
    let mut read: Vec<usize> = units.iter().map(|u| u.file).collect();
    read.dedup();
    metrics.files_read.add(read.len());
    metrics.files_pruned.add(files_known_out + open.footers.len() - read.len());
    metrics.row_groups_read.add(units.len());
    metrics.row_groups_pruned.add(parts.iter().map(|p| p.access.len()).sum::<usize>() - units.len());
    metrics.pages_pruned.add(parts.iter().map(|p| p.pages_left_out).sum());
    metrics.rows_pruned.add(rows_pruned);
    Ok(Pruned { files: Arc::new(open), units: Arc::new(units) })
}

/// By what is known without reading the files, where that is bounds: other statistics may be guesses.
fn files_in_bounds(files: &ParquetFiles, label_bounds: &LabelBounds) -> Result<Vec<bool>> {
    let mut is_read = vec![true; files.len()];
    for (file, statistics) in files.statistics_with::<SureBounds>() {
        for column in &label_bounds.columns {
            let Some(bounds) = file_bounds(statistics, files.file_column(&column.name)) else { continue };
            is_read[file] &= column.places(&bounds)?.is_none_or(|p| p[0] > 0);
        }
    }
    Ok(is_read)
}

fn file_bounds(statistics: &Statistics, column: Option<usize>) -> Option<MinMax> {
    let column = statistics.column_statistics.get(column?)?;
    let array = |v: Option<&ScalarValue>| v?.to_array().ok();
    Some(MinMax { min: array(column.min_value.get_value())?, max: array(column.max_value.get_value())? })
}

/// What of a file is read.
struct FileParts {
    schema: Schema,
    access: Vec<RowGroupAccess>,
    /// Per row group: at how many places there may be rows that labels see.
    places: Vec<usize>,
    pages_left_out: usize,
}

impl FileParts {
    fn new(footer: &ParquetMetaData, label_bounds: &LabelBounds) -> Result<Self> {
        let groups = footer.row_groups();
        let schema = parquet_to_arrow_schema(footer.file_metadata().schema_descr(), footer.file_metadata().key_value_metadata())?;
        let mut places = vec![label_bounds.labels; groups.len()];
        for column in &label_bounds.columns {
            let Some((converter, leaf)) = converter(column, &schema, footer) else { continue };
            let bounds = MinMax { min: converter.row_group_mins(groups)?, max: converter.row_group_maxes(groups)? };
            let Some(found) = column.places(&bounds)? else { continue };
            for ((known, found), group) in places.iter_mut().zip(found).zip(groups) {
                *known = match group.column(leaf) {
                    c if is_all_null(c) => 0,
                    c if has_doubtful_order(c) => *known,
                    _ => found.min(*known),
                };
            }
        }
        let access = places.iter().map(|p| if *p == 0 { RowGroupAccess::Skip } else { RowGroupAccess::Scan }).collect();
        Ok(FileParts { schema, access, places, pages_left_out: 0 })
    }

    /// The index of all columns is read as one: that pays where some page may well be left out and the index is not
    /// larger than what it may spare. (Where labels are fewer than pages, it is the pages of features that no label
    /// gets which are spared.)
    fn is_page_index_worth_it(&self, footer: &ParquetMetaData) -> bool {
        if footer.column_index().is_some() && footer.offset_index().is_some() {
            return false;
        }
        let length = |c: &ColumnChunkMetaData| usize::try_from(c.offset_index_length().unwrap_or(0)).unwrap_or(0);
        let (mut cost, mut gain) = (0, 0);
        for (group, places) in footer.row_groups().iter().zip(&self.places) {
            let bytes = |c: &ColumnChunkMetaData| length(c) + usize::try_from(c.column_index_length().unwrap_or(0)).unwrap_or(0);
            cost += group.columns().iter().map(bytes).sum::<usize>();
            let pages = group.columns().iter().map(length).max().unwrap_or(0) / BYTES_PER_LOCATION;
            if (1..pages).contains(places) {
                gain += usize::try_from(group.compressed_size()).unwrap_or(0);
            }
        }
        cost < gain
    }

    fn leave_pages_out(&mut self, footer: &ParquetMetaData, label_bounds: &LabelBounds) -> Result<()> {
        for (number, group) in footer.row_groups().iter().enumerate().filter(|(n, _)| self.places[*n] > 0) {
            let rows = usize::try_from(group.num_rows()).unwrap_or(0);
            let (mut out, mut pages) = (vec![], vec![]);
            for column in &label_bounds.columns {
                for (page, is_out) in pages_of(column, &self.schema, footer, number, rows)? {
                    if is_out {
                        out.push(page.clone());
                    }
                    pages.push(page);
                }
            }
            let least = SKIPPED_ROWS.min(rows / SKIPPED_PART).max(1);
            let out: Vec<Range<usize>> = merged(out).into_iter().filter(|r| r.len() >= least).collect();
            if out.is_empty() {
                continue;
            }
            let is_left_out = |p: &&Range<usize>| out.get(out.partition_point(|r| r.end < p.end)).is_some_and(|r| r.start <= p.start);
            self.pages_left_out += pages.iter().filter(is_left_out).count();
            self.access[number] = match out.as_slice() {
                [all] if all.len() == rows => RowGroupAccess::Skip,
                _ => RowGroupAccess::Selection(RowSelection::from_consecutive_ranges(between(&out, rows).into_iter(), rows)),
            };
        }
        Ok(())
    }
}

/// Every page of a column in a row group: its rows, and whether no label sees any of them. Empty where there is no
/// index, or none that makes sense.
fn pages_of(
    column: &ColumnBounds,
    schema: &Schema,
    footer: &ParquetMetaData,
    group: usize,
    rows: usize,
) -> Result<Vec<(Range<usize>, bool)>> {
    let Some((converter, leaf)) = converter(column, schema, footer) else { return Ok(vec![]) };
    let (Some(column_index), Some(offset_index)) = (footer.column_index(), footer.offset_index()) else { return Ok(vec![]) };
    let bounds = column_index.get(group).and_then(|g| g.get(leaf)).filter(|i| !matches!(i, ColumnIndexMetaData::NONE));
    let locations = offset_index.get(group).and_then(|g| g.get(leaf));
    let (Some(index), Some(locations)) = (bounds, locations.map(|l| l.page_locations())) else { return Ok(vec![]) };
    let starts = locations.iter().map(|l| usize::try_from(l.first_row_index).unwrap_or(usize::MAX));
    let ends: Vec<usize> = starts.clone().skip(1).chain([rows]).collect();
    let pages: Vec<Range<usize>> = starts.zip(ends).map(|(start, end)| start..end).collect();
    let is_whole = pages.first().is_some_and(|p| p.start == 0) && pages.iter().all(|p| p.start <= p.end);
    if !is_whole || usize::try_from(index.num_pages()).ok() != Some(pages.len()) {
        return Ok(vec![]);
    }
    let bounds = MinMax {
        min: converter.data_page_mins(column_index, offset_index, [&group])?,
        max: converter.data_page_maxes(column_index, offset_index, [&group])?,
    };
    let mut places = match column.places(&bounds)? {
        Some(places) if places.len() == pages.len() => places,
        _ => vec![ANYWHERE; pages.len()],
    };
    // NULL is no key and no instant.
    places.iter_mut().enumerate().filter(|(p, _)| index.is_null_page(*p)).for_each(|(_, place)| *place = 0);
    Ok(pages.into_iter().zip(places.into_iter().map(|p| p == 0)).collect())
}

/// A converter for the statistics of a column, and the column's number in the file, if it is there.
fn converter<'a>(column: &ColumnBounds, schema: &'a Schema, footer: &'a ParquetMetaData) -> Option<(StatisticsConverter<'a>, usize)> {
    let converter = StatisticsConverter::try_new(&column.name, schema, footer.file_metadata().schema_descr()).ok()?;
    let leaf = converter.parquet_column_index()?;
    Some((converter, leaf))
}

fn is_all_null(chunk: &ColumnChunkMetaData) -> bool {
    let nulls = chunk.statistics().and_then(|s| s.null_count_opt());
    nulls.is_some_and(|n| i64::try_from(n).is_ok_and(|n| n == chunk.num_values() && n > 0))
}

/// Old writers compared bytes as signed numbers.
fn has_doubtful_order(chunk: &ColumnChunkMetaData) -> bool {
    use parquet::basic::Type;
    let is_number = matches!(chunk.column_type(), Type::INT32 | Type::INT64 | Type::FLOAT | Type::DOUBLE);
    let is_unsigned = chunk.column_descr().sort_order() != parquet::basic::SortOrder::SIGNED;
    chunk.statistics().is_some_and(|s| s.is_min_max_deprecated()) && (!is_number || is_unsigned)
}

/// Ranges in order; those that touch are one.
fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|r| !r.is_empty());
    ranges.sort_unstable_by_key(|r| r.start);
    let mut out: Vec<Range<usize>> = vec![];
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

/// What ranges in order leave of `0..rows`.
fn between(out: &[Range<usize>], rows: usize) -> Vec<Range<usize>> {
    let starts = std::iter::once(0).chain(out.iter().map(|r| r.end));
    let ends = out.iter().map(|r| r.start).chain([rows]);
    starts.zip(ends).map(|(start, end)| start..end).filter(|r| !r.is_empty()).collect()
}

#[cfg(test)]
mod tests;
