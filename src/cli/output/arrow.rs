//! The Arrow IPC stream format, with the engine's own types.

use std::io::Write;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::writer::StreamWriter;
use remige::error::{Error, Result};

use super::{Printer, Stop};

/// The IPC writer owns its sink, so it writes into a buffer that is emptied after every batch.
pub struct ArrowPrinter {
    writer: StreamWriter<Vec<u8>>,
}

impl ArrowPrinter {
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        Ok(ArrowPrinter { writer: StreamWriter::try_new(Vec::new(), schema)? })
    }

    fn drain(&mut self, out: &mut dyn Write) -> Result<(), Stop> {
        out.write_all(self.writer.get_ref())?;
        self.writer.get_mut().clear();
        Ok(())
    }
}

impl Printer for ArrowPrinter {
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Stop> {
        self.writer.write(batch).map_err(Error::from)?;
        self.drain(out)
    }

    fn end(&mut self, _rows: u64, _cut: bool, out: &mut dyn Write) -> Result<(), Stop> {
        self.writer.finish().map_err(Error::from)?;
        self.drain(out)
    }
}
