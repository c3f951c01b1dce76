//! What values take once each stands for itself: a view, a key of a dictionary, a run or a range of a list may mean the
//! same long value as many others.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, GenericListViewArray, OffsetSizeTrait, RunArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{ArrowNativeType, DataType, Int16Type, Int32Type, Int64Type, RunEndIndexType};

use crate::error::{Error, Result};

/// What a value takes beside its bytes.
const PLACE: usize = 8;

/// Per value, or of the first n values for every n.
enum Weights {
    Each(usize),
    Sums(Vec<usize>),
}

impl Weights {
    fn collect(each: impl Iterator<Item = usize>) -> Self {
        let mut sums = Vec::with_capacity(each.size_hint().0 + 1);
        let mut sum = 0_usize;
        sums.push(sum);
        for weight in each {
            sum = sum.saturating_add(weight);
            sums.push(sum);
        }
        Weights::Sums(sums)
    }

    /// Of the values from one place to another; whatever lies outside weighs nothing.
    fn between(&self, from: usize, to: usize) -> usize {
        match self {
            Weights::Each(each) => each.saturating_mul(to.saturating_sub(from)),
            Weights::Sums(sums) => {
                let up_to = |n: usize| sums.get(n).or(sums.last()).copied().unwrap_or(0);
                up_to(to).saturating_sub(up_to(from))
            }
        }
    }
}

/// Bytes of the values, written out.
pub(super) fn of(values: &Arc<dyn Array>) -> usize {
    if repeats(values.data_type()) {
        return weights(values).between(0, values.len());
    }
    values.to_data().get_slice_memory_size().unwrap_or(usize::MAX)
}

/// Parameters are plain values and lists of them.
pub(super) fn check_plain(t: &DataType) -> Result<()> {
    use DataType::*;
    match t {
        Dictionary(_, of) if of.is_nested() => Err(not_plain(t)),
        RunEndEncoded(..) | Union(..) | ListView(_) | LargeListView(_) => Err(not_plain(t)),
        List(f) | LargeList(f) | FixedSizeList(f, _) | Map(f, _) => check_plain(f.data_type()),
        Struct(fields) => fields.iter().try_for_each(|f| check_plain(f.data_type())),
        _ => Ok(()),
    }
}

fn not_plain(t: &DataType) -> Error {
    Error::invalid(format!("parameters cannot be of type {t}")).with_hint("bind plain values or lists of them")
}

/// Whether values of this type may share bytes, or have none.
fn repeats(t: &DataType) -> bool {
    use DataType::*;
    match t {
        Null | Utf8View | BinaryView | Dictionary(..) | RunEndEncoded(..) | ListView(_) | LargeListView(_) => true,
        List(f) | LargeList(f) | Map(f, _) => repeats(f.data_type()),
        FixedSizeList(f, n) => *n == 0 || repeats(f.data_type()),
        FixedSizeBinary(n) => *n == 0,
        Struct(fields) => fields.is_empty() || fields.iter().any(|f| repeats(f.data_type())),
        Union(..) => true,
        _ => false,
    }
}

