//! One JSON object per row; timestamps as RFC 3339 in UTC, bytes as hex, floats that JSON has no number for as the
//! texts "NaN", "Infinity" and "-Infinity".

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, FieldRef, Float16Type, Float32Type, Float64Type, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, LineDelimited, NullableEncoder, WriterBuilder};
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

/// Writes floats.
#[derive(Debug)]
struct Floats;

impl EncoderFactory for Floats {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let value: Box<dyn Fn(usize) -> (f64, String) + 'a> = match array.data_type() {
            DataType::Float64 => Box::new(|i| of(array.as_primitive::<Float64Type>().value(i))),
            DataType::Float32 => Box::new(|i| {
                let v = array.as_primitive::<Float32Type>().value(i);
                (f64::from(v), format!("{v:?}"))
            }),
            DataType::Float16 => Box::new(|i| of(f64::from(array.as_primitive::<Float16Type>().value(i)))),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(Box::new(Float(value)), array.nulls().cloned())))
    }
}

fn of(v: f64) -> (f64, String) {
    (v, format!("{v:?}"))
}

/// A value and how a number of its width is written.
struct Float<'a>(Box<dyn Fn(usize) -> (f64, String) + 'a>);

impl Encoder for Float<'_> {
    fn encode(&mut self, idx: usize, out: &mut Vec<u8>) {
        let (value, text) = (self.0)(idx);
        out.extend_from_slice(match value {
            v if v.is_nan() => b"\"NaN\"",
            f64::INFINITY => b"\"Infinity\"",
            f64::NEG_INFINITY => b"\"-Infinity\"",
            _ => text.as_bytes(),
        });
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
        let mut writer =
            WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Floats)).build::<_, LineDelimited>(Vec::new());
        writer.write(&rows).and_then(|()| writer.finish()).map_err(Error::from)?;
        out.write_all(&writer.into_inner())?;
        Ok(())
    }

    fn end(&mut self, _rows: u64, _cut: bool, _out: &mut dyn Write) -> Result<(), Stop> {
        Ok(())
    }
}
