//! Rows in portions that make little each: UNNEST makes one batch of all lists of a batch, and repeats the other columns
//! for each element.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::length::{bit_length, length};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Error;

/// Elements in one portion, where its rows are more than one.
const ELEMENTS: i64 = 1 << 16;

#[derive(Debug)]
pub struct Portions {
    input: Arc<dyn ExecutionPlan>,
    /// Columns whose lists are taken apart.
    lists: Vec<usize>,
    /// Bytes that one row may become.
    limit: usize,
    /// Rows in one portion.
    rows: usize,
    properties: Arc<PlanProperties>,
}

impl Portions {
    pub fn new(input: Arc<dyn ExecutionPlan>, lists: Vec<usize>, limit: usize) -> Self {
        let properties = Arc::clone(input.properties());
        Portions { input, lists, limit, rows: usize::MAX, properties }
    }

    /// At most so many rows at once: what is above has a large constant, and repeats it for each of them.
    pub fn of_rows(input: Arc<dyn ExecutionPlan>, rows: usize) -> Self {
        Portions { rows: rows.max(1), ..Portions::new(input, vec![], usize::MAX) }
    }

    /// The same with at most so many rows at once.
    pub fn with_rows(self, rows: usize) -> Self {
        Portions { rows, ..self }
    }

    /// Columns whose lists are taken apart, bytes that one row may become, and rows in one portion.
    pub fn limits(&self) -> (&[usize], usize, usize) {
        (&self.lists, self.limit, self.rows)
    }

    /// The input and the rows in one portion, where rows are counted.
    pub fn by_rows(&self) -> Option<(&Arc<dyn ExecutionPlan>, usize)> {
        (self.rows < usize::MAX).then_some((&self.input, self.rows))
    }
}

impl DisplayAs for Portions {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Portions")
    }
}

impl ExecutionPlan for Portions {
    fn name(&self) -> &str {
        "Portions"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Portions { rows: self.rows, ..Portions::new(input, self.lists.clone(), self.limit) })),
            _ => Err(Error::internal("rows in portions have one input").into()),
        }
    }
    fn execute(&self, partition: usize, cx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (rows, lists, limit, most) = (self.input.execute(partition, cx)?, self.lists.clone(), self.limit, self.rows);
        let schema = rows.schema();
        let cut = rows.map(move |batch| cut(&batch?, &lists, limit, most)).map_ok(|parts| stream::iter(parts.into_iter().map(Ok)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, cut.try_flatten())))
    }
}

fn cut(batch: &RecordBatch, lists: &[usize], limit: usize, most: usize) -> Result<Vec<RecordBatch>> {
    if lists.is_empty() {
        let begins = (0..batch.num_rows()).step_by(most);
        return Ok(begins.map(|from| batch.slice(from, most.min(batch.num_rows() - from))).collect());
    }
    let lengths = lists.iter().filter_map(|i| lengths(batch.column(*i))).collect::<Vec<_>>();
    let others: Vec<Sizes> =
        batch.columns().iter().enumerate().filter(|(i, _)| !lists.contains(i)).map(|(_, c)| Sizes::of(c)).collect::<Result<_>>()?;
    let (mut parts, mut from, mut elements) = (vec![], 0, 0_i64);
    for row in 0..batch.num_rows() {
        let made = lengths.iter().map(|l| if l.is_null(row) { 0 } else { l.value(row) }).max().unwrap_or(0);
        let bytes = others.iter().map(|o| o.at(row)).fold(0_u64, u64::saturating_add).saturating_mul(made.unsigned_abs());
        if bytes > limit as u64 {
            return Err(too_much("UNNEST", bytes, limit).into());
        }
        if row > from && elements.saturating_add(made) > ELEMENTS {
            parts.push(batch.slice(from, row - from));
            (from, elements) = (row, 0);
        }
        elements = elements.saturating_add(made);
    }
    parts.push(batch.slice(from, batch.num_rows() - from));
    Ok(parts)
}

fn lengths(lists: &ArrayRef) -> Option<Int64Array> {
    let counted = length(lists).ok()?;
    cast(&counted, &DataType::Int64).ok().map(|c| c.as_primitive::<Int64Type>().clone())
}

/// The error for what would make more than its share of the memory.
pub fn too_much(what: &str, bytes: u64, limit: usize) -> Error {
    let mib = |b: u64| b.div_ceil(1 << 20);
    Error::exhausted(format!(
        "{what} would make {} MiB in one step, more than {} MiB, a quarter of memory_limit",
        mib(bytes),
        mib(limit as u64)
    ))
    .with_hint("make less of each row, or raise memory_limit")
}

/// Bytes of each value of a column.
pub enum Sizes {
    Each(Int64Array),
    Same(u64),
}

impl Sizes {
    pub fn of(values: &ArrayRef) -> Result<Self> {
        use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
        Ok(match values.data_type() {
            Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => {
                let bits = cast(&bit_length(values)?, &DataType::Int64)?;
                Sizes::Each(bits.as_primitive::<Int64Type>().unary(|b| b / 8))
            }
            _ => Sizes::Same((values.to_data().get_slice_memory_size()? / values.len().max(1)) as u64),
        })
    }

    pub fn at(&self, row: usize) -> u64 {
        match self {
            Sizes::Same(bytes) => *bytes,
            Sizes::Each(list) if list.is_null(row) => 0,
            Sizes::Each(list) => list.value(row).unsigned_abs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ListArray, StringArray};

    use super::*;

    #[test]
    fn long_lists_are_cut_and_wide_rows_refused() {
        let lists = |n: usize, len: i64| {
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>((0..n).map(|_| Some((0..len).map(Some))))) as ArrayRef
        };
        let texts = |n: usize, bytes: usize| Arc::new(StringArray::from(vec!["x".repeat(bytes); n])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("l", lists(10, 20_000)), ("t", texts(10, 10))]).unwrap();
        let parts = cut(&batch, &[0], 1 << 20, usize::MAX).unwrap();
        assert_eq!(parts.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [3, 3, 3, 1]);
        let wide = RecordBatch::try_from_iter([("l", lists(1, 20_000)), ("t", texts(1, 1_000))]).unwrap();
        assert!(cut(&wide, &[0], 1 << 20, usize::MAX).unwrap_err().to_string().contains("UNNEST would make 20 MiB"));
        let empty = batch.slice(0, 0);
        assert_eq!(cut(&empty, &[0], 1, usize::MAX).unwrap().len(), 1);
        let parts = cut(&batch, &[], 1, 4).unwrap();
        assert_eq!(parts.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [4, 4, 2]);
    }
}