fn weights(values: &dyn Array) -> Weights {
    use DataType::*;
    match values.data_type() {
        Utf8View => viewed(values.as_string_view().views(), values.nulls()),
        BinaryView => viewed(values.as_binary_view().views(), values.nulls()),
        Utf8 => Weights::collect(values.as_string::<i32>().offsets().lengths().map(placed)),
        LargeUtf8 => Weights::collect(values.as_string::<i64>().offsets().lengths().map(placed)),
        Binary => Weights::collect(values.as_binary::<i32>().offsets().lengths().map(placed)),
        LargeBinary => Weights::collect(values.as_binary::<i64>().offsets().lengths().map(placed)),
        FixedSizeBinary(n) => Weights::Each(placed(usize::try_from(*n).unwrap_or(0))),
        List(_) => listed(values.as_list::<i32>().value_offsets(), values.as_list::<i32>().values()),
        LargeList(_) => listed(values.as_list::<i64>().value_offsets(), values.as_list::<i64>().values()),
        Map(..) => {
            let entries: Arc<dyn Array> = Arc::new(values.as_map().entries().clone());
            listed(values.as_map().value_offsets(), &entries)
        }
        FixedSizeList(_, n) => {
            let (inner, n) = (weights(values.as_fixed_size_list().values()), usize::try_from(*n).unwrap_or(0));
            Weights::collect((0..values.len()).map(|i| placed(inner.between(i.saturating_mul(n), (i + 1).saturating_mul(n)))))
        }
        ListView(_) => ranges(values.as_list_view::<i32>()),
        LargeListView(_) => ranges(values.as_list_view::<i64>()),
        Struct(_) => {
            let inner: Vec<Weights> = values.as_struct().columns().iter().map(|c| weights(c)).collect();
            let row = |i: usize| inner.iter().fold(PLACE, |sum, c| sum.saturating_add(c.between(i, i + 1)));
            Weights::collect((0..values.len()).map(row))
        }
        Dictionary(..) => {
            let dictionary = values.as_any_dictionary();
            let inner = weights(dictionary.values());
            let keys = dictionary.keys();
            let normal = if dictionary.values().is_empty() { vec![0; keys.len()] } else { dictionary.normalized_keys() };
            let meant = |(i, key): (usize, usize)| if keys.is_null(i) { PLACE } else { placed(inner.between(key, key + 1)) };
            Weights::collect(normal.into_iter().enumerate().map(meant))
        }
        RunEndEncoded(ends, _) => match ends.data_type() {
            Int16 => runs(values.as_any().downcast_ref::<RunArray<Int16Type>>()),
            Int32 => runs(values.as_any().downcast_ref::<RunArray<Int32Type>>()),
            _ => runs(values.as_any().downcast_ref::<RunArray<Int64Type>>()),
        },
        t => Weights::Each(t.primitive_width().unwrap_or(PLACE)),
    }
}

fn placed(bytes: usize) -> usize {
    bytes.saturating_add(PLACE)
}

/// The length of a view is its lower half.
fn viewed(views: &[u128], nulls: Option<&NullBuffer>) -> Weights {
    let valid = |i: usize| nulls.is_none_or(|n| n.is_valid(i));
    Weights::collect(views.iter().enumerate().map(|(i, view)| if valid(i) { placed(*view as u32 as usize) } else { PLACE }))
}

fn listed<O: OffsetSizeTrait>(offsets: &[O], values: &Arc<dyn Array>) -> Weights {
    let inner = weights(values);
    let ends = offsets.iter().skip(1);
    Weights::collect(offsets.iter().zip(ends).map(|(from, to)| placed(inner.between(from.as_usize(), to.as_usize()))))
}

fn ranges<O: OffsetSizeTrait>(lists: &GenericListViewArray<O>) -> Weights {
    let inner = weights(lists.values());
    let range = |(from, size): (&O, &O)| placed(inner.between(from.as_usize(), from.as_usize().saturating_add(size.as_usize())));
    Weights::collect(lists.value_offsets().iter().zip(lists.value_sizes()).map(range))
}

/// Runs are weighed without writing them out: a run may be as long as it says.
fn runs<R: RunEndIndexType>(array: Option<&RunArray<R>>) -> Weights {
    let Some(array) = array else { return Weights::Each(usize::MAX) };
    let inner = weights(array.values());
    let ends = array.run_ends();
    let (from, to) = (ends.offset(), ends.offset().saturating_add(array.len()));
    let mut run = 0;
    Weights::collect((from..to).map(|i| {
        while ends.values().get(run).is_some_and(|end| end.as_usize() <= i) {
            run += 1;
        }
        placed(inner.between(run, run + 1))
    }))
}
