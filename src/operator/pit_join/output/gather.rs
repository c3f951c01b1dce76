//! Values of one column by rank, where some ranks are `NO_ROW`; for columns of varying width (others: `packed`).

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, GenericByteArray, UInt32Array, new_null_array};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{ArrowNativeType, BinaryType, ByteArrayType, DataType, LargeBinaryType, LargeUtf8Type, Utf8Type};
use datafusion::common::Result;

use crate::operator::pit_join::scan::row_set::NO_ROW;

/// Bytes copied at a time.
const PIECE: usize = 16;

/// Ranks, and what is computed of them once for all columns.
pub struct Ranks<'a> {
    ranks: &'a [u32],
    /// `None`: all are rows.
    valid: Option<NullBuffer>,
    /// Row 0 in place of no row, for arrow's kernels; made when first needed.
    indices: Option<UInt32Array>,
}

impl<'a> Ranks<'a> {
    pub fn new(ranks: &'a [u32]) -> Self {
        let valid = NullBuffer::new(BooleanBuffer::collect_bool(ranks.len(), |i| ranks[i] != NO_ROW));
        Ranks { ranks, valid: Some(valid).filter(|v| v.null_count() > 0), indices: None }
    }

    pub fn len(&self) -> usize {
        self.ranks.len()
    }

    pub fn as_slice(&self) -> &'a [u32] {
        self.ranks
    }

    /// Which are rows; `None`: all are.
    pub fn valid(&self) -> Option<&NullBuffer> {
        self.valid.as_ref()
    }

    pub fn are_none(&self) -> bool {
        self.valid.as_ref().is_some_and(|v| v.null_count() == v.len())
    }

    /// The values of these ranks; NULL for no row.
    pub fn of(&mut self, column: &ArrayRef) -> Result<ArrayRef> {
        if column.is_empty() || self.are_none() {
            return Ok(new_null_array(column.data_type(), self.len()));
        }
        if *column.data_type() == DataType::Boolean {
            let nulls = match column.nulls().filter(|n| n.null_count() > 0) {
                Some(nulls) => Some(NullBuffer::new(self.bits(nulls.inner()))),
                None => self.valid.clone(),
            };
            return Ok(Arc::new(BooleanArray::new(self.bits(column.as_boolean().values()), nulls)));
        }
        let gathered = match column.data_type() {
            DataType::Utf8 => self.bytes::<Utf8Type>(column),
            DataType::LargeUtf8 => self.bytes::<LargeUtf8Type>(column),
            DataType::Binary => self.bytes::<BinaryType>(column),
            DataType::LargeBinary => self.bytes::<LargeBinaryType>(column),
            _ => None,
        };
        if let Some(gathered) = gathered {
            return Ok(gathered);
        }
        let ranks = self.ranks;
        let indices = self.indices.get_or_insert_with(|| {
            let rows = ranks.iter().map(|r| row(*r) as u32).collect::<Vec<_>>();
            UInt32Array::new(rows.into(), self.valid.clone())
        });
        Ok(take(column, indices, None)?)
    }

    /// Values of varying length. Short ones are copied in pieces of one size, which is several times as fast as copies
    /// of the exact length; what is copied too much is overwritten by the next value. `None`: leave it to arrow.
    fn bytes<T: ByteArrayType>(&self, column: &ArrayRef) -> Option<ArrayRef> {
        let column = column.as_bytes::<T>();
        let nulls = match column.nulls().filter(|n| n.null_count() > 0) {
            Some(nulls) => Some(NullBuffer::new(self.bits(nulls.inner()))),
            None => self.valid.clone(),
        };
        let (starts, data) = (column.value_offsets(), column.value_data());
        let range = |rank: u32| {
            let row = row(rank);
            (starts[row].as_usize(), if rank == NO_ROW { starts[row].as_usize() } else { starts[row + 1].as_usize() })
        };
        let mut ends = Vec::with_capacity(self.len() + 1);
        let mut end = 0;
        ends.push(T::Offset::usize_as(0));
        for (from, to) in self.ranks.iter().map(|r| range(*r)) {
            end += to - from;
            ends.push(T::Offset::from_usize(end)?);
        }
        let mut values = vec![0u8; end + PIECE];
        let mut at = 0;
        for (from, to) in self.ranks.iter().map(|r| range(*r)) {
            let length = to - from;
            match (values[at..].first_chunk_mut::<PIECE>(), data[from..].first_chunk::<PIECE>()) {
                (Some(place), Some(piece)) if length <= PIECE => *place = *piece,
                _ => values[at..at + length].copy_from_slice(&data[from..to]),
            }
            at += length;
        }
        values.truncate(end);
        let array = GenericByteArray::<T>::try_new(OffsetBuffer::new(ends.into()), values.into(), nulls);
        array.ok().map(|a| Arc::new(a) as ArrayRef)
    }

    /// False for no row.
    fn bits(&self, of: &BooleanBuffer) -> BooleanBuffer {
        BooleanBuffer::collect_bool(self.ranks.len(), |i| (self.ranks[i] != NO_ROW) & of.value(row(self.ranks[i])))
    }
}

