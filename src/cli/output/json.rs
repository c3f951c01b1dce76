//! One JSON object per row; timestamps as RFC 3339 in UTC, bytes as hex.

use std::collections::HashSet;
use std::io::Write;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::json::WriterBuilder;
use datafusion::arrow::json::writer::LineDelimited;
use remige::error::{Error, Result};

use super::{Printer, Stop, in_utc, utc_schema};

pub struct JsonPrinter {
    schema: SchemaRef,
}

impl JsonPrinter {
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        let mut seen = HashSet::new();
        for field in schema.fields() {
            if !seen.insert(field.name()) {
                return Err(Error::invalid(format!(
                    "the result has two columns named {:?}, which one JSON object cannot hold",
                    field.name()
                ))
                .with_hint("give one of them another name with AS"));
            }
        }
        Ok(JsonPrinter { schema: utc_schema(schema, true) })
    }
}

impl Printer for JsonPrinter {
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Stop> {
        if batch.num_columns() == 0 {
            for _ in 0..batch.num_rows() {
                out.write_all(b"{}\n")?;
            }
            return Ok(());
        }
        let columns = in_utc(batch, true)?;
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(Error::from)?;
        // Through a buffer: a failing pipe must stay an I/O error.
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
        writer.write(&rows).and_then(|()| writer.finish()).map_err(Error::from)?;
        out.write_all(&writer.into_inner())?;
        Ok(())
    }

    fn end(&mut self, _rows: u64, _cut: bool, _out: &mut dyn Write) -> Result<(), Stop> {
        Ok(())
    }
}
