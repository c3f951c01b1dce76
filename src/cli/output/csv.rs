//! RFC 4180 lines. NULL is an empty field, an empty text is `""`; lists and structs are JSON.

use std::io::Write;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use remige::error::{Error, Result};

use super::{Printer, Stop, in_utc, utc_schema};

pub struct CsvPrinter {
    schema: SchemaRef,
    header_written: bool,
}

enum Column<'a> {
    Plain(ArrayFormatter<'a>),
    Nested(NullableEncoder<'a>),
}

impl CsvPrinter {
    pub fn new(schema: &SchemaRef) -> Self {
        CsvPrinter { schema: utc_schema(schema, false), header_written: false }
    }

    fn header(&mut self, out: &mut dyn Write) -> Result<(), Stop> {
        if !self.header_written {
            self.header_written = true;
            let names: Vec<String> = self.schema.fields().iter().map(|f| field(f.name())).collect();
            out.write_all(names.join(",").as_bytes())?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

impl Printer for CsvPrinter {
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Stop> {
        self.header(out)?;
        let format = FormatOptions::default();
        let json = EncoderOptions::default().with_explicit_nulls(true);
        let arrays = in_utc(batch, false)?;
        let mut columns: Vec<Column<'_>> = Vec::with_capacity(arrays.len());
        for (array, of) in arrays.iter().zip(self.schema.fields()) {
            columns.push(if is_nested(array.data_type()) {
                Column::Nested(make_encoder(of, array, &json).map_err(Error::from)?)
            } else {
                Column::Plain(ArrayFormatter::try_new(array, &format).map_err(Error::from)?)
            });
        }
        // Of a dictionary and a column of type NULL only the logical nulls tell.
        let nulls: Vec<_> = arrays.iter().map(|a| a.logical_nulls()).collect();
        let mut line = String::new();
        let mut scratch = Vec::new();
        for row in 0..batch.num_rows() {
            line.clear();
            for (i, (column, nulls)) in columns.iter_mut().zip(&nulls).enumerate() {
                if i > 0 {
                    line.push(',');
                }
                if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
                    continue;
                }
                match column {
                    Column::Plain(f) => line.push_str(&field(&f.value(row).try_to_string().map_err(Error::from)?)),
                    Column::Nested(encoder) => {
                        scratch.clear();
                        encoder.encode(row, &mut scratch);
                        line.push_str(&field(&String::from_utf8_lossy(&scratch)));
                    }
                }
            }
            line.push('\n');
            out.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    fn end(&mut self, _rows: u64, _cut: bool, out: &mut dyn Write) -> Result<(), Stop> {
        self.header(out)
    }
}

fn is_nested(data_type: &DataType) -> bool {
    data_type.is_nested() && !matches!(data_type, DataType::Dictionary(..) | DataType::RunEndEncoded(..))
}

fn field(text: &str) -> String {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ') {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_string()
}
