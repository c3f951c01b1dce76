//! Rows of fixed width: all such columns of a row stand together, so that a row costs one trip to memory and not one
//! per column. Filled by several tasks, each its own rows.

use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::{Array, ArrayRef, make_array};
use datafusion::arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::{DataFusionError, Result};
use parking_lot::Mutex;

use super::gather::Ranks;
use crate::operator::pit_join::scan::row_set::NO_ROW;

/// Rows per chunk: their memory comes as they are filled, and nothing is moved when there are more.
const CHUNK_BITS: usize = 16;
const CHUNK_ROWS: usize = 1 << CHUNK_BITS;
/// Bytes of rows that are taken apart at a time: they stay in the processor's cache.
const BLOCK_BYTES: usize = 64 << 10;

/// Some columns of rows `0..rows`.
#[derive(Debug)]
pub struct Packed {
    columns: Vec<Column>,
    /// Bytes per row: a bit per column that says it is not NULL, then the values.
    width: usize,
    rows: usize,
    chunks: Vec<Mutex<Vec<u8>>>,
}

#[derive(Debug)]
struct Column {
    data_type: DataType,
    bytes: usize,
    offset: usize,
    has_nulls: AtomicBool,
}

/// Rows that nobody fills any more.
#[derive(Debug)]
pub struct PackedRows {
    columns: Vec<Column>,
    width: usize,
    chunks: Vec<Vec<u8>>,
}

impl Packed {
    /// True where a column of this type can be packed.
    pub fn holds(data_type: &DataType) -> bool {
        data_type.primitive_width().is_some()
    }

    /// Room for some columns of `schema`.
    pub fn new(schema: &Schema, columns: &[usize], rows: usize) -> Self {
        let mut width = columns.len().div_ceil(8);
        let columns: Vec<Column> = columns
            .iter()
            .map(|c| {
                let data_type = schema.field(*c).data_type().clone();
                let bytes = data_type.primitive_width().unwrap_or(0);
                let offset = width;
                width += bytes;
                Column { data_type, bytes, offset, has_nulls: AtomicBool::new(false) }
            })
            .collect();
        // Rows that begin at multiples of eight bytes lie across fewer cache lines.
        let width = width.next_multiple_of(8);
        let chunks = if columns.is_empty() { 0 } else { rows.div_ceil(CHUNK_ROWS) };
        Packed { columns, width, rows, chunks: (0..chunks).map(|_| Mutex::new(vec![])).collect() }
    }

    /// Bytes held when all rows are there.
    pub fn size(&self) -> usize {
        self.chunks.len() * size_of::<Mutex<Vec<u8>>>() + if self.columns.is_empty() { 0 } else { self.rows * self.width }
    }

    /// Writes values of rows from `first` on: one array per column.
    pub fn write(&self, first: usize, arrays: &[&ArrayRef]) -> Result<()> {
        let Some(rows) = arrays.first().map(|a| a.len()) else { return Ok(()) };
        let fits = arrays.len() == self.columns.len() && arrays.iter().zip(&self.columns).all(|(a, c)| *a.data_type() == c.data_type);
        if !fits || first + rows > self.rows {
            return Err(DataFusionError::Internal("the rows that were read are not those that were asked for".into()));
        }
        for (column, array) in self.columns.iter().zip(arrays) {
            if array.null_count() > 0 {
                column.has_nulls.store(true, Ordering::Relaxed);
            }
        }
        let mut done = 0;
        while done < rows {
            let (chunk, at) = ((first + done) >> CHUNK_BITS, (first + done) & (CHUNK_ROWS - 1));
            let count = (CHUNK_ROWS - at).min(rows - done);
            let mut held = self.chunks[chunk].lock();
            if held.is_empty() {
                *held = vec![0; CHUNK_ROWS.min(self.rows - (chunk << CHUNK_BITS)) * self.width];
            }
            let place = &mut held[at * self.width..(at + count) * self.width];
            for rows in place.chunks_mut(self.block() * self.width) {
                let count = rows.len() / self.width;
                for (number, (column, array)) in self.columns.iter().zip(arrays).enumerate() {
                    column.write(number, &array.slice(done, count), rows, self.width)?;
                }
                done += count;
            }
        }
        Ok(())
    }

    fn block(&self) -> usize {
        block(self.width)
    }

    pub fn filled(self) -> PackedRows {
        let chunks = self.chunks.into_iter().map(Mutex::into_inner).collect();
        PackedRows { columns: self.columns, width: self.width, chunks }
    }
}

