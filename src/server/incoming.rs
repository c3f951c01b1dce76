//! Arrow messages from clients, looked at before they are decoded. arrow-ipc believes what their headers declare: a wrong
//! number there is a panic or, worse, an allocation that fails, which ends the process.

mod pieces;
mod weight;

use std::panic::{AssertUnwindSafe, catch_unwind};

use datafusion::arrow::ipc::{CompressionType, Message, MessageHeader, RecordBatch as Header, root_as_message};
use datafusion::arrow::record_batch::RecordBatch;

pub(super) use self::pieces::Pieces;
use super::lz4;
use crate::error::{Error, Result};

/// What a row costs at least: columns of NULLs take no bytes of a message, but many of what is made of them.
const ROW: usize = 8;

/// The messages of one stream.
pub(super) struct Incoming {
    limit: usize,
    /// Parameters are kept, so that `limit` is for all of them together; the rows of an ingest go on, so that it is for
    /// each message. Only those may be compressed.
    kept: bool,
    taken: usize,
    flat: usize,
}

impl Incoming {
    pub fn parameters(limit: usize) -> Self {
        Incoming { limit, kept: true, taken: 0, flat: 0 }
    }

    pub fn rows(limit: usize) -> Self {
        Incoming { limit, kept: false, taken: 0, flat: 0 }
    }

    /// Refuses a message that does not hold what it declares, or that would become larger than the limit.
    pub fn admit(&mut self, header: &[u8], body: &[u8]) -> Result<()> {
        let message = root_as_message(header).map_err(|e| damaged(format!("its header cannot be read: {e}")))?;
        let Some(batch) = batch(&message)? else { return Ok(()) };
        if self.kept && batch.compression().is_some() {
            return Err(Error::invalid("parameters must not be compressed")
                .with_hint("write them without a compression codec: in pyarrow, IpcWriteOptions(compression=None)"));
        }
        let bytes = bytes(&batch, body)?;
        let rows = count(batch.length())?;
        let size = bytes.saturating_add(header.len()).max(rows.saturating_mul(ROW));
        self.taken = if self.kept { self.taken.saturating_add(size) } else { size };
        self.within(self.taken)?;
        let most = bytes.max(self.limit / ROW);
        for node in batch.nodes().into_iter().flatten() {
            let (values, nulls) = (count(node.length())?, count(node.null_count())?);
            if values > most || nulls > values {
                return Err(damaged(format!("it declares a column of {values} values, {nulls} of them NULL, but holds {bytes} bytes")));
            }
        }
        Ok(())
    }

    /// Refuses decoded values that would become larger than the limit where each stands for itself: many keys of a
    /// dictionary may mean one long text.
    /// Answers the bytes of this one.
    pub fn admit_flat(&mut self, batch: &RecordBatch) -> Result<usize> {
        let mut bytes = 0_usize;
        for column in batch.columns() {
            if self.kept {
                weight::check_plain(column.data_type())?;
            }
            bytes = bytes.saturating_add(weight::of(column));
        }
        self.flat = if self.kept { self.flat.saturating_add(bytes) } else { bytes };
        self.within(self.flat)?;
        Ok(bytes)
    }

    fn within(&self, size: usize) -> Result<()> {
        let limit = self.limit;
        match (size > limit, self.kept) {
            (false, _) => Ok(()),
            (true, true) => Err(Error::exhausted(format!("the bound parameters are larger than {limit} bytes"))
                .with_hint("bind fewer rows at once, use bulk ingest (adbc_ingest), or raise server.max_parameter_bytes")),
            (true, false) => Err(Error::exhausted(format!("a record batch of the client holds more than {limit} bytes"))
                .with_hint("send smaller record batches, or raise server.max_message_bytes")),
        }
    }
}

/// Admits all messages of an IPC stream.
pub(super) fn admit_stream(mut ipc: &[u8], incoming: &mut Incoming) -> Result<()> {
    while let Some((header, body)) = next_message(&mut ipc)? {
        incoming.admit(header, body)?;
    }
    Ok(())
}

/// Header and body of the next message, read as arrow-ipc reads them; `None` at the end.
pub(super) fn next_message<'a>(ipc: &mut &'a [u8]) -> Result<Option<(&'a [u8], &'a [u8])>> {
    let cut = || damaged("it ends in the middle of a message");
    let Some((mut length, mut rest)) = ipc.split_first_chunk::<4>() else { return Ok(None) };
    if *length == [0xff; 4] {
        (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    }
    let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|_| damaged("it declares a negative length"))?;
    if length == 0 {
        return Ok(None);
    }
    let (header, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
    let message = root_as_message(header).map_err(|e| damaged(format!("a header cannot be read: {e}")))?;
    let (body, rest) = rest.split_at_checked(count(message.bodyLength())?).ok_or_else(cut)?;
    *ipc = rest;
    Ok(Some((header, body)))
}

/// Runs what decodes; a panic there costs the request and no more.
pub(super) fn guarded<T>(decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(unreadable()))
}

/// For data over which arrow-ipc panicked.
pub(super) fn unreadable() -> Error {
    damaged("its schema or its buffers make no sense")
}

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the Arrow data of the client is damaged: {why}"))
        .with_hint("send what an Arrow library writes: a schema, then record batches of it")
}

fn count(declared: i64) -> Result<usize> {
    usize::try_from(declared).map_err(|_| damaged(format!("it declares {declared} bytes or rows")))
}

fn batch<'a>(message: &Message<'a>) -> Result<Option<Header<'a>>> {
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|d| d.data()),
        // the decoder knows what to say
        _ => return Ok(None),
    };
    batch.map(Some).ok_or_else(|| damaged("a record batch has no header"))
}

/// What the buffers of a batch take once they are decoded.
fn bytes(batch: &Header<'_>, body: &[u8]) -> Result<usize> {
    let codec = batch.compression().map(|c| c.codec());
    let (mut stored, mut inflated) = (0_usize, 0_usize);
    for buffer in batch.buffers().into_iter().flatten() {
        let (from, length) = (count(buffer.offset())?, count(buffer.length())?);
        let data = from.checked_add(length).and_then(|to| body.get(from..to));
        let data = data.ok_or_else(|| damaged(format!("a buffer of {length} bytes at {from} lies outside of its {} bytes", body.len())))?;
        stored = stored.saturating_add(length);
        inflated = inflated.saturating_add(match codec {
            None => length,
            Some(codec) => size_inflated(data, codec)?,
        });
    }
    // each may be copied
    if stored > body.len() {
        return Err(damaged("its buffers overlap"));
    }
    Ok(inflated)
}

fn size_inflated(data: &[u8], codec: CompressionType) -> Result<usize> {
    if data.is_empty() {
        return Ok(0);
    }
    let (prefix, data) = data.split_first_chunk::<8>().ok_or_else(|| damaged("a compressed buffer has no length"))?;
    match i64::from_le_bytes(*prefix) {
        -1 => Ok(data.len()),
        0 => Ok(0),
        declared => {
            let declared = count(declared)?;
            // a reader of LZ4 goes on behind the declared end
            let real = if codec == CompressionType::LZ4_FRAME { lz4::most(data) } else { Some(0) };
            real.map(|real| declared.max(real)).ok_or_else(|| damaged("a compressed buffer is no LZ4 frame"))
        }
    }
}

#[cfg(test)]
mod tests;
