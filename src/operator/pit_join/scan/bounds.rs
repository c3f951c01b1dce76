//! What a feature row must be like for any label to see it, as far as least and greatest values can tell.
//! Exact: a row that some label may see is never ruled out. What is not known stays.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, TryCastExpr};
use datafusion::physical_plan::ExecutionPlan;

use super::files::ParquetFiles;
use crate::operator::pit_join::labels::instant::{Instants, OnLine, Round};
use crate::operator::pit_join::labels::key_index::KeyValues;
use crate::operator::pit_join::labels::label_index::{Index, LabelIndex};
use crate::operator::pit_join::labels::question::Question;
use crate::operator::pit_join::spec::PitExecItem;
use crate::plan::pit_join::types::TimeLine;

/// Labels with more keys than this are known by their least and greatest key only: such a list would leave out few
/// pages of some ten thousand rows, and each page is searched for in it.
const MOST_KEYS: usize = 4096;

/// Rows that labels see may be anywhere.
pub const ANYWHERE: usize = usize::MAX;

/// Least and greatest value of stretches of rows, one each; NULL where it is not known.
#[derive(Debug)]
pub struct MinMax {
    pub min: ArrayRef,
    pub max: ArrayRef,
}

/// Bounds on the columns of a view, outside of which no label sees a row.
#[derive(Debug)]
pub struct LabelBounds {
    pub columns: Vec<ColumnBounds>,
    /// Each label sees one row in the end.
    pub labels: usize,
}

#[derive(Debug)]
pub struct ColumnBounds {
    /// In the files.
    pub name: String,
    data_type: DataType,
    bound: Bound,
}

/// Instants, both ends included, or keys.
#[derive(Debug)]
enum Bound {
    Narrow(TimeLine, i64, i64),
    Wide(TimeLine, i128, i128),
    Keys {
        converter: RowConverter,
        /// Ascending: all keys, or the least and the greatest.
        values: Rows,
        all: bool,
    },
}

impl LabelBounds {
    /// `None` where no label can match anything.
    pub fn new(files: &ParquetFiles, plan: &Arc<dyn ExecutionPlan>, item: &PitExecItem, question: &Question) -> Result<Option<Self>> {
        let schema = plan.schema();
        let column = |e: &Arc<dyn PhysicalExpr>, bound: Bound| -> Result<Option<ColumnBounds>> {
            let name = column_of(e, &schema)?.and_then(|c| files.column_name(plan, c));
            let data_type = comparable(&e.data_type(&schema)?);
            Ok(name.map(|name| ColumnBounds { name, data_type, bound }))
        };
        let line = item.lines.event;
        let window = match &question.index {
            Index::Narrow(i) => window(i, item).map(|(from, to)| Bound::Narrow(line, from, to)),
            Index::Wide(i) => window(i, item).map(|(from, to)| Bound::Wide(line, from, to)),
        };
        let Some(window) = window else { return Ok(None) };
        let mut columns = vec![];
        for ((_, e), values) in item.keys.iter().zip(question.keys.values(MOST_KEYS)?) {
            let Some(KeyValues { values, all }) = values else { continue };
            let data_type = comparable(values.data_type());
            let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
            let values = converter.convert_columns(&[cast(&values, &data_type)?])?;
            columns.extend(column(e, Bound::Keys { converter, values, all })?.filter(|c| c.data_type == data_type));
        }
        columns.extend(column(&item.time, window)?);
        Ok(Some(LabelBounds { columns, labels: question.label_rows }))
    }
}

/// The first and the last instant that a row may have which a label sees.
fn window<T: OnLine>(index: &LabelIndex<T>, item: &PitExecItem) -> Option<(T, T)> {
    let (first, last) = index.bounds()?;
    let ttl = item.lines.ttl.map(T::saturate);
    Some(if item.op.looks_ahead() {
        (first, ttl.map_or(T::saturate(i128::MAX), |ttl| last.saturating_add(ttl)))
    } else {
        (ttl.map_or(T::MIN, |ttl| first.saturating_sub(ttl)), last)
    })
}

impl ColumnBounds {
    /// At how many places of each stretch there may be rows that labels see, at most: 0 is none, `ANYWHERE` all over
    /// it. `None` where such bounds say nothing: they are a file's, and what is read as another type was cast, which
    /// may round or change the order.
    pub fn places(&self, bounds: &MinMax) -> Result<Option<Vec<usize>>> {
        if [&bounds.min, &bounds.max].iter().any(|a| comparable(a.data_type()) != self.data_type) {
            return Ok(None);
        }
        let (min, max) = (cast(&bounds.min, &self.data_type)?, cast(&bounds.max, &self.data_type)?);
        Ok(Some(match &self.bound {
            Bound::Narrow(line, from, to) => places_in_time(&min, &max, *line, *from, *to)?,
            Bound::Wide(line, from, to) => places_in_time(&min, &max, *line, *from, *to)?,
            Bound::Keys { converter, values, all } => {
                let (mins, maxs) = (converter.convert_columns(&[Arc::clone(&min)])?, converter.convert_columns(&[Arc::clone(&max)])?);
                let count = values.num_rows();
                let place = |i: usize| {
                    let before = if min.is_null(i) { 0 } else { first_where(count, |v| values.row(v) >= mins.row(i)) };
                    let up_to = if max.is_null(i) { count } else { first_where(count, |v| values.row(v) > maxs.row(i)) };
                    if before == count || up_to == 0 {
                        return 0;
                    }
                    if *all {
                        return up_to.saturating_sub(before);
                    }
                    let cut = (min.is_valid(i) && mins.row(i) < values.row(0)) || (max.is_valid(i) && maxs.row(i) > values.row(count - 1));
                    if cut { 1 } else { ANYWHERE }
                };
                (0..min.len()).map(place).collect()
            }
        }))
    }
}

fn places_in_time<T: OnLine>(min: &ArrayRef, max: &ArrayRef, line: TimeLine, from: T, to: T) -> Result<Vec<usize>> {
    let (min, max) = (Instants::<T>::read(min, line, Round::Up)?, Instants::<T>::read(max, line, Round::Up)?);
    let place = |i: usize| match (min.get(i), max.get(i)) {
        (Some(min), _) if min > to => 0,
        (_, Some(max)) if max < from => 0,
        (min, max) if min.is_some_and(|m| m < from) || max.is_some_and(|m| m > to) => 1,
        _ => ANYWHERE,
    };
    Ok((0..min.len()).map(place).collect())
}

/// The first number below `count` that satisfies `is`, where all after it do too; else `count`.
fn first_where(count: usize, is: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if is(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// The column behind an expression that has its values.
fn column_of(e: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Option<usize>> {
    if let Some(column) = e.downcast_ref::<Column>() {
        return Ok(Some(column.index()));
    }
    let cast = e.downcast_ref::<CastExpr>().map(CastExpr::expr);
    match cast.or_else(|| e.downcast_ref::<TryCastExpr>().map(TryCastExpr::expr)) {
        Some(inner) if comparable(&inner.data_type(schema)?) == comparable(&e.data_type(schema)?) => column_of(inner, schema),
        _ => Ok(None),
    }
}

/// One type for all that hold the same values in the same order: a cast between them gives the same value or none.
fn comparable(t: &DataType) -> DataType {
    match t {
        t if t.is_signed_integer() => DataType::Int64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => DataType::Int64,
        DataType::Dictionary(_, values) => comparable(values),
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("UTC".into())),
        t => t.clone(),
    }
}