/// Rows at a time: a multiple of 64, because their NULLs are put together as words.
fn block(width: usize) -> usize {
    (BLOCK_BYTES / width.max(1)).next_multiple_of(64).max(64)
}

impl Column {
    fn write(&self, number: usize, array: &ArrayRef, rows: &mut [u8], width: usize) -> Result<()> {
        let data = array.to_data();
        let values = &data.buffers()[0].as_slice()[data.offset() * self.bytes..(data.offset() + data.len()) * self.bytes];
        match self.bytes {
            1 => put::<1>(values, rows, width, self.offset),
            2 => put::<2>(values, rows, width, self.offset),
            4 => put::<4>(values, rows, width, self.offset),
            8 => put::<8>(values, rows, width, self.offset),
            16 => put::<16>(values, rows, width, self.offset),
            32 => put::<32>(values, rows, width, self.offset),
            n => return Err(DataFusionError::Internal(format!("values of {n} bytes cannot be packed"))),
        }
        let (byte, bit) = (number / 8, 1 << (number % 8));
        match array.nulls().filter(|n| n.null_count() > 0) {
            None => rows.chunks_exact_mut(width).for_each(|row| row[byte] |= bit),
            Some(nulls) => {
                for (row, valid) in rows.chunks_exact_mut(width).zip(nulls.iter()) {
                    row[byte] |= if valid { bit } else { 0 };
                }
            }
        }
        Ok(())
    }
}

fn put<const N: usize>(values: &[u8], rows: &mut [u8], width: usize, offset: usize) {
    for (row, value) in rows.chunks_exact_mut(width).zip(values.as_chunks::<N>().0) {
        row[offset..offset + N].copy_from_slice(value);
    }
}

fn get<const N: usize>(rows: &[u8], width: usize, offset: usize, values: &mut [u8]) {
    for (row, value) in rows.chunks_exact(width).zip(values.as_chunks_mut::<N>().0) {
        value.copy_from_slice(&row[offset..offset + N]);
    }
}