/// Without a branch, so that many reads are under way at once.
#[inline]
fn row(rank: u32) -> usize {
    if rank == NO_ROW { 0 } else { rank as usize }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::*;
    use datafusion::arrow::datatypes::{Int32Type, TimeUnit};

    /// Every kind of column against arrow's own kernel.
    #[test]
    fn as_take_does() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)])),
            Arc::new(Int8Array::from(vec![1, 2, 3, 4])),
            Arc::new(Float64Array::from(vec![Some(0.5), None, None, Some(f64::NAN)])),
            Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3, 4]).with_timezone("+00:00")),
            Arc::new(Decimal128Array::from(vec![Some(1), Some(2), None, Some(4)]).with_precision_and_scale(9, 2).unwrap()),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)])),
            Arc::new(BooleanArray::from(vec![true, false, false, true])),
            Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("long enough to be no inline view")])),
            Arc::new(StringArray::from(vec!["ä", "sixteen bytes ok", "", "seventeen bytes ok"])),
            Arc::new(LargeStringArray::from(vec!["a long one that comes first of all", "", "b", "c"])),
            Arc::new(BinaryArray::from(vec![b"\xff".as_slice(), b"", b"1234567890123456", b"12345678901234567"])),
            Arc::new(LargeBinaryArray::from(vec![b"".as_slice(), b"", b"", b""])),
            Arc::new(StringViewArray::from(vec![Some("a"), None, Some(""), Some("long enough to be no inline view")])),
            Arc::new(DictionaryArray::<Int32Type>::from_iter([Some("x"), None, Some("y"), Some("x")])),
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1)]), None, Some(vec![]), Some(vec![None])])),
            Arc::new(NullArray::new(4)),
        ];
        let all: Vec<Vec<u32>> = vec![
            vec![],
            vec![3, 0, 0, 2, 1],
            vec![NO_ROW, 3, NO_ROW, 1],
            vec![NO_ROW; 3],
            (0..200).map(|i| if i % 7 == 0 { NO_ROW } else { i % 4 }).collect(),
        ];
        for column in &columns {
            // with an offset, too
            for column in [ArrayRef::clone(column), column.slice(0, 4), new_slice(column)] {
                for ranks in &all {
                    let indices = UInt32Array::from_iter(ranks.iter().map(|r| (*r != NO_ROW).then_some(*r)));
                    let expected = take(&column, &indices, None).unwrap();
                    let got = Ranks::new(ranks).of(&column).unwrap();
                    assert_eq!(&got, &expected, "{} {ranks:?}", column.data_type());
                    assert_eq!(got.data_type(), column.data_type());
                }
            }
        }
        assert_eq!(columns[3].data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())));
    }

    fn new_slice(column: &ArrayRef) -> ArrayRef {
        let twice = datafusion::arrow::compute::concat(&[column.as_ref(), column.as_ref()]).unwrap();
        twice.slice(3, 4)
    }

    #[test]
    fn of_nothing() {
        let none: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
        let got = Ranks::new(&[NO_ROW, NO_ROW]).of(&none).unwrap();
        assert_eq!((got.len(), got.null_count()), (2, 2));
    }
}
