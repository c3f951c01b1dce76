//! Batches and columns that hold no more memory than their rows need.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::{ByteViewType, DataType};
use datafusion::common::Result;
use datafusion::physical_plan::spill::get_record_batch_memory_size;

/// Batches of so few rows may be slices of something much larger.
const FEW_ROWS: usize = 4096;

/// A view array keeps every buffer alive that its rows ever came from.
pub fn compacted_array(array: ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        _ => array,
    })
}

/// Takes a view array off its buffers where its rows need less than these hold. Rows that share a long value keep sharing it.
pub fn without_most(array: ArrayRef) -> Result<ArrayRef> {
    let (held, used) = match array.data_type() {
        DataType::Utf8View => buffers_of(array.as_string_view()),
        DataType::BinaryView => buffers_of(array.as_binary_view()),
        _ => return Ok(array),
    };
    if used < held { compacted_array(array) } else { Ok(array) }
}

/// Bytes of the buffers, and bytes that the rows refer to.
fn buffers_of<T: ByteViewType + ?Sized>(array: &GenericByteViewArray<T>) -> (usize, usize) {
    (array.data_buffers().iter().map(Buffer::len).sum(), array.total_buffer_bytes_used())
}

/// A batch that holds no more memory than its rows need.
pub fn compacted(batch: RecordBatch) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    if rows < FEW_ROWS && rows * 512 < get_record_batch_memory_size(&batch) {
        let all = UInt32Array::from_iter_values(0..rows as u32);
        return without_garbage(take_record_batch(&batch, &all)?);
    }
    without_garbage(batch)
}

fn without_garbage(batch: RecordBatch) -> Result<RecordBatch> {
    if !batch.schema().fields().iter().any(|f| matches!(f.data_type(), DataType::Utf8View | DataType::BinaryView)) {
        return Ok(batch);
    }
    let (schema, columns, rows) = batch.into_parts();
    let columns = columns.into_iter().map(compacted_array).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}