impl PackedRows {
    /// All columns of the rows of these ranks; NULLs for no row.
    pub fn gather(&self, ranks: &Ranks) -> Result<Vec<ArrayRef>> {
        if self.columns.is_empty() {
            return Ok(vec![]);
        }
        let count = ranks.len();
        let mut values: Vec<MutableBuffer> = self.columns.iter().map(|c| MutableBuffer::from_len_zeroed(count * c.bytes)).collect();
        let mut valid: Vec<Vec<u64>> = self.columns.iter().map(|_| vec![]).collect();
        let block = block(self.width);
        let mut rows = vec![0u8; block.min(count) * self.width];
        for (number, ranks) in ranks.as_slice().chunks(block).enumerate() {
            let rows = &mut rows[..ranks.len() * self.width];
            for (row, rank) in rows.chunks_exact_mut(self.width).zip(ranks) {
                if *rank == NO_ROW {
                    row.fill(0);
                } else {
                    let at = (*rank as usize & (CHUNK_ROWS - 1)) * self.width;
                    row.copy_from_slice(&self.chunks[*rank as usize >> CHUNK_BITS][at..at + self.width]);
                }
            }
            for (i, (column, (values, valid))) in self.columns.iter().zip(values.iter_mut().zip(&mut valid)).enumerate() {
                let from = number * block * column.bytes;
                let values = &mut values.as_slice_mut()[from..from + ranks.len() * column.bytes];
                match column.bytes {
                    1 => get::<1>(rows, self.width, column.offset, values),
                    2 => get::<2>(rows, self.width, column.offset, values),
                    4 => get::<4>(rows, self.width, column.offset, values),
                    8 => get::<8>(rows, self.width, column.offset, values),
                    16 => get::<16>(rows, self.width, column.offset, values),
                    _ => get::<32>(rows, self.width, column.offset, values),
                }
                if column.has_nulls.load(Ordering::Relaxed) {
                    let (byte, bit) = (i / 8, i % 8);
                    valid.extend(rows.chunks(64 * self.width).map(|rows| {
                        let bits = rows.chunks_exact(self.width).map(|row| u64::from(row[byte] >> bit & 1));
                        bits.enumerate().fold(0, |word, (i, bit)| word | bit << i)
                    }));
                }
            }
        }
        let columns = self.columns.iter().zip(values.into_iter().zip(valid));
        let array = |(column, (values, valid)): (&Column, (MutableBuffer, Vec<u64>))| {
            let nulls = match column.has_nulls.load(Ordering::Relaxed) {
                true => Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(valid), 0, count))),
                false => ranks.valid().cloned(),
            };
            let data = datafusion::arrow::array::ArrayData::builder(column.data_type.clone());
            Ok(make_array(data.len(count).add_buffer(values.into()).nulls(nulls).build()?))
        };
        columns.map(array).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use datafusion::arrow::array::*;
    use datafusion::arrow::compute::{concat, take};
    use datafusion::arrow::datatypes::{Field, IntervalMonthDayNano, i256};

    fn columns(rows: usize) -> Vec<ArrayRef> {
        let i = || 0..rows as i64;
        vec![
            Arc::new(Int64Array::from_iter(i().map(|v| (v % 5 != 0).then_some(v)))),
            Arc::new(Int8Array::from_iter_values(i().map(|v| v as i8))),
            Arc::new(Float64Array::from_iter(i().map(|v| (v % 3 != 1).then_some(if v % 7 == 0 { f64::NAN } else { v as f64 })))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(i()).with_timezone("+02:00")),
            Arc::new(UInt16Array::from_iter_values(i().map(|v| v as u16))),
            Arc::new(Float32Array::from_iter(i().map(|v| (v % 2 == 0).then_some(v as f32)))),
            Arc::new(Decimal128Array::from_iter_values(i().map(i128::from)).with_precision_and_scale(20, 3).unwrap()),
            Arc::new(Decimal256Array::from_iter(i().map(|v| (v > 3).then(|| i256::from_i128(v.into()))))),
            Arc::new(IntervalMonthDayNanoArray::from_iter_values(i().map(|v| IntervalMonthDayNano::new(v as i32, 1, v)))),
            Arc::new(Date32Array::from_iter(i().map(|_| None::<i32>))),
        ]
    }

    /// Rows wider than a block.
    #[test]
    fn very_wide_rows() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter((0..200i64).map(|v| (v != 7).then_some(v))));
        let schema = Schema::new((0..9000).map(|i| Field::new(format!("c{i}"), DataType::Int64, true)).collect::<Vec<_>>());
        let packed = Packed::new(&schema, &(0..9000).collect::<Vec<_>>(), 200);
        packed.write(0, &vec![&column; 9000]).unwrap();
        let ranks = [3, 199, NO_ROW, 7, 0];
        let columns = packed.filled().gather(&Ranks::new(&ranks)).unwrap();
        let expected: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), Some(199), None, None, Some(0)]));
        assert!(columns.len() == 9000 && columns.iter().all(|c| c.as_ref() == expected.as_ref()));
    }

    #[test]
    fn as_take_does() {
        let rows = CHUNK_ROWS + 1000;
        let columns = columns(rows);
        let fields: Vec<Field> = columns.iter().map(|c| Field::new("c", c.data_type().clone(), true)).collect();
        assert!(fields.iter().all(|f| Packed::holds(f.data_type())));
        let packed = Packed::new(&Schema::new(fields), &(0..columns.len()).collect::<Vec<_>>(), rows);
        // out of order, in uneven pieces that cross the chunks
        for (from, to) in [(50_000, rows), (0, 3), (3, 50_000)] {
            let slices: Vec<ArrayRef> = columns.iter().map(|c| c.slice(from, to - from)).collect();
            packed.write(from, &slices.iter().collect::<Vec<_>>()).unwrap();
        }
        assert!(packed.write(rows - 1, &columns.iter().collect::<Vec<_>>()).is_err());
        assert!(packed.write(0, &[&columns[0]]).is_err());
        let packed = packed.filled();
        let last = rows as u32 - 1;
        let many = (0..20_000u32).map(|i| if i % 11 == 0 { NO_ROW } else { i.wrapping_mul(2_654_435_761) % rows as u32 });
        for ranks in [vec![], vec![last, 0, 0, 65_535, 65_536], vec![NO_ROW, 3, NO_ROW], vec![NO_ROW; 70], many.collect()] {
            let indices = UInt32Array::from_iter(ranks.iter().map(|r| (*r != NO_ROW).then_some(*r)));
            for (got, column) in packed.gather(&Ranks::new(&ranks)).unwrap().iter().zip(&columns) {
                let expected = take(column, &indices, None).unwrap();
                assert_eq!(got.data_type(), column.data_type());
                // NaN is not NaN: by bytes
                let bytes = |a: &ArrayRef| format!("{:?}", concat(&[a.as_ref()]).unwrap());
                assert_eq!(bytes(got), bytes(&expected), "{}", column.data_type());
                assert_eq!(got.null_count(), expected.null_count());
            }
        }
    }
}
